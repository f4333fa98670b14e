//! How large a difference is.

use super::bootstrap::Interval;
use super::distributions::normal_quantile;
use super::rank::ascending_ranks;
use super::wilcoxon::signed_rank_masses;
use super::{check_sample, check_share};
use crate::Result;

/// Matched-pairs rank-biserial correlation (Kerby 2014): the share of rank sum for positive differences less that for negative
/// ones, from −1 to 1. Zeros are left out; 0 when nothing is left.
///
/// # Errors
/// `Value` for no differences or values that are no numbers.
pub fn rank_biserial(differences: &[f64]) -> Result<f64> {
    check_sample("differences", differences)?;
    let kept: Vec<f64> = differences.iter().copied().filter(|&difference| difference != 0.0).collect();
    let ranks = ascending_ranks(&kept.iter().map(|difference| difference.abs()).collect::<Vec<_>>());
    let all: f64 = ranks.iter().sum();
    let signed: f64 = kept.iter().zip(&ranks).map(|(difference, rank)| difference.signum() * rank).sum();
    Ok(if kept.is_empty() { 0.0 } else { signed / all })
}

/// Cliff's delta: the chance that a value of `a` exceeds one of `b` less the chance that it falls below, from −1 to 1. It takes no
/// notice of which values belong to the same image.
///
/// # Errors
/// As [`rank_biserial`].
pub fn cliffs_delta(a: &[f64], b: &[f64]) -> Result<f64> {
    check_sample("a", a)?;
    check_sample("b", b)?;
    let mut sorted = b.to_vec();
    sorted.sort_by(f64::total_cmp);
    let balance: i64 = a
        .iter()
        .map(|&value| {
            let below = sorted.partition_point(|&other| other < value) as i64;
            let not_above = sorted.partition_point(|&other| other <= value) as i64;
            below - (sorted.len() as i64 - not_above)
        })
        .sum();
    Ok(balance as f64 / (a.len() as f64 * b.len() as f64))
}

/// Largest sample whose interval is counted out.
const LARGEST_EXACT: usize = 100;

/// The Hodges–Lehmann difference: the median of the means of all pairs of differences (each with itself too), with the interval
/// that belongs to Wilcoxon's test (Hollander & Wolfe, section 3.3). Its confidence is at least the stated one where the sample
/// suffices; below 6 differences and 0.95 it does not, and the interval is all of the range.
///
/// # Errors
/// `Value` for no differences, values that are no numbers or a confidence outside 0 to 1.
pub fn hodges_lehmann(differences: &[f64], confidence: f64) -> Result<Interval> {
    check_sample("differences", differences)?;
    check_share("confidence", confidence)?;
    let mut sorted: Vec<f64> = differences.iter().map(|value| value + 0.0).collect();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let means = n as u64 * (n as u64 + 1) / 2;
    let value = f64::midpoint(nth_mean(&sorted, means.div_ceil(2)), nth_mean(&sorted, means / 2 + 1));
    let tail = (1.0 - confidence) / 2.0;
    let left_out = if n <= LARGEST_EXACT {
        let steps: Vec<usize> = (1..=n).collect();
        let mut below = 0.0;
        signed_rank_masses(&steps)
            .iter()
            .take_while(|&&mass| {
                below += mass;
                below <= tail
            })
            .count() as u64
    } else {
        let n = n as f64;
        let error = (n * (n + 1.0) * (2.0 * n + 1.0) / 24.0).sqrt();
        (n * (n + 1.0) / 4.0 + normal_quantile(tail) * error).max(0.0) as u64
    };
    // A statistic of at most `left_out - 1` is rejected, so the first kept mean has that many below it.
    let first = left_out.clamp(1, means);
    Ok(Interval { value, low: nth_mean(&sorted, first), high: nth_mean(&sorted, means + 1 - first), confidence })
}

/// The `rank`-th (from 1) of the means of all pairs of `sorted`, found without writing all of them down: how many are at most `t`
/// takes one pass, and `t` is halved in on the order of the floats.
fn nth_mean(sorted: &[f64], rank: u64) -> f64 {
    let at_most = |t: f64| -> u64 {
        let mut end = sorted.len();
        let mut count = 0;
        for (start, &low) in sorted.iter().enumerate() {
            while end > start && f64::midpoint(low, sorted[end - 1]) > t {
                end -= 1;
            }
            count += end.saturating_sub(start) as u64;
        }
        count
    };
    let (mut low, mut high) = (order(sorted[0]), order(sorted[sorted.len() - 1]));
    while low < high {
        let middle = low + (high.abs_diff(low) / 2) as i64;
        if at_most(float(middle)) >= rank {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    float(high)
}

/// Whole numbers in the order of the floats they stand for.
fn order(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    if bits < 0 { i64::MIN - bits } else { bits }
}

fn float(order: i64) -> f64 {
    f64::from_bits(if order < 0 { i64::MIN - order } else { order } as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_means(values: &[f64]) -> Vec<f64> {
        let mut means: Vec<f64> =
            (0..values.len()).flat_map(|b| (0..=b).map(move |a| f64::midpoint(values[a], values[b]))).collect();
        means.sort_by(f64::total_cmp);
        means
    }

    #[test]
    fn the_nth_mean_is_that_of_the_written_out_list() {
        let values = [-0.31, -0.2, -0.2, 0.0, 0.05, 0.05, 0.4, 0.77, 1.5];
        for (index, expected) in all_means(&values).into_iter().enumerate() {
            assert_eq!(nth_mean(&values, index as u64 + 1), expected, "{index}");
        }
    }

    #[test]
    fn orders_of_floats_go_there_and_back() {
        let values = [f64::MIN, -1.5, -1e-300, 0.0, 1e-300, 2.0, f64::MAX];
        assert!(values.windows(2).all(|pair| order(pair[0]) < order(pair[1])));
        assert!(values.iter().all(|&value| float(order(value)) == value));
    }

    #[test]
    fn effects_by_hand() {
        // Ranks 1, 2, 3.5, 3.5 of which 2 is negative.
        assert_eq!(rank_biserial(&[0.1, -0.2, 0.3, 0.3, 0.0]).unwrap(), 0.6);
        assert_eq!(rank_biserial(&[0.0, 0.0]).unwrap(), 0.0);
        assert_eq!(cliffs_delta(&[1.0, 2.0, 3.0], &[2.0, 2.0]).unwrap(), 0.0);
        assert_eq!(cliffs_delta(&[5.0, 6.0], &[1.0, 6.0]).unwrap(), 0.25);
        let found = hodges_lehmann(&[1.0, 2.0, 6.0], 0.95).unwrap();
        assert_eq!((found.value, found.low, found.high), (2.75, 1.0, 6.0));
        // Six differences: one sum in 64 is lower than 1, so 1/32 is left out and the ends are the extremes.
        let found = hodges_lehmann(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 0.95).unwrap();
        assert_eq!((found.value, found.low, found.high), (3.5, 1.0, 6.0));
    }
}
