//! Where the pixels of a crop come from: flips, turns, rotation and scale as one map, and one resampling.

use cytomask_image::{Labels, Rgb};
use rand::{Rng, RngExt};

use super::{Augmentation, OBJECT_SIDES, normal};
use crate::data::Packed;

/// Objects are never enlarged or shrunk by more.
const MOST_ZOOM: f64 = 4.0;

/// A smaller image is enlarged until it fills this share of the crop.
const LEAST_FILLED: f64 = 0.6;

/// Samples along a side taken for one pixel of a shrunk crop at most.
const MOST_SUBSAMPLES: usize = 4;

/// An affine map from the crop to the image, both in pixels with pixel centres at halves.
#[derive(Clone, Copy, Debug)]
pub(in crate::data) struct CropMap {
    /// The image position `[y, x]` of the crop's middle.
    middle: [f64; 2],
    /// Image rows and columns for one row, and for one column, of the crop: `[[dy/drow, dy/dcolumn], [dx/drow, dx/dcolumn]]`.
    matrix: [[f64; 2]; 2],
}

/// Draws the map of a crop: scale, then rotation, then a place where the crop lies inside the image as far as it fits.
pub(in crate::data) fn draw(changes: &Augmentation, image: &Packed, side: u32, rng: &mut impl Rng) -> CropMap {
    let [h, w] = image.size().map(f64::from);
    let side = f64::from(side);
    let zoom = zoom(changes, image.median_side(), rng);
    let zoom = zoom.max(LEAST_FILLED * side / h.max(w)).clamp(1.0 / MOST_ZOOM, MOST_ZOOM);
    let stretch =
        changes.stretch.drawn(rng).map_or(1.0, |strength| (normal(rng) * strength).clamp(-0.7, 0.7).exp().sqrt());
    let (zoom_y, zoom_x) = (zoom * stretch, zoom / stretch);

    let (turn, mirror) = (rng.random_range(0..4_u8), rng.random_bool(0.5));
    let (turn, mirror) = if changes.flip.drawn(rng).is_some() { (turn, mirror) } else { (0, false) };
    let angle = changes.rotate.drawn(rng).map_or(0.0, |most| rng.random_range(-1.0..=1.0_f64) * most.to_radians());
    let (sine, cosine) = match turn {
        // Exact, so that a quarter turn does not resample.
        0 => (0.0, 1.0),
        1 => (1.0, 0.0),
        2 => (0.0, -1.0),
        _ => (-1.0, 0.0),
    };
    let (sine, cosine) = (sine * angle.cos() + cosine * angle.sin(), cosine * angle.cos() - sine * angle.sin());
    let flip = if mirror { -1.0 } else { 1.0 };
    let matrix = [[cosine / zoom_y, -sine * flip / zoom_y], [sine / zoom_x, cosine * flip / zoom_x]];

    let middle = [(h, 0), (w, 1)].map(|(length, axis)| {
        let reach = (matrix[axis][0].abs() + matrix[axis][1].abs()) * side / 2.0;
        let free = (length - 2.0 * reach).max(0.0);
        let at = rng.random_range(0.0..=1.0) * free;
        if free > 0.0 { reach + at } else { length / 2.0 }
    });
    CropMap { middle, matrix }
}

/// How much larger objects become.
fn zoom(changes: &Augmentation, median_side: Option<f64>, rng: &mut impl Rng) -> f64 {
    let place = rng.random_range(-1.0..=1.0_f64);
    let scaled = changes.scale.drawn(rng).map_or(1.0, |strength| (place * (1.0 + strength).ln()).exp());
    match (changes.size.drawn(rng), median_side) {
        (Some(power), Some(side)) => {
            let [least, most] = OBJECT_SIDES.map(f64::ln);
            let (middle, reach) = ((least + most) / 2.0, (most - least) / 2.0 * power);
            (middle + place * reach).exp() / side
        }
        _ => scaled,
    }
}

