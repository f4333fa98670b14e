//! Which method is best, by how much, and whether that is chance.

use cytomask_eval::statistics::{
    Friedman, Interval, Outcome, WilcoxonOptions, benjamini_hochberg, bootstrap_mean, cliffs_delta, cliques,
    critical_difference, friedman, hodges_lehmann, holm, paired_outcome, rank_biserial, wilcoxon,
};
use serde::Serialize;

use crate::recommendation::Recommendation;
use crate::{Comparison, Metric, Result};

/// Confidence of all intervals.
pub(crate) const CONFIDENCE: f64 = 0.95;

/// Bootstrap resamples: ends of intervals repeat to about a hundredth of their width.
const RESAMPLES: usize = 10_000;

/// The bootstrap's seed: the same scores give the same report.
const SEED: u64 = 0;

/// A value with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Range {
    /// The estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl From<Interval> for Range {
    fn from(interval: Interval) -> Self {
        Self { value: interval.value, low: interval.low, high: interval.high }
    }
}

/// One method over all images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MethodSummary {
    /// Its name.
    pub method: String,
    /// Mean of the metric, with a bootstrap interval over images.
    pub mean: Range,
    /// Median of the metric.
    pub median: f64,
    /// Mean segmentation accuracy, averaged over images.
    pub msa: f64,
    /// At IoU 0.5, averaged.
    pub sa50: f64,
    /// At IoU 0.75, averaged.
    pub sa75: f64,
    /// F1 at IoU 0.5, averaged.
    pub f1: f64,
    /// Panoptic quality at IoU 0.5, averaged.
    pub panoptic_quality: f64,
    /// Accuracy at each threshold, averaged.
    pub per_threshold: Vec<f64>,
    /// Mean rank over images; 1 is best.
    pub average_rank: f64,
    /// Images on which no method is better and not all are equal.
    pub best_on: usize,
    /// Objects found at IoU 0.5, in all images.
    pub true_positives: usize,
    /// Predicted objects that are none.
    pub false_positives: usize,
    /// True objects that were missed.
    pub false_negatives: usize,
    /// Median seconds an image, where known for all.
    pub median_seconds: Option<f64>,
    /// Seconds over all images, where known for all.
    pub total_seconds: Option<f64>,
}

/// Two methods over all images; differences are the first's score less the second's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairAnalysis {
    /// Index of the first.
    pub first: usize,
    /// Index of the second.
    pub second: usize,
    /// Mean difference, with a bootstrap interval over images.
    pub difference: Range,
    /// Hodges–Lehmann difference, with the interval of Wilcoxon's test.
    pub typical_difference: Range,
    /// Matched-pairs rank-biserial correlation, −1 to 1.
    pub rank_biserial: f64,
    /// Cliff's delta, −1 to 1.
    pub cliffs_delta: f64,
    /// Wilcoxon's signed-rank test, two-sided.
    pub p: f64,
    /// After Holm's correction for all pairs.
    pub p_holm: f64,
    /// After Benjamini and Hochberg's correction.
    pub p_benjamini_hochberg: f64,
    /// Images on which the first is better.
    pub first_better: usize,
    /// Images on which the second is better.
    pub second_better: usize,
    /// Images on which they are equal.
    pub equal: usize,
    /// "win", "loss" or "neutral" for the first by the paper's rule (one-sided, uncorrected).
    pub paper_outcome: &'static str,
    /// The paper's one-sided p-value.
    pub paper_p: f64,
}

/// One group of images by itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupAnalysis {
    /// Its name.
    pub group: String,
    /// Its images.
    pub images: usize,
    /// Mean of the metric, one a method.
    pub means: Vec<f64>,
    /// What to use for it.
    pub recommendation: Recommendation,
}

/// Everything a report says about the scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Analysis {
    /// What methods are compared by.
    #[serde(serialize_with = "name_of")]
    pub metric: Metric,
    /// Level of the tests.
    pub alpha: f64,
    /// Images compared.
    pub images: usize,
    /// In the order of the comparison's methods.
    pub methods: Vec<MethodSummary>,
    /// Every pair once.
    pub pairs: Vec<PairAnalysis>,
    /// Friedman's statistic and p-value, from two methods on.
    pub friedman: Option<FriedmanSummary>,
    /// Images on which all methods have the same score.
    pub all_equal_on: usize,
    /// Each group by itself; empty when images are of one kind.
    pub groups: Vec<GroupAnalysis>,
    /// What to use.
    pub recommendation: Recommendation,
}

