//! An image of many tiles: which threads compute them, and windows around what no tile shows whole.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use cytomask_image::{Rect, Tile};
use cytomask_models::{Family, Model, ScaleChoice};
use cytomask_segment::ops::nms::Overlap;
use cytomask_segment::stitch::{self, Found, Join};
use cytomask_segment::{Fields, Prompted, Segmentation};

use crate::job::{self, TileResult};
use crate::{Error, ErrorKind, Phase, Pixels, Strategy};

/// Longest side, in pixels of the network's input, that the built-in model encodes at once.
const EMBEDDED_WINDOW: f32 = 2048.0;
/// SAM sees every window at 1024 pixels; beyond four times that an outline is worth little.
const SAM_WINDOW: u32 = 4096;

/// What all tiles of an image are computed with.
pub(crate) struct Work<'a> {
    pub(crate) model: &'a Model,
    pub(crate) strategy: &'a Strategy,
    pub(crate) image: &'a dyn Pixels,
    /// Decoder maps of the whole image made elsewhere.
    pub(crate) fields: Option<&'a Fields>,
    /// Tiles with less contrast than this are empty: see [`crate::Segmenter::skip_empty`].
    pub(crate) skip_empty: Option<f32>,
    /// Tiles computed at a time.
    pub(crate) jobs: usize,
}

