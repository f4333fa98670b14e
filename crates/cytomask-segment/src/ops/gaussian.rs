//! Gaussian smoothing as µSAM's post-processing uses it.

/// Kernel radius in units of σ, rounded up to whole pixels (bioimage-cpp's default; SciPy's rounds to nearest and is one pixel
/// shorter for some σ).
const RADIUS_PER_SIGMA: f32 = 3.0;

/// A row-major `[H, W]` map smoothed with a normalised Gaussian of standard deviation `sigma` pixels, cut at ⌈3σ⌉. Beyond the
/// border the map is mirrored without repeating the edge sample (`d c b | a b c d | c b a`), as often as the kernel needs. With
/// `sigma` not above 0 the map is returned as it is. `f32` throughout.
///
/// # Panics
/// When `values` does not hold `h * w` samples.
pub fn gaussian([height, width]: [u32; 2], values: &[f32], sigma: f32) -> Vec<f32> {
    let (height, width) = (height as usize, width as usize);
    assert_eq!(values.len(), height * width, "samples for size [{height}, {width}]");
    if sigma.is_nan() || sigma <= 0.0 || values.is_empty() {
        return values.to_vec();
    }
    let weights = half_kernel(sigma);
    let mut down = vec![0.0_f32; values.len()];
    for y in 0..height {
        let target = &mut down[y * width..(y + 1) * width];
        let row = |y: usize| &values[y * width..(y + 1) * width];
        for (sum, &center) in target.iter_mut().zip(row(y)) {
            *sum = weights[0] * center;
        }
        for (offset, &weight) in weights.iter().enumerate().skip(1) {
            let above = row(mirror(y as i64 - offset as i64, height));
            let below = row(mirror(y as i64 + offset as i64, height));
            for ((sum, &a), &b) in target.iter_mut().zip(above).zip(below) {
                *sum += weight * (a + b);
            }
        }
    }
    let mut across = vec![0.0_f32; values.len()];
    let radius = weights.len() - 1;
    let mut padded = vec![0.0_f32; width + 2 * radius];
    for (source, target) in down.chunks_exact(width).zip(across.chunks_exact_mut(width)) {
        for (x, sample) in padded.iter_mut().enumerate() {
            *sample = source[mirror(x as i64 - radius as i64, width)];
        }
        for (x, sum) in target.iter_mut().enumerate() {
            let center = x + radius;
            *sum = weights[0] * padded[center];
            for (offset, &weight) in weights.iter().enumerate().skip(1) {
                *sum += weight * (padded[center - offset] + padded[center + offset]);
            }
        }
    }
    across
}

/// Weights at offsets `0..=radius`; the two-sided kernel sums to 1.
fn half_kernel(sigma: f32) -> Vec<f32> {
    let radius = (RADIUS_PER_SIGMA * sigma).ceil() as u32;
    let weights: Vec<f64> =
        (0..=radius).map(|offset| (-0.5 * (f64::from(offset) / f64::from(sigma)).powi(2)).exp()).collect();
    let total = 2.0 * weights.iter().sum::<f64>() - weights[0];
    weights.into_iter().map(|weight| (weight / total) as f32).collect()
}

/// The sample that stands at position `at` of a line of `len` samples continued by mirroring.
fn mirror(at: i64, len: usize) -> usize {
    if len == 1 {
        return 0;
    }
    let period = 2 * (len as i64 - 1);
    let at = at.rem_euclid(period);
    at.min(period - at) as usize
}

#[cfg(test)]
mod tests {
    use super::super::components::tests::noise;
    use super::*;

    /// The slow twin: one two-dimensional sum per pixel, in `f64`.
    fn by_direct_sum([height, width]: [u32; 2], values: &[f32], sigma: f32) -> Vec<f64> {
        let radius = (3.0 * sigma).ceil() as i64;
        let bounce = |mut at: i64, len: i64| {
            while len > 1 && !(0..len).contains(&at) {
                at = if at < 0 { -at } else { 2 * (len - 1) - at };
            }
            if len == 1 { 0 } else { at }
        };
        let (height, width) = (i64::from(height), i64::from(width));
        let mut smoothed = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let (mut sum, mut total) = (0.0, 0.0);
                for dy in -radius..=radius {
                    for dx in -radius..=radius {
                        let weight = (-((dy * dy + dx * dx) as f64) / (2.0 * f64::from(sigma).powi(2))).exp();
                        let at = bounce(y + dy, height) * width + bounce(x + dx, width);
                        sum += weight * f64::from(values[at as usize]);
                        total += weight;
                    }
                }
                smoothed.push(sum / total);
            }
        }
        smoothed
    }

    #[test]
    fn agrees_with_direct_sums() {
        for (size, sigma) in
            [([97, 131], 1.0), ([23, 31], 1.6), ([4, 3], 1.4), ([2, 2], 2.0), ([1, 9], 2.0), ([1, 1], 1.0)]
        {
            let values = noise(7, (size[0] * size[1]) as usize);
            for (ours, slow) in gaussian(size, &values, sigma).iter().zip(by_direct_sum(size, &values, sigma)) {
                assert!((f64::from(*ours) - slow).abs() < 1e-6, "{size:?} {sigma}: {ours} {slow}");
            }
        }
    }

    #[test]
    fn a_spike_spreads_to_three_sigma_and_no_further() {
        let mut values = vec![0.0; 13];
        values[6] = 1.0;
        let smoothed = gaussian([1, 13], &values, 1.4);
        assert_eq!(smoothed.iter().filter(|&&v| v > 0.0).count(), 11); // ⌈4.2⌉ = 5 on either side
        assert!((smoothed.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_edge_sample_is_not_repeated() {
        // Weights for σ = 1/3: radius 1, e^-4.5 on either side.
        let side = (-4.5_f64).exp() / (1.0 + 2.0 * (-4.5_f64).exp());
        let smoothed = gaussian([1, 3], &[1.0, 0.0, 0.0], 1.0 / 3.0);
        assert!((f64::from(smoothed[0]) - (1.0 - 2.0 * side)).abs() < 1e-7);
        let smoothed = gaussian([1, 3], &[0.0, 1.0, 0.0], 1.0 / 3.0);
        assert!((f64::from(smoothed[0]) - 2.0 * side).abs() < 1e-7);
    }

    #[test]
    fn sigma_zero_changes_nothing() {
        assert_eq!(gaussian([1, 2], &[3.0, 4.0], 0.0), [3.0, 4.0]);
        assert_eq!(gaussian([1, 2], &[3.0, 4.0], f32::NAN), [3.0, 4.0]);
        assert!(gaussian([0, 2], &[], 1.0).is_empty());
    }
}
