//! What a strategy returns.

use cytomask_image::{Labels, Rect};

/// One object of a [`Segmentation`].
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectRecord {
    /// The object's id in the label image, `1..=n`.
    pub id: u32,
    /// Pixels it covers in the label image.
    pub area_px: u64,
    /// Its tight box in the label image.
    pub rect: Rect,
    /// Mean position `[y, x]` of its pixels.
    pub centroid: [f64; 2],
    /// How sure the strategy is, 0–1. AMG and APG: predicted IoU × stability; AIS: mean foreground probability.
    pub score: f32,
    /// The network's own IoU estimate, where masks were prompted for.
    pub predicted_iou: Option<f32>,
    /// SAM's stability score, where masks were prompted for.
    pub stability_score: Option<f32>,
    /// The prompt point `[y, x]` the object came from, if it came from one.
    pub prompt: Option<[f32; 2]>,
    /// Whether the object was larger than what the network was shown of it, so that its outline may be wrong where pieces meet.
    pub cut: bool,
}

/// What a strategy knows of an object beyond its pixels; the fields are those of [`ObjectRecord`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ObjectOrigin {
    /// How sure the strategy is, 0–1.
    pub score: f32,
    /// The network's own IoU estimate, where masks were prompted for.
    pub predicted_iou: Option<f32>,
    /// SAM's stability score, where masks were prompted for.
    pub stability_score: Option<f32>,
    /// The prompt point `[y, x]` the object came from, if it came from one.
    pub prompt: Option<[f32; 2]>,
    /// Whether the object was larger than what the network was shown of it, so that its outline may be wrong where pieces meet.
    pub cut: bool,
}

/// A label image and one record for each of its objects, in order of id.
#[derive(Clone, Debug)]
pub struct Segmentation {
    /// Ids `1..=n`, 0 is background.
    pub labels: Labels,
    /// `objects[i].id == i + 1`.
    pub objects: Vec<ObjectRecord>,
}

impl Segmentation {
    /// No object in an image of `[h, w]`.
    pub fn empty(size: [u32; 2]) -> Self {
        Self { labels: Labels::zeros(size), objects: Vec::new() }
    }

    /// Measures every object of a label image. Ids are made consecutive first, in ascending order; `describe` is asked with
    /// the id an object had before that.
    pub fn from_labels(mut labels: Labels, mut describe: impl FnMut(u32) -> ObjectOrigin) -> Self {
        let old_ids = labels.relabel();
        let extents = labels.extents();
        let mut sums = vec![[0_u64; 2]; extents.len()];
        let width = labels.size()[1].max(1) as usize;
        for (y, row) in labels.as_slice().chunks_exact(width).enumerate() {
            for (x, &id) in row.iter().enumerate() {
                if id != 0 {
                    let sum = &mut sums[id as usize - 1];
                    *sum = [sum[0] + y as u64, sum[1] + x as u64];
                }
            }
        }
        let objects = extents
            .into_iter()
            .zip(sums)
            .zip(old_ids.into_iter().skip(1))
            .enumerate()
            .map(|(index, (((area_px, rect), [sum_y, sum_x]), old_id))| {
                let ObjectOrigin { score, predicted_iou, stability_score, prompt, cut } = describe(old_id);
                let centroid = [sum_y as f64 / area_px as f64, sum_x as f64 / area_px as f64];
                let id = index as u32 + 1;
                ObjectRecord { id, area_px, rect, centroid, score, predicted_iou, stability_score, prompt, cut }
            })
            .collect();
        Self { labels, objects }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_measured_and_asked_for_by_their_old_ids() {
        let labels = Labels::from_vec([2, 4], vec![7, 7, 0, 3, 7, 0, 0, 3]).unwrap();
        let segmentation =
            Segmentation::from_labels(labels, |id| ObjectOrigin { score: id as f32, ..ObjectOrigin::default() });
        assert_eq!(segmentation.labels.as_slice(), [2, 2, 0, 1, 2, 0, 0, 1]);
        let [first, second] = segmentation.objects.as_slice() else { panic!("two objects") };
        assert_eq!((first.id, first.area_px, first.score), (1, 2, 3.0));
        assert_eq!(first.rect, Rect { y0: 0, x0: 3, y1: 2, x1: 4 });
        assert_eq!(first.centroid, [0.5, 3.0]);
        assert_eq!((second.id, second.area_px, second.score), (2, 3, 7.0));
        assert_eq!(second.centroid, [1.0 / 3.0, 1.0 / 3.0]);
    }

    #[test]
    fn an_image_without_pixels_or_objects_has_no_records() {
        for size in [[0, 0], [0, 5], [5, 0], [3, 4]] {
            let segmentation = Segmentation::from_labels(Labels::zeros(size), |_| ObjectOrigin::default());
            assert!(segmentation.objects.is_empty());
        }
    }
}
