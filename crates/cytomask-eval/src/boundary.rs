//! How well the outlines of two label images lie on one another.
//!
//! Precision and recall of boundary pixels within a tolerance, the measure of contour benchmarks (Martin, Fowlkes & Malik, IEEE
//! TPAMI 26, 2004; for segmentations Csurka et al., BMVC 2013). A boundary pixel belongs to an object and shares an edge (in 3-D a
//! face) with a pixel of another id; the border of the image is no boundary. That is `skimage.segmentation.find_boundaries` with
//! `mode="inner"`; the distance is Euclidean, as of `scipy.ndimage.distance_transform_edt`. `cellpose.metrics.boundary_scores`
//! compares thick bands instead and scales them with the objects (docs/decisions/0011).

use crate::label_array::same_shape;
use crate::{Error, ErrorKind, LabelArray, Result};

/// Tolerances above this are refused: rows remember distances in a byte.
const MAX_TOLERANCE_PX: f64 = 250.0;

/// Agreement of outlines within a tolerance. Undefined shares are 0; all three are NaN when neither image has a boundary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundaryScore {
    /// Boundary pixels agree up to this Euclidean distance.
    pub tolerance_px: f64,
    /// Share of the predicted boundary near the true one.
    pub precision: f64,
    /// Share of the true boundary near the predicted one.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Boundary pixels of the truth.
    pub true_boundary_px: u64,
    /// Boundary pixels of the prediction.
    pub predicted_boundary_px: u64,
}

/// Compares the outlines of two label images, `[H, W]` or `[D, H, W]`.
///
/// # Errors
/// `Shape` when the images differ in size; `Unsupported` for other dimensions; `Value` when the tolerance is negative or above 250.
pub fn boundary_score<'a>(
    truth: impl Into<LabelArray<'a>>,
    predicted: impl Into<LabelArray<'a>>,
    tolerance_px: f64,
) -> Result<BoundaryScore> {
    let (truth, predicted) = (truth.into(), predicted.into());
    same_shape(&truth, &predicted)?;
    if !(0.0..=MAX_TOLERANCE_PX).contains(&tolerance_px) {
        let message = format!("boundary tolerance: expected 0 to {MAX_TOLERANCE_PX} pixels, found {tolerance_px}");
        return Err(Error::new(ErrorKind::Value, message));
    }
    let size = truth.depth_height_width("boundary score")?;
    let truth = boundary(size, truth.ids());
    let predicted = boundary(size, predicted.ids());
    let (true_boundary_px, true_near) = near(size, &truth, &predicted, tolerance_px);
    let (predicted_boundary_px, predicted_near) = near(size, &predicted, &truth, tolerance_px);
    let share = |part: u64, whole: u64| match (whole, true_boundary_px + predicted_boundary_px) {
        (_, 0) => f64::NAN,
        (0, _) => 0.0,
        _ => part as f64 / whole as f64,
    };
    let (precision, recall) = (share(predicted_near, predicted_boundary_px), share(true_near, true_boundary_px));
    let f1 = if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) };
    Ok(BoundaryScore { tolerance_px, precision, recall, f1, true_boundary_px, predicted_boundary_px })
}

/// Pixels of objects that share an edge or face with another id.
fn boundary([depth, height, width]: [usize; 3], ids: &[u32]) -> Vec<bool> {
    let mut is_boundary = vec![false; ids.len()];
    let mut compare = |a: usize, b: usize| {
        if ids[a] != ids[b] {
            is_boundary[a] |= ids[a] != 0;
            is_boundary[b] |= ids[b] != 0;
        }
    };
    for z in 0..depth {
        for y in 0..height {
            let row = (z * height + y) * width;
            for pixel in row..row + width {
                if pixel > row {
                    compare(pixel - 1, pixel);
                }
                if y > 0 {
                    compare(pixel - width, pixel);
                }
                if z > 0 {
                    compare(pixel - width * height, pixel);
                }
            }
        }
    }
    is_boundary
}

/// How many pixels are set in `these`, and how many of them have one of `others` within the tolerance.
fn near([depth, height, width]: [usize; 3], these: &[bool], others: &[bool], tolerance_px: f64) -> (u64, u64) {
    let square = (tolerance_px * tolerance_px).floor() as usize;
    let reach = tolerance_px.floor() as usize;
    let along_rows = distance_along_rows(width, others, reach as u8);
    // Rows to look into, the nearest first.
    let mut offsets: Vec<(usize, isize, isize)> = Vec::new();
    let span = reach as isize;
    for dz in if depth > 1 { -span..=span } else { 0..=0 } {
        for dy in -span..=span {
            let apart = (dz * dz + dy * dy) as usize;
            if apart <= square {
                offsets.push((apart, dz, dy));
            }
        }
    }
    offsets.sort_unstable();
    let (mut set, mut found) = (0, 0);
    for (z, plane) in these.chunks_exact((height * width).max(1)).enumerate() {
        for (y, row) in plane.chunks_exact(width).enumerate() {
            for x in row.iter().enumerate().filter(|(_, set)| **set).map(|(x, _)| x) {
                set += 1;
                let is_near = offsets.iter().any(|&(apart, dz, dy)| {
                    let (Some(z), Some(y)) = (z.checked_add_signed(dz), y.checked_add_signed(dy)) else { return false };
                    if z >= depth || y >= height {
                        return false;
                    }
                    let dx = usize::from(along_rows[(z * height + y) * width + x]);
                    apart + dx * dx <= square
                });
                found += u64::from(is_near);
            }
        }
    }
    (set, found)
}

