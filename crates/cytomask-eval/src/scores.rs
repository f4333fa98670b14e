//! All scores of one image, made from one contingency table, and their names.

use crate::matching::matching_at;
use crate::{
    BothEmpty, BoundaryScore, Contingency, Criterion, LabelArray, Result, aggregated_jaccard, boundary_score,
    contingency, mean_best_iou, mean_segmentation_accuracy, splits_and_merges, symmetric_best_dice,
};

/// The threshold of precision, recall, F1, panoptic quality and the mean scores of matched and true objects.
pub const MATCHING_THRESHOLD: f64 = 0.5;

/// How images are scored.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreOptions {
    /// What every score (not: count) is when neither image holds an object.
    pub both_empty: BothEmpty,
    /// Distance within which boundaries agree; `None` leaves the boundary scores out, which alone need the pixels again.
    pub boundary_tolerance_px: Option<f64>,
}

impl Default for ScoreOptions {
    /// 1 for rightly nothing; a tolerance of 2 pixels, about what two people's outlines of a nucleus differ by.
    fn default() -> Self {
        Self { both_empty: BothEmpty::default(), boundary_tolerance_px: Some(2.0) }
    }
}

/// What one image scores. Scores lie between 0 and 1 and higher is better; without true positives they are 0. docs/evaluate.md
/// has a line and a source for each.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Mean segmentation accuracy over the thresholds 0.50 … 0.95.
    pub msa: f64,
    /// Segmentation accuracy at the first of [`crate::THRESHOLDS`].
    pub sa50: f64,
    /// Segmentation accuracy at the sixth.
    pub sa75: f64,
    /// Segmentation accuracy at each of [`crate::THRESHOLDS`].
    pub segmentation_accuracy: [f64; 10],
    /// TP / (TP + FP) at IoU 0.5.
    pub precision: f64,
    /// TP / (TP + FN) at IoU 0.5.
    pub recall: f64,
    /// 2 TP / (2 TP + FP + FN) at IoU 0.5: the recognition quality.
    pub f1: f64,
    /// Segmentation quality × recognition quality.
    pub panoptic_quality: f64,
    /// Mean IoU of the pairs matched at 0.5.
    pub segmentation_quality: f64,
    /// Sum of those IoUs over the number of true objects.
    pub mean_true_score: f64,
    /// Cellpose's average precision TP / (TP + FP + FN) at exactly 0.5.
    pub ap50: f64,
    /// The same at exactly 0.75.
    pub ap75: f64,
    /// The same at exactly 0.9.
    pub ap90: f64,
    /// Aggregated Jaccard index, Kumar et al. 2017.
    pub aggregated_jaccard: f64,
    /// AJI+, Graham et al. 2019.
    pub aggregated_jaccard_plus: f64,
    /// Cellpose's form of it.
    pub aggregated_jaccard_cellpose: f64,
    /// Symmetric best Dice.
    pub symmetric_best_dice: f64,
    /// Mean over true objects of the highest IoU with any predicted one.
    pub mean_best_iou: f64,
    /// Agreement of outlines, unless left out.
    pub boundary: Option<BoundaryScore>,
    /// Objects in the truth.
    pub true_objects: usize,
    /// Objects in the prediction.
    pub predicted_objects: usize,
    /// Pairs matched at IoU 0.5.
    pub true_positives: usize,
    /// Predicted objects without a partner.
    pub false_positives: usize,
    /// True objects without a partner.
    pub false_negatives: usize,
    /// Needless cuts.
    pub splits: u64,
    /// Missing cuts.
    pub merges: u64,
}

/// Scores a prediction, `[H, W]` or `[D, H, W]` (any dimension without boundary scores).
///
/// # Errors
/// `Shape` when the images differ in size, `Value` when the tolerance is out of range, `Unsupported` for boundaries in other
/// dimensions.
pub fn score<'a>(
    truth: impl Into<LabelArray<'a>>,
    predicted: impl Into<LabelArray<'a>>,
    options: &ScoreOptions,
) -> Result<Scores> {
    let (truth, predicted) = (truth.into(), predicted.into());
    let table = contingency(&truth, &predicted)?;
    let mut scores = Scores::new(&table, options.both_empty);
    if let Some(tolerance_px) = options.boundary_tolerance_px {
        let mut boundary = boundary_score(&truth, &predicted, tolerance_px)?;
        if boundary.f1.is_nan() {
            // No boundary anywhere: nothing on both sides, or an object that fills the image on one or both.
            let value = match (scores.true_objects, scores.predicted_objects) {
                (0, 0) => options.both_empty.score(),
                (0, _) | (_, 0) => 0.0,
                _ => 1.0,
            };
            (boundary.precision, boundary.recall, boundary.f1) = (value, value, value);
        }
        scores.boundary = Some(boundary);
    }
    Ok(scores)
}

