//! Gradients of a convolution's input and weight.
//!
//! The input's is a convolution with the kernel turned round. The weight's is a product over all pixels. In a padded copy of some rows
//! with the channels of a pixel side by side, the inputs of one kernel row lie together for every pixel, so that no copy is made for
//! each kernel position: for each kernel row, `dy` `[C_out, pixels]` times that copy, shifted, `[pixels, kW · C_in]`.

use rayon::prelude::*;

use super::product::{accumulate_rows, total};
use crate::{Activation, Conv2dShape, Level, conv2d, tile::transpose};

/// Values of the padded copy: half a second-level cache.
const BAND: usize = 1 << 17;

/// Partial sums of a weight's gradient, at most, and values of all of them.
const PARTS: usize = 16;
const PARTIAL: usize = 1 << 22;

/// Strips are read so far past the last pixel.
const SLACK: usize = 64;

/// The gradient of a convolution's input.
///
/// # Shapes
/// `dy` `[N, C_out, H', W']`, `weight` `[C_out, C_in, k, k]` → `[N, C_in, H, W]`; the padding is less than the kernel
pub fn conv2d_input_gradient(dy: &[f32], shape: &Conv2dShape, weight: &[f32]) -> Vec<f32> {
    let Conv2dShape { n, c_in, c_out, kernel, .. } = *shape;
    let taps = kernel[0] * kernel[1];
    assert_eq!(weight.len(), c_out * c_in * taps, "a weight of {c_out} × {c_in} × {kernel:?}");
    let turned: Vec<f32> = (0..weight.len())
        .map(|index| {
            let (to, from, tap) = (index / (c_out * taps), index / taps % c_out, index % taps);
            weight[(from * c_in + to) * taps + taps - 1 - tap]
        })
        .collect();
    let (spread, back) = spread(dy, shape);
    let back = Conv2dShape { n, c_in: c_out, c_out: c_in, ..back };
    conv2d(spread.as_deref().unwrap_or(dy), &back, &turned, None, Activation::None)
}

/// For a convolution with the kernel turned round: the gradient with `stride − 1` zeros between its values where the stride is more
/// than 1, and the sizes of that convolution but for its channels.
pub(super) fn spread(dy: &[f32], shape: &Conv2dShape) -> (Option<Vec<f32>>, Conv2dShape) {
    let Conv2dShape { n, c_out, size, kernel: [kernel, _], stride, padding, .. } = *shape;
    assert!(shape.kernel == [kernel; 2] && padding < kernel, "a square kernel, wider than the padding");
    let [out_h, out_w] = shape.out_size();
    assert_eq!(dy.len(), n * c_out * out_h * out_w, "a gradient of {n} × {c_out} × {out_h} × {out_w}");
    let [h, w] = size.map(|side| (side + 2 * padding + 1).saturating_sub(kernel));
    let back = Conv2dShape { size: [h, w], stride: 1, padding: kernel - 1 - padding, ..*shape };
    if stride == 1 || dy.is_empty() {
        return (None, back);
    }
    let mut spread = vec![0.0_f32; n * c_out * h * w];
    spread.par_chunks_exact_mut(h * w).zip(dy.par_chunks_exact(out_h * out_w)).for_each(|(spread, dy)| {
        for (row, dy) in spread.chunks_exact_mut(w).step_by(stride).zip(dy.chunks_exact(out_w)) {
            row.iter_mut().step_by(stride).zip(dy).for_each(|(to, from)| *to = *from);
        }
    });
    (Some(spread), back)
}

