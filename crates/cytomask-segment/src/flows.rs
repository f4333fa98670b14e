//! Flows: each pixel of an object follows the network's vectors to the object's centre; pixels that meet are one object.
//!
//! Stringer et al., "Cellpose", Nature Methods 2021, and Pachitariu et al., "Cellpose-SAM", 2025; reference: `dynamics.py` of
//! cellpose 4 (settings under its names). Three dimensions: [`crate::volume`].

use cytomask_image::{Labels, Rect, Tile};
use rayon::prelude::*;

use crate::ops::flow_targets::flows_from_labels;
use crate::segmentation::{ObjectOrigin, Segmentation};
use crate::stitch::{Found, keeps};

/// Flow networks are trained on unit vectors times this.
pub(crate) const FLOW_SCALE: f32 = 5.0;

/// Steps at the size the network was trained at.
const AUTOMATIC_STEPS: u32 = 200;

/// Margin of the histogram of end points.
pub(crate) const MARGIN: usize = 20;

/// An end point is a seed when more pixels than this end there.
pub(crate) const SEED_COUNT: u32 = 10;

/// A seed grows over neighbours where more pixels than this end.
pub(crate) const GROW_COUNT: u32 = 2;

/// Steps a seed grows.
pub(crate) const GROWTH: usize = 5;

/// What a flow network gives for an image, each map row-major `[H, W]`.
#[derive(Clone, Debug)]
pub struct FlowFields {
    /// `[h, w]`.
    pub size: [u32; 2],
    /// Vertical flow, five times a unit vector's component.
    pub flow_y: Vec<f32>,
    /// Horizontal flow.
    pub flow_x: Vec<f32>,
    /// Logit that the pixel belongs to an object.
    pub cell_probability: Vec<f32>,
    /// How much the network saw the image enlarged; 1 where it did not. An automatic number of steps depends on it.
    pub scale: f64,
}

impl FlowFields {
    /// No rows yet, room for all.
    pub fn with_capacity(size: [u32; 2]) -> Self {
        let map = || Vec::with_capacity(size[0] as usize * size[1] as usize);
        Self { size, flow_y: map(), flow_x: map(), cell_probability: map(), scale: 1.0 }
    }

    /// Adds the next row of each map.
    pub fn push_row(&mut self, [flow_y, flow_x, cell_probability]: [&[f32]; 3]) {
        self.flow_y.extend_from_slice(flow_y);
        self.flow_x.extend_from_slice(flow_x);
        self.cell_probability.extend_from_slice(cell_probability);
    }
}

/// Which rows of an image maps are of.
struct Rows {
    first: u32,
    /// Rows of the whole image.
    height: u32,
}

/// Settings, under Cellpose's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flows {
    /// Pixels whose logit is above this belong to objects.
    pub cellprob_threshold: f32,
    /// Masks whose own flows differ more than this from the network's (mean squared) are dropped; 0 keeps all.
    pub flow_threshold: f32,
    /// Steps a pixel follows the flow; 0 for 200, divided by the factor the network saw the image enlarged by.
    pub niter: u32,
    /// Objects of fewer pixels are dropped.
    pub min_size: u64,
    /// Objects that cover more than this share of the image are dropped.
    pub max_size_fraction: f64,
}

impl Default for Flows {
    /// The defaults of `CellposeModel.eval`.
    fn default() -> Self {
        Self { cellprob_threshold: 0.0, flow_threshold: 0.4, niter: 0, min_size: 15, max_size_fraction: 0.4 }
    }
}

impl Flows {
    /// Segments the maps of an image. An object's score is the mean cell probability (sigmoid of the logit) over its pixels.
    ///
    /// # Panics
    /// When a map does not hold `h * w` samples.
    pub fn segment(&self, fields: &FlowFields) -> Segmentation {
        self.segment_rows(fields, &Rows { first: 0, height: fields.size[0] })
    }

