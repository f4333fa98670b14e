//! Greedy non-maximum suppression of boxes and of masks.
//!
//! The highest score is kept, everything that overlaps it by more than the threshold is dropped, and so on down the scores.
//! [`box_nms`] gives what `torchvision.ops.nms` gives on SAM's boxes, [`mask_nms`] what µSAM's `apply_nms`
//! (`micro_sam/util.py`) gives on masks; [`proposed_box_nms`] and [`voted_boxes`] work on boxes that networks propose. All look only
//! at neighbours, through a grid of cells over the boxes, so that the time grows with the number of touching pairs and not with the
//! square of the number of objects.
//!
//! Scores are taken in descending order; equal scores keep their input order (upstream's order of equal scores is
//! unspecified) and NaN comes last. Overlaps are divided in `f32`, as upstream divides them, because a threshold such as 0.7 may
//! be met exactly.

use cytomask_image::{Mask, Rect};

use crate::model::{BoxPrompt, ProposedBox};

/// What the common area of two masks is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Area of the union.
    #[default]
    IntersectionOverUnion,
    /// Area of the smaller mask (plus 1e-6): a mask inside another one overlaps it fully.
    IntersectionOverMinimum,
}

/// Indices of the masks that survive, in order of descending score. A mask is kept when its overlap with every kept mask of a
/// higher score is at most `threshold`, which is at least 0.
///
/// `compat_inclusive_boxes` repeats upstream: there two masks can only suppress each other when their boxes, with inclusive last
/// pixels taken as corners, share a positive area. So masks one pixel wide or high never suppress and are never suppressed, and
/// neither do two masks whose boxes share a single row or column.
///
/// Masks without a score are ignored.
pub fn mask_nms(
    masks: &[&Mask],
    scores: &[f32],
    threshold: f32,
    overlap: Overlap,
    compat_inclusive_boxes: bool,
) -> Vec<usize> {
    let rects: Vec<Rect> = masks.iter().map(|mask| mask.rect()).collect();
    greedy(&rects, scores, |kept, other| {
        if compat_inclusive_boxes {
            let common = rects[kept].intersection(&rects[other]);
            if common.height() < 2 || common.width() < 2 {
                return false;
            }
        }
        // The boxes and areas bound the overlap from above; most pairs need no look at the runs.
        let bound = rects[kept].intersection(&rects[other]).area().min(masks[kept].area()).min(masks[other].area());
        mask_overlap(masks[kept], masks[other], overlap, bound) > threshold
            && mask_overlap(masks[kept], masks[other], overlap, masks[kept].intersection_area(masks[other])) > threshold
    })
}

/// Indices of the masks that survive when earlier ones come before later ones and `may_suppress(earlier, later)` says which pairs
/// count: a mask is dropped when it overlaps a kept, earlier one by more than `threshold`. In the order given.
pub fn ordered_mask_nms(
    masks: &[&Mask],
    threshold: f32,
    overlap: Overlap,
    may_suppress: impl Fn(usize, usize) -> bool,
) -> Vec<usize> {
    let rects: Vec<Rect> = masks.iter().map(|mask| mask.rect()).collect();
    // Equal scores keep the order of the input.
    greedy(&rects, &vec![0.0; masks.len()], |kept, other| {
        may_suppress(kept, other)
            && mask_overlap(masks[kept], masks[other], overlap, masks[kept].intersection_area(masks[other])) > threshold
    })
}

/// Overlap of two masks whose common area is `common`; 0 for two empty masks.
fn mask_overlap(a: &Mask, b: &Mask, overlap: Overlap, common: u64) -> f32 {
    match overlap {
        Overlap::IntersectionOverUnion => match a.area() + b.area() - common {
            0 => 0.0,
            union => common as f32 / union as f32,
        },
        Overlap::IntersectionOverMinimum => common as f32 / (a.area().min(b.area()) as f32 + 1e-6),
    }
}

