//! Gradients of a convolution with one filter for each channel.

use rayon::prelude::*;

use super::conv::spread;
use crate::{Activation, Conv2dShape, Level, conv::phases, depthwise2d, level::for_each_level};

/// The gradient of the input.
///
/// # Shapes
/// `dy` `[N, C, H', W']`, `weight` `[C, k, k]` → `[N, C, H, W]`; the padding is less than the kernel
pub fn depthwise2d_input_gradient(dy: &[f32], shape: &Conv2dShape, weight: &[f32]) -> Vec<f32> {
    let taps = shape.kernel[0] * shape.kernel[1];
    assert_eq!(weight.len(), shape.c_in * taps, "a filter for each channel");
    let turned: Vec<f32> = weight.chunks_exact(taps.max(1)).flat_map(|filter| filter.iter().rev().copied()).collect();
    let (spread, back) = spread(dy, shape);
    depthwise2d(spread.as_deref().unwrap_or(dy), &back, &turned, None, Activation::None)
}

/// The gradient of the filters.
///
/// # Shapes
/// `x` `[N, C, H, W]`, `dy` `[N, C, H', W']` → `[C, kH, kW]`
pub fn depthwise2d_weight_gradient(x: &[f32], dy: &[f32], shape: &Conv2dShape) -> Vec<f32> {
    let Conv2dShape { n, c_in: channels, size: [h, w], kernel: [kernel_h, kernel_w], stride, padding, .. } = *shape;
    let [out_h, out_w] = shape.out_size();
    assert_eq!(x.len(), n * channels * h * w, "input of {n} × {channels} × {h} × {w}");
    assert_eq!(dy.len(), n * channels * out_h * out_w, "a gradient of {n} × {channels} × {out_h} × {out_w}");
    let mut out = vec![0.0_f32; channels * kernel_h * kernel_w];
    if dy.is_empty() || out.is_empty() {
        return out;
    }
    let level = Level::best();
    let line = (w + 2 * padding).div_ceil(stride);
    let starts: Vec<usize> = (0..kernel_h * kernel_w)
        .map(|tap| {
            let (row, column) = (tap / kernel_w, tap % kernel_w);
            (row * stride + column % stride) * line + column / stride
        })
        .collect();
    out.par_chunks_exact_mut(kernel_h * kernel_w).enumerate().for_each_init(Vec::new, |padded, (channel, out)| {
        let mut sums = vec![[0.0_f32; LANES]; out.len()];
        for image in 0..n {
            let map = image * channels + channel;
            phases(&x[map * h * w..][..h * w], [h, w], [stride, padding], padded);
            let dy = &dy[map * out_h * out_w..][..out_h * out_w];
            for (y, dy) in dy.chunks_exact(out_w).enumerate() {
                products(level, &padded[y * stride * stride * line..], &starts, dy, &mut sums);
            }
        }
        for (out, sums) in out.iter_mut().zip(&sums) {
            *out = sums.iter().sum();
        }
    });
    out
}

const LANES: usize = 16;

/// `sums[tap] += Σ dy[x] · values[starts[tap] + x]`, partial sums side by side.
#[inline(always)]
fn products_body(values: &[f32], starts: &[usize], dy: &[f32], sums: &mut [[f32; LANES]]) {
    let (chunks, rest) = dy.as_chunks::<LANES>();
    for (&start, sums) in starts.iter().zip(sums) {
        let values = &values[start..start + dy.len()];
        let (value_chunks, value_rest) = values.as_chunks::<LANES>();
        let mut held = *sums;
        for (dy, values) in chunks.iter().zip(value_chunks) {
            for lane in 0..LANES {
                held[lane] += dy[lane] * values[lane];
            }
        }
        for ((sum, dy), value) in held.iter_mut().zip(rest).zip(value_rest) {
            *sum += dy * value;
        }
        *sums = held;
    }
}

for_each_level! {
    fn products = products_body(values: &[f32], starts: &[usize], dy: &[f32], sums: &mut [[f32; LANES]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backward::{conv2d_input_gradient, conv2d_weight_gradient},
        conv2d,
        testing::{assert_close, wave},
    };

    /// Each channel is a convolution of one channel.
    #[test]
    fn gradients_equal_those_of_single_channels() {
        for (n, c, size, kernel, stride, padding) in
            [(2, 3, [9, 13], 3, 1, 1), (1, 4, [17, 33], 3, 2, 1), (2, 2, [8, 8], 5, 3, 2), (1, 1, [1, 1], 3, 2, 1)]
        {
            let shape = Conv2dShape { n, c_in: c, size, c_out: c, kernel: [kernel; 2], stride, padding };
            let single = Conv2dShape { n: 1, c_in: 1, c_out: 1, ..shape };
            let [out_h, out_w] = shape.out_size();
            let (pixels, out_pixels, taps) = (size[0] * size[1], out_h * out_w, kernel * kernel);
            let (x, dy, weight) = (wave(1, n * c * pixels), wave(2, n * c * out_pixels), wave(3, c * taps));
            let (mut dx, mut dw) = (Vec::new(), vec![0.0; c * taps]);
            for map in 0..n * c {
                let (x, dy) = (&x[map * pixels..][..pixels], &dy[map * out_pixels..][..out_pixels]);
                let filter = &weight[map % c * taps..][..taps];
                assert_eq!(conv2d(x, &single, filter, None, Activation::None).len(), dy.len());
                dx.extend(conv2d_input_gradient(dy, &single, filter).into_iter().map(f64::from));
                let part = conv2d_weight_gradient(x, dy, &single);
                dw[map % c * taps..].iter_mut().zip(part).for_each(|(sum, value)| *sum += f64::from(value));
            }
            let what = format!("{shape:?}");
            assert_close(&depthwise2d_input_gradient(&dy, &shape, &weight), &dx, &what);
            assert_close(&depthwise2d_weight_gradient(&x, &dy, &shape), &dw, &what);
        }
    }
}