    /// Objects of some rows of an image, `tile.outer`, as far as `tile` keeps them by their centroids; for images too large to be held.
    ///
    /// Pixels go where they would go in the whole image, unless they leave the rows.
    ///
    /// # Panics
    /// As [`Flows::segment`]; when the maps are not those of `tile.outer`.
    pub fn tile(&self, fields: &FlowFields, tile: &Tile, size: [u32; 2]) -> Vec<Found> {
        assert_eq!(fields.size, tile.outer.size(), "size of the maps of a tile");
        let found = self.segment_rows(fields, &Rows { first: tile.outer.y0, height: size[0] });
        let masks = found.labels.masks();
        let kept = found.objects.iter().filter_map(|object| {
            let anchor = [0, 1].map(|axis| object.centroid[axis].round() as u32);
            let anchor = [anchor[0] + tile.outer.y0, anchor[1] + tile.outer.x0];
            let mask = masks[object.id as usize - 1].translate(tile.outer.y0, tile.outer.x0);
            let origin = ObjectOrigin { score: object.score, ..ObjectOrigin::default() };
            keeps(tile, anchor).then_some(Found { mask, grown: None, origin, anchor, prompt: 0, tile: *tile })
        });
        kept.collect()
    }

    fn segment_rows(&self, fields: &FlowFields, rows: &Rows) -> Segmentation {
        let pixels = fields.size[0] as usize * fields.size[1] as usize;
        for (name, map) in
            [("flow_y", &fields.flow_y), ("flow_x", &fields.flow_x), ("cell_probability", &fields.cell_probability)]
        {
            assert_eq!(map.len(), pixels, "samples of {name}");
        }
        let mut labels = {
            let inside: Vec<usize> =
                (0..pixels).filter(|&pixel| fields.cell_probability[pixel] > self.cellprob_threshold).collect();
            let ends = self.follow(fields, &inside, rows);
            masks_from_ends(fields.size, &inside, &ends)
        };
        self.drop_large(&mut labels, rows);
        renumber(&mut labels);
        if self.flow_threshold > 0.0 {
            self.drop_inconsistent(&mut labels, fields);
            renumber(&mut labels);
        }
        self.drop_small(&mut labels);
        fill_holes(&mut labels);
        self.drop_small(&mut labels);

        let mut sums = vec![(0.0_f64, 0_u64); labels.max_id() as usize + 1];
        for (&id, &logit) in labels.as_slice().iter().zip(&fields.cell_probability) {
            let (sum, count) = &mut sums[id as usize];
            *sum += 1.0 / (1.0 + f64::from(-logit).exp());
            *count += 1;
        }
        Segmentation::from_labels(labels, |id| {
            let (sum, count) = sums[id as usize];
            ObjectOrigin { score: (sum / count as f64) as f32, ..ObjectOrigin::default() }
        })
    }

    /// Paints objects of several parts of an image of `size`; of two that overlap the one of the higher score is whole.
    pub fn paint(&self, size: [u32; 2], found: &[Found]) -> Segmentation {
        let mut order: Vec<&Found> = found.iter().collect();
        order.sort_by(|a, b| b.origin.score.total_cmp(&a.origin.score).then(a.anchor.cmp(&b.anchor)));
        let mut labels = Labels::zeros(size);
        for (id, object) in (1..).zip(&order) {
            labels.paint_where_empty(&object.mask, id);
        }
        let ids = labels.relabel();
        Segmentation::from_labels(labels, |id| order[ids[id as usize] as usize - 1].origin)
    }

    /// Steps for maps of a network that saw the image enlarged by `scale`.
    pub fn steps(&self, scale: f64) -> u32 {
        if self.niter == 0 { (f64::from(AUTOMATIC_STEPS) / scale) as u32 } else { self.niter }
    }

