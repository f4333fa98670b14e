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

use std::path::{Path, PathBuf};

use cytomask_image::{Image, Labels, Normalization, ReadOptions, Rgb, read_labels};

pub use augment::{Augmentation, Preset};
pub use batches::{Batch, BatchPlan, Batches};
pub use clean::{fill_holes, split_components};
pub use crops::CropSampler;
pub use store::{Packed, Reader, Store};

use crate::targets::DistanceTargets;
use crate::{Error, ErrorKind};

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

/// Loads every image of `images` with the label image of the same stem in `labels`.
///
/// # Errors
/// `Data`: an image without labels, sizes that differ, a file that cannot be read, no image at all, labels without any object.
pub fn load_folder(images: &Path, labels: &Path, normalization: Normalization) -> Result<Vec<Sample>, Error> {
    let label_files = files(labels)?;
    let mut samples = Vec::new();
    for path in files(images)? {
        let label_path = label_files
            .iter()
            .find(|candidate| candidate.file_stem() == path.file_stem())
            .ok_or_else(|| data(format!("{}: no label image of this name in {}", path.display(), labels.display())))?;
        samples.push(load_pair(&path, label_path, normalization)?);
    }
    if samples.is_empty() {
        return Err(data(format!("{}: no images in this folder", images.display())));
    }
    if samples.iter().all(|sample| sample.labels.max_id() == 0) {
        return Err(data(format!("{}: none of the label images holds an object", labels.display())));
    }
    Ok(samples)
}

fn load_pair(path: &Path, label_path: &Path, normalization: Normalization) -> Result<Sample, Error> {
    let unreadable = |error| data("a training file cannot be used").with_source(error);
    let image = Image::open(path, &ReadOptions::default())
        .and_then(|image| image.to_rgb(normalization))
        .map_err(|error| unreadable(error.with_path(path)))?;
    let labels = read_labels(label_path).map_err(|error| unreadable(error.with_path(label_path)))?;
    if image.size != labels.size() {
        let ([h, w], [label_h, label_w]) = (image.size, labels.size());
        let found = format!("{label_h} × {label_w}, its image {} is {h} × {w}", path.display());
        return Err(data(format!("{}: the label image is {found}", label_path.display())));
    }
    Ok(Sample { path: path.to_path_buf(), image, labels })
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let unlisted = |error| data(format!("{}: cannot list the folder", folder.display())).with_source(error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unlisted)? {
        let path = entry.map_err(unlisted)?.path();
        let extension = path.extension().and_then(|text| text.to_str()).unwrap_or_default().to_lowercase();
        if path.is_file() && ["png", "tif", "tiff", "jpg", "jpeg"].contains(&extension.as_str()) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn data(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Data, message)
}
