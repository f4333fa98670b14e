//! Layer norm over the last axis and instance norm over the pixels of a map (biased variance).

use rayon::prelude::*;

use crate::{Level, level::for_each_level};

/// Partial sums side by side; the compiler must not reorder sums by itself.
const LANES: usize = 16;

/// Values one thread takes at a time.
const CHUNK: usize = 1 << 14;

#[inline(always)]
fn sum(values: &[f32], value: impl Fn(f32) -> f32) -> f32 {
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
fn moments(values: &[f32], eps: f32) -> [f32; 2] {
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
    let mut out = vec![0.0_f32; values.len()];
    let chunk = (CHUNK / columns).max(1) * columns;
    out.par_chunks_mut(chunk)
        .zip(values.par_chunks(chunk))
        .for_each(|(out, rows)| layer_norm_rows(level, rows, weight, bias, eps, out));
    out
}

#[inline(always)]
fn instance_norm_body(map: &mut [f32], eps: f32) {
    // A map of 1024² summed in one row of lanes would lose digits: sums of pieces.
    let piece = 1 << 12;
    let count = map.len() as f64;
    let mean = (map.chunks(piece).map(|piece| f64::from(sum(piece, |x| x))).sum::<f64>() / count) as f32;
    let squares = map.chunks(piece).map(|piece| f64::from(sum(piece, |x| (x - mean) * (x - mean)))).sum::<f64>();
    let factor = 1.0 / ((squares / count) as f32 + eps).sqrt();
    for x in map {
        *x = (*x - mean) * factor;
    }
}

for_each_level! {
    fn instance_norm_map = instance_norm_body(map: &mut [f32], eps: f32)
}

/// Norm of each map over its pixels, without weights, in place.
///
/// # Shapes
/// `values` `[maps, pixels]`
pub fn instance_norm(values: &mut [f32], pixels: usize, eps: f32) {
    if pixels == 0 {
        return;
    }
    let level = Level::best();
    values.par_chunks_exact_mut(pixels).for_each(|map| instance_norm_map(level, map, eps));
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
            let (layer, mut instance) = (layer_norm(&values, &weight, &bias, 1e-6), values.clone());
            instance_norm(&mut instance, columns, 1e-5);
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
}
