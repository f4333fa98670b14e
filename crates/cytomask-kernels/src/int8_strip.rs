//! The innermost loop of 8-bit convolutions: a few rows of signed weights times a strip of unsigned quads, four channels of one
//! pixel each. As `tile.rs` for `f32`, the strips of neighbouring outputs lie anywhere, found by offsets, so that the input is
//! never copied for each kernel position; here it is the strip that holds the unsigned bytes.

use crate::{
    int8_tile::{Dots, MOST_K},
    tile::{Offsets, WIDEST},
};

/// Most rows of a tile.
pub(crate) const ROWS: usize = 8;

/// Weights `[rows, quads, 4]`.
#[derive(Clone, Copy)]
pub(crate) struct WeightRows<'a> {
    pub(crate) values: &'a [i8],
    pub(crate) quads: usize,
}

/// How sums become values: `sum · factor[row] + fixed[row]`.
#[derive(Clone, Copy)]
pub(crate) struct FinishRows<'a> {
    pub(crate) factor: &'a [f32],
    pub(crate) fixed: &'a [f32],
}

/// Finished products of up to [`ROWS`] rows of weights with the [`WIDEST`] quads from `start` + each offset on.
///
/// `tile` `[rows, WIDEST]`.
pub(crate) fn product(
    dots: Dots,
    rows: usize,
    weights: WeightRows<'_>,
    (values, start, offsets): (&[u32], usize, &Offsets),
    finish: FinishRows<'_>,
    tile: &mut [f32],
) {
    let quads = weights.quads;
    assert!((1..=ROWS).contains(&rows) && tile.len() >= rows * WIDEST, "rows of one tile");
    assert!(weights.values.len() >= rows * quads * 4 && quads * 4 <= MOST_K, "rows of weights within their slice");
    assert!(finish.factor.len() >= rows && finish.fixed.len() >= rows, "a factor for each row");
    let values = &values[start..];
    assert!(offsets.hold(quads, values.len()), "strips within their slice");
    #[cfg(target_arch = "x86_64")]
    {
        let operands = x86::Operands {
            quads,
            weights: weights.values.as_ptr(),
            values: values.as_ptr(),
            offsets: offsets.starts().as_ptr(),
            factor: finish.factor.as_ptr(),
            fixed: finish.fixed.as_ptr(),
            tile: tile.as_mut_ptr(),
        };
        match dots {
            #[expect(unsafe_code, reason = "loads and stores of registers")]
            // SAFETY: the instructions were found on this machine; the lengths were checked above.
            Dots::Avx512Vnni => return unsafe { x86::avx512(rows, operands) },
            #[expect(unsafe_code, reason = "loads and stores of registers")]
            // SAFETY: as above.
            Dots::AvxVnni => return unsafe { x86::avx(rows, operands) },
            Dots::Portable => {}
        }
    }
    let _ = dots;
    for (row, tile) in tile.chunks_exact_mut(WIDEST).enumerate().take(rows) {
        let mut sums = [0_i32; WIDEST];
        let weights = weights.values[row * quads * 4..][..quads * 4].as_chunks::<4>().0;
        for (weight, &offset) in weights.iter().zip(offsets.starts()) {
            let weight = weight.map(i32::from);
            for (sum, quad) in sums.iter_mut().zip(&values[offset..][..WIDEST]) {
                let byte = |lane: u32| (quad >> (8 * lane) & 255) as i32;
                *sum += byte(0) * weight[0] + byte(1) * weight[1] + byte(2) * weight[2] + byte(3) * weight[3];
            }
        }
        for (value, sum) in tile.iter_mut().zip(sums) {
            *value = sum as f32 * finish.factor[row] + finish.fixed[row];
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector loads and stores through pointers; the one caller checks all lengths")]
mod x86 {
    use std::arch::x86_64::*;

    use super::WIDEST;

    #[derive(Clone, Copy)]
    pub(super) struct Operands {
        pub(super) quads: usize,
        pub(super) weights: *const i8,
        pub(super) values: *const u32,
        pub(super) offsets: *const usize,
        pub(super) factor: *const f32,
        pub(super) fixed: *const f32,
        pub(super) tile: *mut f32,
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn avx512(rows: usize, operands: Operands) {
        // SAFETY: the caller has that many rows.
        unsafe {
            match rows {
                1 => avx512_rows::<1>(operands),
                2 => avx512_rows::<2>(operands),
                3 => avx512_rows::<3>(operands),
                4 => avx512_rows::<4>(operands),
                5 => avx512_rows::<5>(operands),
                6 => avx512_rows::<6>(operands),
                7 => avx512_rows::<7>(operands),
                _ => avx512_rows::<8>(operands),
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn avx512_rows<const ROWS: usize>(operands: Operands) {
        const VECTORS: usize = WIDEST / 16;
        let Operands { quads, weights, values, offsets, factor, fixed, tile } = operands;
        let mut sums = [[_mm512_setzero_si512(); VECTORS]; ROWS];
        for at in 0..quads {
            // SAFETY: every strip lies within its slice; each row holds all quads.
            unsafe {
                let strip = values.add(*offsets.add(at));
                let mut pixels = [_mm512_setzero_si512(); VECTORS];
                for (vector, pixels) in pixels.iter_mut().enumerate() {
                    *pixels = _mm512_loadu_si512(strip.add(vector * 16).cast());
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let weight = weights.add((row * quads + at) * 4).cast::<i32>().read_unaligned();
                    let weight = _mm512_set1_epi32(weight);
                    for (sum, pixels) in sums.iter_mut().zip(pixels) {
                        *sum = _mm512_dpbusd_epi32(*sum, pixels, weight);
                    }
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (vector, sum) in sums.iter().enumerate() {
                // SAFETY: a factor for each row, and the tile holds all rows.
                unsafe {
                    let (factor, fixed) = (_mm512_set1_ps(*factor.add(row)), _mm512_set1_ps(*fixed.add(row)));
                    let value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(*sum), factor, fixed);
                    _mm512_storeu_ps(tile.add(row * WIDEST + vector * 16), value);
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma,avxvnni")]
    pub(super) unsafe fn avx(rows: usize, operands: Operands) {
        for first in (0..rows).step_by(4) {
            for half in [0, WIDEST / 2] {
                // SAFETY: within the caller's rows and strips.
                unsafe {
                    let part = Operands {
                        weights: operands.weights.add(first * operands.quads * 4),
                        values: operands.values.add(half),
                        factor: operands.factor.add(first),
                        fixed: operands.fixed.add(first),
                        tile: operands.tile.add(first * WIDEST + half),
                        ..operands
                    };
                    match rows - first {
                        1 => avx_rows::<1>(part),
                        2 => avx_rows::<2>(part),
                        3 => avx_rows::<3>(part),
                        _ => avx_rows::<4>(part),
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma,avxvnni")]
    unsafe fn avx_rows<const ROWS: usize>(operands: Operands) {
        const VECTORS: usize = WIDEST / 16;
        let Operands { quads, weights, values, offsets, factor, fixed, tile } = operands;
        let mut sums = [[_mm256_setzero_si256(); VECTORS]; ROWS];
        for at in 0..quads {
            // SAFETY: every strip lies within its slice; each row holds all quads.
            unsafe {
                let strip = values.add(*offsets.add(at));
                let mut pixels = [_mm256_setzero_si256(); VECTORS];
                for (vector, pixels) in pixels.iter_mut().enumerate() {
                    *pixels = _mm256_loadu_si256(strip.add(vector * 8).cast());
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let weight = weights.add((row * quads + at) * 4).cast::<i32>().read_unaligned();
                    let weight = _mm256_set1_epi32(weight);
                    for (sum, pixels) in sums.iter_mut().zip(pixels) {
                        *sum = _mm256_dpbusd_avx_epi32(*sum, pixels, weight);
                    }
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (vector, sum) in sums.iter().enumerate() {
                // SAFETY: a factor for each row, and the tile holds all rows.
                unsafe {
                    let (factor, fixed) = (_mm256_set1_ps(*factor.add(row)), _mm256_set1_ps(*fixed.add(row)));
                    let value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(*sum), factor, fixed);
                    _mm256_storeu_ps(tile.add(row * WIDEST + vector * 8), value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number of rows, scattered strips, extremes included, against the obvious sums.
    #[test]
    fn every_number_of_rows_equals_the_obvious_sums() {
        let mut state = 7_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.rotate_left(11)
        };
        let quads = 37;
        let mut values: Vec<u32> = (0..400).map(|_| random()).collect();
        values[17] = u32::MAX;
        let starts: Vec<usize> = (0..quads).map(|at| (at * 53) % (400 - 3 - WIDEST)).collect();
        let offsets = Offsets::new(starts.clone());
        let weights: Vec<i8> = (0..ROWS * quads * 4).map(|_| (random() as i8).max(-127)).collect();
        let (factor, fixed) =
            ([1.0, 0.5, 2.0, 1.0, 0.25, 1.0, 1.0, 3.0_f32], [0.0, 1.0, -3.0, 9.0, 0.5, 0.0, 0.0, 1.0]);
        for dots in Dots::all() {
            for rows in 1..=ROWS {
                let mut tile = [f32::NAN; ROWS * WIDEST];
                let finish = FinishRows { factor: &factor, fixed: &fixed };
                product(dots, rows, WeightRows { values: &weights, quads }, (&values, 3, &offsets), finish, &mut tile);
                for (index, &found) in tile.iter().enumerate() {
                    let (row, column) = (index / WIDEST, index % WIDEST);
                    if row >= rows {
                        assert!(found.is_nan(), "outside of the tile");
                        continue;
                    }
                    let sum: i64 = (0..quads * 4)
                        .map(|at| {
                            let quad = values[3 + starts[at / 4] + column];
                            i64::from(quad.to_le_bytes()[at % 4]) * i64::from(weights[row * quads * 4 + at])
                        })
                        .sum();
                    let expected = sum as f64 * f64::from(factor[row]) + f64::from(fixed[row]);
                    let error = (f64::from(found) - expected).abs();
                    assert!(error <= 1e-6 * expected.abs().max(1.0), "{dots:?} {rows} rows at {index}: {error}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "strips within their slice")]
    fn a_strip_past_the_end_is_refused() {
        let offsets = Offsets::new(vec![0, 13]);
        let finish = FinishRows { factor: &[1.0], fixed: &[0.0] };
        let weights = WeightRows { values: &[0; 8], quads: 2 };
        product(Dots::best(), 1, weights, (&[0; 60], 0, &offsets), finish, &mut [0.0; WIDEST]);
    }
}
