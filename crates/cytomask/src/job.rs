//! The work on one image in pieces: [`plan`] cuts it into tiles, [`run_tile`] does one, [`merge`] joins the results.
//!
//! A tile is computed with a halo around its inner part. With APG an object belongs to the tile whose inner part holds its prompt;
//! its mask may reach into the halo, and what two tiles found twice is removed by the suppression all masks go through. With AIS
//! the inner parts of the maps are put together and segmented as one. Neither depends on the order of tiles or on who computed
//! them. An object larger than the halo is cut: see KNOWN_ISSUES.md.

use std::borrow::Cow;
use std::sync::OnceLock;

use cytomask_image::{Rect, Rgb, Tile, tiles};
use cytomask_models::{Embedding, Model};
use cytomask_segment::apg::{DerivedPrompt, Proposal};
use cytomask_segment::{Apg, FieldModel, Fields, PromptModel, Segmentation};

use crate::{Error, ErrorKind, Strategy};

/// What one tile contributes, in the frame of the whole image.
#[derive(Clone, Debug)]
pub enum TileResult {
    /// Maps of the tile's inner part.
    Fields(Rect, Fields),
    /// Masks whose prompts lie in the tile's inner part.
    Proposals(Vec<Proposal>),
    /// The finished result of an image of one tile.
    Whole(Segmentation),
}

/// Cuts an image into tiles of `tile_shape` (inner parts) with `halo` around them; one tile without a shape.
pub fn plan(size: [u32; 2], tile_shape: Option<[u32; 2]>, halo: [u32; 2]) -> Vec<Tile> {
    match tile_shape {
        Some(shape) if shape[0] < size[0] || shape[1] < size[1] => tiles(size, shape, halo),
        _ => vec![Tile { outer: Rect::whole(size), inner: Rect::whole(size) }],
    }
}

/// What a network knows of one tile, whatever the strategy and its settings: the embedding, and the decoder maps once asked for.
#[derive(Debug)]
pub struct TileFeatures {
    /// Where the tile lies in the image.
    pub tile: Tile,
    /// Features of the tile with its halo.
    pub embedding: Embedding,
    fields: OnceLock<Fields>,
}

impl TileFeatures {
    /// The decoder maps of the tile with its halo (`tile.outer`); computed when first asked for.
    ///
    /// # Errors
    /// Whatever the network reports.
    pub fn fields(&self, model: &Model) -> Result<&Fields, Error> {
        if self.fields.get().is_none() {
            // Two threads may both compute them; they come to the same.
            let _ = self.fields.set(model.fields(&self.embedding)?);
        }
        self.fields.get().ok_or_else(|| Error::new(ErrorKind::Model, "the decoder maps of a tile are missing"))
    }

    /// Maps made elsewhere, of the tile with its halo, in place of the model's.
    #[must_use]
    fn with_fields(self, fields: Fields) -> Self {
        Self { fields: OnceLock::from(fields), ..self }
    }
}

/// Encodes one tile of `image` with its halo.
///
/// # Errors
/// Whatever the network reports.
pub fn encode_tile(model: &Model, image: &Rgb, tile: &Tile) -> Result<TileFeatures, Error> {
    let embedding = model.encode(&tile_pixels(image, tile))?;
    Ok(TileFeatures { tile: *tile, embedding, fields: OnceLock::new() })
}

/// Segments an encoded tile of `image`.
///
/// # Errors
/// Whatever the network reports; `Unsupported` for strategies that cannot be tiled.
pub fn segment_tile(
    model: &Model,
    strategy: &Strategy,
    image: &Rgb,
    features: &TileFeatures,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TileResult, Error> {
    let tile = &features.tile;
    require_tileable(strategy, image, tile)?;
    match strategy {
        Strategy::Ais(_) => {
            Ok(TileResult::Fields(tile.inner, crop_fields(features.fields(model)?, tile.local_inner())))
        }
        Strategy::Apg(apg) => {
            let prompts = tile_prompts(apg, features, model)?;
            let proposals = apg.propose(model, &features.embedding, tile.outer.size(), &prompts, progress)?;
            Ok(tile_proposals(features, proposals))
        }
        Strategy::Amg(amg) => {
            let proposals = amg.propose_encoded(model, image, &features.embedding, progress)?;
            Ok(TileResult::Whole(amg.merge(&proposals)))
        }
        Strategy::Prompted(prompted, prompts) => {
            let found = prompted.run_encoded(model, &features.embedding, image.size, prompts, progress);
            Ok(TileResult::Whole(found.map_err(unusable_prompt)?))
        }
    }
}

/// APG's prompts in an encoded tile, in the tile's frame: those its inner part owns.
///
/// # Errors
/// Whatever the network reports.
pub(crate) fn tile_prompts(apg: &Apg, features: &TileFeatures, model: &Model) -> Result<Vec<DerivedPrompt>, Error> {
    let tile = &features.tile;
    let mut prompts = apg.derive_prompts(features.fields(model)?);
    prompts.retain(|prompt| {
        let [y, x] = prompt.point;
        tile.inner.contains(y + tile.outer.y0, x + tile.outer.x0)
    });
    Ok(prompts)
}

/// What APG found in a tile, moved from the tile's frame to the image's.
pub(crate) fn tile_proposals(features: &TileFeatures, proposals: Vec<Proposal>) -> TileResult {
    let Rect { y0, x0, .. } = features.tile.outer;
    TileResult::Proposals(proposals.into_iter().map(|proposal| proposal.translate(y0, x0)).collect())
}

/// Computes one tile of `image`: [`encode_tile`], then [`segment_tile`], without the steps the strategy can do without. `fields`
/// replaces the model's maps (of the whole image) where they were made elsewhere.
///
/// # Errors
/// As [`segment_tile`].
pub fn run_tile(
    model: &Model,
    strategy: &Strategy,
    image: &Rgb,
    tile: &Tile,
    fields: Option<&Fields>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TileResult, Error> {
    require_tileable(strategy, image, tile)?;
    match (strategy, fields) {
        // Given maps are all that AIS needs.
        (Strategy::Ais(_), Some(given)) => Ok(TileResult::Fields(tile.inner, crop_fields(given, tile.inner))),
        // Prompts are looked at before the image is encoded.
        (Strategy::Prompted(prompted, prompts), _) => {
            let found = prompted.run(model, image, prompts, progress);
            Ok(TileResult::Whole(found.map_err(unusable_prompt)?))
        }
        _ => {
            let features = encode_tile(model, image, tile)?;
            let features = match fields {
                Some(given) => features.with_fields(crop_fields(given, tile.outer)),
                None => features,
            };
            segment_tile(model, strategy, image, &features, progress)
        }
    }
}

fn require_tileable(strategy: &Strategy, image: &Rgb, tile: &Tile) -> Result<(), Error> {
    if tile.inner == Rect::whole(image.size) || matches!(strategy, Strategy::Ais(_) | Strategy::Apg(_)) {
        return Ok(());
    }
    let message = format!("mode {} has no tiles; leave --tile_shape out or use --mode apg or ais", strategy.name());
    Err(Error::new(ErrorKind::Unsupported, message))
}

fn unusable_prompt(error: impl std::error::Error) -> Error {
    Error::new(ErrorKind::Setting, error.to_string())
}

fn tile_pixels<'a>(image: &'a Rgb, tile: &Tile) -> Cow<'a, Rgb> {
    if tile.inner == Rect::whole(image.size) { Cow::Borrowed(image) } else { Cow::Owned(image.crop(tile.outer)) }
}

