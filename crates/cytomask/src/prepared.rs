//! An image of which everything is computed that does not depend on a strategy's settings: the scale, the tiles, their
//! embeddings, and their decoder maps, each once a strategy asks for it.
//!
//! [`Segmenter::prepare`] makes one; [`Prepared::segment`] segments it, as often as wished and with any strategy, and
//! [`Prepared::segment_each`] with many settings at once, sharing what they have in common. The result is that of
//! [`Segmenter::run_rgb`] with the same strategy, to the last pixel.

use std::slice;
use std::sync::{Arc, Mutex, OnceLock};

use cytomask_image::{Rect, Rgb, Tile};
use cytomask_models::{Model, ScaleChoice};
use cytomask_segment::Segmentation;
use cytomask_segment::stitch::Found;

use crate::each::Answers;
use crate::job::{self, TileFeatures, TileResult};
use crate::large::{check_prompts, joined};
use crate::scales::several_scales;
use crate::{Error, ErrorKind, Phase, Segmenter, Strategy};

/// Three channels of four bytes.
const PIXEL_BYTES: u64 = 12;
/// Three maps, the built-in model's features at strides 2 and 16, and those its boxes come from, at strides 4 and 8.
const FEATURE_BYTES: u64 = 12 + 36 + 32;
/// SAM's embedding.
const TILE_BYTES: u64 = 4 << 20;

/// An encoded image. Holds the features of all its tiles at once.
#[derive(Debug)]
pub struct Prepared {
    /// The converted pixels.
    pub(crate) image: Arc<Rgb>,
    /// What made it.
    segmenter: Segmenter,
    /// The image at one scale, once a strategy asked for it.
    encoded: OnceLock<Encoded>,
    /// The same image at each of the scales that APG looks at, once it was asked for.
    scales: OnceLock<Vec<Prepared>>,
    /// What [`Prepared::segment_each`] keeps.
    pub(crate) answers: Mutex<Answers>,
}

/// The features of an image at one scale.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// At that scale.
    pub(crate) model: Model,
    pub(crate) tiles: Vec<TileFeatures>,
}

impl Encoded {
    fn bytes(&self) -> u64 {
        let enlarged = match self.model.scale() {
            Some(ScaleChoice::Fixed(scale)) => f64::from(scale * scale),
            _ => 1.0,
        };
        let of_tiles: u64 = self.tiles.iter().map(|features| features.tile.outer.area()).sum();
        (of_tiles as f64 * enlarged) as u64 * FEATURE_BYTES + self.tiles.len() as u64 * TILE_BYTES
    }

    /// Whether the image is one tile.
    pub(crate) fn is_whole(&self) -> bool {
        self.tiles.len() == 1
    }
}

impl Prepared {
    /// Nothing is encoded yet.
    pub(crate) fn new(segmenter: &Segmenter, image: Arc<Rgb>) -> Self {
        let (segmenter, answers) = (segmenter.clone(), Mutex::default());
        Self { image, segmenter, encoded: OnceLock::new(), scales: OnceLock::new(), answers }
    }

    /// `[h, w]` of the image.
    pub fn size(&self) -> [u32; 2] {
        self.image.size
    }

    /// Memory it takes, roughly: pixels, maps and features; not what [`Prepared::segment_each`] keeps, which is little.
    pub fn memory_bytes(&self) -> u64 {
        let of_scales = self.scales.get().into_iter().flatten().filter_map(|scale| scale.encoded.get());
        let features: u64 = self.encoded.get().into_iter().chain(of_scales).map(Encoded::bytes).sum();
        Rect::whole(self.size()).area() * PIXEL_BYTES + features
    }

    /// The image at one scale, encoded when first asked for.
    ///
    /// # Errors
    /// As [`Segmenter::prepare`].
    pub(crate) fn encoded(&self) -> Result<&Encoded, Error> {
        self.encode(&mut |_| {})
    }

    fn encode(&self, report: &mut dyn FnMut(Phase)) -> Result<&Encoded, Error> {
        if self.encoded.get().is_none() {
            // Two threads may both encode it; they come to the same.
            let _ = self.encoded.set(self.segmenter.encode(&self.image, report)?);
        }
        self.encoded.get().ok_or_else(|| Error::new(ErrorKind::Model, "an image's features are missing"))
    }

    /// Whether a strategy looks at the image at several scales.
    pub(crate) fn is_seen_at_several_scales(&self, strategy: &Strategy) -> bool {
        !self.size().contains(&0) && several_scales(self.segmenter.model(), strategy).is_some()
    }