/// Distance of every pixel to the nearest set one of its row, `reach + 1` when none is within reach.
fn distance_along_rows(width: usize, set: &[bool], reach: u8) -> Vec<u8> {
    let far = reach + 1;
    let mut distance = vec![far; set.len()];
    if width == 0 {
        return distance;
    }
    for (set, distance) in set.chunks_exact(width).zip(distance.chunks_exact_mut(width)) {
        let mut last = far;
        for (set, distance) in set.iter().zip(distance.iter_mut()) {
            last = if *set { 0 } else { last.saturating_add(1).min(far) };
            *distance = last;
        }
        let mut last = far;
        for (set, distance) in set.iter().zip(distance.iter_mut()).rev() {
            last = if *set { 0 } else { last.saturating_add(1).min(far) };
            *distance = last.min(*distance);
        }
    }
    distance
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All pixels against all pixels.
    fn slow(size: [usize; 3], truth: &[u32], predicted: &[u32], tolerance: f64) -> [u64; 4] {
        let at = |pixel: usize| [pixel / (size[1] * size[2]), pixel / size[2] % size[1], pixel % size[2]];
        let apart = |a: usize, b: usize| {
            let (a, b) = (at(a), at(b));
            (0..3).map(|axis| (a[axis] as f64 - b[axis] as f64).powi(2)).sum::<f64>()
        };
        let edge = |ids: &[u32]| -> Vec<usize> {
            let other = |a: usize| (0..ids.len()).any(|b| ids[a] != ids[b] && apart(a, b) == 1.0);
            (0..ids.len()).filter(|&pixel| ids[pixel] != 0 && other(pixel)).collect()
        };
        let (truth, predicted) = (edge(truth), edge(predicted));
        let near = |these: &[usize], others: &[usize]| {
            these.iter().filter(|a| others.iter().any(|b| apart(**a, *b).sqrt() <= tolerance)).count() as u64
        };
        [truth.len() as u64, near(&truth, &predicted), predicted.len() as u64, near(&predicted, &truth)]
    }

    #[test]
    fn rows_find_what_all_pixels_find() {
        let mut state = 5_u64;
        let mut random = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for size in [[1, 13, 17], [4, 7, 9], [3, 1, 5], [1, 1, 1]] {
            for tolerance in [0.0, 1.0, 1.5, 2.0, 3.7] {
                let mut ids = |fill: u64| -> Vec<u32> {
                    let side = random(3) as usize + 2;
                    let blocks: Vec<u32> =
                        (0..512).map(|_| if random(10) < fill { random(4) as u32 } else { 0 }).collect();
                    let count: usize = size.iter().product();
                    (0..count)
                        .map(|pixel| {
                            blocks[(pixel / (size[1] * size[2]) * 64
                                + pixel / size[2] % size[1] / side * 8
                                + pixel % size[2] / side)
                                % 512]
                        })
                        .collect()
                };
                let (truth, predicted) = (ids(6), ids(6));
                let array = |ids| LabelArray::new(&size, ids).unwrap();
                let found = boundary_score(array(&truth), array(&predicted), tolerance).unwrap();
                let [n_true, near_true, n_predicted, near_predicted] = slow(size, &truth, &predicted, tolerance);
                assert_eq!((found.true_boundary_px, found.predicted_boundary_px), (n_true, n_predicted));
                if n_true > 0 && n_predicted > 0 {
                    assert_eq!(found.precision, near_predicted as f64 / n_predicted as f64, "{size:?} {tolerance}");
                    assert_eq!(found.recall, near_true as f64 / n_true as f64, "{size:?} {tolerance}");
                }
            }
        }
    }

    #[test]
    fn hand_drawn_outline() {
        // One row: the true object's ends are 1 and 4, the predicted one's 1 and 6.
        let truth = [0, 1, 1, 1, 1, 0, 0, 0];
        let predicted = [0, 9, 9, 9, 9, 9, 9, 0];
        let array = |ids| LabelArray::new(&[1, 8], ids).unwrap();
        let score = |tolerance| boundary_score(array(&truth), array(&predicted), tolerance).unwrap();
        assert_eq!((score(1.0).precision, score(1.0).recall, score(1.0).f1), (0.5, 0.5, 0.5));
        assert_eq!(score(2.0).f1, 1.0);
        let nothing = [0; 8];
        let empty = boundary_score(array(&truth), array(&nothing), 2.0).unwrap();
        assert_eq!((empty.precision, empty.recall, empty.f1), (0.0, 0.0, 0.0));
        assert!(boundary_score(array(&nothing), array(&nothing), 2.0).unwrap().f1.is_nan());
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let kind = |shape: &[usize], tolerance| {
            let array = || LabelArray::new(shape, &[1, 0]).unwrap();
            boundary_score(array(), array(), tolerance).unwrap_err().kind()
        };
        assert_eq!(kind(&[1, 2], -1.0), ErrorKind::Value);
        assert_eq!(kind(&[1, 2], f64::NAN), ErrorKind::Value);
        assert_eq!(kind(&[1, 2], 251.0), ErrorKind::Value);
        assert_eq!(kind(&[2], 1.0), ErrorKind::Unsupported);
    }
}
