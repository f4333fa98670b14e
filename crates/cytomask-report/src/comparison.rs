//! The scores of every method on every image.

use cytomask_eval::{
    BothEmpty, Contingency, Criterion, MeanSegmentationAccuracy, matching, mean_segmentation_accuracy,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, ErrorKind, Result};

/// The number methods are compared by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Mean segmentation accuracy over IoU 0.50–0.95.
    #[default]
    Msa,
    /// Segmentation accuracy at IoU 0.5.
    Sa50,
    /// Segmentation accuracy at IoU 0.75.
    Sa75,
    /// F1 at IoU 0.5.
    F1,
}

impl Metric {
    /// As it is written in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Msa => "mSA",
            Self::Sa50 => "SA50",
            Self::Sa75 => "SA75",
            Self::F1 => "F1",
        }
    }

    /// The number itself.
    pub fn of(self, scores: &Scores) -> f64 {
        match self {
            Self::Msa => scores.msa,
            Self::Sa50 => scores.sa50,
            Self::Sa75 => scores.sa75,
            Self::F1 => scores.f1,
        }
    }
}

/// How well one method did on one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Mean segmentation accuracy.
    pub msa: f64,
    /// Segmentation accuracy at IoU 0.5.
    pub sa50: f64,
    /// At IoU 0.75.
    pub sa75: f64,
    /// At each of [`cytomask_eval::THRESHOLDS`].
    pub per_threshold: [f64; 10],
    /// F1 at IoU 0.5; as the others, by convention where neither image holds an object.
    pub f1: f64,
    /// Objects found at IoU 0.5.
    pub true_positives: usize,
    /// Predicted objects that are none.
    pub false_positives: usize,
    /// True objects that were missed.
    pub false_negatives: usize,
    /// Seconds of the method on this image, where it was run here: encoder, decoder maps where used, and its own part. Reading,
    /// writing and scoring are left out.
    pub seconds: Option<f64>,
}

impl Scores {
    /// Scores of a prediction; `seconds` are left empty.
    ///
    /// # Errors
    /// None with the thresholds used here.
    pub fn of(contingency: &Contingency, both_empty: BothEmpty) -> Result<Self> {
        let MeanSegmentationAccuracy { msa, sa50, sa75, per_threshold, n_true, n_predicted } =
            mean_segmentation_accuracy(contingency, both_empty);
        let found = matching(contingency, 0.5, Criterion::IntersectionOverUnion)?;
        Ok(Self {
            msa,
            sa50,
            sa75,
            per_threshold,
            f1: if n_true + n_predicted == 0 { sa50 } else { found.f1 },
            true_positives: found.true_positives,
            false_positives: found.false_positives,
            false_negatives: found.false_negatives,
            seconds: None,
        })
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
            let values: Vec<f64> = image.scores.iter().map(|scores| metric.of(scores)).collect();
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
