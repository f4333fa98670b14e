//! Intervals by resampling.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{check_sample, check_share};
use crate::{Error, ErrorKind, Result};

/// A value and the interval that holds the true one with the stated confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The estimate itself.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Share of such intervals that hold the truth, as far as the method's assumptions go.
    pub confidence: f64,
}

/// The mean of `values` with the percentile interval of `resamples` bootstrap means (Efron 1979). The same seed gives the same
/// interval on every machine. With few values, below about 15, such intervals are too short.
///
/// # Errors
/// `Value` for an empty sample, values that are no numbers, a confidence outside 0 to 1 or no resamples.
pub fn bootstrap_mean(values: &[f64], confidence: f64, resamples: usize, seed: u64) -> Result<Interval> {
    check_sample("values", values)?;
    check_share("confidence", confidence)?;
    if resamples == 0 {
        return Err(Error::new(ErrorKind::Value, "resamples: expected at least 1, found 0".into()));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n = values.len();
    let mut means: Vec<f64> =
        (0..resamples).map(|_| (0..n).map(|_| values[rng.random_range(0..n)]).sum::<f64>() / n as f64).collect();
    means.sort_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    Ok(Interval {
        value: values.iter().sum::<f64>() / n as f64,
        low: quantile(&means, tail),
        high: quantile(&means, 1.0 - tail),
        confidence,
    })
}

/// A quantile of sorted values, interpolated as NumPy does.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (below, part) = (at.floor() as usize, at.fract());
    let above = sorted[(below + 1).min(sorted.len() - 1)];
    sorted[below] + (above - sorted[below]) * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[5.0], 0.975), 5.0);
    }

    #[test]
    fn the_interval_is_that_of_a_normal_mean() {
        // Mean 0 and deviation 1, evenly spread; the mean's standard error is 1 / 20.
        let values: Vec<f64> = (0..400).map(|at| (at as f64 - 199.5) / 115.47).collect();
        let found = bootstrap_mean(&values, 0.95, 4000, 7).unwrap();
        assert!(found.value.abs() < 1e-12);
        assert!((found.low + 0.098).abs() < 0.006 && (found.high - 0.098).abs() < 0.006, "{found:?}");
        assert_eq!(found, bootstrap_mean(&values, 0.95, 4000, 7).unwrap());
    }

    #[test]
    fn nothing_to_resample_is_an_error() {
        assert!(bootstrap_mean(&[], 0.95, 10, 0).is_err());
        assert!(bootstrap_mean(&[f64::NAN], 0.95, 10, 0).is_err());
        assert!(bootstrap_mean(&[1.0], 1.0, 10, 0).is_err());
        assert!(bootstrap_mean(&[1.0], 0.95, 0, 0).is_err());
    }
}
