//! APG, automatic prompt generation: prompts from the maps of the instance decoder, one mask per prompt, non-maximum suppression
//! of the masks, and a merge into one label image.
//!
//! Archit & Pape, "Segment Anything for Cell Instance Segmentation with Automatic Prompt Generation"; reference:
//! `AutomaticPromptGenerator` of micro-sam 1.8. Beyond it: points that always lie inside their component, box prompts from the
//! maps or from a network that proposes boxes itself, box refinement that is right on images that are not square, a least score,
//! objects that grow to the edge of the foreground, and a score for every object.
//! [`Apg::compat`] goes back to the reference's choices. A tiled image goes through [`Apg::tile`] tile by tile,
//! [`crate::stitch`] and [`Apg::paint_found`]; one looked at at several scales through [`Apg::merge_scales`].

mod known;

use std::borrow::Cow;

use cytomask_image::{Labels, LogitMap, Mask, Rect, Rgb, Tile};
use rayon::prelude::*;

use crate::grow;
use crate::model::{BoxPrompt, Candidate, FieldModel, Fields, Prompt, PromptModel, ProposedBox};
use crate::object_size::Smoothing;
use crate::ops::boundaries::{BoundaryMode, find_boundaries};
use crate::ops::components::{Connectivity, label_mask};
use crate::ops::distance::{distance_to_unset, squared_distance_to_unset};
use crate::ops::gaussian::gaussian;
use crate::ops::nms::{Overlap, mask_nms, proposed_box_nms, voted_boxes};
use crate::ops::otsu::automatic_threshold;
use crate::ops::paint::{Claim, Paint};
use crate::ops::peaks::local_minima;
use crate::ops::small_regions::largest_piece;
use crate::ops::stability::stability_and_mask;
use crate::ops::watershed::watershed;
use crate::segmentation::{ObjectOrigin, Segmentation};
use crate::stitch::{Found, keeps, paint_found};

pub use known::KnownProposals;

/// How far each side of a box grows before a mask is refined with it, as a fraction of the box (fixed in the reference).
const BOX_EXTENSION: f32 = 0.01;
/// Shift of the mask threshold in the stability score (SAM's default, fixed in the reference).
const STABILITY_OFFSET: f32 = 1.0;
/// Proposed boxes say the same when they overlap (intersection over union) by more than this.
const BOX_AGREEMENT: f64 = 0.7;
/// Objects found at two scales are one when their masks share more than this part of the smaller one.
const SCALES_OVERLAP: f32 = 0.5;
/// Of the scores in an image that reach a least score, the quantile that is compared with [`Apg::typical_score`].
const GOOD_QUANTILE: f64 = 0.8;
/// Side of the blocks in which the reference computes distances, and how far a block sees beyond its border.
const COMPAT_BLOCK: u32 = 512;
const COMPAT_HALO: u32 = 16;

/// Settings of APG, under µSAM's names where it has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Apg {
    /// Components lie where the centre distance is below this.
    pub center_distance_threshold: f32,
    /// Components, and maxima, lie where the boundary distance is below this.
    pub boundary_distance_threshold: f32,
    /// Objects lie where the foreground probability is at least this.
    pub foreground_threshold: f32,
    /// Smoothing of both distance maps before prompts are derived.
    pub distance_smoothing: Smoothing,
    /// Where prompts come from.
    pub prompt_source: PromptSource,
    /// What a prompt consists of.
    pub prompt_kind: PromptKind,
    /// With [`PromptSource::Boxes`]: boxes that the network rates lower are no prompts.
    pub box_score_thresh: f32,
    /// With [`PromptSource::Boxes`]: of two boxes that overlap (intersection over union) by more than this, only the better rated
    /// is a prompt.
    pub box_nms_thresh: f64,
    /// With [`PromptSource::BoundaryMaxima`]: a maximum is the highest pixel this far around it, in rows and in columns.
    pub maxima_distance_px: u32,
    /// Whether the network proposes three masks for every prompt, of which the one with the highest predicted IoU is taken.
    pub multimasking: bool,
    /// Prompts decoded at a time.
    pub batch_size: usize,
    /// At which logit a mask begins.
    pub mask_threshold: MaskThreshold,
    /// Whether every mask is decoded again from its own box.
    pub refine_with_box_prompts: bool,
    /// Masks must have more pixels than this, objects of the result at least this many. 0 keeps all masks that are not empty.
    pub min_size: u64,
    /// Masks whose predicted IoU × stability is below this are dropped; 0 keeps all.
    pub min_score: f32,
    /// The score of the good objects of a good image. Where an image's are rated lower, as in dim or blurred ones,
    /// [`Apg::box_score_thresh`] and [`Apg::min_score`] are lowered in proportion. Good are those that reach them; where none do, and at 0,
    /// both stay. An image is looked at tile by tile. Ours (docs/decisions/0052-typical-scores.md).
    pub typical_score: f32,
    /// How many pixels an object grows into the foreground around it ([`Apg::foreground_threshold`]) that no object has. 0 leaves it the
    /// pixels of its mask, as in the reference. Ours (docs/decisions/0053-growing-into-the-foreground.md).
    pub grow_px: u32,
    /// A mask is dropped when it overlaps a better one by more than this.
    pub nms_threshold: f32,
    /// How overlap is measured.
    pub overlap: Overlap,
    /// Reproduces the reference where it differs from what is right: the choice of points (see [`Apg::derive_prompts`]), islands of a
    /// mask as objects of their own, swapped image sides in the box refinement, thin masks exempt from suppression ([`mask_nms`]), and a
    /// lost object when no pixel is background ([`Paint::compat`]). Equal scores keep the order of their prompts here as without; the
    /// reference leaves that open.
    pub compat: bool,
}

/// Where prompts come from; the first two are the variants of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptSource {
    /// Connected components (by edges) of what is near a centre, far from boundaries and foreground: one prompt each.
    Components,
    /// The pixels of the foreground that lie deepest inside an object: local minima of the boundary distance, which is inverted
    /// (0 on the inner ridge). The centre distance is not used. Raw maps have many small minima, so set
    /// [`Apg::distance_smoothing`]. micro-sam has no function for this variant; how a maximum is told apart is ours.
    BoundaryMaxima,
    /// The boxes that the network itself proposes ([`FieldModel::boxes`]), each with the pixel it is seen from. Touching objects have a box
    /// each where the maps show one component. Where there are no boxes, as beside maps made elsewhere, this is
    /// [`PromptSource::Components`].
    Boxes,
    /// Both: a component is the better prompt where it is one object, a box where objects touch; of the masks the better rated stays.
    BoxesAndComponents,
}

impl PromptSource {
    /// Whether boxes are taken that the network itself proposes.
    pub fn takes_boxes(self) -> bool {
        matches!(self, Self::Boxes | Self::BoxesAndComponents)
    }
}

/// What a prompt consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptKind {
    /// One positive point (the paper's choice).
    Point,
    /// The box of the object's region in the maps.
    Box,
    /// Both.
    PointAndBox,
}