    /// Where the pixels `inside` objects end, `[y, x]`, whole pixels.
    ///
    /// The arithmetic is the reference's, step by step in `f32`: positions run from −1 to 1 between the centres of the outermost
    /// pixels, but are looked up as if they ran between the outer edges (PyTorch's `grid_sample` without `align_corners`), and end
    /// points are truncated. A pixel's path depends on nothing but the maps.
    fn follow(&self, fields: &FlowFields, inside: &[usize], rows: &Rows) -> Vec<[u32; 2]> {
        let [height, width] = fields.size.map(|side| side as usize);
        // One pixel of zeros around, so that no look-up needs a check; flows of the background do not move anything.
        let line = width + 2;
        let mut flow = vec![[0.0_f32; 2]; (height + 2) * line];
        // Positions are those of the whole image.
        let last = [rows.height as usize, width].map(|side| (side.max(2) - 1) as f32);
        let first_row = rows.first as f32;
        let lowest_row = height as f32 - 0.5;
        let unit = last.map(|last| (2.0 / f64::from(last)) as f32);
        for &pixel in inside {
            let target = &mut flow[(pixel / width + 1) * line + pixel % width + 1];
            *target = [fields.flow_y[pixel] / FLOW_SCALE * unit[0], fields.flow_x[pixel] / FLOW_SCALE * unit[1]];
        }
        let half = [rows.height as f32 / 2.0, width as f32 / 2.0];
        let steps = self.steps(fields.scale);
        let follow_one = |&pixel: &usize| {
            let start = [pixel / width + rows.first as usize, pixel % width];
            let mut at = [0, 1].map(|axis| start[axis] as f32 / last[axis] * 2.0 - 1.0);
            for _ in 0..steps {
                // Between −0.5 and the side − 0.5; one more for the margin keeps it positive.
                let mut place = [0, 1].map(|axis| (at[axis] + 1.0) * half[axis] - 0.5);
                place[0] = (place[0] - first_row).clamp(-0.5, lowest_row);
                let corner = place.map(|place| (place + 1.0) as usize);
                let [south, east] = [0, 1].map(|axis| place[axis] + 1.0 - corner[axis] as f32);
                let [north, west] = [1.0 - south, 1.0 - east];
                let first = corner[0] * line + corner[1];
                let [upper, lower] = [first, first + line].map(|row| [flow[row], flow[row + 1]]);
                for axis in 0..2 {
                    let step = upper[0][axis] * (north * west)
                        + upper[1][axis] * (north * east)
                        + lower[0][axis] * (south * west)
                        + lower[1][axis] * (south * east);
                    at[axis] = (at[axis] + step).clamp(-1.0, 1.0);
                }
            }
            let end = [0, 1].map(|axis| ((at[axis] + 1.0) * 0.5 * last[axis]) as u32);
            [end[0].saturating_sub(rows.first), end[1]]
        };
        inside.par_iter().map(follow_one).collect()
    }

    fn drop_large(&self, labels: &mut Labels, rows: &Rows) {
        let pixels = f64::from(rows.height) * f64::from(labels.size()[1]);
        let most = pixels * self.max_size_fraction;
        labels.retain_areas(|area| area as f64 <= most);
    }

    fn drop_small(&self, labels: &mut Labels) {
        labels.retain_areas(|area| area >= self.min_size);
        renumber(labels);
    }

    /// Drops masks whose flows, made from the masks, are far from the network's.
    fn drop_inconsistent(&self, labels: &mut Labels, fields: &FlowFields) {
        let [flow_y, flow_x] = flows_from_labels(labels);
        let mut errors = vec![(0.0_f64, 0_u64); labels.max_id() as usize + 1];
        for (pixel, &id) in labels.as_slice().iter().enumerate() {
            let square = |own: f32, network: f32| (f64::from(own) - f64::from(network / FLOW_SCALE)).powi(2);
            let (sum, count) = &mut errors[id as usize];
            *sum += square(flow_y[pixel], fields.flow_y[pixel]) + square(flow_x[pixel], fields.flow_x[pixel]);
            *count += 1;
        }
        for id in labels.as_mut_slice() {
            let (sum, count) = errors[*id as usize];
            if sum > f64::from(self.flow_threshold) * count as f64 {
                *id = 0;
            }
        }
    }
}

