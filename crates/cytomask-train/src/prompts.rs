//! Prompts a user would give, made from the truth: a first point or box, then clicks where the prediction is wrong.
//!
//! The schedule is µSAM's (`SamTrainer`): even iterations begin with a point and three outputs, odd ones with a box and one
//! output; every further round adds one positive and one negative click.

use cytomask_image::{Labels, Rect};
use cytomask_segment::{BoxPrompt, PointPrompt, Prompt};
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

/// Boxes are distorted by up to this share of their side; µSAM's `box_distortion_factor`.
const BOX_DISTORTION: f32 = 0.025;

/// Negative clicks without a false positive to hit fall within this many pixels around the object's box.
const NEGATIVE_MARGIN_PX: u32 = 3;

/// How an iteration begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstPrompt {
    /// One positive point; three masks are proposed.
    Point,
    /// The distorted bounding box; one mask.
    Box,
    /// Both; one mask.
    PointAndBox,
}

impl FirstPrompt {
    /// µSAM alternates points and boxes; every third iteration gives both, the way APG prompts the built-in model.
    pub fn of_iteration(iteration: u64) -> Self {
        match iteration % 3 {
            0 => Self::Point,
            1 => Self::Box,
            _ => Self::PointAndBox,
        }
    }

    /// µSAM's own alternation.
    pub fn of_micro_sam(iteration: u64) -> Self {
        if iteration.is_multiple_of(2) { Self::Point } else { Self::Box }
    }

    /// Whether three outputs are trained (points are ambiguous) or one.
    pub fn multimask(self) -> bool {
        self == Self::Point
    }
}

/// Up to `count` objects of the crop, in random order.
pub fn choose_objects(labels: &Labels, count: usize, min_area_px: u64, rng: &mut impl Rng) -> Vec<u32> {
    let extents = labels.extents();
    let mut ids: Vec<u32> =
        (1..=extents.len() as u32).filter(|&id| extents[id as usize - 1].0 >= min_area_px).collect();
    ids.shuffle(rng);
    ids.truncate(count);
    ids
}

/// The first prompt for object `id`, in the crop's frame.
pub fn first(labels: &Labels, id: u32, rect: Rect, kind: FirstPrompt, rng: &mut impl Rng) -> Prompt {
    let mut prompt = Prompt::default();
    if kind != FirstPrompt::Box {
        let inside = |y, x| labels.at(y, x) == id;
        if let Some([y, x]) = pick(rect, inside, rng) {
            prompt.points.push(PointPrompt { y: y as f32, x: x as f32, positive: true });
        }
    }
    if kind != FirstPrompt::Point {
        prompt.bounds = Some(distorted(rect, labels.size(), rng));
    }
    prompt
}

fn distorted(rect: Rect, [h, w]: [u32; 2], rng: &mut impl Rng) -> BoxPrompt {
    let (dy, dx) = (rect.height() as f32 * BOX_DISTORTION, rect.width() as f32 * BOX_DISTORTION);
    let mut moved = |side: u32, reach: f32, last: u32| {
        (side as f32 + rng.random_range(-1.0..=1.0_f32) * reach).clamp(0.0, last.saturating_sub(1) as f32)
    };
    BoxPrompt {
        y0: moved(rect.y0, dy, h),
        x0: moved(rect.x0, dx, w),
        // SAM's boxes end on the last pixel.
        y1: moved(rect.y1 - 1, dy, h),
        x1: moved(rect.x1 - 1, dx, w),
    }
}

