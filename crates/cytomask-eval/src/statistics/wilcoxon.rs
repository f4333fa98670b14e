//! Wilcoxon's signed-rank test of paired scores, as `scipy.stats.wilcoxon` computes it.

use super::check_sample;
use super::distributions::normal_cdf;
use super::rank::{ranks_and_ties, tie_term};
use crate::{Error, ErrorKind, Result};

/// What is tested against "the differences are symmetric around 0".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alternative {
    /// They lie to one side, either one.
    #[default]
    TwoSided,
    /// They tend to be positive.
    Greater,
    /// They tend to be negative.
    Less,
}

/// What becomes of differences of exactly 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroMethod {
    /// They are left out before ranking (Wilcoxon; scipy "wilcox").
    #[default]
    LeaveOut,
    /// They are ranked and their ranks left out (Pratt 1959; scipy "pratt").
    Pratt,
    /// Half of their ranks counts as positive, half as negative (scipy "zsplit").
    Split,
}

/// The distribution of the statistic when there is no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NullDistribution {
    /// `Exact` up to 50 differences without ties and zeros; with them `SignFlips` up to 13; else `Normal`. As scipy.
    #[default]
    Auto,
    /// That of distinct ranks. With ties or zeros only nearly right; half ranks are rounded towards a larger p.
    Exact,
    /// All ways to give signs to the ranks at hand; right with ties and zeros.
    SignFlips,
    /// The normal approximation, its variance corrected for ties.
    Normal,
}

/// How [`wilcoxon`] tests. The defaults are scipy's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WilcoxonOptions {
    /// What is tested.
    pub alternative: Alternative,
    /// Differences of 0.
    pub zeros: ZeroMethod,
    /// Where the p-value is read.
    pub null: NullDistribution,
    /// Moves the statistic half a rank towards the middle in the normal approximation.
    pub continuity_correction: bool,
}

/// Outcome of Wilcoxon's test.
#[derive(Clone, Debug, PartialEq)]
pub struct Wilcoxon {
    /// Sum of the ranks of positive differences.
    pub rank_sum_positive: f64,
    /// Sum of the ranks of negative differences.
    pub rank_sum_negative: f64,
    /// The smaller rank sum if two-sided, else that of the positive ones.
    pub statistic: f64,
    /// Distance from the expected rank sum in standard errors; with the normal approximation only. Negative if two-sided.
    pub z: Option<f64>,
    /// The p-value.
    pub p: f64,
    /// Differences given.
    pub differences: usize,
    /// Those that are exactly 0.
    pub zeros: usize,
    /// Whether some of the ranked differences are equally large.
    pub ties: bool,
    /// The distribution used, never `Auto`.
    pub null: NullDistribution,
    /// All differences are 0: nothing was tested, and p is 1 by definition (decision 0013).
    pub all_zero: bool,
}

/// Largest sample whose null distribution is counted out; beyond it the normal approximation is right to many digits.
const LARGEST_EXACT: usize = 1000;

