//! GELU and softmax.

use rayon::prelude::*;

use crate::{
    Level,
    level::{fma, for_each_level},
};

/// Values one thread takes at a time: small enough to stay in its second-level cache.
const CHUNK: usize = 1 << 14;

/// What follows a product, in the same pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// `x · Φ(x)`, by the error function.
    Gelu,
}

impl Activation {
    /// Applies it in place, on this thread.
    pub(crate) fn apply(self, level: Level, values: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Relu => relu_body(values),
            Self::Gelu => gelu_chunk(level, values),
        }
    }
}

/// Numerator and denominator, ascending powers of x², of a rational fit of erf(x) / x on |x| ≤ 3.95. Own fit (weighted least
/// squares of the absolute error of erf, repeated until it oscillates evenly); error of the fit 1.8e-8, in `f32` 4.5e-7.
#[expect(clippy::approx_constant, reason = "a fitted coefficient that comes out near 2/√π")]
const ERF_NUMERATOR: [f32; 6] =
    [1.128_379, 0.194_035_77, 0.053_207_06, 0.003_917_317, 0.000_287_599_8, 0.000_002_011_731_8];
const ERF_DENOMINATOR: [f32; 6] = [1.0, 0.505_291_2, 0.115_590_77, 0.015_270_702, 0.001_198_199, 0.000_037_839_556];
const ERF_RANGE: f32 = 3.95;

/// The error function to 5e-7.
#[inline(always)]
pub(crate) fn erf<const FUSED: bool>(x: f32) -> f32 {
    let x = x.clamp(-ERF_RANGE, ERF_RANGE);
    let square = x * x;
    let evaluate = |terms: &[f32; 6]| {
        let [zeroth, first, second, third, fourth, fifth] = *terms;
        let sum = fma::<FUSED>(fma::<FUSED>(fifth, square, fourth), square, third);
        fma::<FUSED>(fma::<FUSED>(fma::<FUSED>(sum, square, second), square, first), square, zeroth)
    };
    (x * evaluate(&ERF_NUMERATOR) / evaluate(&ERF_DENOMINATOR)).clamp(-1.0, 1.0)
}

#[inline(always)]
pub(crate) fn relu_body(values: &mut [f32]) {
    for x in values {
        *x = x.max(0.0);
    }
}

#[inline(always)]
pub(crate) fn gelu_body<const FUSED: bool>(values: &mut [f32]) {
    for x in values {
        *x *= 0.5 + 0.5 * erf::<FUSED>(*x * std::f32::consts::FRAC_1_SQRT_2);
    }
}

for_each_level! {
    pub(crate) fn gelu_chunk = fused gelu_body(values: &mut [f32])
}

/// Replaces each `x` by `x · Φ(x)`, the exact GELU.
pub fn gelu(values: &mut [f32]) {
    let level = Level::best();
    values.par_chunks_mut(CHUNK).for_each(|chunk| gelu_chunk(level, chunk));
}

/// Replaces each `x` by `max(x, 0)`.
pub fn relu(values: &mut [f32]) {
    values.par_chunks_mut(CHUNK).for_each(relu_body);
}

/// e to the power `x` for `x` ≤ 0, to 2e-7 of its value; 0 below −87.
///
/// Splits `x` into a whole number of ln 2 and a rest within ±ln 2 / 2. The whole number is rounded by adding 1.5 · 2²³, so that
/// the loop needs no instruction beyond the oldest vector set. The polynomial is an own fit to the sixth power
/// (weighted least squares repeated until the error, relative to e to the rest, oscillates evenly); its error is 2e-9.
#[inline(always)]
pub(crate) fn exp<const FUSED: bool>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts; the first has so few bits that its product with a whole number is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -0.000_212_194_44];
    // What is not a number stays so.
    let kept = if x < -87.0 { -87.0 } else { x };
    let shifted = fma::<FUSED>(kept, std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let rest = fma::<FUSED>(-LN_2[1], whole, fma::<FUSED>(-LN_2[0], whole, kept));
    let series = [0.008_374_395, 0.041_668_016, 0.166_664_29, 0.499_999_94, 1.0, 1.0];
    let power = series.into_iter().fold(0.001_384_337_5, |sum, term| fma::<FUSED>(sum, rest, term));
    let two = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { power * two }
}