/// Indices of the boxes that survive, in order of descending score: `torchvision.ops.nms` on SAM's boxes.
///
/// `boxes` are tight half-open rectangles; SAM takes the indices of the first and last pixel as corners, so that each side is
/// one less than the extent and a box one pixel wide has no area. Such a box overlaps nothing. The threshold is compared in
/// `f64`, at least 0. Boxes without a score are ignored.
pub fn box_nms(boxes: &[Rect], scores: &[f32], threshold: f64) -> Vec<usize> {
    greedy(boxes, scores, |kept, other| {
        let (a, b) = (inclusive_xyxy(&boxes[kept]), inclusive_xyxy(&boxes[other]));
        let area = |[x0, y0, x1, y1]: [f32; 4]| (x1 - x0) * (y1 - y0);
        let common = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0) * (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
        // 0 / 0 is NaN, which is not above any threshold.
        f64::from(common / (area(a) + area(b) - common)) > threshold
    })
}

/// Indices of the proposed boxes that survive, in order of descending score: of two whose intersection over union is above
/// `threshold` the lower rated one is dropped. Boxes go from their first to their last pixel, both included.
pub fn proposed_box_nms(boxes: &[ProposedBox], threshold: f64) -> Vec<usize> {
    let rects: Vec<Rect> = boxes.iter().map(|proposed| touched(&proposed.bounds)).collect();
    let scores: Vec<f32> = boxes.iter().map(|proposed| proposed.score).collect();
    greedy(&rects, &scores, |kept, other| {
        f64::from(intersection_over_union(&boxes[kept].bounds, &boxes[other].bounds)) > threshold
    })
}

/// Each box of `chosen` as the mean of all boxes that agree with it, itself among them: those whose intersection over union with it
/// is above `agreement`, by the square of their score. A network that sees one object from many places errs less in the mean (box
/// voting, Gidaris & Komodakis, ICCV 2015).
pub fn voted_boxes(boxes: &[ProposedBox], chosen: &[usize], agreement: f64) -> Vec<BoxPrompt> {
    let rects: Vec<Rect> = boxes.iter().map(|proposed| touched(&proposed.bounds)).collect();
    let mut cells = Cells::new(&rects);
    rects.iter().enumerate().for_each(|(index, rect)| cells.insert(rect, index as u32));
    let mut asked = vec![usize::MAX; boxes.len()];
    let voted = |&index: &usize| {
        let own = &boxes[index].bounds;
        let (mut sum, mut total) = ([0.0_f64; 4], 0.0);
        for other in cells.near(&rects[index], index, &mut asked) {
            let ProposedBox { bounds, score, .. } = boxes[other];
            if f64::from(intersection_over_union(own, &bounds)) > agreement {
                let weight = f64::from(score) * f64::from(score);
                total += weight;
                let corners = [bounds.y0, bounds.x0, bounds.y1, bounds.x1];
                sum.iter_mut().zip(corners).for_each(|(sum, corner)| *sum += weight * f64::from(corner));
            }
        }
        // No vote counts where all scores are 0.
        if total > 0.0 {
            let [y0, x0, y1, x1] = sum.map(|sum| (sum / total) as f32);
            BoxPrompt { y0, x0, y1, x1 }
        } else {
            *own
        }
    };
    chosen.iter().map(voted).collect()
}

/// The pixels a box touches.
fn touched(bounds: &BoxPrompt) -> Rect {
    let first = |at: f32| at.floor().max(0.0) as u32;
    let end = |at: f32| (at.ceil().max(0.0) as u32).saturating_add(1);
    Rect { y0: first(bounds.y0), x0: first(bounds.x0), y1: end(bounds.y1), x1: end(bounds.x1) }
}

fn intersection_over_union(a: &BoxPrompt, b: &BoxPrompt) -> f32 {
    let side = |first: f32, last: f32| (last - first + 1.0).max(0.0);
    let area = |of: &BoxPrompt| side(of.y0, of.y1) * side(of.x0, of.x1);
    let common = side(a.y0.max(b.y0), a.y1.min(b.y1)) * side(a.x0.max(b.x0), a.x1.min(b.x1));
    // Boxes without area overlap nothing.
    common / (area(a) + area(b) - common).max(f32::MIN_POSITIVE)
}

/// SAM's box of a tight half-open rectangle: first and last pixel indices, x first; all zero when it is empty.
fn inclusive_xyxy(rect: &Rect) -> [f32; 4] {
    if rect.is_empty() {
        return [0.0; 4];
    }
    [rect.x0 as f32, rect.y0 as f32, (rect.x1 - 1) as f32, (rect.y1 - 1) as f32]
}

