//! Against `fixtures/metrics.safetensors`, written by `parity/metrics.py` with elf.evaluation.

use std::path::Path;

use cytomask_eval::{BothEmpty, Criterion, THRESHOLDS, contingency, matching, mean_segmentation_accuracy};
use cytomask_image::Labels;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

/// elf sums and divides in `f64` as well; only the order of a sum of ten may differ.
const TOLERANCE: f64 = 1e-14;

fn floats(view: &TensorView<'_>) -> Vec<f64> {
    view.data().chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn labels(view: &TensorView<'_>) -> Labels {
    let size = [view.shape()[0] as u32, view.shape()[1] as u32];
    Labels::from_vec(size, view.data().iter().map(|&id| u32::from(id)).collect()).unwrap()
}

#[test]
fn scores_equal_those_of_elf() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/metrics.safetensors");
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(floats(&file.tensor("thresholds").unwrap()), THRESHOLDS);

    let cases: Vec<String> =
        file.names().iter().filter_map(|name| name.strip_suffix("/truth").map(str::to_owned)).collect();
    assert!(cases.len() >= 25, "{} cases", cases.len());
    for case in &cases {
        let tensor = |name: &str| file.tensor(&format!("{case}/{name}")).unwrap();
        let table = contingency(&labels(&tensor("truth")), &labels(&tensor("predicted"))).unwrap();
        let found = mean_segmentation_accuracy(&table, BothEmpty::Zero);
        let expected = floats(&tensor("accuracies"));
        assert!((found.msa - expected[0]).abs() <= TOLERANCE, "{case}: {} {}", found.msa, expected[0]);
        assert_eq!(found.per_threshold, expected[1..], "{case}");
        assert_eq!((found.sa50, found.sa75), (expected[1], expected[6]), "{case}");

        let expected = floats(&tensor("matching"));
        let mut rows = expected.chunks_exact(4);
        let criteria =
            [Criterion::IntersectionOverUnion, Criterion::IntersectionOverPredicted, Criterion::IntersectionOverTruth];
        for criterion in criteria {
            for threshold in [0.05, 0.2, 0.35, 0.5, 0.75] {
                let found = matching(&table, threshold, criterion).unwrap();
                let row = [found.precision, found.recall, found.segmentation_accuracy, found.f1];
                assert_eq!(row[..], *rows.next().unwrap(), "{case} {criterion:?} {threshold}");
            }
        }
        assert!(rows.next().is_none());
    }
}
