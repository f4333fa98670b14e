//! Bilinear ×2 of maps.

use rayon::prelude::*;

use crate::{Level, buffers, level::for_each_level};

/// Bilinear ×2 of `[maps, h, w]`, pixel centres at half-integers, edge pixels repeated: every new value takes 9, 3, 3 and 1
/// sixteenths of its four neighbours.
pub fn upsample2(values: &[f32], [h, w]: [usize; 2]) -> Vec<f32> {
    let mut out = buffers::take(values.len() * 4);
    if values.is_empty() {
        return out;
    }
    let level = Level::best();
    out.par_chunks_exact_mut(4 * h * w).zip(values.par_chunks_exact(h * w)).for_each_init(
        || vec![0.0_f32; 2 * h * w],
        |wide, (out, map)| {
            for (wide, row) in wide.chunks_exact_mut(2 * w).zip(map.chunks_exact(w)) {
                widen2(level, row, wide);
            }
            for (y, pair) in out.chunks_exact_mut(4 * w).enumerate() {
                let row = |y: usize| &wide[2 * w * y..2 * w * (y + 1)];
                let (upper, lower) = pair.split_at_mut(2 * w);
                blend(level, row(y), row(y.saturating_sub(1)), upper);
                blend(level, row(y), row((y + 1).min(h - 1)), lower);
            }
        },
    );
    out
}

/// One row ×2.
#[inline(always)]
fn widen2_body(row: &[f32], wide: &mut [f32]) {
    let last = row.len() - 1;
    wide[0] = row[0];
    wide[2 * last + 1] = row[last];
    let inner = &mut wide[1..=2 * last];
    for (new, pair) in inner.as_chunks_mut::<2>().0.iter_mut().zip(row.windows(2)) {
        *new = [0.75 * pair[0] + 0.25 * pair[1], 0.25 * pair[0] + 0.75 * pair[1]];
    }
}

/// Three quarters of one row and a quarter of another.
#[inline(always)]
fn blend_body(near: &[f32], far: &[f32], out: &mut [f32]) {
    for ((out, near), far) in out.iter_mut().zip(near).zip(far) {
        *out = 0.75 * near + 0.25 * far;
    }
}

for_each_level! {
    fn widen2 = widen2_body(row: &[f32], wide: &mut [f32])
}
for_each_level! {
    fn blend = blend_body(near: &[f32], far: &[f32], out: &mut [f32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubling_equals_interpolation_at_each_pixel() {
        for [maps, h, w] in [[3, 5, 7], [1, 1, 1], [2, 1, 4], [2, 3, 1]] {
            let values: Vec<f32> = (0..maps * h * w).map(|index| (index as f32 * 0.83).sin()).collect();
            let found = upsample2(&values, [h, w]);
            // Source coordinate, its two neighbours and the weight of the second, as PyTorch defines them.
            let source = |index: usize, extent: usize| {
                let at = ((index as f32 + 0.5) / 2.0 - 0.5).max(0.0);
                (at as usize, (at as usize + 1).min(extent - 1), at.fract())
            };
            for (index, &found) in found.iter().enumerate() {
                let (map, y, x) = (index / (4 * h * w), index / (2 * w) % (2 * h), index % (2 * w));
                let ((y0, y1, fy), (x0, x1, fx)) = (source(y, h), source(x, w));
                let at = |y: usize, x: usize| values[(map * h + y) * w + x];
                let row = |y: usize| at(y, x0) * (1.0 - fx) + at(y, x1) * fx;
                let expected = row(y0) * (1.0 - fy) + row(y1) * fy;
                assert!((found - expected).abs() < 1e-6, "[{maps}, {h}, {w}] at {map}, {y}, {x}: {found}, {expected}");
            }
        }
        assert_eq!(upsample2(&[0.0, 4.0], [1, 2]), [0.0, 1.0, 3.0, 4.0, 0.0, 1.0, 3.0, 4.0]);
        assert!(upsample2(&[], [0, 3]).is_empty());
    }
}
