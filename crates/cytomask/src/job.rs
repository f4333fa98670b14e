//! The work on one image in pieces: [`plan`] cuts it into tiles, [`run_tile`] does one, [`join`] (for an image of one tile
//! [`merge`]) joins the results.
//!
//! A tile is computed with a halo around its inner part, and keeps what belongs to the inner part: objects by their prompts or
//! centroids, masks as far as the tile sees. What two tiles found twice, and what is larger than the halo, is settled by
//! [`cytomask_segment::stitch`]. Nothing depends on the order of tiles or on who computed them
//! (docs/decisions/0022-tiles.md).

use std::sync::OnceLock;

use cytomask_image::{Rect, Tile, tiles};
use cytomask_models::{Embedding, Model};
use cytomask_segment::apg::DerivedPrompt;
use cytomask_segment::stitch::{Found, keeps};
use cytomask_segment::{Apg, FieldModel, Fields, FlowFields, PromptModel, ProposedBox, Segmentation};

use crate::flow_bands;
use crate::large::prompts_in;
use crate::{Error, ErrorKind, Pixels, Strategy};

pub use crate::large::join;

/// What one tile contributes, in the frame of the whole image.
#[derive(Clone, Debug)]
pub enum TileResult {
    /// Maps of an image of one tile.
    Fields(Rect, Fields),
    /// The finished result of an image of one tile.
    Whole(Segmentation),
    /// What one of several tiles keeps.
    Found(Vec<Found>),
}

/// Cuts an image into tiles of `tile_shape` (inner parts) with `halo` around them; one tile without a shape.
pub fn plan(size: [u32; 2], tile_shape: Option<[u32; 2]>, halo: [u32; 2]) -> Vec<Tile> {
    match tile_shape {
        Some(shape) if shape[0] < size[0] || shape[1] < size[1] => tiles(size, shape, halo),
        _ => vec![Tile { outer: Rect::whole(size), inner: Rect::whole(size) }],
    }
}

/// What a network knows of one tile, whatever the strategy and its settings: the embedding, and the decoder maps and the boxes it
/// proposes, each once asked for.
#[derive(Debug)]
pub struct TileFeatures {
    /// Where the tile lies in the image.
    pub tile: Tile,
    /// Features of the tile with its halo.
    pub embedding: Embedding,
    fields: OnceLock<Fields>,
    boxes: OnceLock<Option<Vec<ProposedBox>>>,
}

impl TileFeatures {
    /// The decoder maps of the tile with its halo (`tile.outer`); computed when first asked for.
    ///
    /// # Errors
    /// Whatever the network reports.
    pub fn fields(&self, model: &Model) -> Result<&Fields, Error> {
        known(&self.fields, || Ok(model.fields(&self.embedding)?))
    }

    /// The boxes that the network proposes in the tile with its halo, if `apg` takes any; computed when first asked for. Beside maps
    /// made elsewhere there are none.
    ///
    /// # Errors
    /// Whatever the network reports.
    pub(crate) fn boxes_for(&self, apg: &Apg, model: &Model) -> Result<Option<&[ProposedBox]>, Error> {
        if !apg.prompt_source.takes_boxes() {
            return Ok(None);
        }
        Ok(known(&self.boxes, || Ok(model.boxes(&self.embedding)?))?.as_deref())
    }

    /// Maps made elsewhere, of the tile with its halo, in place of the model's.
    #[must_use]
    fn with_fields(self, fields: Fields) -> Self {
        Self { fields: OnceLock::from(fields), boxes: OnceLock::from(None), ..self }
    }
}

/// What a cell holds, computed when there is nothing yet. Two threads may both compute it; they come to the same.
fn known<T>(cell: &OnceLock<T>, compute: impl FnOnce() -> Result<T, Error>) -> Result<&T, Error> {
    match cell.get() {
        Some(known) => Ok(known),
        None => compute().map(|new| cell.get_or_init(|| new)),
    }
}

