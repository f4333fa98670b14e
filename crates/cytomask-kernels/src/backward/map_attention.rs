//! Gradients of the attention among the tokens of a map.

use rayon::prelude::*;

use super::{
    attention::{Head, Memory},
    product::{accumulate_rows, total},
};
use crate::{Level, MapAttention, Positions, tile::transpose};

/// What [`map_attention_gradients`] gives.
#[derive(Clone, Debug, Default)]
pub struct MapAttentionGradients {
    /// `[n, h, w, 3 · heads · head]`
    pub qkv: Vec<f32>,
    /// Of the token outside of the map, `[3 · heads · head]`.
    pub outside: Vec<f32>,
    /// Of the table, or of the rows and of the columns; empty where there is none.
    pub positions: [Vec<f32>; 2],
}

/// Gradients of the inputs and parameters of [`crate::map_attention`].
///
/// # Shapes
/// `qkv` `[n, h, w, 3 · heads · head]`, `dy` `[n, h, w, heads · head]`
pub fn map_attention_gradients(qkv: &[f32], dy: &[f32], shape: &MapAttention<'_>) -> MapAttentionGradients {
    shape.check(qkv);
    let channels = shape.channels();
    assert_eq!(dy.len() * 3, qkv.len(), "a gradient for each result");
    let [h, w] = shape.map;
    let level = Level::best();
    // One head of one image after the other, each in order of its windows.
    let parts: Vec<OfHead> = (0..shape.n * shape.heads)
        .into_par_iter()
        .map_init(Vectors::default, |vectors, index| {
            let image = index / shape.heads * h * w;
            let (qkv, dy) = (&qkv[image * 3 * channels..], &dy[image * channels..]);
            OfHead::new(level, vectors, qkv, dy, shape, index % shape.heads)
        })
        .collect();
    let mut found = MapAttentionGradients { qkv: crate::buffers::take(qkv.len()), ..Default::default() };
    let head = shape.head;
    found.qkv.par_chunks_exact_mut(3 * channels).enumerate().for_each(|(token, target)| {
        let (image, token) = (token / (h * w), token % (h * w));
        for (of_head, part) in parts[image * shape.heads..][..shape.heads].iter().enumerate() {
            for (which, values) in part.qkv[token * 3 * head..][..3 * head].chunks_exact(head).enumerate() {
                target[shape.first_channel(of_head, which)..][..head].copy_from_slice(values);
            }
        }
    });
    found.outside = vec![0.0; 3 * channels];
    for (index, part) in parts.iter().enumerate() {
        for (which, values) in part.outside.chunks_exact(head).enumerate() {
            let target = &mut found.outside[shape.first_channel(index % shape.heads, which)..][..head];
            target.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    }
    let [first, second]: [Vec<Vec<f32>>; 2] = [0, 1].map(|which| {
        let of_parts = parts.iter().map(|part| part.positions[which].clone());
        of_parts.collect()
    });
    found.positions = match shape.positions {
        Positions::None => Default::default(),
        // A table has a part for each head, which the images share.
        Positions::Table(_) => {
            let images: Vec<Vec<f32>> = first.chunks(shape.heads).map(<[Vec<f32>]>::concat).collect();
            let length = shape.heads * shape.tokens() * shape.tokens();
            [total(images, length), Vec::new()]
        }
        Positions::Relative { rows, columns } => [total(first, rows.len()), total(second, columns.len())],
    };
    found
}

/// Gradients of one head in one image.
struct OfHead {
    /// `[h · w, 3, head]`
    qkv: Vec<f32>,
    /// `[3, head]`
    outside: Vec<f32>,
    positions: [Vec<f32>; 2],
}

/// Vectors of a thread, used again.
#[derive(Default)]
struct Vectors {
    memory: Memory,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    dy: Vec<f32>,
    gradients: [Vec<f32>; 3],
    terms: [Vec<f32>; 2],
    edge: Vec<f32>,
}

impl OfHead {
    fn new(
        level: Level,
        vectors: &mut Vectors,
        qkv: &[f32],
        dy: &[f32],
        shape: &MapAttention<'_>,
        which: usize,
    ) -> Self {
        let MapAttention { map: [h, w], window, head, scale, .. } = *shape;
        let tokens = shape.tokens();
        let positions = match shape.positions {
            Positions::None => Default::default(),
            Positions::Table(_) => [vec![0.0; tokens * tokens], Vec::new()],
            Positions::Relative { rows, columns } => [vec![0.0; rows.len()], vec![0.0; columns.len()]],
        };
        let mut found = Self { qkv: vec![0.0; h * w * 3 * head], outside: vec![0.0; 3 * head], positions };
        let turned = match shape.positions {
            Positions::Relative { rows, columns } => Some([rows, columns].map(|table| Turned::new(level, table, head))),
            _ => None,
        };
        let [windows_h, windows_w] = shape.windows();
        for corner in (0..windows_h * windows_w).map(|at| [at / windows_w * window[0], at % windows_w * window[1]]) {
            found.window(level, vectors, qkv, dy, shape, which, corner, turned.as_ref());
        }
        found
            .qkv
            .chunks_exact_mut(3 * head)
            .for_each(|token| token[..head].iter_mut().for_each(|value| *value *= scale));
        found
    }

    #[expect(clippy::too_many_arguments, reason = "one window of one head")]
    fn window(
        &mut self,
        level: Level,
        vectors: &mut Vectors,
        qkv: &[f32],
        dy: &[f32],
        shape: &MapAttention<'_>,
        which: usize,
        corner: [usize; 2],
        turned: Option<&[Turned; 2]>,
    ) {
        let MapAttention { map: [h, w], window, head, scale, .. } = *shape;
        let (channels, tokens) = (shape.channels(), shape.tokens());
        let Vectors { memory, queries, keys, values, dy: of_window, gradients, terms, edge } = vectors;
        let [first_q, first_k, first_v] = [0, 1, 2].map(|part| shape.first_channel(which, part));
        [&mut *queries, &mut *keys, &mut *values, &mut *of_window].into_iter().for_each(Vec::clear);
        // Places in the window of its tokens on the map, and where on the map.
        let mut places = Vec::with_capacity(tokens);
        for token in 0..tokens {
            let [y, x] = [corner[0] + token / window[1], corner[1] + token % window[1]];
            if y < h && x < w {
                let at = &qkv[(y * w + x) * 3 * channels..][..3 * channels];
                queries.extend(at[first_q..][..head].iter().map(|value| value * scale));
                keys.extend(&at[first_k..][..head]);
                values.extend(&at[first_v..][..head]);
                of_window.extend(&dy[(y * w + x) * channels + which * head..][..head]);
                places.push([token, y * w + x]);
            } else if let Some(outside) = shape.outside {
                keys.extend(&outside[first_k..][..head]);
                values.extend(&outside[first_v..][..head]);
            } else {
                keys.resize(keys.len() + head, 0.0);
                values.resize(values.len() + head, 0.0);
            }
        }
        for (gradient, tokens) in gradients.iter_mut().zip([places.len(), tokens, tokens]) {
            gradient.clear();
            gradient.resize(tokens * head, 0.0);
        }
        if let Some(turned) = turned {
            for (terms, turned) in terms.iter_mut().zip(turned) {
                terms.clear();
                terms.resize(places.len() * turned.positions, 0.0);
                let b = (turned.values.as_slice(), turned.line);
                let c = (terms.as_mut_slice(), turned.positions);
                accumulate_rows(level, [places.len(), head, turned.positions], (queries, head), b, c, edge);
            }
        }
        let [dq, dk, dv] = gradients;
        // What the terms of positions add to the gradients of queries, which are not scaled there.
        let mut of_terms = vec![0.0_f32; if turned.is_some() { places.len() * head } else { 0 }];
        let add = |row: usize, logits: &mut [f32]| match shape.positions {
            Positions::None => {}
            Positions::Table(table) => {
                let table = &table[(which * tokens + places[row][0]) * tokens..][..tokens];
                logits.iter_mut().zip(table).for_each(|(logit, term)| *logit += term);
            }
            Positions::Relative { .. } => {
                let [first_row, first_column] = firsts(places[row][0], window);
                let of_rows = &terms[0][row * (2 * window[0] - 1)..][..=first_row];
                let of_columns = &terms[1][row * (2 * window[1] - 1)..][..=first_column];
                for (logits, of_row) in logits.chunks_exact_mut(window[1]).zip(of_rows.iter().rev()) {
                    for (logit, of_column) in logits.iter_mut().zip(of_columns.iter().rev()) {
                        *logit += (of_row + of_column) / scale;
                    }
                }
            }
        };
        let [of_table, of_columns] = &mut self.positions;
        let slopes = |first: usize, slopes: &[f32]| {
            for (row, slopes) in (first..).zip(slopes.chunks_exact(tokens)) {
                match shape.positions {
                    Positions::None => {}
                    Positions::Table(_) => {
                        let target = &mut of_table[places[row][0] * tokens..][..tokens];
                        target.iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += slope);
                    }
                    Positions::Relative { rows, columns } => {
                        let query = &queries[row * head..][..head];
                        let target = &mut of_terms[row * head..][..head];
                        let [first_row, first_column] = firsts(places[row][0], window);
                        let mut in_columns = vec![0.0_f32; window[1]];
                        for (y, slopes) in slopes.chunks_exact(window[1]).enumerate() {
                            in_columns.iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += slope);
                            let at = (first_row - y) * head..(first_row - y + 1) * head;
                            let slope = slopes.iter().sum::<f32>();
                            step(slope, [query, &rows[at.clone()]], scale, [&mut of_table[at], target]);
                        }
                        for (x, &slope) in in_columns.iter().enumerate() {
                            let at = (first_column - x) * head..(first_column - x + 1) * head;
                            step(slope, [query, &columns[at.clone()]], scale, [&mut of_columns[at], target]);
                        }
                    }
                }
            }
        };
        let parts = Head { queries, keys, values, dy: of_window, head };
        parts.back(level, memory, add, slopes, [&mut *dq, &mut *dk, &mut *dv]);
        for (dq, of_terms) in dq.iter_mut().zip(&of_terms) {
            // The scale follows for the whole head.
            *dq += of_terms / scale;
        }
        let mut on_map = places.iter().enumerate().peekable();
        for token in 0..tokens {
            let of_token = token * head..(token + 1) * head;
            let (dk, dv) = (&dk[of_token.clone()], &dv[of_token]);
            if let Some((row, [_, at])) = on_map.next_if(|(_, [place, _])| *place == token) {
                let target = &mut self.qkv[at * 3 * head..][..3 * head];
                target[..head].copy_from_slice(&dq[row * head..][..head]);
                target[head..2 * head].copy_from_slice(dk);
                target[2 * head..].copy_from_slice(dv);
            } else {
                let (_, target) = self.outside.split_at_mut(head);
                target.iter_mut().zip(dk.iter().chain(dv)).for_each(|(sum, value)| *sum += value);
            }
        }
    }
}