/// Friedman's test and Nemenyi's critical difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FriedmanSummary {
    /// Chi-squared statistic.
    pub statistic: f64,
    /// Its degrees of freedom.
    pub degrees: usize,
    /// Its p-value.
    pub p: f64,
    /// Average ranks further apart than this differ.
    pub critical_difference: f64,
    /// Groups of methods (indices) not told apart.
    pub cliques: Vec<Vec<usize>>,
}

impl Analysis {
    /// Analyses a comparison by `metric`, with tests at level `alpha`.
    ///
    /// # Errors
    /// `Shape` for an incomplete comparison, `Value` for scores that are no numbers or an alpha outside 0 to 1.
    pub fn of(comparison: &Comparison, metric: Metric, alpha: f64) -> Result<Self> {
        let mut whole = Self::without_groups(comparison, metric, alpha)?;
        let groups = comparison.groups();
        if groups.len() > 1 {
            for group in groups {
                let images =
                    comparison.images.iter().filter(|image| image.group.as_deref() == Some(group)).cloned().collect();
                let part = Comparison { methods: comparison.methods.clone(), images };
                let analysis = Self::without_groups(&part, metric, alpha)?;
                whole.groups.push(GroupAnalysis {
                    group: group.to_owned(),
                    images: analysis.images,
                    means: analysis.methods.iter().map(|method| method.mean.value).collect(),
                    recommendation: analysis.recommendation,
                });
            }
        }
        Ok(whole)
    }

    fn without_groups(comparison: &Comparison, metric: Metric, alpha: f64) -> Result<Self> {
        let values = comparison.values(metric)?;
        let ranked = (comparison.methods.len() > 1).then(|| friedman(&values)).transpose()?;
        let methods = (0..comparison.methods.len())
            .map(|method| summary(comparison, &values, method, ranked.as_ref()))
            .collect::<Result<Vec<_>>>()?;
        let pairs = pairs(&values, alpha)?;
        let friedman = ranked
            .map(|found| {
                let difference = critical_difference(methods.len(), values.len(), alpha)?;
                Ok::<_, crate::Error>(FriedmanSummary {
                    statistic: found.statistic,
                    degrees: found.degrees,
                    p: found.p,
                    critical_difference: difference,
                    cliques: cliques(&found.average_ranks, difference),
                })
            })
            .transpose()?;
        let all_equal_on = values.iter().filter(|row| row.iter().all(|value| value == &row[0])).count();
        let recommendation = Recommendation::of(metric, alpha, values.len(), &methods, &pairs);
        Ok(Self {
            metric,
            alpha,
            images: values.len(),
            methods,
            pairs,
            friedman,
            all_equal_on,
            groups: Vec::new(),
            recommendation,
        })
    }

    /// The pair of two methods, differences turned so that they are `first` less `second`.
    pub fn pair(&self, first: usize, second: usize) -> Option<PairAnalysis> {
        pair_of(&self.pairs, first, second)
    }

    /// Methods from the best mean to the worst; equal means by average rank.
    pub fn order(&self) -> Vec<usize> {
        order(&self.methods)
    }
}

pub(crate) fn order(methods: &[MethodSummary]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..methods.len()).collect();
    order.sort_by(|&a, &b| {
        let by_mean = methods[b].mean.value.total_cmp(&methods[a].mean.value);
        by_mean.then(methods[a].average_rank.total_cmp(&methods[b].average_rank))
    });
    order
}

pub(crate) fn pair_of(pairs: &[PairAnalysis], first: usize, second: usize) -> Option<PairAnalysis> {
    if let Some(found) = pairs.iter().find(|pair| (pair.first, pair.second) == (first, second)) {
        return Some(found.clone());
    }
    let found = pairs.iter().find(|pair| (pair.first, pair.second) == (second, first))?;
    let turned = |range: Range| Range { value: -range.value, low: -range.high, high: -range.low };
    Some(PairAnalysis {
        first,
        second,
        difference: turned(found.difference),
        typical_difference: turned(found.typical_difference),
        rank_biserial: -found.rank_biserial,
        cliffs_delta: -found.cliffs_delta,
        first_better: found.second_better,
        second_better: found.first_better,
        paper_outcome: match found.paper_outcome {
            "win" => "loss",
            "loss" => "win",
            other => other,
        },
        ..found.clone()
    })
}

