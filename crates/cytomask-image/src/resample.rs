//! Bilinear resampling: PIL's 8-bit antialiased filter, its floating-point counterpart, and torch's plain interpolation.
//!
//! Re-implemented from the behaviour of Pillow's `src/libImaging/Resample.c` (triangle filter whose support grows with the
//! shrinking factor, 22-bit fixed-point weights, horizontal pass first) and of PyTorch's
//! `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` (two taps per axis, source coordinate clamped at 0).

/// Bits after the point of PIL's fixed-point weights: 32 − 8 (sample) − 2 (headroom).
const PIL_PRECISION_BITS: u32 = 32 - 8 - 2;

/// One output position of an antialiasing filter: which input positions count, and how much.
struct Taps {
    /// First input position.
    first: usize,
    /// Weights from `first` on; they add up to 1.
    weights: Vec<f64>,
}

/// The triangle filter for every output position of one axis, its support scaled when the axis shrinks.
fn triangle_taps(from: u32, to: u32) -> Vec<Taps> {
    let scale = f64::from(from) / f64::from(to);
    let filter_scale = scale.max(1.0);
    let inverse = 1.0 / filter_scale;
    (0..to)
        .map(|position| {
            let centre = (f64::from(position) + 0.5) * scale;
            // Truncation towards zero, then clamping, is PIL's order.
            let first = ((centre - filter_scale + 0.5) as i64).max(0);
            let end = ((centre + filter_scale + 0.5) as i64).min(i64::from(from));
            let mut weights: Vec<f64> =
                (first..end).map(|source| (1.0 - ((source as f64 - centre + 0.5) * inverse).abs()).max(0.0)).collect();
            let total: f64 = weights.iter().sum();
            if total != 0.0 {
                weights.iter_mut().for_each(|weight| *weight /= total);
            }
            Taps { first: first as usize, weights }
        })
        .collect()
}

/// PIL's `Image.resize(…, BILINEAR)` for interleaved 8-bit samples `[H, W, C]`, bit for bit.
pub(crate) fn resize_pil(samples: &[u8], from: [u32; 2], to: [u32; 2], channels: usize) -> Vec<u8> {
    // Rounds half away from zero, as the C cast after ±0.5 does; triangle weights are never negative.
    let fixed = |taps: Vec<Taps>| -> Vec<(usize, Vec<i32>)> {
        let one = f64::from(1_u32 << PIL_PRECISION_BITS);
        taps.into_iter()
            .map(|taps| (taps.first, taps.weights.iter().map(|weight| (0.5 + weight * one) as i32).collect()))
            .collect()
    };
    let half = 1_i32 << (PIL_PRECISION_BITS - 1);
    let round = |sum: i32| (sum >> PIL_PRECISION_BITS).clamp(0, 255) as u8;
    let [from_h, from_w] = from.map(|extent| extent as usize);
    let [to_h, to_w] = to.map(|extent| extent as usize);

    let wide = if from_w == to_w {
        samples.to_vec()
    } else {
        let columns = fixed(triangle_taps(from[1], to[1]));
        let mut wide = Vec::with_capacity(from_h * to_w * channels);
        for row in samples.chunks_exact(from_w * channels) {
            for (first, weights) in &columns {
                for channel in 0..channels {
                    let taps = row[first * channels + channel..].iter().step_by(channels);
                    let sum =
                        weights.iter().zip(taps).fold(half, |sum, (weight, &value)| sum + weight * i32::from(value));
                    wide.push(round(sum));
                }
            }
        }
        wide
    };
    if from_h == to_h {
        return wide;
    }
    let stride = to_w * channels;
    let mut out = Vec::with_capacity(to_h * stride);
    let mut sums = vec![0_i32; stride];
    for (first, weights) in fixed(triangle_taps(from[0], to[0])) {
        sums.fill(half);
        for (weight, row) in weights.iter().zip(wide[first * stride..].chunks_exact(stride)) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += weight * i32::from(value);
            }
        }
        out.extend(sums.iter().map(|&sum| round(sum)));
    }
    out
}

