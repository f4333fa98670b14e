//! Convolutions of `[N, C, H, W]` maps as products that never copy the input once for each kernel position.
//!
//! A band of rows is copied once with its zero padding. In that copy the 48 neighbouring outputs of a strip lie at 48 neighbouring
//! inputs for every kernel position, also across rows, so that the strips of `B` are found by their offsets alone. Only strided
//! convolutions gather.

use rayon::prelude::*;

use crate::{
    Activation, Level, buffers,
    level::{fma, for_each_level},
    tile::{Offsets, Start, Strip, WIDEST, accumulate},
};

/// Values of the padded copy of a band: half a second-level cache.
const BAND: usize = 1 << 18;

/// Channels computed together.
const ROWS: usize = 8;

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Conv2dShape {
    /// Images.
    pub n: usize,
    /// Channels of the input.
    pub c_in: usize,
    /// `[h, w]` of the input.
    pub size: [usize; 2],
    /// Channels of the output.
    pub c_out: usize,
    /// `[kH, kW]`.
    pub kernel: [usize; 2],
    /// The same on both axes.
    pub stride: usize,
    /// Zeros on each side.
    pub padding: usize,
}

impl Conv2dShape {
    /// `[h, w]` of the output.
    pub fn out_size(&self) -> [usize; 2] {
        [0, 1].map(|axis| {
            let padded = self.size[axis] + 2 * self.padding;
            if padded < self.kernel[axis] { 0 } else { (padded - self.kernel[axis]) / self.stride + 1 }
        })
    }
}

/// Some output rows of one image: one slice for each channel.
pub(crate) struct Band<'a> {
    pub(crate) image: usize,
    pub(crate) first: usize,
    pub(crate) rows: usize,
    pub(crate) channels: Vec<&'a mut [f32]>,
}

/// Cuts `[N, C, H, W]` into bands of at most `rows` rows.
pub(crate) fn bands(out: &mut [f32], channels: usize, [h, w]: [usize; 2], rows: usize) -> Vec<Band<'_>> {
    let mut bands = Vec::new();
    for (image, out) in out.chunks_exact_mut(channels * h * w).enumerate() {
        let mut these: Vec<Band<'_>> = (0..h)
            .step_by(rows)
            .map(|first| Band { image, first, rows: rows.min(h - first), channels: Vec::with_capacity(channels) })
            .collect();
        for map in out.chunks_exact_mut(h * w) {
            for (band, part) in these.iter_mut().zip(map.chunks_mut(rows * w)) {
                band.channels.push(part);
            }
        }
        bands.append(&mut these);
    }
    bands
}

/// Rows of a band: as many as fit the cache, but enough bands for all threads.
fn rows_in_a_band(height: usize, values_in_a_row: usize) -> usize {
    (BAND / values_in_a_row.max(1)).min(height.div_ceil(2 * rayon::current_num_threads())).max(1)
}

