//! Plain loops over slices for what the CPU backend does badly; [`crate::layers`] decides when they are called.
//!
//! Safe Rust that the compiler vectorises. Each loop has its slow twin in the tests.

use rayon::prelude::*;

/// Values one thread takes at a time: small enough to stay in its second-level cache.
const CHUNK: usize = 1 << 14;

/// Numerator and denominator, ascending powers of x², of a rational fit of erf(x) / x on |x| ≤ 3.95. Own fit (weighted least
/// squares of the absolute error of erf, repeated until it oscillates evenly); error of the fit 1.8e-8, in `f32` 4.5e-7.
#[expect(clippy::approx_constant, reason = "a fitted coefficient that comes out near 2/√π")]
const ERF_NUMERATOR: [f32; 6] =
    [1.128_379, 0.194_035_77, 0.053_207_06, 0.003_917_317, 0.000_287_599_8, 0.000_002_011_731_8];
const ERF_DENOMINATOR: [f32; 6] = [1.0, 0.505_291_2, 0.115_590_77, 0.015_270_702, 0.001_198_199, 0.000_037_839_556];
const ERF_RANGE: f32 = 3.95;

/// The error function to 5e-7.
fn erf(x: f32) -> f32 {
    let x = x.clamp(-ERF_RANGE, ERF_RANGE);
    let square = x * x;
    let evaluate = |terms: &[f32; 6]| {
        ((((terms[5] * square + terms[4]) * square + terms[3]) * square + terms[2]) * square + terms[1]) * square
            + terms[0]
    };
    (x * evaluate(&ERF_NUMERATOR) / evaluate(&ERF_DENOMINATOR)).clamp(-1.0, 1.0)
}

/// Replaces each `x` by `x · Φ(x)`, the exact GELU.
///
/// The backend computes it value by value through `libm`'s `erff` on one thread (27 ns each; five times what this loop needs),
/// which takes about as long as all the rest of TinyViT.
pub(crate) fn gelu(values: &mut [f32]) {
    values.par_chunks_mut(CHUNK).for_each(|chunk| {
        for x in chunk {
            *x *= 0.5 + 0.5 * erf(*x * std::f32::consts::FRAC_1_SQRT_2);
        }
    });
}

/// e to the power `x` for `x` ≤ 0, to 2e-7 of its value; 0 below −87.
///
/// Splits `x` into a whole number of ln 2 and a rest within ±ln 2 / 2. The whole number is rounded by adding 1.5 · 2²³, so that
/// the loop needs no instruction beyond the oldest vector set. The polynomial is the Taylor series to the seventh power.
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts; the first has so few bits that its product with a whole number is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -0.000_212_194_44];
    let kept = x.max(-87.0);
    let shifted = kept * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = kept - whole * LN_2[0] - whole * LN_2[1];
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let power = series.iter().fold(1.0 / 5040.0, |sum, term| sum * rest + term);
    let two = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { power * two }
}

/// Partial results side by side, so that the compiler may use vectors: it must not reorder sums by itself.
const LANES: usize = 16;

/// Softmax over rows of logits of a map of keys, with the relative positions of [`crate::layers::relative_attention`]: each
/// logit is scaled and gains the term of the key's row and that of its column.
///
/// `logits` `[rows, h · w]`, `relative_h` `[rows, h]`, `relative_w` `[rows, w]`.
pub(crate) fn softmax_relative(
    logits: &mut [f32],
    scale: f32,
    relative_h: &[f32],
    relative_w: &[f32],
    [h, w]: [usize; 2],
) {
    let rows =
        logits.par_chunks_exact_mut(h * w).zip(relative_h.par_chunks_exact(h)).zip(relative_w.par_chunks_exact(w));
    rows.with_min_len((CHUNK / (h * w)).max(1)).for_each(|((row, relative_h), relative_w)| {
        for (logits, relative_h) in row.chunks_exact_mut(w).zip(relative_h) {
            for (logit, relative_w) in logits.iter_mut().zip(relative_w) {
                *logit = *logit * scale + (relative_h + relative_w);
            }
        }
        softmax_row(row);
    });
}

/// Softmax of one row, in place.
fn softmax_row(row: &mut [f32]) {
    let mut most = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (most, &value) in most.iter_mut().zip(chunk) {
            *most = if value > *most { value } else { *most };
        }
    }
    let most = most.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &value| most.max(value));

    let mut sums = [0.0_f32; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *value = exp(*value - most);
            *sum += *value;
        }
    }
    let mut total: f32 = sums.iter().sum();
    for value in rest {
        *value = exp(*value - most);
        total += *value;
    }
    let factor = 1.0 / total;
    for value in row {
        *value *= factor;
    }
}

