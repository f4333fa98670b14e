//! Is the difference between two methods real? Pure functions of paired scores.
//!
//! The tests compare methods that scored the same images: [`wilcoxon`] two of them, [`friedman`] any number, with
//! [`critical_difference`] for what may be told apart afterwards; [`holm`] and [`benjamini_hochberg`] pay for having asked many
//! questions. P-values equal those of `scipy.stats` (decision 0013 says where they do not exist there). How large a difference is,
//! say [`rank_biserial`], [`cliffs_delta`], [`hodges_lehmann`] and [`bootstrap_mean`]. Following Demšar, JMLR 7, 2006.
//!
//! ```
//! use cytomask_eval::statistics::{Outcome, WilcoxonOptions, paired_outcome, wilcoxon};
//!
//! let differences = [0.10, 0.02, 0.07, -0.01, 0.05, 0.08];
//! let test = wilcoxon(&differences, &WilcoxonOptions::default())?;
//! assert_eq!((test.rank_sum_positive, test.p), (20.0, 0.0625));
//! assert_eq!(paired_outcome(&differences, 0.05)?.outcome, Outcome::Win);
//! # Ok::<(), cytomask_eval::Error>(())
//! ```

mod bootstrap;
mod corrections;
mod distributions;
mod effect;
mod friedman;
mod rank;
mod wilcoxon;

pub use bootstrap::{Interval, bootstrap_mean};
pub use corrections::{benjamini_hochberg, holm};
pub use distributions::{
    chi_squared_sf, normal_cdf, normal_quantile, studentized_range_quantile, studentized_range_sf,
};
pub use effect::{cliffs_delta, hodges_lehmann, rank_biserial};
pub use friedman::{Friedman, average_ranks, cliques, critical_difference, friedman, nemenyi_p};
pub use rank::ascending_ranks;
pub use wilcoxon::{
    Alternative, NullDistribution, Outcome, PairedOutcome, Wilcoxon, WilcoxonOptions, ZeroMethod, paired_outcome,
    wilcoxon,
};

use crate::{Error, ErrorKind, Result};

/// Refuses an empty sample and values that are no numbers.
fn check_sample(name: &str, values: &[f64]) -> Result<()> {
    if values.is_empty() {
        return Err(Error::new(ErrorKind::Value, format!("{name}: expected at least one value, found none")));
    }
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let message = format!("{name}: expected finite numbers, found {} at index {at}", values[at]);
            Err(Error::new(ErrorKind::Value, message))
        }
    }
}

/// Refuses shares outside the open interval from 0 to 1.
fn check_share(name: &str, value: f64) -> Result<()> {
    if value > 0.0 && value < 1.0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Value, format!("{name}: expected a number between 0 and 1, found {value}")))
}