/// Groups pixels by where they end.
///
/// Seeds are the maxima of the histogram of end points; each grows a little over places where pixels end. Where grown seeds
/// overlap, the one with more end points has the place; of equals the later in reading order (the reference leaves that to an
/// unstable sort).
fn masks_from_ends(size: [u32; 2], inside: &[usize], ends: &[[u32; 2]]) -> Labels {
    let [height, width] = size.map(|side| side as usize + 2 * MARGIN);
    let place = |end: &[u32; 2]| {
        let [y, x] = [0, 1].map(|axis| end[axis].min(size[axis].saturating_sub(1)) as usize + MARGIN);
        y * width + x
    };
    let mut histogram = vec![0_u32; height * width];
    for end in ends {
        histogram[place(end)] += 1;
    }
    let mut seeds: Vec<usize> = (0..histogram.len())
        .filter(|&at| histogram[at] > SEED_COUNT)
        .filter(|&at| {
            // The margin is wider than the window: only places with end points come here, and none ends in the margin.
            (at / width - 2..=at / width + 2)
                .all(|y| histogram[y * width + at % width - 2..][..5].iter().all(|&other| other <= histogram[at]))
        })
        .collect();
    seeds.sort_by_key(|&seed| histogram[seed]);

    let mut grown = vec![0_u32; histogram.len()];
    for (id, &seed) in (1..).zip(&seeds) {
        grow(&histogram, width, seed, |at| grown[at] = id);
    }
    let mut labels = Labels::zeros(size);
    for (&pixel, end) in inside.iter().zip(ends) {
        labels.as_mut_slice()[pixel] = grown[place(end)];
    }
    labels
}

/// Visits the places a seed grows to: five steps to all eight neighbours that hold enough end points.
fn grow(histogram: &[u32], width: usize, seed: usize, mut visit: impl FnMut(usize)) {
    const SIDE: usize = 2 * GROWTH + 1;
    let corner = seed - GROWTH * width - GROWTH;
    let allowed = |index: usize| histogram[corner + index / SIDE * width + index % SIDE] > GROW_COUNT;
    let mut reached = [false; SIDE * SIDE];
    reached[GROWTH * SIDE + GROWTH] = true;
    for _ in 0..GROWTH {
        let before = reached;
        for (index, reached) in reached.iter_mut().enumerate() {
            let (y, x) = (index / SIDE, index % SIDE);
            let near = (y.saturating_sub(1)..=(y + 1).min(SIDE - 1))
                .any(|y| before[y * SIDE + x.saturating_sub(1)..=y * SIDE + (x + 1).min(SIDE - 1)].contains(&true));
            *reached = near && allowed(index);
        }
    }
    for (index, _) in reached.iter().enumerate().filter(|(_, reached)| **reached) {
        visit(corner + index / SIDE * width + index % SIDE);
    }
}

/// Ids `1..=n` in the order in which objects are met row by row. The order decides which of two objects owns a filled hole.
fn renumber(labels: &mut Labels) {
    let mut ids = vec![0_u32; labels.max_id() as usize + 1];
    let mut last = 0;
    for id in labels.as_mut_slice().iter_mut().filter(|id| **id != 0) {
        let new = &mut ids[*id as usize];
        if *new == 0 {
            last += 1;
            *new = last;
        }
        *id = *new;
    }
}