/// At which logit a mask begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaskThreshold {
    /// At this one; SAM's is 0.
    Fixed(f32),
    /// For each mask at its own, see [`automatic_threshold`].
    Automatic,
}

/// One prompt derived from the maps, in the frame of the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DerivedPrompt {
    /// `[y, x]`.
    pub point: [u32; 2],
    /// The box of the region that a watershed of the boundary distance gives the component, or the box that the network proposes.
    /// Only derived when [`Apg::prompt_kind`] asks for it.
    pub bounds: Option<BoxPrompt>,
    /// Pixels of the component the prompt stands for; 1 for a maximum and for a proposed box.
    pub seed_area_px: u64,
}

impl Default for Apg {
    /// The defaults of `AutomaticPromptGenerator.generate` (micro-sam 1.8); what that does not have is switched off.
    /// `maxima_distance_px` and the thresholds of boxes are ours.
    fn default() -> Self {
        Self {
            center_distance_threshold: 0.5,
            boundary_distance_threshold: 0.5,
            foreground_threshold: 0.5,
            distance_smoothing: Smoothing::Sigma(0.0),
            prompt_source: PromptSource::Components,
            prompt_kind: PromptKind::Point,
            box_score_thresh: 0.5,
            box_nms_thresh: 0.6,
            maxima_distance_px: 5,
            multimasking: false,
            batch_size: 32,
            mask_threshold: MaskThreshold::Fixed(0.0),
            refine_with_box_prompts: false,
            min_size: 25,
            min_score: 0.0,
            typical_score: 0.0,
            grow_px: 0,
            nms_threshold: 0.9,
            overlap: Overlap::IntersectionOverUnion,
            compat: false,
        }
    }
}

impl DerivedPrompt {
    /// The prompt to decode. A box goes from its first to its last pixel, as SAM's own boxes do: `x1` is the last column.
    pub fn to_prompt(&self, kind: PromptKind) -> Prompt {
        let [y, x] = self.point.map(|at| at as f32);
        let bounds = self.bounds.filter(|_| kind != PromptKind::Point);
        match (kind, bounds) {
            (PromptKind::Box, Some(bounds)) => Prompt::bounds(bounds),
            (_, bounds) => Prompt { bounds, ..Prompt::point(y, x) },
        }
    }
}

/// A mask and what is known of it, in the frame of the image (or of the tile that was encoded).
#[derive(Clone, Debug)]
pub struct Proposal {
    /// What the network answered to the prompt.
    pub mask: Mask,
    /// The network's own IoU estimate.
    pub predicted_iou: f32,
    /// SAM's stability score.
    pub stability_score: f32,
    /// The point `[y, x]` the prompt was derived at.
    pub point: [u32; 2],
}

impl Proposal {
    /// Predicted IoU × stability.
    pub fn score(&self) -> f32 {
        self.predicted_iou * self.stability_score
    }

    fn origin(&self) -> ObjectOrigin {
        ObjectOrigin {
            score: self.score(),
            predicted_iou: Some(self.predicted_iou),
            stability_score: Some(self.stability_score),
            prompt: Some(self.point.map(|at| at as f32)),
            cut: false,
        }
    }

    /// The same in a frame whose origin lies `dy` rows above and `dx` columns to the left.
    #[must_use]
    pub fn translate(self, dy: u32, dx: u32) -> Self {
        Self { mask: self.mask.translate(dy, dx), point: [self.point[0] + dy, self.point[1] + dx], ..self }
    }
}

