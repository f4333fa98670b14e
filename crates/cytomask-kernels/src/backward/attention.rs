//! Gradients of scaled dot-product attention. Weights are computed again, some queries at a time (as Dao et al. 2022,
//! FlashAttention, do), so that no map of all pairs is kept from the way there.

use rayon::prelude::*;

use super::product::accumulate_rows;
use crate::{AttentionShape, Level, level::for_each_level, pointwise::softmax_row, tile::transpose};

/// Logits met at a time: a quarter of a second-level cache.
const LOGITS: usize = 1 << 16;

/// Queries, keys, values and the gradient of the result of one head, rows of `head` values.
pub(super) struct Head<'a> {
    /// Times the scale.
    pub(super) queries: &'a [f32],
    pub(super) keys: &'a [f32],
    pub(super) values: &'a [f32],
    pub(super) dy: &'a [f32],
    /// Channels.
    pub(super) head: usize,
}

/// Vectors of a thread, used again.
#[derive(Default)]
pub(super) struct Memory {
    keys: Vec<f32>,
    values: Vec<f32>,
    weights: Vec<f32>,
    slopes: Vec<f32>,
    turned: Vec<f32>,
    edge: Vec<f32>,
}

impl Head<'_> {
    /// Adds to the gradients of scaled queries, keys and values. `add` adds to the logits of a query; `slopes` is told their gradients,
    /// `[rows, keys]`, from a first query on.
    pub(super) fn back(
        &self,
        level: Level,
        memory: &mut Memory,
        add: impl Fn(usize, &mut [f32]),
        mut slopes: impl FnMut(usize, &[f32]),
        [dq, dk, dv]: [&mut [f32]; 3],
    ) {
        let head = self.head;
        let (queries, keys) = (self.queries.len() / head, self.keys.len() / head);
        if queries * keys == 0 {
            return;
        }
        let Memory { keys: turned_keys, values: turned_values, weights, slopes: gradients, turned, edge } = memory;
        let line = keys.next_multiple_of(16);
        for (turned, rows) in [(&mut *turned_keys, self.keys), (&mut *turned_values, self.values)] {
            turned.clear();
            turned.resize(head * line, 0.0);
            transpose(level, (rows, head), [keys, head], (turned, line));
        }
        let block = (LOGITS / keys).next_multiple_of(24).clamp(24, queries.next_multiple_of(24));
        for first in (0..queries).step_by(block) {
            let rows = block.min(queries - first);
            let part = first * head..(first + rows) * head;
            let (q, dy) = (&self.queries[part.clone()], &self.dy[part.clone()]);
            for values in [&mut *weights, &mut *gradients] {
                values.clear();
                values.resize(rows * keys, 0.0);
            }
            accumulate_rows(level, [rows, head, keys], (q, head), (turned_keys, line), (weights, keys), edge);
            accumulate_rows(level, [rows, head, keys], (dy, head), (turned_values, line), (gradients, keys), edge);
            let both = weights.chunks_exact_mut(keys).zip(gradients.chunks_exact_mut(keys));
            for (row, (weights, gradients)) in both.enumerate() {
                add(first + row, weights);
                softmax_row(level, weights);
                softmax_gradient(level, weights, gradients);
            }
            slopes(first, gradients);
            accumulate_rows(
                level,
                [rows, keys, head],
                (gradients, keys),
                (self.keys, head),
                (&mut dq[part], head),
                edge,
            );
            for (values, other, target) in [(&*weights, dy, &mut *dv), (&*gradients, q, &mut *dk)] {
                turned.resize(rows * keys, 0.0);
                transpose(level, (values, keys), [rows, keys], (turned, rows));
                accumulate_rows(level, [keys, rows, head], (turned, rows), (other, head), (target, head), edge);
            }
        }
    }
}

/// Turns the gradients of weights into those of logits: `weight · (gradient − Σ weight · gradient)`.
#[inline(always)]
fn softmax_gradient_body(weights: &[f32], gradients: &mut [f32]) {
    const LANES: usize = 16;
    let mut parts = [0.0_f32; LANES];
    let ((chunks, rest), (gradient_chunks, gradient_rest)) =
        (weights.as_chunks::<LANES>(), gradients.as_chunks::<LANES>());
    for (weights, gradients) in chunks.iter().zip(gradient_chunks) {
        for lane in 0..LANES {
            parts[lane] += weights[lane] * gradients[lane];
        }
    }
    let tail: f32 = rest.iter().zip(gradient_rest).map(|(weight, gradient)| weight * gradient).sum();
    let mean = parts.iter().sum::<f32>() + tail;
    for (gradient, weight) in gradients.iter_mut().zip(weights) {
        *gradient = weight * (*gradient - mean);
    }
}