/// One positive and one negative click that correct `predicted` (row-major, `true` inside the mask).
///
/// The positive one falls where the object was missed, else on the object; the negative one where the mask spills over, else
/// around the object's box, else anywhere in the background.
pub fn corrections(labels: &Labels, id: u32, rect: Rect, predicted: &[bool], rng: &mut impl Rng) -> Vec<PointPrompt> {
    let [h, w] = labels.size();
    let whole = Rect::whole([h, w]);
    let truth = |y: u32, x: u32| labels.at(y, x) == id;
    let guess = |y: u32, x: u32| predicted[y as usize * w as usize + x as usize];
    let near = Rect {
        y0: rect.y0.saturating_sub(NEGATIVE_MARGIN_PX),
        x0: rect.x0.saturating_sub(NEGATIVE_MARGIN_PX),
        y1: (rect.y1 + NEGATIVE_MARGIN_PX).min(h),
        x1: (rect.x1 + NEGATIVE_MARGIN_PX).min(w),
    };
    let positive = pick(rect, |y, x| truth(y, x) && !guess(y, x), rng).or_else(|| pick(rect, truth, rng));
    let negative = pick(whole, |y, x| !truth(y, x) && guess(y, x), rng)
        .or_else(|| pick(near, |y, x| !truth(y, x), rng))
        .or_else(|| pick(whole, |y, x| !truth(y, x), rng));
    let click =
        |found: Option<[u32; 2]>, positive| found.map(|[y, x]| PointPrompt { y: y as f32, x: x as f32, positive });
    [click(positive, true), click(negative, false)].into_iter().flatten().collect()
}

/// A uniformly drawn pixel of `rect` that satisfies `wanted`.
fn pick(rect: Rect, wanted: impl Fn(u32, u32) -> bool, rng: &mut impl Rng) -> Option<[u32; 2]> {
    let pixels = || (rect.y0..rect.y1).flat_map(move |y| (rect.x0..rect.x1).map(move |x| [y, x]));
    let count = pixels().filter(|&[y, x]| wanted(y, x)).count();
    if count == 0 {
        return None;
    }
    let chosen = rng.random_range(0..count);
    pixels().filter(|&[y, x]| wanted(y, x)).nth(chosen)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn scene() -> (Labels, Rect) {
        let mut labels = Labels::zeros([97, 131]);
        let rect = Rect { y0: 10, x0: 20, y1: 30, x1: 60 };
        for y in rect.y0..rect.y1 {
            for x in rect.x0..rect.x1 {
                labels.as_mut_slice()[(y * 131 + x) as usize] = 1;
            }
        }
        (labels, rect)
    }

    #[test]
    fn first_prompts_point_at_the_object() {
        let (labels, rect) = scene();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for iteration in 0..30 {
            let kind = FirstPrompt::of_iteration(iteration);
            let prompt = first(&labels, 1, rect, kind, &mut rng);
            for point in &prompt.points {
                assert_eq!(labels.at(point.y as u32, point.x as u32), 1);
            }
            if let Some(bounds) = prompt.bounds {
                assert!((bounds.x0 - 20.0).abs() <= 1.0 && (bounds.y1 - 29.0).abs() <= 0.5);
            }
            assert_eq!(prompt.points.is_empty(), kind == FirstPrompt::Box);
        }
    }

    #[test]
    fn clicks_fall_on_what_is_wrong() {
        let (labels, rect) = scene();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        // The mask misses the left half and spills over to the right.
        let predicted: Vec<bool> =
            (0..97 * 131_u32).map(|at| (10..30).contains(&(at / 131)) && (40..80).contains(&(at % 131))).collect();
        for _ in 0..20 {
            let clicks = corrections(&labels, 1, rect, &predicted, &mut rng);
            assert!(clicks[0].positive && (20.0..40.0).contains(&clicks[0].x));
            assert!(!clicks[1].positive && (60.0..80.0).contains(&clicks[1].x));
        }
        let perfect: Vec<bool> = labels.as_slice().iter().map(|&id| id == 1).collect();
        let clicks = corrections(&labels, 1, rect, &perfect, &mut rng);
        assert_eq!(labels.at(clicks[0].y as u32, clicks[0].x as u32), 1);
        assert!((7.0..33.0).contains(&clicks[1].y) && (17.0..63.0).contains(&clicks[1].x));
    }
}
