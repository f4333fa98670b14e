//! Flows of a label image: for each pixel of an object a unit vector that leads, pixel by pixel, to the object's centre.
//!
//! Stringer et al., "Cellpose", Nature Methods 2021; reference: `masks_to_flows_gpu` of cellpose 4. Heat starts at the centre and
//! spreads inside the object; the flow is the direction in which it rises. Both the training targets of a flow network and the
//! quality control of masks found from flows.

use cytomask_image::{Labels, Rect};
use rayon::prelude::*;

/// Keeps the length of a vanishing gradient away from 0, as the reference does.
const TINY: f64 = 1e-60;

/// Objects whose boxes of heat are held at a time.
const HEATED_TOGETHER: usize = 512;

/// Flows of all objects, `[y, x]` maps row-major `[H, W]`; 0 in the background.
///
/// As in the reference every object is heated for as many steps as the largest needs (twice its box's height + width + 2), a
/// pixel's new heat is a ninth of the sum over itself and its eight neighbours of the same object, and the gradient reads the heat
/// of neighbours whatever object they belong to.
pub fn flows_from_labels(labels: &Labels) -> [Vec<f32>; 2] {
    let size = labels.size();
    let width = size[1] as usize;
    let mut flows = [vec![0.0_f32; labels.as_slice().len()], vec![0.0_f32; labels.as_slice().len()]];
    let objects: Vec<(u32, Rect)> =
        (1..).zip(labels.extents()).filter(|(_, (area, _))| *area > 0).map(|(id, (_, rect))| (id, rect)).collect();
    let Some(steps) = objects.iter().map(|(_, rect)| 2 * (rect.height() + rect.width() + 2)).max() else {
        return flows;
    };
    let mut heat = vec![0.0_f64; labels.as_slice().len()];
    for some in objects.chunks(HEATED_TOGETHER) {
        let heated: Vec<Vec<f64>> = some.par_iter().map(|&(id, rect)| diffuse(labels, id, rect, steps)).collect();
        for ((id, rect), values) in some.iter().zip(&heated) {
            for_each_pixel(labels, *id, *rect, |index, local| heat[index] = values[local]);
        }
    }
    let [height, width] = [size[0] as usize, width];
    let at = |y: usize, x: usize| heat[y * width + x];
    for (index, _) in labels.as_slice().iter().enumerate().filter(|&(_, &id)| id != 0) {
        let (y, x) = (index / width, index % width);
        // Beyond the image there is no heat.
        let below = if y + 1 < height { at(y + 1, x) } else { 0.0 };
        let above = if y > 0 { at(y - 1, x) } else { 0.0 };
        let right = if x + 1 < width { at(y, x + 1) } else { 0.0 };
        let left = if x > 0 { at(y, x - 1) } else { 0.0 };
        let (dy, dx) = (below - above, right - left);
        let length = TINY + (dy * dy + dx * dx).sqrt();
        flows[0][index] = (dy / length) as f32;
        flows[1][index] = (dx / length) as f32;
    }
    flows
}

/// Calls `visit(index in the image, index in the padded box)` for the pixels of an object.
fn for_each_pixel(labels: &Labels, id: u32, rect: Rect, mut visit: impl FnMut(usize, usize)) {
    let (width, line) = (labels.size()[1] as usize, rect.width() as usize + 2);
    for y in rect.y0 as usize..rect.y1 as usize {
        let local = (y - rect.y0 as usize + 1) * line + 1;
        for x in rect.x0 as usize..rect.x1 as usize {
            if labels.as_slice()[y * width + x] == id {
                visit(y * width + x, local + x - rect.x0 as usize);
            }
        }
    }
}

/// Heat of one object in its box with a margin of one pixel.
fn diffuse(labels: &Labels, id: u32, rect: Rect, steps: u32) -> Vec<f64> {
    let line = rect.width() as usize + 2;
    let pixels = (rect.height() as usize + 2) * line;
    let mut share = vec![0.0_f64; pixels];
    let (mut count, mut sums) = (0_u64, [0_u64; 2]);
    for_each_pixel(labels, id, rect, |_, local| {
        share[local] = 1.0 / 9.0;
        count += 1;
        sums = [sums[0] + (local / line) as u64, sums[1] + (local % line) as u64];
    });
    let centre = centre(&share, line, sums.map(|sum| round_half_even(sum as f64 / count as f64)));

    let mut heat = vec![0.0_f64; pixels];
    let mut rows = vec![0.0_f64; pixels];
    for _ in 0..steps {
        heat[centre] += 1.0;
        for (sum, triple) in rows[1..pixels - 1].iter_mut().zip(heat.windows(3)) {
            *sum = triple[0] + triple[1] + triple[2];
        }
        let inner = line..pixels - line;
        let columns = rows[..pixels - 2 * line].iter().zip(&rows[inner.clone()]).zip(&rows[2 * line..]);
        for ((heat, share), ((above, here), below)) in heat[inner.clone()].iter_mut().zip(&share[inner]).zip(columns) {
            *heat = (above + here + below) * share;
        }
    }
    heat
}

/// The rounded mean position if the object covers it, else the pixel of the object nearest to it, the first of equals.
fn centre(share: &[f64], line: usize, [mean_y, mean_x]: [f64; 2]) -> usize {
    let rounded = mean_y as usize * line + mean_x as usize;
    if share[rounded] > 0.0 {
        return rounded;
    }
    let distance = |pixel: usize| {
        (pixel % line).abs_diff(mean_x as usize).pow(2) + (pixel / line).abs_diff(mean_y as usize).pow(2)
    };
    (0..share.len()).filter(|&pixel| share[pixel] > 0.0).min_by_key(|&pixel| distance(pixel)).unwrap_or(rounded)
}

/// As numpy rounds. The margin of one pixel shifts odd to even, so the rule is applied to the position inside the box.
fn round_half_even(padded: f64) -> f64 {
    (padded - 1.0).round_ties_even() + 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flow_of_a_square_leads_to_its_middle() {
        let labels = Labels::from_vec(
            [5, 6],
            [[0; 6], [0, 4, 4, 4, 0, 0], [0, 4, 4, 4, 0, 0], [0, 4, 4, 4, 0, 0], [0; 6]].concat(),
        )
        .unwrap();
        let [dy, dx] = flows_from_labels(&labels);
        let at = |map: &[f32], y: usize, x: usize| map[y * 6 + x];
        assert_eq!([at(&dy, 2, 2), at(&dx, 2, 2)], [0.0, 0.0]);
        assert_eq!([at(&dy, 1, 2), at(&dx, 1, 2)], [1.0, 0.0]);
        assert_eq!([at(&dy, 2, 3), at(&dx, 2, 3)], [0.0, -1.0]);
        let diagonal = std::f32::consts::FRAC_1_SQRT_2;
        assert!((at(&dy, 3, 1) + diagonal).abs() < 1e-6 && (at(&dx, 3, 1) - diagonal).abs() < 1e-6);
        assert_eq!(at(&dy, 0, 0), 0.0);
    }

    #[test]
    fn no_objects_no_flows() {
        assert!(flows_from_labels(&Labels::zeros([3, 4])).iter().flatten().all(|&flow| flow == 0.0));
        assert!(flows_from_labels(&Labels::zeros([0, 4]))[0].is_empty());
    }
}
