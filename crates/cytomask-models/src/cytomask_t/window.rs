//! Where a prompt is decoded: in a window of the embedding around its box.
//!
//! The mask decoder looks at every token of the embedding it is given, for every prompt; the network was trained on crops of 224
//! pixels. For a box well inside a window the rest of a large image adds cost, not knowledge.

use cytomask_segment::BoxPrompt;

/// Windows of one side.
struct Size {
    /// Tokens of 16 pixels.
    side: usize,
    /// Windows begin at multiples of this many tokens, so that neighbouring prompts share one.
    step: usize,
    /// Boxes up to this side, pixels of the network's input, are decoded in such a window: it leaves at least as much around them.
    largest_box: f32,
}

/// From small to large: of 256 and 384 pixels.
const SIZES: [Size; 2] =
    [Size { side: 16, step: 4, largest_box: 64.0 }, Size { side: 24, step: 6, largest_box: 128.0 }];

/// Pixels from one token to the next.
const STRIDE: f32 = 16.0;

/// Side of the window that most prompts are decoded in, pixels of the network's input.
pub(crate) const COMMON_SIDE_PX: f64 = SIZES[0].side as f64 * STRIDE as f64;

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
    let whole = Window { y: 0, x: 0, h, w };
    let Some(bounds) = bounds else { return whole };
    let (height, width) = (bounds.y1 - bounds.y0, bounds.x1 - bounds.x0);
    let holds = |size: &&Size| [height, width].iter().all(|side| (0.0..=size.largest_box).contains(side));
    let Some(&Size { side, step, .. }) = SIZES.iter().find(holds) else { return whole };
    let begin = |first: f32, last: f32, tokens: usize| {
        let centre = (first + last) / 2.0 / STRIDE;
        let wished = ((centre - side as f32 / 2.0) / step as f32).round().max(0.0) as usize * step;
        wished.min(tokens.saturating_sub(side))
    };
    Window { y: begin(bounds.y0, bounds.y1, h), x: begin(bounds.x0, bounds.x1, w), h: side.min(h), w: side.min(w) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_lies_inside_and_holds_its_box_with_room_around() {
        let size = [40, 65];
        for ([height, width], side) in [([40, 100], 24), ([128, 3], 24), ([64, 64], 16), ([9, 30], 16)] {
            for y in (0..40 * 16 - height).step_by(37) {
                for x in (0..65 * 16 - width).step_by(41) {
                    let [y0, x0, y1, x1] = [y, x, y + height, x + width].map(|at| at as f32);
                    let bounds = BoxPrompt { y0, x0, y1, x1 };
                    let window = window_for(Some(&bounds), size);
                    assert_eq!([window.h, window.w], [side; 2]);
                    assert!(window.y + window.h <= size[0] && window.x + window.w <= size[1]);
                    let room = |first: f32, last: f32, begin: usize, all: usize| {
                        let before = first - begin as f32 * 16.0;
                        let after = (begin + side) as f32 * 16.0 - last;
                        (begin == 0 || before >= 64.0) && (begin + side == all || after >= 64.0)
                    };
                    assert!(room(bounds.y0, bounds.y1, window.y, size[0]), "{bounds:?} {window:?}");
                    assert!(room(bounds.x0, bounds.x1, window.x, size[1]), "{bounds:?} {window:?}");
                }
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