/// `activation(conv2d(x) + bias)` (cross-correlation, zeros outside).
///
/// # Shapes
/// `x` `[N, C_in, H, W]`, `weight` `[C_out, C_in, kH, kW]`, `bias` `[C_out]` → `[N, C_out, H', W']`
pub fn conv2d(
    x: &[f32],
    shape: &Conv2dShape,
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
) -> Vec<f32> {
    let Conv2dShape { n, c_in, size: [h, w], c_out, kernel: [kernel_h, kernel_w], stride, padding } = *shape;
    assert_eq!(x.len(), n * c_in * h * w, "input of {n} × {c_in} × {h} × {w}");
    assert_eq!(
        weight.len(),
        c_out * c_in * kernel_h * kernel_w,
        "a weight of {c_out} × {c_in} × {kernel_h} × {kernel_w}"
    );
    assert!(bias.is_none_or(|bias| bias.len() == c_out), "a bias for each of {c_out} channels");
    let [out_h, out_w] = shape.out_size();
    let mut out = buffers::take(n * c_out * out_h * out_w);
    if out.is_empty() {
        return out;
    }
    let level = Level::best();
    let k = c_in * kernel_h * kernel_w;
    let padded_w = w + 2 * padding;
    let rows = rows_in_a_band(out_h, c_in * padded_w * stride);
    bands(&mut out, c_out, [out_h, out_w], rows).into_par_iter().for_each_init(
        || (Vec::new(), Vec::new()),
        |(padded, panel), mut band| {
            let image = &x[band.image * c_in * h * w..][..c_in * h * w];
            let padded_rows = (band.rows - 1) * stride + kernel_h;
            let first = (band.first * stride) as isize - padding as isize;
            pad(image, [h, w], first, padded_rows, padding, padded);
            let plane = padded_rows * padded_w;
            let positions = |step: usize| {
                (0..k).map(move |at| {
                    let (channel, y, x) = (at / (kernel_h * kernel_w), at / kernel_w % kernel_h, at % kernel_w);
                    channel * plane + (y * padded_w + x) * step
                })
            };
            let offsets = Offsets::new(positions(1).collect());
            // Outputs are counted along lines of the padded copy; those in its margin are computed and thrown away.
            let line = if stride == 1 { padded_w } else { out_w };
            let all = (band.rows - 1) * line + out_w;
            for start in (0..all).step_by(WIDEST) {
                let columns = WIDEST.min(all - start);
                let strip = if stride == 1 {
                    Strip::Scattered(&padded[start..], &offsets)
                } else {
                    let corner = |position: usize| (position / line * padded_w + position % line) * stride;
                    gather(padded, start..start + columns, corner, positions(1), panel);
                    Strip::Panel(panel, WIDEST)
                };
                for (block, channels) in band.channels.chunks_mut(ROWS).enumerate() {
                    let mut tile = [0.0_f32; ROWS * WIDEST];
                    if let Some(bias) = bias {
                        for (row, bias) in tile.chunks_exact_mut(WIDEST).zip(&bias[block * ROWS..]) {
                            row.fill(*bias);
                        }
                    }
                    let weight = &weight[block * ROWS * k..];
                    accumulate(
                        level,
                        [channels.len(), k, columns],
                        (weight, k),
                        strip,
                        Start::Held,
                        (&mut tile, WIDEST),
                    );
                    activation.apply(level, &mut tile[..channels.len() * WIDEST]);
                    for (row, channel) in tile.chunks_exact(WIDEST).zip(channels) {
                        scatter(&row[..columns], start, line, out_w, channel);
                    }
                }
            }
        },
    );
    out
}

/// Rows `first..first + rows` of all channels of an image with `padding` zeros left and right, and enough after the end for a
/// last strip.
fn pad(image: &[f32], [h, w]: [usize; 2], first: isize, rows: usize, padding: usize, padded: &mut Vec<f32>) {
    let padded_w = w + 2 * padding;
    padded.clear();
    padded.resize(image.len() / (h * w) * rows * padded_w + WIDEST, 0.0);
    for (map, target) in image.chunks_exact(h * w).zip(padded.chunks_exact_mut(rows * padded_w)) {
        for (row, target) in target.chunks_exact_mut(padded_w).enumerate() {
            let y = first + row as isize;
            if (0..h as isize).contains(&y) {
                target[padding..padding + w].copy_from_slice(&map[y as usize * w..][..w]);
            }
        }
    }
}

/// A packed panel of the inputs of some outputs; `corner` finds an output's first input.
fn gather(
    padded: &[f32],
    outputs: std::ops::Range<usize>,
    corner: impl Fn(usize) -> usize,
    positions: impl Iterator<Item = usize>,
    panel: &mut Vec<f32>,
) {
    let mut corners = [0; WIDEST];
    for (slot, output) in corners.iter_mut().zip(outputs) {
        *slot = corner(output);
    }
    panel.clear();
    for position in positions {
        let values = &padded[position..];
        panel.extend(corners.iter().map(|&corner| values[corner]));
    }
}

/// Writes a strip that starts at position `start` of lines of `line` to rows of `width`, leaving out the margin.
pub(crate) fn scatter(strip: &[f32], start: usize, line: usize, width: usize, rows: &mut [f32]) {
    let mut done = 0;
    while done < strip.len() {
        let (y, x) = ((start + done) / line, (start + done) % line);
        let count = (line - x).min(strip.len() - done);
        if x < width {
            let kept = count.min(width - x);
            rows[y * width + x..][..kept].copy_from_slice(&strip[done..done + kept]);
        }
        done += count;
    }
}

/// The weight of a transposed convolution with kernel and stride 2 as `[C_out · 2 · 2, C_in]`: the four values of an output
/// channel are four rows of a product.
#[derive(Clone, Debug)]
pub struct SplitWeight {
    rows: Vec<f32>,
    c_in: usize,
    c_out: usize,
}

