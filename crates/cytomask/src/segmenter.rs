//! A model, a strategy and the settings around them, ready to segment images.

use std::borrow::Cow;
use std::path::Path;

use cytomask_image::{Image, Normalization, Rgb, Tile};
use cytomask_models::{DeviceChoice, Family, Model, ScaleChoice};
use cytomask_segment::object_size::object_areas;
use cytomask_segment::{FieldModel, Fields, PromptModel, Segmentation};
use cytomask_weights::{Checkpoint, Store, StoreOptions};

use crate::large::Work;
use crate::scales::several_scales;
use crate::{Error, ErrorKind, Pixels, Strategy, embedded, flow_bands, job};

/// Tiles of the built-in model: inner side and halo, pixels of the network's input. Both are multiples of 224, the attention windows
/// of all its stages, so that a tile's windows are the whole image's: maps are then the same but for what lies near the tile's
/// border (docs/large-images.md).
const EMBEDDED_TILE: [u32; 2] = [1120, 224];

/// The same where points without a box are decoded: with the halo the largest frame the model was trained to place them in (1024).
const EMBEDDED_POINTS_TILE: [u32; 2] = [768, 128];

/// µSAM's recommendation for large images.
const DEFAULT_HALO: u32 = 64;

/// Tiles looked at, spread over the image, when the object size of a large image is estimated.
const SCALE_TILES: usize = 4;

/// More tiles than any image that can be labelled has; a damaged header may ask for more.
const MAX_TILES: u64 = 1 << 20;

/// What a running segmentation is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Encoding and decoding tile `done` (from 0) of `total`.
    Tile {
        /// Tiles finished.
        done: usize,
        /// All tiles.
        total: usize,
    },
    /// Decoding prompts of the current tile.
    Prompts {
        /// Prompts decoded.
        done: usize,
        /// All prompts of the tile.
        total: usize,
    },
    /// Joining the results.
    Merge,
}

/// Finds and opens a model: the built-in one, a checkpoint file, or a name of the registry that has been pulled.
///
/// # Errors
/// `Weights` when there is no such model or its files cannot be used; `Unsupported` for a device the program was built without.
pub fn load_model(name: &str, decoder: Option<&Path>, device: DeviceChoice) -> Result<Model, Error> {
    open(name, decoder, device, |_| {})
}

/// As [`load_model`], for a program that will ask for [`model_sha256`]: the file is hashed while the network is built from it.
///
/// # Errors
/// As [`load_model`].
pub fn load_recorded_model(name: &str, decoder: Option<&Path>, device: DeviceChoice) -> Result<Model, Error> {
    open(name, decoder, device, |checkpoint| checkpoint.hash().begin())
}

