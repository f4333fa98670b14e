//! Matching and metrics of label images; knows nothing of networks or strategies.
//!
//! [`score`] gives all scores of an image at once, as [`Scores`]. Its parts start from a [`Contingency`]: how many pixels each true
//! object shares with each predicted one, in images of any dimension. [`matching`] counts true and false positives at one
//! threshold, [`mean_segmentation_accuracy`] averages over ten, [`object_scores`] has a record for each object; [`boundary_score`]
//! alone looks at pixels again. Scores carry their criterion, threshold and counts. Numbers equal those of `elf.evaluation`,
//! stardist, Cellpose and scikit-image, except where [`BothEmpty`] or docs/decisions/0011 says otherwise. [`summarize`] makes a
//! mean with a confidence interval of the scores of many images; [`statistics`] says whether two or more methods really differ.
//!
//! ```
//! use cytomask_eval::{ScoreOptions, score};
//! use cytomask_image::Labels;
//!
//! let truth = Labels::from_vec([1, 6], vec![1, 1, 1, 0, 2, 2])?;
//! let predicted = Labels::from_vec([1, 6], vec![5, 5, 0, 0, 7, 7])?;
//! let scores = score(&truth, &predicted, &ScoreOptions::default())?;
//! assert_eq!((scores.sa50, scores.sa75, scores.recall), (1.0, 1.0 / 3.0, 1.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod aggregated_jaccard;
mod assignment;
mod best_partner;
mod boundary;
mod components;
mod contingency;
mod error;
mod label_array;
mod matching;
mod objects;
mod scores;
mod splits;
pub mod statistics;
mod summary;

pub use aggregated_jaccard::{AggregatedJaccard, aggregated_jaccard};
pub use best_partner::{mean_best_iou, symmetric_best_dice};
pub use boundary::{BoundaryScore, boundary_score};
pub use components::connected_components;
pub use contingency::{Contingency, Object, SharedPixels, contingency};
pub use error::{Error, ErrorKind};
pub use label_array::LabelArray;
pub use matching::{
    BothEmpty, Criterion, MatchedPair, Matching, MeanSegmentationAccuracy, THRESHOLDS, matching,
    mean_segmentation_accuracy,
};
pub use objects::{ObjectScore, Side, object_scores};
pub use scores::{MATCHING_THRESHOLD, Metric, ScoreOptions, Scores, score};
pub use splits::{SplitsAndMerges, splits_and_merges};
pub use summary::{Summary, SummaryOptions, summarize};

/// A `Result` whose error is this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