/// The gradient of a convolution's weight.
///
/// # Shapes
/// `x` `[N, C_in, H, W]`, `dy` `[N, C_out, H', W']` → `[C_out, C_in, kH, kW]`
pub fn conv2d_weight_gradient(x: &[f32], dy: &[f32], shape: &Conv2dShape) -> Vec<f32> {
    let shape = &in_lines(shape);
    let Conv2dShape { n, c_in, size: [h, w], c_out, kernel: [kernel_h, kernel_w], stride, padding } = *shape;
    let [out_h, out_w] = shape.out_size();
    assert_eq!(x.len(), n * c_in * h * w, "input of {n} × {c_in} × {h} × {w}");
    assert_eq!(dy.len(), n * c_out * out_h * out_w, "a gradient of {n} × {c_out} × {out_h} × {out_w}");
    let columns = kernel_w * c_in;
    let length = c_out * kernel_h * columns;
    if dy.is_empty() || length == 0 {
        return vec![0.0; length];
    }
    let level = Level::best();
    let line = (w + 2 * padding).div_ceil(stride);
    let rows = (BAND / (line * stride * stride * c_in)).clamp(1, out_h);
    let bands: Vec<(usize, usize)> =
        (0..n).flat_map(|image| (0..out_h).step_by(rows).map(move |first| (image, first))).collect();
    let per_part = bands.len().div_ceil((PARTIAL / length).clamp(1, PARTS));
    let parts = bands.len().div_ceil(per_part);
    // Where the parts are fewer than the threads, the channels are divided too; each then copies the input.
    let divisions = (2 * rayon::current_num_threads()).div_ceil(parts);
    let block = c_out.div_ceil(divisions).next_multiple_of(24).min(c_out);
    let blocks = c_out.div_ceil(block);
    let tasks: Vec<(usize, usize)> = (0..parts * blocks).map(|task| (task / blocks, task % blocks * block)).collect();
    let sums: Vec<Vec<f32>> = tasks
        .into_par_iter()
        .map_init(
            || (Pixels::default(), Vec::new(), Vec::new()),
            |(pixels, lines, edge), (part, channel)| {
                let count = block.min(c_out - channel);
                let mut sums = vec![0.0_f32; count * kernel_h * columns];
                for &(image, first) in bands.iter().skip(part * per_part).take(per_part) {
                    let rows = rows.min(out_h - first);
                    pixels.fill(level, &x[image * c_in * h * w..][..c_in * h * w], shape, line, [first, rows]);
                    let all = (rows - 1) * line + out_w;
                    let dy = &dy[((image * c_out + channel) * out_h + first) * out_w..];
                    let a = if line == out_w {
                        (dy, out_h * out_w)
                    } else {
                        lines.clear();
                        lines.resize(count * rows * line, 0.0);
                        for (channel, lines) in lines.chunks_exact_mut(rows * line).enumerate() {
                            let dy = &dy[channel * out_h * out_w..];
                            for (to, from) in lines.chunks_exact_mut(line).zip(dy.chunks_exact(out_w)) {
                                to[..out_w].copy_from_slice(from);
                            }
                        }
                        (lines.as_slice(), rows * line)
                    };
                    for kernel_row in 0..kernel_h {
                        let b = (pixels.from(kernel_row, stride), stride * c_in);
                        let c = (&mut sums[kernel_row * columns..], kernel_h * columns);
                        accumulate_rows(level, [count, all, columns], a, b, c, edge);
                    }
                }
                sums
            },
        )
        .collect();
    let mut parts: Vec<Vec<f32>> = sums.chunks(blocks).map(<[Vec<f32>]>::concat).collect();
    let sums = if parts.len() == 1 { parts.swap_remove(0) } else { total(parts, length) };
    // [C_out, kH, kW, C_in] → [C_out, C_in, kH, kW]
    let taps = kernel_h * kernel_w;
    (0..length)
        .map(|index| {
            let (channel, rest) = (index / (c_in * taps), index % (c_in * taps));
            sums[(channel * taps + rest % taps) * c_in + rest / taps]
        })
        .collect()
}

/// For a kernel of 1 × 1 any rows will do: such as fill whole registers when channels and pixels change places.
fn in_lines(shape: &Conv2dShape) -> Conv2dShape {
    let [h, w] = shape.size;
    let plain = shape.kernel == [1, 1] && shape.stride == 1 && shape.padding == 0;
    match [64, 16].into_iter().find(|&line| plain && h * w > 0 && (h * w).is_multiple_of(line)) {
        Some(line) => Conv2dShape { size: [h * w / line, line], ..*shape },
        None => *shape,
    }
}

/// Some padded rows of an image with the channels of a pixel side by side, `[stride, rows, line · stride, C_in]`: rows with the same
/// remainder follow each other, so that the inputs of neighbouring outputs are equally far apart, also from one row to the next.
#[derive(Default)]
struct Pixels {
    values: Vec<f32>,
    /// Rows of one remainder.
    rows: usize,
    /// Values of a row.
    width: usize,
}

impl Pixels {
    /// The inputs of output rows `first..first + rows`.
    fn fill(&mut self, level: Level, image: &[f32], shape: &Conv2dShape, line: usize, [first, rows]: [usize; 2]) {
        let Conv2dShape { c_in, size: [h, w], kernel: [kernel_h, _], stride, padding, .. } = *shape;
        self.rows = rows + (kernel_h - 1) / stride;
        self.width = line * stride * c_in;
        self.values.resize(stride * self.rows * self.width + shape.kernel[1] * c_in + SLACK, 0.0);
        let whole = self.values.len() - shape.kernel[1] * c_in - SLACK;
        self.values[whole..].fill(0.0);
        for (index, target) in self.values[..whole].chunks_exact_mut(self.width).enumerate() {
            let y = (first + index % self.rows) * stride + index / self.rows;
            if (padding..h + padding).contains(&y) {
                let (left, rest) = target.split_at_mut(padding * c_in);
                let (inner, right) = rest.split_at_mut(w * c_in);
                left.fill(0.0);
                right.fill(0.0);
                transpose(level, (&image[(y - padding) * w..], h * w), [c_in, w], (inner, c_in));
            } else {
                target.fill(0.0);
            }
        }
    }

