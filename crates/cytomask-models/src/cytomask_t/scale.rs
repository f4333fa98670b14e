//! At which scale the network sees an image.
//!
//! A small encoder trained on nuclei of some 13 to 50 pixels loses smaller ones. In the study the model was designed on (DSB 2018
//! test images, mSA by AIS), running always at 1× scored 0.409, always at 2× 0.382, and again at 2× whenever the objects found
//! at 1× were small 0.437. Objects too large for the network are not recognised by this rule.
//!
//! A strategy that rates its objects can do better: look at scales that suit them, and take each object from where it is rated best
//! ([`scales`]; docs/decisions/0046-several-scales.md).

use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use cytomask_segment::{
    Fields,
    ops::{
        components::{Connectivity, label_mask},
        watershed::watershed,
    },
};

/// The scale at which the network sees an image.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ScaleChoice {
    /// 1×, and again at 2× when [`automatic_scale`] says so.
    #[default]
    Auto,
    /// This factor.
    Fixed(f32),
}

/// Median √area, in pixels, below which objects are looked at again at twice the scale.
pub const SMALL_OBJECT_PX: f64 = 13.0;

/// 2 when there are objects and the median of √area lies below [`SMALL_OBJECT_PX`], else 1. `areas` are those found at 1×.
pub fn automatic_scale(areas: &[u64]) -> f32 {
    match median_side(areas) {
        Some(side) if side < SMALL_OBJECT_PX => 2.0,
        _ => 1.0,
    }
}

/// Side of objects, in pixels, below which [`scales`] is 2 alone.
const SMALLER_OBJECT_PX: f64 = 19.0;

/// Side of objects, in pixels, from which the second scale of [`scales`] is below 1.
const LARGE_OBJECT_PX: f64 = 60.0;

/// The scales at which a strategy that rates its objects looks for them: 2 for objects of small areas, found at 1×,
/// 1 and √2 for those of middling, 1 and 1 / √2 for those of large ones; 1 when there are none. What counts is √area of the object
/// that the middle one of all objects' pixels lies in, so that specks say little.
pub fn scales(areas: &[u64]) -> Vec<f32> {
    let mut areas = areas.to_vec();
    areas.sort_unstable();
    let half = areas.iter().sum::<u64>().div_ceil(2);
    let mut pixels = 0;
    let middle = areas.iter().find(|&&area| {
        pixels += area;
        pixels >= half
    });
    match middle.map(|&area| (area as f64).sqrt()) {
        None => vec![1.0],
        Some(side) if side < SMALLER_OBJECT_PX => vec![2.0],
        Some(side) if side < LARGE_OBJECT_PX => vec![1.0, SQRT_2],
        Some(_) => vec![1.0, FRAC_1_SQRT_2],
    }
}

/// Median of √area; the mean of the middle two when there is an even number. `None` without objects.
fn median_side(areas: &[u64]) -> Option<f64> {
    let mut sides: Vec<f64> = areas.iter().map(|&area| (area as f64).sqrt()).collect();
    sides.sort_unstable_by(f64::total_cmp);
    let middle = sides.len() / 2;
    let upper = *sides.get(middle)?;
    Some(if sides.len() % 2 == 1 { upper } else { f64::midpoint(sides[middle - 1], upper) })
}

/// Areas of the objects in decoder maps, in pixels: seeds where both distances and the foreground pass 0.5, grown over the
/// boundary distance inside the foreground. This is AIS without its smoothing and filters, which a median does not need.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_objects_are_looked_at_twice() {
        assert_eq!(automatic_scale(&[]), 1.0);
        assert_eq!(automatic_scale(&[168]), 2.0); // √168 = 12.96
        assert_eq!(automatic_scale(&[169]), 1.0); // √169 = 13
        // The median decides, not the mean: one large object among small ones.
        assert_eq!(automatic_scale(&[100, 90_000, 100]), 2.0);
        // Even number: the mean of √100 and √400 is 15, of √100 and √225 is 12.5.
        assert_eq!(automatic_scale(&[100, 400]), 1.0);
        assert_eq!(automatic_scale(&[225, 100]), 2.0);
    }

    #[test]
    fn the_second_scale_is_by_size() {
        assert_eq!(scales(&[]), [1.0]);
        assert_eq!(scales(&[360]), [2.0]); // √360 = 18.97
        assert_eq!(scales(&[361]), [1.0, SQRT_2]); // √361 = 19
        assert_eq!(scales(&[3599]), [1.0, SQRT_2]); // √3599 = 59.99
        assert_eq!(scales(&[3600]), [1.0, FRAC_1_SQRT_2]);
        // Most pixels lie in the two large ones, though most objects are small.
        assert_eq!(scales(&[20, 3600, 30, 10, 4000, 20]), [1.0, FRAC_1_SQRT_2]);
    }

    /// Two squares of 6 × 6 and 10 × 10 that touch, each with its own centre.
    #[test]
    fn objects_that_touch_are_counted_apart() {
        let size = [97_u32, 131];
        let squares = [(10_i32, 20_i32, 6_i32), (10, 26, 10)];
        let pixels = (size[0] * size[1]) as usize;
        let mut fields = Fields {
            size,
            foreground: vec![0.0; pixels],
            center_distance: vec![1.0; pixels],
            boundary_distance: vec![1.0; pixels],
        };
        for (y0, x0, side) in squares {
            for y in y0..y0 + side {
                for x in x0..x0 + side {
                    let inset = (y - y0).min(x - x0).min(y0 + side - 1 - y).min(x0 + side - 1 - x);
                    let distance = 1.0 - inset as f32 / ((side - 1) / 2) as f32;
                    let pixel = (y * 131 + x) as usize;
                    fields.foreground[pixel] = 0.9;
                    fields.center_distance[pixel] = distance;
                    fields.boundary_distance[pixel] = distance;
                }
            }
        }
        let mut areas = object_areas(&fields);
        areas.sort_unstable();
        // On the seam both boundary distances are 1; a pixel or two may go to either side.
        assert_eq!(areas.len(), 2);
        assert_eq!(areas.iter().sum::<u64>(), 136);
        assert!((32..=36).contains(&areas[0]), "{areas:?}");
        assert_eq!(automatic_scale(&areas), 2.0);
    }
}