/// Indices in order of descending score, ties in input order, NaN last.
fn descending(scores: &[f32], len: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len.min(scores.len())).collect();
    let key = |index: usize| if scores[index].is_nan() { f32::NEG_INFINITY } else { scores[index] };
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)).then(scores[a].is_nan().cmp(&scores[b].is_nan())));
    order
}

/// Keeps, in order of descending score, what no kept neighbour suppresses. `suppresses(kept, other)` is asked only about pairs
/// whose rectangles intersect.
fn greedy(rects: &[Rect], scores: &[f32], mut suppresses: impl FnMut(usize, usize) -> bool) -> Vec<usize> {
    let order = descending(scores, rects.len());
    let mut cells = Cells::new(rects);
    let mut asked = vec![usize::MAX; rects.len()];
    let mut kept = Vec::new();
    for candidate in order {
        let rect = &rects[candidate];
        let suppressed = cells
            .near(rect, candidate, &mut asked)
            .any(|other| !rects[other].intersection(rect).is_empty() && suppresses(other, candidate));
        if !suppressed {
            cells.insert(rect, candidate as u32);
            kept.push(candidate);
        }
    }
    kept
}

/// A grid of square cells that lists, for each cell, the items whose rectangle touches it.
struct Cells {
    side: u32,
    columns: usize,
    items: Vec<Vec<u32>>,
}

impl Cells {
    /// Cells about as large as the mean rectangle, so that items times cells touched stays of the order of the items.
    fn new(rects: &[Rect]) -> Self {
        let (height, width) = rects.iter().fold((1, 1), |(h, w), rect| (rect.y1.max(h), rect.x1.max(w)));
        let covered: u64 = rects.iter().map(Rect::area).sum();
        let mean_side = (covered as f64 / rects.len().max(1) as f64).sqrt();
        // Few small items on a large image need no more cells than items.
        let spread_side = (f64::from(height) * f64::from(width) / rects.len().max(1) as f64 / 4.0).sqrt();
        let side = mean_side.max(spread_side).ceil().max(1.0) as u32;
        let [rows, columns] = [height, width].map(|extent| extent.div_ceil(side) as usize);
        Self { side, columns, items: vec![Vec::new(); rows * columns] }
    }

    /// The cells a rectangle touches; none when it is empty.
    fn covering(&self, rect: &Rect) -> impl Iterator<Item = usize> + use<> {
        let range = |low: u32, high: u32| (low / self.side) as usize..high.div_ceil(self.side) as usize;
        let (rows, columns) = (range(rect.y0, rect.y1), range(rect.x0, rect.x1));
        let (empty, stride) = (rect.is_empty(), self.columns);
        rows.filter(move |_| !empty).flat_map(move |row| columns.clone().map(move |column| row * stride + column))
    }

    /// The items in the cells that `rect` touches, each once although neighbours share several cells: `asked[i]` is the last item for
    /// which `i` was given out, and `item` the one that asks.
    fn near<'a>(&'a self, rect: &Rect, item: usize, asked: &'a mut [usize]) -> impl Iterator<Item = usize> + use<'a> {
        let all = self.covering(rect).flat_map(|cell| &self.items[cell]).map(|&other| other as usize);
        all.filter(move |&other| std::mem::replace(&mut asked[other], item) != item)
    }

