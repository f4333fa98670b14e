//! Convolutions in 8 bits, stride 1: each input channel of each image gets its own scale and zero at each call, and the weights,
//! multiplied by those scales, are quantised at each call too, with one scale for each output channel.
//!
//! So a channel with a small range keeps all its 255 steps beside one with a large range, and the weights keep their precision
//! where the products are large: what calibrated methods (Xiao et al. 2023, SmoothQuant) move between inputs and weights once is
//! moved here for the image at hand, at the cost of one pass over the weights. Zero is always exact, so padding is. Sums are
//! exact in `i32`. An image that holds a NaN or an infinity comes out as NaN throughout, as does an output channel with such a weight.

use rayon::prelude::*;

use crate::{
    Activation, Conv2dShape, Level, buffers,
    conv::{Band, bands, scatter},
    int8::extent,
    int8_strip::{FinishRows, ROWS, WeightRows, product},
    int8_tile::{Dots, MOST_K},
    level::for_each_level,
    tile::{Offsets, WIDEST},
};

/// Quads of the padded copy of a band: a quarter of a second-level cache.
const BAND: usize = 1 << 17;

/// A convolution's weight in the order of the 8-bit loop: `[C_out, C_in / 4, kH · kW, 4]`, channels padded to fours with zeros.
#[derive(Clone, Debug)]
pub struct Weight8 {
    values: Vec<f32>,
    c_in: usize,
    c_out: usize,
    kernel: [usize; 2],
}

impl Weight8 {
    /// From `[C_out, C_in, kH, kW]`.
    pub fn new(weight: &[f32], [c_out, c_in]: [usize; 2], kernel: [usize; 2]) -> Self {
        let [kernel_h, kernel_w] = kernel;
        let taps = kernel_h * kernel_w;
        assert_eq!(weight.len(), c_out * c_in * taps, "a weight of {c_out} × {c_in} × {kernel_h} × {kernel_w}");
        assert!(Self::holds(c_in, kernel), "at most {MOST_K} products in a sum, got {}", c_in * taps);
        let mut values = vec![0.0; c_out * c_in.div_ceil(4) * 4 * taps];
        if !weight.is_empty() {
            let filters = values.chunks_exact_mut(c_in.div_ceil(4) * 4 * taps);
            for (values, weight) in filters.zip(weight.chunks_exact(c_in * taps)) {
                for (channel, weight) in weight.chunks_exact(taps).enumerate() {
                    for (tap, weight) in weight.iter().enumerate() {
                        values[(channel / 4 * taps + tap) * 4 + channel % 4] = *weight;
                    }
                }
            }
        }
        Self { values, c_in, c_out, kernel }
    }

    /// Whether sums over that many products fit.
    pub fn holds(c_in: usize, [kernel_h, kernel_w]: [usize; 2]) -> bool {
        c_in.next_multiple_of(4).saturating_mul(kernel_h * kernel_w) <= MOST_K
    }

    fn quads(&self) -> usize {
        self.c_in.div_ceil(4) * self.kernel[0] * self.kernel[1]
    }

    /// Quantised for inputs of these ranges.
    fn quantise(&self, level: Level, ranges: &[Range], bias: Option<&[f32]>) -> Quantised {
        let (length, taps) = (self.quads() * 4, self.kernel[0] * self.kernel[1]);
        let mut steps = vec![0.0_f32; length];
        let mut zeros = vec![0_i32; length];
        for (at, (step, zero)) in steps.iter_mut().zip(&mut zeros).enumerate() {
            if let Some(range) = ranges.get(at / (4 * taps) * 4 + at % 4) {
                (*step, *zero) = (range.step, range.zero);
            }
        }
        let mut quantised = Quantised {
            bytes: vec![0; self.values.len()],
            factor: vec![0.0; self.c_out],
            fixed: vec![0.0; self.c_out],
        };
        let Quantised { bytes, factor, fixed } = &mut quantised;
        let filters = bytes.par_chunks_exact_mut(length).zip(self.values.par_chunks_exact(length));
        let results = factor.par_iter_mut().zip(fixed.par_iter_mut()).enumerate();
        filters.zip(results).with_min_len(16).for_each(|((bytes, values), (channel, (factor, fixed)))| {
            let sum = quantise_filter(level, values, &steps, &zeros, bytes, factor);
            *fixed = bias.map_or(0.0, |bias| bias[channel]) - *factor * sum as f32;
        });
        quantised
    }
}

