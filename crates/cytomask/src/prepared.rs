//! An image of which everything is computed that does not depend on a strategy's settings: the scale, the tiles, their
//! embeddings, and their decoder maps once a strategy asks for them.
//!
//! [`Segmenter::prepare`] makes one; [`Prepared::segment`] segments it, as often as wished and with any strategy, and
//! [`Prepared::segment_each`] with many settings at once, sharing what they have in common. The result is that of
//! [`Segmenter::run_rgb`] with the same strategy, to the last pixel.

use std::sync::Mutex;

use cytomask_image::{Rect, Rgb, Tile};
use cytomask_models::Model;
use cytomask_segment::Segmentation;

use crate::each::Answers;
use crate::job::{self, TileFeatures};
use crate::large::check_prompts;
use crate::{Error, Phase, Segmenter, Strategy};

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
    pub(crate) image: Rgb,
    pub(crate) tiles: Vec<TileFeatures>,
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
        let pixels = |rect: &Rect| rect.area();
        let of_tiles: u64 = self.tiles.iter().map(|features| pixels(&features.tile.outer)).sum();
        pixels(&Rect::whole(self.size())) * PIXEL_BYTES
            + of_tiles * FEATURE_BYTES
            + self.tiles.len() as u64 * TILE_BYTES
    }

    /// Segments the image by any strategy, and tells `report` how far it is.
    ///
    /// # Errors
    /// As [`Segmenter::run`].
    pub fn segment(&self, strategy: &Strategy, report: &mut dyn FnMut(Phase)) -> Result<Segmentation, Error> {
        if self.tiles.is_empty() {
            return Ok(Segmentation::empty(self.size()));
        }
        let several = self.tiles.len() > 1;
        if several {
            check_prompts(strategy, self.size())?;
        }
        let mut results = Vec::with_capacity(self.tiles.len());
        for (done, features) in self.tiles.iter().enumerate() {
            report(Phase::Tile { done, total: self.tiles.len() });
            let mut prompts = |done, total| report(Phase::Prompts { done, total });
            results.push(job::segment_tile(&self.model, strategy, &self.image, features, &mut prompts)?);
        }
        report(Phase::Merge);
        if several {
            let tiles: Vec<Tile> = self.tiles.iter().map(|features| features.tile).collect();
            return job::join(&self.model, strategy, &self.image, None, &tiles, results);
        }
        job::merge(strategy, self.size(), results)
    }
}

impl Segmenter {
    /// Encodes an image of converted pixels.
    ///
    /// # Errors
    /// `Model` when the network fails, `Setting` for tiles without pixels.
    pub fn prepare(&self, image: Rgb, report: &mut dyn FnMut(Phase)) -> Result<Prepared, Error> {
        if image.size.contains(&0) {
            return Ok(Prepared { model: self.model().clone(), image, tiles: Vec::new(), answers: Mutex::default() });
        }
        let (model, tiles) = self.layout(&image)?;
        let model = model.into_owned();
        let mut features = Vec::with_capacity(tiles.len());
        for (done, tile) in tiles.iter().enumerate() {
            report(Phase::Tile { done, total: tiles.len() });
            features.push(job::encode_tile(&model, &image, tile)?);
        }
        Ok(Prepared { model, image, tiles: features, answers: Mutex::default() })
    }
}
