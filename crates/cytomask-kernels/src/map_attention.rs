//! Attention among the tokens of a map, over windows or the whole of it, read from and written to the map's own order: no copy of
//! queries, keys and values is made for all heads, no window is cut out, and no bias is ever held for all pairs.
//!
//! A unit is one head in one window. Its keys are brought into panels, its values lie as a panel by themselves; then some queries at
//! a time meet some keys at a time, with the running maximum and sum of Milakov and Gimelshein ("Online normalizer calculation for
//! softmax", 2018) as FlashAttention has them (Dao et al. 2022), so that logits stay in the second-level cache. Logits start from
//! the term of positions and the product is added to it.
//!
//! The two products come in `f32` (`map_attention/full.rs`) and in 8 bits (`map_attention/eight.rs`).

mod eight;
mod full;

use rayon::prelude::*;

use crate::{
    Level, Packed, buffers,
    level::{by_halves, for_each_level, larger},
};

/// Values of a register; lines of logits have so many more than needed, for writes of whole registers.
const LANES: usize = 16;

/// In which order the channels of a token's queries, keys and values lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkvOrder {
    /// `[3, heads, head]`, as in SAM.
    PartsFirst,
    /// `[heads, 3, head]`, as in TinyViT.
    HeadsFirst,
}

/// What is added to the scaled logits.
#[derive(Clone, Copy, Debug)]
pub enum Positions<'a> {
    /// Nothing.
    None,
    /// Decomposed relative positions (Li et al. 2022, ViTDet): `q · rows[y − y' + h − 1] + q · columns[x − x' + w − 1]` for a query
    /// at `(y, x)` and a key at `(y', x')` of a window of `h × w`, with `q` not scaled.
    Relative {
        /// `[2 h − 1, head]`
        rows: &'a [f32],
        /// `[2 w − 1, head]`
        columns: &'a [f32],
    },
    /// `[heads, tokens, tokens]` of a window.
    Table(&'a [f32]),
}

/// Sizes and parameters of an attention among the tokens of a map.
#[derive(Clone, Copy, Debug)]
pub struct MapAttention<'a> {
    /// Images.
    pub n: usize,
    /// `[h, w]` of the map.
    pub map: [usize; 2],
    /// `[h, w]` of a window; the map's own for attention over all of it.
    pub window: [usize; 2],
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub head: usize,
    /// Of the `3 · heads · head` channels.
    pub order: QkvOrder,
    /// Factor of the products.
    pub scale: f32,
    /// What the tokens of a window beyond the map's edge hold, `[3 · heads · head]`: they are attended to. Zeros if absent.
    pub outside: Option<&'a [f32]>,
    /// Added to the logits.
    pub positions: Positions<'a>,
}

impl MapAttention<'_> {
    pub(crate) fn channels(&self) -> usize {
        self.heads * self.head
    }

    /// Tokens of a window.
    pub(crate) fn tokens(&self) -> usize {
        self.window[0] * self.window[1]
    }

    pub(crate) fn windows(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.map[axis].div_ceil(self.window[axis]))
    }

    /// First channel of queries (0), keys (1) or values (2) of a head.
    pub(crate) fn first_channel(&self, head: usize, part: usize) -> usize {
        match self.order {
            QkvOrder::PartsFirst => (part * self.heads + head) * self.head,
            QkvOrder::HeadsFirst => (head * 3 + part) * self.head,
        }
    }

    /// Keys met at a time, at most `most` unless the window's rows are longer: whole rows of the window.
    fn block(&self, most: usize) -> usize {
        (most / self.window[1]).clamp(1, self.window[0]) * self.window[1]
    }

    /// `head` rounded up to whole registers.
    fn padded_head(&self) -> usize {
        self.head.next_multiple_of(LANES)
    }

    pub(crate) fn check(&self, qkv: &[f32]) {
        let Self { n, map: [h, w], window, heads, head, .. } = *self;
        let channels = 3 * self.channels();
        assert!(window[0] > 0 && window[1] > 0 && head > 0 && heads > 0, "a window and heads");
        assert_eq!(qkv.len(), n * h * w * channels, "a map of {n} × {h} × {w} × {channels}");
        assert!(self.outside.is_none_or(|outside| outside.len() == channels), "one token of {channels} outside");
        match self.positions {
            Positions::None => {}
            Positions::Relative { rows, columns } => {
                let expected = window.map(|side| (2 * side - 1) * head);
                assert_eq!([rows.len(), columns.len()], expected, "tables of relative positions of {window:?}");
            }
            Positions::Table(table) => {
                assert_eq!(table.len(), heads * self.tokens() * self.tokens(), "a table of {heads} heads");
            }
        }
    }
}

