//! Masks painted into one label image, as µSAM's `mask_data_to_segmentation` does.

use cytomask_image::{Labels, Mask, Rect};

use super::components::{Connectivity, label_mask};

/// Which mask keeps a pixel that several claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The largest (µSAM's `merge_exclusively`, used by APG).
    Largest,
    /// The smallest, which lies on top (used by AMG).
    Smallest,
}

/// How masks become a label image.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    /// Masks below this area are not painted, and painted pieces below it are removed.
    pub min_size_px: u64,
    /// Which mask keeps a pixel that several claim.
    pub claim: Claim,
    /// Whether pieces of a mask that no longer touch (by an edge) become objects of their own.
    pub separate_pieces: bool,
    /// Whether the label with most pixels is removed, which for a grid of prompts is often the background. It may already be
    /// label 0, then nothing changes.
    pub remove_largest: bool,
    /// Reproduces a fault of the reference: where no pixel at all is left to the background, the first object becomes it.
    pub compat: bool,
}

/// What [`Paint::paint`] returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Painted {
    /// Ids `1..=n`, 0 is background.
    pub labels: Labels,
    /// The index of the mask each object is (a piece) of; index 0 is object 1.
    pub mask_of_object: Vec<usize>,
}

impl Paint {
    /// Paints masks, in the frame of an image of `[h, w]`, by falling area; masks of equal area in the order given.
    ///
    /// Ids follow the first pixels of the objects in row-major order with `separate_pieces`, else the order of painting. (Beyond
    /// 512 × 512 the reference numbers block by block; the objects are the same.)
    pub fn paint(&self, size: [u32; 2], masks: &[&Mask]) -> Painted {
        let mut order: Vec<usize> = (0..masks.len()).filter(|&index| masks[index].area() >= self.min_size_px).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(masks[index].area()));

        let mut labels = Labels::zeros(size);
        for (position, &index) in order.iter().enumerate() {
            let id = position as u32 + 1;
            match self.claim {
                Claim::Largest => labels.paint_where_empty(masks[index], id),
                Claim::Smallest => paint_over(&mut labels, masks[index], id),
            }
        }
        // From here on in place: a second label image would be the largest thing in memory.
        let mut mask_of_label = order.clone();
        if self.separate_pieces {
            for (position, &index) in order.iter().enumerate() {
                let next = mask_of_label.len() as u32 + 1;
                let extra = separate(&mut labels, &masks[index].rect(), position as u32 + 1, next);
                mask_of_label.extend(std::iter::repeat_n(index, extra as usize));
            }
            number_by_position(&mut labels, &mut mask_of_label);
        }
        let mut counts = vec![0_u64; mask_of_label.len() + 1];
        for &label in labels.as_slice() {
            counts[label as usize] += 1;
        }
        let mut removed: Vec<bool> = counts.iter().map(|&count| count < self.min_size_px).collect();
        if self.remove_largest {
            // The first of equals, as NumPy's argmax: the background before any object.
            let largest = (0..counts.len()).max_by_key(|&label| (counts[label], std::cmp::Reverse(label)));
            removed[largest.unwrap_or(0)] = true;
        }
        if self.compat {
            let background_left = (0..counts.len()).any(|label| counts[label] > 0 && (label == 0 || removed[label]));
            if let (false, Some(first)) = (background_left, (1..counts.len()).find(|&label| counts[label] > 0)) {
                removed[first] = true;
            }
        }
        for label in labels.as_mut_slice() {
            if removed[*label as usize] {
                *label = 0;
            }
        }
        let kept = labels.relabel();
        let mask_of_object = kept.into_iter().skip(1).map(|label| mask_of_label[label as usize - 1]).collect();
        Painted { labels, mask_of_object }
    }
}

/// Gives every piece of object `id` but its first an id of its own, from `next` on, and returns how many there were. Pieces touch
/// by edges; all of the object lies inside `rect`.
fn separate(labels: &mut Labels, rect: &Rect, id: u32, next: u32) -> u32 {
    if rect.is_empty() {
        return 0;
    }
    let mine: Vec<bool> = (rect.y0..rect.y1)
        .flat_map(|y| (rect.x0..rect.x1).map(move |x| (y, x)))
        .map(|(y, x)| labels.at(y, x) == id)
        .collect();
    let pieces = label_mask(rect.size(), &mine, Connectivity::Four);
    let count = pieces.max_id();
    if count < 2 {
        return 0;
    }
    let width = labels.size()[1] as usize;
    let ids = labels.as_mut_slice();
    for (index, &piece) in pieces.as_slice().iter().enumerate() {
        if piece > 1 {
            let (y, x) = (index / rect.width() as usize, index % rect.width() as usize);
            ids[(rect.y0 as usize + y) * width + rect.x0 as usize + x] = next + piece - 2;
        }
    }
    count - 1
}

/// Numbers objects in the order of their first pixels; `values[id − 1]` holds something for every id and follows. Objects without
/// pixels go.
pub(crate) fn number_by_position(labels: &mut Labels, values: &mut Vec<usize>) {
    let mut new = vec![0_u32; values.len() + 1];
    let mut moved = Vec::with_capacity(values.len());
    for id in labels.as_mut_slice() {
        if *id != 0 {
            let old = *id as usize;
            if new[old] == 0 {
                moved.push(values[old - 1]);
                new[old] = moved.len() as u32;
            }
            *id = new[old];
        }
    }
    *values = moved;
}

fn paint_over(labels: &mut Labels, mask: &Mask, id: u32) {
    let width = labels.size()[1] as usize;
    let ids = labels.as_mut_slice();
    mask.for_each_run(|y, x0, x1| {
        let row = y as usize * width;
        ids[row + x0 as usize..row + x1 as usize].fill(id);
    });
}

