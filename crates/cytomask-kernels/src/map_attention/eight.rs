//! Attention's products in 8 bits, sums exact in `i32`.
//!
//! What all keys of a window have in common changes all logits of a query alike, and what all values have in common passes through
//! the weights unchanged, since they sum to one: both means are taken away before rounding (Zhang et al., "SageAttention", 2024). A
//! query has a scale and an offset, a key a scale, a channel of values a scale for each block of keys. Weights are rounded to
//! 255ths of the largest weight that the query gives to the block at hand, so that a block of small weights beside one of large
//! ones is not rounded to nothing; the total is that of the rounded weights.

use super::{Held, LANES, Running, Unit, largest, panels};
use crate::{
    Level,
    int8::{Quantised, ROUND, ROUND_SIGNED, nearest, quantise_symmetric},
    int8_tile::{Dots, Finish, Panel, Rows, product},
    level::{fma, for_each_level, larger},
    pointwise::exp,
};

/// Widest panel.
const PANEL: usize = 32;

/// Steps of a weight.
const STEPS: f32 = 255.0;

/// Keys and values of each block as panels `[k / 4, width, 4]` (see [`panels`]).
#[derive(Default)]
pub(super) struct Eight {
    keys: Vec<i8>,
    /// For each key what a step is worth, and that times the sum of its bytes; for each block so many as its panels are wide.
    key_factors: Vec<f32>,
    key_sums: Vec<f32>,
    values: Vec<i8>,
    /// For each block and channel.
    value_factors: Vec<f32>,
    /// Of each channel of the values.
    common: Vec<f32>,
    sizes: Sizes,
}

#[derive(Clone, Copy, Default)]
struct Sizes {
    /// Keys met at a time.
    block: usize,
    /// `block` in whole registers.
    wide: usize,
    /// Channels of a head in whole quads.
    head: usize,
    /// Channels of a head in whole registers.
    stride: usize,
}

/// Queries in bytes, weights in bytes, and how many steps of weights a sum is worth.
#[derive(Default)]
pub(super) struct Scratch {
    queries: Quantised,
    weights: Vec<u8>,
    scales: Vec<f32>,
    /// For offsets and biases that are not there.
    zeros: Vec<f32>,
}

impl Held for Eight {
    const QUERIES: usize = 96;
    const KEYS: usize = 256;
    type Scratch = Scratch;

    fn fill(&mut self, level: Level, unit: &Unit<'_>, rows: &mut Vec<f32>) {
        let (head, tokens, block) = (unit.shape.head, unit.shape.tokens(), unit.shape.block(Self::KEYS));
        let wide = block.next_multiple_of(LANES);
        self.sizes = Sizes { block, wide, head: head.next_multiple_of(4), stride: unit.shape.padded_head() };
        let blocks = tokens.div_ceil(block);
        unit.gather(1, head, rows);
        take_common(rows, head);
        self.fill_keys(level, rows, [blocks, head]);
        unit.gather(2, self.sizes.stride, rows);
        self.common = take_common(rows, self.sizes.stride);
        self.common.truncate(head);
        self.fill_values(level, rows, blocks);
    }

    fn prepare(&self, level: Level, queries: &mut Vec<f32>, head: usize, scratch: &mut Scratch) {
        scratch.queries.fill(level, queries, head);
        let count = queries.len() / head;
        scratch.weights.resize(count * self.sizes.wide, 0);
        scratch.scales.resize(count, 0.0);
        scratch.zeros.resize(count.max(PANEL), 0.0);
    }

    fn meet(
        &self,
        level: Level,
        scratch: &mut Scratch,
        [block, these]: [usize; 2],
        (logits, line): (&mut [f32], usize),
        Running { maxima, totals, sums }: &mut Running,
    ) {
        let (dots, count, Sizes { wide, head, stride, .. }) = (Dots::best(), maxima.len(), self.sizes);
        let Scratch { queries, weights, scales, zeros } = scratch;
        let rows = Rows { values: &queries.bytes, stride: head, pieces: &[0], length: head };
        for (column, width) in panels(these, PANEL) {
            let at = block * wide + column;
            let finish = Finish {
                scale: &queries.scale,
                offset: &queries.least,
                factor: &self.key_factors[at..][..width],
                weight_sum: &self.key_sums[at..][..width],
                bias: &zeros[..width],
            };
            let panel = Panel { values: &self.keys[at * head..][..width * head], width };
            let size = [count, width.min(these - column)];
            product(dots, size, rows, panel, finish, (&mut logits[column..], line), true);
        }
        soften(level, (logits, [line, these]), (maxima, totals, sums), (weights, wide), scales);
        let rows = Rows { values: weights, stride: wide, pieces: &[0], length: these.next_multiple_of(4) };
        for (column, width) in panels(stride, PANEL) {
            let finish = Finish {
                scale: scales,
                offset: zeros,
                factor: &self.value_factors[block * stride + column..][..width],
                weight_sum: &zeros[..width],
                bias: &zeros[..width],
            };
            let panel = Panel { values: &self.values[wide * (block * stride + column)..][..wide * width], width };
            product(dots, [count, width], rows, panel, finish, (&mut sums[column..], stride), true);
        }
    }