/// Weights for one image.
struct Quantised {
    bytes: Vec<i8>,
    factor: Vec<f32>,
    fixed: Vec<f32>,
}

/// Bytes of one output channel's weights times the steps of their inputs, and `Σ q · zero`.
#[inline(always)]
fn quantise_filter_body(values: &[f32], steps: &[f32], zeros: &[i32], bytes: &mut [i8], factor: &mut f32) -> i32 {
    const LANES: usize = 16;
    const ROUND: f32 = 12_582_912.0;
    let mut most = [0.0_f32; LANES];
    let mut poison = [0.0_f32; LANES];
    // Lengths are multiples of four, not of sixteen.
    for (values, steps) in values.chunks(LANES).zip(steps.chunks(LANES)) {
        for (((most, poison), value), step) in most.iter_mut().zip(&mut poison).zip(values).zip(steps) {
            let product = (value * step).abs();
            *most = if product > *most { product } else { *most };
            *poison += product * 0.0;
        }
    }
    let most = most.iter().fold(0.0_f32, |most, &value| most.max(value));
    let inverse = 127.0 / most;
    if poison.iter().sum::<f32>() != 0.0 || !inverse.is_finite() {
        bytes.fill(0);
        *factor = if poison.iter().sum::<f32>() == 0.0 && most < 1.0 { 0.0 } else { f32::NAN };
        return 0;
    }
    *factor = most / 127.0;
    let mut sum = 0_i32;
    for (((byte, value), step), zero) in bytes.iter_mut().zip(values).zip(steps).zip(zeros) {
        let rounded = value * step * inverse + ROUND;
        *byte = rounded.to_bits() as i8;
        sum += i32::from(*byte) * zero;
    }
    sum
}

for_each_level! {
    fn quantise_filter = quantise_filter_body(
        values: &[f32], steps: &[f32], zeros: &[i32], bytes: &mut [i8], factor: &mut f32,
    ) -> i32
}

/// A channel's values are `step · (byte − zero)`.
#[derive(Clone, Copy, Debug)]
struct Range {
    step: f32,
    inverse: f32,
    zero: i32,
}

impl Range {
    fn of(level: Level, values: &[f32]) -> Self {
        let extent = extent(level, values);
        // Zero is a value of the padding.
        let (least, most) = (extent.least.min(0.0), extent.most.max(0.0));
        let (range, inverse) = (most - least, 255.0 / (most - least));
        if extent.poison != 0.0 || range.is_infinite() {
            return Self { step: f32::NAN, inverse: 0.0, zero: 0 };
        }
        if !inverse.is_finite() {
            return Self { step: 0.0, inverse: 0.0, zero: 0 };
        }
        Self { step: range / 255.0, inverse, zero: (-least * inverse).round_ties_even() as i32 }
    }
}

/// `quads[i] |= byte(values[i]) << shift`, bytes as [`Range`] says.
#[inline(always)]
fn quantise_into_body(values: &[f32], inverse: f32, zero: f32, shift: u32, quads: &mut [u32]) {
    const ROUND: f32 = 8_388_608.0;
    let (lowest, highest) = (ROUND, ROUND + 255.0);
    for (quad, value) in quads.iter_mut().zip(values) {
        let rounded = value * inverse + (zero + ROUND);
        let rounded = if rounded > lowest { rounded } else { lowest };
        let rounded = if rounded < highest { rounded } else { highest };
        *quad |= (rounded.to_bits() & 255) << shift;
    }
}