/// Wilcoxon's signed-rank test of paired differences.
///
/// # Errors
/// `Value` for no differences, values that are no numbers, or more than 1000 of them where an exact distribution is asked for.
pub fn wilcoxon(differences: &[f64], options: &WilcoxonOptions) -> Result<Wilcoxon> {
    check_sample("differences", differences)?;
    let zeros = differences.iter().filter(|&&difference| difference == 0.0).count();
    let kept: Vec<f64> = match options.zeros {
        ZeroMethod::LeaveOut => differences.iter().copied().filter(|&difference| difference != 0.0).collect(),
        ZeroMethod::Pratt | ZeroMethod::Split => differences.to_vec(),
    };
    let sizes: Vec<f64> = kept.iter().map(|difference| difference.abs()).collect();
    let (ranks, mut groups) = ranks_and_ties(&sizes);
    let ties = groups.iter().any(|&size| size > 1);
    let sum = |of: fn(f64) -> bool| -> f64 {
        kept.iter().zip(&ranks).filter(|(difference, _)| of(**difference)).map(|(_, rank)| rank).sum()
    };
    let (mut positive, mut negative, at_zero) = (sum(|d| d > 0.0), sum(|d| d < 0.0), sum(|d| d == 0.0));
    if options.zeros == ZeroMethod::Split {
        positive += at_zero / 2.0;
        negative += at_zero / 2.0;
    }
    let null = match options.null {
        NullDistribution::Auto if differences.len() > 50 => NullDistribution::Normal,
        NullDistribution::Auto if !ties && zeros == 0 => NullDistribution::Exact,
        NullDistribution::Auto if differences.len() <= 13 => NullDistribution::SignFlips,
        NullDistribution::Auto => NullDistribution::Normal,
        chosen => chosen,
    };
    if null != NullDistribution::Normal && kept.len() > LARGEST_EXACT {
        let message = format!("differences: expected at most {LARGEST_EXACT} for an exact test, found {}", kept.len());
        return Err(Error::new(ErrorKind::Value, message));
    }
    let all_zero = zeros == differences.len();
    let (z, p) = match null {
        _ if all_zero => (None, 1.0),
        NullDistribution::Exact => {
            let steps: Vec<usize> = (1..=kept.len()).map(|rank| 2 * rank).collect();
            // On a grid of whole ranks a half one belongs to the smaller tail's inner neighbour.
            (None, tail(&steps, 2.0 * positive.floor(), 2.0 * positive.ceil(), options.alternative))
        }
        NullDistribution::SignFlips => {
            let ranked = kept.iter().zip(&ranks).filter(|(difference, _)| **difference != 0.0);
            let steps: Vec<usize> = ranked.map(|(_, rank)| (2.0 * rank) as usize).collect();
            // The halves of the zeros' ranks are on either side whatever the signs; they may be quarters of two.
            let fixed = if options.zeros == ZeroMethod::Split { at_zero / 2.0 } else { 0.0 };
            let moved = (2.0 * (positive - fixed)).round();
            (None, tail(&steps, moved, moved, options.alternative))
        }
        NullDistribution::Normal | NullDistribution::Auto => {
            let triple = |n: f64| n * (n + 1.0) * (2.0 * n + 1.0);
            let n = kept.len() as f64;
            let (mut mean, mut variance) = (n * (n + 1.0) / 4.0, triple(n));
            if options.zeros == ZeroMethod::Pratt && zeros > 0 {
                // Cureton 1967: the zeros' ranks vary no more, nor do their ties.
                mean -= zeros as f64 * (zeros as f64 + 1.0) / 4.0;
                variance -= triple(zeros as f64);
                groups.remove(0);
            }
            let error = ((variance - tie_term(&groups) / 2.0) / 24.0).sqrt();
            let z = (positive - mean) / error;
            let towards = match options.alternative {
                Alternative::Greater => 1.0,
                Alternative::Less => -1.0,
                Alternative::TwoSided if z == 0.0 => 0.0,
                Alternative::TwoSided => z.signum(),
            };
            let z = if options.continuity_correction { z - towards * 0.5 / error } else { z };
            match options.alternative {
                Alternative::Greater => (Some(z), normal_cdf(-z)),
                Alternative::Less => (Some(z), normal_cdf(z)),
                Alternative::TwoSided => (Some(-z.abs()), 2.0 * normal_cdf(-z.abs())),
            }
        }
    };
    let statistic = if options.alternative == Alternative::TwoSided { positive.min(negative) } else { positive };
    Ok(Wilcoxon {
        rank_sum_positive: positive,
        rank_sum_negative: negative,
        statistic,
        z,
        p,
        differences: differences.len(),
        zeros,
        ties,
        null,
        all_zero,
    })
}

/// The p-value of a sum to which each of `steps` belongs with probability one half: at least `greater` or at most `less`.
fn tail(steps: &[usize], greater: f64, less: f64, alternative: Alternative) -> f64 {
    let mass = signed_rank_masses(steps);
    let at_least: f64 = mass.iter().skip(greater as usize).sum();
    let at_most: f64 = mass.iter().take(less as usize + 1).sum();
    match alternative {
        Alternative::Greater => at_least.min(1.0),
        Alternative::Less => at_most.min(1.0),
        Alternative::TwoSided => (2.0 * at_least.min(at_most)).min(1.0),
    }
}

/// Probability of each sum, from 0, of a random half of `steps`.
pub(super) fn signed_rank_masses(steps: &[usize]) -> Vec<f64> {
    let total: usize = steps.iter().sum();
    let mut mass = vec![0.0; total + 1];
    mass[0] = 1.0;
    let mut reached = 0;
    for &step in steps {
        reached += step;
        for sum in (0..=reached).rev() {
            let with = if sum >= step { mass[sum - step] } else { 0.0 };
            mass[sum] = 0.5 * (mass[sum] + with);
        }
    }
    mass
}

/// What one method is against another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Better.
    Win,
    /// Worse.
    Loss,
    /// Not told apart.
    Neutral,
}