impl Work<'_> {
    /// Segments an image of several tiles.
    pub(crate) fn run(&self, tiles: &[Tile], report: &mut dyn FnMut(Phase)) -> Result<Segmentation, Error> {
        Ok(paint(self.strategy, self.image.size(), &self.found(tiles, report)?))
    }

    /// The objects of an image of several tiles.
    pub(crate) fn found(&self, tiles: &[Tile], report: &mut dyn FnMut(Phase)) -> Result<Vec<Found>, Error> {
        check_prompts(self.strategy, self.image.size())?;
        let results = if self.jobs > 1 { self.in_parallel(tiles, report)? } else { self.in_turn(tiles, report)? };
        report(Phase::Merge);
        joined(self.model, self.strategy, self.image, self.fields, tiles, results)
    }

    /// Whether a tile is skipped for lack of signal. Where the user has put prompts there is something to see.
    pub(crate) fn is_empty(&self, tile: &Tile) -> Result<bool, Error> {
        match (self.skip_empty, self.strategy) {
            (None, _) | (_, Strategy::Prompted(..)) => Ok(false),
            (Some(levels), _) => Ok(self.image.read(tile.outer)?.contrast(Rect::whole(tile.outer.size())) < levels),
        }
    }

    fn one(&self, tile: &Tile, prompts: &mut dyn FnMut(usize, usize)) -> Result<TileResult, Error> {
        if self.is_empty(tile)? {
            return Ok(TileResult::Found(Vec::new()));
        }
        job::run_tile(self.model, self.strategy, self.image, tile, self.fields, prompts)
    }

    fn in_turn(&self, tiles: &[Tile], report: &mut dyn FnMut(Phase)) -> Result<Vec<TileResult>, Error> {
        let mut results = Vec::with_capacity(tiles.len());
        for (done, tile) in tiles.iter().enumerate() {
            report(Phase::Tile { done, total: tiles.len() });
            let mut prompts = |done, total| report(Phase::Prompts { done, total });
            results.push(self.one(tile, &mut prompts)?);
        }
        Ok(results)
    }

    /// As `in_turn`, several tiles at a time: the same results in the same order.
    fn in_parallel(&self, tiles: &[Tile], report: &mut dyn FnMut(Phase)) -> Result<Vec<TileResult>, Error> {
        let next = AtomicUsize::new(0);
        let (tell, told) = channel();
        let mut by_tile = BTreeMap::new();
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.min(tiles.len()) {
                let (tell, next) = (tell.clone(), &next);
                scope.spawn(move || {
                    while let Some((index, tile)) = {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        tiles.get(index).map(|tile| (index, tile))
                    } {
                        let result = self.one(tile, &mut |_, _| {});
                        if result.is_err() {
                            // No further tile is begun.
                            next.store(tiles.len(), Ordering::Relaxed);
                        }
                        if tell.send((index, result)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(tell);
            for (index, result) in told {
                by_tile.insert(index, result);
                report(Phase::Tile { done: by_tile.len().min(tiles.len() - 1), total: tiles.len() });
            }
        });
        by_tile.into_values().collect()
    }
}

/// Refuses prompts before any work.
pub(crate) fn check_prompts(strategy: &Strategy, size: [u32; 2]) -> Result<(), Error> {
    let Strategy::Prompted(_, prompts) = strategy else { return Ok(()) };
    let error = |index: usize, message: &str| Error::new(ErrorKind::Setting, format!("prompt {index}: {message}"));
    Prompted::check(prompts, size).map_err(|(index, message)| error(index, &message))?;
    match prompts.iter().position(|prompt| prompt.mask.is_some()) {
        Some(index) => Err(error(index, "a mask is no prompt for an image of several tiles; leave --tile_shape out")),
        None => Ok(()),
    }
}

/// Joins the results of all `tiles` of an image, in any order. An object that its tile cuts is looked at again in a window of its own;
/// one too large for that is put together from its pieces and marked ([`cytomask_segment::ObjectRecord::cut`]).
///
/// # Errors
/// `Setting` when the results are not those of several tiles; what the network reports for a window.
pub fn join(
    model: &Model,
    strategy: &Strategy,
    image: &dyn Pixels,
    fields: Option<&Fields>,
    tiles: &[Tile],
    results: Vec<TileResult>,
) -> Result<Segmentation, Error> {
    Ok(paint(strategy, image.size(), &joined(model, strategy, image, fields, tiles, results)?))
}

/// The objects [`join`] paints.
pub(crate) fn joined(
    model: &Model,
    strategy: &Strategy,
    image: &dyn Pixels,
    fields: Option<&Fields>,
    tiles: &[Tile],
    results: Vec<TileResult>,
) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    for result in results {
        let TileResult::Found(objects) = result else { return Err(job::mixed()) };
        found.extend(objects);
    }
    let settings = settings(strategy, image.size(), tiles, max_window(model));
    stitch::join(found, &settings, &mut |window, prompts| {
        job::window_objects(model, strategy, image, window, fields, prompts)
    })
}

pub(crate) fn settings(strategy: &Strategy, size: [u32; 2], tiles: &[Tile], max_window: u32) -> Join {
    let halo = |of: fn(&Tile) -> u32| tiles.iter().map(of).max().unwrap_or(0);
    Join {
        size,
        halo: [halo(|tile| tile.outer.y1 - tile.inner.y1), halo(|tile| tile.outer.x1 - tile.inner.x1)],
        max_window,
        overlap: match strategy {
            // Of what overlaps in these modes only one thing is painted.
            Strategy::Ais(_) | Strategy::Apg(_) | Strategy::Flows(_) => Some(Overlap::IntersectionOverMinimum),
            // Masks within masks are the method's.
            Strategy::Amg(_) => Some(Overlap::IntersectionOverUnion),
            Strategy::Prompted(..) => None,
        },
    }
}

pub(crate) fn paint(strategy: &Strategy, size: [u32; 2], found: &[Found]) -> Segmentation {
    match strategy {
        Strategy::Amg(amg) => amg.paint_found(size, found),
        Strategy::Ais(ais) => ais.paint(size, found),
        Strategy::Apg(apg) => apg.paint_found(size, found),
        Strategy::Flows(flows) => flows.paint(size, found),
        Strategy::Prompted(prompted, _) => prompted.paint_found(size, found),
    }
}

fn max_window(model: &Model) -> u32 {
    match (model.family(), model.scale()) {
        (Family::CytomaskT, Some(ScaleChoice::Fixed(scale))) => (EMBEDDED_WINDOW / scale) as u32,
        // At an unknown scale the largest it may choose, 2.
        (Family::CytomaskT, _) => (EMBEDDED_WINDOW / 2.0) as u32,
        _ => SAM_WINDOW,
    }
}

/// Indices of the prompts whose anchors lie in `inner`.
pub(crate) fn prompts_in(prompts: &[cytomask_segment::Prompt], inner: &Rect, size: [u32; 2]) -> Vec<usize> {
    let owned = |index: &usize| Prompted::anchor(&prompts[*index], size).is_some_and(|[y, x]| inner.contains(y, x));
    (0..prompts.len()).filter(owned).collect()
}
