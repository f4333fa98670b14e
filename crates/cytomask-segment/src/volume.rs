//! Flows in three dimensions, and objects of planes joined along z.
//!
//! Reference: `dynamics.py` (3-D) and `stitch3D` in `utils.py` of cellpose 4. As there, masks of a volume are not checked against their
//! own flows.

use std::collections::{BTreeMap, HashMap};

use cytomask_image::{LabelStack, Labels};
use rayon::prelude::*;

use crate::flows::{FLOW_SCALE, Flows, GROW_COUNT, GROWTH, MARGIN, SEED_COUNT};

/// What a flow network gives for a volume, each map row-major `[Z, H, W]`.
#[derive(Clone, Debug)]
pub struct VolumeFlows {
    /// `[z, h, w]`.
    pub size: [u32; 3],
    /// Flow along z, y and x, five times a unit vector's component.
    pub flow: [Vec<f32>; 3],
    /// Logit that the pixel belongs to an object.
    pub cell_probability: Vec<f32>,
    /// See [`crate::FlowFields::scale`].
    pub scale: f64,
}

impl Flows {
    /// Objects of a volume, ids `1..=n` in the order in which they are met.
    ///
    /// # Panics
    /// When a map does not hold `z * h * w` samples.
    pub fn segment_volume(&self, fields: &VolumeFlows) -> LabelStack {
        let size = fields.size.map(|side| side as usize);
        let voxels = size.iter().product::<usize>();
        for map in fields.flow.iter().chain([&fields.cell_probability]) {
            assert_eq!(map.len(), voxels, "samples of a map of {size:?}");
        }
        let inside: Vec<usize> =
            (0..voxels).filter(|&voxel| fields.cell_probability[voxel] > self.cellprob_threshold).collect();
        let ends = self.follow_volume(fields, &inside);
        let mut labels = masks_from_ends(size, &inside, &ends);
        let most = voxels as f64 * self.max_size_fraction;
        keep(&mut labels, |volume| volume as f64 <= most);
        self.clean(size, &mut labels);
        stack(fields.size, labels)
    }

    /// Removes small objects, fills holes, and removes small objects again.
    fn clean(&self, size: [usize; 3], labels: &mut [u32]) {
        keep(labels, |volume| volume >= self.min_size);
        renumber(labels);
        fill_holes(size, labels);
        keep(labels, |volume| volume >= self.min_size);
        renumber(labels);
    }

    /// Where voxels end, `[z, y, x]`; the arithmetic is that of [`Flows::segment`] with one more axis.
    fn follow_volume(&self, fields: &VolumeFlows, inside: &[usize]) -> Vec<[u32; 3]> {
        let size = fields.size.map(|side| side as usize);
        // Zeros around, so that no look-up needs a check.
        let padded = size.map(|side| side + 2);
        let steps = [padded[1] * padded[2], padded[2], 1];
        let place = |voxel: usize| [voxel / (size[1] * size[2]), voxel / size[2] % size[1], voxel % size[2]];
        let last = size.map(|side| (side.max(2) - 1) as f32);
        let unit = last.map(|last| (2.0 / f64::from(last)) as f32);
        let mut flow = vec![[0.0_f32; 3]; padded.iter().product()];
        for &voxel in inside {
            let at = place(voxel);
            let target = &mut flow[(0..3).map(|axis| (at[axis] + 1) * steps[axis]).sum::<usize>()];
            *target = [0, 1, 2].map(|axis| fields.flow[axis][voxel] / FLOW_SCALE * unit[axis]);
        }
        let half = size.map(|side| side as f32 / 2.0);
        let count = self.steps(fields.scale);
        let follow_one = |&voxel: &usize| {
            let start = place(voxel);
            let mut at = [0, 1, 2].map(|axis| start[axis] as f32 / last[axis] * 2.0 - 1.0);
            for _ in 0..count {
                let place = [0, 1, 2].map(|axis| (at[axis] + 1.0) * half[axis] + 0.5);
                let corner = place.map(|place| place as usize);
                let high = [0, 1, 2].map(|axis| place[axis] - corner[axis] as f32);
                let first = (0..3).map(|axis| corner[axis] * steps[axis]).sum::<usize>();
                let mut step = [0.0_f32; 3];
                for neighbour in 0..8_usize {
                    let offsets = [neighbour >> 2 & 1, neighbour >> 1 & 1, neighbour & 1];
                    let share = |axis: usize| if offsets[axis] == 1 { high[axis] } else { 1.0 - high[axis] };
                    let weight = share(0) * share(1) * share(2);
                    let value = flow[first + (0..3).map(|axis| offsets[axis] * steps[axis]).sum::<usize>()];
                    for axis in 0..3 {
                        step[axis] += value[axis] * weight;
                    }
                }
                for axis in 0..3 {
                    at[axis] = (at[axis] + step[axis]).clamp(-1.0, 1.0);
                }
            }
            [0, 1, 2].map(|axis| ((at[axis] + 1.0) * 0.5 * last[axis]) as u32)
        };
        inside.par_iter().map(follow_one).collect()
    }
}

