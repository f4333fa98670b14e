//! Measurements of every object: shape, and brightness in each channel.
//!
//! The numbers are those of `skimage.measure.regionprops` 0.26 on the same label image (`parity/measurements.py`); what each
//! one means is said at [`Shape`] and [`Intensity`].

use cytomask_image::{Error, Image, Result};
use rayon::prelude::*;

pub use crate::intensity::Intensity;
pub use crate::shape::Shape;

use crate::Objects;

/// Measurements of all objects, in the order of [`Objects::ids`].
#[derive(Clone, Debug)]
pub struct Measurements {
    /// One for each object.
    pub shapes: Vec<Shape>,
    /// One for each object and channel, `[object][channel]`; no channels without an image.
    pub intensities: Vec<Vec<Intensity>>,
}

/// Measures every object, and its brightness in `image` when there is one.
///
/// # Errors
/// `Shape` when the image has another size than the labels, or its samples do not fill it.
pub fn measure(objects: &Objects<'_>, image: Option<&Image>) -> Result<Measurements> {
    if let Some(image) = image {
        let [h, w] = objects.size();
        if image.size != objects.size() {
            let found = format!("{} × {}", image.size[0], image.size[1]);
            return Err(Error::shape("image to measure", format!("{h} × {w} pixels, as the labels"), found));
        }
        let expected = u128::from(h) * u128::from(w) * u128::from(image.channels);
        if image.samples.len() as u128 != expected {
            return Err(Error::shape("image to measure", format!("{expected} samples"), image.samples.len()));
        }
    }
    let found: Vec<(Shape, Vec<Intensity>)> = objects
        .indices()
        .into_par_iter()
        .map_init(Vec::new, |buffer, index| {
            let runs = objects.runs(index);
            let intensities = image.map(|image| Intensity::new(image, runs, buffer)).unwrap_or_default();
            (Shape::new(objects.labels(), objects.ids()[index], runs), intensities)
        })
        .collect();
    let (shapes, intensities) = found.into_iter().unzip();
    Ok(Measurements { shapes, intensities })
}