/// The paper's comparison of two methods.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedOutcome {
    /// Win, loss or neither.
    pub outcome: Outcome,
    /// One-sided p-value in the direction of the summed difference.
    pub p: f64,
}

/// The rule of the APG paper: Wilcoxon's test, one-sided in the direction of the summed difference; a win or loss when p is below
/// `alpha` (0.05 there), with no correction for many comparisons. Looking at the sign first doubles the stated error rate.
///
/// # Errors
/// As [`wilcoxon`].
pub fn paired_outcome(differences: &[f64], alpha: f64) -> Result<PairedOutcome> {
    let better = differences.iter().sum::<f64>() > 0.0;
    let alternative = if better { Alternative::Greater } else { Alternative::Less };
    let p = wilcoxon(differences, &WilcoxonOptions { alternative, ..WilcoxonOptions::default() })?.p;
    let outcome = match (p < alpha, better) {
        (false, _) => Outcome::Neutral,
        (true, true) => Outcome::Win,
        (true, false) => Outcome::Loss,
    };
    Ok(PairedOutcome { outcome, p })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All sign flips one by one.
    fn slow_p(differences: &[f64], alternative: Alternative) -> f64 {
        let kept: Vec<f64> = differences.iter().copied().filter(|difference| *difference != 0.0).collect();
        let ranks = crate::statistics::ascending_ranks(&kept.iter().map(|value| value.abs()).collect::<Vec<_>>());
        let sum = |signs: usize| -> f64 {
            ranks.iter().enumerate().filter(|(at, _)| signs >> at & 1 == 1).map(|(_, rank)| rank).sum()
        };
        let observed: f64 = kept.iter().zip(&ranks).filter(|(value, _)| **value > 0.0).map(|(_, rank)| rank).sum();
        let all = 1_usize << kept.len();
        let share = |of: &dyn Fn(f64) -> bool| (0..all).filter(|&signs| of(sum(signs))).count() as f64 / all as f64;
        let (greater, less) = (share(&|sum| sum >= observed), share(&|sum| sum <= observed));
        match alternative {
            Alternative::Greater => greater,
            Alternative::Less => less,
            Alternative::TwoSided => (2.0 * greater.min(less)).min(1.0),
        }
    }

    #[test]
    fn counting_sums_equals_trying_all_signs() {
        let samples: [&[f64]; 5] = [
            &[0.5],
            &[-0.5, 0.25],
            &[0.1, 0.1, -0.1, 0.3, 0.0, 0.7, -0.7, 0.2],
            &[0.3, -0.2, 0.9, 0.8, -0.1, 0.6, 0.75],
            &[-1.0, -1.0, -1.0, -2.0, 0.0, 0.0, 1.0, 3.0, 3.5, 4.0],
        ];
        for sample in samples {
            for alternative in [Alternative::TwoSided, Alternative::Greater, Alternative::Less] {
                let options =
                    WilcoxonOptions { alternative, null: NullDistribution::SignFlips, ..WilcoxonOptions::default() };
                let (found, expected) = (wilcoxon(sample, &options).unwrap().p, slow_p(sample, alternative));
                assert!((found - expected).abs() < 1e-14, "{sample:?} {alternative:?}: {found} {expected}");
            }
        }
    }

    #[test]
    fn the_paper_takes_the_direction_from_the_sum() {
        let up = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        assert_eq!(paired_outcome(&up, 0.05).unwrap(), PairedOutcome { outcome: Outcome::Win, p: 1.0 / 64.0 });
        let down = up.map(|value| -value);
        assert_eq!(paired_outcome(&down, 0.05).unwrap().outcome, Outcome::Loss);
        assert_eq!(paired_outcome(&up[..4], 0.05).unwrap().outcome, Outcome::Neutral);
        assert_eq!(paired_outcome(&[0.0; 20], 0.05).unwrap(), PairedOutcome { outcome: Outcome::Neutral, p: 1.0 });
    }

    #[test]
    fn nothing_and_no_numbers_are_errors() {
        let options = WilcoxonOptions::default();
        assert!(wilcoxon(&[], &options).is_err());
        assert!(wilcoxon(&[0.1, f64::NAN], &options).unwrap_err().to_string().contains("index 1"));
        let exact = WilcoxonOptions { null: NullDistribution::Exact, ..options };
        assert!(wilcoxon(&vec![0.1; 1001], &exact).unwrap_err().to_string().contains("1001"));
    }
}
