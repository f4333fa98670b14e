//! Stain of bright-field images: more or less haematoxylin and eosin, as other laboratories have.
//!
//! Colour deconvolution of Ruifrok & Johnston (Anal. Quant. Cytol. Histol. 2001): light is absorbed by each stain in proportion to its
//! amount, so that in optical density (−ln of the transmitted share) stains add. Amounts are scaled and moved as Tellez et al. (IEEE TMI
//! 2018) do.

use rand::Rng;

use super::normal;

/// Optical density of red, green and blue for haematoxylin, eosin and DAB (the paper's table), one a row; rows are brought to length 1.
const STAINS: [[f64; 3]; 3] = [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]];

/// Amounts are moved by this part of what they are scaled by.
const MOVED_PART: f64 = 0.2;

/// Below it no light is told from none.
const DARKEST: f64 = 1.0 / 255.0;

/// Whether the ground is bright, as in transmitted light: three quarters of the samples are above 0.4.
pub(super) fn is_bright_field(samples: &[f32]) -> bool {
    let bright = samples.iter().filter(|&&sample| sample > 0.4).count();
    bright * 4 >= samples.len() * 3
}

/// Changes the amounts of the three stains in samples of 0–1, `[H, W, 3]`.
pub(super) fn jitter(samples: &mut [f32], strength: f64, rng: &mut impl Rng) {
    let factors = [(); 3].map(|()| (1.0 + normal(rng) * strength).clamp(0.2, 2.5));
    let moves = [(); 3].map(|()| normal(rng) * strength * MOVED_PART);
    apply(samples, factors, moves);
}

fn apply(samples: &mut [f32], factors: [f64; 3], moves: [f64; 3]) {
    let stains = STAINS.map(|row| {
        let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        row.map(|value| value / length)
    });
    let unmix = inverse(stains);
    for pixel in samples.chunks_exact_mut(3) {
        let density = [0, 1, 2].map(|channel| {
            let light = f64::from(pixel[channel]);
            // `clamp` keeps NaN.
            -light.clamp(DARKEST, 1.0).ln()
        });
        let amounts = [0, 1, 2].map(|stain| {
            let amount: f64 = (0..3).map(|channel| density[channel] * unmix[channel][stain]).sum();
            amount * factors[stain] + moves[stain]
        });
        for (channel, sample) in pixel.iter_mut().enumerate() {
            let density: f64 = (0..3).map(|stain| amounts[stain] * stains[stain][channel]).sum();
            *sample = (-density).exp().clamp(0.0, 1.0) as f32;
        }
    }
}

/// By cofactors.
fn inverse(m: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let minor = |r: usize, c: usize| {
        let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
        m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
    };
    let determinant: f64 = (0..3).map(|c| m[0][c] * minor(0, c)).sum();
    [0, 1, 2].map(|r| [0, 1, 2].map(|c| minor(c, r) / determinant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_that_stay_change_nothing() {
        let mut samples = vec![0.47, 0.31, 0.63, 0.92, 0.67, 0.78, 1.0, 1.0, 1.0];
        let before = samples.clone();
        apply(&mut samples, [1.0; 3], [0.0; 3]);
        assert!(samples.iter().zip(&before).all(|(a, b)| (a - b).abs() < 1e-5), "{samples:?}");
    }

    #[test]
    fn twice_the_haematoxylin_is_the_square_of_its_light() {
        // A pixel of haematoxylin alone.
        let length = (0.65_f64 * 0.65 + 0.70 * 0.70 + 0.29 * 0.29).sqrt();
        let pure = [0.65, 0.70, 0.29].map(|density: f64| (-0.8 * density / length).exp() as f32);
        let mut samples = pure.to_vec();
        apply(&mut samples, [2.0, 1.0, 1.0], [0.0; 3]);
        assert!(samples.iter().zip(pure).all(|(found, light)| (found - light * light).abs() < 1e-5));
        let mut others = pure.to_vec();
        apply(&mut others, [1.0, 0.5, 2.0], [0.0; 3]);
        assert!(others.iter().zip(pure).all(|(found, light)| (found - light).abs() < 1e-5));
    }

    #[test]
    fn dark_ground_is_no_bright_field() {
        assert!(is_bright_field(&[0.9, 0.8, 0.9, 0.2]));
        assert!(!is_bright_field(&[0.1, 0.8, 0.9, 0.2]));
    }
}
