//! Changes of training crops that microscopes, stains and preparation make too, so that a network learns to ignore them.
//!
//! Geometry first (`geometry`, one resampling), then pixels: stain, brightness, illumination, focus, noise, in the order light takes
//! them. Every change has a [`Change::share`] of the crops it is made on and a [`Change::strength`]; [`Preset`] has four sets of them.
//! The kinds and most strengths are those of `training/data.py`, with which the built-in model was trained.

pub(super) mod geometry;
mod intensity;
mod optics;
mod stain;

use cytomask_image::Rgb;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// How often and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Share of the crops that are changed, 0–1.
    pub share: f64,
    /// How much; the field of [`Augmentation`] says in what unit.
    pub strength: f64,
}

impl Change {
    const fn new(share: f64, strength: f64) -> Self {
        Self { share, strength }
    }

    /// The strength for this crop, if it is to be changed.
    fn drawn(self, rng: &mut impl Rng) -> Option<f64> {
        // Drawn in any case, so that switching one change off does not move the draws of the others.
        let chosen = rng.random_bool(self.share.clamp(0.0, 1.0));
        (chosen && self.strength > 0.0).then_some(self.strength)
    }
}

/// All changes of a crop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augmentation {
    /// Mirror images and quarter turns; a strength above 0 is on. Costs nothing.
    pub flip: Change,
    /// Free rotation, up to so many degrees either way.
    pub rotate: Change,
    /// Objects are enlarged or shrunk by a factor between 1 / (1 + strength) and 1 + strength.
    pub scale: Change,
    /// Objects are brought to a size instead: the median object's side (√area) is drawn between [`OBJECT_SIDES`], widened by this power.
    pub size: Change,
    /// Height and width differ by a factor whose logarithm has this standard deviation.
    pub stretch: Change,
    /// A gamma whose logarithm has this standard deviation.
    pub gamma: Change,
    /// Contrast between 1 − strength and 1 + strength; colour channels also by a third of that each by itself.
    pub gain: Change,
    /// Brightness moved by a normal number of this standard deviation, in units of the whole range.
    pub offset: Change,
    /// Bright and dark exchanged; a strength above 0 is on. Phase contrast against fluorescence.
    pub invert: Change,
    /// Stain of bright-field colour images: amounts of haematoxylin, eosin and a third in optical density change by this standard deviation.
    pub stain: Change,
    /// Illumination that falls off across the crop by up to this factor.
    pub illumination: Change,
    /// Defocus: a Gaussian of up to so many pixels.
    pub blur: Change,
    /// Photon and camera noise of up to this standard deviation at full brightness, in units of the whole range.
    pub noise: Change,
}

/// √area of the median object, pixels, between which [`Augmentation::size`] draws: what the built-in model was trained on.
pub const OBJECT_SIDES: [f64; 2] = [13.0, 52.0];

/// Sets of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Crops as they are.
    None,
    /// Mirror images, quarter turns, a little scale and contrast: for many images of one microscope.
    Light,
    /// What suits twenty images of one kind that will meet images of other days.
    Default,
    /// More of all: for few images, or for a model that is to meet other microscopes and stains.
    Strong,
}

/// Names of the presets.
const PRESETS: [(&str, Preset); 4] =
    [("none", Preset::None), ("light", Preset::Light), ("default", Preset::Default), ("strong", Preset::Strong)];

const OFF: Change = Change::new(0.0, 0.0);

impl Preset {
    /// Its changes.
    pub fn augmentation(self) -> Augmentation {
        let none = Augmentation {
            flip: OFF,
            rotate: OFF,
            scale: OFF,
            size: OFF,
            stretch: OFF,
            gamma: OFF,
            gain: OFF,
            offset: OFF,
            invert: OFF,
            stain: OFF,
            illumination: OFF,
            blur: OFF,
            noise: OFF,
        };
        let light = Augmentation {
            flip: Change::new(1.0, 1.0),
            scale: Change::new(1.0, 0.2),
            gamma: Change::new(0.3, 0.15),
            gain: Change::new(0.3, 0.1),
            stain: Change::new(0.3, 0.08),
            noise: Change::new(0.15, 0.02),
            ..none
        };
        let default = Augmentation {
            flip: Change::new(1.0, 1.0),
            rotate: Change::new(0.25, 45.0),
            scale: Change::new(1.0, 0.4),
            size: Change::new(0.2, 1.0),
            stretch: Change::new(0.5, 0.05),
            gamma: Change::new(0.5, 0.3),
            gain: Change::new(0.5, 0.2),
            offset: Change::new(0.5, 0.04),
            invert: Change::new(0.04, 1.0),
            stain: Change::new(0.5, 0.15),
            illumination: Change::new(0.15, 0.3),
            blur: Change::new(0.15, 1.2),
            noise: Change::new(0.25, 0.06),
        };
        let strong = Augmentation {
            rotate: Change::new(0.5, 45.0),
            scale: Change::new(1.0, 0.7),
            size: Change::new(0.4, 1.3),
            stretch: Change::new(0.5, 0.1),
            gamma: Change::new(0.7, 0.45),
            gain: Change::new(0.7, 0.35),
            offset: Change::new(0.6, 0.08),
            invert: Change::new(0.1, 1.0),
            stain: Change::new(0.8, 0.3),
            illumination: Change::new(0.3, 0.5),
            blur: Change::new(0.3, 2.0),
            noise: Change::new(0.4, 0.12),
            ..default
        };
        match self {
            Self::None => none,
            Self::Light => light,
            Self::Default => default,
            Self::Strong => strong,
        }
    }
}

