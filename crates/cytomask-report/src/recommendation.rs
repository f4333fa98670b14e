//! What to use, in words, and how sure that is.

use std::fmt::Write as _;

use serde::Serialize;

use crate::analysis::{MethodSummary, PairAnalysis, order, pair_of};
use crate::{Metric, label, tables::p_text};

/// The fewest images with which Wilcoxon's two-sided test, corrected for `pairs` comparisons, can fall below `alpha`: if all
/// differences have one sign, p is 2 in 2 to the power of the images.
fn fewest_images(pairs: usize, alpha: f64) -> usize {
    let reaches = |images: &usize| pairs as f64 * 0.5_f64.powi(*images as i32 - 1) < alpha;
    (1..1000).find(reaches).unwrap_or(1000)
}

/// A best score below this helps nobody.
const POOR: f64 = 0.3;

/// How sure a recommendation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// Better than every other method at a tenth of the level, after correction.
    Sure,
    /// Better than every other method at the level, after correction.
    FairlySure,
    /// At least one other method may be as good, or is better on most images although its mean is lower.
    Undecided,
    /// Too few images for any test.
    TooFewImages,
    /// There is only one method.
    NothingToCompare,
}

impl Certainty {
    /// In a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sure => "sure",
            Self::FairlySure => "fairly sure",
            Self::Undecided => "undecided",
            Self::TooFewImages => "too few images",
            Self::NothingToCompare => "one method only",
        }
    }
}

/// What to use.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recommendation {
    /// Index of the method with the best mean.
    pub method: usize,
    /// Indices of methods that may be as good.
    pub as_good: Vec<usize>,
    /// How sure.
    pub certainty: Certainty,
    /// A short sentence to act on.
    pub headline: String,
    /// The evidence.
    pub text: String,
}

impl Recommendation {
    pub(crate) fn of(
        metric: Metric,
        alpha: f64,
        images: usize,
        methods: &[MethodSummary],
        pairs: &[PairAnalysis],
    ) -> Self {
        let order = order(methods);
        let best = order[0];
        let name = |at: usize| methods[at].method.as_str();
        let against = |other: usize| pair_of(pairs, best, other);
        let disagrees = |pair: &PairAnalysis| pair.p_holm < alpha && pair.rank_biserial <= 0.0;
        let better =
            |pair: PairAnalysis| pair.p_holm < alpha && pair.difference.value > 0.0 && pair.rank_biserial > 0.0;
        let as_good: Vec<usize> =
            order[1..].iter().copied().filter(|&other| !against(other).is_some_and(better)).collect();
        let opposed = as_good.iter().filter_map(|&other| against(other)).find(disagrees);
        let weakest = order[1..].iter().filter_map(|&other| against(other)).map(|pair| pair.p_holm).fold(0.0, f64::max);
        let certainty = match () {
            () if methods.len() == 1 => Certainty::NothingToCompare,
            () if images < fewest_images(pairs.len(), alpha) => Certainty::TooFewImages,
            () if !as_good.is_empty() => Certainty::Undecided,
            () if weakest < alpha / 10.0 => Certainty::Sure,
            () => Certainty::FairlySure,
        };

        let mut text = String::new();
        let summary = &methods[best];
        if methods.len() > 1 {
            let _ = write!(text, "{} has the highest mean {}", name(best), label(metric));
            let _ =
                write!(text, ", {:.3}, and is best on {} of {images} images. ", summary.mean.value, summary.best_on);
        } else {
            let _ = write!(text, "Mean {} {:.3} over {images} images. ", label(metric), summary.mean.value);
        }
        for &other in order[1..].iter().take(3) {
            let Some(pair) = against(other) else { continue };
            let range = pair.difference;
            let verdict = match () {
                () if disagrees(&pair) => {
                    format!("but on {} images {} is better, which is significant", pair.second_better, name(other))
                }
                () if pair.p_holm < alpha => "significant".to_owned(),
                () => "not significant".to_owned(),
            };
            let _ = write!(
                text,
                "The difference to {} is {:.3} [{:.3}, {:.3}], {verdict} ({}). ",
                name(other),
                range.value,
                range.low,
                range.high,
                p_text(pair.p_holm)
            );
        }
        if order.len() > 4 {
            let _ = write!(text, "The other {} methods score lower. ", order.len() - 4);
        }
        let headline = headline(certainty, best, &as_good, opposed.as_ref(), methods);
        if let Some(fastest) = fastest(&as_good, best, methods) {
            let (slow, fast) = (methods[best].median_seconds, methods[fastest].median_seconds);
            let times = slow.unwrap_or_default() / fast.unwrap_or(1.0);
            let _ = write!(text, "{} is {times:.1}× faster. ", name(fastest));
        }
        match certainty {
            Certainty::TooFewImages => {
                let _ = write!(
                    text,
                    "With fewer than {} images no test can tell {} methods apart: take more before deciding anything that \
                     matters. ",
                    fewest_images(pairs.len(), alpha),
                    methods.len()
                );
            }
            Certainty::Undecided if opposed.is_some() => {
                text.push_str("A few images decide the mean: look at those on which the two differ most. ");
            }
            Certainty::Undecided => text.push_str("More images could decide between them. "),
            Certainty::Sure | Certainty::FairlySure | Certainty::NothingToCompare => {}
        }
        if summary.mean.value < POOR {
            let _ = write!(
                text,
                "Mind that no method does well here (best mean {} {:.3}): another model, another scale or training on a \
                 few of these images may gain far more than the choice among these. ",
                label(metric),
                summary.mean.value
            );
        }
        Self { method: best, as_good, certainty, headline, text: text.trim_end().to_owned() }
    }
}