/// Bilinear ×2 of `[maps, h, w]`, pixel centres at half-integers, edge pixels repeated: every new value takes 9, 3, 3 and 1
/// sixteenths of its four neighbours.
///
/// The backend maps each pixel's coordinates in `f64`; for an exact factor of two there is nothing to map.
pub(crate) fn upsample2(values: &[f32], [h, w]: [usize; 2]) -> Vec<f32> {
    let mut out = vec![0.0_f32; values.len() * 4];
    if values.is_empty() {
        return out;
    }
    out.par_chunks_exact_mut(4 * h * w).zip(values.par_chunks_exact(h * w)).for_each_init(
        || vec![0.0_f32; 2 * h * w],
        |wide, (out, map)| {
            for (wide, row) in wide.chunks_exact_mut(2 * w).zip(map.chunks_exact(w)) {
                widen2(row, wide);
            }
            for (y, pair) in out.chunks_exact_mut(4 * w).enumerate() {
                let row = |y: usize| &wide[2 * w * y..2 * w * (y + 1)];
                let (upper, lower) = pair.split_at_mut(2 * w);
                blend(row(y), row(y.saturating_sub(1)), upper);
                blend(row(y), row((y + 1).min(h - 1)), lower);
            }
        },
    );
    out
}

/// One row ×2.
fn widen2(row: &[f32], wide: &mut [f32]) {
    let last = row.len() - 1;
    wide[0] = row[0];
    wide[2 * last + 1] = row[last];
    let inner = &mut wide[1..=2 * last];
    for (new, pair) in inner.as_chunks_mut::<2>().0.iter_mut().zip(row.windows(2)) {
        *new = [0.75 * pair[0] + 0.25 * pair[1], 0.25 * pair[0] + 0.75 * pair[1]];
    }
}

/// Three quarters of one row and a quarter of another.
fn blend(near: &[f32], far: &[f32], out: &mut [f32]) {
    for ((out, near), far) in out.iter_mut().zip(near).zip(far) {
        *out = 0.75 * near + 0.25 * far;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_equals_the_standard_library() {
        for step in 0..200_000 {
            let x = -(step as f32) * 4.4e-4;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs();
            assert!(error <= 2.5e-7 * expected + 1e-37, "exp({x}) = {}, expected {expected}", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn softmax_equals_its_slow_twin() {
        let ([h, w], rows) = ([5, 7], 3);
        let wave = |seed: usize, count: usize| -> Vec<f32> {
            (0..count).map(|index| ((index * 37 + seed * 101) % 97) as f32 / 7.0 - 6.0).collect()
        };
        let (logits, relative_h, relative_w) = (wave(1, rows * h * w), wave(2, rows * h), wave(3, rows * w));
        let mut found = logits.clone();
        softmax_relative(&mut found, 0.25, &relative_h, &relative_w, [h, w]);
        for row in 0..rows {
            let powers: Vec<f64> = (0..h * w)
                .map(|key| {
                    let logit = logits[row * h * w + key] * 0.25
                        + relative_h[row * h + key / w]
                        + relative_w[row * w + key % w];
                    f64::from(logit).exp()
                })
                .collect();
            let total: f64 = powers.iter().sum();
            for (key, power) in powers.iter().enumerate() {
                let found = f64::from(found[row * h * w + key]);
                assert!(
                    (found - power / total).abs() <= 1e-6,
                    "row {row}, key {key}: {found}, expected {}",
                    power / total
                );
            }
        }
    }

    /// erf(x) = 2/√π · ∫ exp(−t²), by Simpson's rule in `f64`.
    fn erf_slow(x: f64) -> f64 {
        let steps = 2000;
        let width = x / f64::from(steps);
        let sum: f64 = (0..=steps)
            .map(|step| {
                let weight = if step == 0 || step == steps { 1.0 } else { f64::from(2 + 2 * (step % 2)) };
                weight * (-(f64::from(step) * width).powi(2)).exp()
            })
            .sum();
        sum * width / 3.0 * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn gelu_equals_its_integral() {
        // More than one chunk, both tails, zero.
        let inputs: Vec<f32> = (-20_000..=20_000).map(|index| index as f32 * 5e-4).collect();
        let mut found = inputs.clone();
        gelu(&mut found);
        for (&x, &y) in inputs.iter().zip(&found).step_by(37) {
            let x = f64::from(x);
            let expected = x * 0.5 * (1.0 + erf_slow(x / std::f64::consts::SQRT_2));
            assert!((f64::from(y) - expected).abs() <= 1e-6 * x.abs().max(1.0), "gelu({x}) = {y}, expected {expected}");
        }
        assert_eq!(found[20_000], 0.0);
        let mut special = [f32::INFINITY, f32::NAN, f32::MAX];
        gelu(&mut special);
        assert_eq!(special[0], f32::INFINITY);
        assert!(special[1].is_nan());
        assert_eq!(special[2], f32::MAX);
    }

    #[test]
    fn doubling_equals_interpolation_at_each_pixel() {
        for [maps, h, w] in [[3, 5, 7], [1, 1, 1], [2, 1, 4], [2, 3, 1]] {
            let values = crate::seeded::seeded("input/upsample", &[maps * h * w]);
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