impl Default for Augmentation {
    fn default() -> Self {
        Preset::Default.augmentation()
    }
}

impl Augmentation {
    /// A preset's name, and after commas the changes whose strength is to be another: `default,blur=0,stain=2` has no blur and twice the
    /// stain. A preset without a change gives it the share `default` has.
    ///
    /// # Errors
    /// `Setting`, naming what is not known.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |expected: String, found: &str| {
            Err(Error::new(ErrorKind::Setting, format!("augment: expected {expected}, found {found:?}")))
        };
        let mut parts = text.split(',').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let Some((_, preset)) = PRESETS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = PRESETS.iter().map(|(known, _)| *known).collect();
            return wrong(known.join(", "), name);
        };
        let mut found = preset.augmentation();
        let mut usual = Preset::Default.augmentation();
        for part in parts {
            let (name, factor) = part.split_once('=').unwrap_or((part, ""));
            let factor = factor.trim().parse::<f64>().ok().filter(|factor| (0.0..=10.0).contains(factor));
            let usual = usual.fields().into_iter().find(|(known, _)| *known == name.trim()).map(|(_, change)| *change);
            let field = found.fields().into_iter().find(|(known, _)| *known == name.trim());
            match (factor, usual, field) {
                (Some(factor), Some(usual), Some((_, change))) => {
                    if change.share == 0.0 {
                        *change = usual;
                    }
                    change.strength *= factor;
                }
                (_, None, _) | (_, _, None) => {
                    let known: Vec<&str> = usual_names();
                    return wrong(format!("one of {}", known.join(", ")), name);
                }
                (None, ..) => return wrong("NAME=FACTOR with a factor from 0 to 10".into(), part),
            }
        }
        Ok(found)
    }

    /// Every change by the name it has for people.
    fn fields(&mut self) -> [(&'static str, &mut Change); 13] {
        [
            ("flip", &mut self.flip),
            ("rotate", &mut self.rotate),
            ("scale", &mut self.scale),
            ("size", &mut self.size),
            ("stretch", &mut self.stretch),
            ("gamma", &mut self.gamma),
            ("gain", &mut self.gain),
            ("offset", &mut self.offset),
            ("invert", &mut self.invert),
            ("stain", &mut self.stain),
            ("illumination", &mut self.illumination),
            ("blur", &mut self.blur),
            ("noise", &mut self.noise),
        ]
    }

    /// Switches all off that change pixels and not places.
    pub fn keep_intensities(&mut self) {
        let kept = Self {
            flip: self.flip,
            rotate: self.rotate,
            scale: self.scale,
            size: self.size,
            stretch: self.stretch,
            ..Preset::None.augmentation()
        };
        *self = kept;
    }

    /// Changes the pixels of a crop (samples of 0–255) in place; what is no number stays none.
    pub(super) fn change_pixels(&self, image: &mut Rgb, rng: &mut impl Rng) {
        let grey = image.samples.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]);
        image.samples.iter_mut().for_each(|sample| *sample /= 255.0);
        let stained = self.stain.drawn(rng).filter(|_| !grey && stain::is_bright_field(&image.samples));
        if let Some(strength) = stained {
            stain::jitter(&mut image.samples, strength, rng);
        }
        intensity::change(self, &mut image.samples, grey, rng);
        if let Some(strength) = self.illumination.drawn(rng) {
            intensity::shade(image.size, &mut image.samples, strength, rng);
        }
        if let Some(strength) = self.blur.drawn(rng) {
            optics::blur(image.size, &mut image.samples, strength, rng);
        }
        if let Some(strength) = self.noise.drawn(rng) {
            optics::add_noise(&mut image.samples, grey, strength, rng);
        }
        image.samples.iter_mut().for_each(|sample| *sample = sample.clamp(0.0, 1.0) * 255.0);
    }
}