    /// From the first input of a kernel row on.
    fn from(&self, kernel_row: usize, stride: usize) -> &[f32] {
        &self.values[(kernel_row % stride * self.rows + kernel_row / stride) * self.width..]
    }
}

/// Sums of each channel over pixels and images, as a bias gets them.
///
/// # Shapes
/// `[N, C, pixels]` → `[C]`
pub fn map_sums(values: &[f32], channels: usize, pixels: usize) -> Vec<f32> {
    if channels == 0 || pixels == 0 {
        return vec![0.0; channels];
    }
    let sums: Vec<f32> = values
        .par_chunks_exact(pixels)
        .map(|map| {
            let pieces = map.chunks(1 << 12).map(|piece| {
                let (chunks, rest) = piece.as_chunks::<16>();
                let mut lanes = [0.0_f32; 16];
                chunks.iter().for_each(|chunk| lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value));
                lanes.iter().chain(rest).sum::<f32>()
            });
            pieces.sum()
        })
        .collect();
    (0..channels).map(|channel| sums[channel.min(sums.len())..].iter().step_by(channels).sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, wave};

    /// Both gradients from the definition, tap by tap.
    fn slow(x: &[f32], dy: &[f32], weight: &[f32], shape: &Conv2dShape) -> [Vec<f64>; 2] {
        let Conv2dShape { c_in, size: [h, w], c_out, kernel: [kernel_h, kernel_w], stride, padding, .. } = *shape;
        let [out_h, out_w] = shape.out_size();
        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
        for (index, &slope) in dy.iter().enumerate() {
            let (image, to) = (index / (c_out * out_h * out_w), index / (out_h * out_w) % c_out);
            let (y, column) = (index / out_w % out_h, index % out_w);
            for at in 0..c_in * kernel_h * kernel_w {
                let (from, ky, kx) = (at / (kernel_h * kernel_w), at / kernel_w % kernel_h, at % kernel_w);
                let (sy, sx) = (y * stride + ky, column * stride + kx);
                if (padding..h + padding).contains(&sy) && (padding..w + padding).contains(&sx) {
                    let input = ((image * c_in + from) * h + sy - padding) * w + sx - padding;
                    let tap = to * c_in * kernel_h * kernel_w + at;
                    dx[input] += f64::from(slope) * f64::from(weight[tap]);
                    dw[tap] += f64::from(slope) * f64::from(x[input]);
                }
            }
        }
        [dx, dw]
    }

    #[test]
    fn gradients_of_convolutions_equal_their_definition() {
        for (n, c_in, size, c_out, kernel, stride, padding) in [
            (1, 3, [9, 13], 5, 3, 1, 1),
            (2, 16, [30, 61], 17, 3, 1, 1),
            (3, 2, [8, 16], 8, 1, 1, 0),
            (1, 40, [7, 13], 50, 1, 1, 0),
            (1, 5, [11, 10], 9, 3, 2, 1),
            (2, 3, [32, 48], 6, 16, 16, 0),
            (2, 3, [10, 14], 4, 2, 2, 0),
            (1, 1, [1, 1], 1, 3, 1, 1),
            // Several bands, several parts.
            (2, 33, [97, 131], 3, 3, 1, 1),
        ] {
            let shape = Conv2dShape { n, c_in, size, c_out, kernel: [kernel; 2], stride, padding };
            let [out_h, out_w] = shape.out_size();
            let (x, dy) = (wave(1, n * c_in * size[0] * size[1]), wave(2, n * c_out * out_h * out_w));
            let weight = wave(3, c_out * c_in * kernel * kernel);
            let [dx, dw] = slow(&x, &dy, &weight, &shape);
            let what = format!("{shape:?}");
            assert_close(&conv2d_input_gradient(&dy, &shape, &weight), &dx, &what);
            assert_close(&conv2d_weight_gradient(&x, &dy, &shape), &dw, &what);
            let sums: Vec<f64> = (0..c_out)
                .map(|channel| {
                    let of_channel = |index: &usize| index / (out_h * out_w) % c_out == channel;
                    (0..dy.len()).filter(of_channel).map(|index| f64::from(dy[index])).sum()
                })
                .collect();
            assert_close(&map_sums(&dy, c_out, out_h * out_w), &sums, &what);
        }
    }
}