impl SplitWeight {
    /// From `[C_in, C_out, 2, 2]`.
    pub fn new(weight: &[f32], [c_in, c_out]: [usize; 2]) -> Self {
        assert_eq!(weight.len(), c_in * c_out * 4, "a weight of {c_in} × {c_out} × 2 × 2");
        let rows = (0..weight.len()).map(|index| weight[index % c_in * c_out * 4 + index / c_in]).collect();
        Self { rows, c_in, c_out }
    }
}

/// Transposed convolution with kernel and stride 2 (each input pixel gives a square of four): `activation(y + bias)`.
///
/// # Shapes
/// `x` `[N, C_in, H, W]`, `bias` `[C_out]` → `[N, C_out, 2H, 2W]`
pub fn conv_transpose2x2(
    x: &[f32],
    [n, c_in, h, w]: [usize; 4],
    weight: &SplitWeight,
    bias: Option<&[f32]>,
    activation: Activation,
) -> Vec<f32> {
    assert_eq!(x.len(), n * c_in * h * w, "input of {n} × {c_in} × {h} × {w}");
    let c_out = weight.c_out;
    assert_eq!(weight.c_in, c_in, "a weight for {c_in} channels");
    if x.is_empty() || c_out == 0 {
        return Vec::new();
    }
    assert!(bias.is_none_or(|bias| bias.len() == c_out), "a bias for each of {c_out} channels");
    let level = Level::best();
    let mut out = buffers::take(n * c_out * 4 * h * w);
    let rows = rows_in_a_band(h, c_in * w);
    // A band of input rows is a band of twice as many output rows.
    bands(&mut out, c_out, [2 * h, 2 * w], 2 * rows).into_par_iter().for_each_init(Vec::new, |padded, mut band| {
        let image = &x[band.image * c_in * h * w..][..c_in * h * w];
        let rows = band.rows / 2;
        pad(image, [h, w], (band.first / 2) as isize, rows, 0, padded);
        let offsets = Offsets::new((0..c_in).map(|channel| channel * rows * w).collect());
        for start in (0..rows * w).step_by(WIDEST) {
            let columns = WIDEST.min(rows * w - start);
            for (block, channels) in band.channels.chunks_mut(ROWS / 4).enumerate() {
                let mut tile = [0.0_f32; ROWS * WIDEST];
                if let Some(bias) = bias {
                    for (part, bias) in tile.chunks_exact_mut(4 * WIDEST).zip(&bias[block * ROWS / 4..]) {
                        part.fill(*bias);
                    }
                }
                let strip = Strip::Scattered(&padded[start..], &offsets);
                let weight = &weight.rows[block * ROWS * c_in..];
                accumulate(
                    level,
                    [4 * channels.len(), c_in, columns],
                    (weight, c_in),
                    strip,
                    Start::Held,
                    (&mut tile, WIDEST),
                );
                activation.apply(level, &mut tile[..4 * channels.len() * WIDEST]);
                for (part, channel) in tile.chunks_exact(4 * WIDEST).zip(channels) {
                    for (corner, row) in part.chunks_exact(WIDEST).enumerate() {
                        for (column, value) in row[..columns].iter().enumerate() {
                            let (y, x) = ((start + column) / w, (start + column) % w);
                            channel[(2 * y + corner / 2) * 2 * w + 2 * x + corner % 2] = *value;
                        }
                    }
                }
            }
        }
    });
    out
}

/// One filter for each channel: `activation(conv2d(x) + bias)`.
///
/// # Shapes
/// `x` `[N, C, H, W]`, `weight` `[C, kH, kW]`, `bias` `[C]` → `[N, C, H', W']`; `shape.c_out` is `C`
pub fn depthwise2d(
    x: &[f32],
    shape: &Conv2dShape,
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
) -> Vec<f32> {
    let Conv2dShape { n, c_in, size: [h, w], c_out, kernel: [kernel_h, kernel_w], stride, padding } = *shape;
    assert_eq!(x.len(), n * c_in * h * w, "input of {n} × {c_in} × {h} × {w}");
    assert_eq!([c_out, weight.len()], [c_in, c_in * kernel_h * kernel_w], "a filter for each channel");
    assert!(bias.is_none_or(|bias| bias.len() == c_in), "a bias for each of {c_in} channels");
    let [out_h, out_w] = shape.out_size();
    let mut out = buffers::take(n * c_in * out_h * out_w);
    if out.is_empty() {
        return out;
    }
    let level = Level::best();
    let line = (w + 2 * padding).div_ceil(stride);
    out.par_chunks_exact_mut(out_h * out_w).zip(x.par_chunks_exact(h * w)).enumerate().for_each_init(
        Vec::new,
        |padded, (index, (out, map))| {
            let channel = index % c_in;
            let filter = &weight[channel * kernel_h * kernel_w..][..kernel_h * kernel_w];
            let bias = bias.map_or(0.0, |bias| bias[channel]);
            phases(map, [h, w], [stride, padding], padded);
            let starts: Vec<usize> = (0..filter.len())
                .map(|tap| {
                    let (row, column) = (tap / kernel_w, tap % kernel_w);
                    (row * stride + column % stride) * line + column / stride
                })
                .collect();
            for (y, out) in out.chunks_exact_mut(out_w).enumerate() {
                filter_row(level, &padded[y * stride * stride * line..], &starts, filter, bias, out);
            }
            activation.apply(level, out);
        },
    );
    out
}

