//! The scores of every method on every image.

use std::collections::BTreeMap;

use cytomask_eval::Metric;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, ErrorKind, Result};

/// A metric as tables and plots call it.
pub fn label(metric: Metric) -> String {
    match metric {
        Metric::Msa => "mSA".into(),
        Metric::Sa50 => "SA50".into(),
        Metric::Sa75 => "SA75".into(),
        Metric::F1 => "F1".into(),
        other => other.name().replace('_', " "),
    }
}

/// How well one method did on one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Every metric that is a number, by its name.
    pub values: BTreeMap<String, f64>,
    /// Segmentation accuracy at each of [`cytomask_eval::THRESHOLDS`].
    pub per_threshold: [f64; 10],
    /// Seconds of the method on this image, where it was run here: encoder, decoder maps where used, and its own part. Reading,
    /// writing and scoring are left out.
    pub seconds: Option<f64>,
}

impl From<&cytomask_eval::Scores> for Scores {
    /// Without time.
    fn from(scores: &cytomask_eval::Scores) -> Self {
        let named = Metric::ALL.into_iter().map(|metric| (metric.name().to_owned(), scores.get(metric)));
        let values = named.filter(|(_, value)| value.is_finite()).collect();
        Self { values, per_threshold: scores.segmentation_accuracy, seconds: None }
    }
}

impl Scores {
    /// One of the numbers; NaN where it is undefined.
    pub fn get(&self, metric: Metric) -> f64 {
        self.values.get(metric.name()).copied().unwrap_or(f64::NAN)
    }

    /// A number of objects.
    pub fn count(&self, metric: Metric) -> usize {
        self.values.get(metric.name()).map_or(0, |&count| count as usize)
    }
}

/// A method: a model with a strategy and settings, or predictions made elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Method {
    /// What it is called in tables and plots.
    pub name: String,
    /// Model, hashes, settings, as recorded; shown as they are.
    pub record: Value,
}

/// An image with the scores of all methods.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedImage {
    /// Its name.
    pub name: String,
    /// What it belongs to, where images are of several kinds.
    pub group: Option<String>,
    /// One a method, in their order.
    pub scores: Vec<Scores>,
}

/// All methods on all images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The methods.
    pub methods: Vec<Method>,
    /// The images.
    pub images: Vec<ComparedImage>,
}

impl Comparison {
    /// The metric's values, one row an image, one column a method.
    ///
    /// # Errors
    /// `Shape` when there is no method or image or a row is not complete, `Value` when a score is no number.
    pub fn values(&self, metric: Metric) -> Result<Vec<Vec<f64>>> {
        if self.methods.is_empty() || self.images.is_empty() {
            let (methods, images) = (self.methods.len(), self.images.len());
            let message = format!("comparison: expected a method and an image, found {methods} and {images}");
            return Err(Error::new(ErrorKind::Shape, message));
        }
        let row = |image: &ComparedImage| {
            let values: Vec<f64> = image.scores.iter().map(|scores| scores.get(metric)).collect();
            if values.len() != self.methods.len() {
                let (expected, found) = (self.methods.len(), values.len());
                let message = format!("{}: expected the scores of {expected} methods, found {found}", image.name);
                return Err(Error::new(ErrorKind::Shape, message));
            }
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                let message = format!("{}: the score of {} is no number", image.name, self.methods[at].name);
                return Err(Error::new(ErrorKind::Value, message));
            }
            Ok(values)
        };
        self.images.iter().map(row).collect()
    }

    /// Names of the groups in order of appearance; none when images are of one kind.
    pub fn groups(&self) -> Vec<&str> {
        let mut found: Vec<&str> = Vec::new();
        for group in self.images.iter().filter_map(|image| image.group.as_deref()) {
            if !found.contains(&group) {
                found.push(group);
            }
        }
        found
    }
}
