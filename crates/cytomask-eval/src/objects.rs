//! One record an object: how well it was found and by which.

use crate::{Contingency, Criterion, Object, Result, SharedPixels, matching, splits_and_merges};

/// Which image an object is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The true labels.
    Truth,
    /// The predicted labels.
    Predicted,
}

/// An object and its partners in the other image.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectScore {
    /// Where the object is.
    pub side: Side,
    /// Its id there.
    pub id: u32,
    /// Its pixels.
    pub area_px: u64,
    /// The object of the other image with the highest IoU (of equal ones the lowest id), which may be the best of several.
    pub best_id: Option<u32>,
    /// That IoU, 0 without one.
    pub best_iou: f64,
    /// Its partner in the matching.
    pub matched_id: Option<u32>,
    /// The partner's IoU, 0 without one.
    pub matched_iou: f64,
    /// Objects of the other image that lie in it with more than half of their pixels: a true object with two or more was cut
    /// apart, a predicted one runs as many together.
    pub contains: u32,
}

/// Every true object by ascending id, then every predicted one; partners are those of [`matching`] at an IoU of `threshold`.
///
/// # Errors
/// `Value` when `threshold` is not above 0.
pub fn object_scores(contingency: &Contingency, threshold: f64) -> Result<Vec<ObjectScore>> {
    let matched = matching(contingency, threshold, Criterion::IntersectionOverUnion)?;
    let counts = splits_and_merges(contingency);
    let mut scores = records(Side::Truth, &contingency.truth, &contingency.predicted, contingency, |pair| {
        (pair.truth, pair.predicted)
    });
    let mut predicted = records(Side::Predicted, &contingency.predicted, &contingency.truth, contingency, |pair| {
        (pair.predicted, pair.truth)
    });
    for (scores, counts) in [(&mut scores, counts.pieces), (&mut predicted, counts.swallowed)] {
        for (score, contains) in scores.iter_mut().zip(counts) {
            score.contains = contains;
        }
    }
    for pair in &matched.pairs {
        for (scores, id, partner) in
            [(&mut scores, pair.truth, pair.predicted), (&mut predicted, pair.predicted, pair.truth)]
        {
            if let Ok(index) = scores.binary_search_by_key(&id, |score| score.id) {
                scores[index].matched_id = Some(partner);
                scores[index].matched_iou = pair.score;
            }
        }
    }
    scores.extend(predicted);
    Ok(scores)
}

fn records(
    side: Side,
    objects: &[Object],
    others: &[Object],
    contingency: &Contingency,
    own_and_other: impl Fn(&SharedPixels) -> (usize, usize),
) -> Vec<ObjectScore> {
    let unmatched = |object: &Object| ObjectScore {
        side,
        id: object.id,
        area_px: object.area_px,
        best_id: None,
        best_iou: 0.0,
        matched_id: None,
        matched_iou: 0.0,
        contains: 0,
    };
    let mut records: Vec<ObjectScore> = objects.iter().map(unmatched).collect();
    for pair in &contingency.shared {
        let (own, other) = own_and_other(pair);
        let iou = pair.iou(contingency);
        if iou > records[own].best_iou {
            records[own].best_iou = iou;
            records[own].best_id = Some(others[other].id);
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelArray, contingency};

    #[test]
    fn hand_drawn_records() {
        let array = |ids| LabelArray::new(&[2, 6], ids).unwrap();
        let truth = [4, 4, 4, 4, 0, 0, 8, 8, 8, 8, 0, 2];
        let predicted = [7, 7, 7, 0, 0, 0, 5, 5, 6, 6, 0, 0];
        let found = object_scores(&contingency(array(&truth), array(&predicted)).unwrap(), 0.5).unwrap();
        let record = |side, id, area_px, best: Option<u32>, best_iou, matched: Option<u32>, matched_iou, contains| {
            ObjectScore { side, id, area_px, best_id: best, best_iou, matched_id: matched, matched_iou, contains }
        };
        assert_eq!(
            found,
            [
                record(Side::Truth, 2, 1, None, 0.0, None, 0.0, 0),
                record(Side::Truth, 4, 4, Some(7), 0.75, Some(7), 0.75, 1),
                record(Side::Truth, 8, 4, Some(5), 0.5, Some(5), 0.5, 2),
                record(Side::Predicted, 5, 2, Some(8), 0.5, Some(8), 0.5, 0),
                record(Side::Predicted, 6, 2, Some(8), 0.5, None, 0.0, 0),
                record(Side::Predicted, 7, 3, Some(4), 0.75, Some(4), 0.75, 1),
            ]
        );
    }
}