/// Encodes one tile of `image` with its halo.
///
/// # Errors
/// Whatever the network reports.
pub fn encode_tile(model: &Model, image: &dyn Pixels, tile: &Tile) -> Result<TileFeatures, Error> {
    let embedding = model.encode(&*image.read(tile.outer)?)?;
    Ok(TileFeatures { tile: *tile, embedding, fields: OnceLock::new(), boxes: OnceLock::new() })
}

/// Segments an encoded tile of `image`.
///
/// # Errors
/// Whatever the network reports; `Setting` for prompts that cannot be used.
pub fn segment_tile(
    model: &Model,
    strategy: &Strategy,
    image: &dyn Pixels,
    features: &TileFeatures,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TileResult, Error> {
    let size = image.size();
    if features.tile.inner != Rect::whole(size) {
        return Ok(TileResult::Found(tile_objects(model, strategy, image, features, None, progress)?));
    }
    match strategy {
        Strategy::Ais(_) => Ok(TileResult::Fields(Rect::whole(size), features.fields(model)?.clone())),
        Strategy::Apg(apg) => {
            let (fields, boxes) = (features.fields(model)?, features.boxes_for(apg, model)?);
            Ok(TileResult::Whole(apg.run_with_fields(model, &features.embedding, fields, boxes, progress)?))
        }
        Strategy::Amg(amg) => {
            let proposals =
                amg.propose_encoded(model, &*image.read(Rect::whole(size))?, &features.embedding, progress)?;
            Ok(TileResult::Whole(amg.merge(&proposals)))
        }
        Strategy::Flows(flows) => Ok(TileResult::Whole(flows.segment(model.flows(&features.embedding)?))),
        Strategy::Prompted(prompted, prompts) => {
            let found = prompted.run_encoded(model, &features.embedding, size, prompts, progress);
            Ok(TileResult::Whole(found.map_err(unusable_prompt)?))
        }
    }
}

/// What an encoded tile keeps, or the whole image if that is one; of given prompts the `chosen` ones, else those its inner part holds.
pub(crate) fn tile_objects(
    model: &Model,
    strategy: &Strategy,
    image: &dyn Pixels,
    features: &TileFeatures,
    chosen: Option<&[usize]>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Found>, Error> {
    let (tile, embedding, size) = (&features.tile, &features.embedding, image.size());
    Ok(match strategy {
        Strategy::Ais(ais) => ais.tile(features.fields(model)?, tile, size),
        Strategy::Apg(apg) => {
            let boxes = features.boxes_for(apg, model)?;
            apg.tile(model, embedding, features.fields(model)?, boxes, tile, progress)?
        }
        Strategy::Amg(amg) => amg.tile(model, &*image.read(tile.outer)?, embedding, tile, size, progress)?,
        // A network that predicts flows cuts images itself: there is one tile.
        Strategy::Flows(_) => {
            return Err(Error::new(ErrorKind::Setting, "mode flows: tile_shape: expected none, found several tiles"));
        }
        Strategy::Prompted(prompted, prompts) => {
            let chosen = chosen.map_or_else(|| prompts_in(prompts, &tile.inner, size), <[usize]>::to_vec);
            prompted.tile(model, embedding, tile, prompts, &chosen, progress)?
        }
    })
}

/// What a window around a cut object shows; see [`join`].
pub(crate) fn window_objects(
    model: &Model,
    strategy: &Strategy,
    image: &dyn Pixels,
    window: &Tile,
    fields: Option<&Fields>,
    prompts: &[usize],
) -> Result<Vec<Found>, Error> {
    if let (Strategy::Ais(ais), Some(given)) = (strategy, fields) {
        return Ok(ais.tile(&crop_fields(given, window.outer), window, image.size()));
    }
    let features = with_given(encode_tile(model, image, window)?, fields);
    tile_objects(model, strategy, image, &features, Some(prompts), &mut |_, _| {})
}

fn with_given(features: TileFeatures, fields: Option<&Fields>) -> TileFeatures {
    match fields {
        Some(given) => {
            let outer = features.tile.outer;
            features.with_fields(crop_fields(given, outer))
        }
        None => features,
    }
}

/// APG's prompts in an encoded tile, in the tile's frame: those its inner part owns.
///
/// # Errors
/// Whatever the network reports.
pub(crate) fn tile_prompts(apg: &Apg, features: &TileFeatures, model: &Model) -> Result<Vec<DerivedPrompt>, Error> {
    let tile = &features.tile;
    let mut prompts = apg.derive_prompts(features.fields(model)?, features.boxes_for(apg, model)?);
    let (dy, dx) = (tile.outer.y0, tile.outer.x0);
    prompts.retain(|prompt| keeps(tile, [prompt.point[0] + dy, prompt.point[1] + dx]));
    Ok(prompts)
}

/// Computes one tile of `image`: [`encode_tile`], then [`segment_tile`], without the steps the strategy can do without. `fields`
/// replaces the model's maps (of the whole image) where they were made elsewhere.
///
/// # Errors
/// As [`segment_tile`].
pub fn run_tile(
    model: &Model,
    strategy: &Strategy,
    image: &dyn Pixels,
    tile: &Tile,
    fields: Option<&Fields>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TileResult, Error> {
    let whole = tile.inner == Rect::whole(image.size());
    match (strategy, fields) {
        // Given maps are all that AIS needs.
        (Strategy::Ais(_), Some(given)) if whole => Ok(TileResult::Fields(tile.inner, given.clone())),
        (Strategy::Ais(ais), Some(given)) => {
            Ok(TileResult::Found(ais.tile(&crop_fields(given, tile.outer), tile, image.size())))
        }
        // In this mode given maps are flows along y and x, and logits.
        (Strategy::Flows(flows), Some(given)) if whole => {
            let [flow_y, flow_x, cell_probability] =
                [&given.foreground, &given.center_distance, &given.boundary_distance].map(Clone::clone);
            let fields = FlowFields { size: given.size, flow_y, flow_x, cell_probability, scale: 1.0 };
            Ok(TileResult::Whole(flows.segment(&fields)))
        }
        // The image need not be held.
        (Strategy::Flows(flows), None) if whole && !flow_bands::is_estimated(model) => {
            let mut fields = FlowFields::with_capacity(tile.inner.size());
            let mut keep = |_: u32, row: [&[f32]; 3]| {
                fields.push_row(row);
                Ok::<(), Error>(())
            };
            let scale = model.flow_rows(image.size(), &mut |rect| Ok(image.read(rect)?.into_owned()), &mut keep)?;
            fields.scale = scale;
            Ok(TileResult::Whole(flows.segment(&fields)))
        }
        // Prompts are looked at before the image is encoded.
        (Strategy::Prompted(prompted, prompts), _) if whole => {
            let found = prompted.run(model, &*image.read(tile.outer)?, prompts, progress);
            Ok(TileResult::Whole(found.map_err(unusable_prompt)?))
        }
        (Strategy::Prompted(_, prompts), _) if prompts_in(prompts, &tile.inner, image.size()).is_empty() => {
            Ok(TileResult::Found(Vec::new()))
        }
        _ => {
            let features = with_given(encode_tile(model, image, tile)?, fields);
            segment_tile(model, strategy, image, &features, progress)
        }
    }
}

fn unusable_prompt(error: impl std::error::Error) -> Error {
    Error::new(ErrorKind::Setting, error.to_string())
}

/// Joins the result of an image of one tile; for several tiles see [`join`].
///
/// # Errors
/// `Setting` when the results are not those of one strategy and image.
pub fn merge(strategy: &Strategy, size: [u32; 2], results: Vec<TileResult>) -> Result<Segmentation, Error> {
    let [result] = <[TileResult; 1]>::try_from(results).map_err(|_| mixed())?;
    match (strategy, result) {
        (_, TileResult::Whole(segmentation)) if segmentation.labels.size() == size => Ok(segmentation),
        (Strategy::Ais(ais), TileResult::Fields(_, maps)) if maps.size == size => Ok(ais.segment(&maps)),
        _ => Err(mixed()),
    }
}

pub(crate) fn mixed() -> Error {
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