impl CropMap {
    /// The image position `[y, x]` of a position in the crop of `side` pixels.
    fn position(&self, row: f64, column: f64, side: f64) -> [f64; 2] {
        let (v, u) = (row - side / 2.0, column - side / 2.0);
        [0, 1].map(|axis| self.middle[axis] + self.matrix[axis][0] * v + self.matrix[axis][1] * u)
    }

    /// Cuts the crop: bilinear pixels (means of several where the crop is smaller than its place), nearest ids; outside is mirrored. Ids
    /// become `1..=n`.
    pub(in crate::data) fn resample(&self, from: &Packed, side: u32) -> (Rgb, Labels) {
        let [h, w] = from.size().map(|side| side as usize);
        let length = side as f64;
        let step = self.matrix.iter().flatten().fold(0.0_f64, |most, value| most.max(value.abs()));
        let subsamples = (step.ceil() as usize).clamp(1, MOST_SUBSAMPLES);
        let weight = 1.0 / (subsamples * subsamples) as f32;
        let mut image = Rgb { size: [side; 2], samples: Vec::with_capacity((side * side * 3) as usize) };
        let mut labels = Labels::zeros([side; 2]);
        for (at, id) in labels.as_mut_slice().iter_mut().enumerate() {
            let (row, column) = ((at as u32 / side) as f64, (at as u32 % side) as f64);
            let mut sum = [0.0_f32; 3];
            for part in 0..subsamples * subsamples {
                let [v, u] = [part / subsamples, part % subsamples].map(|part| (part as f64 + 0.5) / subsamples as f64);
                let [y, x] = self.position(row + v, column + u, length);
                let pixel = bilinear(from, [h, w], y - 0.5, x - 0.5);
                sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value * weight);
            }
            image.samples.extend(sum);
            let [y, x] = self.position(row + 0.5, column + 0.5, length);
            let nearest = |at: f64, length: usize| (mirrored(at - 0.5, length).round() as usize).min(length - 1);
            *id = from.id(nearest(y, h) * w + nearest(x, w));
        }
        labels.relabel();
        (image, labels)
    }
}

/// The three channels between pixels; `y`, `x` in pixels with centres at whole numbers.
fn bilinear(from: &Packed, [h, w]: [usize; 2], y: f64, x: f64) -> [f32; 3] {
    let (y, x) = (mirrored(y, h), mirrored(x, w));
    let (ya, xa) = (y.floor() as usize, x.floor() as usize);
    let (fy, fx) = ((y - ya as f64) as f32, (x - xa as f64) as f32);
    if fy == 0.0 && fx == 0.0 {
        return from.pixel(ya * w + xa);
    }
    let (yb, xb) = ((ya + 1).min(h - 1), (xa + 1).min(w - 1));
    let [a, b, c, d] = [ya * w + xa, ya * w + xb, yb * w + xa, yb * w + xb].map(|at| from.pixel(at));
    [0, 1, 2].map(|channel| {
        let top = a[channel] * (1.0 - fx) + b[channel] * fx;
        let bottom = c[channel] * (1.0 - fx) + d[channel] * fx;
        top * (1.0 - fy) + bottom * fy
    })
}