fn open(
    name: &str,
    decoder: Option<&Path>,
    device: DeviceChoice,
    opened: impl Fn(&Checkpoint),
) -> Result<Model, Error> {
    let decoder = decoder.map(Checkpoint::open).transpose()?;
    if Path::new(name).is_file() {
        let checkpoint = Checkpoint::open(name)?;
        opened(&checkpoint);
        let stem = Path::new(name).file_stem().map_or_else(|| name.into(), |stem| stem.to_string_lossy());
        return Ok(Model::open(&stem, &checkpoint, decoder.as_ref(), device)?);
    }
    if name == embedded::NAME {
        let Some(bytes) = embedded::weights() else {
            let message = "cytomask-t is not in this build: build with the feature `embedded` or name another model";
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        return Ok(Model::open(name, &Checkpoint::from_bytes(bytes)?, None, device)?);
    }
    let looks_like_a_path = name.contains(['/', '\\']) || Path::new(name).extension().is_some();
    if looks_like_a_path && cytomask_weights::registry::find(name).is_none() {
        return Err(Error::new(ErrorKind::Weights, format!("{name}: no such file")));
    }
    let files = Store::open(StoreOptions::default())?.files(name)?;
    let checkpoint = Checkpoint::open(&files.model)?;
    opened(&checkpoint);
    let decoder = match decoder {
        Some(given) => Some(given),
        None => files.decoder.as_deref().map(Checkpoint::open).transpose()?,
    };
    Ok(Model::open(name, &checkpoint, decoder.as_ref(), device)?)
}

/// SHA-256 of a model's weights as stored, lower-case hexadecimal.
///
/// # Errors
/// `Weights` when its file can no longer be read.
pub fn model_sha256(model: &Model) -> Result<String, Error> {
    Ok(model.hash().sha256()?)
}

/// A model with a strategy; [`Segmenter::run`] segments an image.
#[derive(Clone, Debug)]
pub struct Segmenter {
    model: Model,
    strategy: Strategy,
    normalization: Option<Normalization>,
    tile_shape: Option<Option<[u32; 2]>>,
    halo: Option<[u32; 2]>,
    skip_empty: Option<f32>,
    tile_jobs: usize,
}

impl Segmenter {
    /// Opens a model by name or path on the best device, with the strategy and settings that suit it.
    ///
    /// # Errors
    /// As [`load_model`].
    pub fn load(name: &str) -> Result<Self, Error> {
        Ok(Self::new(load_model(name, None, DeviceChoice::Auto)?))
    }

    /// Takes an opened model, with the strategy and settings that suit it.
    pub fn new(model: Model) -> Self {
        let strategy = Strategy::default_for(&model);
        Self { model, strategy, normalization: None, tile_shape: None, halo: None, skip_empty: None, tile_jobs: 1 }
    }

    /// Chooses another strategy.
    #[must_use]
    pub fn strategy(mut self, strategy: impl Into<Strategy>) -> Self {
        self.strategy = strategy.into();
        self
    }

    /// Chooses how samples become 0–255; without it the model's own way.
    #[must_use]
    pub fn normalization(mut self, normalization: Normalization) -> Self {
        self.normalization = Some(normalization);
        self
    }

    /// Chooses the tiles of large images, pixels; `None` for no tiles.
    #[must_use]
    pub fn tile_shape(mut self, tile_shape: Option<[u32; 2]>) -> Self {
        self.tile_shape = Some(tile_shape);
        self
    }

    /// Chooses the overlap around each tile, pixels.
    #[must_use]
    pub fn halo(mut self, halo: [u32; 2]) -> Self {
        self.halo = Some(halo);
        self
    }

    /// Chooses whether tiles without signal are skipped: those whose grey levels (0–255, after the conversion all tiles share) span less
    /// than `levels` between their 1st and 99th percentile in every channel. `None`, the default, skips nothing.
    #[must_use]
    pub fn skip_empty(mut self, levels: Option<f32>) -> Self {
        self.skip_empty = levels;
        self
    }

    /// The same segmenter seeing images at another scale; a network without a choice stays as it is.
    #[must_use]
    pub fn with_scale(&self, scale: ScaleChoice) -> Self {
        Self { model: self.model.with_scale(scale), ..self.clone() }
    }

    /// The same segmenter told the diameter of the objects, pixels, for networks that predict flows; others stay as they are.
    #[must_use]
    pub fn with_diameter(&self, pixels: f64) -> Self {
        Self { model: self.model.with_diameter(pixels), ..self.clone() }
    }

    /// Computes so many tiles of a large image at a time; the result is the same, the memory that of as many tiles.
    #[must_use]
    pub fn tile_jobs(mut self, jobs: usize) -> Self {
        self.tile_jobs = jobs.max(1);
        self
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The chosen strategy.
    pub fn chosen_strategy(&self) -> &Strategy {
        &self.strategy
    }

    /// How samples become 0–255.
    pub fn chosen_normalization(&self) -> Normalization {
        self.normalization.unwrap_or_else(|| self.model.normalization())
    }

    /// Segments an image.
    ///
    /// # Errors
    /// `Image` for pixels that are no numbers, `Model` when the network fails, `Unsupported` when the model has no decoder for
    /// the strategy.
    pub fn run(&self, image: &Image) -> Result<Segmentation, Error> {
        let rgb = image.to_rgb(self.chosen_normalization())?;
        self.run_rgb(&rgb, None, &mut |_| {})
    }

    /// Segments converted pixels, optionally with decoder maps made elsewhere, and tells `report` how far it is.
    ///
    /// # Errors
    /// As [`Segmenter::run`].
    pub fn run_rgb(
        &self,
        image: &Rgb,
        fields: Option<&Fields>,
        report: &mut dyn FnMut(Phase),
    ) -> Result<Segmentation, Error> {
        self.run_pixels(image, fields, report)
    }

    /// As [`Segmenter::run_rgb`] for an image that need not be in memory. Memory beyond the labels (four bytes a pixel) and the masks
    /// of the objects is that of one tile, or of as many as [`Segmenter::tile_jobs`] says.
    ///
    /// # Errors
    /// As [`Segmenter::run`].
    pub fn run_pixels(
        &self,
        image: &dyn Pixels,
        fields: Option<&Fields>,
        report: &mut dyn FnMut(Phase),
    ) -> Result<Segmentation, Error> {
        let size = image.size();
        if size.contains(&0) {
            return Ok(Segmentation::empty(size));
        }
        if let Some(fields) = fields.filter(|fields| fields.size != size) {
            let message = format!("decoder maps of {:?} for an image of {size:?}", fields.size);
            return Err(Error::new(ErrorKind::Setting, message));
        }
        if let (Strategy::Flows(flows), None) = (&self.strategy, fields)
            && flow_bands::is_large(&self.model, size)
        {
            return flow_bands::run(&self.model, flows, image, report);
        }
        if let (Some(apg), None) = (several_scales(&self.model, &self.strategy), fields) {
            return self.run_scales(apg, image, report);
        }
        let (model, tiles) = self.layout(image)?;
        let work = self.work(&model, image, fields);
        if let [tile] = tiles.as_slice() {
            report(Phase::Tile { done: 0, total: 1 });
            if work.is_empty(tile)? {
                return Ok(Segmentation::empty(size));
            }
            let mut prompts = |done, total| report(Phase::Prompts { done, total });
            let result = job::run_tile(&model, &self.strategy, image, tile, fields, &mut prompts)?;
            report(Phase::Merge);
            return job::merge(&self.strategy, size, vec![result]);
        }
        work.run(&tiles, report)
    }

    pub(crate) fn work<'a>(&'a self, model: &'a Model, image: &'a dyn Pixels, fields: Option<&'a Fields>) -> Work<'a> {
        let (strategy, skip_empty, jobs) = (&self.strategy, self.skip_empty, self.tile_jobs);
        Work { model, strategy, image, fields, skip_empty, jobs }
    }

    /// Whether an image is read in parts, so that it need not be held.
    ///
    /// # Errors
    /// As [`Segmenter::plan`].
    pub fn reads_in_parts(&self, size: [u32; 2]) -> Result<bool, Error> {
        let in_parts = matches!(self.strategy, Strategy::Flows(_)) && flow_bands::is_read_in_parts(&self.model, size);
        Ok(in_parts || self.plan(size, 1.0)?.len() > 1)
    }

    /// The model at the scale an image is to be seen at, and the image's tiles. One scale is estimated for all of several tiles.
    pub(crate) fn layout(&self, image: &dyn Pixels) -> Result<(Cow<'_, Model>, Vec<Tile>), Error> {
        let tiles = self.plan(image.size(), 1.0)?;
        if tiles.len() > 1 && self.model.scale() == Some(ScaleChoice::Auto) {
            let scale = Model::scale_for(&self.object_areas(image, &tiles)?);
            return Ok((Cow::Owned(self.model.with_scale(ScaleChoice::Fixed(scale))), self.plan(image.size(), scale)?));
        }
        Ok((Cow::Borrowed(&self.model), tiles))
    }

    /// The tiles of an image that the network sees enlarged by `scale`.
    ///
    /// # Errors
    /// `Setting` for tiles without pixels.
    pub fn plan(&self, size: [u32; 2], scale: f32) -> Result<Vec<Tile>, Error> {
        let (shape, halo) = match self.tile_shape {
            // Such networks cut images themselves.
            _ if matches!(self.strategy, Strategy::Flows(_)) => (None, [0; 2]),
            Some(shape) => (shape, self.halo.unwrap_or([DEFAULT_HALO; 2])),
            None if self.model.family() == Family::CytomaskT => {
                let tile = match self.strategy {
                    Strategy::Amg(_) | Strategy::Prompted(..) => EMBEDDED_POINTS_TILE,
                    _ => EMBEDDED_TILE,
                };
                let [side, halo] = tile.map(|side| ((side as f32 / scale) as u32).max(32));
                let fits = size.iter().all(|&length| length <= side + 2 * halo);
                ((!fits).then_some([side; 2]), self.halo.unwrap_or([halo; 2]))
            }
            None => (None, self.halo.unwrap_or([DEFAULT_HALO; 2])),
        };
        if shape.is_some_and(|shape| shape.contains(&0)) {
            return Err(Error::new(ErrorKind::Setting, "tile_shape: expected sides of at least 1 pixel, found 0"));
        }
        let tiles = shape.map_or(1, |shape| {
            let along = |axis: usize| u64::from(size[axis].div_ceil(shape[axis]));
            along(0) * along(1)
        });
        if tiles > MAX_TILES {
            let [h, w] = size;
            let message =
                format!("{h} × {w} pixels in tiles of {shape:?}: expected at most {MAX_TILES} tiles, found {tiles}");
            return Err(Error::new(ErrorKind::Setting, message));
        }
        Ok(job::plan(size, shape, halo))
    }

    /// Areas of the objects that a few of an image's tiles show, pixels: one scale is chosen for all.
    pub(crate) fn object_areas(&self, image: &dyn Pixels, tiles: &[Tile]) -> Result<Vec<u64>, Error> {
        let natural = self.model.with_scale(ScaleChoice::Fixed(1.0));
        let step = tiles.len().div_ceil(SCALE_TILES);
        let mut areas = Vec::new();
        for tile in tiles.iter().step_by(step) {
            let fields = natural.fields(&natural.encode(&*image.read(tile.outer)?)?)?;
            areas.extend(object_areas(&fields));
        }
        Ok(areas)
    }
}