impl Scores {
    /// All scores that follow from the contingency table: all but the boundary's, which [`score`] adds.
    pub fn new(contingency: &Contingency, both_empty: BothEmpty) -> Self {
        let at = |threshold| matching_at(contingency, threshold, Criterion::IntersectionOverUnion);
        let accuracies = mean_segmentation_accuracy(contingency, both_empty);
        let matched = at(MATCHING_THRESHOLD);
        let jaccard = aggregated_jaccard(contingency);
        let cuts = splits_and_merges(contingency);
        let or_empty = |value: f64| if contingency.both_empty() { both_empty.score() } else { value };
        Self {
            msa: accuracies.msa,
            sa50: accuracies.sa50,
            sa75: accuracies.sa75,
            segmentation_accuracy: accuracies.per_threshold,
            precision: or_empty(matched.precision),
            recall: or_empty(matched.recall),
            f1: or_empty(matched.f1),
            panoptic_quality: or_empty(matched.panoptic_quality),
            segmentation_quality: or_empty(matched.mean_matched_score),
            mean_true_score: or_empty(matched.mean_true_score),
            ap50: or_empty(matched.segmentation_accuracy),
            ap75: or_empty(at(0.75).segmentation_accuracy),
            ap90: or_empty(at(0.9).segmentation_accuracy),
            aggregated_jaccard: or_empty(jaccard.kumar),
            aggregated_jaccard_plus: or_empty(jaccard.plus),
            aggregated_jaccard_cellpose: or_empty(jaccard.cellpose),
            symmetric_best_dice: or_empty(symmetric_best_dice(contingency)),
            mean_best_iou: or_empty(mean_best_iou(contingency).unwrap_or(0.0)),
            boundary: None,
            true_objects: contingency.truth.len(),
            predicted_objects: contingency.predicted.len(),
            true_positives: matched.true_positives,
            false_positives: matched.false_positives,
            false_negatives: matched.false_negatives,
            splits: cuts.splits(),
            merges: cuts.merges(),
        }
    }

    /// One of them by name; NaN for a boundary score that was left out.
    pub fn get(&self, metric: Metric) -> f64 {
        let boundary = |value: fn(&BoundaryScore) -> f64| self.boundary.as_ref().map_or(f64::NAN, value);
        match metric {
            Metric::Msa => self.msa,
            Metric::Sa50 => self.sa50,
            Metric::Sa75 => self.sa75,
            Metric::Precision => self.precision,
            Metric::Recall => self.recall,
            Metric::F1 => self.f1,
            Metric::PanopticQuality => self.panoptic_quality,
            Metric::SegmentationQuality => self.segmentation_quality,
            Metric::MeanTrueScore => self.mean_true_score,
            Metric::Ap50 => self.ap50,
            Metric::Ap75 => self.ap75,
            Metric::Ap90 => self.ap90,
            Metric::AggregatedJaccard => self.aggregated_jaccard,
            Metric::AggregatedJaccardPlus => self.aggregated_jaccard_plus,
            Metric::AggregatedJaccardCellpose => self.aggregated_jaccard_cellpose,
            Metric::SymmetricBestDice => self.symmetric_best_dice,
            Metric::MeanBestIou => self.mean_best_iou,
            Metric::BoundaryF1 => boundary(|score| score.f1),
            Metric::BoundaryPrecision => boundary(|score| score.precision),
            Metric::BoundaryRecall => boundary(|score| score.recall),
            Metric::TrueObjects => self.true_objects as f64,
            Metric::PredictedObjects => self.predicted_objects as f64,
            Metric::TruePositives => self.true_positives as f64,
            Metric::FalsePositives => self.false_positives as f64,
            Metric::FalseNegatives => self.false_negatives as f64,
            Metric::Splits => self.splits as f64,
            Metric::Merges => self.merges as f64,
        }
    }
}

/// The names of [`Scores`]' numbers, as settings and tables have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the fields of `Scores` say what each is")]
pub enum Metric {
    Msa,
    Sa50,
    Sa75,
    Precision,
    Recall,
    F1,
    PanopticQuality,
    SegmentationQuality,
    MeanTrueScore,
    Ap50,
    Ap75,
    Ap90,
    AggregatedJaccard,
    AggregatedJaccardPlus,
    AggregatedJaccardCellpose,
    SymmetricBestDice,
    MeanBestIou,
    BoundaryF1,
    BoundaryPrecision,
    BoundaryRecall,
    TrueObjects,
    PredictedObjects,
    TruePositives,
    FalsePositives,
    FalseNegatives,
    Splits,
    Merges,
}