/// `softmax(scale · q · kᵀ + positions) · v` for each head in each window.
///
/// # Shapes
/// `qkv` `[n, h, w, 3 · heads · head]` → `[n, h, w, heads · head]`
pub fn map_attention(qkv: &[f32], shape: &MapAttention<'_>) -> Vec<f32> {
    run::<full::Full>(qkv, shape)
}

/// [`map_attention`] with both products in 8 bits: see `map_attention/eight.rs` for how values are rounded.
pub fn map_attention8(qkv: &[f32], shape: &MapAttention<'_>) -> Vec<f32> {
    run::<eight::Eight>(qkv, shape)
}

fn run<H: Held>(qkv: &[f32], shape: &MapAttention<'_>) -> Vec<f32> {
    shape.check(qkv);
    let mut out = buffers::take(qkv.len() / 3);
    if out.is_empty() {
        return out;
    }
    let level = Level::best();
    let relative = match shape.positions {
        Positions::Relative { rows, columns } => {
            let [rows, columns] = [rows, columns].map(|table| reversed(table, shape.head, 1.0 / shape.scale));
            Some([rows, columns])
        }
        _ => None,
    };
    let units = units(&mut out, shape);
    units.into_par_iter().enumerate().for_each_init(
        <(H, Memory<H>)>::default,
        |(held, memory), (index, mut targets)| {
            let unit = Unit::new(index, shape, qkv);
            held.fill(level, &unit, &mut memory.rows);
            let held = &*held;
            let attend = |memory: &mut Memory<H>, (block, targets): (usize, &mut [&mut [f32]])| {
                unit.attend(level, memory, held, relative.as_ref(), block * H::QUERIES, targets);
            };
            if unit.places.len() > 4 * H::QUERIES {
                targets.par_chunks_mut(H::QUERIES).enumerate().for_each_init(Memory::default, attend);
            } else {
                targets.chunks_mut(H::QUERIES).enumerate().for_each(|part| attend(memory, part));
            }
        },
    );
    out
}

/// The keys and values of a unit, prepared for products, and how some of them meet some queries.
trait Held: Default + Send + Sync {
    /// Queries of a task.
    const QUERIES: usize;
    /// Keys met at a time, at most.
    const KEYS: usize;
    /// Queries of a task, prepared for products, and what lies between the products.
    type Scratch: Default + Send;

    /// Takes the keys and values of a unit. `rows` is free to be used.
    fn fill(&mut self, level: Level, unit: &Unit<'_>, rows: &mut Vec<f32>);

    /// Takes the scaled queries of a task, rows of `head`; it may keep the vector and leave another.
    fn prepare(&self, level: Level, queries: &mut Vec<f32>, head: usize, scratch: &mut Self::Scratch);

    /// The keys of a block, given by its index and their number, meet the prepared queries: their products are added to `logits` (and
    /// the distance of its rows), which become weights, of which the sums of values are added to `running`.
    fn meet(
        &self,
        level: Level,
        scratch: &mut Self::Scratch,
        keys: [usize; 2],
        logits: (&mut [f32], usize),
        running: &mut Running,
    );

    /// What all values of a channel have in common and was taken from them; empty if nothing was.
    fn common(&self) -> &[f32];
}

/// What is known of each query's result so far.
#[derive(Default)]
struct Running {
    /// Largest logit.
    maxima: Vec<f32>,
    /// Sum of the weights.
    totals: Vec<f32>,
    /// Sums of weighted values, rows of `padded_head`.
    sums: Vec<f32>,
}

impl Running {
    fn begin(&mut self, queries: usize, stride: usize) {
        self.maxima.clear();
        self.maxima.resize(queries, f32::NEG_INFINITY);
        self.totals.clear();
        self.totals.resize(queries, 0.0);
        self.sums.clear();
        self.sums.resize(queries * stride, 0.0);
    }
}

/// A table of relative positions as a matrix whose columns run from the farthest key after a query to the farthest before it, so
/// that the terms of all keys lie in order; times `factor`, because it meets scaled queries.
fn reversed(table: &[f32], head: usize, factor: f32) -> Packed {
    let rows: Vec<f32> = table.chunks_exact(head).rev().flatten().map(|value| value * factor).collect();
    Packed::from_rows(&rows, [table.len() / head, head])
}

/// The places that each unit fills: `[n, windows, heads]`, of each the tokens of its window that lie on the map, row by row.
fn units<'a>(out: &'a mut [f32], shape: &MapAttention<'_>) -> Vec<Vec<&'a mut [f32]>> {
    let ([h, w], [rows, columns]) = (shape.map, shape.windows());
    let mut units: Vec<Vec<&mut [f32]>> = Vec::new();
    units.resize_with(shape.n * rows * columns * shape.heads, || Vec::with_capacity(shape.tokens()));
    for (token, channels) in out.chunks_exact_mut(shape.channels()).enumerate() {
        let (image, y, x) = (token / (h * w), token / w % h, token % w);
        let window = (image * rows + y / shape.window[0]) * columns + x / shape.window[1];
        for (unit, part) in units[window * shape.heads..].iter_mut().zip(channels.chunks_exact_mut(shape.head)) {
            unit.push(part);
        }
    }
    units
}

/// Vectors of a thread, used again.
#[derive(Default)]
struct Memory<H: Held> {
    rows: Vec<f32>,
    queries: Vec<f32>,
    logits: Vec<f32>,
    terms: [Vec<f32>; 2],
    running: Running,
    scratch: H::Scratch,
}

/// One head in one window.
struct Unit<'a> {
    shape: &'a MapAttention<'a>,
    /// The image's map.
    qkv: &'a [f32],
    head: usize,
    /// First row and column of the window on the map.
    corner: [usize; 2],
    /// Row and column within the window of the tokens that lie on the map.
    places: Vec<[usize; 2]>,
}

