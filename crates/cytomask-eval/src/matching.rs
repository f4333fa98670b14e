//! True and false positives of a segmentation, and the scores made of them.
//!
//! As `elf.evaluation.matching`, which follows stardist's. The mean segmentation accuracy is that of the Data Science Bowl 2018
//! (Caicedo et al., Nature Methods 2019); panoptic quality is Kirillov et al., CVPR 2019.

use crate::assignment::{Edge, Goal, assign};
use crate::{Contingency, Error, ErrorKind, Result, SharedPixels};

/// What the pixels two objects share are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Criterion {
    /// The pixels of their union.
    #[default]
    IntersectionOverUnion,
    /// The pixels of the true object. (elf calls this "iop": its names for this and the next are swapped.)
    IntersectionOverTruth,
    /// The pixels of the predicted object. (elf: "iot".)
    IntersectionOverPredicted,
}

/// A true and a predicted object that count as the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MatchedPair {
    /// Id of the true object.
    pub truth: u32,
    /// Id of the predicted object.
    pub predicted: u32,
    /// The value of the criterion, at least the threshold.
    pub score: f64,
}

/// Which objects were found at one threshold, and the scores that follow. Scores without true positives are 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Matching {
    /// What was compared with the threshold.
    pub criterion: Criterion,
    /// Pairs match when the criterion is at least this.
    pub threshold: f64,
    /// Matched pairs.
    pub true_positives: usize,
    /// Predicted objects without a partner.
    pub false_positives: usize,
    /// True objects without a partner.
    pub false_negatives: usize,
    /// TP / (TP + FP).
    pub precision: f64,
    /// TP / (TP + FN).
    pub recall: f64,
    /// 2 TP / (2 TP + FP + FN).
    pub f1: f64,
    /// TP / (TP + FP + FN).
    pub segmentation_accuracy: f64,
    /// Mean score of the matched pairs: the segmentation quality.
    pub mean_matched_score: f64,
    /// Sum of the scores of the matched pairs over the number of true objects: how well an average true object was found.
    pub mean_true_score: f64,
    /// Segmentation quality × F1, the panoptic quality of one class when the criterion is IoU.
    pub panoptic_quality: f64,
    /// The matched pairs, by ascending true id.
    pub pairs: Vec<MatchedPair>,
}

/// What a score is when neither image holds an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BothEmpty {
    /// 1: rightly nothing was found.
    #[default]
    One,
    /// 0, as elf and hence as published numbers have it.
    Zero,
    /// NaN: there is nothing to score; the image is to be left out of a mean.
    Undefined,
}

impl BothEmpty {
    pub(crate) fn score(self) -> f64 {
        match self {
            Self::One => 1.0,
            Self::Zero => 0.0,
            Self::Undefined => f64::NAN,
        }
    }
}

/// The ten thresholds of the mean segmentation accuracy: the floats of `numpy.arange(0.5, 1.0, 0.05)`.
///
/// NumPy multiplies by the difference of its first two values, a little more than 0.05, so that an IoU of exactly 0.8 misses
/// "0.80".
pub const THRESHOLDS: [f64; 10] = {
    let step = (0.5 + 0.05) - 0.5;
    let mut thresholds = [0.0; 10];
    let mut index = 0;
    while index < 10 {
        thresholds[index] = 0.5 + index as f64 * step;
        index += 1;
    }
    thresholds
};

/// Segmentation accuracies of one image over [`THRESHOLDS`].
#[derive(Clone, Debug, PartialEq)]
pub struct MeanSegmentationAccuracy {
    /// Unweighted mean over the thresholds.
    pub msa: f64,
    /// At the first threshold, 0.5.
    pub sa50: f64,
    /// At the sixth threshold, 0.75.
    pub sa75: f64,
    /// At each of [`THRESHOLDS`].
    pub per_threshold: [f64; 10],
    /// True objects.
    pub n_true: usize,
    /// Predicted objects.
    pub n_predicted: usize,
}

/// Matches true and predicted objects one to one: as many pairs as possible whose criterion is at least `threshold`, and of
/// those choices the one with the highest sum, pairs below the threshold included, as stardist and elf choose. Above an IoU of 0.5
/// there is only one choice.
///
/// # Errors
/// `Value` when `threshold` is not above 0.
pub fn matching(contingency: &Contingency, threshold: f64, criterion: Criterion) -> Result<Matching> {
    if threshold.is_nan() || threshold <= 0.0 {
        let message = format!("matching threshold: expected a number above 0, found {threshold}");
        return Err(Error::new(ErrorKind::Value, message));
    }
    Ok(matching_at(contingency, threshold, criterion))
}

