//! At which scale the network sees an image.
//!
//! A small encoder trained on nuclei of some 13 to 50 pixels loses smaller ones. In the study the model was designed on (DSB 2018
//! test images, mSA by AIS), running always at 1× scored 0.409, always at 2× 0.382, and again at 2× whenever the objects found
//! at 1× were small 0.437. Objects too large for the network are not recognised by this rule.
//!
//! A strategy that rates its objects can do better: look at scales that suit them, and take each object from where it is rated best
//! ([`scales`]; docs/decisions/0046-several-scales.md).

use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use cytomask_segment::object_size::middle_side;

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
/// 1 and √2 for those of middling, 1 and 1 / √2 for those of large ones; 1 when there are none. What counts is their [`middle_side`].
pub fn scales(areas: &[u64]) -> Vec<f32> {
    match middle_side(areas) {
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
}
