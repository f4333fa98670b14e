//! Against `fixtures/metrics.safetensors`, written by `parity/metrics.py` with elf, stardist, Cellpose and scikit-image.

use std::path::Path;

use cytomask_eval::{
    BothEmpty, Contingency, Criterion, LabelArray, Metric, ScoreOptions, Scores, THRESHOLDS, boundary_score,
    connected_components, contingency, matching, mean_segmentation_accuracy, score,
};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// All sides sum and divide in `f64`; only the order of sums differs.
const TOLERANCE: f64 = 1e-13;
/// Cellpose keeps its average precision in `f32`, stardist its scores.
const SINGLE: f64 = 3e-7;
/// elf adds 1e-7 to each denominator, areas of 2 and more.
const ELF_DICE: f64 = 1e-7;

/// A pair of label images and upstream's numbers.
struct Case<'a> {
    file: &'a SafeTensors<'a>,
    name: String,
    shape: Vec<usize>,
    truth: Vec<u32>,
    predicted: Vec<u32>,
}

impl Case<'_> {
    fn tensor(&self, name: &str) -> TensorView<'_> {
        self.file.tensor(&format!("{}/{name}", self.name)).unwrap()
    }

    fn floats(&self, name: &str) -> Vec<f64> {
        floats(&self.tensor(name))
    }

    fn truth(&self) -> LabelArray<'_> {
        LabelArray::new(&self.shape, &self.truth).unwrap()
    }

    fn predicted(&self) -> LabelArray<'_> {
        LabelArray::new(&self.shape, &self.predicted).unwrap()
    }

    fn table(&self) -> Contingency {
        contingency(self.truth(), self.predicted()).unwrap()
    }

    /// Scores as upstream has them of pairs of empty images: NaN from Cellpose, 0 from the others.
    fn scores(&self, both_empty: BothEmpty) -> Scores {
        score(self.truth(), self.predicted(), &ScoreOptions { both_empty, ..ScoreOptions::default() }).unwrap()
    }

    #[track_caller]
    fn close(&self, what: &str, found: f64, expected: f64, tolerance: f64) {
        let same = (found - expected).abs() <= tolerance || (found.is_nan() && expected.is_nan());
        assert!(same, "{} {what}: {found}, upstream {expected}", self.name);
    }
}