    fn common(&self) -> &[f32] {
        &self.common
    }
}

impl Eight {
    /// `rows` `[tokens, channels]`
    fn fill_keys(&mut self, level: Level, rows: &[f32], [blocks, channels]: [usize; 2]) {
        let Sizes { block, wide, head, .. } = self.sizes;
        let mut bytes = vec![0_i8; head];
        self.keys.clear();
        self.keys.resize(blocks * wide * head, 0);
        for values in [&mut self.key_factors, &mut self.key_sums] {
            values.clear();
            values.resize(blocks * wide, 0.0);
        }
        for (token, row) in rows.chunks_exact(channels).enumerate() {
            let factor = quantise_symmetric(level, row, &mut bytes[..channels]);
            let sum: i32 = bytes.iter().map(|&byte| i32::from(byte)).sum();
            let (index, at) = (token / block, token % block);
            self.key_factors[index * wide + at] = factor;
            self.key_sums[index * wide + at] = factor * sum as f32;
            let (first, column) = (at / PANEL * PANEL, at % PANEL);
            let width = (wide - first).min(PANEL);
            let strips = self.keys[(index * wide + first) * head..].chunks_exact_mut(width * 4);
            for (strip, quad) in strips.zip(bytes.as_chunks::<4>().0) {
                strip[column * 4..][..4].copy_from_slice(quad);
            }
        }
    }

    /// `rows` `[tokens, stride]`
    fn fill_values(&mut self, level: Level, rows: &[f32], blocks: usize) {
        let Sizes { block, wide, stride, .. } = self.sizes;
        self.values.clear();
        self.values.resize(blocks * wide * stride, 0);
        self.value_factors.clear();
        let mut ranges = [vec![0.0_f32; stride], vec![0.0_f32; stride]];
        for (rows, values) in rows.chunks(block * stride).zip(self.values.chunks_exact_mut(wide * stride)) {
            channel_ranges(level, rows, &mut ranges);
            let [most, poison] = &mut ranges;
            for (most, poison) in most.iter_mut().zip(poison) {
                let steps = 127.0 / *most;
                let usable = steps.is_finite() && *poison == 0.0;
                self.value_factors.push(if usable { *most / 127.0 } else { *poison });
                *most = if usable { steps } else { 0.0 };
            }
            for (first, width) in panels(stride, PANEL) {
                let strips = values[first * wide..].chunks_exact_mut(4 * width);
                for (rows, strip) in rows.chunks(4 * stride).zip(strips) {
                    interleave(level, (&rows[first..], stride), &most[first..][..width], strip);
                }
            }
        }
    }
}

/// Of each channel the largest magnitude and a number that is NaN (which is unequal to zero) where a value is not finite.
#[inline(always)]
fn channel_ranges_body(rows: &[f32], [most, poison]: &mut [Vec<f32>; 2]) {
    most.fill(0.0);
    poison.fill(0.0);
    for row in rows.chunks_exact(most.len()) {
        for ((most, poison), value) in most.iter_mut().zip(poison.iter_mut()).zip(row) {
            *most = larger(*most, value.abs());
            *poison += value * 0.0;
        }
    }
}

for_each_level! {
    fn channel_ranges = channel_ranges_body(rows: &[f32], ranges: &mut [Vec<f32>; 2])
}

/// Up to four rows, `stride` apart, in bytes: the four of a channel together.
#[inline(always)]
fn interleave_body((rows, stride): (&[f32], usize), inverse: &[f32], strip: &mut [i8]) {
    let count = inverse.len();
    let quads = strip.as_chunks_mut::<4>().0;
    if rows.len() < 3 * stride + count {
        for (at, row) in rows.chunks(stride).enumerate() {
            for ((quad, value), inverse) in quads.iter_mut().zip(row).zip(inverse) {
                quad[at] = nearest(value * inverse) as i8;
            }
        }
        return;
    }
    let [a, b, c, d] = [0, 1, 2, 3].map(|row| &rows[row * stride..][..count]);
    let quads = &mut quads[..count];
    for at in 0..count {
        let bytes = [a, b, c, d].map(|row| u32::from(nearest(row[at] * inverse[at])));
        let quad = bytes[0] | bytes[1] << 8 | bytes[2] << 16 | bytes[3] << 24;
        quads[at] = quad.to_le_bytes().map(|byte| byte as i8);
    }
}