impl<'a> Unit<'a> {
    fn new(index: usize, shape: &'a MapAttention<'a>, qkv: &'a [f32]) -> Self {
        let ([h, w], [rows, columns]) = (shape.map, shape.windows());
        let (window, head) = (index / shape.heads, index % shape.heads);
        let image = window / (rows * columns);
        let corner = [window / columns % rows * shape.window[0], window % columns * shape.window[1]];
        let [used_h, used_w] = [shape.window[0].min(h - corner[0]), shape.window[1].min(w - corner[1])];
        let places = (0..used_h).flat_map(|y| (0..used_w).map(move |x| [y, x])).collect();
        let length = h * w * 3 * shape.channels();
        Self { shape, qkv: &qkv[image * length..][..length], head, corner, places }
    }

    /// Queries (0), keys (1) or values (2) of the token at a place of the window.
    fn token(&self, [y, x]: [usize; 2], part: usize) -> Option<&'a [f32]> {
        let first = self.shape.first_channel(self.head, part);
        let [y, x] = [self.corner[0] + y, self.corner[1] + x];
        let [h, w] = self.shape.map;
        let channels = 3 * self.shape.channels();
        if y < h && x < w {
            return Some(&self.qkv[(y * w + x) * channels + first..][..self.shape.head]);
        }
        self.shape.outside.map(|outside| &outside[first..][..self.shape.head])
    }

    /// All of the window's keys, or values, as rows `stride` apart.
    fn gather(&self, part: usize, stride: usize, rows: &mut Vec<f32>) {
        let head = self.shape.head;
        rows.clear();
        rows.resize(self.shape.tokens() * stride, 0.0);
        for (index, row) in rows.chunks_exact_mut(stride).enumerate() {
            let place = [index / self.shape.window[1], index % self.shape.window[1]];
            if let Some(values) = self.token(place, part) {
                row[..head].copy_from_slice(values);
            }
        }
    }

    /// Results of some queries, `from` the first of them.
    fn attend<H: Held>(
        &self,
        level: Level,
        memory: &mut Memory<H>,
        held: &H,
        relative: Option<&[Packed; 2]>,
        from: usize,
        targets: &mut [&mut [f32]],
    ) {
        let MapAttention { head, window, scale, .. } = *self.shape;
        let (tokens, stride, count) = (self.shape.tokens(), self.shape.padded_head(), targets.len());
        let places = &self.places[from..][..count];
        let Memory { queries, logits, terms, running, scratch, .. } = memory;
        queries.clear();
        for &place in places {
            let Some(query) = self.token(place, 0) else { unreachable!("places lie on the map") };
            queries.extend(query.iter().map(|value| value * scale));
        }
        if let Some(relative) = relative {
            for (terms, (table, side)) in terms.iter_mut().zip(relative.iter().zip(window)) {
                terms.clear();
                terms.resize(count * (2 * side - 1), 0.0);
                table.accumulate(level, count, (queries, head), (terms, 2 * side - 1));
            }
        }
        held.prepare(level, queries, head, scratch);
        let block = self.shape.block(H::KEYS);
        let line = block.next_multiple_of(LANES) + LANES;
        logits.resize(count * line, 0.0);
        running.begin(count, stride);
        for (index, first) in (0..tokens).step_by(block).enumerate() {
            let these = block.min(tokens - first);
            for ((row, logits), &[y, x]) in logits.chunks_exact_mut(line).take(count).enumerate().zip(places) {
                match self.shape.positions {
                    Positions::None => logits[..these].fill(0.0),
                    Positions::Relative { .. } => {
                        let [h, w] = window;
                        let of_rows = &terms[0][row * (2 * h - 1) + h - 1 - y + first / w..];
                        let of_columns = &terms[1][row * (2 * w - 1) + w - 1 - x..][..w];
                        add_terms(level, of_rows, of_columns, these / w, logits);
                    }
                    Positions::Table(table) => {
                        let query = y * window[1] + x;
                        let terms = &table[(self.head * tokens + query) * tokens + first..][..these];
                        logits[..these].copy_from_slice(terms);
                    }
                }
            }
            held.meet(level, scratch, [index, these], (logits, line), running);
        }
        for ((target, sums), total) in targets.iter_mut().zip(running.sums.chunks_exact(stride)).zip(&running.totals) {
            let factor = 1.0 / *total;
            for (target, sum) in target.iter_mut().zip(sums) {
                *target = sum * factor;
            }
            for (target, common) in target.iter_mut().zip(held.common()) {
                *target += common;
            }
        }
    }
}

