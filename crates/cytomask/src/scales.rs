//! APG at several scales.
//!
//! The built-in network is small, and how well it sees an object depends on how large that appears. Its masks are rated, though: so
//! APG looks at an image at one or two scales that follow from the objects the maps show at 1× ([`Model::scales_for`]), and of the
//! objects that two scales show keeps the better rated ([`Apg::merge_scales`]). No hint is needed, and small and large objects may lie in one
//! image. docs/decisions/0046-several-scales.md has what it gains and costs. A given scale or diameter, `compat` and maps made
//! elsewhere leave one scale; networks that have no choice of scale never see several.

use cytomask_image::Tile;
use cytomask_models::{Model, ScaleChoice};
use cytomask_segment::object_size::object_areas;
use cytomask_segment::stitch::Found;
use cytomask_segment::{Apg, Segmentation};

use crate::job::{self, TileFeatures};
use crate::{Error, Phase, Pixels, Segmenter, Strategy};

/// APG's settings, where the strategy is APG at several scales.
pub(crate) fn several_scales<'a>(model: &Model, strategy: &'a Strategy) -> Option<&'a Apg> {
    match strategy {
        Strategy::Apg(apg) if !apg.compat && model.scale() == Some(ScaleChoice::Auto) => Some(apg),
        _ => None,
    }
}

impl Segmenter {
    /// Segments an image by what several scales show.
    pub(crate) fn run_scales(
        &self,
        apg: &Apg,
        image: &dyn Pixels,
        report: &mut dyn FnMut(Phase),
    ) -> Result<Segmentation, Error> {
        let size = image.size();
        let (scales, mut known) = self.scales(image)?;
        let segmenters: Vec<Self> = scales.iter().map(|&scale| self.with_scale(ScaleChoice::Fixed(scale))).collect();
        let plans = scales.iter().map(|&scale| self.plan(size, scale)).collect::<Result<Vec<_>, _>>()?;
        let total = plans.iter().map(Vec::len).sum();
        let mut before = 0;
        let mut found = Vec::with_capacity(plans.len());
        for (segmenter, tiles) in segmenters.iter().zip(&plans) {
            let mut of_all = |phase| match phase {
                Phase::Tile { done, .. } => report(Phase::Tile { done: before + done, total }),
                // There is one merge, at the end.
                Phase::Merge => {}
                other => report(other),
            };
            found.push(segmenter.found(image, tiles, known.take(), &mut of_all)?);
            before += tiles.len();
        }
        report(Phase::Merge);
        Ok(apg.merge_scales(size, found))
    }

    /// The scales for an image; where it is one tile, and 1 is the first scale, with the tile's features at it.
    pub(crate) fn scales(&self, image: &dyn Pixels) -> Result<(Vec<f32>, Option<TileFeatures>), Error> {
        let tiles = self.plan(image.size(), 1.0)?;
        let natural = self.model().with_scale(ScaleChoice::Fixed(1.0));
        let [tile] = tiles.as_slice() else {
            return Ok((Model::scales_for(&self.object_areas(image, &tiles)?), None));
        };
        if self.work(&natural, image, None).is_empty(tile)? {
            return Ok((vec![1.0], None));
        }
        let features = job::encode_tile(&natural, image, tile)?;
        let scales = Model::scales_for(&object_areas(features.fields(&natural)?));
        let known = (scales[0] == 1.0).then_some(features);
        Ok((scales, known))
    }

    /// The objects that this segmenter's scale shows; `known` are the features of its only tile.
    fn found(
        &self,
        image: &dyn Pixels,
        tiles: &[Tile],
        known: Option<TileFeatures>,
        report: &mut dyn FnMut(Phase),
    ) -> Result<Vec<Found>, Error> {
        let (model, strategy) = (self.model(), self.chosen_strategy());
        let work = self.work(model, image, None);
        let [tile] = tiles else { return work.found(tiles, report) };
        report(Phase::Tile { done: 0, total: 1 });
        let features = match known {
            Some(features) => features,
            None if work.is_empty(tile)? => return Ok(Vec::new()),
            None => job::encode_tile(model, image, tile)?,
        };
        let mut prompts = |done, total| report(Phase::Prompts { done, total });
        job::tile_objects(model, strategy, image, &features, None, &mut prompts)
    }
}
