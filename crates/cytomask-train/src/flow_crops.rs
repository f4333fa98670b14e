//! Training crops with flows: any rotation, mirroring, scale and place, as Cellpose draws them (`random_rotate_and_resize` of cellpose 4).
//!
//! Flows are computed once for an image and turned with it. Outside of the image everything is 0.

use cytomask_image::{Labels, Rgb};
use cytomask_segment::ops::flow_targets::flows_from_labels;
use rand::{Rng, RngExt};

/// Samples of an image that count as white.
const WHITE: f32 = 255.0;

/// Images are enlarged by `1 ± SCALE_RANGE / 2`; upstream's default.
const SCALE_RANGE: f64 = 0.5;

/// Maps of a label image, each `[H, W]`: unit flow along y, along x, 1 in objects.
pub(crate) fn target_maps(labels: &Labels) -> [Vec<f32>; 3] {
    let [y, x] = flows_from_labels(labels);
    let inside = labels.as_slice().iter().map(|&id| f32::from(u8::from(id != 0))).collect();
    [y, x, inside]
}

/// A square crop.
#[derive(Clone, Debug)]
pub(crate) struct FlowCrop {
    /// Pixels.
    pub(crate) side: usize,
    /// `[3, side, side]`, 1 being white.
    pub(crate) image: Vec<f32>,
    /// `[3, side, side]`, as [`target_maps`].
    pub(crate) targets: Vec<f32>,
}

/// Draws a crop of an image and its maps.
pub(crate) fn draw(image: &Rgb, maps: &[Vec<f32>; 3], side: usize, rng: &mut impl Rng) -> FlowCrop {
    let scale = 1.0 - SCALE_RANGE / 2.0 + SCALE_RANGE * rng.random::<f64>();
    let angle = std::f64::consts::TAU * (rng.random::<f64>() - 0.5);
    let flip = rng.random_bool(0.5);
    let mut shift = |length: u32| {
        let room = (f64::from(length) * scale - side as f64).max(0.0);
        room * (rng.random::<f64>() - 0.5)
    };
    let shift = [shift(image.size[0]), shift(image.size[1])];
    cut(image, maps, side, &Placement { scale, angle, flip, shift })
}

/// How a crop lies over an image, both centred: the image is mirrored, enlarged, turned and moved.
#[derive(Clone, Copy, Debug)]
struct Placement {
    scale: f64,
    /// Of the turn from y towards x, radians.
    angle: f64,
    /// Along x.
    flip: bool,
    /// `[y, x]`, pixels of the crop.
    shift: [f64; 2],
}

fn cut(image: &Rgb, maps: &[Vec<f32>; 3], side: usize, placement: &Placement) -> FlowCrop {
    let [h, w] = image.size.map(|length| length as usize);
    let (sin, cos) = placement.angle.sin_cos();
    let pixels = side * side;
    let mut crop = FlowCrop { side, image: vec![0.0; 3 * pixels], targets: vec![0.0; 3 * pixels] };
    for row in 0..side {
        for column in 0..side {
            let dy = row as f64 + 0.5 - side as f64 / 2.0 - placement.shift[0];
            let dx = column as f64 + 0.5 - side as f64 / 2.0 - placement.shift[1];
            // Back by the turn and the scale.
            let y = (dy * cos + dx * sin) / placement.scale + h as f64 / 2.0 - 0.5;
            let x = (dx * cos - dy * sin) / placement.scale;
            let x = if placement.flip { -x } else { x } + w as f64 / 2.0 - 0.5;
            let corners = corners([y, x], [h, w]);
            let sum =
                |at: &dyn Fn(usize) -> f32| corners.iter().map(|&(index, weight)| at(index) * weight).sum::<f32>();
            let pixel = row * side + column;
            for channel in 0..3 {
                crop.image[channel * pixels + pixel] = sum(&|index| image.samples[index * 3 + channel]) / WHITE;
            }
            let [flow_y, flow_x, inside] = [0, 1, 2].map(|map: usize| sum(&|index| maps[map][index]));
            let flow_x = if placement.flip { -flow_x } else { flow_x };
            let (sin, cos) = (sin as f32, cos as f32);
            crop.targets[pixel] = flow_y * cos - flow_x * sin;
            crop.targets[pixels + pixel] = flow_y * sin + flow_x * cos;
            crop.targets[2 * pixels + pixel] = f32::from(u8::from(inside > 0.5));
        }
    }
    crop
}