impl Metric {
    /// Each once, in the order of tables.
    pub const ALL: [Self; 27] = [
        Self::Msa,
        Self::Sa50,
        Self::Sa75,
        Self::Precision,
        Self::Recall,
        Self::F1,
        Self::PanopticQuality,
        Self::SegmentationQuality,
        Self::MeanTrueScore,
        Self::Ap50,
        Self::Ap75,
        Self::Ap90,
        Self::AggregatedJaccard,
        Self::AggregatedJaccardPlus,
        Self::AggregatedJaccardCellpose,
        Self::SymmetricBestDice,
        Self::MeanBestIou,
        Self::BoundaryF1,
        Self::BoundaryPrecision,
        Self::BoundaryRecall,
        Self::TrueObjects,
        Self::PredictedObjects,
        Self::TruePositives,
        Self::FalsePositives,
        Self::FalseNegatives,
        Self::Splits,
        Self::Merges,
    ];

    /// The field of [`Scores`] (`boundary_` and the field of [`BoundaryScore`]).
    pub fn name(self) -> &'static str {
        match self {
            Self::Msa => "msa",
            Self::Sa50 => "sa50",
            Self::Sa75 => "sa75",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::F1 => "f1",
            Self::PanopticQuality => "panoptic_quality",
            Self::SegmentationQuality => "segmentation_quality",
            Self::MeanTrueScore => "mean_true_score",
            Self::Ap50 => "ap50",
            Self::Ap75 => "ap75",
            Self::Ap90 => "ap90",
            Self::AggregatedJaccard => "aggregated_jaccard",
            Self::AggregatedJaccardPlus => "aggregated_jaccard_plus",
            Self::AggregatedJaccardCellpose => "aggregated_jaccard_cellpose",
            Self::SymmetricBestDice => "symmetric_best_dice",
            Self::MeanBestIou => "mean_best_iou",
            Self::BoundaryF1 => "boundary_f1",
            Self::BoundaryPrecision => "boundary_precision",
            Self::BoundaryRecall => "boundary_recall",
            Self::TrueObjects => "true_objects",
            Self::PredictedObjects => "predicted_objects",
            Self::TruePositives => "true_positives",
            Self::FalsePositives => "false_positives",
            Self::FalseNegatives => "false_negatives",
            Self::Splits => "splits",
            Self::Merges => "merges",
        }
    }

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// Whether it is a number of objects or cuts and not a score between 0 and 1 of which higher is better.
    pub fn is_count(self) -> bool {
        self >= Self::TrueObjects
    }

    /// Whether it needs [`ScoreOptions::boundary_tolerance_px`].
    pub fn is_of_boundary(self) -> bool {
        matches!(self, Self::BoundaryF1 | Self::BoundaryPrecision | Self::BoundaryRecall)
    }
}

#[cfg(test)]
mod tests {
    use cytomask_image::Labels;

    use super::*;

    #[test]
    fn every_metric_has_one_name() {
        for (index, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(metric as usize, index);
            assert_eq!(Metric::from_name(metric.name()), Some(metric));
        }
        assert_eq!(Metric::from_name("map"), None);
        assert!(Metric::Splits.is_count() && !Metric::BoundaryRecall.is_count());
    }

    #[test]
    fn nothing_where_there_is_nothing() {
        let nothing = Labels::zeros([97, 131]);
        for (both_empty, expected) in [(BothEmpty::One, 1.0), (BothEmpty::Zero, 0.0)] {
            let options = ScoreOptions { both_empty, ..ScoreOptions::default() };
            let scores = score(&nothing, &nothing, &options).unwrap();
            for metric in Metric::ALL {
                let expected = if metric.is_count() { 0.0 } else { expected };
                assert_eq!(scores.get(metric), expected, "{}", metric.name());
            }
        }
        let undefined = ScoreOptions { both_empty: BothEmpty::Undefined, boundary_tolerance_px: None };
        let scores = score(&nothing, &nothing, &undefined).unwrap();
        assert!(Metric::ALL.iter().all(|metric| metric.is_count() || scores.get(*metric).is_nan()));
    }

    #[test]
    fn one_sided_and_perfect() {
        let (nothing, mut something) = (Labels::zeros([97, 131]), Labels::zeros([97, 131]));
        something.as_mut_slice()[200..210].fill(6);
        let filled = Labels::from_vec([2, 2], vec![5; 4]).unwrap();
        let options = ScoreOptions::default();
        for (truth, predicted, expected) in [
            (&nothing, &something, 0.0),
            (&something, &nothing, 0.0),
            (&something, &something, 1.0),
            (&filled, &filled, 1.0),
        ] {
            let scores = score(truth, predicted, &options).unwrap();
            for metric in Metric::ALL.into_iter().filter(|metric| !metric.is_count()) {
                assert_eq!(scores.get(metric), expected, "{}", metric.name());
            }
        }
    }
}