/// [`matching`] at a threshold known to be above 0.
pub(crate) fn matching_at(contingency: &Contingency, threshold: f64, criterion: Criterion) -> Matching {
    let pairs = matched_pairs(contingency, threshold, criterion);
    let true_positives = pairs.len();
    let false_positives = contingency.predicted.len() - true_positives;
    let false_negatives = contingency.truth.len() - true_positives;
    let share = |part: usize, whole: usize| if part == 0 { 0.0 } else { part as f64 / whole as f64 };
    let f1 = share(2 * true_positives, 2 * true_positives + false_positives + false_negatives);
    let sum: f64 = pairs.iter().map(|pair| pair.score).sum();
    let mean_matched_score = if pairs.is_empty() { 0.0 } else { sum / true_positives as f64 };
    Matching {
        mean_true_score: if pairs.is_empty() { 0.0 } else { sum / contingency.truth.len() as f64 },
        criterion,
        threshold,
        true_positives,
        false_positives,
        false_negatives,
        precision: share(true_positives, true_positives + false_positives),
        recall: share(true_positives, true_positives + false_negatives),
        f1,
        segmentation_accuracy: accuracy(true_positives, contingency),
        mean_matched_score,
        panoptic_quality: mean_matched_score * f1,
        pairs,
    }
}

/// Segmentation accuracies over [`THRESHOLDS`] and their mean.
pub fn mean_segmentation_accuracy(contingency: &Contingency, both_empty: BothEmpty) -> MeanSegmentationAccuracy {
    let (n_true, n_predicted) = (contingency.truth.len(), contingency.predicted.len());
    let per_threshold = if n_true == 0 && n_predicted == 0 {
        [both_empty.score(); 10]
    } else {
        THRESHOLDS.map(|threshold| {
            let pairs = matched_pairs(contingency, threshold, Criterion::IntersectionOverUnion);
            accuracy(pairs.len(), contingency)
        })
    };
    MeanSegmentationAccuracy {
        msa: per_threshold.iter().sum::<f64>() / 10.0,
        sa50: per_threshold[0],
        sa75: per_threshold[5],
        per_threshold,
        n_true,
        n_predicted,
    }
}

/// TP / (TP + FP + FN); 0 without true positives.
fn accuracy(true_positives: usize, contingency: &Contingency) -> f64 {
    if true_positives == 0 {
        return 0.0;
    }
    true_positives as f64 / (contingency.truth.len() + contingency.predicted.len() - true_positives) as f64
}