/// Fills the holes of each object in turn: whatever lies in them, other objects included, becomes the object. A hole is what does
/// not reach the edge of the object's box by steps to the four neighbours.
fn fill_holes(labels: &mut Labels) {
    let width = labels.size()[1] as usize;
    let boxes: Vec<Rect> = labels.extents().into_iter().map(|(_, rect)| rect).collect();
    let mut outside = Vec::new();
    let mut front = Vec::new();
    for (id, rect) in (1..).zip(boxes) {
        // The box with a margin, from which the outside is flooded.
        let (h, line) = (rect.height() as usize + 2, rect.width() as usize + 2);
        outside.clear();
        outside.resize(h * line, false);
        let pixel = |local: usize| {
            let (y, x) = (local / line, local % line);
            let within = (1..h - 1).contains(&y) && (1..line - 1).contains(&x);
            within.then(|| (rect.y0 as usize + y - 1) * width + rect.x0 as usize + x - 1)
        };
        front.push(0);
        outside[0] = true;
        while let Some(at) = front.pop() {
            let (y, x) = (at / line, at % line);
            let neighbours = [
                (y > 0, at.wrapping_sub(line)),
                (y + 1 < h, at + line),
                (x > 0, at.wrapping_sub(1)),
                (x + 1 < line, at + 1),
            ];
            for (_, next) in neighbours.into_iter().filter(|(exists, _)| *exists) {
                if !outside[next] && pixel(next).is_none_or(|pixel| labels.as_slice()[pixel] != id) {
                    outside[next] = true;
                    front.push(next);
                }
            }
        }
        for (local, _) in outside.iter().enumerate().filter(|(_, outside)| !**outside) {
            if let Some(pixel) = pixel(local) {
                labels.as_mut_slice()[pixel] = id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{Golden, mean_best_iou};

    /// The maps a perfect network would give.
    fn perfect(labels: &Labels) -> FlowFields {
        let [flow_y, flow_x] =
            flows_from_labels(labels).map(|map| map.into_iter().map(|flow| flow * FLOW_SCALE).collect());
        let cell_probability = labels.as_slice().iter().map(|&id| if id == 0 { -5.0 } else { 5.0 }).collect();
        FlowFields { size: labels.size(), flow_y, flow_x, cell_probability, scale: 1.0 }
    }

    fn discs(size: [u32; 2]) -> Labels {
        let mut labels = Labels::zeros(size);
        for (id, [y, x, radius]) in
            (1..).zip([[0, 0, 9], [20, 30, 12], [20, 54, 12], [60, 90, 15], [96, 130, 8], [70, 20, 5]])
        {
            for pixel in 0..labels.as_slice().len() {
                let at = [pixel as i64 / i64::from(size[1]) - y, pixel as i64 % i64::from(size[1]) - x];
                if at[0] * at[0] + at[1] * at[1] <= radius * radius {
                    labels.as_mut_slice()[pixel] = id;
                }
            }
        }
        labels
    }

    #[test]
    fn perfect_flows_give_the_objects_back() {
        let truth = discs([97, 131]);
        let found = Flows::default().segment(&perfect(&truth));
        assert_eq!(found.objects.len(), 6);
        assert!(mean_best_iou(&truth, &found.labels) > 0.97, "{}", mean_best_iou(&truth, &found.labels));
        assert!(found.objects.iter().all(|object| object.score > 0.99));
    }

    #[test]
    fn bands_of_rows_find_what_the_whole_shows() {
        let truth = discs([97, 131]);
        let whole = perfect(&truth);
        let expected = Flows::default().segment(&whole);
        let mut found = Vec::new();
        for tile in cytomask_image::tiles([97, 131], [45, 131], [30, 0]) {
            let rows = tile.outer.y0 as usize * 131..tile.outer.y1 as usize * 131;
            let cut = |map: &[f32]| map[rows.clone()].to_vec();
            let part = FlowFields {
                size: tile.outer.size(),
                flow_y: cut(&whole.flow_y),
                flow_x: cut(&whole.flow_x),
                cell_probability: cut(&whole.cell_probability),
                scale: 1.0,
            };
            found.extend(Flows::default().tile(&part, &tile, [97, 131]));
        }
        let settings = crate::stitch::Join {
            size: [97, 131],
            halo: [30, 0],
            max_window: 0,
            overlap: Some(crate::ops::nms::Overlap::IntersectionOverMinimum),
        };
        let Ok(joined) = crate::stitch::join::<std::convert::Infallible>(found, &settings, &mut |_, _| Ok(Vec::new()));
        let painted = Flows::default().paint([97, 131], &joined);
        assert_eq!(painted.objects.len(), expected.objects.len());
        assert!(mean_best_iou(&expected.labels, &painted.labels) > 0.999);
    }

    #[test]
    fn masks_against_the_flow_are_dropped() {
        let mut fields = perfect(&discs([97, 131]));
        // One object's vectors are turned aside by 60°, so that it still converges somewhere.
        let (sin, cos) = 60_f32.to_radians().sin_cos();
        for pixel in (0..97 * 131).filter(|pixel| pixel / 131 > 40 && pixel % 131 > 70) {
            let (y, x) = (fields.flow_y[pixel], fields.flow_x[pixel]);
            (fields.flow_y[pixel], fields.flow_x[pixel]) = (cos * y - sin * x, sin * y + cos * x);
        }
        let strict = Flows::default().segment(&fields);
        let all = Flows { flow_threshold: 0.0, ..Flows::default() }.segment(&fields);
        assert!(strict.objects.len() < all.objects.len(), "{} of {}", strict.objects.len(), all.objects.len());
    }

    #[test]
    fn holes_are_filled_and_what_lies_in_them_is_taken() {
        let ring = [[1, 1, 1, 1, 0], [1, 0, 2, 1, 0], [1, 0, 0, 1, 3], [1, 1, 1, 1, 3]].concat();
        let mut labels = Labels::from_vec([4, 5], ring).unwrap();
        fill_holes(&mut labels);
        assert_eq!(labels.as_slice(), [[1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 3], [1, 1, 1, 1, 3]].concat());
    }

    #[test]
    fn nothing_above_the_threshold_gives_nothing() {
        for size in [[0, 0], [1, 1], [4, 7]] {
            let map = vec![0.0; size[0] as usize * size[1] as usize];
            let fields =
                FlowFields { size, flow_y: map.clone(), flow_x: map.clone(), cell_probability: map, scale: 1.0 };
            assert!(Flows::default().segment(&fields).objects.is_empty());
        }
    }

    #[test]
    fn masks_are_the_references() {
        let golden = Golden::open("flows.safetensors");
        for case in ["discs", "noisy", "ragged"] {
            let size = golden.labels(&format!("{case}/masks")).size();
            let map = |name: &str, step: f32| -> Vec<f32> {
                golden
                    .bytes(&format!("{case}/{name}"))
                    .iter()
                    .map(|&byte| f32::from(byte.cast_signed()) / step)
                    .collect()
            };
            let fields = FlowFields {
                size,
                flow_y: map("flow_y", 16.0),
                flow_x: map("flow_x", 16.0),
                cell_probability: map("cellprob", 8.0),
                scale: 1.0,
            };
            for (name, settings) in [
                ("masks", Flows::default()),
                ("all", Flows { flow_threshold: 0.0, min_size: 1, ..Flows::default() }),
                ("short", Flows { niter: 40, cellprob_threshold: 1.0, ..Flows::default() }),
            ] {
                let expected = golden.labels(&format!("{case}/{name}"));
                let found = settings.segment(&fields);
                let different = expected.as_slice().iter().zip(found.labels.as_slice()).filter(|(a, b)| a != b).count();
                assert_eq!(found.objects.len(), expected.max_id() as usize, "{case} {name}");
                // A path that ends within rounding of a pixel's edge may be truncated to either side.
                assert!(different <= 3, "{case} {name}: {different} pixels differ");
            }
        }
    }

    #[test]
    fn targets_are_the_references() {
        let golden = Golden::open("flows.safetensors");
        let labels = golden.labels("targets/labels");
        let found = flows_from_labels(&labels);
        for (name, found) in ["y", "x"].into_iter().zip(found) {
            let expected = golden.f32s(&format!("targets/{name}"));
            let different = found.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 1e-5).count();
            // At the centre of a symmetric object the heat is level and rounding alone gives a direction of length 1.
            assert!(different <= labels.max_id() as usize / 2, "{name}: {different} pixels differ");
        }
    }
}
