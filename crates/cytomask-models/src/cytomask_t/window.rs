//! Where a prompt is decoded: in a window of the embedding around its box.
//!
//! The mask decoder looks at every token of the embedding it is given, for every prompt; the network was trained on crops of 224
//! pixels. For a box well inside a window the rest of a large image adds cost, not knowledge.

use cytomask_segment::BoxPrompt;

/// Side of a window, tokens of 16 pixels: 384 pixels.
const SIDE: usize = 24;

/// Windows begin at multiples of this, so that neighbouring prompts share one.
const STEP: usize = 6;

/// Boxes up to this side, pixels of the network's input, are decoded in a window: they leave at least as much around them.
const LARGEST_BOX: f32 = 128.0;

/// Pixels from one token to the next.
const STRIDE: f32 = 16.0;

/// A part of the embedding, tokens: rows `y..y + h`, columns `x..x + w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Window {
    pub(super) y: usize,
    pub(super) x: usize,
    pub(super) h: usize,
    pub(super) w: usize,
}

/// The window for a prompt's box in an embedding of `[h, w]` tokens; all of it without a box (how large the object is, is then
/// unknown) or for a large one.
pub(super) fn window_for(bounds: Option<&BoxPrompt>, [h, w]: [usize; 2]) -> Window {
    let small = bounds.filter(|bounds| {
        let (height, width) = (bounds.y1 - bounds.y0, bounds.x1 - bounds.x0);
        (0.0..=LARGEST_BOX).contains(&height) && (0.0..=LARGEST_BOX).contains(&width)
    });
    let Some(bounds) = small else { return Window { y: 0, x: 0, h, w } };
    let begin = |first: f32, last: f32, tokens: usize| {
        let centre = (first + last) / 2.0 / STRIDE;
        let wished = ((centre - SIDE as f32 / 2.0) / STEP as f32).round().max(0.0) as usize * STEP;
        wished.min(tokens.saturating_sub(SIDE))
    };
    Window { y: begin(bounds.y0, bounds.y1, h), x: begin(bounds.x0, bounds.x1, w), h: SIDE.min(h), w: SIDE.min(w) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_lies_inside_and_holds_its_box_with_room_around() {
        let size = [40, 65];
        for y in (0..40 * 16 - 40).step_by(37) {
            for x in (0..65 * 16 - 100).step_by(41) {
                let bounds = BoxPrompt { y0: y as f32, x0: x as f32, y1: y as f32 + 40.0, x1: x as f32 + 100.0 };
                let window = window_for(Some(&bounds), size);
                assert!(window.y + window.h <= size[0] && window.x + window.w <= size[1]);
                let room = |first: f32, last: f32, begin: usize, side: usize, all: usize| {
                    let before = first - begin as f32 * 16.0;
                    let after = (begin + side) as f32 * 16.0 - last;
                    (begin == 0 || before >= 64.0) && (begin + side == all || after >= 64.0)
                };
                assert!(room(bounds.y0, bounds.y1, window.y, window.h, size[0]), "{bounds:?} {window:?}");
                assert!(room(bounds.x0, bounds.x1, window.x, window.w, size[1]), "{bounds:?} {window:?}");
            }
        }
    }

    #[test]
    fn large_boxes_bare_points_and_small_images_take_all() {
        let all = Window { y: 0, x: 0, h: 40, w: 65 };
        assert_eq!(window_for(None, [40, 65]), all);
        let large = BoxPrompt { y0: 10.0, x0: 10.0, y1: 200.0, x1: 60.0 };
        assert_eq!(window_for(Some(&large), [40, 65]), all);
        let small = BoxPrompt { y0: 10.0, x0: 10.0, y1: 20.0, x1: 60.0 };
        assert_eq!(window_for(Some(&small), [6, 10]), Window { y: 0, x: 0, h: 6, w: 10 });
    }
}