for_each_level! {
    fn quantise_into = quantise_into_body(values: &[f32], inverse: f32, zero: f32, shift: u32, quads: &mut [u32])
}

/// `activation(conv2d(x) + bias)` (cross-correlation, zeros outside) in 8 bits; the stride is 1.
///
/// # Shapes
/// `x` `[N, C_in, H, W]`, `bias` `[C_out]` → `[N, C_out, H', W']`
pub fn conv2d8(
    x: &[f32],
    shape: &Conv2dShape,
    weight: &Weight8,
    bias: Option<&[f32]>,
    activation: Activation,
) -> Vec<f32> {
    conv2d8_with(Dots::best(), x, shape, weight, bias, activation)
}

fn conv2d8_with(
    dots: Dots,
    x: &[f32],
    shape: &Conv2dShape,
    weight: &Weight8,
    bias: Option<&[f32]>,
    activation: Activation,
) -> Vec<f32> {
    let Conv2dShape { n, c_in, size: [h, w], c_out, kernel: [kernel_h, kernel_w], stride, padding } = *shape;
    assert_eq!(x.len(), n * c_in * h * w, "input of {n} × {c_in} × {h} × {w}");
    assert_eq!((weight.c_in, weight.c_out, weight.kernel), (c_in, c_out, shape.kernel), "a weight of this shape");
    assert_eq!(stride, 1, "stride 1");
    assert!(bias.is_none_or(|bias| bias.len() == c_out), "a bias for each of {c_out} channels");
    let [out_h, out_w] = shape.out_size();
    if n * c_out * out_h * out_w == 0 || x.is_empty() {
        return vec![0.0; n * c_out * out_h * out_w];
    }
    let mut out = buffers::take(n * c_out * out_h * out_w);
    let level = Level::best();
    let ranges: Vec<Range> = x.par_chunks_exact(h * w).map(|map| Range::of(level, map)).collect();
    let images: Vec<Quantised> = ranges.chunks_exact(c_in).map(|ranges| weight.quantise(level, ranges, bias)).collect();
    let (quads, groups, line) = (weight.quads(), c_in.div_ceil(4), w + 2 * padding);
    let by_threads = out_h.div_ceil(2 * rayon::current_num_threads());
    let rows = (BAND / (groups * line)).min(by_threads).max(1);
    bands(&mut out, c_out, [out_h, out_w], rows).into_par_iter().for_each_init(Vec::new, |padded, mut band| {
        let Quantised { bytes, factor, fixed } = &images[band.image];
        let image = &x[band.image * c_in * h * w..][..c_in * h * w];
        let padded_rows = band.rows + kernel_h - 1;
        pad(level, (image, [h, w]), &ranges[band.image * c_in..][..c_in], &band, padding, padded_rows, padded);
        let plane = padded_rows * line;
        let position = |at: usize| {
            let (group, y, x) = (at / (kernel_h * kernel_w), at / kernel_w % kernel_h, at % kernel_w);
            group * plane + y * line + x
        };
        let offsets = Offsets::new((0..quads).map(position).collect());
        // Outputs are counted along lines of the padded copy; those in its margin are computed and thrown away.
        let all = (band.rows - 1) * line + out_w;
        for start in (0..all).step_by(WIDEST) {
            let columns = WIDEST.min(all - start);
            for (block, channels) in band.channels.chunks_mut(ROWS).enumerate() {
                let mut tile = [0.0_f32; ROWS * WIDEST];
                let first = block * ROWS;
                let weights = WeightRows { values: &bytes[first * quads * 4..], quads };
                let finish = FinishRows { factor: &factor[first..], fixed: &fixed[first..] };
                product(dots, channels.len(), weights, (padded, start, &offsets), finish, &mut tile);
                activation.apply(level, &mut tile[..channels.len() * WIDEST]);
                for (row, channel) in tile.chunks_exact(WIDEST).zip(channels) {
                    scatter(&row[..columns], start, line, out_w, channel);
                }
            }
        }
    });
    out
}