/// As in two dimensions: seeds are maxima of the histogram of end points, grown a little; of overlapping ones the larger wins.
fn masks_from_ends(size: [usize; 3], inside: &[usize], ends: &[[u32; 3]]) -> Vec<u32> {
    let mut labels = vec![0; size.iter().product()];
    let padded = size.map(|side| side + 2 * MARGIN);
    let steps = [padded[1] * padded[2], padded[2], 1];
    let place = |end: &[u32; 3]| {
        (0..3).map(|axis| ((end[axis] as usize).min(size[axis] - 1) + MARGIN) * steps[axis]).sum::<usize>()
    };
    // Few voxels are ends: a map of them takes far less than an array with its margin.
    let mut histogram: HashMap<usize, u32> = HashMap::new();
    for end in ends {
        *histogram.entry(place(end)).or_default() += 1;
    }
    let count = |at: usize| histogram.get(&at).copied().unwrap_or(0);
    let around = |at: usize, reach: usize| {
        let side = 2 * reach + 1;
        let corner = at - reach * (steps[0] + steps[1] + steps[2]);
        (0..side.pow(3))
            .map(move |index| corner + index / (side * side) * steps[0] + index / side % side * steps[1] + index % side)
    };
    let mut places: Vec<(usize, u32)> = histogram.iter().map(|(&at, &count)| (at, count)).collect();
    places.sort_unstable();
    let mut seeds: Vec<(usize, u32)> = places
        .into_iter()
        .filter(|&(at, here)| here > SEED_COUNT && around(at, 2).all(|other| count(other) <= here))
        .collect();
    seeds.sort_by_key(|&(_, count)| count);

    let mut grown: HashMap<usize, u32> = HashMap::new();
    const SIDE: usize = 2 * GROWTH + 1;
    for (id, &(seed, _)) in (1..).zip(&seeds) {
        let window: Vec<usize> = around(seed, GROWTH).collect();
        let allowed: Vec<bool> = window.iter().map(|&at| count(at) > GROW_COUNT).collect();
        let mut reached = vec![false; window.len()];
        reached[window.len() / 2] = true;
        for _ in 0..GROWTH {
            let before = reached.clone();
            for (index, reached) in reached.iter_mut().enumerate().filter(|(index, _)| allowed[*index]) {
                let at = [index / (SIDE * SIDE), index / SIDE % SIDE, index % SIDE];
                let [z, y, x] = at.map(|at| at.saturating_sub(1)..=(at + 1).min(SIDE - 1));
                *reached =
                    z.into_iter().any(|z| y.clone().any(|y| x.clone().any(|x| before[(z * SIDE + y) * SIDE + x])));
            }
            // What is not allowed is given up, the seed itself included.
            reached.iter_mut().zip(&allowed).for_each(|(reached, &allowed)| *reached &= allowed);
        }
        for (&at, _) in window.iter().zip(&reached).filter(|(_, reached)| **reached) {
            grown.insert(at, id);
        }
    }
    for (&voxel, end) in inside.iter().zip(ends) {
        labels[voxel] = grown.get(&place(end)).copied().unwrap_or(0);
    }
    labels
}

