//! Training images: pairs of files, checks, random crops and augmentation.

use std::path::{Path, PathBuf};

use cytomask_image::{Image, Labels, Normalization, ReadOptions, Rgb, read_labels};
use rand::{Rng, RngExt};

use crate::{Error, ErrorKind};

/// One image with its true objects.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The image's file.
    pub path: PathBuf,
    /// `[H, W, 3]`, 0–255, converted as the model expects.
    pub image: Rgb,
    /// The true objects, `[H, W]`.
    pub labels: Labels,
}

/// Loads every image of `images` with the label image of the same stem in `labels`.
///
/// # Errors
/// `Data`: an image without labels, sizes that differ, a file that cannot be read, no image at all, labels without any object.
pub fn load_folder(images: &Path, labels: &Path, normalization: Normalization) -> Result<Vec<Sample>, Error> {
    let label_files = files(labels)?;
    let mut samples = Vec::new();
    for path in files(images)? {
        let label_path = label_files
            .iter()
            .find(|candidate| candidate.file_stem() == path.file_stem())
            .ok_or_else(|| data(format!("{}: no label image of this name in {}", path.display(), labels.display())))?;
        samples.push(load_pair(&path, label_path, normalization)?);
    }
    if samples.is_empty() {
        return Err(data(format!("{}: no images in this folder", images.display())));
    }
    if samples.iter().all(|sample| sample.labels.max_id() == 0) {
        return Err(data(format!("{}: none of the label images holds an object", labels.display())));
    }
    Ok(samples)
}

