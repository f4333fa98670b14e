//! Plots as inline SVG, each with the numbers it shows.
//!
//! Text and axes take the page's own colour, so that a plot is readable on light and on dark ground; methods differ in the shape of
//! their mark as well as in colour.

mod canvas;
mod critical_difference;
mod curves;
mod methods;
mod pairs;

pub use critical_difference::critical_difference;
pub use curves::{Curve, curves};
pub use methods::{by_group, mean_scores, score_against_threshold, time_against_quality};
pub use pairs::scatter;

use serde_json::Value;

/// A plot, what it shows and how to read it.
#[derive(Clone, Debug)]
pub struct Plot {
    /// A short name, for anchors and keys.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// How to read it, one or two sentences.
    pub explanation: String,
    /// The drawing, without fixed size.
    pub svg: String,
    /// The numbers drawn.
    pub data: Value,
}