fn stack(size: [u32; 3], labels: Vec<u32>) -> LabelStack {
    LabelStack::from_vec(size, labels).unwrap_or_else(|_| unreachable!("as many labels as voxels"))
}

fn keep(labels: &mut [u32], wanted: impl Fn(u64) -> bool) {
    let most = labels.iter().copied().max().unwrap_or(0) as usize;
    let mut volumes = vec![0_u64; most + 1];
    for &id in &*labels {
        volumes[id as usize] += 1;
    }
    for id in labels.iter_mut().filter(|id| **id != 0) {
        if !wanted(volumes[*id as usize]) {
            *id = 0;
        }
    }
}

fn renumber(labels: &mut [u32]) {
    let mut ids = HashMap::new();
    for id in labels.iter_mut().filter(|id| **id != 0) {
        let next = ids.len() as u32 + 1;
        *id = *ids.entry(*id).or_insert(next);
    }
}

/// Fills what the faces of an object's box cannot reach by steps to the six neighbours without crossing it; in a volume of one plane by
/// steps to the four.
fn fill_holes([depth, height, width]: [usize; 3], labels: &mut [u32]) {
    let mut boxes: BTreeMap<u32, [[usize; 2]; 3]> = BTreeMap::new();
    for (voxel, &id) in labels.iter().enumerate().filter(|(_, id)| **id != 0) {
        let at = [voxel / (height * width), voxel / width % height, voxel % width];
        let rect = boxes.entry(id).or_insert(at.map(|at| [at, at + 1]));
        for axis in 0..3 {
            rect[axis] = [rect[axis][0].min(at[axis]), rect[axis][1].max(at[axis] + 1)];
        }
    }
    let flat = depth == 1;
    for (id, rect) in boxes {
        // With a margin, from which the outside is flooded; none above and below a single plane.
        let margin = [usize::from(!flat), 1, 1];
        let sides = [0, 1, 2].map(|axis| rect[axis][1] - rect[axis][0] + 2 * margin[axis]);
        let steps = [sides[1] * sides[2], sides[2], 1];
        let voxel = |local: usize| {
            let at = [local / steps[0], local / steps[1] % sides[1], local % sides[2]];
            let within = (0..3).all(|axis| at[axis] >= margin[axis] && at[axis] + margin[axis] < sides[axis]);
            let global = |axis: usize| rect[axis][0] + at[axis] - margin[axis];
            within.then(|| (global(0) * height + global(1)) * width + global(2))
        };
        let mut outside = vec![false; sides.iter().product()];
        let mut front = vec![0];
        outside[0] = true;
        while let Some(local) = front.pop() {
            let at = [local / steps[0], local / steps[1] % sides[1], local % sides[2]];
            for axis in 0..3 {
                let before = (at[axis] > 0).then(|| local - steps[axis]);
                let after = (at[axis] + 1 < sides[axis]).then(|| local + steps[axis]);
                for next in [before, after].into_iter().flatten() {
                    if !outside[next] && voxel(next).is_none_or(|voxel| labels[voxel] != id) {
                        outside[next] = true;
                        front.push(next);
                    }
                }
            }
        }
        for (local, _) in outside.iter().enumerate().filter(|(_, outside)| !**outside) {
            if let Some(voxel) = voxel(local) {
                labels[voxel] = id;
            }
        }
    }
}