#[cfg(test)]
mod tests {
    use super::super::components::tests::{drawn, noise};
    use super::*;

    const APG: Paint =
        Paint { min_size_px: 0, claim: Claim::Largest, separate_pieces: true, remove_largest: false, compat: false };

    fn masks_of(drawings: &[&[&str]]) -> Vec<Mask> {
        drawings
            .iter()
            .map(|rows| {
                let labels = drawn(rows);
                let set: Vec<bool> = labels.as_slice().iter().map(|&id| id != 0).collect();
                Mask::from_bools(labels.size(), &set)
            })
            .collect()
    }

    fn paint(paint: Paint, size: [u32; 2], masks: &[Mask]) -> Painted {
        paint.paint(size, &masks.iter().collect::<Vec<_>>())
    }

    #[test]
    fn the_largest_keeps_what_it_claims_and_pieces_separate() {
        let masks = masks_of(&[
            &["......", "111111", "......"], // cut in two by the next, larger one
            &["..11..", "..11..", "..111."],
        ]);
        let painted = paint(APG, [3, 6], &masks);
        assert_eq!(painted.labels, drawn(&["..11..", "221133", "..111."]));
        assert_eq!(painted.mask_of_object, [1, 0, 0]);
        let over = paint(Paint { claim: Claim::Smallest, ..APG }, [3, 6], &masks);
        assert_eq!(over.labels, drawn(&["..11..", "222222", "..333."]));
        assert_eq!(over.mask_of_object, [1, 0, 1]);
        let whole = paint(Paint { separate_pieces: false, ..APG }, [3, 6], &masks);
        assert_eq!(whole.labels, drawn(&["..11..", "221122", "..111."]));
        assert_eq!(whole.mask_of_object, [1, 0]);
    }

    #[test]
    fn equal_areas_keep_the_order_given() {
        let masks = masks_of(&[&["11."], &[".11"]]);
        assert_eq!(paint(APG, [1, 3], &masks).labels, drawn(&["112"]));
        let swapped: Vec<Mask> = masks.into_iter().rev().collect();
        let painted = paint(APG, [1, 3], &swapped);
        assert_eq!((painted.labels, painted.mask_of_object), (drawn(&["122"]), vec![1, 0]));
    }

    #[test]
    fn exactly_the_least_size_survives() {
        let masks = masks_of(&[&["111...", "......"], &["....11", "......"]]);
        let painted = paint(Paint { min_size_px: 3, ..APG }, [2, 6], &masks);
        assert_eq!((painted.labels, painted.mask_of_object), (drawn(&["111...", "......"]), vec![0]));
        // Four pixels painted as pieces of three and one: the one goes.
        let masks = masks_of(&[&["1111..", "......"], &["..1...", "..1111"]]);
        let painted = paint(Paint { min_size_px: 2, ..APG }, [2, 6], &masks);
        assert_eq!(painted.labels, drawn(&["112...", "..2222"]));
    }

    #[test]
    fn a_full_image_keeps_its_first_object_unless_told_otherwise() {
        let masks = masks_of(&[&["11."], &["..1"]]);
        assert_eq!(paint(APG, [1, 3], &masks).labels, drawn(&["112"]));
        let faulty = paint(Paint { compat: true, ..APG }, [1, 3], &masks);
        assert_eq!((faulty.labels, faulty.mask_of_object), (drawn(&["..1"]), vec![1]));
        let one_pixel_left = masks_of(&[&["11.."], &["..1."]]);
        assert_eq!(paint(Paint { compat: true, ..APG }, [1, 4], &one_pixel_left).labels, drawn(&["112."]));
    }

    #[test]
    fn the_largest_label_goes_when_asked_even_if_it_is_the_background() {
        let largest = Paint { remove_largest: true, ..APG };
        assert_eq!(paint(largest, [1, 5], &masks_of(&[&["111.."], &["...1."]])).labels, drawn(&["...1."]));
        assert_eq!(paint(largest, [1, 5], &masks_of(&[&["11..."]])).labels, drawn(&["11..."]));
    }

    #[test]
    fn nothing_to_paint() {
        assert_eq!(paint(APG, [2, 2], &[]).labels, Labels::zeros([2, 2]));
        assert_eq!(paint(APG, [0, 0], &[]).labels, Labels::zeros([0, 0]));
        assert_eq!(paint(APG, [1, 1], &[Mask::default()]).mask_of_object, Vec::<usize>::new());
    }

    /// The slow twin: every pixel asks all masks which one keeps it.
    #[test]
    fn agrees_with_asking_every_mask() {
        let size = [97, 131];
        let at = noise(5, 3 * 40);
        let discs: Vec<Mask> = at
            .chunks(3)
            .map(|v| {
                let (cy, cx, r) = (v[0] * 97.0, v[1] * 131.0, 3.0 + 15.0 * v[2]);
                let set: Vec<bool> = (0..97 * 131)
                    .map(|i| ((i / 131) as f32 - cy).powi(2) + ((i % 131) as f32 - cx).powi(2) < r * r)
                    .collect();
                Mask::from_bools(size, &set)
            })
            .collect();
        let painted = paint(Paint { separate_pieces: false, ..APG }, size, &discs);
        for y in 0..size[0] {
            for x in 0..size[1] {
                let keeper = (0..discs.len())
                    .filter(|&i| discs[i].contains(y, x))
                    .min_by_key(|&i| (std::cmp::Reverse(discs[i].area()), i));
                let label = painted.labels.at(y, x);
                assert_eq!((label > 0).then(|| painted.mask_of_object[label as usize - 1]), keeper);
            }
        }
    }
}
