//! SAM's stability score: how little a mask changes when its threshold moves.
//!
//! As `calculate_stability_score` in `segment_anything/utils/amg.py`, evaluated like there on the logits at full image
//! resolution. An empty mask is 0 / 0, NaN upstream; here it is 0, which fails the same comparison (`≥ threshold`, threshold
//! above 0).

use cytomask_image::{LogitMap, Mask};

/// The mask `logit > mask_threshold` in the frame of the encoded image, and its stability score: the area of
/// `logit > mask_threshold + offset` divided by that of `logit > mask_threshold − offset`, 0–1.
pub fn stability_and_mask(logits: &LogitMap, mask_threshold: f32, offset: f32) -> (Mask, f32) {
    let mut masks = logits.threshold(&[mask_threshold, mask_threshold + offset, mask_threshold - offset]).into_iter();
    let mask = masks.next().unwrap_or_default();
    let area = |mask: Option<Mask>| mask.map_or(0, |mask| mask.area());
    let (inner, outer) = (area(masks.next()), area(masks.next()));
    (mask, if outer == 0 { 0.0 } else { inner as f32 / outer as f32 })
}

#[cfg(test)]
mod tests {
    use cytomask_image::LogitFrame;

    use super::*;

    fn map(values: Vec<f32>) -> LogitMap {
        let size = [1, values.len() as u32];
        LogitMap { grid: size, values, frame: LogitFrame { padded: size, input: size, image: size } }
    }

    #[test]
    fn hand_drawn_row() {
        // Above 0: four; above 1: two; above −1: five. Thresholds themselves are outside.
        let (mask, stability) = stability_and_mask(&map(vec![-2.0, -1.0, -0.5, 0.5, 1.0, 1.5, 3.0]), 0.0, 1.0);
        assert_eq!(mask.runs(), [(0, 3, 7)]);
        assert_eq!(stability, 2.0 / 5.0);
    }

    #[test]
    fn nothing_is_not_stable() {
        let (mask, stability) = stability_and_mask(&map(vec![-5.0; 4]), 0.0, 1.0);
        assert!(mask.is_empty());
        assert_eq!(stability, 0.0);
    }

    #[test]
    fn the_mask_threshold_moves_all_three() {
        let (mask, stability) = stability_and_mask(&map(vec![0.5, 2.0, 3.5, 4.5]), 3.0, 1.0);
        assert_eq!(mask.runs(), [(0, 2, 4)]);
        assert_eq!(stability, 0.5);
    }
}
