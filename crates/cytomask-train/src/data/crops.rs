//! Random crops that hold objects.

use cytomask_image::Labels;
use rand::{Rng, RngExt};

use super::augment::{Augmentation, geometry};
use super::{Crop, MIN_OBJECT_PX, Store};
use crate::Error;

/// Draws of a crop before one without objects is taken.
const CROP_ATTEMPTS: usize = 20;

/// Cuts random crops that hold at least one object, and augments them.
#[derive(Clone, Debug, PartialEq)]
pub struct CropSampler {
    /// Side of the crops, pixels.
    pub side: u32,
    /// How crops are changed.
    pub augmentation: Augmentation,
    /// Share of crops that are taken as they come, with objects or without: a network that never sees an empty place finds something
    /// everywhere.
    pub empty_share: f64,
}

impl CropSampler {
    /// One crop of a random image.
    ///
    /// # Errors
    /// `Data` when an image cannot be read.
    pub fn draw(&self, store: &Store, rng: &mut impl Rng) -> Result<Crop, Error> {
        let attempts = if rng.random_bool(self.empty_share.clamp(0.0, 1.0)) { 1 } else { CROP_ATTEMPTS };
        let mut crop = self.cut(store, rng)?;
        for _ in 1..attempts {
            if holds_object(&crop.labels) {
                break;
            }
            crop = self.cut(store, rng)?;
        }
        self.augmentation.change_pixels(&mut crop.image, rng);
        Ok(crop)
    }

    /// A piece of a random image, turned and resampled.
    fn cut(&self, store: &Store, rng: &mut impl Rng) -> Result<Crop, Error> {
        let source = store.draw(rng);
        let packed = store.get(source)?;
        let map = geometry::draw(&self.augmentation, &packed, self.side, rng);
        let (image, labels) = map.resample(&packed, self.side);
        Ok(Crop { image, labels, source, targets: None })
    }
}

fn holds_object(labels: &Labels) -> bool {
    labels.extents().iter().any(|&(area, _)| area >= MIN_OBJECT_PX)
}

#[cfg(test)]
mod tests {
    use cytomask_image::Rgb;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::data::{Preset, Sample};

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

    fn empty() -> Sample {
        let sample = sample();
        Sample { labels: Labels::zeros(sample.labels.size()), ..sample }
    }

    #[test]
    fn image_and_labels_stay_together_through_every_turn() {
        let mut augmentation = Preset::Strong.augmentation();
        augmentation.keep_intensities();
        let sampler = CropSampler { side: 64, augmentation, empty_share: 0.0 };
        let store = Store::from(vec![sample()]);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..50 {
            let crop = sampler.draw(&store, &mut rng).unwrap();
            assert_eq!(crop.image.size, [64, 64]);
            let (mut right, mut objects) = (0, 0);
            for (pixel, &id) in crop.image.samples.chunks(3).zip(crop.labels.as_slice()) {
                right += usize::from((pixel[0] > 105.0) == (id != 0));
                objects += usize::from(id != 0);
            }
            // A crop lies between pixels: half a pixel of doubt along the outline.
            assert!(right >= 64 * 64 - 240, "{right}");
            assert!(objects >= 25);
        }
    }

    #[test]
    fn crops_hold_objects_but_for_the_share_that_may_be_empty() {
        let store = Store::from(vec![empty(), empty(), empty(), sample()]);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut empty_crops = |empty_share: f64| {
            let sampler = CropSampler { side: 32, augmentation: Preset::Light.augmentation(), empty_share };
            (0..200).filter(|_| !holds_object(&sampler.draw(&store, &mut rng).unwrap().labels)).count()
        };
        // 20 draws of which 7 in 8 or more are empty: a few remain.
        let (never, often) = (empty_crops(0.0), empty_crops(0.5));
        assert!(never < 50 && often > never + 30, "{never} {often}");
    }
}