fn matched_pairs(contingency: &Contingency, threshold: f64, criterion: Criterion) -> Vec<MatchedPair> {
    let score = |pair: &SharedPixels| match criterion {
        Criterion::IntersectionOverUnion => pair.iou(contingency),
        Criterion::IntersectionOverTruth => pair.pixels as f64 / contingency.truth[pair.truth].area_px as f64,
        Criterion::IntersectionOverPredicted => {
            pair.pixels as f64 / contingency.predicted[pair.predicted].area_px as f64
        }
    };
    // From an IoU of 0.5 on, pairs below the threshold change nothing: who has two partners of exactly 0.5 is covered by them, and
    // they touch nobody else.
    let least = if criterion == Criterion::IntersectionOverUnion && threshold >= 0.5 { threshold } else { 0.0 };
    let edges: Vec<Edge> = contingency
        .shared
        .iter()
        .map(|pair| (pair.truth, pair.predicted, score(pair)))
        .filter(|&(_, _, score)| score >= least)
        .collect();
    let chosen = assign(contingency.truth.len(), contingency.predicted.len(), &edges, Goal::MostPairsFrom(threshold));
    let pair = |&(truth, predicted, score): &Edge| MatchedPair {
        truth: contingency.truth[truth].id,
        predicted: contingency.predicted[predicted].id,
        score,
    };
    chosen.into_iter().map(|index| &edges[index]).filter(|edge| edge.2 >= threshold).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use cytomask_image::Labels;

    use super::*;
    use crate::contingency;

    fn row(truth: &[u32], predicted: &[u32]) -> Contingency {
        let labels = |ids: &[u32]| Labels::from_vec([1, ids.len() as u32], ids.to_vec()).unwrap();
        contingency(&labels(truth), &labels(predicted)).unwrap()
    }

    #[test]
    fn hand_drawn_scores() {
        // True 1 found at IoU 3/4, true 2 missed, predicted 9 spurious.
        let table = row(&[1, 1, 1, 1, 0, 2, 2, 0, 0], &[5, 5, 5, 0, 0, 0, 0, 9, 9]);
        let found = matching(&table, 0.75, Criterion::default()).unwrap();
        assert_eq!((found.true_positives, found.false_positives, found.false_negatives), (1, 1, 1));
        assert_eq!((found.precision, found.recall, found.f1), (0.5, 0.5, 0.5));
        assert_eq!(
            (found.segmentation_accuracy, found.mean_matched_score, found.panoptic_quality),
            (1.0 / 3.0, 0.75, 0.375)
        );
        assert_eq!(found.pairs, [MatchedPair { truth: 1, predicted: 5, score: 0.75 }]);
        assert_eq!(matching(&table, 0.76, Criterion::default()).unwrap().true_positives, 0);
    }

    #[test]
    fn criteria_divide_by_what_they_say() {
        let table = row(&[1, 1, 1, 1, 0], &[0, 0, 5, 5, 5]);
        let score = |criterion| matching(&table, 0.1, criterion).unwrap().pairs[0].score;
        assert_eq!(score(Criterion::IntersectionOverUnion), 0.4);
        assert_eq!(score(Criterion::IntersectionOverTruth), 0.5);
        assert_eq!(score(Criterion::IntersectionOverPredicted), 2.0 / 3.0);
    }

    #[test]
    fn low_thresholds_need_an_assignment() {
        // 8 lies over true 1 (0.5) and true 2 (1/3 …); taking the nearest greedily would leave 9 alone.
        let table = row(&[1, 1, 1, 1, 2, 2, 2, 2], &[9, 8, 8, 8, 8, 8, 8, 8]);
        let found = matching(&table, 0.2, Criterion::default()).unwrap();
        let pairs: Vec<(u32, u32)> = found.pairs.iter().map(|pair| (pair.truth, pair.predicted)).collect();
        assert_eq!(pairs, [(1, 9), (2, 8)]);
    }

    #[test]
    fn both_empty_is_a_choice() {
        let table = row(&[0, 0], &[0, 0]);
        let msa = |both_empty| mean_segmentation_accuracy(&table, both_empty).msa;
        assert_eq!((msa(BothEmpty::One), msa(BothEmpty::Zero)), (1.0, 0.0));
        assert!(msa(BothEmpty::Undefined).is_nan());
        assert_eq!(mean_segmentation_accuracy(&row(&[0], &[4]), BothEmpty::One).msa, 0.0);
        assert_eq!(mean_segmentation_accuracy(&row(&[4], &[0]), BothEmpty::One).msa, 0.0);
        assert_eq!(matching(&table, 0.5, Criterion::default()).unwrap().true_positives, 0);
    }

    #[test]
    fn thresholds_must_be_positive() {
        for threshold in [0.0, -1.0, f64::NAN] {
            let error = matching(&row(&[1], &[1]), threshold, Criterion::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Value);
        }
    }

    #[test]
    fn a_hundred_thousand_objects_take_seconds() {
        // No clock is read: what grows with the square of the objects would not end here.
        // 100 000 objects of 4 × 4 pixels, the prediction moved by one pixel (IoU 0.6).
        let (objects_down, objects_across) = (250, 400);
        let [h, w] = [objects_down * 4 + 1, objects_across * 4 + 1];
        let id = |y: u32, x: u32| (y / 4).min(objects_down - 1) * objects_across + (x / 4).min(objects_across - 1) + 1;
        let pixels = || (0..h).flat_map(move |y| (0..w).map(move |x| (y, x)));
        let truth = Labels::from_vec([h, w], pixels().map(|(y, x)| id(y, x)).collect()).unwrap();
        let moved = pixels().map(|(y, x)| if x == 0 { 0 } else { id(y, x - 1) }).collect();
        let predicted = Labels::from_vec([h, w], moved).unwrap();
        let table = contingency(&truth, &predicted).unwrap();
        let scores = mean_segmentation_accuracy(&table, BothEmpty::One);
        assert_eq!((scores.n_true, scores.n_predicted), (100_000, 100_000));
        assert_eq!(scores.sa50, 1.0);
        assert!(scores.sa75 < 0.01, "only the wider objects of the last column");
        // A low threshold turns each row of cells into one chain of 400.
        assert_eq!(matching(&table, 0.1, Criterion::default()).unwrap().true_positives, 100_000);
    }
}