for_each_level! {
    fn interleave = interleave_body(rows: (&[f32], usize), inverse: &[f32], strip: &mut [i8])
}

/// The mean row, taken from all rows.
fn take_common(rows: &mut [f32], channels: usize) -> Vec<f32> {
    let mut mean = vec![0.0_f32; channels];
    let count = (rows.len() / channels) as f32;
    for row in rows.chunks_exact(channels) {
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value);
    }
    mean.iter_mut().for_each(|mean| *mean /= count);
    for row in rows.chunks_exact_mut(channels) {
        row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= mean);
    }
    mean
}

/// Logits of each query become weights in [`STEPS`] of the largest among them, in bytes; `scales` are what a step is worth beside the
/// largest logit so far, to whose measure what was summed before is brought.
///
/// `logits` rows `line` apart with `count` used, `weights` rows `wide` apart, `sums` equally long rows. Values after the logits of a
/// row, up to a whole register, are overwritten.
#[inline(always)]
fn soften_body<const FUSED: bool>(
    (logits, [line, count]): (&mut [f32], [usize; 2]),
    (maxima, totals, sums): (&mut [f32], &mut [f32], &mut [f32]),
    (weights, wide): (&mut [u8], usize),
    scales: &mut [f32],
) {
    let stride = sums.len() / maxima.len().max(1);
    let rows = logits.chunks_exact_mut(line).zip(weights.chunks_exact_mut(wide)).zip(sums.chunks_exact_mut(stride));
    for ((maximum, total), (((logits, weights), sums), scale)) in maxima.iter_mut().zip(totals).zip(rows.zip(scales)) {
        let padded = count.next_multiple_of(LANES);
        logits[count..padded].fill(f32::NEG_INFINITY);
        let (logits, _) = logits[..padded].as_chunks::<LANES>();
        let most = largest(logits);
        if most > *maximum {
            let factor = exp::<FUSED>(*maximum - most);
            *total *= factor;
            sums.iter_mut().for_each(|sum| *sum *= factor);
            *maximum = most;
        }
        let weights = &mut weights[..padded];
        for (weight, logit) in weights.iter_mut().zip(logits.as_flattened()) {
            *weight = (steps::<FUSED>(logit - most) + ROUND).to_bits() as u8;
        }
        let sum: u32 = weights.iter().map(|&weight| u32::from(weight)).sum();
        *scale = exp::<FUSED>(most - *maximum) / STEPS;
        *total += sum as f32 * *scale;
    }
}

/// `STEPS · eˣ` for `x` up to 0, to within 0.03: as good as whole steps can show. 0 below −13.
#[inline(always)]
fn steps<const FUSED: bool>(x: f32) -> f32 {
    let twos = (x * std::f32::consts::LOG2_E).max(-20.0);
    let shifted = twos + ROUND_SIGNED;
    let rest = twos - (shifted - ROUND_SIGNED);
    // 255 · 2^rest for rest within ±1/2, by least largest relative error.
    let series = [61.865_837, 176.781_55, 254.981_66];
    let power = series.into_iter().fold(14.068_774, |sum, term| fma::<FUSED>(sum, rest, term));
    f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23))
}

for_each_level! {
    fn soften = fused soften_body(
        logits: (&mut [f32], [usize; 2]), running: (&mut [f32], &mut [f32], &mut [f32]), weights: (&mut [u8], usize),
        scales: &mut [f32],
    )
}

#[cfg(test)]
mod tests {
    use crate::{MapAttention, Positions, QkvOrder, map_attention, map_attention8, testing::wave};