/// Where panels begin and how wide they are: as wide as `widest`, the last one only as many registers as it needs.
fn panels(columns: usize, widest: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..columns).step_by(widest).map(move |first| (first, (columns - first).next_multiple_of(LANES).min(widest)))
}

/// `logits[y w + x] = rows[y] + columns[x]` for the first `count` rows. Narrow maps are written a register at a time, past the end
/// of the row: what follows is written next, or is slack.
#[inline(always)]
fn add_terms_body(rows: &[f32], columns: &[f32], count: usize, logits: &mut [f32]) {
    let w = columns.len();
    if w > LANES {
        for (logits, row) in logits.chunks_exact_mut(w).zip(&rows[..count]) {
            for (logit, column) in logits.iter_mut().zip(columns) {
                *logit = row + column;
            }
        }
        return;
    }
    let mut wide = [0.0_f32; LANES];
    wide[..w].copy_from_slice(columns);
    for (y, row) in rows[..count].iter().enumerate() {
        if let Some(logits) = logits[y * w..].first_chunk_mut::<LANES>() {
            for lane in 0..LANES {
                logits[lane] = row + wide[lane];
            }
        }
    }
}

for_each_level! {
    fn add_terms = add_terms_body(rows: &[f32], columns: &[f32], count: usize, logits: &mut [f32])
}

