//! The 36 datasets of Archit & Pape, *Revisiting foundation models for cell instance segmentation*, MIDL 2026: what they are,
//! where they come from, and a reader for the layout each is published in that writes the paper's 2-D images and labels.
//!
//! - [`all`] and [`find`] give the table: domain, licence, sources, split rule, crop, filters.
//! - [`paper_scores`] gives the scores the paper reports.
//! - [`prepare`] reads published archives or folders and writes `images/`, `labels/` and `manifest.json`.
//!
//! The rules are those of micro-sam `scripts/apg_experiments/util.py` and torch-em `torch_em/data/datasets`; where they are
//! followed although they look wrong, and where not, docs/decisions/0016 says. Downloading is left to the caller, scoring to
//! `cytomask-eval`.

mod archive;
mod document;
mod error;
mod formats;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
#[cfg(test)]
mod golden;
mod ops;
mod paper;
mod pattern;
mod plane;
mod prepare;
mod raster;
mod readers;
mod resize;
mod split;
mod table;

pub use archive::Limits;
pub use document::markdown_table;
pub use error::{Error, ErrorKind, Result};
pub use paper::{METHODS, Method, Score, paper_scores};
pub use prepare::{PrepareOptions, Prepared, prepare};
pub use table::{Access, Crop, Dataset, Domain, Repeatable, Source, SplitName, SplitRule, all, find};