/// The pixels around a place, as indices into `[H, W]` and their weights; what lies outside is left out.
fn corners([y, x]: [f64; 2], [h, w]: [usize; 2]) -> Vec<(usize, f32)> {
    let (top, left) = (y.floor(), x.floor());
    let (fy, fx) = ((y - top) as f32, (x - left) as f32);
    let inside = |value: f64, length: usize| (value >= 0.0 && value < length as f64).then_some(value as usize);
    [(0.0, 0.0, (1.0 - fy) * (1.0 - fx)), (0.0, 1.0, (1.0 - fy) * fx), (1.0, 0.0, fy * (1.0 - fx)), (1.0, 1.0, fy * fx)]
        .into_iter()
        .filter_map(|(down, right, weight)| {
            let (y, x) = (inside(top + down, h)?, inside(left + right, w)?);
            Some((y * w + x, weight))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Sample;

    fn sample() -> Sample {
        let size = [97, 131];
        let mut labels = Labels::zeros(size);
        for y in 20..60_u32 {
            for x in 30..100_u32 {
                let (dy, dx) = ((f64::from(y) - 40.0) / 15.0, (f64::from(x) - 65.0) / 30.0);
                if dy * dy + dx * dx < 1.0 {
                    labels.as_mut_slice()[(y * 131 + x) as usize] = 1;
                }
            }
        }
        let samples = labels.as_slice().iter().flat_map(|&id| [if id == 0 { 0.0 } else { 255.0 }; 3]).collect();
        Sample { path: "made".into(), image: Rgb { size, samples }, labels }
    }

    #[test]
    fn an_unmoved_crop_is_the_middle_of_the_image() {
        let sample = sample();
        let maps = target_maps(&sample.labels);
        let crop = cut(&sample.image, &maps, 33, &Placement { scale: 1.0, angle: 0.0, flip: false, shift: [0.0; 2] });
        for row in 0..33 {
            for column in 0..33 {
                let index = (row + 32) * 131 + column + 49;
                assert!((crop.image[row * 33 + column] - sample.image.samples[index * 3] / 255.0).abs() < 1e-6);
                for (map, values) in maps.iter().enumerate() {
                    assert!((crop.targets[map * 33 * 33 + row * 33 + column] - values[index]).abs() < 1e-6);
                }
            }
        }
    }

    /// Flows of the turned labels are the turned flows, but for pixels at the outline.
    #[test]
    fn flows_turn_with_the_image() {
        let sample = sample();
        let maps = target_maps(&sample.labels);
        for (angle, flip, scale) in [(0.7, false, 1.2), (-2.1, true, 0.9), (1.5, true, 1.0)] {
            let side = 128;
            let placement = Placement { scale, angle, flip, shift: [3.0, -5.0] };
            let crop = cut(&sample.image, &maps, side, &placement);
            let inside = &crop.targets[2 * side * side..];
            let labels = Labels::from_vec([128; 2], inside.iter().map(|&value| value as u32).collect()).unwrap();
            let expected = flows_from_labels(&labels);
            let (mut agreement, mut count) = (0.0, 0.0);
            for (index, _) in inside.iter().enumerate().filter(|&(_, &value)| value > 0.0) {
                let found = [crop.targets[index], crop.targets[side * side + index]];
                agreement += found[0] * expected[0][index] + found[1] * expected[1][index];
                count += 1.0;
            }
            assert!(count > 900.0 && agreement / count > 0.93, "{angle} {flip}: {}", agreement / count);
        }
    }
}