/// Partial results side by side, so that the compiler may use vectors: it must not reorder sums by itself.
const LANES: usize = 16;

/// Softmax over rows of `columns` values, in place.
pub fn softmax(values: &mut [f32], columns: usize) {
    let level = Level::best();
    let rows = (CHUNK / columns.max(1)).max(1);
    values.par_chunks_mut(columns.max(1) * rows).for_each(|rows| {
        rows.chunks_exact_mut(columns.max(1)).for_each(|row| softmax_row(level, row));
    });
}

/// Softmax over rows of logits of a map of keys, with decomposed relative positions: each logit is scaled and gains the term of
/// the key's row and that of its column.
///
/// `logits` `[rows, h · w]`, `relative_h` `[rows, h]`, `relative_w` `[rows, w]`.
pub fn softmax_relative(logits: &mut [f32], scale: f32, relative_h: &[f32], relative_w: &[f32], [h, w]: [usize; 2]) {
    let level = Level::best();
    let rows =
        logits.par_chunks_exact_mut(h * w).zip(relative_h.par_chunks_exact(h)).zip(relative_w.par_chunks_exact(w));
    rows.with_min_len((CHUNK / (h * w)).max(1)).for_each(|((row, relative_h), relative_w)| {
        softmax_relative_row(level, row, scale, relative_h, relative_w);
    });
}

#[inline(always)]
fn softmax_relative_body<const FUSED: bool>(row: &mut [f32], scale: f32, relative_h: &[f32], relative_w: &[f32]) {
    for (logits, relative_h) in row.chunks_exact_mut(relative_w.len()).zip(relative_h) {
        for (logit, relative_w) in logits.iter_mut().zip(relative_w) {
            *logit = *logit * scale + (relative_h + relative_w);
        }
    }
    softmax_body::<FUSED>(row);
}

#[inline(always)]
fn softmax_body<const FUSED: bool>(row: &mut [f32]) {
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
            *value = exp::<FUSED>(*value - most);
            *sum += *value;
        }
    }
    let mut total: f32 = sums.iter().sum();
    for value in rest {
        *value = exp::<FUSED>(*value - most);
        total += *value;
    }
    let factor = 1.0 / total;
    for value in row {
        *value *= factor;
    }
}

for_each_level! {
    pub(crate) fn softmax_row = fused softmax_body(row: &mut [f32])
}
for_each_level! {
    pub(crate) fn softmax_relative_row = fused softmax_relative_body(
        row: &mut [f32], scale: f32, relative_h: &[f32], relative_w: &[f32],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_equals_the_standard_library() {
        for exp in [exp::<false>, exp::<true>] {
            for step in 0..200_000 {
                let x = -(step as f32) * 4.4e-4;
                let expected = f64::from(x).exp();
                let error = (f64::from(exp(x)) - expected).abs();
                assert!(error <= 2.5e-7 * expected + 1e-37, "exp({x}) = {}, expected {expected}", exp(x));
            }
            assert_eq!(exp(0.0), 1.0);
            assert_eq!(exp(f32::NEG_INFINITY), 0.0);
            assert!(exp(f32::NAN).is_nan());
        }
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

    #[test]
    fn every_level_gives_the_same_softmax_and_gelu() {
        let values: Vec<f32> = (0..203).map(|index| (index as f32 * 0.37).sin() * 9.0).collect();
        let (mut plain, mut gelus) = (values.clone(), values.clone());
        softmax_body::<false>(&mut plain);
        gelu_body::<false>(&mut gelus);
        for level in Level::all() {
            let (mut row, mut gelu) = (values.clone(), values.clone());
            softmax_row(level, &mut row);
            gelu_chunk(level, &mut gelu);
            for index in 0..values.len() {
                assert!((row[index] - plain[index]).abs() < 1e-6, "{level:?}");
                assert!((gelu[index] - gelus[index]).abs() < 1e-6, "{level:?}");
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
}
