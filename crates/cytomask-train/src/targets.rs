//! What the instance decoder learns: foreground, centre distance and boundary distance of every object.
//!
//! torch-em's `PerObjectDistanceTransform` as µSAM uses it (facts: instances, no directed distances).

use cytomask_image::{Labels, Rect};
use cytomask_segment::ops::boundaries::{BoundaryMode, find_boundaries};
use cytomask_segment::ops::components::{Connectivity, label_ids};
use cytomask_segment::ops::distance::distance_to_unset;

/// Keeps the normalisation of a one-pixel object finite; torch-em's value.
const EPSILON: f32 = 1e-7;

/// Maps of one label image, each row-major `[H, W]`.
#[derive(Clone, Debug)]
pub struct DistanceTargets {
    /// The objects the maps are made of: 8-connected, none smaller than the minimum, `1..=n`.
    pub instances: Labels,
    /// 1 on objects, 0 elsewhere.
    pub foreground: Vec<f32>,
    /// 0 at an object's centre, 1 at its farthest pixel and in the background.
    pub center_distance: Vec<f32>,
    /// 0 where an object is deepest, 1 at its boundary and in the background.
    pub boundary_distance: Vec<f32>,
}

/// Computes the maps; connected parts of fewer than `min_size_px` pixels become background.
///
/// The centre is the rounded centroid, or the deepest pixel where the centroid lies outside the object. Boundaries are the inner
/// boundaries of all objects; the edge of the image is none.
pub fn distance_targets(labels: &Labels, min_size_px: u64) -> DistanceTargets {
    let instances = large_components(labels, min_size_px);
    let [h, w] = instances.size();
    let boundaries = find_boundaries(&instances, BoundaryMode::Inner);
    let pixels = h as usize * w as usize;
    let mut targets = DistanceTargets {
        foreground: instances.as_slice().iter().map(|&id| f32::from(u8::from(id != 0))).collect(),
        center_distance: vec![1.0; pixels],
        boundary_distance: vec![1.0; pixels],
        instances,
    };
    for (index, (_, rect)) in targets.instances.extents().into_iter().enumerate() {
        fill_object(&mut targets, index as u32 + 1, rect, &boundaries);
    }
    targets
}

/// What a box decoder learns, at cells of a stride.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxTargets {
    /// `[4, h, w]`: left, top, right and bottom edge of the object that lies at the middle of a cell, in pixels; 0 in the background.
    pub edges: Vec<f32>,
    /// `[h, w]`: what a cell counts; 0 in the background. The cells of an object together count as the square root of their number.
    pub weights: Vec<f32>,
}

/// The boxes of a label image at the cells of `stride` pixels; an object at an edge of the image ends there.
pub fn box_targets(labels: &Labels, stride: u32) -> BoxTargets {
    let [h, w] = labels.size().map(|side| side / stride);
    let middle = |cell: u32| cell * stride + stride / 2;
    let ids: Vec<usize> = (0..h).flat_map(|y| (0..w).map(move |x| labels.at(middle(y), middle(x)) as usize)).collect();
    let rects: Vec<Rect> = labels.extents().into_iter().map(|(_, rect)| rect).collect();
    let mut cells = vec![0_u32; rects.len() + 1];
    ids.iter().for_each(|&id| cells[id] += 1);
    let edges: [fn(&Rect) -> u32; 4] = [|rect| rect.x0, |rect| rect.y0, |rect| rect.x1, |rect| rect.y1];
    let at_cells = |edge: fn(&Rect) -> u32| -> Vec<f32> {
        ids.iter().map(|&id| if id == 0 { 0.0 } else { edge(&rects[id - 1]) as f32 }).collect()
    };
    BoxTargets {
        edges: edges.into_iter().flat_map(at_cells).collect(),
        weights: ids.iter().map(|&id| if id == 0 { 0.0 } else { 1.0 / (cells[id] as f32).sqrt() }).collect(),
    }
}

fn large_components(labels: &Labels, min_size_px: u64) -> Labels {
    let mut instances = label_ids(labels, Connectivity::Eight);
    let extents = instances.extents();
    for id in instances.as_mut_slice() {
        if *id != 0 && extents[*id as usize - 1].0 < min_size_px {
            *id = 0;
        }
    }
    instances.relabel();
    instances
}

