//! How many pixels the objects of two label images share.

use crate::label_array::same_shape;
use crate::{LabelArray, Result};

/// An object of a label image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its id in the label image, never 0.
    pub id: u32,
    /// Its pixels, also those over the other image's background.
    pub area_px: u64,
}

/// Pixels a true and a predicted object have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedPixels {
    /// Index into [`Contingency::truth`].
    pub truth: usize,
    /// Index into [`Contingency::predicted`].
    pub predicted: usize,
    /// At least 1.
    pub pixels: u64,
}

/// The sparse contingency table of two label images, background left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contingency {
    /// True objects by ascending id.
    pub truth: Vec<Object>,
    /// Predicted objects by ascending id.
    pub predicted: Vec<Object>,
    /// Pairs that share pixels, by ascending `(truth, predicted)`.
    pub shared: Vec<SharedPixels>,
}

impl Contingency {
    /// Whether neither image holds an object.
    pub fn both_empty(&self) -> bool {
        self.truth.is_empty() && self.predicted.is_empty()
    }
}

impl SharedPixels {
    /// Intersection over union of the pair.
    pub fn iou(&self, contingency: &Contingency) -> f64 {
        self.pixels as f64 / self.union_px(contingency) as f64
    }

    /// Pixels of either object.
    pub fn union_px(&self, contingency: &Contingency) -> u64 {
        contingency.truth[self.truth].area_px + contingency.predicted[self.predicted].area_px - self.pixels
    }
}

/// Counts the pixels shared by the objects of two label images of one shape and any dimension. Ids need not be consecutive.
///
/// # Errors
/// `Shape` when the images differ in size.
pub fn contingency<'a>(truth: impl Into<LabelArray<'a>>, predicted: impl Into<LabelArray<'a>>) -> Result<Contingency> {
    let (truth, predicted) = (truth.into(), predicted.into());
    same_shape(&truth, &predicted)?;
    let mut pairs = pair_counts(truth.ids(), predicted.ids());
    let truth = objects(pairs.iter().map(|&((id, _), pixels)| (id, pixels)));
    let mut by_predicted: Vec<(u32, u64)> = pairs.iter().map(|&((_, id), pixels)| (id, pixels)).collect();
    by_predicted.sort_unstable_by_key(|&(id, _)| id);
    let predicted = objects(by_predicted.into_iter());

    pairs.retain(|&((truth, predicted), _)| truth != 0 && predicted != 0);
    let index = |objects: &[Object], id: u32| objects.partition_point(|object| object.id < id);
    let shared = pairs
        .into_iter()
        .map(|((t, p), pixels)| SharedPixels { truth: index(&truth, t), predicted: index(&predicted, p), pixels })
        .collect();
    Ok(Contingency { truth, predicted, shared })
}

/// Every pair of ids that lie over one another and how often, sorted.
///
/// Runs of equal pairs are sorted, not pixels; neighbours mostly are equal.
fn pair_counts(truth: &[u32], predicted: &[u32]) -> Vec<((u32, u32), u64)> {
    let mut runs: Vec<((u32, u32), u64)> = Vec::new();
    for pair in truth.iter().copied().zip(predicted.iter().copied()) {
        match runs.last_mut() {
            Some((last, count)) if *last == pair => *count += 1,
            _ => runs.push((pair, 1)),
        }
    }
    runs.sort_unstable_by_key(|&(pair, _)| pair);
    runs.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    runs
}

/// Sums the pixels of each id other than 0; ids come sorted.
fn objects(sorted: impl Iterator<Item = (u32, u64)>) -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::new();
    for (id, pixels) in sorted.filter(|&(id, _)| id != 0) {
        match objects.last_mut() {
            Some(last) if last.id == id => last.area_px += pixels,
            _ => objects.push(Object { id, area_px: pixels }),
        }
    }
    objects
}

#[cfg(test)]
mod tests {
    use cytomask_image::Labels;

    use super::*;
    use crate::ErrorKind;

    #[test]
    fn hand_drawn_table() {
        let truth = Labels::from_vec([2, 4], vec![9, 9, 0, 4, 9, 0, 0, 4]).unwrap();
        let predicted = Labels::from_vec([2, 4], vec![1, 1, 1, 0, 7, 0, 7, 7]).unwrap();
        let table = contingency(&truth, &predicted).unwrap();
        assert_eq!(table.truth, [Object { id: 4, area_px: 2 }, Object { id: 9, area_px: 3 }]);
        assert_eq!(table.predicted, [Object { id: 1, area_px: 3 }, Object { id: 7, area_px: 3 }]);
        let shared = |truth, predicted, pixels| SharedPixels { truth, predicted, pixels };
        assert_eq!(table.shared, [shared(0, 1, 1), shared(1, 0, 2), shared(1, 1, 1)]);
        assert_eq!(table.shared[1].iou(&table), 0.5);
    }

    #[test]
    fn sizes_must_agree() {
        let error = contingency(&Labels::zeros([3, 4]), &Labels::zeros([4, 3])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Shape);
        assert_eq!(error.to_string(), "predicted labels: expected the true labels' size 3 × 4, found 4 × 3");
    }

    #[test]
    fn any_dimension() {
        let (truth, predicted) = ([0, 1, 1, 2], [3, 3, 0, 2]);
        let array = |shape: &[usize], ids| LabelArray::new(shape, ids).unwrap();
        let flat = contingency(array(&[4], &truth), array(&[4], &predicted)).unwrap();
        assert_eq!(contingency(array(&[2, 1, 2], &truth), array(&[2, 1, 2], &predicted)).unwrap(), flat);
        let error = contingency(array(&[2, 1, 2], &truth), array(&[2, 2], &predicted)).unwrap_err();
        assert_eq!(error.to_string(), "predicted labels: expected the true labels' size 2 × 1 × 2, found 2 × 2");
    }

    #[test]
    fn large_ids_are_ids_like_others() {
        let labels = Labels::from_vec([1, 3], vec![u32::MAX, 0, 70_000]).unwrap();
        let table = contingency(&labels, &labels).unwrap();
        assert_eq!(table.truth.iter().map(|object| object.id).collect::<Vec<_>>(), [70_000, u32::MAX]);
        assert_eq!(table.shared.len(), 2);
    }
}