fn load_pair(path: &Path, label_path: &Path, normalization: Normalization) -> Result<Sample, Error> {
    let unreadable = |error| data("a training file cannot be used").with_source(error);
    let image = Image::open(path, &ReadOptions::default())
        .and_then(|image| image.to_rgb(normalization))
        .map_err(|error| unreadable(error.with_path(path)))?;
    let labels = read_labels(label_path).map_err(|error| unreadable(error.with_path(label_path)))?;
    if image.size != labels.size() {
        let ([h, w], [label_h, label_w]) = (image.size, labels.size());
        let found = format!("{label_h} × {label_w}, its image {} is {h} × {w}", path.display());
        return Err(data(format!("{}: the label image is {found}", label_path.display())));
    }
    Ok(Sample { path: path.to_path_buf(), image, labels })
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let unlisted = |error| data(format!("{}: cannot list the folder", folder.display())).with_source(error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unlisted)? {
        let path = entry.map_err(unlisted)?.path();
        let extension = path.extension().and_then(|text| text.to_str()).unwrap_or_default().to_lowercase();
        if path.is_file() && ["png", "tif", "tiff", "jpg", "jpeg"].contains(&extension.as_str()) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn data(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Data, message)
}

/// A square training crop.
#[derive(Clone, Debug)]
pub struct Crop {
    /// `[side, side, 3]`, 0–255.
    pub image: Rgb,
    /// True objects, `[side, side]`.
    pub labels: Labels,
    /// Which sample it was cut from.
    pub source: usize,
}

/// Objects of fewer pixels do not count when a crop is judged; µSAM's `MinInstanceSampler(2, min_size=25)` counts the background
/// as the second instance, so that one object is enough.
const MIN_OBJECT_PX: u64 = 25;

/// Draws of a crop before one without objects is taken.
const CROP_ATTEMPTS: usize = 20;

/// Cuts random crops that hold at least one object, and augments them.
#[derive(Clone, Copy, Debug)]
pub struct CropSampler {
    /// Side of the crops, pixels.
    pub side: u32,
    /// Largest factor by which objects are enlarged or shrunk (log-uniform in `1/zoom..zoom`).
    pub zoom: f64,
    /// Whether intensities are changed (gamma, gain, noise, inversion).
    pub intensity: bool,
}

impl CropSampler {
    /// One crop of a random sample.
    pub fn draw(&self, samples: &[Sample], rng: &mut impl Rng) -> Crop {
        let mut crop = self.cut(samples, rng);
        for _ in 1..CROP_ATTEMPTS {
            if crop.labels.extents().iter().any(|&(area, _)| area >= MIN_OBJECT_PX) {
                break;
            }
            crop = self.cut(samples, rng);
        }
        if self.intensity {
            change_intensity(&mut crop.image, rng);
        }
        crop
    }

    /// Cuts and resamples in one step: flips, quarter turns, zoom; bilinear pixels, nearest labels; outside is mirrored.
    fn cut(&self, samples: &[Sample], rng: &mut impl Rng) -> Crop {
        let source = rng.random_range(0..samples.len());
        let sample = &samples[source];
        let [h, w] = sample.image.size.map(|side| side as usize);
        let side = self.side as usize;
        let zoom = (rng.random_range(-1.0..=1.0_f64) * self.zoom.ln()).exp();
        let extent = side as f64 / zoom;
        let y0 = rng.random_range(0.0..=1.0) * (h as f64 - extent).max(0.0);
        let x0 = rng.random_range(0.0..=1.0) * (w as f64 - extent).max(0.0);
        let (turn, flip) = (rng.random_range(0..4_u8), rng.random_bool(0.5));

        let mut image = Rgb { size: [self.side; 2], samples: Vec::with_capacity(side * side * 3) };
        let mut labels = Labels::zeros([self.side; 2]);
        for row in 0..side {
            for column in 0..side {
                let [v, u] = turned([row, column], side, turn, flip);
                let y = mirrored(y0 + (v as f64 + 0.5) / zoom - 0.5, h);
                let x = mirrored(x0 + (u as f64 + 0.5) / zoom - 0.5, w);
                let (ya, xa) = (y.floor() as usize, x.floor() as usize);
                let (yb, xb) = ((ya + 1).min(h - 1), (xa + 1).min(w - 1));
                let (fy, fx) = ((y - ya as f64) as f32, (x - xa as f64) as f32);
                for channel in 0..3 {
                    let at = |y: usize, x: usize| sample.image.samples[(y * w + x) * 3 + channel];
                    let top = at(ya, xa) * (1.0 - fx) + at(ya, xb) * fx;
                    let bottom = at(yb, xa) * (1.0 - fx) + at(yb, xb) * fx;
                    image.samples.push(top * (1.0 - fy) + bottom * fy);
                }
                let nearest = (y.round() as usize).min(h - 1) * w + (x.round() as usize).min(w - 1);
                labels.as_mut_slice()[row * side + column] = sample.labels.as_slice()[nearest];
            }
        }
        labels.relabel();
        Crop { image, labels, source }
    }
}

/// The place a pixel of the crop comes from under `turn` quarter turns and a flip.
fn turned([row, column]: [usize; 2], side: usize, turn: u8, flip: bool) -> [usize; 2] {
    let column = if flip { side - 1 - column } else { column };
    match turn {
        0 => [row, column],
        1 => [column, side - 1 - row],
        2 => [side - 1 - row, side - 1 - column],
        _ => [side - 1 - column, row],
    }
}

/// Reflects a coordinate into `0..=length − 1` (pixel centres at whole numbers).
fn mirrored(position: f64, length: usize) -> f64 {
    let last = (length - 1) as f64;
    if last == 0.0 {
        return 0.0;
    }
    let folded = position.rem_euclid(2.0 * last);
    if folded > last { 2.0 * last - folded } else { folded }
}

/// Gamma, gain by channel, noise, and for grey images now and then an inversion.
fn change_intensity(image: &mut Rgb, rng: &mut impl Rng) {
    let grey = image.samples.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]);
    let gamma = rng.random_range(0.7..1.4_f32);
    let invert = grey && rng.random_bool(0.1);
    let noise = if rng.random_bool(0.3) { rng.random_range(0.0..8.0_f32) } else { 0.0 };
    let shared = rng.random_range(0.8..1.2_f32);
    let gain = [(); 3].map(|()| if grey { shared } else { shared * rng.random_range(0.9..1.1) });
    for pixel in image.samples.chunks_exact_mut(3) {
        // Grey stays grey: its noise is drawn once a pixel.
        let common = noise * rng.random_range(-1.0..1.0);
        for (sample, gain) in pixel.iter_mut().zip(gain) {
            let value = if invert { 255.0 - *sample } else { *sample };
            let added = if grey { common } else { noise * rng.random_range(-1.0..1.0) };
            *sample = ((value / 255.0).max(0.0).powf(gamma) * 255.0 * gain + added).clamp(0.0, 255.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn sample() -> Sample {
        let (h, w) = (97, 131);
        let mut labels = Labels::zeros([h, w]);
        for y in 20..40 {
            for x in 50..90 {
                labels.as_mut_slice()[y * w as usize + x] = 9;
            }
        }
        let samples = labels.as_slice().iter().flat_map(|&id| [if id == 0 { 10.0 } else { 200.0 }; 3]).collect();
        Sample { path: "made".into(), image: Rgb { size: [h, w], samples }, labels }
    }

    #[test]
    fn image_and_labels_stay_together_through_every_turn() {
        let sampler = CropSampler { side: 64, zoom: 1.0, intensity: false };
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for _ in 0..20 {
            let crop = sampler.draw(&[sample()], &mut rng);
            assert_eq!(crop.image.size, [64, 64]);
            let (mut right, mut objects) = (0, 0);
            for (pixel, &id) in crop.image.samples.chunks(3).zip(crop.labels.as_slice()) {
                right += usize::from((pixel[0] > 100.0) == (id != 0));
                objects += usize::from(id != 0);
            }
            // A crop lies between pixels: half a pixel of doubt along the outline.
            assert!(right >= 64 * 64 - 240, "{right}");
            assert!(objects > 25);
            assert!(crop.labels.max_id() == 1);
        }
    }

    #[test]
    fn coordinates_fold_at_both_ends() {
        assert_eq!(mirrored(-1.0, 5), 1.0);
        assert_eq!(mirrored(5.0, 5), 3.0);
        assert_eq!(mirrored(2.5, 5), 2.5);
        assert_eq!(mirrored(7.0, 1), 0.0);
    }

    #[test]
    fn a_missing_label_image_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (images, labels) = (folder.path().join("images"), folder.path().join("labels"));
        std::fs::create_dir_all(&images).unwrap();
        std::fs::create_dir_all(&labels).unwrap();
        std::fs::write(images.join("a.png"), b"").unwrap();
        let error = load_folder(&images, &labels, Normalization::MicroSam).unwrap_err();
        assert!(error.to_string().contains("a.png") && error.kind() == ErrorKind::Data, "{error}");
    }
}
