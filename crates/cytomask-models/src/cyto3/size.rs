//! The diameter of an image's objects from its style.

use std::path::Path;

use cytomask_weights::read_pickled_npy;

use crate::{Error, ErrorKind};

/// No estimate is smaller, pixels.
const LEAST_DIAMETER: f64 = 5.0;

/// A linear model of the logarithm of the diameter (`size_cyto3.npy`).
#[derive(Clone, Debug, PartialEq)]
pub struct SizeModel {
    /// One for each channel of the style.
    factors: Vec<f64>,
    mean_style: Vec<f64>,
    diam_mean: f64,
    mean_logarithm: f64,
}

impl SizeModel {
    /// Reads Cellpose's file, a pickled dictionary of which nothing is executed.
    ///
    /// # Errors
    /// `Io` or `Format` for another or damaged file, `MissingTensor` for an entry it lacks.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let mut held = read_pickled_npy(path, &["A", "smean", "diam_mean", "ymean"])?;
        let mut take = |name: &str| {
            let found = held.remove(name).map(|array| array.values).filter(|values| !values.is_empty());
            let missing =
                || Error::new(ErrorKind::MissingTensor, format!("a size model without `{name}`")).with_path(path);
            let found = found.ok_or_else(missing)?;
            match found.iter().all(|value| value.is_finite()) {
                true => Ok(found),
                false => {
                    Err(Error::new(ErrorKind::Format, format!("size model: `{name}` is not finite")).with_path(path))
                }
            }
        };
        let (factors, mean_style) = (take("A")?, take("smean")?);
        let (diam_mean, mean_logarithm) = (take("diam_mean")?[0], take("ymean")?[0]);
        if factors.len() != mean_style.len() || diam_mean <= 0.0 {
            let message = format!("size model: {} factors for a style of {}", factors.len(), mean_style.len());
            return Err(Error::new(ErrorKind::Format, message).with_path(path));
        }
        Ok(Self { factors, mean_style, diam_mean, mean_logarithm })
    }

    /// Channels of the style.
    pub fn style_channels(&self) -> usize {
        self.factors.len()
    }

    /// The diameter objects are scaled to before the network, pixels.
    pub fn diam_mean(&self) -> f64 {
        self.diam_mean
    }

    /// The diameter that goes with a style, pixels; at least 5.
    pub fn diameter(&self, style: &[f32]) -> f64 {
        let sum: f64 = self
            .factors
            .iter()
            .zip(style.iter().zip(&self.mean_style))
            .map(|(factor, (&style, mean))| factor * (f64::from(style) - mean))
            .sum();
        let diameter = (sum + self.diam_mean.ln() + self.mean_logarithm).exp();
        if diameter.is_finite() { diameter.max(LEAST_DIAMETER) } else { self.diam_mean }
    }
}