    fn insert(&mut self, rect: &Rect, item: u32) {
        for cell in self.covering(rect) {
            self.items[cell].push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::Disc;

    fn proposed(y0: f32, x0: f32, y1: f32, x1: f32, score: f32) -> ProposedBox {
        ProposedBox { bounds: BoxPrompt { y0, x0, y1, x1 }, point: [0, 0], score }
    }

    #[test]
    fn proposed_boxes_compete_by_their_scores_and_agree_by_their_overlap() {
        // The first three overlap by 0.8 and more: 8 of 10 columns, both included.
        let boxes = [
            proposed(0.0, 0.0, 9.0, 9.0, 0.5),
            proposed(0.0, 1.0, 9.0, 10.0, 1.0),
            proposed(0.0, 1.0, 9.0, 11.0, 0.5),
            proposed(0.0, 30.5, 9.0, 39.5, 0.1),
            proposed(-3.0, -4.0, -1.0, -2.0, 0.2),
        ];
        assert_eq!(proposed_box_nms(&boxes, 0.6), [1, 4, 3]);
        assert_eq!(proposed_box_nms(&boxes, 0.95), [1, 0, 2, 4, 3]);
        let voted = voted_boxes(&boxes, &[1, 3], 0.7);
        // Weights 1, 1/4 and 1/4.
        assert!((voted[0].x0 - 1.25 / 1.5).abs() < 1e-6 && (voted[0].x1 - (10.0 + 2.25 + 2.75) / 1.5).abs() < 1e-6);
        assert_eq!(voted[1], boxes[3].bounds);
        assert_eq!(voted_boxes(&boxes, &[0], 1.0), [boxes[0].bounds], "nothing agrees more than fully");
        assert!(proposed_box_nms(&[], 0.5).is_empty());
    }

    /// Deterministic numbers in `0..bound`.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    /// The definition, over all pairs and pixels.
    fn slow_mask_nms(
        masks: &[Vec<bool>],
        width: usize,
        scores: &[f32],
        threshold: f32,
        overlap: Overlap,
        compat: bool,
    ) -> Vec<usize> {
        let extent = |mask: &[bool]| {
            let set: Vec<(usize, usize)> =
                mask.iter().enumerate().filter(|&(_, &set)| set).map(|(i, _)| (i / width, i % width)).collect();
            let range = |values: Vec<usize>| (values.iter().copied().min(), values.iter().copied().max());
            (range(set.iter().map(|&(y, _)| y).collect()), range(set.iter().map(|&(_, x)| x).collect()))
        };
        let spans = |a: (Option<usize>, Option<usize>), b: (Option<usize>, Option<usize>)| match (a, b) {
            ((Some(a0), Some(a1)), (Some(b0), Some(b1))) => a1.min(b1) > a0.max(b0),
            _ => false,
        };
        let mut left: Vec<usize> = (0..masks.len()).collect();
        let mut kept = Vec::new();
        while let Some(best) = left.iter().copied().reduce(|a, b| if scores[b] > scores[a] { b } else { a }) {
            kept.push(best);
            left.retain(|&other| {
                let (a, b) = (&masks[best], &masks[other]);
                let common = a.iter().zip(b).filter(|&(&a, &b)| a && b).count();
                let count = |mask: &[bool]| mask.iter().filter(|&&set| set).count();
                let value = match overlap {
                    Overlap::IntersectionOverUnion => common as f32 / (count(a) + count(b) - common).max(1) as f32,
                    Overlap::IntersectionOverMinimum => common as f32 / (count(a).min(count(b)) as f32 + 1e-6),
                };
                let (ea, eb) = (extent(a), extent(b));
                let seen = !compat || (spans(ea.0, eb.0) && spans(ea.1, eb.1));
                other != best && !(seen && value > threshold)
            });
        }
        kept
    }

    #[test]
    fn neighbours_through_cells_equal_all_pairs() {
        let size = [97, 131];
        let mut random = Random(7);
        for round in 0..24 {
            let mut masks = Vec::new();
            for _ in 0..40 {
                let (y, x) = (random.below(110) as f32 - 5.0, random.below(140) as f32 - 5.0);
                let radius = [0.6, 3.5, 9.0, 14.2, 60.0][random.below(5) as usize];
                let disc = Disc { y, x, radius }.mask(size);
                let thin = random.below(4) == 0;
                masks.push(if thin {
                    Mask::from_runs(disc.runs().iter().copied().filter(|run| run.0 == disc.rect().y0).collect())
                } else {
                    disc
                });
            }
            let scores: Vec<f32> = (0..40).map(|_| random.below(12) as f32 / 12.0).collect();
            let pixels: Vec<Vec<bool>> = masks.iter().map(|mask| mask.to_bools(size)).collect();
            let masks: Vec<&Mask> = masks.iter().collect();
            let threshold = [0.0, 0.1, 0.5, 0.9][round % 4];
            for overlap in [Overlap::IntersectionOverUnion, Overlap::IntersectionOverMinimum] {
                for compat in [false, true] {
                    let slow = slow_mask_nms(&pixels, size[1] as usize, &scores, threshold, overlap, compat);
                    assert_eq!(
                        mask_nms(&masks, &scores, threshold, overlap, compat),
                        slow,
                        "{round} {overlap:?} {compat}"
                    );
                }
            }
        }
    }

    #[test]
    fn hand_drawn_row() {
        // Ten pixels, nine of them again, and the last three: IoU 0.9, 0.3, 2/10.
        let masks = [vec![(0, 0, 10)], vec![(0, 0, 9)], vec![(0, 7, 10)]].map(Mask::from_runs);
        let masks: Vec<&Mask> = masks.iter().collect();
        let kept = |threshold, overlap, compat| mask_nms(&masks, &[0.5, 0.9, 0.5], threshold, overlap, compat);
        assert_eq!(kept(0.9, Overlap::IntersectionOverUnion, false), [1, 0, 2], "equal to the threshold is kept");
        assert_eq!(kept(0.89, Overlap::IntersectionOverUnion, false), [1, 2]);
        assert_eq!(kept(0.1, Overlap::IntersectionOverUnion, false), [1]);
        assert_eq!(kept(0.7, Overlap::IntersectionOverMinimum, false), [1, 2]);
        assert_eq!(kept(0.5, Overlap::IntersectionOverMinimum, false), [1]);
        assert_eq!(
            kept(0.1, Overlap::IntersectionOverMinimum, true),
            [1, 0, 2],
            "upstream overlooks masks one pixel high"
        );
    }

    #[test]
    fn scores_decide_the_order() {
        let masks = [Mask::from_runs(vec![(0, 0, 4)]), Mask::from_runs(vec![(0, 0, 4)]), Mask::default()];
        let masks: Vec<&Mask> = masks.iter().collect();
        let nms = |scores: &[f32]| mask_nms(&masks, scores, 0.5, Overlap::default(), false);
        assert_eq!(nms(&[0.5, 0.5, 0.5]), [0, 2], "the first of equals stays");
        assert_eq!(nms(&[f32::NAN, 0.1, 0.2]), [2, 1], "NaN goes last");
        assert_eq!(nms(&[0.3]), [0]);
        assert_eq!(mask_nms(&[], &[], 0.5, Overlap::default(), false), [] as [usize; 0]);
        assert_eq!(box_nms(&[], &[], 0.5), [] as [usize; 0]);
    }

    #[test]
    fn boxes_are_one_less_than_their_extent() {
        let rect = |y0, x0, y1, x1| Rect { y0, x0, y1, x1 };
        // 11 × 11 pixels count 100; the second shares 10 × 7 of its 70 with the first: IoU 0.7 exactly, above 0.7 in f32? No.
        let boxes = [rect(0, 0, 11, 11), rect(0, 0, 11, 8)];
        assert_eq!(box_nms(&boxes, &[0.9, 0.8], 0.7), [0, 1]);
        assert_eq!(box_nms(&boxes, &[0.9, 0.8], 0.69), [0]);
        // 0.6 in f32 lies above 0.6 in f64.
        assert_eq!(box_nms(&[rect(0, 0, 11, 11), rect(0, 0, 11, 7)], &[0.9, 0.8], 0.6), [0]);
        // Equal boxes one pixel wide have no area: 0 / 0.
        assert_eq!(box_nms(&[rect(3, 5, 9, 6), rect(3, 5, 9, 6)], &[0.9, 0.8], 0.1), [0, 1]);
    }

    #[test]
    fn a_hundred_thousand_small_masks_and_some_large_ones_take_no_quadratic_time() {
        // No clock is read: what grows with the square of the masks would not end here.
        let mut random = Random(3);
        let mut masks: Vec<Mask> = (0..100_000_u32)
            .map(|_| {
                let (y, x) = (random.below(9_990) as u32, random.below(9_990) as u32);
                Mask::from_runs((y..y + 9).map(|row| (row, x, x + 9)).collect())
            })
            .collect();
        masks.extend((0..20_u32).map(|i| Mask::from_runs((0..10_000).step_by(10).map(|y| (y, i, 10_000)).collect())));
        let scores: Vec<f32> = (0..masks.len()).map(|_| random.below(1 << 20) as f32).collect();
        let masks: Vec<&Mask> = masks.iter().collect();
        let kept = mask_nms(&masks, &scores, 0.3, Overlap::default(), false);
        assert!(kept.len() > 50_000 && kept.len() < 100_000, "{}", kept.len());
    }
}
