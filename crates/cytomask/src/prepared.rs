//! An image of which everything is computed that does not depend on a strategy's settings: the scale, the tiles, their
//! embeddings, and their decoder maps once a strategy asks for them.
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
use crate::job::{self, TileFeatures};
use crate::large::{check_prompts, joined};
use crate::scales::several_scales;
use crate::{Error, ErrorKind, Phase, Segmenter, Strategy};

/// Three channels of four bytes.
const PIXEL_BYTES: u64 = 12;
/// Three maps, and the built-in model's features at strides 2 and 16.
const FEATURE_BYTES: u64 = 12 + 36;
/// SAM's embedding.
const TILE_BYTES: u64 = 4 << 20;

/// An encoded image. Holds the features of all its tiles at once.
#[derive(Debug)]
pub struct Prepared {
    /// At the scale of this image.
    pub(crate) model: Model,
    /// The converted pixels.
    pub(crate) image: Arc<Rgb>,
    pub(crate) tiles: Vec<TileFeatures>,
    /// What made it.
    segmenter: Segmenter,
    /// The same image at each of the scales that APG looks at, once it was asked for.
    scales: OnceLock<Vec<Prepared>>,
    /// What [`Prepared::segment_each`] keeps.
    pub(crate) answers: Mutex<Answers>,
}

impl Prepared {
    /// `[h, w]` of the image.
    pub fn size(&self) -> [u32; 2] {
        self.image.size
    }

    /// Memory it takes, roughly: pixels, maps and features; not what [`Prepared::segment_each`] keeps, which is little.
    pub fn memory_bytes(&self) -> u64 {
        let of_scales: u64 = self.scales.get().into_iter().flatten().map(Self::feature_bytes).sum();
        Rect::whole(self.size()).area() * PIXEL_BYTES + self.feature_bytes() + of_scales
    }

    fn feature_bytes(&self) -> u64 {
        let enlarged = match self.model.scale() {
            Some(ScaleChoice::Fixed(scale)) => f64::from(scale * scale),
            _ => 1.0,
        };
        let of_tiles: u64 = self.tiles.iter().map(|features| features.tile.outer.area()).sum();
        (of_tiles as f64 * enlarged) as u64 * FEATURE_BYTES + self.tiles.len() as u64 * TILE_BYTES
    }

    /// What a strategy looks at: this, or the same image at several scales.
    ///
    /// # Errors
    /// As [`Segmenter::prepare`].
    pub(crate) fn seen_by(&self, strategy: &Strategy) -> Result<&[Self], Error> {
        if self.tiles.is_empty() || several_scales(self.segmenter.model(), strategy).is_none() {
            return Ok(slice::from_ref(self));
        }
        if self.scales.get().is_none() {
            let (scales, known) = self.segmenter.scales(&*self.image)?;
            let mut known = known.into_iter();
            let at = |scale: f32| {
                let segmenter = self.segmenter.with_scale(ScaleChoice::Fixed(scale));
                segmenter.prepare_shared(Arc::clone(&self.image), known.next(), &mut |_| {})
            };
            // Two threads may both prepare them; they come to the same.
            let _ = self.scales.set(scales.into_iter().map(at).collect::<Result<_, _>>()?);
        }
        self.scales
            .get()
            .map(Vec::as_slice)
            .ok_or_else(|| Error::new(ErrorKind::Model, "an image's scales are missing"))
    }

    /// Segments the image by any strategy, and tells `report` how far it is.
    ///
    /// # Errors
    /// As [`Segmenter::run`].
    pub fn segment(&self, strategy: &Strategy, report: &mut dyn FnMut(Phase)) -> Result<Segmentation, Error> {
        if self.tiles.is_empty() {
            return Ok(Segmentation::empty(self.size()));
        }
        if let Some(apg) = several_scales(self.segmenter.model(), strategy) {
            let scales = self.seen_by(strategy)?;
            let found = scales.iter().map(|scale| scale.found(strategy, report)).collect::<Result<_, _>>()?;
            report(Phase::Merge);
            return Ok(apg.merge_scales(self.size(), found));
        }
        let several = self.tiles.len() > 1;
        if several {
            check_prompts(strategy, self.size())?;
        }
        let mut results = Vec::with_capacity(self.tiles.len());
        for (done, features) in self.tiles.iter().enumerate() {
            report(Phase::Tile { done, total: self.tiles.len() });
            let mut prompts = |done, total| report(Phase::Prompts { done, total });
            results.push(job::segment_tile(&self.model, strategy, &*self.image, features, &mut prompts)?);
        }
        report(Phase::Merge);
        if several {
            let tiles: Vec<Tile> = self.tiles.iter().map(|features| features.tile).collect();
            return job::join(&self.model, strategy, &*self.image, None, &tiles, results);
        }
        job::merge(strategy, self.size(), results)
    }

    /// The objects of one of several scales.
    fn found(&self, strategy: &Strategy, report: &mut dyn FnMut(Phase)) -> Result<Vec<Found>, Error> {
        let (model, image) = (&self.model, &*self.image);
        let mut prompts = |done, total| report(Phase::Prompts { done, total });
        if let [features] = self.tiles.as_slice() {
            return job::tile_objects(model, strategy, image, features, None, &mut prompts);
        }
        let mut results = Vec::with_capacity(self.tiles.len());
        for features in &self.tiles {
            results.push(job::segment_tile(model, strategy, image, features, &mut prompts)?);
        }
        let tiles: Vec<Tile> = self.tiles.iter().map(|features| features.tile).collect();
        joined(model, strategy, image, None, &tiles, results)
    }
}

impl Segmenter {
    /// Encodes an image of converted pixels.
    ///
    /// # Errors
    /// `Model` when the network fails, `Setting` for tiles without pixels.
    pub fn prepare(&self, image: Rgb, report: &mut dyn FnMut(Phase)) -> Result<Prepared, Error> {
        let prepared = self.prepare_shared(Arc::new(image), None, report)?;
        // Made now where they will be needed, so that the time and memory of preparing tell of them.
        prepared.seen_by(self.chosen_strategy())?;
        Ok(prepared)
    }

    /// Encodes an image; `known` are the features of its only tile, if they are at hand.
    fn prepare_shared(
        &self,
        image: Arc<Rgb>,
        known: Option<TileFeatures>,
        report: &mut dyn FnMut(Phase),
    ) -> Result<Prepared, Error> {
        let prepared = |model: Model, image, tiles| Prepared {
            model,
            image,
            tiles,
            segmenter: self.clone(),
            scales: OnceLock::new(),
            answers: Mutex::default(),
        };
        if image.size.contains(&0) {
            return Ok(prepared(self.model().clone(), image, Vec::new()));
        }
        let (model, tiles) = self.layout(&*image)?;
        let model = model.into_owned();
        if let Some(known) = known {
            return Ok(prepared(model, image, vec![known]));
        }
        let mut features = Vec::with_capacity(tiles.len());
        for (done, tile) in tiles.iter().enumerate() {
            report(Phase::Tile { done, total: tiles.len() });
            features.push(job::encode_tile(&model, &*image, tile)?);
        }
        Ok(prepared(model, image, features))
    }
}