/// Index in the tables of relative positions of a query at `place` and the first row, and column, of keys; it falls from there.
fn firsts(place: usize, window: [usize; 2]) -> [usize; 2] {
    [place / window[1] + window[0] - 1, place % window[1] + window[1] - 1]
}

/// The share of one relative position in the gradients of the table and of the query; `query` is scaled.
#[inline]
fn step(slope: f32, [query, table]: [&[f32]; 2], scale: f32, [of_table, of_query]: [&mut [f32]; 2]) {
    let of_scaled = slope / scale;
    of_table.iter_mut().zip(query).for_each(|(sum, value)| *sum += of_scaled * value);
    of_query.iter_mut().zip(table).for_each(|(sum, value)| *sum += slope * value);
}

/// A table of relative positions with its channels as rows.
struct Turned {
    values: Vec<f32>,
    line: usize,
    positions: usize,
}

impl Turned {
    fn new(level: Level, table: &[f32], head: usize) -> Self {
        let positions = table.len() / head;
        let line = positions.next_multiple_of(16);
        let mut values = vec![0.0; head * line];
        transpose(level, (table, head), [positions, head], (&mut values, line));
        Self { values, line, positions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{QkvOrder, map_attention, testing::wave};

    /// `Σ dy · map_attention` by finite differences at some places of one of its inputs.
    fn assert_slopes(values: &[f32], gradient: &[f32], dy: &[f32], run: &dyn Fn(&[f32]) -> Vec<f32>, what: &str) {
        assert_eq!(values.len(), gradient.len(), "{what}");
        let most = gradient.iter().fold(0.1_f32, |most, value| most.max(value.abs()));
        let width = 1.0 / 64.0;
        let at = |index: usize, offset: f32| -> f64 {
            let mut moved = values.to_vec();
            moved[index] += offset;
            run(&moved).iter().zip(dy).map(|(y, dy)| f64::from(*y) * f64::from(*dy)).sum()
        };
        for index in (0..values.len()).step_by(values.len() / 40 + 1) {
            let slope = ((at(index, width) - at(index, -width)) / f64::from(2.0 * width)) as f32;
            let error = (slope - gradient[index]).abs();
            assert!(error < 4e-3 * most, "{what} at {index}: {}, expected {slope}", gradient[index]);
        }
    }

    #[test]
    fn gradients_are_the_slopes() {
        for (n, map, window, heads, head) in [(1, [4, 5], [4, 5], 2, 8), (2, [5, 7], [3, 3], 3, 6)] {
            let (channels, tokens) = (3 * heads * head, window[0] * window[1]);
            let pixels = n * map[0] * map[1];
            let (qkv, dy) = (wave(1, pixels * channels), wave(2, pixels * heads * head));
            let [rows, columns]: [Vec<f32>; 2] = window.map(|side| wave(side, (2 * side - 1) * head));
            let (table, outside) = (wave(4, heads * tokens * tokens), wave(5, channels));
            for order in [QkvOrder::PartsFirst, QkvOrder::HeadsFirst] {
                let relative = Positions::Relative { rows: &rows, columns: &columns };
                for positions in [Positions::None, relative, Positions::Table(&table)] {
                    let shape = MapAttention {
                        n,
                        map,
                        window,
                        heads,
                        head,
                        order,
                        scale: 0.4,
                        outside: Some(&outside),
                        positions,
                    };
                    let found = map_attention_gradients(&qkv, &dy, &shape);
                    let what = format!("{map:?} {window:?} {order:?}");
                    assert_slopes(&qkv, &found.qkv, &dy, &|qkv| map_attention(qkv, &shape), &what);
                    let run = |outside: &[f32]| map_attention(&qkv, &MapAttention { outside: Some(outside), ..shape });
                    assert_slopes(&outside, &found.outside, &dy, &run, &format!("{what}, outside"));
                    let [first, second] = &found.positions;
                    match positions {
                        Positions::None => assert!(first.is_empty() && second.is_empty()),
                        Positions::Table(table) => {
                            let run = |table: &[f32]| {
                                map_attention(&qkv, &MapAttention { positions: Positions::Table(table), ..shape })
                            };
                            assert_slopes(table, first, &dy, &run, &format!("{what}, table"));
                        }
                        Positions::Relative { rows, columns } => {
                            let run = |rows: &[f32], columns: &[f32]| {
                                let positions = Positions::Relative { rows, columns };
                                map_attention(&qkv, &MapAttention { positions, ..shape })
                            };
                            assert_slopes(rows, first, &dy, &|rows| run(rows, columns), &format!("{what}, rows"));
                            let by_columns = |columns: &[f32]| run(rows, columns);
                            assert_slopes(columns, second, &dy, &by_columns, &format!("{what}, columns"));
                        }
                    }
                }
            }
        }
    }
}
