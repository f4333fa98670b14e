//! Layer norm over the last axis, instance norm over the pixels of a map, batch norm over those of all images (biased variance).

use rayon::prelude::*;

use crate::{
    Activation, Level, buffers,
    level::{fma, for_each_level},
    pointwise::{gelu_body, relu_body},
};

/// Partial sums side by side; the compiler must not reorder sums by itself.
const LANES: usize = 16;

/// Values one thread takes at a time.
const CHUNK: usize = 1 << 14;

#[inline(always)]
pub(crate) fn sum(values: &[f32], value: impl Fn(f32) -> f32) -> f32 {
    let mut parts = [0.0_f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (part, &x) in parts.iter_mut().zip(chunk) {
            *part += value(x);
        }
    }
    parts.iter().sum::<f32>() + rest.iter().map(|&x| value(x)).sum::<f32>()
}

/// Mean, and one over the standard deviation. Two passes: the short one of sums and squares loses digits.
#[inline(always)]
pub(crate) fn moments(values: &[f32], eps: f32) -> [f32; 2] {
    let count = values.len() as f32;
    let mean = sum(values, |x| x) / count;
    let variance = sum(values, |x| (x - mean) * (x - mean)) / count;
    [mean, 1.0 / (variance + eps).sqrt()]
}

#[inline(always)]
fn layer_norm_body(rows: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    for (row, out) in rows.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        let [mean, factor] = moments(row, eps);
        for (((out, x), weight), bias) in out.iter_mut().zip(row).zip(weight).zip(bias) {
            *out = (*x - mean) * factor * weight + bias;
        }
    }
}

for_each_level! {
    /// Layer norm of each row of `rows`, on this thread.
    pub(crate) fn layer_norm_rows = layer_norm_body(
        rows: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32],
    )
}

/// Layer norm of each row.
///
/// # Shapes
/// `values` `[rows, C]`, `weight` and `bias` `[C]` → `[rows, C]`
pub fn layer_norm(values: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let columns = weight.len();
    if columns == 0 {
        return Vec::new();
    }
    assert_eq!([values.len() % columns, bias.len()], [0, columns], "rows of {columns}");
    let level = Level::best();
    let mut out = buffers::take(values.len());
    let chunk = (CHUNK / columns).max(1) * columns;
    out.par_chunks_mut(chunk)
        .zip(values.par_chunks(chunk))
        .for_each(|(out, rows)| layer_norm_rows(level, rows, weight, bias, eps, out));
    out
}

/// Mean and mean square deviation of a map, read from memory once: those of pieces that stay in the cache, joined as Chan, Golub and
/// LeVeque ("Updating formulae and a pairwise algorithm for computing sample variances", 1979) do.
#[inline(always)]
fn map_moments_body(map: &[f32]) -> [f64; 2] {
    let (mut count, mut mean, mut squares) = (0.0_f64, 0.0_f64, 0.0_f64);
    for piece in map.chunks(PIECE) {
        let these = piece.len() as f64;
        let of_piece = sum(piece, |x| x) / piece.len() as f32;
        // The rounding of the mean of the piece is in the sum of squares, and is taken out of it again.
        let (rest, squares_of_piece) =
            (f64::from(sum(piece, |x| x - of_piece)), f64::from(sum(piece, |x| (x - of_piece) * (x - of_piece))));
        let exact = f64::from(of_piece) + rest / these;
        let apart = exact - mean;
        squares += squares_of_piece - rest * rest / these + apart * apart * count * these / (count + these);
        count += these;
        mean += apart * these / count;
    }
    [mean, squares / count]
}

/// `activation(x · factor + offset)`.
#[inline(always)]
fn scale_map_body<const FUSED: bool>(map: &mut [f32], [factor, offset]: [f32; 2], activation: Activation) {
    for x in &mut *map {
        *x = fma::<FUSED>(*x, factor, offset);
    }
    match activation {
        Activation::None => {}
        Activation::Relu => relu_body(map),
        Activation::Gelu => gelu_body::<FUSED>(map),
    }
}

for_each_level! {
    pub(crate) fn map_moments = map_moments_body(map: &[f32]) -> [f64; 2]
}
for_each_level! {
    fn scale_map = fused scale_map_body(map: &mut [f32], line: [f32; 2], activation: Activation)
}

/// Pixels of a map that are scaled at a time: what the activation reads is still in the cache.
const PIECE: usize = 1 << 12;

/// Factor and offset of the norm of each map over its pixels, without weights: `x · factor + offset` is the norm.
///
/// # Shapes
/// `values` `[maps, pixels]` → `[maps]`
pub fn instance_norm_lines(values: &[f32], pixels: usize, eps: f32) -> Vec<[f32; 2]> {
    let level = Level::best();
    let line = |map: &[f32]| {
        let [mean, variance] = map_moments(level, map);
        let factor = 1.0 / (variance as f32 + eps).sqrt();
        [factor, -(mean as f32) * factor]
    };
    values.par_chunks_exact(pixels.max(1)).map(line).collect()
}

