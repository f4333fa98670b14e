//! Scaled dot-product attention, some rows of one head at a time, so that the logits never leave the cache.

use rayon::prelude::*;

use crate::{
    Level, Packed,
    pointwise::{softmax_relative_row, softmax_row},
};

/// Logits one thread holds: half a second-level cache.
const LOGITS: usize = 1 << 18;

/// Sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Images times heads.
    pub batch: usize,
    /// Query tokens.
    pub queries: usize,
    /// Key tokens.
    pub keys: usize,
    /// Channels of a head.
    pub head: usize,
}

impl AttentionShape {
    pub(crate) fn check(&self, q: &[f32], k: &[f32], v: &[f32]) {
        let Self { batch, queries, keys, head } = *self;
        assert_eq!(q.len(), batch * queries * head, "queries of {batch} × {queries} × {head}");
        assert_eq!([k.len(), v.len()], [batch * keys * head; 2], "keys and values of {batch} × {keys} × {head}");
    }

    /// Computes all rows; `soften` turns the logits of query `row` of batch element `element` into weights.
    fn run(&self, [q, k, v]: [&[f32]; 3], soften: impl Fn(Level, usize, usize, &mut [f32]) + Sync) -> Vec<f32> {
        let Self { batch, queries, keys, head } = *self;
        let mut out = vec![0.0_f32; batch * queries * head];
        if out.is_empty() || keys == 0 {
            return out;
        }
        let level = Level::best();
        // Multiples of 24 fill the tiles of all widths.
        let block = (LOGITS / keys).next_multiple_of(24).clamp(24, queries.next_multiple_of(24));
        out.par_chunks_exact_mut(queries * head).enumerate().for_each(|(element, out)| {
            let of = |tokens: usize| element * tokens * head..(element + 1) * tokens * head;
            let (q, k, v) = (&q[of(queries)], &k[of(keys)], &v[of(keys)]);
            let (k, v) = (Packed::from_rows(k, [keys, head]), Packed::from_columns(v, [keys, head]));
            let blocks = out.par_chunks_mut(block * head).zip(q.par_chunks(block * head)).enumerate();
            blocks.for_each_init(Vec::new, |logits, (index, (out, q))| {
                let rows = q.len() / head;
                logits.clear();
                logits.resize(rows * keys, 0.0);
                k.accumulate(level, rows, (q, head), (logits, keys));
                for (row, logits) in logits.chunks_exact_mut(keys).enumerate() {
                    soften(level, element, index * block + row, logits);
                }
                v.accumulate(level, rows, (logits, keys), (out, head));
            });
        });
        out
    }
}

/// `softmax(q · kᵀ · scale + bias) · v`.
///
/// # Shapes
/// `q` `[batch, queries, head]`, `k` and `v` `[batch, keys, head]`, `bias` `[heads, queries, keys]` with `heads` dividing `batch`
/// (the heads of one image lie together) → `[batch, queries, head]`
pub fn attention([q, k, v]: [&[f32]; 3], shape: &AttentionShape, scale: f32, bias: Option<&[f32]>) -> Vec<f32> {
    shape.check(q, k, v);
    let map = shape.queries * shape.keys;
    let heads = bias.map_or(1, |bias| bias.len() / map.max(1));
    assert!(
        bias.is_none_or(|bias| heads > 0 && bias.len() == heads * map && shape.batch.is_multiple_of(heads)),
        "whole heads of bias"
    );
    shape.run([q, k, v], |level, element, row, logits| {
        match bias {
            Some(bias) => {
                let bias = &bias[element % heads * map + row * shape.keys..][..shape.keys];
                logits.iter_mut().zip(bias).for_each(|(logit, bias)| *logit = *logit * scale + bias);
            }
            None => logits.iter_mut().for_each(|logit| *logit *= scale),
        }
        softmax_row(level, logits);
    })
}

