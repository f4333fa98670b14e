//! The gradient of bilinear ×2.

use rayon::prelude::*;

use crate::{Level, buffers, level::for_each_level};

/// The gradient of the maps that [`crate::upsample2`] doubled: every value gathers 9, 3, 3 and 1 sixteenths of those it went into.
///
/// # Shapes
/// `dy` `[maps, 2 h, 2 w]` → `[maps, h, w]`
pub fn upsample2_gradient(dy: &[f32], [h, w]: [usize; 2]) -> Vec<f32> {
    let mut out = buffers::take(dy.len() / 4);
    if out.is_empty() {
        return out;
    }
    assert_eq!(dy.len() % (4 * h * w), 0, "maps of {h} × {w}");
    let level = Level::best();
    out.par_chunks_exact_mut(h * w).zip(dy.par_chunks_exact(4 * h * w)).for_each_init(
        || vec![0.0_f32; 2 * w],
        |line, (out, dy)| {
            for (y, out) in out.chunks_exact_mut(w).enumerate() {
                let row = |y: usize| &dy[2 * w * y..][..2 * w];
                // The row above the first one, and the one below the last, are those rows themselves.
                let (before, after) = ((2 * y).max(1) - 1, (2 * y + 2).min(2 * h - 1));
                blend(level, [row(2 * y), row(2 * y + 1), row(before), row(after)], line);
                narrow(level, line, out);
            }
        },
    );
    out
}

#[inline(always)]
fn blend_body([upper, lower, before, after]: [&[f32]; 4], line: &mut [f32]) {
    for ((((line, upper), lower), before), after) in line.iter_mut().zip(upper).zip(lower).zip(before).zip(after) {
        *line = 0.75 * (upper + lower) + 0.25 * (before + after);
    }
}

#[inline(always)]
fn narrow_body(line: &[f32], out: &mut [f32]) {
    let last = out.len() - 1;
    let at = |x: usize, before: f32, after: f32| 0.75 * (line[2 * x] + line[2 * x + 1]) + 0.25 * (before + after);
    if last == 0 {
        out[0] = at(0, line[0], line[1]);
        return;
    }
    out[0] = at(0, line[0], line[2]);
    out[last] = at(last, line[2 * last - 1], line[2 * last + 1]);
    let (pairs, _) = line.as_chunks::<2>();
    for (out, three) in out[1..last].iter_mut().zip(pairs.windows(3)) {
        *out = 0.75 * (three[1][0] + three[1][1]) + 0.25 * (three[0][1] + three[2][0]);
    }
}

for_each_level! {
    fn blend = blend_body(rows: [&[f32]; 4], line: &mut [f32])
}
for_each_level! {
    fn narrow = narrow_body(line: &[f32], out: &mut [f32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::{assert_close, wave},
        upsample2,
    };

    /// The gradient for one value is what doubling a single one gives, weighed.
    #[test]
    fn gradient_equals_doubling_of_single_pixels() {
        for [maps, h, w] in [[2, 5, 7], [1, 1, 1], [3, 1, 4], [1, 4, 1], [1, 2, 2]] {
            let dy = wave(1, maps * 4 * h * w);
            let expected: Vec<f64> = (0..maps * h * w)
                .map(|index| {
                    let mut single = vec![0.0; maps * h * w];
                    single[index] = 1.0;
                    let doubled = upsample2(&single, [h, w]);
                    doubled.iter().zip(&dy).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                })
                .collect();
            assert_close(&upsample2_gradient(&dy, [h, w]), &expected, &format!("{maps} × {h} × {w}"));
        }
    }
}
