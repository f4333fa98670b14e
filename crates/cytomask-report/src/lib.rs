//! What a comparison of methods found, for people: a recommendation, tables, plots, one HTML page.
//!
//! A [`Comparison`] holds the scores of every method on every image. [`Analysis::of`] asks which differences are real (by
//! [`cytomask_eval::statistics`]) and says so in words. [`html`] makes a page of it that needs no other file and no network; the
//! numbers behind each plot go into [`plots::Plot::data`], and [`tables`] has CSV and Markdown for papers. Nothing here runs a
//! model or reads a file.

mod analysis;
mod comparison;
mod error;
pub mod html;
mod matrix;
pub mod panel;
pub mod plots;
mod recommendation;
pub mod tables;
pub mod training;

pub use analysis::{Analysis, GroupAnalysis, MethodSummary, PairAnalysis, Range};
pub use comparison::{ComparedImage, Comparison, Method, Scores, label};
pub use cytomask_eval::Metric;
pub use error::{Error, ErrorKind};
pub use recommendation::{Certainty, Recommendation};

/// A `Result` whose error is this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