/// Reflects a coordinate into `0..=length − 1` (pixel centres at whole numbers).
fn mirrored(position: f64, length: usize) -> f64 {
    let last = (length - 1) as f64;
    if (0.0..=last).contains(&position) {
        return position;
    }
    if last == 0.0 {
        return 0.0;
    }
    let folded = position.rem_euclid(2.0 * last);
    if folded > last { 2.0 * last - folded } else { folded }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::data::Sample;
    use crate::data::augment::{Change, Preset};

    /// Every pixel another value, every row another id.
    fn packed() -> Packed {
        let samples = (0..97 * 131_u32).flat_map(|at| [(at % 131) as f32, (at / 131) as f32, 7.0]).collect();
        let ids = (0..97 * 131_u32).map(|at| at / 131 + 1).collect();
        let labels = Labels::from_vec([97, 131], ids).unwrap();
        Packed::new(&Sample { path: "made".into(), image: Rgb { size: [97, 131], samples }, labels })
    }

    #[test]
    fn coordinates_fold_at_both_ends() {
        assert_eq!(mirrored(-1.0, 5), 1.0);
        assert_eq!(mirrored(5.0, 5), 3.0);
        assert_eq!(mirrored(2.5, 5), 2.5);
        assert_eq!(mirrored(7.0, 1), 0.0);
    }

    #[test]
    fn without_changes_a_crop_is_a_piece_of_the_image() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..10 {
            let map = draw(&Preset::None.augmentation(), &packed(), 32, &mut rng);
            let (image, labels) = map.resample(&packed(), 32);
            let (x0, y0) = (image.samples[0], image.samples[1]);
            assert!(x0 <= 131.0 - 32.0 && y0 <= 97.0 - 32.0);
            // Between pixels by one and the same part.
            for (at, pixel) in image.samples.chunks_exact(3).enumerate() {
                let (row, column) = ((at / 32) as f32, (at % 32) as f32);
                assert!((pixel[0] - x0 - column).abs() < 1e-3 && (pixel[1] - y0 - row).abs() < 1e-3);
            }
            // One id a row, `1..=32`.
            assert_eq!((labels.at(0, 0), labels.at(31, 5), labels.max_id()), (1, 32, 32));
        }
    }

    #[test]
    fn quarter_turns_and_mirrors_by_hand() {
        let map = |matrix| CropMap { middle: [20.0, 30.0], matrix };
        let first = |matrix| {
            let (image, _) = map(matrix).resample(&packed(), 4);
            // x and y at the crop's first two pixels of its first row.
            [image.samples[0], image.samples[1], image.samples[3], image.samples[4]]
        };
        assert_eq!(first([[1.0, 0.0], [0.0, 1.0]]), [28.0, 18.0, 29.0, 18.0]);
        assert_eq!(first([[1.0, 0.0], [0.0, -1.0]]), [31.0, 18.0, 30.0, 18.0]);
        assert_eq!(first([[0.0, -1.0], [1.0, 0.0]]), [28.0, 21.0, 28.0, 20.0]);
        assert_eq!(first([[-1.0, 0.0], [0.0, -1.0]]), [31.0, 21.0, 30.0, 21.0]);
        // Half the size: means of four.
        assert_eq!(first([[2.0, 0.0], [0.0, 2.0]]), [26.5, 16.5, 28.5, 16.5]);
    }

    #[test]
    fn objects_are_brought_to_a_size() {
        let mut labels = Labels::zeros([400, 400]);
        for y in 100..300 {
            labels.as_mut_slice()[y * 400 + 100..y * 400 + 300].fill(1);
        }
        let image = Rgb { size: [400, 400], samples: vec![0.0; 400 * 400 * 3] };
        let large = Packed::new(&Sample { path: "made".into(), image, labels });
        assert_eq!(large.median_side(), Some(200.0));
        let changes = Augmentation { size: Change { share: 1.0, strength: 1.0 }, ..Preset::None.augmentation() };
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let sides: Vec<f64> = (0..200).map(|_| zoom(&changes, large.median_side(), &mut rng) * 200.0).collect();
        let (least, most) = (sides.iter().copied().fold(f64::MAX, f64::min), sides.iter().copied().fold(0.0, f64::max));
        assert!((13.0..15.0).contains(&least) && (48.0..=52.01).contains(&most), "{least} {most}");
        // Not smaller than fills the crop, and not by more than the largest factor.
        let map = draw(&changes, &large, 224, &mut rng);
        assert!(map.matrix[0][0].abs().max(map.matrix[0][1].abs()) <= 400.0 / (LEAST_FILLED * 224.0) + 1e-9);
    }
}
