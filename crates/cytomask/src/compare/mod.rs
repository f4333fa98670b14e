//! Runs models with strategies over images with ground truth, and scores them beside predictions made elsewhere.
//!
//! [`match_by_name`] or [`read_table`] says which files belong together, [`run`] does the work, [`write`](fn@write) makes the
//! report. [`run`] keeps what it has done in the output folder, one record for each image and method, under a hash of everything
//! the result depends on: the image's bytes, the model's, the settings, the program's version. Called again it takes what it finds
//! and does the rest, whether it was killed, got more images or another method. Strategies of one model share its encoder: an image
//! is encoded once for all of them.
//!
//! Statistics and drawing are `cytomask_report`'s.

pub(crate) mod cases;
mod outputs;
mod records;
mod runner;

pub use cases::{Case, match_by_name, predictions_for, read_table};
pub use outputs::{ReportOptions, write};
pub use runner::{CompareOptions, Contestant, Failure, Results, Source, Step, run};