/// Norm of each map over its pixels, without weights.
///
/// # Shapes
/// `values` and `out` `[maps, pixels]`
pub fn instance_norm(values: &[f32], pixels: usize, eps: f32, out: &mut [f32]) {
    assert_eq!(values.len(), out.len(), "as many results as values");
    if pixels == 0 {
        return;
    }
    let level = Level::best();
    let lines = instance_norm_lines(values, pixels, eps);
    out.par_chunks_exact_mut(pixels).zip(values.par_chunks_exact(pixels)).zip(lines).for_each(|((out, map), line)| {
        for (out, map) in out.chunks_mut(PIECE).zip(map.chunks(PIECE)) {
            out.copy_from_slice(map);
            scale_map(level, out, line, Activation::None);
        }
    });
}

/// Norm of each channel over the pixels of all images, then an activation, in place.
///
/// # Shapes
/// `values` `[N, C, pixels]`, `weight` and `bias` `[C]`
pub fn batch_norm(values: &mut [f32], pixels: usize, weight: &[f32], bias: &[f32], eps: f32, activation: Activation) {
    let channels = weight.len();
    if values.is_empty() || channels == 0 {
        return;
    }
    assert_eq!([values.len() % (channels * pixels), bias.len()], [0, channels], "maps of {channels} channels");
    let level = Level::best();
    let moments: Vec<[f64; 2]> = values.par_chunks_exact(pixels).map(|map| map_moments(level, map)).collect();
    let images = moments.len() / channels;
    let lines: Vec<[f32; 2]> = (0..channels)
        .map(|channel| {
            let of_images = || moments[channel..].iter().step_by(channels);
            let mean = of_images().map(|[mean, _]| mean).sum::<f64>() / images as f64;
            let deviation = |[of_one, variance]: &[f64; 2]| variance + (of_one - mean) * (of_one - mean);
            let variance = of_images().map(deviation).sum::<f64>() / images as f64;
            let factor = f64::from(weight[channel]) / (variance + f64::from(eps)).sqrt();
            [factor as f32, (f64::from(bias[channel]) - mean * factor) as f32]
        })
        .collect();
    values.par_chunks_exact_mut(pixels).enumerate().for_each(|(index, map)| {
        for piece in map.chunks_mut(PIECE) {
            scale_map(level, piece, lines[index % channels], activation);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(values: &[f32], eps: f64) -> Vec<f64> {
        let count = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
        values.iter().map(|&x| (f64::from(x) - mean) / (variance + eps).sqrt()).collect()
    }

    #[test]
    fn norms_equal_their_definition() {
        for columns in [1, 16, 37, 5000] {
            let values: Vec<f32> = (0..3 * columns).map(|index| (index as f32 * 0.71).sin() * 3.0 + 40.0).collect();
            let weight: Vec<f32> = (0..columns).map(|index| 1.0 + index as f32 * 1e-3).collect();
            let bias: Vec<f32> = (0..columns).map(|index| index as f32 * 0.01 - 0.2).collect();
            let (layer, mut instance) = (layer_norm(&values, &weight, &bias, 1e-6), vec![0.0; values.len()]);
            instance_norm(&values, columns, 1e-5, &mut instance);
            for row in 0..3 {
                let range = row * columns..(row + 1) * columns;
                let expected = [slow(&values[range.clone()], 1e-6), slow(&values[range.clone()], 1e-5)];
                for (column, index) in range.enumerate() {
                    let wanted = expected[0][column] * f64::from(weight[column]) + f64::from(bias[column]);
                    assert!((f64::from(layer[index]) - wanted).abs() < 1e-3, "{columns}: {} {wanted}", layer[index]);
                    assert!((f64::from(instance[index]) - expected[1][column]).abs() < 1e-3);
                }
            }
        }
    }

    #[test]
    fn far_from_zero_pieces_join_without_losing_digits() {
        // Several pieces, a last short one, a mean of a thousand deviations that drifts from piece to piece.
        let map: Vec<f32> =
            (0..5 * PIECE + 77).map(|index| 1000.0 + index as f32 * 1e-4 + (index as f32 * 0.71).sin()).collect();
        let count = map.len() as f64;
        let mean = map.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let variance = map.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
        for level in Level::all() {
            let found = map_moments(level, &map);
            assert!((found[0] - mean).abs() < 1e-5, "{level:?}: {found:?}, mean {mean}");
            assert!((found[1] / variance - 1.0).abs() < 1e-6, "{level:?}: {found:?}, variance {variance}");
        }
    }

    #[test]
    fn batch_norm_pools_over_the_images() {
        let (images, channels, pixels) = (3, 4, 77);
        let values: Vec<f32> = (0..images * channels * pixels)
            .map(|index| (index as f32 * 0.37).sin() * 2.0 + (index / 500) as f32)
            .collect();
        let (weight, bias) = ([0.5, -1.0, 2.0, 1.0], [0.1, 0.2, -0.3, 0.0]);
        for activation in [Activation::None, Activation::Relu] {
            let mut found = values.clone();
            batch_norm(&mut found, pixels, &weight, &bias, 1e-5, activation);
            for channel in 0..channels {
                let places: Vec<usize> =
                    (0..images * channels * pixels).filter(|index| index / pixels % channels == channel).collect();
                let of_channel: Vec<f32> = places.iter().map(|&index| values[index]).collect();
                for (&index, normed) in places.iter().zip(slow(&of_channel, 1e-5)) {
                    let mut expected = normed * f64::from(weight[channel]) + f64::from(bias[channel]);
                    if activation == Activation::Relu {
                        expected = expected.max(0.0);
                    }
                    assert!((f64::from(found[index]) - expected).abs() < 1e-4, "{index}: {} {expected}", found[index]);
                }
            }
        }
    }
}
