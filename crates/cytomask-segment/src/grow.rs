//! Objects that grow to the edge of the foreground.
//!
//! The mask decoder tells objects apart, but its logits are coarse; the instance decoder's foreground map is finer and does not know which
//! object a pixel belongs to. So a mask takes the foreground next to it ([`grown`]) as far as no other mask has it ([`settled`]).
//! docs/decisions/0053-growing-into-the-foreground.md has what it gains. Not in the paper.

use std::borrow::Cow;

use cytomask_image::{Mask, Rect};
use rayon::prelude::*;

use crate::model::Fields;

/// The mask with the foreground (a probability of at least `threshold`) within `px` steps of it, each to a neighbour by an edge. Steps
/// lead through foreground only.
///
/// # Shapes
/// - `mask`: in the frame of `fields`
pub(crate) fn grown(mask: &Mask, fields: &Fields, threshold: f32, px: u32) -> Mask {
    let rect = widened(&mask.rect(), px, fields.size);
    let [height, width] = rect.size().map(|side| side as usize);
    let mut inside = vec![false; height * width];
    let at = |y: u32, x: u32| (y - rect.y0) as usize * width + (x - rect.x0) as usize;
    mask.for_each_run(|y, x0, x1| inside[at(y, x0)..at(y, x0) + (x1 - x0) as usize].fill(true));
    let is_foreground = |y: usize, x: usize| {
        let pixel = (y + rect.y0 as usize) * fields.size[1] as usize + x + rect.x0 as usize;
        fields.foreground[pixel] >= threshold
    };
    for _ in 0..px {
        let before = inside.clone();
        let is_next = |y: usize, x: usize| {
            y > 0 && before[(y - 1) * width + x]
                || x > 0 && before[y * width + x - 1]
                || y + 1 < height && before[(y + 1) * width + x]
                || x + 1 < width && before[y * width + x + 1]
        };
        for (pixel, inside) in inside.iter_mut().enumerate() {
            let [y, x] = [pixel / width, pixel % width];
            *inside = *inside || is_next(y, x) && is_foreground(y, x);
        }
        if inside == before {
            break;
        }
    }
    Mask::from_fn(rect, |y, x| inside[at(y, x)])
}

/// The masks to paint in an image of `size`: each grown if it has a grown one, without what that would take from other masks.
pub(crate) fn settled<'a>(size: [u32; 2], masks: &[(&'a Mask, Option<&'a Mask>)]) -> Vec<Cow<'a, Mask>> {
    if masks.iter().all(|(_, grown)| grown.is_none()) {
        return masks.iter().map(|&(mask, _)| Cow::Borrowed(mask)).collect();
    }
    let mut held = vec![false; size[0] as usize * size[1] as usize];
    let at = |y: u32, x: u32| y as usize * size[1] as usize + x as usize;
    for (mask, _) in masks {
        mask.for_each_run(|y, x0, x1| held[at(y, x0)..at(y, x0) + (x1 - x0) as usize].fill(true));
    }
    let settle = |&(mask, grown): &(&'a Mask, Option<&'a Mask>)| match grown {
        Some(grown) => Cow::Owned(Mask::from_fn(grown.rect(), |y, x| {
            grown.contains(y, x) && (mask.contains(y, x) || !held[at(y, x)])
        })),
        None => Cow::Borrowed(mask),
    };
    masks.par_iter().map(settle).collect()
}

/// So many pixels more on every side, inside an image of `size`.
fn widened(rect: &Rect, px: u32, [height, width]: [u32; 2]) -> Rect {
    Rect {
        y0: rect.y0.saturating_sub(px),
        x0: rect.x0.saturating_sub(px),
        y1: rect.y1.saturating_add(px).min(height),
        x1: rect.x1.saturating_add(px).min(width),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Maps whose foreground is 0.9 where the drawing has a `#`, 0.1 elsewhere.
    fn fields(drawing: &[&str]) -> Fields {
        let size = [drawing.len() as u32, drawing[0].len() as u32];
        let foreground = drawing.iter().flat_map(|row| row.chars()).map(|c| if c == '#' { 0.9 } else { 0.1 }).collect();
        let unused = vec![1.0; size[0] as usize * size[1] as usize];
        Fields { size, foreground, center_distance: unused.clone(), boundary_distance: unused }
    }

    fn drawn(mask: &Mask, [height, width]: [u32; 2]) -> Vec<String> {
        (0..height).map(|y| (0..width).map(|x| if mask.contains(y, x) { '#' } else { '.' }).collect()).collect()
    }

    #[test]
    fn hand_drawn_growth() {
        let fields = fields(&[
            "..##...", //
            ".####.#", ".####.#", ".......",
        ]);
        let mask = Mask::from_fn(Rect { y0: 1, x0: 2, y1: 3, x1: 4 }, |_, _| true);
        assert_eq!(drawn(&grown(&mask, &fields, 0.5, 1), fields.size), ["..##...", ".####..", ".####..", "......."]);
        assert_eq!(
            grown(&mask, &fields, 0.5, 3),
            grown(&mask, &fields, 0.5, 1),
            "what lies beyond background stays there"
        );
        assert_eq!(grown(&mask, &fields, 0.95, 1), mask);
        assert_eq!(grown(&mask, &fields, 0.5, 0), mask);
        // Two steps reach around a corner, and no further than the image.
        let all = self::fields(&["###"; 3]);
        let corner = Mask::from_fn(Rect { y0: 0, x0: 0, y1: 1, x1: 1 }, |_, _| true);
        assert_eq!(drawn(&grown(&corner, &all, 0.5, 2), all.size), ["###", "##.", "#.."]);
        assert_eq!(grown(&corner, &all, 0.5, u32::MAX).area(), 9);
    }

    #[test]
    fn a_mask_keeps_what_the_foreground_does_not_have() {
        let none = fields(&["...."]);
        let mask = Mask::from_runs(vec![(0, 1, 3)]);
        assert_eq!(grown(&mask, &none, 0.5, 1), mask);
        assert!(grown(&Mask::default(), &fields(&["####"]), 0.5, 1).is_empty());
    }

    #[test]
    fn nothing_grows_into_anothers_mask() {
        let row = |x0: u32, x1: u32| Mask::from_runs(vec![(0, x0, x1)]);
        let runs = |masks: &[(Mask, Option<Mask>)]| -> Vec<(u32, u32, u32)> {
            let given: Vec<_> = masks.iter().map(|(mask, grown)| (mask, grown.as_ref())).collect();
            settled([1, 10], &given).iter().flat_map(|mask| mask.runs().to_vec()).collect()
        };
        let both = [(row(2, 5), Some(row(1, 6))), (row(5, 8), Some(row(4, 9)))];
        assert_eq!(runs(&both), [(0, 1, 5), (0, 5, 9)]);
        // One that does not grow keeps what it has.
        assert_eq!(runs(&[(row(2, 5), None), (row(5, 8), Some(row(4, 9)))]), [(0, 2, 5), (0, 5, 9)]);
        assert_eq!(runs(&[(row(2, 5), None), (row(4, 8), None)]), [(0, 2, 5), (0, 4, 8)]);
    }
}