/// A map with its padding, each row as `stride` rows, one for each remainder of x: neighbouring outputs then read neighbours.
pub(crate) fn phases(map: &[f32], [h, w]: [usize; 2], [stride, padding]: [usize; 2], padded: &mut Vec<f32>) {
    let line = (w + 2 * padding).div_ceil(stride);
    padded.clear();
    padded.resize((h + 2 * padding) * stride * line, 0.0_f32);
    for (y, row) in map.chunks_exact(w).enumerate() {
        let target = &mut padded[(y + padding) * stride * line..][..stride * line];
        if stride == 1 {
            target[padding..padding + w].copy_from_slice(row);
            continue;
        }
        for (phase, target) in target.chunks_exact_mut(line).enumerate() {
            // The first place of this remainder at or after the padding, and the value there.
            let first = padding.saturating_sub(phase).div_ceil(stride);
            let values = row.get(first * stride + phase - padding..).unwrap_or_default();
            for (target, value) in target[first..].iter_mut().zip(values.iter().step_by(stride)) {
                *target = *value;
            }
        }
    }
}

/// `out[x] = bias + Σ filter[tap] · values[starts[tap] + x]`, a register of sums at a time.
#[inline(always)]
fn filter_row_body(values: &[f32], starts: &[usize], filter: &[f32], bias: f32, out: &mut [f32]) {
    const LANES: usize = 16;
    let (chunks, rest) = out.as_chunks_mut::<LANES>();
    let whole = chunks.len() * LANES;
    for (index, out) in chunks.iter_mut().enumerate() {
        let mut sums = [bias; LANES];
        for (&start, &factor) in starts.iter().zip(filter) {
            if let Some(values) = values[start + index * LANES..].first_chunk::<LANES>() {
                for lane in 0..LANES {
                    sums[lane] += factor * values[lane];
                }
            }
        }
        *out = sums;
    }
    for (x, out) in rest.iter_mut().enumerate() {
        let products = starts.iter().zip(filter).map(|(start, factor)| factor * values[start + whole + x]);
        *out = bias + products.sum::<f32>();
    }
}

for_each_level! {
    fn filter_row = filter_row_body(values: &[f32], starts: &[usize], filter: &[f32], bias: f32, out: &mut [f32])
}

/// Channels filtered together.
const CHANNELS: usize = 32;

/// Pixels of a task.
const PIXELS: usize = 512;

