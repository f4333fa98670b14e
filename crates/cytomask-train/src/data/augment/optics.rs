//! Focus and noise.

use cytomask_segment::ops::gaussian::gaussian;
use rand::{Rng, RngExt};

use super::normal;

/// Smooths samples `[H, W, 3]` with a Gaussian of up to `strength` pixels, as an image out of focus.
pub(super) fn blur(size: [u32; 2], samples: &mut [f32], strength: f64, rng: &mut impl Rng) {
    let sigma = (strength * rng.random_range(0.3..=1.0)) as f32;
    for channel in 0..3 {
        let plane: Vec<f32> = samples.iter().skip(channel).step_by(3).copied().collect();
        let smooth = gaussian(size, &plane, sigma);
        samples.iter_mut().skip(channel).step_by(3).zip(smooth).for_each(|(sample, value)| *sample = value);
    }
}

/// Adds noise to samples of 0–1: of photons, which grows with the root of the brightness, and of the camera, which does not. Together up to
/// `strength` at full brightness. Grey images get one number a pixel.
pub(super) fn add_noise(samples: &mut [f32], grey: bool, strength: f64, rng: &mut impl Rng) {
    let total = strength * rng.random_range(0.1..=1.0);
    let part = rng.random_range(0.0..=1.0_f64);
    // Variances add.
    let (photons, camera) = (total * total * part, total * total * (1.0 - part));
    for pixel in samples.chunks_exact_mut(3) {
        let common = normal(rng);
        for (channel, sample) in pixel.iter_mut().enumerate() {
            let drawn = if grey || channel == 0 { common } else { normal(rng) };
            let brightness = f64::from(*sample).clamp(0.0, 1.0);
            *sample += (drawn * (photons * brightness + camera).sqrt()) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn blur_keeps_the_mean_and_lowers_the_contrast() {
        let mut samples: Vec<f32> = (0..97 * 131).flat_map(|at| [f32::from(u8::from(at % 131 < 65)); 3]).collect();
        let before = samples.iter().sum::<f32>() / samples.len() as f32;
        blur([97, 131], &mut samples, 2.0, &mut ChaCha8Rng::seed_from_u64(1));
        let after = samples.iter().sum::<f32>() / samples.len() as f32;
        assert!((before - after).abs() < 0.01);
        assert!(samples.iter().any(|&sample| (0.2..0.8).contains(&sample)));
    }

    #[test]
    fn bright_places_are_noisier_than_dark_ones_and_all_within_the_strength() {
        let (mut bright, mut dark) = (0.0, 0.0);
        for seed in 0..30 {
            let deviation = |level: f32| {
                let mut samples = vec![level; 3000];
                add_noise(&mut samples, true, 0.1, &mut ChaCha8Rng::seed_from_u64(seed));
                let values = samples.iter().step_by(3).map(|sample| f64::from(sample - level).powi(2));
                (values.sum::<f64>() / 1000.0).sqrt()
            };
            let (at_bright, at_dark) = (deviation(1.0), deviation(0.1));
            assert!(at_bright < 0.115 && at_dark <= at_bright * 1.001);
            bright += at_bright;
            dark += at_dark;
        }
        assert!(dark < 0.9 * bright, "{dark} {bright}");
    }
}