fn summary(
    comparison: &Comparison,
    values: &[Vec<f64>],
    method: usize,
    ranked: Option<&Friedman>,
) -> Result<MethodSummary> {
    let own: Vec<f64> = values.iter().map(|row| row[method]).collect();
    let scores = || comparison.images.iter().map(|image| &image.scores[method]);
    let images = own.len() as f64;
    let mean_of = |metric: Metric| scores().map(|scores| scores.get(metric)).sum::<f64>() / images;
    let sum_of = |metric: Metric| scores().map(|scores| scores.count(metric)).sum();
    let seconds: Option<Vec<f64>> = scores().map(|scores| scores.seconds).collect();
    let best = |row: &&Vec<f64>| {
        let highest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row[method] == highest && row.iter().any(|&value| value < highest)
    };
    Ok(MethodSummary {
        method: comparison.methods[method].name.clone(),
        mean: bootstrap_mean(&own, CONFIDENCE, RESAMPLES, SEED)?.into(),
        median: median(own),
        msa: mean_of(Metric::Msa),
        sa50: mean_of(Metric::Sa50),
        sa75: mean_of(Metric::Sa75),
        f1: mean_of(Metric::F1),
        panoptic_quality: mean_of(Metric::PanopticQuality),
        per_threshold: (0..10)
            .map(|at| scores().map(|scores| scores.per_threshold[at]).sum::<f64>() / images)
            .collect(),
        average_rank: ranked.map_or(1.0, |found| found.average_ranks[method]),
        best_on: values.iter().filter(best).count(),
        true_positives: sum_of(Metric::TruePositives),
        false_positives: sum_of(Metric::FalsePositives),
        false_negatives: sum_of(Metric::FalseNegatives),
        median_seconds: seconds.clone().map(median),
        total_seconds: seconds.map(|seconds| seconds.iter().sum()),
    })
}

fn name_of<S: serde::Serializer>(metric: &Metric, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(metric.name())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    f64::midpoint(values[(n - 1) / 2], values[n / 2])
}

fn pairs(values: &[Vec<f64>], alpha: f64) -> Result<Vec<PairAnalysis>> {
    let methods = values[0].len();
    let mut found = Vec::new();
    for first in 0..methods {
        for second in first + 1..methods {
            let column = |method: usize| values.iter().map(|row| row[method]).collect::<Vec<f64>>();
            let (a, b) = (column(first), column(second));
            let differences: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
            let paper = paired_outcome(&differences, alpha)?;
            found.push(PairAnalysis {
                first,
                second,
                difference: bootstrap_mean(&differences, CONFIDENCE, RESAMPLES, SEED)?.into(),
                typical_difference: hodges_lehmann(&differences, CONFIDENCE)?.into(),
                rank_biserial: rank_biserial(&differences)?,
                cliffs_delta: cliffs_delta(&a, &b)?,
                p: wilcoxon(&differences, &WilcoxonOptions::default())?.p,
                p_holm: 1.0,
                p_benjamini_hochberg: 1.0,
                first_better: differences.iter().filter(|&&difference| difference > 0.0).count(),
                second_better: differences.iter().filter(|&&difference| difference < 0.0).count(),
                equal: differences.iter().filter(|&&difference| difference == 0.0).count(),
                paper_outcome: match paper.outcome {
                    Outcome::Win => "win",
                    Outcome::Loss => "loss",
                    Outcome::Neutral => "neutral",
                },
                paper_p: paper.p,
            });
        }
    }
    let p: Vec<f64> = found.iter().map(|pair| pair.p).collect();
    let corrected = holm(&p)?.into_iter().zip(benjamini_hochberg(&p)?);
    for (pair, (p_holm, p_benjamini_hochberg)) in found.iter_mut().zip(corrected) {
        (pair.p_holm, pair.p_benjamini_hochberg) = (p_holm, p_benjamini_hochberg);
    }
    Ok(found)
}