/// The fastest of methods as good as the best, if it takes less than nine tenths of the best's time.
fn fastest(as_good: &[usize], best: usize, methods: &[MethodSummary]) -> Option<usize> {
    let seconds = |at: usize| methods[at].median_seconds;
    let limit = seconds(best)? * 0.9;
    let candidates = as_good.iter().copied().filter(|&at| seconds(at).is_some_and(|own| own > 0.0 && own < limit));
    candidates.min_by(|&a, &b| seconds(a).unwrap_or_default().total_cmp(&seconds(b).unwrap_or_default()))
}

/// `opposed` is the best method against one that has a lower mean and yet is significantly better by the test, which goes by ranks.
fn headline(
    certainty: Certainty,
    best: usize,
    as_good: &[usize],
    opposed: Option<&PairAnalysis>,
    methods: &[MethodSummary],
) -> String {
    let name = |at: usize| methods[at].method.as_str();
    match certainty {
        Certainty::NothingToCompare => format!("Only {} was scored: there is nothing to compare.", name(best)),
        Certainty::TooFewImages => format!("{} looks best, but there are too few images to be sure.", name(best)),
        Certainty::Sure => format!("Use {}: it is better than all others here, and that is sure.", name(best)),
        Certainty::FairlySure => format!("Use {}: it is better than all others here, fairly surely.", name(best)),
        Certainty::Undecided => {
            let others: Vec<&str> = as_good.iter().map(|&at| name(at)).collect();
            let others = match others.split_last() {
                Some((last, [])) => (*last).to_owned(),
                Some((last, before)) => format!("{} or {last}", before.join(", ")),
                None => String::new(),
            };
            let hint = fastest(as_good, best, methods)
                .map_or(String::new(), |at| format!(" {} is the faster choice.", name(at)));
            let why = opposed.map_or("the images do not tell them apart".to_owned(), |pair| {
                let most = if pair.second_better > pair.first_better { "more images" } else { "the typical image" };
                format!("{} has the higher mean, {} is better on {most}", name(best), name(pair.second))
            });
            format!("Use {} or {others}: {why}.{hint}", name(best))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_comparisons_need_more_images() {
        assert_eq!([1, 3, 6].map(|pairs| fewest_images(pairs, 0.05)), [6, 7, 8]);
        assert_eq!(fewest_images(1, 0.01), 8);
    }
}
