//! The win/loss matrix: every method against every other by the paper's rule.

use serde::Serialize;

use crate::Analysis;

/// Rows and columns are methods by falling mean.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Matrix {
    pub(crate) methods: Vec<String>,
    /// "win", "loss", "neutral" of the row's method against the column's; `None` on the diagonal.
    pub(crate) outcomes: Vec<Vec<Option<&'static str>>>,
    /// The row's mean score less the column's.
    pub(crate) differences: Vec<Vec<f64>>,
    /// Whether the two-sided test is significant after Holm's correction.
    pub(crate) significant: Vec<Vec<bool>>,
}

impl Matrix {
    pub(crate) fn of(analysis: &Analysis) -> Self {
        let order = analysis.order();
        let pair = |row: usize, column: usize| analysis.pair(row, column);
        let each = |of: &dyn Fn(usize, usize) -> Option<&'static str>| -> Vec<Vec<Option<&'static str>>> {
            order.iter().map(|&row| order.iter().map(|&column| of(row, column)).collect()).collect()
        };
        Self {
            methods: order.iter().map(|&at| analysis.methods[at].method.clone()).collect(),
            outcomes: each(&|row, column| pair(row, column).map(|pair| pair.paper_outcome)),
            differences: order
                .iter()
                .map(|&row| {
                    order.iter().map(|&column| pair(row, column).map_or(0.0, |pair| pair.difference.value)).collect()
                })
                .collect(),
            significant: order
                .iter()
                .map(|&row| {
                    order
                        .iter()
                        .map(|&column| pair(row, column).is_some_and(|pair| pair.p_holm < analysis.alpha))
                        .collect()
                })
                .collect(),
        }
    }
}