fn usual_names() -> Vec<&'static str> {
    Augmentation::default().fields().into_iter().map(|(name, _)| name).collect()
}

/// A number of the standard normal distribution (Box and Muller 1958).
fn normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random_range(0.0..1.0_f64)).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random_range(0.0..1.0_f64)).cos()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// A grey ramp, or a bright-field picture with purple and pink.
    fn picture(colour: bool) -> Rgb {
        let pixel = |at: usize| {
            let level = (at % 131) as f32 + 60.0;
            match (colour, at / 131 % 3) {
                (false, _) => [level; 3],
                (true, 0) => [120.0, 80.0, 160.0],
                (true, 1) => [235.0, 170.0, 200.0],
                (true, _) => [245.0, 243.0, 246.0],
            }
        };
        Rgb { size: [97, 131], samples: (0..97 * 131).flat_map(pixel).collect() }
    }

    fn changed(augmentation: &Augmentation, image: &Rgb, seed: u64) -> Vec<f32> {
        let mut image = image.clone();
        augmentation.change_pixels(&mut image, &mut ChaCha8Rng::seed_from_u64(seed));
        image.samples
    }

    /// Each change alone, always on.
    fn alone(name: &str) -> Augmentation {
        let mut augmentation = Preset::None.augmentation();
        let mut usual = Augmentation::default();
        let strength = usual.fields().into_iter().find(|(known, _)| *known == name).unwrap().1.strength;
        let field = augmentation.fields().into_iter().find(|(known, _)| *known == name).unwrap().1;
        *field = Change { share: 1.0, strength };
        augmentation
    }

    #[test]
    fn none_changes_nothing_and_every_other_something() {
        let (grey, colour) = (picture(false), picture(true));
        for image in [&grey, &colour] {
            let same = changed(&Preset::None.augmentation(), image, 1);
            assert!(same.iter().zip(&image.samples).all(|(a, b)| (a - b).abs() < 1e-4));
        }
        for name in ["gamma", "gain", "offset", "invert", "illumination", "blur", "noise"] {
            let difference: f32 =
                changed(&alone(name), &grey, 1).iter().zip(&grey.samples).map(|(a, b)| (a - b).abs()).sum();
            assert!(difference > 100.0, "{name}: {difference}");
        }
        let stained = changed(&alone("stain"), &colour, 1);
        assert!(stained.iter().zip(&colour.samples).any(|(a, b)| (a - b).abs() > 2.0));
        let grey_stained = changed(&alone("stain"), &grey, 1);
        assert!(grey_stained.iter().zip(&grey.samples).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn grey_stays_grey_and_all_stays_in_range() {
        for seed in 0..40 {
            for colour in [false, true] {
                let samples = changed(&Preset::Strong.augmentation(), &picture(colour), seed);
                assert!(samples.iter().all(|sample| (0.0..=255.0).contains(sample)));
                let grey = samples.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]);
                assert!(colour || grey, "seed {seed}");
            }
        }
    }

    #[test]
    fn what_is_no_number_does_not_vanish() {
        let mut image = picture(false);
        image.samples[300..303].fill(f32::NAN);
        for seed in 0..20 {
            assert!(changed(&Preset::Strong.augmentation(), &image, seed).iter().any(|sample| sample.is_nan()));
        }
    }

    #[test]
    fn presets_take_single_changes() {
        assert_eq!(Augmentation::parse("default").unwrap(), Augmentation::default());
        let found = Augmentation::parse("default, blur=0,stain=2").unwrap();
        let usual = Augmentation::default();
        assert_eq!((found.blur.strength, found.stain.strength), (0.0, 2.0 * usual.stain.strength));
        assert_eq!(found.noise, usual.noise);
        assert_eq!(Augmentation::parse("none,noise=1").unwrap().noise, usual.noise);
        for (text, word) in [
            ("", "none, light"),
            ("much", "much"),
            ("light,fog=1", "fog"),
            ("light,blur", "FACTOR"),
            ("light,blur=-1", "FACTOR"),
        ] {
            let error = Augmentation::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn the_normal_distribution() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let values: Vec<f64> = (0..20_000).map(|_| normal(&mut rng)).collect();
        let mean = values.iter().sum::<f64>() / 20_000.0;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }
}