/// [`depthwise2d`] of maps whose channels lie together: no copy of the input, and what comes before and after it may be a product
/// over channels.
///
/// # Shapes
/// `x` `[N, H, W, C]`, `weight` `[C, kH, kW]`, `bias` `[C]` → `[N, H', W', C]`; `shape.c_out` is `C`
pub fn depthwise2d_last(
    x: &[f32],
    shape: &Conv2dShape,
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
) -> Vec<f32> {
    let Conv2dShape { n, c_in: channels, size: [h, w], c_out, kernel: [kernel_h, kernel_w], stride, padding } = *shape;
    let taps = kernel_h * kernel_w;
    assert_eq!(x.len(), n * channels * h * w, "input of {n} × {h} × {w} × {channels}");
    assert_eq!([c_out, weight.len()], [channels, channels * taps], "a filter for each channel");
    assert!(bias.is_none_or(|bias| bias.len() == channels), "a bias for each of {channels} channels");
    let [out_h, out_w] = shape.out_size();
    let mut out = buffers::take(n * channels * out_h * out_w);
    if out.is_empty() {
        return out;
    }
    let level = Level::best();
    // One tap of all channels after the other.
    let filters: Vec<f32> = (0..taps * channels).map(|at| weight[at % channels * taps + at / channels]).collect();
    let zeros = vec![0.0; channels];
    let bias = bias.unwrap_or(&zeros);
    out.par_chunks_mut(PIXELS * channels).enumerate().for_each_init(Vec::new, |inside, (task, out)| {
        for (pixel, out) in out.chunks_exact_mut(channels).enumerate() {
            let pixel = task * PIXELS + pixel;
            let (image, y, column) = (pixel / (out_h * out_w), pixel / out_w % out_h, pixel % out_w);
            inside.clear();
            for tap in 0..taps {
                let (sy, sx) = (y * stride + tap / kernel_w, column * stride + tap % kernel_w);
                if (padding..h + padding).contains(&sy) && (padding..w + padding).contains(&sx) {
                    let source = (image * h + sy - padding) * w + sx - padding;
                    inside.push([source * channels, tap * channels]);
                }
            }
            filter_pixel(level, [x, &filters], inside, bias, out);
        }
        activation.apply(level, out);
    });
    out
}

/// `out[c] = bias[c] + Σ x[from + c] · filters[of + c]` over pairs of `from` and `of`.
#[inline(always)]
fn filter_pixel_body<const FUSED: bool>(
    [x, filters]: [&[f32]; 2],
    inside: &[[usize; 2]],
    bias: &[f32],
    out: &mut [f32],
) {
    let (chunks, rest) = out.as_chunks_mut::<CHANNELS>();
    let whole = chunks.len() * CHANNELS;
    for (index, (out, bias)) in chunks.iter_mut().zip(bias.as_chunks::<CHANNELS>().0).enumerate() {
        let mut sums = *bias;
        for &[from, of] in inside {
            let (values, factors) =
                (x[from + index * CHANNELS..].first_chunk(), filters[of + index * CHANNELS..].first_chunk());
            if let (Some::<&[f32; CHANNELS]>(values), Some::<&[f32; CHANNELS]>(factors)) = (values, factors) {
                for lane in 0..CHANNELS {
                    sums[lane] = fma::<FUSED>(values[lane], factors[lane], sums[lane]);
                }
            }
        }
        *out = sums;
    }
    for (channel, out) in rest.iter_mut().enumerate() {
        let channel = whole + channel;
        *out = inside
            .iter()
            .fold(bias[channel], |sum, [from, of]| fma::<FUSED>(x[from + channel], filters[of + channel], sum));
    }
}

