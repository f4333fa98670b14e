//! The work on one image in pieces: [`plan`] cuts it into tiles, [`run_tile`] does one, [`merge`] joins the results.
//!
//! A tile is computed with a halo around its inner part. With APG an object belongs to the tile whose inner part holds its prompt;
//! its mask may reach into the halo, and what two tiles found twice is removed by the suppression all masks go through. With AIS
//! the inner parts of the maps are put together and segmented as one. Neither depends on the order of tiles or on who computed
//! them. An object larger than the halo is cut: see KNOWN_ISSUES.md.

use cytomask_image::{Rect, Rgb, Tile, tiles};
use cytomask_models::Model;
use cytomask_segment::apg::Proposal;
use cytomask_segment::{FieldModel, Fields, PromptModel, Segmentation};

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

/// Computes one tile of `image`. `fields` replaces the model's maps (of the whole image) where they were made elsewhere.
///
/// # Errors
/// Whatever the network reports; `Unsupported` for strategies that cannot be tiled.
pub fn run_tile(
    model: &Model,
    strategy: &Strategy,
    image: &Rgb,
    tile: &Tile,
    fields: Option<&Fields>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TileResult, Error> {
    let whole = tile.inner == Rect::whole(image.size);
    let cropped;
    let pixels = if whole {
        image
    } else {
        cropped = image.crop(tile.outer);
        &cropped
    };
    match strategy {
        Strategy::Ais(_) => {
            let maps = match fields {
                Some(given) => crop_fields(given, tile.inner),
                None => crop_fields(&model.fields(&model.encode(pixels)?)?, tile.local_inner()),
            };
            Ok(TileResult::Fields(tile.inner, maps))
        }
        Strategy::Apg(apg) => {
            let embedding = model.encode(pixels)?;
            let maps = match fields {
                Some(given) => crop_fields(given, tile.outer),
                None => model.fields(&embedding)?,
            };
            let mut prompts = apg.derive_prompts(&maps);
            prompts.retain(|prompt| {
                let [y, x] = prompt.point;
                tile.inner.contains(y + tile.outer.y0, x + tile.outer.x0)
            });
            let proposals = apg.propose(model, &embedding, maps.size, &prompts, progress)?;
            let moved = proposals.into_iter().map(|proposal| proposal.translate(tile.outer.y0, tile.outer.x0));
            Ok(TileResult::Proposals(moved.collect()))
        }
        Strategy::Amg(amg) if whole => Ok(TileResult::Whole(amg.run(model, pixels, progress)?)),
        Strategy::Prompted(prompted, prompts) if whole => {
            let found = prompted.run(model, pixels, prompts, progress);
            Ok(TileResult::Whole(found.map_err(|error| Error::new(ErrorKind::Setting, error.to_string()))?))
        }
        Strategy::Amg(_) | Strategy::Prompted(..) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("mode {} has no tiles; leave --tile_shape out or use --mode apg or ais", strategy.name()),
        )),
    }
}

/// Joins the results of all tiles of an image of `size`, in any order.
///
/// # Errors
/// `Setting` when the results are not those of one strategy and image.
pub fn merge(strategy: &Strategy, size: [u32; 2], results: Vec<TileResult>) -> Result<Segmentation, Error> {
    let mixed = || Error::new(ErrorKind::Setting, "tile results of different strategies or images");
    match strategy {
        Strategy::Ais(ais) => {
            let pixels = size[0] as usize * size[1] as usize;
            let mut whole = Fields {
                size,
                foreground: vec![0.0; pixels],
                center_distance: vec![1.0; pixels],
                boundary_distance: vec![1.0; pixels],
            };
            for result in results {
                let TileResult::Fields(inner, maps) = result else { return Err(mixed()) };
                if maps.size != inner.size() || inner.y1 > size[0] || inner.x1 > size[1] {
                    return Err(mixed());
                }
                paste(&mut whole, &maps, inner);
            }
            Ok(ais.segment(&whole))
        }
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
