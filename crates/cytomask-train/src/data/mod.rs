//! Training data: images with their true objects, checks, random crops, augmentation, and the thread that makes batches ahead.
//!
//! A [`Store`] holds the images, a [`CropSampler`] cuts and augments crops, and [`Batches`] gives those of a step. What a step gets
//! is a function of the seed and the step alone. Which files belong together is left to the caller.

pub mod augment;
mod batches;
pub mod check;
mod clean;
mod crops;
mod store;

use std::path::PathBuf;

use cytomask_image::{Labels, Rgb};

pub use augment::{Augmentation, Preset};
pub use batches::{Batch, BatchPlan, Batches};
pub use clean::{fill_holes, split_components};
pub use crops::CropSampler;
pub use store::{Packed, Reader, Store};

use crate::targets::DistanceTargets;

/// Objects of fewer pixels are not trained on and do not count when a crop is judged; µSAM's `min_size`. Its
/// `MinInstanceSampler(2, min_size=25)` counts the background as the second instance, so that one object is enough.
pub const MIN_OBJECT_PX: u64 = 25;

/// One image with its true objects.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The image's file.
    pub path: PathBuf,
    /// `[H, W, 3]`, 0–255, converted as the model expects.
    pub image: Rgb,
    /// The true objects, `[H, W]`.
    pub labels: Labels,
}

/// A square training crop.
#[derive(Clone, Debug)]
pub struct Crop {
    /// `[side, side, 3]`, 0–255.
    pub image: Rgb,
    /// True objects, `[side, side]`, `1..=n`.
    pub labels: Labels,
    /// Which sample of the store it was cut from.
    pub source: usize,
    /// What the instance decoder learns, where it was made ahead.
    pub targets: Option<DistanceTargets>,
}

/// √area of the median object, pixels; none without objects. Objects of fewer than [`MIN_OBJECT_PX`] pixels do not count where there
/// are others.
pub fn median_side(labels: &Labels) -> Option<f64> {
    let mut areas: Vec<u64> = labels.extents().iter().map(|&(area, _)| area).filter(|&area| area > 0).collect();
    if areas.iter().any(|&area| area >= MIN_OBJECT_PX) {
        areas.retain(|&area| area >= MIN_OBJECT_PX);
    }
    areas.sort_unstable();
    areas.get(areas.len() / 2).map(|&area| (area as f64).sqrt())
}