/// Joins the objects of planes along z: an object takes the id of the object of the plane before that it overlaps best, when their
/// intersection over union is at least `threshold` and no other object of its plane overlaps that one better. Then small objects are
/// removed and holes filled, in three dimensions.
///
/// Ids of planes that follow an empty plane are new; the reference may use ids of the planes before it again
/// (docs/decisions/0029-stitching.md).
///
/// # Panics
/// When planes differ in size, or there is none.
pub fn stitch_planes(planes: &[Labels], threshold: f64, settings: &Flows) -> LabelStack {
    let [height, width] = planes[0].size();
    let mut all: Vec<u32> = Vec::with_capacity(planes.len() * height as usize * width as usize);
    let mut last = 0_u32;
    let mut before: Option<Vec<u32>> = None;
    for plane in planes {
        assert_eq!(plane.size(), [height, width], "size of a plane");
        let ids = join(before.as_deref(), plane.as_slice(), threshold, &mut last);
        let joined: Vec<u32> = plane.as_slice().iter().map(|&id| ids[id as usize]).collect();
        all.extend_from_slice(&joined);
        before = Some(joined);
    }
    let size = [planes.len() as u32, height, width];
    settings.clean(size.map(|side| side as usize), &mut all);
    stack(size, all)
}

/// The new id of each object of a plane; `last` is the largest id given so far.
fn join(before: Option<&[u32]>, plane: &[u32], threshold: f64, last: &mut u32) -> Vec<u32> {
    let most = plane.iter().copied().max().unwrap_or(0) as usize;
    let mut areas = vec![0_u64; most + 1];
    let mut areas_before: HashMap<u32, u64> = HashMap::new();
    let mut shared: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for (index, &id) in plane.iter().enumerate() {
        areas[id as usize] += 1;
        if let Some(other) = before.map(|before| before[index]).filter(|&other| other != 0) {
            *areas_before.entry(other).or_default() += 1;
            if id != 0 {
                *shared.entry((id, other)).or_default() += 1;
            }
        }
    }
    let overlap = |&(id, other): &(u32, u32), &shared: &u64| {
        shared as f64 / (areas[id as usize] + areas_before[&other] - shared) as f64
    };
    let mut best_of_other: HashMap<u32, f64> = HashMap::new();
    for (pair, count) in &shared {
        let iou = overlap(pair, count);
        if iou >= threshold {
            let best = best_of_other.entry(pair.1).or_default();
            *best = best.max(iou);
        }
    }
    // Of equals the smaller id before, which comes first.
    let mut chosen: Vec<Option<(f64, u32)>> = vec![None; most + 1];
    for (pair, count) in &shared {
        let iou = overlap(pair, count);
        let best_of_own = chosen[pair.0 as usize].is_none_or(|(best, _)| iou > best);
        if iou >= threshold && best_of_other.get(&pair.1) == Some(&iou) && best_of_own {
            chosen[pair.0 as usize] = Some((iou, pair.1));
        }
    }
    let mut ids = vec![0; most + 1];
    for id in (1..=most).filter(|&id| areas[id] > 0) {
        ids[id] = chosen[id].map_or_else(
            || {
                *last += 1;
                *last
            },
            |(_, other)| other,
        );
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: [u32; 3] = [20, 31, 33];

    /// Balls whose flows point to their centres.
    fn balls() -> (VolumeFlows, Vec<u32>) {
        let voxels = SIZE.iter().product::<u32>() as usize;
        let mut labels = vec![0; voxels];
        let mut flow = [0, 1, 2].map(|_| vec![0.0; voxels]);
        for (id, (centre, radius)) in
            (1..).zip([([6.0, 8.0, 8.0], 5.5), ([13.0, 21.0, 9.0], 6.0), ([9.0, 18.0, 24.0], 7.0)])
        {
            for (voxel, label) in labels.iter_mut().enumerate() {
                let [_, h, w] = SIZE.map(|side| side as usize);
                let at = [voxel / (h * w), voxel / w % h, voxel % w].map(|at| at as f32);
                let away = [0, 1, 2].map(|axis| at[axis] - centre[axis]);
                let distance = away.iter().map(|away| away * away).sum::<f32>().sqrt();
                if distance < radius {
                    *label = id;
                    for axis in 0..3 {
                        flow[axis][voxel] = -FLOW_SCALE * away[axis] / distance.max(1.0);
                    }
                }
            }
        }
        let cell_probability = labels.iter().map(|&id| if id == 0 { -4.0 } else { 4.0 }).collect();
        (VolumeFlows { size: SIZE, flow, cell_probability, scale: 1.0 }, labels)
    }

    #[test]
    fn flows_to_centres_give_the_balls_back() {
        let (fields, truth) = balls();
        let found = Flows::default().segment_volume(&fields);
        assert_eq!(found.as_slice().iter().copied().max(), Some(3));
        let pairs: std::collections::BTreeSet<(u32, u32)> =
            truth.iter().copied().zip(found.as_slice().iter().copied()).collect();
        // One id for each ball; a few voxels at an edge may be lost.
        let kept = pairs.iter().filter(|(a, b)| *a != 0 && *b != 0).count();
        assert_eq!(kept, 3, "{pairs:?}");
        let lost = truth.iter().zip(found.as_slice()).filter(|&(&a, &b)| (a == 0) != (b == 0)).count();
        assert!(lost * 50 < truth.iter().filter(|&&id| id != 0).count(), "{lost} lost");
    }

    #[test]
    fn small_and_large_balls_can_be_dropped() {
        let (fields, truth) = balls();
        let volume = truth.iter().filter(|&&id| id == 1).count() as u64;
        let most = |settings: Flows| settings.segment_volume(&fields).as_slice().iter().copied().max();
        assert_eq!(most(Flows { min_size: volume + 1, ..Flows::default() }), Some(2));
        assert_eq!(most(Flows { max_size_fraction: 0.05, ..Flows::default() }), Some(2));
        assert_eq!(most(Flows { cellprob_threshold: 5.0, ..Flows::default() }), Some(0));
    }

    #[test]
    fn a_hollow_cube_is_filled_and_a_tube_is_not() {
        let side = 5;
        let cube = |open: bool| -> Vec<u32> {
            (0..side * side * side)
                .map(|voxel| {
                    let at = [voxel / 25, voxel / 5 % 5, voxel % 5];
                    let shell = at[if open { 1.. } else { 0.. }.start..].iter().any(|&at| at == 0 || at == 4);
                    u32::from(shell)
                })
                .collect()
        };
        let mut closed = cube(false);
        assert_eq!(closed[62], 0);
        fill_holes([5, 5, 5], &mut closed);
        assert!(closed.iter().all(|&id| id == 1));
        let mut tube = cube(true);
        fill_holes([5, 5, 5], &mut tube);
        assert_eq!(tube[62], 0);
        // In a single plane the same ring has a hole.
        let mut ring = tube[..25].to_vec();
        fill_holes([1, 5, 5], &mut ring);
        assert!(ring.iter().all(|&id| id == 1));
    }

    fn plane(row: [u32; 12]) -> Labels {
        Labels::from_vec([1, 12], row.to_vec()).unwrap()
    }

    #[test]
    fn planes_are_joined_by_overlap() {
        let settings = Flows { min_size: 0, ..Flows::default() };
        let planes = [
            plane([1, 1, 1, 1, 0, 2, 2, 2, 0, 0, 0, 0]),
            // The first goes on, the second is split: its larger half goes on; the fourth is new.
            plane([3, 3, 3, 0, 0, 1, 2, 2, 0, 4, 4, 4]),
            plane([0; 12]),
            plane([1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ];
        let found = stitch_planes(&planes, 0.25, &settings);
        let rows: Vec<&[u32]> = found.as_slice().chunks(12).collect();
        assert_eq!(rows[0], [1, 1, 1, 1, 0, 2, 2, 2, 0, 0, 0, 0]);
        assert_eq!(rows[1], [1, 1, 1, 0, 0, 3, 2, 2, 0, 4, 4, 4]);
        assert_eq!(rows[3][..2], [5, 5], "not an id of the planes before the gap");
        // Too little overlap.
        let strict = stitch_planes(&planes[..2], 0.8, &settings);
        assert_eq!(strict.as_slice()[12..15], [3, 3, 3]);
    }
}