/// Antialiased bilinear resampling of interleaved samples `[H, W, C]` in floating point, horizontal pass first, nothing rounded.
pub(crate) fn resize_antialiased(samples: &[f32], from: [u32; 2], to: [u32; 2], channels: usize) -> Vec<f32> {
    let [from_h, from_w] = from.map(|extent| extent as usize);
    let [to_h, to_w] = to.map(|extent| extent as usize);
    let wide = if from_w == to_w {
        samples.to_vec()
    } else {
        let columns = triangle_taps(from[1], to[1]);
        let mut wide = Vec::with_capacity(from_h * to_w * channels);
        for row in samples.chunks_exact(from_w * channels) {
            for taps in &columns {
                for channel in 0..channels {
                    let values = row[taps.first * channels + channel..].iter().step_by(channels);
                    wide.push(taps.weights.iter().zip(values).map(|(&w, &value)| w as f32 * value).sum::<f32>());
                }
            }
        }
        wide
    };
    if from_h == to_h {
        return wide;
    }
    let stride = to_w * channels;
    let mut out = vec![0.0_f32; to_h * stride];
    for (taps, sums) in triangle_taps(from[0], to[0]).iter().zip(out.chunks_exact_mut(stride)) {
        for (&weight, row) in taps.weights.iter().zip(wide[taps.first * stride..].chunks_exact(stride)) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += weight as f32 * value;
            }
        }
    }
    out
}

/// The two taps of one output position of torch's bilinear interpolation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) low: u32,
    pub(crate) high: u32,
    /// Weight of `low`, `1 − high_weight` in `f32`.
    pub(crate) low_weight: f32,
    pub(crate) high_weight: f32,
}

impl Pair {
    /// The weighted sum of the two tapped values.
    #[inline]
    pub(crate) fn mix(&self, low: f32, high: f32) -> f32 {
        self.low_weight * low + self.high_weight * high
    }
}

/// The two taps for every output position of one axis, in torch's `f32` arithmetic.
pub(crate) fn linear_pairs(from: u32, to: u32) -> Vec<Pair> {
    let scale = from as f32 / to as f32;
    (0..to)
        .map(|position| {
            if from == to {
                return Pair { low: position, high: position, low_weight: 1.0, high_weight: 0.0 };
            }
            let source = (scale * (position as f32 + 0.5) - 0.5).max(0.0);
            let low = (source as u32).min(from - 1);
            let high_weight = (source - low as f32).clamp(0.0, 1.0);
            Pair { low, high: (low + 1).min(from - 1), low_weight: 1.0 - high_weight, high_weight }
        })
        .collect()
}

/// Resamples a row-major `[H, W]` map as `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` does: two taps
/// per axis, no antialiasing, in `f32`, columns first. `from` and `to` are `[h, w]`; an unchanged size returns the input.
///
/// # Panics
/// When `values` holds fewer than `from[0] * from[1]` samples.
pub fn resize_bilinear(values: &[f32], from: [u32; 2], to: [u32; 2]) -> Vec<f32> {
    if from == to {
        return values.to_vec();
    }
    if from.contains(&0) || to.contains(&0) {
        return vec![0.0; to[0] as usize * to[1] as usize];
    }
    let columns = linear_pairs(from[1], to[1]);
    let mut rows = RowCache::new();
    let mut out = Vec::with_capacity(to[0] as usize * to[1] as usize);
    let width = from[1] as usize;
    for pair in linear_pairs(from[0], to[0]) {
        let (low, high) = rows.pair(pair.low, pair.high, |row, into| {
            let start = row as usize * width;
            widen(&values[start..start + width], 0, &columns, into);
        });
        out.extend(low.iter().zip(high).map(|(&low, &high)| pair.mix(low, high)));
    }
    out
}

/// Resamples one row whose first sample is column `offset` to the columns of `pairs`.
#[inline]
pub(crate) fn widen(row: &[f32], offset: u32, pairs: &[Pair], into: &mut Vec<f32>) {
    into.clear();
    into.extend(
        pairs.iter().map(|pair| pair.mix(row[(pair.low - offset) as usize], row[(pair.high - offset) as usize])),
    );
}

