//! Matching and metrics of label images; knows nothing of networks or strategies.
//!
//! Everything starts from a [`Contingency`]: how many pixels each true object shares with each predicted one. [`matching`] counts
//! true and false positives at one threshold, [`mean_segmentation_accuracy`] averages over ten. Scores carry their criterion,
//! threshold and counts. Numbers equal those of `elf.evaluation`, except where [`BothEmpty`] says otherwise.
//! [`statistics`] says whether the scores of two or more methods really differ.
//!
//! ```
//! use cytomask_eval::{BothEmpty, contingency, mean_segmentation_accuracy};
//! use cytomask_image::Labels;
//!
//! let truth = Labels::from_vec([1, 6], vec![1, 1, 1, 0, 2, 2])?;
//! let predicted = Labels::from_vec([1, 6], vec![5, 5, 0, 0, 7, 7])?;
//! let scores = mean_segmentation_accuracy(&contingency(&truth, &predicted)?, BothEmpty::default());
//! assert_eq!((scores.sa50, scores.sa75), (1.0, 1.0 / 3.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod assignment;
mod contingency;
mod error;
mod matching;
pub mod statistics;

pub use contingency::{Contingency, Object, SharedPixels, contingency};
pub use error::{Error, ErrorKind};
pub use matching::{
    BothEmpty, Criterion, MatchedPair, Matching, MeanSegmentationAccuracy, THRESHOLDS, matching, mean_best_iou,
    mean_segmentation_accuracy,
};

/// A `Result` whose error is this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
