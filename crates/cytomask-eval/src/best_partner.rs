//! Scores of each object's best partner, whoever else has it.

use crate::{Contingency, SharedPixels};

/// For every true object the highest IoU with any predicted one, averaged; not symmetric, and objects may share a partner.
/// `None` when there is no true object.
pub fn mean_best_iou(contingency: &Contingency) -> Option<f64> {
    mean_best(contingency.truth.len(), contingency, |pair| (pair.truth, pair.iou(contingency)))
}

/// Symmetric best Dice of the CVPPP challenge (Scharr et al., Mach. Vis. Appl. 27, 2016), as `elf.evaluation`: for every object of
/// one image the highest Dice with any of the other, averaged; the lower of both directions. 0 when one image is empty, NaN when
/// both are. (elf adds 10⁻⁷ to each denominator, so that its scores of small objects are lower by up to 10⁻⁷.)
pub fn symmetric_best_dice(contingency: &Contingency) -> f64 {
    let dice = |pair: &SharedPixels| {
        let areas = contingency.truth[pair.truth].area_px + contingency.predicted[pair.predicted].area_px;
        (2 * pair.pixels) as f64 / areas as f64
    };
    let of_truth = mean_best(contingency.truth.len(), contingency, |pair| (pair.truth, dice(pair)));
    let of_predicted = mean_best(contingency.predicted.len(), contingency, |pair| (pair.predicted, dice(pair)));
    match (of_truth, of_predicted) {
        (None, None) => f64::NAN,
        (a, b) => a.unwrap_or(0.0).min(b.unwrap_or(0.0)),
    }
}

/// The mean over `count` objects of the best value any of their pairs has, 0 for objects in no pair.
fn mean_best(
    count: usize,
    contingency: &Contingency,
    object_and_value: impl Fn(&SharedPixels) -> (usize, f64),
) -> Option<f64> {
    let mut best = vec![0.0_f64; count];
    for pair in &contingency.shared {
        let (object, value) = object_and_value(pair);
        best[object] = best[object].max(value);
    }
    (count > 0).then(|| best.iter().sum::<f64>() / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelArray, contingency};

    #[test]
    fn the_worse_direction_counts() {
        let array = |ids| LabelArray::new(&[10], ids).unwrap();
        let truth = [1, 1, 1, 1, 0, 0, 2, 2, 0, 0];
        let predicted = [5, 5, 6, 6, 0, 0, 0, 0, 0, 0];
        let table = contingency(array(&truth), array(&predicted)).unwrap();
        // True 1: Dice 4 / 6, true 2: 0; both predicted: 4 / 6.
        assert_eq!(symmetric_best_dice(&table), 2.0 / 6.0);
        assert_eq!(mean_best_iou(&table), Some(0.25));
        let none = contingency(array(&truth), array(&[0; 10])).unwrap();
        assert_eq!(symmetric_best_dice(&none), 0.0);
        assert!(symmetric_best_dice(&Contingency::default()).is_nan());
        assert_eq!(mean_best_iou(&Contingency::default()), None);
    }
}