/// The last two rows computed, so that walking down the output computes each source row once.
pub(crate) struct RowCache {
    index: [u32; 2],
    rows: [Vec<f32>; 2],
}

impl RowCache {
    /// No row is an image's row `u32::MAX`.
    const EMPTY: u32 = u32::MAX;

    pub(crate) fn new() -> Self {
        Self { index: [Self::EMPTY; 2], rows: [Vec::new(), Vec::new()] }
    }

    /// Rows `low` and `high` (`low <= high <= low + 1`), each filled by `compute` unless it is one of the last two.
    pub(crate) fn pair(
        &mut self,
        low: u32,
        high: u32,
        mut compute: impl FnMut(u32, &mut Vec<f32>),
    ) -> (&[f32], &[f32]) {
        for wanted in [low, high] {
            let slot = (wanted % 2) as usize;
            if self.index[slot] != wanted {
                compute(wanted, &mut self.rows[slot]);
                self.index[slot] = wanted;
            }
        }
        (&self.rows[(low % 2) as usize], &self.rows[(high % 2) as usize])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hand_drawn_row() {
        assert_eq!(resize_bilinear(&[0.0, 8.0], [1, 2], [1, 4]), [0.0, 2.0, 6.0, 8.0]);
        assert_eq!(resize_bilinear(&[0.0, 8.0, 4.0, 0.0], [1, 4], [1, 2]), [4.0, 2.0]);
        // Halving with the triangle filter: the outer taps weigh a third of the inner ones, cut off at the border.
        assert_eq!(resize_pil(&[0, 70, 0, 0], [1, 4], [1, 2], 1), [30, 10]);
        assert_eq!(resize_pil(&[5, 9], [2, 1], [1, 1], 1), [7]);
        assert_eq!(resize_bilinear(&[], [0, 3], [1, 2]), [0.0, 0.0]);
    }

    proptest! {
        #[test]
        fn interpolation_equals_its_definition(
            from in [1_u32..20, 1_u32..20], to in [1_u32..40, 1_u32..40], seed in 0_u32..1000,
        ) {
            let values: Vec<f32> = (0..from[0] * from[1]).map(|i| ((i * 7919 + seed * 31) % 1009) as f32 - 500.0).collect();
            let found = resize_bilinear(&values, from, to);
            for (index, &found) in found.iter().enumerate() {
                let position = [index as u32 / to[1], index as u32 % to[1]];
                let mut expected = 0.0;
                // Every input pixel, weighted by the tent around the clamped source coordinate, in f64.
                let source = [0, 1].map(|axis| {
                    let scale = f64::from(from[axis]) / f64::from(to[axis]);
                    ((f64::from(position[axis]) + 0.5) * scale - 0.5).clamp(0.0, f64::from(from[axis] - 1))
                });
                for y in 0..from[0] {
                    for x in 0..from[1] {
                        let weight = |at: u32, source: f64| (1.0 - (f64::from(at) - source).abs()).max(0.0);
                        let weight = weight(y, source[0]) * weight(x, source[1]);
                        expected += weight * f64::from(values[(y * from[1] + x) as usize]);
                    }
                }
                // Source coordinates below 20 are rounded to about 2⁻¹⁹; neighbours differ by up to 1000.
                prop_assert!((f64::from(found) - expected).abs() < 1e-2, "{} instead of {}", found, expected);
            }
        }

        #[test]
        fn antialiased_resizing_agrees_with_its_fixed_point_form(
            from in [1_u32..30, 1_u32..30], to in [1_u32..30, 1_u32..30], seed in 0_u32..1000,
        ) {
            let bytes: Vec<u8> = (0..from[0] * from[1] * 3).map(|i| ((i * 7919 + seed * 31) % 256) as u8).collect();
            let floats: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte)).collect();
            let fixed = resize_pil(&bytes, from, to, 3);
            let float = resize_antialiased(&floats, from, to, 3);
            prop_assert_eq!(fixed.len(), float.len());
            // Two roundings to whole numbers.
            prop_assert!(fixed.iter().zip(&float).all(|(&a, &b)| (f32::from(a) - b).abs() <= 1.01));
        }
    }
}