/// What a tile without objects contributes; `None` for strategies that are not tiled.
pub fn empty_tile(strategy: &Strategy, tile: &Tile) -> Option<TileResult> {
    match strategy {
        Strategy::Ais(_) => {
            let size = tile.inner.size();
            let pixels = tile.inner.area() as usize;
            let maps = Fields {
                size,
                foreground: vec![0.0; pixels],
                center_distance: vec![1.0; pixels],
                boundary_distance: vec![1.0; pixels],
            };
            Some(TileResult::Fields(tile.inner, maps))
        }
        Strategy::Apg(_) => Some(TileResult::Proposals(Vec::new())),
        Strategy::Amg(_) | Strategy::Prompted(..) => None,
    }
}

/// Joins the results of all tiles of an image of `size`, in any order.
///
/// # Errors
/// `Setting` when the results are not those of one strategy and image.
pub fn merge(strategy: &Strategy, size: [u32; 2], results: Vec<TileResult>) -> Result<Segmentation, Error> {
    match strategy {
        Strategy::Ais(ais) => Ok(ais.segment(&join_fields(size, results)?)),
        Strategy::Apg(apg) => {
            let mut all = Vec::new();
            for result in results {
                let TileResult::Proposals(proposals) = result else { return Err(mixed()) };
                all.extend(proposals);
            }
            // Tiles may come in any order; equal scores are decided by position, not by arrival.
            all.sort_by_key(|proposal: &Proposal| proposal.point);
            Ok(apg.merge(size, all))
        }
        Strategy::Amg(_) | Strategy::Prompted(..) => match results.into_iter().next() {
            Some(TileResult::Whole(segmentation)) => Ok(segmentation),
            _ => Err(mixed()),
        },
    }
}

/// The decoder maps of an image of `size` from those of its tiles' inner parts.
pub(crate) fn join_fields(size: [u32; 2], parts: Vec<TileResult>) -> Result<Fields, Error> {
    let pixels = size[0] as usize * size[1] as usize;
    let mut whole = Fields {
        size,
        foreground: vec![0.0; pixels],
        center_distance: vec![1.0; pixels],
        boundary_distance: vec![1.0; pixels],
    };
    for part in parts {
        let TileResult::Fields(inner, maps) = part else { return Err(mixed()) };
        if maps.size != inner.size() || inner.y1 > size[0] || inner.x1 > size[1] {
            return Err(mixed());
        }
        paste(&mut whole, &maps, inner);
    }
    Ok(whole)
}

fn mixed() -> Error {
    Error::new(ErrorKind::Setting, "tile results of different strategies or images")
}

fn crop_fields(fields: &Fields, rect: Rect) -> Fields {
    if rect == Rect::whole(fields.size) {
        return fields.clone();
    }
    let width = fields.size[1] as usize;
    let crop = |map: &[f32]| -> Vec<f32> {
        (rect.y0 as usize..rect.y1 as usize)
            .flat_map(|y| map[y * width + rect.x0 as usize..y * width + rect.x1 as usize].iter().copied())
            .collect()
    };
    Fields {
        size: rect.size(),
        foreground: crop(&fields.foreground),
        center_distance: crop(&fields.center_distance),
        boundary_distance: crop(&fields.boundary_distance),
    }
}

fn paste(whole: &mut Fields, part: &Fields, rect: Rect) {
    let (width, part_width) = (whole.size[1] as usize, part.size[1] as usize);
    let copy = |to: &mut Vec<f32>, from: &[f32]| {
        for (row, y) in (rect.y0 as usize..rect.y1 as usize).enumerate() {
            let start = y * width + rect.x0 as usize;
            to[start..start + part_width].copy_from_slice(&from[row * part_width..(row + 1) * part_width]);
        }
    };
    copy(&mut whole.foreground, &part.foreground);
    copy(&mut whole.center_distance, &part.center_distance);
    copy(&mut whole.boundary_distance, &part.boundary_distance);
}