fn fill_object(targets: &mut DistanceTargets, id: u32, rect: Rect, boundaries: &[bool]) {
    let width = targets.instances.size()[1] as usize;
    let whole = |y: u32, x: u32| y as usize * width + x as usize;
    let positions: Vec<[u32; 2]> = (rect.y0..rect.y1)
        .flat_map(|y| (rect.x0..rect.x1).map(move |x| [y, x]))
        .filter(|&[y, x]| targets.instances.at(y, x) == id)
        .collect();
    let inside = |[y, x]: [u32; 2]| ((y - rect.y0) * rect.width() + (x - rect.x0)) as usize;

    // Depth is measured in the object's box, where boundaries of its neighbours count too.
    let free: Vec<bool> = (rect.y0..rect.y1)
        .flat_map(|y| (rect.x0..rect.x1).map(move |x| whole(y, x)))
        .map(|at| !boundaries[at])
        .collect();
    let mut depth = distance_to_unset(rect.size(), &free);
    if depth.iter().any(|value| value.is_infinite()) {
        // An object that fills the image has no boundary: no place is deeper than another.
        depth.fill(0.0);
    }
    let deepest = positions.iter().map(|&at| depth[inside(at)]).fold(0.0, f32::max);
    let normalizer = positions.iter().map(|&at| deepest - depth[inside(at)]).fold(0.0, f32::max) + EPSILON;

    let center = center_of(&positions, |at| depth[inside(at)]);
    let from_center = |[y, x]: [u32; 2]| ((f64::from(y) - center[0]).hypot(f64::from(x) - center[1])) as f32;
    let farthest = positions.iter().map(|&at| from_center(at)).fold(0.0, f32::max) + EPSILON;

    for &at in &positions {
        let pixel = whole(at[0], at[1]);
        targets.center_distance[pixel] = from_center(at) / farthest;
        targets.boundary_distance[pixel] = (deepest - depth[inside(at)]) / normalizer;
    }
}

/// The rounded centroid (halves to even, as numpy rounds), or the deepest position (first in row-major order) when it lies outside.
fn center_of(positions: &[[u32; 2]], depth: impl Fn([u32; 2]) -> f32) -> [f64; 2] {
    let count = positions.len() as f64;
    let mean = |axis: usize| positions.iter().map(|at| f64::from(at[axis])).sum::<f64>() / count;
    let rounded = [mean(0).round_ties_even(), mean(1).round_ties_even()];
    if positions.iter().any(|at| f64::from(at[0]) == rounded[0] && f64::from(at[1]) == rounded[1]) {
        return rounded;
    }
    let mut best = positions[0];
    for &at in positions {
        if depth(at) > depth(best) {
            best = at;
        }
    }
    best.map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::labels;

    #[test]
    fn a_square_by_hand() {
        let targets = distance_targets(
            &labels(&["0000000", "0111110", "0111110", "0111110", "0111110", "0111110", "0000000"]),
            1,
        );
        let row = |map: &[f32], y: usize| map[y * 7..y * 7 + 7].to_vec();
        assert_eq!(row(&targets.foreground, 3), [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
        // Depth 0, 1, 2, 1, 0 along the middle row.
        let expected = [1.0, 1.0, 0.5, 0.0, 0.5, 1.0, 1.0];
        assert!(row(&targets.boundary_distance, 3).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6));
        let corner = 8.0_f32.sqrt();
        let expected = [1.0, 2.0 / corner, 1.0 / corner, 0.0, 1.0 / corner, 2.0 / corner, 1.0];
        assert!(row(&targets.center_distance, 3).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn small_parts_become_background_and_parts_become_objects() {
        let targets = distance_targets(&labels(&["1100200", "1100001", "0000011"]), 3);
        assert_eq!(targets.instances.max_id(), 2);
        assert_eq!(targets.foreground.iter().sum::<f32>(), 7.0);
        assert_eq!(targets.instances.at(0, 4), 0);
    }

    #[test]
    fn a_ring_has_its_centre_on_itself() {
        let targets = distance_targets(&labels(&["11111", "10001", "10001", "10001", "11111"]), 1);
        assert_eq!(targets.center_distance[0], 0.0);
        assert!(targets.boundary_distance.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn an_object_that_fills_the_image_stays_finite() {
        let targets = distance_targets(&Labels::from_vec([3, 4], vec![1; 12]).unwrap(), 1);
        assert!(targets.boundary_distance.iter().chain(&targets.center_distance).all(|value| value.is_finite()));
    }
}