/// The largest of some registers of values; minus infinity if there is none. Four registers take turns, so that no comparison waits for
/// the one before.
#[inline(always)]
fn largest(values: &[[f32; LANES]]) -> f32 {
    let (fours, rest) = values.as_flattened().as_chunks::<{ 4 * LANES }>();
    let mut most = [f32::NEG_INFINITY; 4 * LANES];
    for four in fours {
        for (most, &value) in most.iter_mut().zip(four) {
            *most = larger(*most, value);
        }
    }
    let (mut lanes, more) = ([f32::NEG_INFINITY; LANES], most.as_chunks::<LANES>().0);
    for chunk in rest.as_chunks::<LANES>().0.iter().chain(more) {
        for (most, &value) in lanes.iter_mut().zip(chunk) {
            *most = larger(*most, value);
        }
    }
    by_halves(lanes, larger)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(seed: usize, count: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 37 + seed * 101) % 97) as f32 / 20.0 - 2.4).collect()
    }

    /// The definition, token by token.
    fn slow(qkv: &[f32], shape: &MapAttention<'_>) -> Vec<f64> {
        let MapAttention { n, map: [h, w], window, heads, head, .. } = *shape;
        let channels = 3 * heads * head;
        let zeros = vec![0.0; channels];
        let mut out = vec![0.0; n * h * w * heads * head];
        for index in 0..n * h * w * heads {
            let (token, which) = (index / heads, index % heads);
            let (image, y, x) = (token / (h * w), token / w % h, token % w);
            let part = |y: usize, x: usize, part: usize| {
                let token = if y < h && x < w {
                    &qkv[((image * h + y) * w + x) * channels..][..channels]
                } else {
                    shape.outside.unwrap_or(&zeros)
                };
                let first = match shape.order {
                    QkvOrder::PartsFirst => (part * heads + which) * head,
                    QkvOrder::HeadsFirst => (which * 3 + part) * head,
                };
                token[first..][..head].iter().map(|&value| f64::from(value)).collect::<Vec<f64>>()
            };
            let dot = |a: &[f64], b: &[f32]| a.iter().zip(b).map(|(a, &b)| a * f64::from(b)).sum::<f64>();
            let query = part(y, x, 0);
            let (wy, wx) = (y / window[0] * window[0], x / window[1] * window[1]);
            let mut powers = Vec::new();
            for (ky, kx) in (0..window[0]).flat_map(|ky| (0..window[1]).map(move |kx| (ky, kx))) {
                let key = part(wy + ky, wx + kx, 1);
                let product = query.iter().zip(&key).map(|(a, b)| a * b).sum::<f64>() * f64::from(shape.scale);
                let term = match shape.positions {
                    Positions::None => 0.0,
                    Positions::Relative { rows, columns } => {
                        let (row, column) = (y - wy + window[0] - 1 - ky, x - wx + window[1] - 1 - kx);
                        dot(&query, &rows[row * head..][..head]) + dot(&query, &columns[column * head..][..head])
                    }
                    Positions::Table(table) => {
                        let tokens = window[0] * window[1];
                        let (query, key) = ((y - wy) * window[1] + x - wx, ky * window[1] + kx);
                        f64::from(table[(which * tokens + query) * tokens + key])
                    }
                };
                powers.push((product + term, part(wy + ky, wx + kx, 2)));
            }
            let most = powers.iter().map(|(logit, _)| *logit).fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = powers.iter().map(|(logit, _)| (logit - most).exp()).sum();
            for (at, out) in out[index * head..][..head].iter_mut().enumerate() {
                *out = powers.iter().map(|(logit, value)| (logit - most).exp() * value[at]).sum::<f64>() / total;
            }
        }
        out
    }

    fn check(shape: &MapAttention<'_>) {
        let count = shape.n * shape.map[0] * shape.map[1] * 3 * shape.channels();
        let qkv = wave(1, count);
        let (found, expected) = (map_attention(&qkv, shape), slow(&qkv, shape));
        assert_eq!(found.len(), expected.len());
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            let what = (shape.map, shape.window, shape.heads, shape.head, shape.order);
            assert!((f64::from(*found) - expected).abs() < 2e-5, "{what:?} at {index}: {found}, expected {expected}");
        }
    }

    #[test]
    fn windows_and_whole_maps_equal_the_definition() {
        for (n, map, window, heads, head) in [
            (1, [5, 7], [5, 7], 2, 16),
            (2, [9, 13], [4, 4], 3, 10),
            (1, [14, 30], [14, 14], 1, 80),
            (1, [3, 3], [7, 7], 2, 32),
            // More keys than are met at a time, a width that is no whole number of registers, more than one block of queries.
            (1, [23, 67], [23, 67], 1, 8),
            // Enough queries for several tasks.
            (1, [20, 25], [20, 25], 1, 16),
        ] {
            let channels = 3 * heads * head;
            let tokens = window[0] * window[1];
            // Small: logits of hundreds would leave no digits for their differences.
            let table = |side: usize| wave(side, (2 * side - 1) * head).iter().map(|value| value * 0.05).collect();
            let [rows, columns]: [Vec<f32>; 2] = window.map(table);
            let (table, outside) = (wave(4, heads * tokens * tokens), wave(5, channels));
            for order in [QkvOrder::PartsFirst, QkvOrder::HeadsFirst] {
                let relative = Positions::Relative { rows: &rows, columns: &columns };
                for positions in [Positions::None, relative, Positions::Table(&table)] {
                    let scale = 0.05;
                    let outside = (order == QkvOrder::PartsFirst).then_some(&outside[..]);
                    check(&MapAttention { n, map, window, heads, head, order, scale, outside, positions });
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "tables of relative positions")]
    fn tables_of_another_window_are_refused() {
        let positions = Positions::Relative { rows: &[0.0; 4], columns: &[0.0; 4] };
        let order = QkvOrder::PartsFirst;
        let shape = MapAttention {
            n: 1,
            map: [2, 2],
            window: [2, 2],
            heads: 1,
            head: 4,
            order,
            scale: 1.0,
            outside: None,
            positions,
        };
        map_attention(&[0.0; 48], &shape);
    }
}
