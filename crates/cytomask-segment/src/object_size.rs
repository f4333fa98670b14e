//! How large the objects of an image are, told from its maps, and how much smoothing suits them.

use crate::model::Fields;
use crate::ops::components::{Connectivity, label_mask};
use crate::ops::watershed::watershed;

/// [`Smoothing::BySize`]: standard deviation in sides of an object, and its limits in pixels.
const SIGMA_PER_SIDE: f32 = 0.05;
const SMALLEST_SIGMA: f32 = 1.0;
const LARGEST_SIGMA: f32 = 2.5;

/// How much distance maps are smoothed before seeds or prompts are derived from them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Smoothing {
    /// By a Gaussian of this standard deviation, in pixels; 0 leaves them as they are.
    Sigma(f32),
    /// By one of a twentieth of the objects' [`middle_side`], within 1 and 2.5 pixels: what is noise in the maps of a large cell is
    /// a nucleus elsewhere (docs/decisions/0050-smoothing-by-size.md).
    BySize,
}

impl Smoothing {
    /// The standard deviation for these maps, in pixels.
    ///
    /// # Panics
    /// When a map does not hold `h * w` samples.
    pub fn sigma(self, fields: &Fields) -> f32 {
        match self {
            Self::Sigma(sigma) => sigma,
            Self::BySize => {
                let side = middle_side(&object_areas(fields)).unwrap_or(0.0) as f32;
                (SIGMA_PER_SIDE * side).clamp(SMALLEST_SIGMA, LARGEST_SIGMA)
            }
        }
    }
}

/// Areas of the objects in decoder maps, in pixels: seeds where both distances and the foreground pass 0.5, grown over the
/// boundary distance inside the foreground. This is AIS without its smoothing and filters, which a median does not need.
///
/// # Panics
/// When a map does not hold `h * w` samples.
pub fn object_areas(fields: &Fields) -> Vec<u64> {
    let foreground: Vec<bool> = fields.foreground.iter().map(|&value| value > 0.5).collect();
    let seeds: Vec<bool> = foreground
        .iter()
        .zip(fields.center_distance.iter().zip(&fields.boundary_distance))
        .map(|(&inside, (&center, &boundary))| inside && center < 0.5 && boundary < 0.5)
        .collect();
    let seeds = label_mask(fields.size, &seeds, Connectivity::Eight);
    let labels = watershed(&fields.boundary_distance, &seeds, &foreground);
    labels.extents().into_iter().map(|(area, _)| area).filter(|&area| area > 0).collect()
}

/// √area, in pixels, of the object that the middle one of all objects' pixels lies in, so that specks say little. `None` without
/// objects.
pub fn middle_side(areas: &[u64]) -> Option<f64> {
    let mut areas = areas.to_vec();
    areas.sort_unstable();
    let half = areas.iter().sum::<u64>().div_ceil(2);
    let mut pixels = 0;
    let middle = areas.into_iter().find(|area| {
        pixels += area;
        pixels >= half
    });
    middle.map(|area| (area as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Maps of squares `(y0, x0, side)`, each with its own centre, in 97 × 131 pixels.
    fn squares(squares: &[(u32, u32, u32)]) -> Fields {
        let size = [97_u32, 131];
        let pixels = (size[0] * size[1]) as usize;
        let mut fields = Fields {
            size,
            foreground: vec![0.0; pixels],
            center_distance: vec![1.0; pixels],
            boundary_distance: vec![1.0; pixels],
        };
        for &(y0, x0, side) in squares {
            for y in 0..side {
                for x in 0..side {
                    let inset = y.min(x).min(side - 1 - y).min(side - 1 - x);
                    let distance = 1.0 - inset as f32 / ((side - 1) / 2) as f32;
                    let pixel = ((y0 + y) * size[1] + x0 + x) as usize;
                    fields.foreground[pixel] = 0.9;
                    fields.center_distance[pixel] = distance;
                    fields.boundary_distance[pixel] = distance;
                }
            }
        }
        fields
    }

    #[test]
    fn objects_that_touch_are_counted_apart() {
        let mut areas = object_areas(&squares(&[(10, 20, 6), (10, 26, 10)]));
        areas.sort_unstable();
        // On the seam both boundary distances are 1; a pixel or two may go to either side.
        assert_eq!(areas.len(), 2);
        assert_eq!(areas.iter().sum::<u64>(), 136);
        assert!((32..=36).contains(&areas[0]), "{areas:?}");
    }

    #[test]
    fn specks_say_little_of_the_size() {
        assert_eq!(middle_side(&[]), None);
        assert_eq!(middle_side(&[20, 3600, 30, 10, 3600, 20]), Some(60.0));
    }

    #[test]
    fn large_objects_are_smoothed_more() {
        let sigma = |squares_of: &[(u32, u32, u32)]| Smoothing::BySize.sigma(&squares(squares_of));
        assert_eq!(sigma(&[]), 1.0);
        assert_eq!(sigma(&[(10, 10, 12)]), 1.0);
        assert!((sigma(&[(10, 10, 40)]) - 2.0).abs() < 1e-6);
        assert_eq!(sigma(&[(10, 10, 60)]), 2.5);
        assert_eq!(Smoothing::Sigma(0.3).sigma(&squares(&[(10, 10, 60)])), 0.3);
    }
}
