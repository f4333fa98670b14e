//! Brightness and contrast: gamma, gain, offset, inversion, uneven illumination.

use rand::{Rng, RngExt};

use super::{Augmentation, normal};

/// Colour channels move apart by this part of the common gain.
const CHANNEL_PART: f64 = 1.0 / 3.0;

/// Changes samples of 0–1, `[H, W, 3]`. Grey stays grey.
pub(super) fn change(changes: &Augmentation, samples: &mut [f32], grey: bool, rng: &mut impl Rng) {
    let gamma = changes.gamma.drawn(rng).map_or(1.0, |strength| (normal(rng) * strength).clamp(-1.5, 1.5).exp() as f32);
    let gain = changes.gain.drawn(rng).map_or([1.0; 3], |strength| {
        let common = 1.0 + strength * rng.random_range(-1.0..=1.0);
        let own = [(); 3].map(|()| 1.0 + strength * CHANNEL_PART * rng.random_range(-1.0..=1.0));
        own.map(|own| if grey { common } else { common * own } as f32)
    });
    let offset = changes.offset.drawn(rng).map_or(0.0, |strength| (normal(rng) * strength) as f32);
    let invert = changes.invert.drawn(rng).is_some();
    if gamma == 1.0 && gain == [1.0; 3] && offset == 0.0 && !invert {
        return;
    }
    for pixel in samples.chunks_exact_mut(3) {
        for (sample, gain) in pixel.iter_mut().zip(gain) {
            let value = if invert { 1.0 - *sample } else { *sample };
            // `clamp` keeps NaN, `max` would not.
            *sample = value.clamp(0.0, 1.0).powf(gamma) * gain + offset;
        }
    }
}

/// Multiplies with a plane that falls from 1 to 1 − `strength` at most across the image, in any direction, and with as much of a fall-off
/// towards the corners, as an objective's.
pub(super) fn shade(size: [u32; 2], samples: &mut [f32], strength: f64, rng: &mut impl Rng) {
    let [h, w] = size.map(f64::from);
    let angle = rng.random_range(0.0..std::f64::consts::TAU);
    let fall = strength.min(0.9) * rng.random_range(0.0..=1.0);
    let radial = rng.random_range(0.0..=1.0);
    let (dy, dx) = angle.sin_cos();
    for (at, pixel) in samples.chunks_exact_mut(3).enumerate() {
        let [y, x] = [(at as u32 / size[1], h), (at as u32 % size[1], w)]
            .map(|(at, length)| (f64::from(at) + 0.5) / length * 2.0 - 1.0);
        let along = (1.0 + (y * dy + x * dx) / std::f64::consts::SQRT_2) / 2.0;
        let outward = (y * y + x * x) / 2.0;
        let factor = (1.0 - fall * (along * (1.0 - radial) + outward * radial)) as f32;
        pixel.iter_mut().for_each(|sample| *sample *= factor);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::data::augment::{Change, Preset};

    #[test]
    fn inversion_and_order_by_hand() {
        let inverted = Augmentation { invert: Change { share: 1.0, strength: 1.0 }, ..Preset::None.augmentation() };
        let mut samples = vec![0.0, 0.25, 1.0];
        change(&inverted, &mut samples, false, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(samples, [1.0, 0.75, 0.0]);
        // Without inversion the order of grey levels stays.
        let rest = Augmentation { invert: Change::default(), ..Preset::Strong.augmentation() };
        for seed in 0..20 {
            let mut ramp: Vec<f32> = (0..100).flat_map(|at| [at as f32 / 99.0; 3]).collect();
            change(&rest, &mut ramp, true, &mut ChaCha8Rng::seed_from_u64(seed));
            assert!(ramp.chunks_exact(3).zip(ramp.chunks_exact(3).skip(1)).all(|(a, b)| a[0] <= b[0]));
        }
    }

    #[test]
    fn shade_darkens_by_no_more_than_its_strength() {
        for seed in 0..20 {
            let mut samples = vec![1.0; 97 * 131 * 3];
            shade([97, 131], &mut samples, 0.3, &mut ChaCha8Rng::seed_from_u64(seed));
            let least = samples.iter().copied().fold(f32::MAX, f32::min);
            assert!((0.699..1.0).contains(&least) && samples.iter().all(|&sample| sample <= 1.0), "{least}");
        }
    }
}