for_each_level! {
    fn filter_pixel = fused filter_pixel_body(sides: [&[f32]; 2], inside: &[[usize; 2]], bias: &[f32], out: &mut [f32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wave;

    /// The definition, groups included.
    fn slow(x: &[f32], shape: &Conv2dShape, weight: &[f32], bias: &[f32], groups: usize) -> Vec<f64> {
        let Conv2dShape { n, c_in, size: [h, w], c_out, kernel: [kernel_h, kernel_w], stride, padding } = *shape;
        let ([out_h, out_w], per_group) = (shape.out_size(), c_in / groups);
        let mut out = Vec::new();
        for index in 0..n * c_out * out_h * out_w {
            let (image, channel) = (index / (c_out * out_h * out_w), index / (out_h * out_w) % c_out);
            let (y, column) = (index / out_w % out_h, index % out_w);
            let group = channel / (c_out / groups);
            let mut sum = f64::from(bias[channel]);
            for at in 0..per_group * kernel_h * kernel_w {
                let (c, ky, kx) = (at / (kernel_h * kernel_w), at / kernel_w % kernel_h, at % kernel_w);
                let (sy, sx) = (y * stride + ky, column * stride + kx);
                if (padding..h + padding).contains(&sy) && (padding..w + padding).contains(&sx) {
                    let from = ((image * c_in + group * per_group + c) * h + sy - padding) * w + sx - padding;
                    sum += f64::from(x[from]) * f64::from(weight[channel * per_group * kernel_h * kernel_w + at]);
                }
            }
            out.push(sum);
        }
        out
    }

    fn assert_close(found: &[f32], expected: &[f64], what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((f64::from(*found) - expected).abs() < 1e-4, "{what} at {index}: {found}, expected {expected}");
        }
    }

    #[test]
    fn convolutions_equal_their_definition() {
        for (n, c_in, size, c_out, kernel, stride, padding) in [
            (1, 3, [9, 13], 5, [3, 3], 1, 1),
            (2, 4, [30, 61], 17, [3, 3], 1, 1),
            (1, 2, [7, 130], 8, [1, 1], 1, 0),
            (1, 5, [11, 10], 9, [3, 3], 2, 1),
            (2, 3, [32, 48], 6, [16, 16], 16, 0),
            (1, 1, [1, 1], 1, [3, 3], 1, 1),
            (1, 2, [5, 6], 3, [2, 3], 1, 0),
        ] {
            let shape = Conv2dShape { n, c_in, size, c_out, kernel, stride, padding };
            let x = wave(1, n * c_in * size[0] * size[1]);
            let (weight, bias) = (wave(2, c_out * c_in * kernel[0] * kernel[1]), wave(3, c_out));
            let found = conv2d(&x, &shape, &weight, Some(&bias), Activation::None);
            assert_close(&found, &slow(&x, &shape, &weight, &bias, 1), &format!("{shape:?}"));
        }
    }

    #[test]
    fn a_kernel_larger_than_the_map_gives_nothing() {
        let shape = Conv2dShape { n: 1, c_in: 1, size: [2, 2], c_out: 1, kernel: [3, 3], stride: 1, padding: 0 };
        assert!(conv2d(&[0.0; 4], &shape, &[0.0; 9], None, Activation::None).is_empty());
    }

    #[test]
    fn depthwise_equals_its_definition() {
        for (n, c, size, kernel, stride, padding) in [
            (2, 3, [9, 13], 3, 1, 1),
            (1, 4, [17, 33], 3, 2, 1),
            (1, 2, [8, 8], 5, 3, 2),
            (1, 1, [1, 1], 3, 2, 1),
            (2, 70, [19, 31], 3, 1, 1),
        ] {
            let shape = Conv2dShape { n, c_in: c, size, c_out: c, kernel: [kernel; 2], stride, padding };
            let x = wave(1, n * c * size[0] * size[1]);
            let (weight, bias) = (wave(2, c * kernel * kernel), wave(3, c));
            let found = depthwise2d(&x, &shape, &weight, Some(&bias), Activation::None);
            let expected = slow(&x, &shape, &weight, &bias, c);
            assert_close(&found, &expected, &format!("{shape:?}"));
            let turn = |from: &[f32], [rows, columns]: [usize; 2]| -> Vec<f32> {
                let image = |from: &[f32]| {
                    (0..from.len()).map(|at| from[at % rows * columns + at / rows]).collect::<Vec<f32>>()
                };
                from.chunks_exact(rows * columns).flat_map(image).collect()
            };
            let last =
                depthwise2d_last(&turn(&x, [c, size[0] * size[1]]), &shape, &weight, Some(&bias), Activation::None);
            let pixels = shape.out_size().iter().product();
            assert_close(&turn(&last, [pixels, c]), &expected, &format!("channels last, {shape:?}"));
        }
    }

    #[test]
    fn transposed_convolution_equals_its_definition() {
        for [n, c_in, h, w, c_out] in [[1, 3, 5, 7, 2], [2, 4, 20, 31, 5], [1, 1, 1, 1, 1]] {
            let (x, weight, bias) = (wave(1, n * c_in * h * w), wave(2, c_in * c_out * 4), wave(3, c_out));
            let split = SplitWeight::new(&weight, [c_in, c_out]);
            let found = conv_transpose2x2(&x, [n, c_in, h, w], &split, Some(&bias), Activation::Relu);
            let expected: Vec<f64> = (0..n * c_out * 4 * h * w)
                .map(|index| {
                    let (image, channel) = (index / (c_out * 4 * h * w), index / (4 * h * w) % c_out);
                    let (y, column) = (index / (2 * w) % (2 * h), index % (2 * w));
                    let product = |c: usize| {
                        let from = x[((image * c_in + c) * h + y / 2) * w + column / 2];
                        f64::from(from) * f64::from(weight[(c * c_out + channel) * 4 + y % 2 * 2 + column % 2])
                    };
                    ((0..c_in).map(product).sum::<f64>() + f64::from(bias[channel])).max(0.0)
                })
                .collect();
            assert_close(&found, &expected, &format!("{n} × {c_in} × {h} × {w} → {c_out}"));
        }
    }
}
