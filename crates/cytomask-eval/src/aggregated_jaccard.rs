//! Aggregated Jaccard index: intersections of partners over everything else, in the three forms found in publications.
//!
//! They differ in who is whose partner and in what the intersections are divided by, and so are not comparable with one another.

use crate::assignment::{Edge, Goal, assign};
use crate::{Contingency, SharedPixels};

/// The pixels of matched objects that agree, as a share of all; between 0 and 1, NaN when neither image holds an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AggregatedJaccard {
    /// Kumar et al., IEEE Trans. Med. Imaging 36, 2017. Every true object takes the predicted one of the highest IoU, which others
    /// may take as well; divided by the unions of these pairs and the areas of all objects in no pair.
    pub kumar: f64,
    /// AJI+, Graham et al., Med. Image Anal. 58, 2019 (HoVer-Net). The same with partners one to one, of the highest sum of IoUs.
    pub plus: f64,
    /// `cellpose.metrics.aggregated_jaccard_index`. Partners one to one: as many of IoU 0.5 and more as possible, of those choices
    /// the highest sum of IoUs, those below 0.5 included; divided by the pixels that hold any object in either image.
    pub cellpose: f64,
}

/// All three forms.
pub fn aggregated_jaccard(contingency: &Contingency) -> AggregatedJaccard {
    let overlaps: Vec<Edge> =
        contingency.shared.iter().map(|pair| (pair.truth, pair.predicted, pair.iou(contingency))).collect();
    let (truths, predictions) = (contingency.truth.len(), contingency.predicted.len());

    let mut best: Vec<Option<usize>> = vec![None; truths];
    for (index, &(truth, _, iou)) in overlaps.iter().enumerate() {
        // Of equal ones the lowest id, as an argmax has it.
        if best[truth].is_none_or(|held| iou > overlaps[held].2) {
            best[truth] = Some(index);
        }
    }
    let kumar: Vec<usize> = best.into_iter().flatten().collect();
    let plus = assign(truths, predictions, &overlaps, Goal::HighestSum);
    let cellpose = assign(truths, predictions, &overlaps, Goal::MostPairsFrom(0.5));
    AggregatedJaccard {
        kumar: over_unions(contingency, &kumar),
        plus: over_unions(contingency, &plus),
        cellpose: intersection(contingency, &cellpose) as f64 / foreground(contingency) as f64,
    }
}

fn intersection(contingency: &Contingency, pairs: &[usize]) -> u64 {
    pairs.iter().map(|&pair| contingency.shared[pair].pixels).sum()
}

fn over_unions(contingency: &Contingency, pairs: &[usize]) -> f64 {
    let pairs_of: Vec<&SharedPixels> = pairs.iter().map(|&pair| &contingency.shared[pair]).collect();
    let mut is_lone_truth = vec![true; contingency.truth.len()];
    let mut is_lone_prediction = vec![true; contingency.predicted.len()];
    for pair in &pairs_of {
        is_lone_truth[pair.truth] = false;
        is_lone_prediction[pair.predicted] = false;
    }
    let lone = |objects: &[crate::Object], is_lone: &[bool]| -> u64 {
        objects.iter().zip(is_lone).filter(|(_, lone)| **lone).map(|(object, _)| object.area_px).sum()
    };
    let unions: u64 = pairs_of.iter().map(|pair| pair.union_px(contingency)).sum();
    let whole = unions + lone(&contingency.truth, &is_lone_truth) + lone(&contingency.predicted, &is_lone_prediction);
    intersection(contingency, pairs) as f64 / whole as f64
}

/// Pixels that hold an object in either image.
fn foreground(contingency: &Contingency) -> u64 {
    let areas: u64 = contingency.truth.iter().chain(&contingency.predicted).map(|object| object.area_px).sum();
    areas - contingency.shared.iter().map(|pair| pair.pixels).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelArray, contingency};

    fn row(truth: &[u32], predicted: &[u32]) -> AggregatedJaccard {
        let array = |ids| LabelArray::new(&[12], ids).unwrap();
        aggregated_jaccard(&contingency(array(truth), array(predicted)).unwrap())
    }

    #[test]
    fn hand_drawn_forms() {
        // True 1 and 2 (four pixels each) lie under predicted 7 (seven pixels); predicted 8 (two) is spurious.
        let found = row(&[1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0], &[7, 7, 7, 7, 7, 7, 7, 0, 0, 8, 8, 0]);
        // Unions 7 and 8 (pixel eight is true 2's alone); both true ones take 7.
        assert_eq!(found.kumar, 7.0 / (7.0 + 8.0 + 2.0));
        // Only true 1 has a partner; true 2 and predicted 8 stand alone.
        assert_eq!(found.plus, 4.0 / (7.0 + 4.0 + 2.0));
        assert_eq!(found.cellpose, 4.0 / 10.0);
    }

    #[test]
    fn nothing_and_everything() {
        let found = row(&[0; 12], &[0; 12]);
        assert!(found.kumar.is_nan() && found.plus.is_nan() && found.cellpose.is_nan());
        assert_eq!(row(&[3; 12], &[5; 12]), AggregatedJaccard { kumar: 1.0, plus: 1.0, cellpose: 1.0 });
        assert_eq!(row(&[3; 12], &[0; 12]), AggregatedJaccard { kumar: 0.0, plus: 0.0, cellpose: 0.0 });
    }
}