/// The lines under a band as quads `[C_in / 4, rows, W + 2 · padding]`, with enough after the end for a last strip.
fn pad(
    level: Level,
    (image, [h, w]): (&[f32], [usize; 2]),
    ranges: &[Range],
    band: &Band<'_>,
    padding: usize,
    rows: usize,
    padded: &mut Vec<u32>,
) {
    let line = w + 2 * padding;
    padded.clear();
    padded.resize(ranges.len().div_ceil(4) * rows * line + WIDEST, 0);
    for (group, (ranges, maps)) in ranges.chunks(4).zip(image.chunks(4 * h * w)).enumerate() {
        // Padding is the byte of zero, in each channel its own.
        let zeros = ranges.iter().rev().fold(0, |quad, range| quad << 8 | range.zero as u32);
        for (row, target) in padded[group * rows * line..].chunks_exact_mut(line).enumerate().take(rows) {
            let y = (band.first + row).checked_sub(padding).filter(|&y| y < h);
            let Some(y) = y else {
                target.fill(zeros);
                continue;
            };
            target[..padding].fill(zeros);
            target[padding + w..].fill(zeros);
            let target = &mut target[padding..padding + w];
            target.fill(0);
            for (lane, (range, map)) in ranges.iter().zip(maps.chunks_exact(h * w)).enumerate() {
                quantise_into(level, &map[y * w..][..w], range.inverse, range.zero as f32, 8 * lane as u32, target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wave;

    /// The definition in `f64`: inputs and weights rounded to what their bytes stand for, then the plain convolution.
    fn slow(x: &[f32], shape: &Conv2dShape, weight: &[f32], bias: &[f32]) -> Vec<f64> {
        let Conv2dShape { n, c_in, size: [h, w], c_out, kernel: [kernel_h, kernel_w], padding, .. } = *shape;
        let ([out_h, out_w], taps) = (shape.out_size(), kernel_h * kernel_w);
        let mut out = Vec::new();
        for image in x.chunks_exact(c_in * h * w) {
            let mut steps = Vec::new();
            let mut seen = Vec::new();
            for map in image.chunks_exact(h * w) {
                let least = map.iter().copied().fold(0.0_f32, f32::min);
                let range = map.iter().copied().fold(0.0_f32, f32::max) - least;
                let inverse = if range == 0.0 { 0.0 } else { 255.0 / range };
                let zero = (-least * inverse).round_ties_even();
                steps.push(range / 255.0);
                for value in map {
                    let byte = (f64::from(value * inverse) + f64::from(zero)).round_ties_even().clamp(0.0, 255.0);
                    seen.push((byte - f64::from(zero)) * f64::from(range / 255.0));
                }
            }
            for channel in 0..c_out {
                let filter = &weight[channel * c_in * taps..][..c_in * taps];
                let scaled: Vec<f32> = filter.iter().enumerate().map(|(at, value)| value * steps[at / taps]).collect();
                let most = scaled.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                let filter: Vec<f64> = scaled
                    .iter()
                    .enumerate()
                    .map(|(at, value)| {
                        let byte = if most == 0.0 { 0.0 } else { (value * (127.0 / most)).round_ties_even() };
                        let step = f64::from(steps[at / taps]);
                        if step == 0.0 { 0.0 } else { f64::from(byte) * f64::from(most / 127.0) / step }
                    })
                    .collect();
                for (y, x) in (0..out_h * out_w).map(|at| (at / out_w, at % out_w)) {
                    let mut sum = f64::from(bias[channel]);
                    for (at, value) in filter.iter().enumerate() {
                        let (sy, sx) = (y + at / kernel_w % kernel_h, x + at % kernel_w);
                        if (padding..h + padding).contains(&sy) && (padding..w + padding).contains(&sx) {
                            sum += value * seen[(at / taps * h + sy - padding) * w + sx - padding];
                        }
                    }
                    out.push(sum);
                }
            }
        }
        assert_eq!(out.len(), n * c_out * out_h * out_w);
        out
    }

    #[test]
    fn convolutions_equal_the_slow_twin() {
        for (n, c_in, size, c_out, kernel, padding) in [
            (1, 3, [9, 13], 5, [3, 3], 1),
            (2, 4, [30, 61], 17, [3, 3], 1),
            (1, 9, [7, 130], 8, [1, 1], 0),
            (1, 5, [11, 10], 9, [3, 3], 0),
            (1, 1, [1, 1], 1, [3, 3], 1),
            (1, 2, [5, 6], 3, [2, 3], 2),
        ] {
            let shape = Conv2dShape { n, c_in, size, c_out, kernel, stride: 1, padding };
            let mut x = wave(1, n * c_in * size[0] * size[1]);
            // One channel of another size, one that is never negative, one without values.
            x.iter_mut().take(size[0] * size[1]).for_each(|value| *value *= 40.0);
            x.iter_mut().skip(size[0] * size[1]).take(size[0] * size[1]).for_each(|value| *value = value.max(0.0));
            if c_in > 3 {
                x.iter_mut().skip(2 * size[0] * size[1]).take(size[0] * size[1]).for_each(|value| *value = 0.0);
            }
            let (weight, bias) = (wave(2, c_out * c_in * kernel[0] * kernel[1]), wave(3, c_out));
            let packed = Weight8::new(&weight, [c_out, c_in], kernel);
            let expected = slow(&x, &shape, &weight, &bias);
            for dots in Dots::all() {
                let found = conv2d8_with(dots, &x, &shape, &packed, Some(&bias), Activation::Relu);
                assert_eq!(found.len(), expected.len());
                for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let error = (f64::from(*found) - expected.max(0.0)).abs();
                    assert!(error < 1e-5 * (1.0 + expected.abs()), "{dots:?} {shape:?} at {index}: {error}");
                }
            }
        }
    }

    #[test]
    fn eight_bits_are_near_full_precision() {
        let shape = Conv2dShape { n: 1, c_in: 20, size: [31, 45], c_out: 16, kernel: [3, 3], stride: 1, padding: 1 };
        let (x, weight) = (wave(1, 20 * 31 * 45), wave(2, 16 * 20 * 9));
        let packed = Weight8::new(&weight, [16, 20], [3, 3]);
        let found = conv2d8(&x, &shape, &packed, None, Activation::None);
        let exact = crate::conv2d(&x, &shape, &weight, None, Activation::None);
        let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v * v)).sum::<f64>();
        let error = squares(&mut found.iter().zip(&exact).map(|(a, b)| a - b));
        let ratio = (error / squares(&mut exact.iter().copied())).sqrt();
        assert!((1e-5..0.01).contains(&ratio), "relative error {ratio}");
    }

    #[test]
    fn zeros_are_exact_and_what_is_not_finite_shows() {
        let shape = Conv2dShape { n: 2, c_in: 2, size: [4, 5], c_out: 2, kernel: [3, 3], stride: 1, padding: 1 };
        let packed = Weight8::new(&wave(2, 36), [2, 2], [3, 3]);
        let zeros = conv2d8(&[0.0; 80], &shape, &packed, Some(&[1.5, -2.0]), Activation::None);
        assert!(zeros.chunks_exact(20).enumerate().all(|(map, values)| {
            let expected = if map % 2 == 0 { 1.5 } else { -2.0 };
            values.iter().all(|&value| value == expected)
        }));
        for bad in [f32::NAN, f32::INFINITY, f32::MAX] {
            let mut x = wave(1, 80);
            (x[7], x[8]) = (bad, -bad);
            let found = conv2d8(&x, &shape, &packed, None, Activation::None);
            assert!(
                found[..40].iter().all(|value| value.is_nan()) && found[40..].iter().all(|value| value.is_finite())
            );
        }
    }

    #[test]
    #[should_panic(expected = "at most 65536 products")]
    fn sums_that_could_overflow_are_refused() {
        Weight8::new(&[], [0, 1 << 16], [3, 3]);
    }
}