    fn distance(found: &[f32], exact: &[f32]) -> f64 {
        let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v * v)).sum::<f64>();
        let error = squares(&mut found.iter().zip(exact).map(|(a, b)| a - b));
        (error / squares(&mut exact.iter().copied())).sqrt()
    }

    /// Peaked and even weights, all positions, windows that leave the map, more than one block of keys and of queries.
    #[test]
    fn products_are_near_those_in_full_precision() {
        for (map, window, heads, head) in [
            ([5, 7], [5, 7], 2, 16),
            ([9, 13], [4, 4], 3, 10),
            ([14, 30], [14, 14], 1, 80),
            ([23, 67], [23, 67], 1, 8),
            ([20, 25], [20, 25], 2, 64),
        ] {
            let channels = heads * head;
            let tokens = window[0] * window[1];
            let mut qkv = wave(1, map[0] * map[1] * 3 * channels);
            // All keys far from zero, and all values: it must not cost precision.
            for token in qkv.chunks_exact_mut(3 * channels) {
                token[channels..].iter_mut().enumerate().for_each(|(at, value)| *value += (at % 5) as f32);
            }
            let table = |side: usize| -> Vec<f32> { wave(side, (2 * side - 1) * head) };
            let [rows, columns] = window.map(table);
            let (table, outside) = (wave(4, heads * tokens * tokens), wave(5, 3 * channels));
            let relative = Positions::Relative { rows: &rows, columns: &columns };
            for (scale, most) in [(0.02, 0.004), (0.3, 0.03)] {
                for positions in [Positions::None, relative, Positions::Table(&table)] {
                    let shape = MapAttention {
                        n: 1,
                        map,
                        window,
                        heads,
                        head,
                        order: QkvOrder::PartsFirst,
                        scale,
                        outside: Some(&outside),
                        positions,
                    };
                    let (found, exact) = (map_attention8(&qkv, &shape), map_attention(&qkv, &shape));
                    let distance = distance(&found, &exact);
                    assert!(distance < most, "{map:?} {window:?} {head}, {scale}: {distance}");
                    assert!(distance > 1e-6, "suspiciously exact");
                }
            }
        }
    }

    fn of_keys(qkv: &[f32], side: usize) -> MapAttention<'static> {
        let (order, positions) = (QkvOrder::PartsFirst, Positions::None);
        let (map, head) = ([side, side], qkv.len() / side / side / 3);
        MapAttention { n: 1, map, window: map, heads: 1, head, order, scale: 1.0, outside: None, positions }
    }

    /// One key outweighs each other one a thousandfold, but not all of them together.
    #[test]
    fn many_small_weights_count_beside_a_large_one() {
        let side = 64;
        let mut qkv = vec![0.0_f32; side * side * 3 * 4];
        for (token, values) in qkv.chunks_exact_mut(12).enumerate() {
            values[0] = 1.0;
            values[4] = if token == 77 { 7.0 } else { 0.0 };
            values[8] = if token == 77 { 1.0 } else { -1.0 };
        }
        let shape = of_keys(&qkv, side);
        let (found, exact) = (map_attention8(&qkv, &shape), map_attention(&qkv, &shape));
        assert!((exact[0] + 0.577).abs() < 1e-3, "{}", exact[0]);
        // The 255 neighbours of the large one in its block are lost.
        assert!((found[0] - exact[0]).abs() < 0.05, "{}, exactly {}", found[0], exact[0]);
    }

    #[test]
    fn steps_are_those_of_the_exponential() {
        for steps in [super::steps::<false>, super::steps::<true>] {
            for at in 0..200_000 {
                let x = -(at as f32) * 1e-4;
                let expected = 255.0 * f64::from(x).exp();
                let found = f64::from(steps(x));
                assert!((found - expected).abs() < 0.03, "{x}: {found}, expected {expected}");
            }
            assert!(steps(f32::NEG_INFINITY) < 0.01);
            assert!(steps(f32::NAN).is_nan() || steps(f32::NAN) < 0.01);
        }
    }

    #[test]
    fn equal_keys_and_equal_values_are_exact() {
        let qkv: Vec<f32> = (0..49).flat_map(|token| [token as f32, 2.0, 3.5]).collect();
        let found = map_attention8(&qkv, &of_keys(&qkv, 7));
        assert!(found.iter().all(|value| (value - 3.5).abs() < 1e-5), "{found:?}");
    }

    #[test]
    fn what_is_not_finite_shows() {
        for (part, bad) in [(0, f32::NAN), (1, f32::NAN), (2, f32::NAN), (2, f32::INFINITY), (0, f32::INFINITY)] {
            let mut qkv = wave(1, 49 * 3 * 8);
            qkv[5 * 24 + part * 8 + 3] = bad;
            let found = map_attention8(&qkv, &of_keys(&qkv, 7));
            assert!(found[5 * 8 + 3].is_nan(), "part {part}, {bad}: {:?}", &found[40..48]);
        }
    }
}
