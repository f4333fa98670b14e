//! What a metric is over many images.

use crate::Result;
use crate::statistics::{Interval, bootstrap_mean};

/// Settings of [`summarize`].
#[derive(Clone, Debug, PartialEq)]
pub struct SummaryOptions {
    /// Probability that the interval is meant to hold the true mean with, between 0 and 1.
    pub confidence: f64,
    /// Bootstrap samples of as many images.
    pub resamples: usize,
    /// Seed of the random numbers; the same values and seed give the same interval.
    pub seed: u64,
}

impl Default for SummaryOptions {
    /// 95 %, 9999 resamples (scipy's number), seed 0.
    fn default() -> Self {
        Self { confidence: 0.95, resamples: 9999, seed: 0 }
    }
}

/// A metric over images.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Images with a value; NaN values are left out of everything.
    pub images: usize,
    /// Plain mean over images, NaN without one.
    pub mean: f64,
    /// Median, of an even number the mean of the middle two; NaN without a value.
    pub median: f64,
    /// Percentile bootstrap interval of the mean, images resampled; `None` for fewer than two values, which do not show how they
    /// spread.
    pub interval: Option<Interval>,
}

/// Mean, median and the mean's confidence interval of one metric, a value for each image.
///
/// # Errors
/// `Value` when a setting is out of range or a value is infinite.
pub fn summarize(values: &[f64], options: &SummaryOptions) -> Result<Summary> {
    let mut values: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    let images = values.len();
    let interval = if images < 2 {
        None
    } else {
        Some(bootstrap_mean(&values, options.confidence, options.resamples, options.seed)?)
    };
    let mean = values.iter().sum::<f64>() / images as f64;
    values.sort_unstable_by(f64::total_cmp);
    let median = match images {
        0 => f64::NAN,
        _ => f64::midpoint(values[(images - 1) / 2], values[images / 2]),
    };
    Ok(Summary { images, mean, median, interval })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undefined_images_are_left_out() {
        let options = SummaryOptions::default();
        let summary = summarize(&[0.5, f64::NAN, 0.75, 1.0, 0.0], &options).unwrap();
        assert_eq!((summary.images, summary.mean, summary.median), (4, 0.5625, 0.625));
        let interval = summary.interval.unwrap();
        assert!(interval.low < summary.mean && summary.mean < interval.high, "{interval:?}");
        assert_eq!(summarize(&[0.5, 0.25, 1.0], &options).unwrap().median, 0.5);
    }

    #[test]
    fn one_image_shows_no_spread() {
        let options = SummaryOptions::default();
        assert_eq!(summarize(&[0.5], &options).unwrap().interval, None);
        assert!(summarize(&[], &options).unwrap().mean.is_nan());
    }
}