/// Attention over a map of `h · w` tokens with decomposed relative positions (Li et al. 2022, ViTDet): a logit gains the term of
/// its key's row and that of its key's column. The sum of both for all keys is never held.
///
/// # Shapes
/// `q`, `k`, `v` `[batch, h · w, head]`, `relative_h` `[batch, h · w, h]`, `relative_w` `[batch, h · w, w]` →
/// `[batch, h · w, head]`
pub fn relative_attention(
    [q, k, v]: [&[f32]; 3],
    shape: &AttentionShape,
    scale: f32,
    [relative_h, relative_w]: [&[f32]; 2],
    [h, w]: [usize; 2],
) -> Vec<f32> {
    shape.check(q, k, v);
    let rows = shape.batch * shape.queries;
    assert_eq!(shape.keys, h * w, "keys of a map of {h} × {w}");
    assert_eq!([relative_h.len(), relative_w.len()], [rows * h, rows * w], "relative terms of each query");
    shape.run([q, k, v], |level, element, row, logits| {
        let row = element * shape.queries + row;
        let (relative_h, relative_w) = (&relative_h[row * h..][..h], &relative_w[row * w..][..w]);
        softmax_relative_row(level, logits, scale, relative_h, relative_w);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(seed: usize, count: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 37 + seed * 101) % 97) as f32 / 20.0 - 2.4).collect()
    }

    /// The definition; `extra(element, query, key)` is added to a logit.
    fn slow(
        [q, k, v]: [&[f32]; 3],
        shape: &AttentionShape,
        scale: f64,
        extra: impl Fn(usize, usize, usize) -> f64,
    ) -> Vec<f64> {
        let AttentionShape { batch, queries, keys, head } = *shape;
        let mut out = Vec::new();
        for (element, query) in (0..batch * queries).map(|index| (index / queries, index % queries)) {
            let powers: Vec<f64> = (0..keys)
                .map(|key| {
                    let products = (0..head).map(|at| {
                        f64::from(q[(element * queries + query) * head + at])
                            * f64::from(k[(element * keys + key) * head + at])
                    });
                    (products.sum::<f64>() * scale + extra(element, query, key)).exp()
                })
                .collect();
            let total: f64 = powers.iter().sum();
            for at in 0..head {
                let sum: f64 = powers
                    .iter()
                    .enumerate()
                    .map(|(key, power)| power * f64::from(v[(element * keys + key) * head + at]))
                    .sum();
                out.push(sum / total);
            }
        }
        out
    }

    fn assert_close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "at {index}: {found}, expected {expected}");
        }
    }

    #[test]
    fn attention_equals_its_definition() {
        for (batch, queries, keys, head, heads) in
            [(2, 5, 7, 3, 1), (6, 49, 49, 32, 3), (1, 60, 130, 16, 1), (4, 1, 1, 8, 2)]
        {
            let shape = AttentionShape { batch, queries, keys, head };
            let (q, k, v) =
                (wave(1, batch * queries * head), wave(2, batch * keys * head), wave(3, batch * keys * head));
            let bias = wave(4, heads * queries * keys);
            let scale = (head as f32).powf(-0.5) * 0.3;
            let found = attention([&q, &k, &v], &shape, scale, Some(&bias));
            let extra = |element: usize, query: usize, key: usize| {
                f64::from(bias[(element % heads * queries + query) * keys + key])
            };
            assert_close(&found, &slow([&q, &k, &v], &shape, f64::from(scale), extra));
            let plain = attention([&q, &k, &v], &shape, scale, None);
            assert_close(&plain, &slow([&q, &k, &v], &shape, f64::from(scale), |_, _, _| 0.0));
        }
    }

    #[test]
    fn relative_attention_equals_its_definition() {
        let ([h, w], batch, head) = ([6, 9], 3, 10);
        let shape = AttentionShape { batch, queries: h * w, keys: h * w, head };
        let part = |seed: usize| wave(seed, batch * h * w * head);
        let (q, k, v) = (part(1), part(2), part(3));
        let (relative_h, relative_w) = (wave(4, batch * h * w * h), wave(5, batch * h * w * w));
        let found = relative_attention([&q, &k, &v], &shape, 0.1, [&relative_h, &relative_w], [h, w]);
        let extra = |element: usize, query: usize, key: usize| {
            let row = element * h * w + query;
            f64::from(relative_h[row * h + key / w]) + f64::from(relative_w[row * w + key % w])
        };
        assert_close(&found, &slow([&q, &k, &v], &shape, f64::from(0.1_f32), extra));
    }
}