fn floats(view: &TensorView<'_>) -> Vec<f64> {
    view.data().chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn ids(view: &TensorView<'_>) -> Vec<u32> {
    match view.dtype() {
        Dtype::U8 => view.data().iter().map(|&id| u32::from(id)).collect(),
        Dtype::U32 => view.data().chunks_exact(4).map(|id| u32::from_le_bytes(id.try_into().unwrap())).collect(),
        other => panic!("{other:?}"),
    }
}

/// Runs `check` on every case and asserts that there are many.
fn every_case(check: impl Fn(&Case<'_>)) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/metrics.safetensors");
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(floats(&file.tensor("thresholds").unwrap()), THRESHOLDS);
    let names: Vec<String> =
        file.names().iter().filter_map(|name| name.strip_suffix("/truth").map(str::to_owned)).collect();
    assert!(names.len() >= 60, "{} cases", names.len());
    for name in names {
        let labels = |which: &str| file.tensor(&format!("{name}/{which}")).unwrap();
        let shape = labels("truth").shape().to_vec();
        let (truth, predicted) = (ids(&labels("truth")), ids(&labels("predicted")));
        check(&Case { file: &file, name, shape, truth, predicted });
    }
}

#[test]
fn accuracies_equal_those_of_elf() {
    every_case(|case| {
        let found = mean_segmentation_accuracy(&case.table(), BothEmpty::Zero);
        let expected = case.floats("accuracies");
        case.close("mSA", found.msa, expected[0], TOLERANCE);
        assert_eq!(found.per_threshold, expected[1..], "{}", case.name);
        let scores = case.scores(BothEmpty::Zero);
        assert_eq!((scores.msa, scores.sa50, scores.sa75), (found.msa, expected[1], expected[6]), "{}", case.name);
        assert_eq!(scores.segmentation_accuracy, found.per_threshold);
    });
}

#[test]
fn matching_equals_that_of_elf() {
    every_case(|case| {
        let expected = case.floats("matching");
        let mut rows = expected.chunks_exact(4);
        let criteria =
            [Criterion::IntersectionOverUnion, Criterion::IntersectionOverPredicted, Criterion::IntersectionOverTruth];
        for criterion in criteria {
            for threshold in [0.05, 0.2, 0.35, 0.5, 0.75] {
                let found = matching(&case.table(), threshold, criterion).unwrap();
                let row = [found.precision, found.recall, found.segmentation_accuracy, found.f1];
                assert_eq!(row[..], *rows.next().unwrap(), "{} {criterion:?} {threshold}", case.name);
            }
        }
        assert!(rows.next().is_none());
    });
}

#[test]
fn matching_equals_that_of_stardist() {
    every_case(|case| {
        let expected = case.floats("stardist");
        let mut rows = expected.chunks_exact(12);
        let criteria =
            [Criterion::IntersectionOverUnion, Criterion::IntersectionOverPredicted, Criterion::IntersectionOverTruth];
        for criterion in criteria {
            for threshold in [0.1, 0.5, 0.8] {
                let table = case.table();
                let found = matching(&table, threshold, criterion).unwrap();
                let counts = [found.true_positives, found.false_positives, found.false_negatives];
                let sizes = [table.truth.len(), table.predicted.len()];
                let shares = [found.precision, found.recall, found.segmentation_accuracy, found.f1];
                let means = [found.mean_true_score, found.mean_matched_score, found.panoptic_quality];
                let floats = |counts: &[usize]| counts.iter().map(|&count| count as f64).collect::<Vec<_>>();
                let row = [&floats(&counts)[..], &shares, &floats(&sizes), &means].concat();
                for (field, (found, expected)) in row.iter().zip(rows.next().unwrap()).enumerate() {
                    let what = format!("{criterion:?} {threshold}, field {field}");
                    case.close(&what, *found, *expected, if field < 9 { TOLERANCE } else { SINGLE });
                }
            }
        }
        assert!(rows.next().is_none());
        let scores = case.scores(BothEmpty::Zero);
        let of_iou = &expected[12..24];
        for (metric, expected) in [
            (Metric::TruePositives, of_iou[0]),
            (Metric::FalsePositives, of_iou[1]),
            (Metric::FalseNegatives, of_iou[2]),
            (Metric::Precision, of_iou[3]),
            (Metric::Recall, of_iou[4]),
            (Metric::F1, of_iou[6]),
            (Metric::TrueObjects, of_iou[7]),
            (Metric::PredictedObjects, of_iou[8]),
            (Metric::MeanTrueScore, of_iou[9]),
            (Metric::SegmentationQuality, of_iou[10]),
            (Metric::PanopticQuality, of_iou[11]),
        ] {
            case.close(metric.name(), scores.get(metric), expected, SINGLE);
        }
    });
}

#[test]
fn average_precision_and_jaccard_equal_those_of_cellpose() {
    every_case(|case| {
        let scores = case.scores(BothEmpty::Undefined);
        let expected = case.floats("average_precision");
        for (found, expected) in [scores.ap50, scores.ap75, scores.ap90].into_iter().zip(&expected[..3]) {
            case.close("AP", found, *expected, SINGLE);
        }
        for (index, threshold) in [0.5, 0.75, 0.9].into_iter().enumerate() {
            let found = matching(&case.table(), threshold, Criterion::default()).unwrap();
            let counts = [found.true_positives, found.false_positives, found.false_negatives];
            assert_eq!(counts.map(|count| count as f64), [3, 6, 9].map(|row| expected[row + index]), "{}", case.name);
        }
        let expected = case.floats("aggregated_jaccard_cellpose")[0];
        case.close("AJI", scores.aggregated_jaccard_cellpose, expected, TOLERANCE);
    });
}

#[test]
fn jaccard_and_cuts_follow_their_definitions() {
    every_case(|case| {
        let scores = case.scores(BothEmpty::Undefined);
        let expected = case.floats("from_masks");
        case.close("AJI", scores.aggregated_jaccard, expected[0], TOLERANCE);
        case.close("AJI+", scores.aggregated_jaccard_plus, expected[1], TOLERANCE);
        assert_eq!([scores.splits as f64, scores.merges as f64], expected[2..], "{}", case.name);
    });
}

#[test]
fn symmetric_best_dice_equals_that_of_elf() {
    every_case(|case| {
        let found = case.scores(BothEmpty::Zero).symmetric_best_dice;
        case.close("best Dice", found, case.floats("symmetric_best_dice")[0], ELF_DICE);
    });
}

#[test]
fn boundaries_equal_those_of_scikit_image() {
    every_case(|case| {
        for (tolerance, expected) in [0.0, 1.0, 2.0, 3.5].into_iter().zip(case.floats("boundary").chunks_exact(2)) {
            let found = boundary_score(case.truth(), case.predicted(), tolerance).unwrap();
            case.close("boundary precision", found.precision, expected[0], TOLERANCE);
            case.close("boundary recall", found.recall, expected[1], TOLERANCE);
        }
    });
}

#[test]
fn tables_and_components_equal_those_of_scikit_image() {
    every_case(|case| {
        if !case.name.starts_with("random") {
            assert_eq!(connected_components(case.truth()).unwrap(), ids(&case.tensor("components")), "{}", case.name);
        }
        let Ok(view) = case.file.tensor(&format!("{}/contingency", case.name)) else {
            assert!(case.truth.iter().chain(&case.predicted).any(|&id| id >= 1000), "{}", case.name);
            return;
        };
        let table = case.table();
        let row = |pair: &cytomask_eval::SharedPixels| {
            [table.truth[pair.truth].id, table.predicted[pair.predicted].id, pair.pixels as u32]
        };
        assert_eq!(table.shared.iter().flat_map(row).collect::<Vec<_>>(), ids(&view), "{}", case.name);
    });
}