    /// What a strategy looks at, encoded: this, or the same image at several scales.
    ///
    /// # Errors
    /// As [`Segmenter::prepare`].
    pub(crate) fn seen_by(&self, strategy: &Strategy, report: &mut dyn FnMut(Phase)) -> Result<&[Self], Error> {
        if !self.is_seen_at_several_scales(strategy) {
            self.encode(report)?;
            return Ok(slice::from_ref(self));
        }
        if self.scales.get().is_none() {
            let (scales, known) = self.segmenter.scales(&*self.image)?;
            let at = |scale: &f32| {
                Self::new(&self.segmenter.with_scale(ScaleChoice::Fixed(*scale)), Arc::clone(&self.image))
            };
            let scales: Vec<Self> = scales.iter().map(at).collect();
            if let (Some(features), Some(first)) = (known, scales.first()) {
                let model = first.segmenter.model().clone();
                let _ = first.encoded.set(Encoded { model, tiles: vec![features] });
            }
            scales.iter().try_for_each(|scale| scale.encode(report).map(|_| ()))?;
            // Two threads may both prepare them; they come to the same.
            let _ = self.scales.set(scales);
        }
        let scales = self.scales.get().map(Vec::as_slice);
        scales.ok_or_else(|| Error::new(ErrorKind::Model, "an image's scales are missing"))
    }

    /// Segments the image by any strategy, and tells `report` how far it is.
    ///
    /// # Errors
    /// As [`Segmenter::run`].
    pub fn segment(&self, strategy: &Strategy, report: &mut dyn FnMut(Phase)) -> Result<Segmentation, Error> {
        if self.size().contains(&0) {
            return Ok(Segmentation::empty(self.size()));
        }
        if let Some(apg) = several_scales(self.segmenter.model(), strategy) {
            let scales = self.seen_by(strategy, report)?;
            let found = scales.iter().map(|scale| scale.found(strategy, report)).collect::<Result<_, _>>()?;
            report(Phase::Merge);
            return Ok(apg.merge_scales(self.size(), found));
        }
        let encoded = self.encode(report)?;
        if !encoded.is_whole() {
            check_prompts(strategy, self.size())?;
        }
        let results = self.results(encoded, strategy, report)?;
        report(Phase::Merge);
        if encoded.is_whole() {
            return job::merge(strategy, self.size(), results);
        }
        let tiles: Vec<Tile> = encoded.tiles.iter().map(|features| features.tile).collect();
        job::join(&encoded.model, strategy, &*self.image, None, &tiles, results)
    }

    /// What each tile contributes.
    fn results(
        &self,
        encoded: &Encoded,
        strategy: &Strategy,
        report: &mut dyn FnMut(Phase),
    ) -> Result<Vec<TileResult>, Error> {
        let total = encoded.tiles.len();
        let each = |(done, features)| {
            report(Phase::Tile { done, total });
            let mut prompts = |done, total| report(Phase::Prompts { done, total });
            job::segment_tile(&encoded.model, strategy, &*self.image, features, &mut prompts)
        };
        encoded.tiles.iter().enumerate().map(each).collect()
    }

    /// The objects of one of several scales.
    fn found(&self, strategy: &Strategy, report: &mut dyn FnMut(Phase)) -> Result<Vec<Found>, Error> {
        let (encoded, image) = (self.encoded()?, &*self.image);
        if let [features] = encoded.tiles.as_slice() {
            let mut prompts = |done, total| report(Phase::Prompts { done, total });
            return job::tile_objects(&encoded.model, strategy, image, features, None, &mut prompts);
        }
        let results = self.results(encoded, strategy, report)?;
        let tiles: Vec<Tile> = encoded.tiles.iter().map(|features| features.tile).collect();
        joined(&encoded.model, strategy, image, None, &tiles, results)
    }
}

impl Segmenter {
    /// Prepares an image of converted pixels, and encodes it as the chosen strategy will look at it.
    ///
    /// # Errors
    /// `Model` when the network fails, `Setting` for tiles without pixels.
    pub fn prepare(&self, image: Rgb, report: &mut dyn FnMut(Phase)) -> Result<Prepared, Error> {
        let prepared = Prepared::new(self, Arc::new(image));
        prepared.seen_by(self.chosen_strategy(), report)?;
        Ok(prepared)
    }

    /// The features of an image at the scale it is to be seen at, if that is one.
    fn encode(&self, image: &Rgb, report: &mut dyn FnMut(Phase)) -> Result<Encoded, Error> {
        if image.size.contains(&0) {
            return Ok(Encoded { model: self.model().clone(), tiles: Vec::new() });
        }
        let (model, tiles) = self.layout(image)?;
        let mut features = Vec::with_capacity(tiles.len());
        for (done, tile) in tiles.iter().enumerate() {
            report(Phase::Tile { done, total: tiles.len() });
            features.push(job::encode_tile(&model, image, tile)?);
        }
        Ok(Encoded { model: model.into_owned(), tiles: features })
    }
}