for_each_level! {
    fn softmax_gradient = softmax_gradient_body(weights: &[f32], gradients: &mut [f32])
}

/// Gradients of queries, keys and values of [`crate::attention`] without bias.
///
/// # Shapes
/// `q` and `dy` `[batch, queries, head]`, `k` and `v` `[batch, keys, head]` → as `q`, `k`, `v`
pub fn attention_gradients([q, k, v]: [&[f32]; 3], dy: &[f32], shape: &AttentionShape, scale: f32) -> [Vec<f32>; 3] {
    shape.check(q, k, v);
    let AttentionShape { batch, queries, keys, head } = *shape;
    assert_eq!(dy.len(), q.len(), "a gradient for each query");
    let mut gradients = [q, k, v].map(|values| vec![0.0_f32; values.len()]);
    if batch * queries * keys * head == 0 {
        return gradients;
    }
    let level = Level::best();
    let [dq, dk, dv] = &mut gradients;
    let targets = dq
        .par_chunks_exact_mut(queries * head)
        .zip(dk.par_chunks_exact_mut(keys * head))
        .zip(dv.par_chunks_exact_mut(keys * head));
    targets.enumerate().for_each_init(Memory::default, |memory, (element, ((dq, dk), dv))| {
        let of = |values: &'_ [f32], tokens: usize| {
            element * tokens * head..(element * tokens * head + tokens * head).min(values.len())
        };
        let scaled: Vec<f32> = q[of(q, queries)].iter().map(|value| value * scale).collect();
        let parts =
            Head { queries: &scaled, keys: &k[of(k, keys)], values: &v[of(v, keys)], dy: &dy[of(dy, queries)], head };
        parts.back(level, memory, |_, _| {}, |_, _| {}, [&mut *dq, dk, dv]);
        dq.iter_mut().for_each(|value| *value *= scale);
    });
    gradients
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, wave};

    #[test]
    fn gradients_equal_their_definition() {
        for (batch, queries, keys, head) in [(2, 5, 7, 3), (3, 50, 196, 16), (1, 400, 170, 8), (4, 1, 1, 8)] {
            let shape = AttentionShape { batch, queries, keys, head };
            let [q, dy] = [1, 2].map(|seed| wave(seed, batch * queries * head));
            let [k, v] = [3, 4].map(|seed| wave(seed, batch * keys * head));
            let scale = 0.3;
            let mut expected = [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]];
            for row in 0..batch * queries {
                let element = row / queries;
                let dot =
                    |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
                let of_query = |values: &[f32]| values[row * head..][..head].to_vec();
                let of_key = |values: &[f32], key: usize| values[(element * keys + key) * head..][..head].to_vec();
                let powers: Vec<f64> =
                    (0..keys).map(|key| (dot(&of_query(&q), &of_key(&k, key)) * f64::from(scale)).exp()).collect();
                let total: f64 = powers.iter().sum();
                let weights: Vec<f64> = powers.iter().map(|power| power / total).collect();
                let of_weights: Vec<f64> = (0..keys).map(|key| dot(&of_query(&dy), &of_key(&v, key))).collect();
                let mean: f64 = weights.iter().zip(&of_weights).map(|(a, b)| a * b).sum();
                for key in 0..keys {
                    let slope = weights[key] * (of_weights[key] - mean) * f64::from(scale);
                    for at in 0..head {
                        let (query, key_at) = (row * head + at, (element * keys + key) * head + at);
                        expected[0][query] += slope * f64::from(k[key_at]);
                        expected[1][key_at] += slope * f64::from(q[query]);
                        expected[2][key_at] += weights[key] * f64::from(dy[query]);
                    }
                }
            }
            let found = attention_gradients([&q, &k, &v], &dy, &shape, scale);
            for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_close(found, expected, &format!("{shape:?}, part {part}"));
            }
        }
    }
}