impl Apg {
    /// Encodes an image, asks for its maps and segments it.
    ///
    /// `progress` is told how many decodings are done, of how many.
    ///
    /// # Errors
    /// Whatever the network reports.
    pub fn run<M: FieldModel>(
        &self,
        model: &M,
        image: &Rgb,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Segmentation, M::Error> {
        let embedding = model.encode(image)?;
        let fields = model.fields(&embedding)?;
        let boxes = self.boxes_of(model, &embedding)?;
        self.run_with_fields(model, &embedding, &fields, boxes.as_deref(), progress)
    }

    /// The boxes that a network proposes in an encoded image, if these settings take them.
    ///
    /// # Errors
    /// Whatever the network reports.
    pub fn boxes_of<M: FieldModel>(
        &self,
        model: &M,
        embedding: &M::Embedding,
    ) -> Result<Option<Vec<ProposedBox>>, M::Error> {
        if self.prompt_source.takes_boxes() { model.boxes(embedding) } else { Ok(None) }
    }

    /// Segments an image whose embedding, maps and boxes ([`Apg::boxes_of`]) are at hand. The result has the size of the maps.
    ///
    /// # Errors
    /// Whatever the network reports.
    ///
    /// # Panics
    /// When a map does not hold `h * w` samples.
    pub fn run_with_fields<M: PromptModel>(
        &self,
        model: &M,
        embedding: &M::Embedding,
        fields: &Fields,
        boxes: Option<&[ProposedBox]>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Segmentation, M::Error> {
        let derived = self.derive_prompts(fields, boxes);
        let proposals = self.propose(model, embedding, fields.size, &derived, progress)?;
        Ok(self.merge(fields, proposals))
    }

    /// One mask for every derived prompt of an encoded image (or tile) of `size`; with
    /// [`Apg::refine_with_box_prompts`] decoded twice.
    ///
    /// # Errors
    /// Whatever the network reports.
    pub fn propose<M: PromptModel>(
        &self,
        model: &M,
        embedding: &M::Embedding,
        size: [u32; 2],
        derived: &[DerivedPrompt],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Proposal>, M::Error> {
        Ok(self.answers(model, embedding, size, derived, progress)?.into_iter().flatten().collect())
    }

    /// For each prompt its proposal, if it has one.
    fn answers<M: PromptModel>(
        &self,
        model: &M,
        embedding: &M::Embedding,
        size: [u32; 2],
        derived: &[DerivedPrompt],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Option<Proposal>>, M::Error> {
        let prompts: Vec<Prompt> = derived.iter().map(|derived| derived.to_prompt(self.prompt_kind)).collect();
        let points: Vec<[u32; 2]> = derived.iter().map(|derived| derived.point).collect();
        let passes = if self.refine_with_box_prompts { 2 } else { 1 };
        let total = prompts.len() * passes;

        let mut answers = self.decode(model, embedding, &prompts, &points, |done| progress(done, total))?;
        if self.refine_with_box_prompts {
            if !self.compat {
                answers.iter_mut().for_each(|answer| *answer = answer.take().filter(|found| !found.mask.is_empty()));
            }
            let found: Vec<usize> = (0..answers.len()).filter(|&index| answers[index].is_some()).collect();
            let proposals: Vec<&Proposal> = answers.iter().flatten().collect();
            let prompts: Vec<Prompt> =
                proposals.iter().map(|proposal| Prompt::bounds(self.refining_box(&proposal.mask, size))).collect();
            let points: Vec<[u32; 2]> = proposals.iter().map(|proposal| proposal.point).collect();
            let before = total - prompts.len();
            let refined = self.decode(model, embedding, &prompts, &points, |done| progress(before + done, total))?;
            for (index, answer) in found.into_iter().zip(refined) {
                answers[index] = answer;
            }
        }
        Ok(answers)
    }

    /// Suppresses, grows and paints the proposals of an image with these maps.
    pub fn merge(&self, fields: &Fields, proposals: Vec<Proposal>) -> Segmentation {
        let whole = Rect::whole(fields.size);
        self.paint_found(fields.size, &self.found(proposals, fields, &Tile { outer: whole, inner: whole }))
    }

    /// The objects of a tile of an image, in the image's frame; `embedding`, `fields` and `boxes` are those of the tile with its halo. Prompts
    /// are those the tile keeps; their masks reach as far as the tile sees.
    ///
    /// # Errors
    /// Whatever the network reports.
    pub fn tile<M: PromptModel>(
        &self,
        model: &M,
        embedding: &M::Embedding,
        fields: &Fields,
        boxes: Option<&[ProposedBox]>,
        tile: &Tile,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Found>, M::Error> {
        let (dy, dx) = (tile.outer.y0, tile.outer.x0);
        let mut prompts = self.derive_prompts(fields, boxes);
        prompts.retain(|prompt| keeps(tile, [prompt.point[0] + dy, prompt.point[1] + dx]));
        let proposals = self.propose(model, embedding, fields.size, &prompts, progress)?;
        Ok(self.found(proposals, fields, tile))
    }

    /// The objects of a tile, in the image's frame, that its proposals (in the tile's, as its maps) come to.
    pub fn found(&self, proposals: Vec<Proposal>, fields: &Fields, tile: &Tile) -> Vec<Found> {
        let (dy, dx) = (tile.outer.y0, tile.outer.x0);
        let placed = |proposal: Proposal| {
            let grown = (self.grow_px > 0).then(|| {
                grow::grown(&proposal.mask, fields, self.foreground_threshold, self.grow_px).translate(dy, dx)
            });
            let proposal = proposal.translate(dy, dx);
            Found {
                origin: proposal.origin(),
                anchor: proposal.point,
                mask: proposal.mask,
                grown,
                prompt: 0,
                tile: *tile,
            }
        };
        self.suppress(proposals).into_par_iter().map(placed).collect()
    }

    /// The image of `size` from the objects that each of several scales showed, all in the image's frame.
    ///
    /// Of objects that share more than half of the smaller one the one with the best score stays: the network rates an object
    /// highest at the scale that suits it (docs/decisions/0046-several-scales.md). The objects of one scale alone are painted as
    /// they are.
    pub fn merge_scales(&self, size: [u32; 2], mut scales: Vec<Vec<Found>>) -> Segmentation {
        if let [alone] = scales.as_slice() {
            return self.paint_found(size, alone);
        }
        let mut found: Vec<Option<Found>> = scales.drain(..).flatten().map(Some).collect();
        let masks: Vec<&Mask> = found.iter().flatten().map(|object| &object.mask).collect();
        let scores: Vec<f32> = found.iter().flatten().map(|object| object.origin.score).collect();
        let kept = mask_nms(&masks, &scores, SCALES_OVERLAP, Overlap::IntersectionOverMinimum, false);
        let kept: Vec<Found> = kept.into_iter().filter_map(|index| found[index].take()).collect();
        self.paint_found(size, &kept)
    }

    /// The image of `size` from the objects of all its tiles, painted as [`Apg::merge`] paints.
    pub fn paint_found(&self, size: [u32; 2], found: &[Found]) -> Segmentation {
        paint_found(&self.painting(), size, found)
    }

    /// The prompts of an image, one for each object that its maps show, or that the network sees in a box: those of boxes first, the best
    /// rated first.
    ///
    /// The point of a component is its pixel farthest from all pixels that do not belong to it (beyond the image none does), the
    /// first in row-major order if several are. With [`Apg::compat`] distances are those of the reference: to the outer
    /// boundaries of the components, at most 16 px across blocks of 512², and 0 on the image border; a component without a
    /// pixel of positive distance gets the corner of its box, which may lie outside it.
    ///
    /// # Panics
    /// When a map does not hold `h * w` samples.
    pub fn derive_prompts(&self, fields: &Fields, boxes: Option<&[ProposedBox]>) -> Vec<DerivedPrompt> {
        let boxes = boxes.filter(|_| self.prompt_source.takes_boxes());
        let mut prompts = boxes.map_or_else(Vec::new, |boxes| self.prompts_of_boxes(boxes));
        if boxes.is_none() || self.prompt_source != PromptSource::Boxes {
            prompts.extend(self.prompts_of_maps(fields));
        }
        prompts
    }

    /// One prompt for each component or maximum of the maps.
    fn prompts_of_maps(&self, fields: &Fields) -> Vec<DerivedPrompt> {
        let size = fields.size;
        let sigma = self.distance_smoothing.sigma(fields);
        let boundary_distance = smoothed(size, &fields.boundary_distance, sigma);
        let inside: Vec<bool> = fields.foreground.iter().map(|&value| value >= self.foreground_threshold).collect();
        let is_deep = |pixel: usize| inside[pixel] && boundary_distance[pixel] < self.boundary_distance_threshold;

        let seeds = match self.prompt_source {
            PromptSource::Components | PromptSource::Boxes | PromptSource::BoxesAndComponents => {
                let center_distance = smoothed(size, &fields.center_distance, sigma);
                let is_core = |pixel| is_deep(pixel) && center_distance[pixel] < self.center_distance_threshold;
                let cores: Vec<bool> = (0..inside.len()).map(is_core).collect();
                label_mask(size, &cores, Connectivity::Four)
            }
            PromptSource::BoundaryMaxima => {
                let deep: Vec<bool> = (0..inside.len()).map(is_deep).collect();
                one_pixel_each(size, &local_minima(size, &boundary_distance, &deep, self.maxima_distance_px))
            }
        };
        let extents = seeds.extents();
        let points = if self.compat { compat_points(&seeds, &extents) } else { deepest_points(&seeds, &extents) };
        let mut bounds = vec![None; points.len()];
        if self.prompt_kind != PromptKind::Point {
            let regions = watershed(&boundary_distance, &seeds, &inside);
            for (bounds, (_, rect)) in bounds.iter_mut().zip(regions.extents()) {
                *bounds = Some(BoxPrompt::from_rect(rect));
            }
        }
        let found = points.into_iter().zip(bounds).zip(extents);
        found.map(|((point, bounds), (seed_area_px, _))| DerivedPrompt { point, bounds, seed_area_px }).collect()
    }

    /// One prompt for each object that the network sees in a box, the best rated first.
    fn prompts_of_boxes(&self, boxes: &[ProposedBox]) -> Vec<DerivedPrompt> {
        let rated_at_least =
            |least| boxes.iter().filter(|found| found.score >= least).copied().collect::<Vec<ProposedBox>>();
        let mut rated = rated_at_least(self.box_score_thresh);
        let mut kept = proposed_box_nms(&rated, self.box_nms_thresh);
        let least = self.lowered(self.box_score_thresh, kept.iter().map(|&index| rated[index].score).collect());
        if least < self.box_score_thresh {
            rated = rated_at_least(least);
            kept = proposed_box_nms(&rated, self.box_nms_thresh);
        }
        let bounds = match self.prompt_kind {
            PromptKind::Point => vec![None; kept.len()],
            _ => voted_boxes(&rated, &kept, BOX_AGREEMENT).into_iter().map(Some).collect(),
        };
        let points = kept.into_iter().map(|index| rated[index].point);
        points.zip(bounds).map(|(point, bounds)| DerivedPrompt { point, bounds, seed_area_px: 1 }).collect()
    }

    /// For every prompt, in order, its best mask.
    fn decode<M: PromptModel>(
        &self,
        model: &M,
        embedding: &M::Embedding,
        prompts: &[Prompt],
        points: &[[u32; 2]],
        mut progress: impl FnMut(usize),
    ) -> Result<Vec<Option<Proposal>>, M::Error> {
        let batch_size = self.batch_size.max(1);
        let mut proposals = Vec::with_capacity(prompts.len());
        for (prompts, points) in prompts.chunks(batch_size).zip(points.chunks(batch_size)) {
            let decoded = model.decode(embedding, prompts, self.multimasking)?;
            // Masks at image size, here, so that no more than a batch of logits is held.
            proposals.par_extend(
                decoded
                    .into_par_iter()
                    .zip(points)
                    .map(|(candidates, &point)| best_of(candidates).map(|candidate| self.proposal(&candidate, point))),
            );
            progress(proposals.len());
        }
        Ok(proposals)
    }

    fn proposal(&self, Candidate { logits, predicted_iou }: &Candidate, point: [u32; 2]) -> Proposal {
        let (mask, stability_score) = stability_and_mask(logits, self.threshold_of(logits), STABILITY_OFFSET);
        // A prompt stands for one object: islands beside it are none (docs/decisions/0054-islands.md).
        let mask = if self.compat { mask } else { largest_piece(mask) };
        Proposal { mask, predicted_iou: *predicted_iou, stability_score, point }
    }

    fn threshold_of(&self, logits: &LogitMap) -> f32 {
        match self.mask_threshold {
            MaskThreshold::Fixed(threshold) => threshold,
            MaskThreshold::Automatic => automatic_threshold(logits),
        }
    }

    /// The box of a mask, from first to last pixel, grown on every side and cut at the image.
    fn refining_box(&self, mask: &Mask, [height, width]: [u32; 2]) -> BoxPrompt {
        let rect = mask.rect();
        let grow = |first: u32, end: u32, limit: u32| {
            let (first, last) = (first as f32, end.saturating_sub(1) as f32);
            let growth = (last - first).max(0.0) * BOX_EXTENSION;
            ((first - growth).max(0.0), (last + growth).min(limit as f32))
        };
        // The reference cuts rows at the image's width and columns at its height.
        let [height, width] = if self.compat { [width, height] } else { [height, width] };
        let (y0, y1) = grow(rect.y0, rect.y1, height);
        let (x0, x1) = grow(rect.x0, rect.x1, width);
        BoxPrompt { y0, x0, y1, x1 }
    }

    /// A least score for an image by the scores of what reaches it there, see [`Apg::typical_score`].
    fn lowered(&self, least: f32, mut good: Vec<f32>) -> f32 {
        good.sort_unstable_by(f32::total_cmp);
        let at = GOOD_QUANTILE * good.len().saturating_sub(1) as f64;
        match good.get(at.round() as usize) {
            Some(&score) if score < self.typical_score => least * score / self.typical_score,
            _ => least,
        }
    }

    /// Filters by size and score, then drops what overlaps something better. The rest is in order of falling score.
    fn suppress(&self, mut proposals: Vec<Proposal>) -> Vec<Proposal> {
        // An empty mask has no stability; the reference removes it by size.
        proposals.retain(|proposal| proposal.mask.area() > self.min_size);
        let good = proposals.iter().map(Proposal::score).filter(|&score| score >= self.min_score).collect();
        let least = self.lowered(self.min_score, good);
        proposals.retain(|proposal| proposal.score() >= least);
        let masks: Vec<&Mask> = proposals.iter().map(|proposal| &proposal.mask).collect();
        let scores: Vec<f32> = proposals.iter().map(Proposal::score).collect();
        let kept = mask_nms(&masks, &scores, self.nms_threshold, self.overlap, self.compat);
        let mut proposals: Vec<Option<Proposal>> = proposals.into_iter().map(Some).collect();
        kept.into_iter().filter_map(|index| proposals[index].take()).collect()
    }

    /// The largest mask first. A mask cut in pieces makes several objects, each with the mask's score.
    fn painting(&self) -> Paint {
        Paint {
            min_size_px: self.min_size,
            claim: Claim::Largest,
            separate_pieces: true,
            remove_largest: false,
            compat: self.compat,
        }
    }
}

/// The candidate with the highest predicted IoU, the first of equals.
fn best_of(candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.into_iter().reduce(|best, next| if next.predicted_iou > best.predicted_iou { next } else { best })
}

fn smoothed(size: [u32; 2], values: &[f32], sigma: f32) -> Cow<'_, [f32]> {
    if sigma > 0.0 { Cow::Owned(gaussian(size, values, sigma)) } else { Cow::Borrowed(values) }
}

/// A label image with one object of one pixel at each place of an ascending list.
fn one_pixel_each(size: [u32; 2], pixels: &[usize]) -> Labels {
    let mut labels = Labels::zeros(size);
    for (index, &pixel) in pixels.iter().enumerate() {
        labels.as_mut_slice()[pixel] = index as u32 + 1;
    }
    labels
}

/// For each component the pixel farthest from all pixels outside it.
fn deepest_points(components: &Labels, extents: &[(u64, Rect)]) -> Vec<[u32; 2]> {
    let deepest = |(index, &(_, rect)): (usize, &(u64, Rect))| {
        // A margin of one pixel, so that the box's own border is outside.
        let size = rect.size().map(|side| side + 2);
        let is_inside = |y: u32, x: u32| {
            (1..=rect.height()).contains(&y)
                && (1..=rect.width()).contains(&x)
                && components.at(rect.y0 + y - 1, rect.x0 + x - 1) == index as u32 + 1
        };
        let inside: Vec<bool> =
            (0..size[0]).flat_map(|y| (0..size[1]).map(move |x| (y, x))).map(|(y, x)| is_inside(y, x)).collect();
        let squared = squared_distance_to_unset(size, &inside);
        let best = (0..squared.len()).max_by_key(|&pixel| (squared[pixel], std::cmp::Reverse(pixel))).unwrap_or(0);
        let [y, x] = [best as u32 / size[1], best as u32 % size[1]];
        [rect.y0 + y - 1, rect.x0 + x - 1]
    };
    extents.par_iter().enumerate().map(|(index, extent)| deepest((index, extent))).collect()
}

/// The points the reference chooses.
fn compat_points(components: &Labels, extents: &[(u64, Rect)]) -> Vec<[u32; 2]> {
    let [height, width] = components.size();
    let is_free = |(pixel, boundary): (usize, bool)| {
        let [y, x] = [pixel as u32 / width, pixel as u32 % width];
        !boundary && y > 0 && x > 0 && y + 1 < height && x + 1 < width
    };
    let free: Vec<bool> =
        find_boundaries(components, BoundaryMode::Outer).into_iter().enumerate().map(is_free).collect();
    let distances = block_distances([height, width], &free);
    let point_of = |(index, (_, rect)): (usize, &(u64, Rect))| {
        let (mut point, mut farthest) = ([rect.y0, rect.x0], 0.0);
        for y in rect.y0..rect.y1 {
            for x in rect.x0..rect.x1 {
                let distance = distances[y as usize * width as usize + x as usize];
                if components.at(y, x) == index as u32 + 1 && distance > farthest {
                    (point, farthest) = ([y, x], distance);
                }
            }
        }
        point
    };
    extents.iter().enumerate().map(point_of).collect()
}

/// Distances to the nearest pixel that is not set, block by block, each block with a halo. A block that has no such pixel behaves
/// as if there were one above its first pixel (as bioimage-cpp and SciPy do).
fn block_distances([height, width]: [u32; 2], mask: &[bool]) -> Vec<f32> {
    let mut distances = vec![0.0; mask.len()];
    for y0 in (0..height).step_by(COMPAT_BLOCK as usize) {
        for x0 in (0..width).step_by(COMPAT_BLOCK as usize) {
            let inner = Rect { y0, x0, y1: (y0 + COMPAT_BLOCK).min(height), x1: (x0 + COMPAT_BLOCK).min(width) };
            let outer = Rect {
                y0: y0.saturating_sub(COMPAT_HALO),
                x0: x0.saturating_sub(COMPAT_HALO),
                y1: (inner.y1 + COMPAT_HALO).min(height),
                x1: (inner.x1 + COMPAT_HALO).min(width),
            };
            let row_of = |y: u32, rect: &Rect| {
                let row = y as usize * width as usize;
                row + rect.x0 as usize..row + rect.x1 as usize
            };
            let block: Vec<bool> = (outer.y0..outer.y1).flat_map(|y| mask[row_of(y, &outer)].to_vec()).collect();
            let mut found = distance_to_unset(outer.size(), &block);
            let outer_width = outer.width() as usize;
            if block.iter().all(|&set| set) {
                for (pixel, distance) in found.iter_mut().enumerate() {
                    let [y, x] = [pixel / outer_width, pixel % outer_width];
                    *distance = ((y as f64 + 1.0).powi(2) + (x as f64).powi(2)).sqrt() as f32;
                }
            }
            for y in inner.y0..inner.y1 {
                let from = (y - outer.y0) as usize * outer_width + (inner.x0 - outer.x0) as usize;
                distances[row_of(y, &inner)].copy_from_slice(&found[from..from + inner.width() as usize]);
            }
        }
    }
    distances
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{Golden, draw, mean_best_iou, paint};
    use crate::ops::components::tests::drawn;
    use crate::scripted::ScriptedModel;

    const SIZE: [u32; 2] = [97, 131];

    fn compat() -> Apg {
        Apg { compat: true, ..Apg::default() }
    }

    fn run(apg: &Apg, model: &ScriptedModel) -> Segmentation {
        apg.run(model, &model.image(), &mut |_, _| ()).unwrap()
    }

    fn points(apg: &Apg, fields: &Fields) -> Vec<[u32; 2]> {
        apg.derive_prompts(fields, None).into_iter().map(|prompt| prompt.point).collect()
    }

    /// Maps in which every object of a drawing is a component.
    fn fields_of(labels: &Labels) -> Fields {
        let distance: Vec<f32> = labels.as_slice().iter().map(|&id| if id == 0 { 1.0 } else { 0.0 }).collect();
        Fields {
            size: labels.size(),
            foreground: distance.iter().map(|distance| 1.0 - distance).collect(),
            center_distance: distance.clone(),
            boundary_distance: distance,
        }
    }

    #[test]
    fn of_two_scales_the_better_rated_object_stays() {
        let found = |y0, x0, y1, x1, score| {
            let rect = Rect { y0, x0, y1, x1 };
            let tile = Tile { outer: Rect::whole(SIZE), inner: Rect::whole(SIZE) };
            let origin = ObjectOrigin { score, ..ObjectOrigin::default() };
            Found { mask: Mask::from_fn(rect, |_, _| true), grown: None, origin, anchor: [y0, x0], prompt: 0, tile }
        };
        // One wide object that the other scale sees as two; one seen by each scale alone; two that share a quarter.
        let small = vec![found(10, 10, 20, 40, 0.6), found(60, 10, 70, 20, 0.5), found(60, 60, 70, 80, 0.7)];
        let large = vec![
            found(10, 10, 20, 24, 0.9),
            found(10, 26, 20, 40, 0.8),
            found(80, 100, 90, 110, 0.5),
            found(60, 75, 70, 95, 0.9),
        ];
        let boxes = |segmentation: &Segmentation| -> Vec<[u32; 4]> {
            let rects = segmentation.labels.extents().into_iter().map(|(_, rect)| rect);
            let mut boxes: Vec<[u32; 4]> = rects.map(|rect| [rect.y0, rect.x0, rect.y1, rect.x1]).collect();
            boxes.sort_unstable();
            boxes
        };
        let both = Apg::default().merge_scales(SIZE, vec![small.clone(), large]);
        assert_eq!(
            boxes(&both),
            [
                [10, 10, 20, 24],
                [10, 26, 20, 40],
                [60, 10, 70, 20],
                [60, 60, 70, 75],
                [60, 75, 70, 95],
                [80, 100, 90, 110]
            ]
        );
        assert_eq!(both.objects.len(), 6);

        // The objects of one scale are not compared.
        let mut overlapping = small;
        overlapping.push(found(10, 22, 25, 40, 0.9));
        assert_eq!(Apg::default().merge_scales(SIZE, vec![overlapping.clone()]).objects.len(), 4);
        assert_eq!(Apg::default().merge_scales(SIZE, vec![overlapping, Vec::new()]).objects.len(), 3);
    }

    #[test]
    fn compat_points_are_the_references() {
        let (maps, golden) = (Golden::open("ais.safetensors"), Golden::open("apg.safetensors"));
        for case in ["borders", "touching", "ragged"] {
            for threshold in [0.5, 0.4] {
                let apg =
                    Apg { center_distance_threshold: threshold, boundary_distance_threshold: threshold, ..compat() };
                let ours = points(&apg, &maps.fields(&format!("{case}/maps")));
                let theirs = golden.i32_rows(&format!("points/{case}/{threshold}"));
                let theirs: Vec<[u32; 2]> = theirs.iter().map(|xy| [xy[1] as u32, xy[0] as u32]).collect();
                assert_eq!(ours, theirs, "{case} {threshold}");
            }
        }
    }

    #[test]
    fn compat_points_are_the_references_beyond_one_block() {
        let golden = Golden::open("apg.safetensors");
        for name in ["covered", "blocks"] {
            let size = golden.i32_rows(&format!("centers/{name}/size"));
            let size = [size[0][0] as u32, size[1][0] as u32];
            let mut labels = paint(&golden.i32_rows(&format!("centers/{name}/shapes")), size);
            labels.relabel();
            let ours = compat_points(&labels, &labels.extents());
            let theirs = golden.i32_rows(&format!("centers/{name}"));
            let theirs: Vec<[u32; 2]> = theirs.iter().map(|yx| [yx[0] as u32, yx[1] as u32]).collect();
            assert_eq!(ours, theirs, "{name}");
        }
    }

    #[test]
    fn points_lie_in_their_components_and_agree_with_compat_where_that_is_sound() {
        let maps = Golden::open("ais.safetensors");
        for case in ["borders", "touching", "ragged"] {
            let fields = maps.fields(&format!("{case}/maps"));
            let is_core = |pixel: usize| {
                fields.foreground[pixel] >= 0.5
                    && fields.center_distance[pixel] < 0.5
                    && fields.boundary_distance[pixel] < 0.5
            };
            let cores: Vec<bool> = (0..fields.foreground.len()).map(is_core).collect();
            let components = label_mask(fields.size, &cores, Connectivity::Four);
            let (ours, theirs) = (Apg::default().derive_prompts(&fields, None), compat().derive_prompts(&fields, None));
            assert_eq!(ours.len(), components.max_id() as usize);
            for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                assert_eq!(components.at(ours.point[0], ours.point[1]), index as u32 + 1);
                assert_eq!(ours.seed_area_px, theirs.seed_area_px);
            }
            if case == "touching" {
                let same = ours.iter().zip(&theirs).filter(|(ours, theirs)| ours.point == theirs.point).count();
                assert!(same * 10 >= ours.len() * 9, "{same} of {}", ours.len());
            }
        }
    }

    #[test]
    fn a_component_on_the_image_border_and_a_thin_one() {
        let labels = drawn(&["..11", "11.1", ".1..", ".1.1"]);
        let fields = fields_of(&labels);
        // Components by edges: the three at the top right, the four at the left, the corner.
        assert_eq!(points(&Apg::default(), &fields), [[0, 2], [1, 0], [3, 3]]);
        // Off the border are two pixels of the second. The upper touches the first at a corner, which takes its distance away.
        assert_eq!(points(&compat(), &fields), [[0, 2], [2, 1], [3, 3]]);
        let hook = fields_of(&drawn(&["..1", "..1", "111"]));
        assert_eq!(points(&compat(), &hook), [[0, 0]], "outside the component");
        assert_eq!(points(&Apg::default(), &hook), [[0, 2]], "the first of equals, inside");
    }

    #[test]
    fn maxima_split_what_components_join() {
        // Two peaks in one component.
        let row = [0.9, 0.3, 0.1, 0.3, 0.4, 0.3, 0.1, 0.3, 0.9];
        let fields = Fields {
            size: [1, 9],
            foreground: row.iter().map(|&d| if d < 0.8 { 1.0 } else { 0.0 }).collect(),
            center_distance: vec![0.0; 9],
            boundary_distance: row.to_vec(),
        };
        assert_eq!(Apg::default().derive_prompts(&fields, None).len(), 1);
        let maxima = Apg { prompt_source: PromptSource::BoundaryMaxima, maxima_distance_px: 2, ..Apg::default() };
        assert_eq!(points(&maxima, &fields), [[0, 2], [0, 6]]);
        let boxes = Apg { prompt_kind: PromptKind::Box, ..maxima }.derive_prompts(&fields, None);
        assert_eq!(boxes[0].bounds.map(|bounds| bounds.x0), Some(1.0));
        assert_eq!(boxes[1].bounds.map(|bounds| bounds.x1), Some(7.0));
    }

    #[test]
    fn touching_objects_have_a_proposed_box_each() {
        // Two discs that overlap: one component of the maps.
        let model = ScriptedModel::new(SIZE, &[(48.0, 50.0, 12.0), (48.0, 68.0, 12.0), (20.0, 110.0, 9.0)]);
        let embedding = model.encode(&model.image()).unwrap();
        let mut fields = model.fields(&embedding).unwrap();
        let proposed = model.boxes(&embedding).unwrap();
        fields.center_distance.iter_mut().for_each(|distance| *distance = 0.0);
        fields.boundary_distance.iter_mut().for_each(|distance| *distance = 0.0);
        let derive = |apg: Apg| apg.derive_prompts(&fields, proposed.as_deref());
        let boxes = Apg { prompt_source: PromptSource::Boxes, prompt_kind: PromptKind::PointAndBox, ..Apg::default() };
        assert_eq!(derive(Apg { prompt_source: PromptSource::Components, ..boxes.clone() }).len(), 2);
        let derived = derive(boxes.clone());
        assert_eq!(derived.iter().map(|prompt| prompt.point).collect::<Vec<_>>(), [[48, 50], [48, 68], [20, 110]]);
        // The mean of the right box and one that is a pixel off and rated lower.
        let bounds = derived[0].bounds.unwrap();
        let off = 0.64 / (0.81 + 0.64);
        assert!((bounds.y0 - 36.0 - off).abs() < 1e-4 && (bounds.x1 - 62.0 - off).abs() < 1e-4, "{bounds:?}");

        let low = derive(Apg { box_score_thresh: 0.1, ..boxes.clone() });
        assert_eq!(low.len(), 4, "the small box overlaps little");
        let loose = derive(Apg { box_nms_thresh: 0.99, ..boxes.clone() });
        assert_eq!(loose.len(), 6);
        let points = derive(Apg { prompt_kind: PromptKind::Point, ..boxes.clone() });
        assert!(points.iter().all(|prompt| prompt.bounds.is_none()));
        let both = derive(Apg { prompt_source: PromptSource::BoxesAndComponents, ..boxes.clone() });
        assert_eq!(both.len(), 5);
        // Maps that come without boxes.
        assert_eq!(boxes.derive_prompts(&fields, None).len(), 2);
        assert!(boxes.derive_prompts(&fields, Some(&[])).is_empty());
    }

    #[test]
    fn least_scores_are_lowered_where_good_objects_are_rated_low() {
        let apg = Apg {
            prompt_source: PromptSource::Boxes,
            box_score_thresh: 0.55,
            min_size: 0,
            min_score: 0.4,
            typical_score: 0.8,
            ..Apg::default()
        };
        let fields = fields_of(&Labels::zeros(SIZE));
        // Side by side, each six pixels wide.
        let rect = |index: usize| Rect { y0: 3, x0: 10 * index as u32, y1: 9, x1: 10 * index as u32 + 6 };
        let prompts = |apg: &Apg, scores: &[f32]| {
            let proposed = scores.iter().enumerate().map(|(index, &score)| ProposedBox {
                point: [5, 10 * index as u32 + 3],
                bounds: BoxPrompt::from_rect(rect(index)),
                score,
            });
            apg.derive_prompts(&fields, Some(&proposed.collect::<Vec<_>>())).len()
        };
        let kept = |apg: &Apg, scores: &[f32]| {
            let proposals = scores.iter().enumerate().map(|(index, &predicted_iou)| Proposal {
                mask: Mask::from_fn(rect(index), |_, _| true),
                predicted_iou,
                stability_score: 1.0,
                point: [5, 10 * index as u32 + 3],
            });
            apg.merge(&fields, proposals.collect()).objects.len()
        };
        let fixed = Apg { typical_score: 0.0, ..apg.clone() };
        // Boxes from 0.55 · 0.6 / 0.8 = 0.4125, masks from 0.4 · 0.6 / 0.8 = 0.3.
        let dim = [0.6, 0.6, 0.6, 0.42, 0.41, 0.31, 0.29];
        assert_eq!((prompts(&apg, &dim), prompts(&fixed, &dim)), (4, 3));
        assert_eq!((kept(&apg, &dim), kept(&fixed, &dim)), (6, 5));
        // Most good ones are rated well, or nothing is good.
        for scores in [&[0.9, 0.8, 0.8, 0.6, 0.5, 0.39][..], &[0.39, 0.3, 0.3]] {
            assert_eq!(prompts(&apg, scores), prompts(&fixed, scores), "{scores:?}");
            assert_eq!(kept(&apg, scores), kept(&fixed, scores), "{scores:?}");
        }
    }

    #[test]
    fn boxes_hold_the_region_of_their_component() {
        let model = ScriptedModel::new(SIZE, &[(48.0, 50.0, 12.0), (48.0, 73.0, 12.0)]);
        let fields = model.fields(&model.encode(&model.image()).unwrap()).unwrap();
        let apg = Apg { prompt_kind: PromptKind::PointAndBox, ..Apg::default() };
        let truth = model.truth().extents();
        let derived = apg.derive_prompts(&fields, None);
        assert_eq!(derived.len(), 2);
        for (prompt, (area, rect)) in derived.iter().zip(truth) {
            let bounds = prompt.bounds.unwrap();
            let off = BoxPrompt::from_rect(rect);
            assert!((bounds.y0 - off.y0).abs() <= 1.0 && (bounds.x1 - off.x1).abs() <= 1.0, "{bounds:?} {rect:?}");
            assert!(prompt.seed_area_px < area);
            let both = prompt.to_prompt(PromptKind::PointAndBox);
            assert_eq!((both.points.len(), both.bounds), (1, Some(bounds)));
            assert!(prompt.to_prompt(PromptKind::Box).points.is_empty());
            assert!(prompt.to_prompt(PromptKind::Point).bounds.is_none());
        }
        assert!(
            Apg::default().derive_prompts(&fields, None)[0].bounds.is_none(),
            "no watershed where no box is asked for"
        );
    }

    /// The proposals of `parity/apg.py`.
    fn golden_proposals(golden: &Golden) -> Vec<Proposal> {
        let shapes = golden.i32_rows("nms/shapes");
        let numbers = golden.f32s("nms/iou").into_iter().zip(golden.f32s("nms/stability"));
        let proposals =
            shapes.iter().zip(numbers).enumerate().map(|(index, (shape, (predicted_iou, stability_score)))| Proposal {
                mask: draw(shape, SIZE),
                predicted_iou,
                stability_score,
                point: [index as u32, 0],
            });
        proposals.collect()
    }

    #[test]
    fn suppression_and_merge_are_the_references() {
        let golden = Golden::open("apg.safetensors");
        for (name, apg) in [
            ("union", compat()),
            ("strict", Apg { nms_threshold: 0.5, ..compat() }),
            ("minimum", Apg { nms_threshold: 0.7, overlap: Overlap::IntersectionOverMinimum, ..compat() }),
            ("small", Apg { min_size: 0, ..compat() }),
        ] {
            let kept = apg.suppress(golden_proposals(&golden));
            let found = apg.merge(&fields_of(&Labels::zeros(SIZE)), golden_proposals(&golden));
            assert_eq!(found.labels, golden.labels(&format!("nms/{name}")), "{name}");
            for object in &found.objects {
                let origin =
                    kept.iter().find(|proposal| proposal.point[0] as f32 == object.prompt.unwrap()[0]).unwrap();
                assert_eq!((object.predicted_iou, object.score), (Some(origin.predicted_iou), origin.score()));
                let labels = found.labels.as_slice().iter().enumerate().filter(|&(_, &id)| id == object.id);
                for (pixel, _) in labels {
                    assert!(origin.mask.contains(pixel as u32 / SIZE[1], pixel as u32 % SIZE[1]));
                }
            }
        }
    }

    #[test]
    fn painting_is_the_references() {
        let golden = Golden::open("apg.safetensors");
        let proposals = golden_proposals(&golden);
        let masks: Vec<&Mask> = proposals.iter().map(|proposal| &proposal.mask).collect();
        let plain =
            Paint { min_size_px: 0, claim: Claim::Largest, separate_pieces: true, remove_largest: false, compat: true };
        for (name, paint) in [
            ("exclusive", Paint { min_size_px: 25, ..plain }),
            ("over", Paint { min_size_px: 10, claim: Claim::Smallest, ..plain }),
            ("background", Paint { claim: Claim::Smallest, remove_largest: true, ..plain }),
        ] {
            assert_eq!(paint.paint(SIZE, &masks).labels, golden.labels(&format!("paint/{name}")), "{name}");
        }
        let halves = [draw(&[1, 0, 0, 97, 60], SIZE), draw(&[1, 0, 60, 97, 131], SIZE)];
        let halves: Vec<&Mask> = halves.iter().collect();
        assert_eq!(plain.paint(SIZE, &halves).labels, golden.labels("paint/full"));
        assert_eq!(Paint { compat: false, ..plain }.paint(SIZE, &halves).mask_of_object.len(), 2);
    }

    #[test]
    fn compat_boxes_are_the_references_and_the_others_reach_the_right_border() {
        let golden = Golden::open("apg.safetensors");
        let theirs = golden.f32s("boxes");
        let mut cut = 0;
        for (proposal, theirs) in golden_proposals(&golden).iter().zip(theirs.chunks_exact(4)) {
            let BoxPrompt { y0, x0, y1, x1 } = compat().refining_box(&proposal.mask, SIZE);
            for (ours, theirs) in [x0, y0, x1, y1].iter().zip(theirs) {
                assert!((ours - theirs).abs() < 1e-4, "{ours} {theirs}");
            }
            let right = Apg::default().refining_box(&proposal.mask, SIZE);
            assert!(right.x1 >= (proposal.mask.rect().x1 - 1) as f32 && right.x1 <= 131.0 && right.y1 <= 97.0);
            cut += usize::from(right.x1 > x1);
        }
        assert!(cut > 0, "columns beyond the height");
    }

    #[test]
    fn discs_come_back_whatever_the_prompts_are() {
        let cases = [
            vec![],
            vec![(48.0, 65.0, 12.0)],
            vec![(48.0, 50.0, 12.0), (48.0, 74.5, 12.0), (71.0, 61.0, 12.0)],
            vec![(2.0, 40.0, 9.0), (94.0, 90.0, 9.0), (30.0, 1.0, 8.0), (60.0, 129.0, 8.0), (0.0, 0.0, 7.0)],
        ];
        for discs in cases {
            let model = ScriptedModel::new(SIZE, &discs);
            for (source, kind, multimasking, refine_with_box_prompts, compat) in [
                (PromptSource::Components, PromptKind::Point, false, false, false),
                (PromptSource::Components, PromptKind::Point, true, false, true),
                (PromptSource::Components, PromptKind::Box, false, true, false),
                (PromptSource::Components, PromptKind::PointAndBox, true, true, false),
                (PromptSource::BoundaryMaxima, PromptKind::Point, false, false, false),
                (PromptSource::Boxes, PromptKind::PointAndBox, false, false, false),
            ] {
                let apg = Apg {
                    prompt_source: source,
                    prompt_kind: kind,
                    multimasking,
                    refine_with_box_prompts,
                    compat,
                    batch_size: 2,
                    ..Apg::default()
                };
                let found = run(&apg, &model);
                assert_eq!(found.objects.len(), discs.len(), "{apg:?}");
                if !discs.is_empty() {
                    assert!(mean_best_iou(&model.truth(), &found.labels) > 0.97, "{apg:?} {discs:?}");
                }
                for object in &found.objects {
                    let [y, x] = object.prompt.unwrap();
                    assert_eq!(found.labels.at(y as u32, x as u32), object.id);
                    let product = object.predicted_iou.unwrap() * object.stability_score.unwrap();
                    assert_eq!(object.score, product);
                }
            }
        }
    }

    #[test]
    fn objects_grow_into_the_foreground_and_not_into_each_other() {
        let model = ScriptedModel::new(SIZE, &[(48.0, 50.0, 12.0), (48.0, 73.0, 12.0), (10.0, 110.0, 8.0)]);
        // Logits are 20 a pixel: masks end two pixels before their discs.
        let small = Apg { mask_threshold: MaskThreshold::Fixed(40.0), ..Apg::default() };
        let grown = Apg { grow_px: 3, ..small.clone() };
        let iou = |apg: &Apg| mean_best_iou(&model.truth(), &run(apg, &model).labels);
        assert!(iou(&small) < 0.75 && iou(&grown) > 0.97, "{} {}", iou(&small), iou(&grown));

        // As a tile, and at two scales of which one shows nothing more.
        let embedding = model.encode(&model.image()).unwrap();
        let fields = model.fields(&embedding).unwrap();
        let tile = Tile { outer: Rect::whole(SIZE), inner: Rect::whole(SIZE) };
        let found = grown.tile(&model, &embedding, &fields, None, &tile, &mut |_, _| ()).unwrap();
        assert_eq!(grown.merge_scales(SIZE, vec![found.clone(), found]).labels, run(&grown, &model).labels);
    }

    #[test]
    fn compat_refinement_loses_what_lies_beyond_the_height() {
        let model = ScriptedModel::new(SIZE, &[(48.0, 50.0, 12.0), (60.0, 118.0, 8.0)]);
        let refined = Apg { refine_with_box_prompts: true, ..Apg::default() };
        assert_eq!(run(&refined, &model).objects.len(), 2);
        assert_eq!(run(&Apg { compat: true, ..refined }, &model).objects.len(), 1);
    }

    #[test]
    fn the_order_of_objects_does_not_matter() {
        let discs = [(48.0, 50.0, 12.0), (48.0, 70.0, 14.0), (80.0, 20.0, 9.0)];
        let forward = run(&Apg::default(), &ScriptedModel::new(SIZE, &discs));
        let backward = run(&Apg::default(), &ScriptedModel::new(SIZE, &[discs[2], discs[1], discs[0]]));
        assert_eq!(forward.labels, backward.labels);
    }

    #[test]
    fn small_and_uncertain_masks_go() {
        let mut model = ScriptedModel::new(SIZE, &[(48.0, 50.0, 12.0), (20.0, 100.0, 2.5)]);
        // One logit is one pixel: stabilities of about (11 / 13)² and (1.5 / 3.5)².
        model.sharpness = 1.0;
        let kept = |apg: Apg| run(&apg, &model).objects.len();
        assert_eq!(kept(Apg { min_size: 5, ..Apg::default() }), 2);
        assert_eq!(kept(Apg::default()), 1, "21 pixels are not more than 25");
        assert_eq!(kept(Apg { min_size: 5, min_score: 0.5, ..Apg::default() }), 1, "the small disc is not stable");
        assert_eq!(kept(Apg { min_score: 1.0, ..Apg::default() }), 0);
    }

    #[test]
    fn the_smallest_images() {
        for size in [[1, 1], [1, 5], [0, 0], [0, 3]] {
            for (compat, kind) in [(false, PromptKind::Point), (true, PromptKind::Point), (false, PromptKind::Box)] {
                let model = ScriptedModel::new(size, &[(0.0, 0.0, 3.0)]);
                let apg = Apg { min_size: 0, prompt_kind: kind, compat, ..Apg::default() };
                let found = run(&apg, &model);
                assert_eq!(found.labels.size(), size);
                // In compat the only object takes the whole image of one pixel and becomes the background.
                let expected = size[0] > 0 && !(compat && size == [1, 1]);
                assert_eq!(found.objects.len(), usize::from(expected), "{size:?} {compat}");
            }
        }
    }

    #[test]
    fn progress_counts_decodings_and_batches_are_kept() {
        let discs: Vec<_> = (0..5).map(|index| (48.0, 12.0 + 25.0 * index as f32, 10.0)).collect();
        let model = ScriptedModel::new(SIZE, &discs);
        let apg = Apg { batch_size: 2, refine_with_box_prompts: true, ..Apg::default() };
        let mut seen = Vec::new();
        apg.run(&model, &model.image(), &mut |done, total| seen.push((done, total))).unwrap();
        assert_eq!(seen, [(2, 10), (4, 10), (5, 10), (7, 10), (9, 10), (10, 10)]);
        assert_eq!((model.decode_calls(), model.prompts_decoded()), (6, 10));
    }

    #[test]
    fn failures_of_the_network_come_through() {
        let mut model = ScriptedModel::new(SIZE, &[(48.0, 65.0, 12.0)]);
        model.decode_fails_after = Some(0);
        assert!(Apg::default().run(&model, &model.image(), &mut |_, _| ()).is_err());
    }
}
