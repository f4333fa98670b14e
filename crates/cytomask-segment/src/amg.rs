//! AMG, automatic mask generation: a grid of points, three masks per point, filters, non-maximum suppression, one label image.
//!
//! Kirillov et al., "Segment Anything", 2023; reference: `segment_anything/automatic_mask_generator.py` and µSAM's
//! `AutomaticMaskGenerator` (`micro_sam/instance_segmentation.py`), which adds the merge into a label image. Needs no instance
//! decoder. [`Amg::propose`] is the slow half, [`Amg::merge`] the quick one, so that filters can be tried without decoding
//! again. A tiled image goes through [`Amg::tile`] tile by tile, [`crate::stitch`] and [`Amg::paint_found`].
//!
//! Where this differs from µSAM by default ([`Amg::compat`] goes back): µSAM removes the largest label even if it is a cell; here
//! only a segment that surrounds the cells is removed ([`WithBackground::RemoveSurrounding`]). And an object is never lost
//! because no pixel is left to the background.

use cytomask_image::{LogitMap, Mask, Rect, Rgb, Tile};
use rayon::prelude::*;

use crate::model::{Candidate, Prompt, PromptModel};
use crate::ops::nms::box_nms;
use crate::ops::paint::{Claim, Paint, Painted};
use crate::ops::small_regions::{fill_small_holes, remove_small_islands};
use crate::ops::stability::stability_and_mask;
use crate::segmentation::{ObjectOrigin, Segmentation};
use crate::stitch::{Found, cut_sides, paint_found};

/// A logit above this is inside, as in SAM.
const MASK_THRESHOLD: f32 = 0.0;
/// How near, in pixels, a box may come to the edge of its crop before it counts as cut off.
const EDGE_TOLERANCE_PX: u32 = 20;

/// What becomes of a segment that covers the background.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithBackground {
    /// It stays an object.
    Keep,
    /// The label with most pixels is removed, whatever it is; when that is label 0, nothing changes. µSAM's
    /// `with_background=True`, which deletes a cell wherever the cell is the largest segment.
    RemoveLargest,
    /// The largest object is removed when it covers more pixels than label 0 and reaches at least three sides of the image.
    #[default]
    RemoveSurrounding,
}

/// Settings of automatic mask generation, under SAM's and µSAM's names.
#[derive(Clone, Debug, PartialEq)]
pub struct Amg {
    /// Points along one side of the image; the grid has their square. SAM: 32.
    pub points_per_side: u32,
    /// Points decoded together. SAM: 64.
    pub points_per_batch: usize,
    /// Masks must have a predicted IoU above this; no filter at 0 or below. SAM: 0.88.
    pub pred_iou_thresh: f32,
    /// Masks must have at least this stability; no filter at 0 or below. SAM: 0.95.
    pub stability_score_thresh: f32,
    /// How far the mask threshold moves up and down for the stability, in logits. SAM: 1.0.
    pub stability_score_offset: f32,
    /// Of two masks of one crop whose boxes overlap by more than this IoU, the one with the higher predicted IoU stays. SAM: 0.7.
    pub box_nms_thresh: f64,
    /// Layers of crops; layer `i` cuts the image into `2^i × 2^i` overlapping crops, each encoded anew. SAM: 0.
    pub crop_n_layers: u32,
    /// As `box_nms_thresh`, between crops, where the smaller crop wins. SAM: 0.7.
    pub crop_nms_thresh: f64,
    /// How much crops of the first layer overlap, as a share of the shorter side of the image. SAM: 512/1500.
    pub crop_overlap_ratio: f64,
    /// Points per side in layer `i` are divided by this to the power `i`. SAM: 1.
    pub crop_n_points_downscale_factor: u32,
    /// Holes and islands of a mask below this area are filled and removed. SAM: 0, no clean-up.
    pub min_mask_region_area: u64,
    /// Objects below this area, in pixels, are dropped. µSAM: 0; for its fine-tuned models 100.
    pub min_object_size: u64,
    /// What becomes of a segment that covers the background.
    pub with_background: WithBackground,
    /// Whether, where no pixel at all is left to the background, the first object becomes it, as in µSAM.
    pub compat: bool,
}

impl Default for Amg {
    fn default() -> Self {
        Self {
            points_per_side: 32,
            points_per_batch: 64,
            pred_iou_thresh: 0.88,
            stability_score_thresh: 0.95,
            stability_score_offset: 1.0,
            box_nms_thresh: 0.7,
            crop_n_layers: 0,
            crop_nms_thresh: 0.7,
            crop_overlap_ratio: 512.0 / 1500.0,
            crop_n_points_downscale_factor: 1,
            min_mask_region_area: 0,
            min_object_size: 0,
            with_background: WithBackground::default(),
            compat: false,
        }
    }
}

/// µSAM's `AMG_SETTINGS`: model, predicted IoU, stability. All have a least object size of 100.
const MODEL_SETTINGS: [(&str, f32, f32); 8] = [
    ("vit_t_lm", 0.6, 0.65),
    ("vit_b_lm", 0.65, 0.7),
    ("vit_l_lm", 0.65, 0.73),
    ("vit_h_lm", 0.65, 0.7),
    ("vit_t_em_organelles", 0.75, 0.75),
    ("vit_b_em_organelles", 0.75, 0.75),
    ("vit_l_em_organelles", 0.8, 0.8),
    ("vit_h_em_organelles", 0.8, 0.8),
];

/// One mask that passed the filters, before suppression and merging.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// In the frame of the whole image.
    pub mask: Mask,
    /// The network's own IoU estimate.
    pub predicted_iou: f32,
    /// SAM's stability score.
    pub stability_score: f32,
    /// The grid point `[y, x]`, in the frame of the whole image.
    pub point: [f32; 2],
    /// The crop it was found in, an index into [`Proposals::crops`].
    pub crop: usize,
}

/// What [`Amg::propose`] found in one image.
#[derive(Clone, Debug)]
pub struct Proposals {
    /// `[h, w]` of the image.
    pub size: [u32; 2],
    /// The crops, in the image frame; the first is the whole image.
    pub crops: Vec<Rect>,
    /// Masks by crop, point and mask output.
    pub masks: Vec<Proposal>,
}

/// A part of the image that is encoded on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// In the image frame.
    pub rect: Rect,
    /// 0 for the whole image, then the layer.
    pub layer: u32,
}

impl Amg {
    /// The settings µSAM uses for one of its models (`"vit_b_lm"`, …); the defaults for any other name.
    pub fn for_model(name: &str) -> Self {
        let defaults = Self::default();
        match MODEL_SETTINGS.iter().find(|(model, ..)| *model == name) {
            Some(&(_, pred_iou_thresh, stability_score_thresh)) => {
                Self { pred_iou_thresh, stability_score_thresh, min_object_size: 100, ..defaults }
            }
            None => defaults,
        }
    }

    /// The same settings with µSAM's own choices where this crate's differ.
    #[must_use]
    pub fn compat(self) -> Self {
        Self { with_background: WithBackground::RemoveLargest, compat: true, ..self }
    }

    /// Segments an image: [`Amg::propose`], then [`Amg::merge`]. `progress` is called with the batches done and their total.
    ///
    /// # Errors
    /// What the network reports.
    pub fn run<M: PromptModel>(
        &self,
        model: &M,
        image: &Rgb,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Segmentation, M::Error> {
        let proposals = self.propose(model, image, progress)?;
        Ok(self.merge(&proposals))
    }

    /// Encodes every crop, decodes its grid in batches and keeps the masks that pass both filters.
    ///
    /// # Errors
    /// What the network reports.
    pub fn propose<M: PromptModel>(
        &self,
        model: &M,
        image: &Rgb,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Proposals, M::Error> {
        let embedding = model.encode(image)?;
        self.propose_encoded(model, image, &embedding, progress)
    }

    /// As [`Amg::propose`], for an image whose embedding is at hand; smaller crops are still encoded.
    ///
    /// # Errors
    /// What the network reports.
    pub fn propose_encoded<M: PromptModel>(
        &self,
        model: &M,
        image: &Rgb,
        embedding: &M::Embedding,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Proposals, M::Error> {
        self.propose_where(model, image, embedding, &|_| true, progress)
    }

    /// As [`Amg::propose_encoded`], with the points `[y, x]` of the image for which `wanted` holds.
    fn propose_where<M: PromptModel>(
        &self,
        model: &M,
        image: &Rgb,
        embedding: &M::Embedding,
        wanted: &dyn Fn([f32; 2]) -> bool,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Proposals, M::Error> {
        let crops = self.crops(image.size);
        let grids: Vec<Vec<[f64; 2]>> = (0..=self.crop_n_layers).map(|layer| self.point_grid(layer)).collect();
        let batch_size = self.points_per_batch.max(1);
        let total = crops.iter().map(|crop| grids[crop.layer as usize].len().div_ceil(batch_size)).sum();
        let (mut done, mut masks) = (0, Vec::new());
        for (index, crop) in crops.iter().enumerate() {
            let [height, width] = crop.rect.size();
            let of_crop;
            let embedding = if crop.rect.size() == image.size {
                embedding
            } else {
                of_crop = model.encode(&image.crop(crop.rect))?;
                &of_crop
            };
            let scaled = |&[y, x]: &[f64; 2]| [(y * f64::from(height)) as f32, (x * f64::from(width)) as f32];
            let placed = |&[y, x]: &[f32; 2]| wanted([y + crop.rect.y0 as f32, x + crop.rect.x0 as f32]);
            let points: Vec<[f32; 2]> = grids[crop.layer as usize].iter().map(scaled).filter(placed).collect();
            for batch in points.chunks(batch_size) {
                let prompts: Vec<Prompt> = batch.iter().map(|&[y, x]| Prompt::point(y, x)).collect();
                let candidates = model.decode(embedding, &prompts, true)?;
                let in_order = batch
                    .iter()
                    .zip(candidates)
                    .flat_map(|(&point, of_point)| of_point.into_iter().map(move |candidate| (point, candidate)));
                let in_order: Vec<([f32; 2], Candidate)> = in_order.collect();
                masks.par_extend(in_order.into_par_iter().filter_map(|([y, x], candidate)| {
                    let (mask, stability_score) = self.passing(&candidate)?;
                    Some(Proposal {
                        mask: mask.translate(crop.rect.y0, crop.rect.x0),
                        predicted_iou: candidate.predicted_iou,
                        stability_score,
                        point: [y + crop.rect.y0 as f32, x + crop.rect.x0 as f32],
                        crop: index,
                    })
                }));
                done += 1;
                progress(done, total);
            }
        }
        Ok(Proposals { size: image.size, crops: crops.iter().map(|crop| crop.rect).collect(), masks })
    }

    /// The objects of a tile of an image of `size`, in the image's frame. `pixels` are those of the tile with its halo, and so are
    /// `embedding` and the grid, of which the points in the inner part are decoded.
    ///
    /// A mask cut by the tile on three sides or more is taken for background, as SAM drops every mask cut by a crop.
    ///
    /// # Errors
    /// What the network reports.
    pub fn tile<M: PromptModel>(
        &self,
        model: &M,
        pixels: &Rgb,
        embedding: &M::Embedding,
        tile: &Tile,
        size: [u32; 2],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Found>, M::Error> {
        let (dy, dx) = (tile.outer.y0, tile.outer.x0);
        let inner = tile.local_inner();
        let mine = |[y, x]: [f32; 2]| inner.contains(y as u32, x as u32);
        let proposals = self.propose_where(model, pixels, embedding, &mine, progress)?;
        let mut kept = self.unique_within_crops(&proposals);
        if proposals.crops.len() > 1 {
            self.keep_smaller_crops(&proposals, &mut kept);
        }
        let cleaned = self.without_small_regions(&proposals, kept).into_iter();
        let placed = cleaned.map(|(index, mask)| {
            let proposal = &proposals.masks[index];
            let origin = proposal.origin();
            let [y, x] = proposal.point;
            Found {
                grown: None,
                mask: mask.translate(dy, dx),
                origin: ObjectOrigin { prompt: Some([y + dy as f32, x + dx as f32]), ..origin },
                anchor: [y as u32 + dy, x as u32 + dx],
                prompt: 0,
                tile: *tile,
            }
        });
        Ok(placed.filter(|found| cut_sides(&found.mask.rect(), &tile.outer, size) < 3).collect())
    }

    /// The image of `size` from the objects of all its tiles, painted as [`Amg::merge`] paints.
    pub fn paint_found(&self, size: [u32; 2], found: &[Found]) -> Segmentation {
        paint_found(&self.painting(), size, found)
    }

    /// Suppresses duplicates among proposals and merges the rest into a label image.
    ///
    /// Filters with these settings again, so that proposals made with lower thresholds serve for all higher ones.
    pub fn merge(&self, proposals: &Proposals) -> Segmentation {
        let mut kept = self.unique_within_crops(proposals);
        if proposals.crops.len() > 1 {
            self.keep_smaller_crops(proposals, &mut kept);
        }
        let masks = self.without_small_regions(proposals, kept);
        self.to_segmentation(proposals, &masks)
    }

    /// Whether proposals made with these settings hold all that `other` would propose: the same points, crops and stability, and
    /// filters that are no stricter. Then `other` may [`merge`](Amg::merge) them.
    pub fn proposals_serve(&self, other: &Self) -> bool {
        // No filter at 0 or below.
        let lets_pass = |ours: f32, theirs: f32| ours <= 0.0 || (theirs > 0.0 && ours <= theirs);
        lets_pass(self.pred_iou_thresh, other.pred_iou_thresh)
            && lets_pass(self.stability_score_thresh, other.stability_score_thresh)
            && self.decoding() == other.decoding()
    }

    /// Settings whose proposals serve these and `other` ([`Amg::proposals_serve`]); none when they differ in points or crops.
    #[must_use]
    pub fn looser_of(&self, other: &Self) -> Option<Self> {
        // At 0 or below nothing is filtered, so the smaller threshold is always the looser.
        (self.decoding() == other.decoding()).then(|| Self {
            pred_iou_thresh: self.pred_iou_thresh.min(other.pred_iou_thresh),
            stability_score_thresh: self.stability_score_thresh.min(other.stability_score_thresh),
            ..self.clone()
        })
    }

    /// These settings with all that matters only once the masks are there at its default.
    fn decoding(&self) -> Self {
        Self {
            points_per_side: self.points_per_side,
            stability_score_offset: self.stability_score_offset,
            crop_n_layers: self.crop_n_layers,
            crop_overlap_ratio: self.crop_overlap_ratio,
            crop_n_points_downscale_factor: self.crop_n_points_downscale_factor,
            ..Self::default()
        }
    }

    /// The whole image, then layer by layer the crops; within a layer the columns of crops from left to right.
    ///
    /// Crops of an image so small that they would lie outside it are left out.
    pub fn crops(&self, [h, w]: [u32; 2]) -> Vec<Crop> {
        let mut crops = vec![Crop { rect: Rect::whole([h, w]), layer: 0 }];
        for layer in 1..=self.crop_n_layers {
            let per_side = 1_u32 << layer;
            let overlap = (self.crop_overlap_ratio * f64::from(h.min(w)) * (2.0 / f64::from(per_side))) as u32;
            let extent = |side: u32| (overlap * (per_side - 1) + side).div_ceil(per_side);
            let (height, width) = (extent(h), extent(w));
            for column in 0..per_side {
                for row in 0..per_side {
                    let (y0, x0) = ((height - overlap) * row, (width - overlap) * column);
                    let rect = Rect { y0, x0, y1: (y0 + height).min(h), x1: (x0 + width).min(w) };
                    if !rect.is_empty() {
                        crops.push(Crop { rect, layer });
                    }
                }
            }
        }
        crops
    }

    /// Points `[y, x]` of a layer's grid, 0–1 over the crop, row by row; each in the middle of its cell.
    pub fn point_grid(&self, layer: u32) -> Vec<[f64; 2]> {
        let per_side = self.points_per_side / self.crop_n_points_downscale_factor.max(1).saturating_pow(layer);
        let along = spaced_points(per_side);
        along.iter().flat_map(|&y| along.iter().map(move |&x| [y, x])).collect()
    }

    /// The mask and stability of a candidate that passes both filters.
    fn passing(&self, candidate: &Candidate) -> Option<(Mask, f32)> {
        if !self.passes_iou(candidate.predicted_iou) {
            return None;
        }
        let logits: &LogitMap = &candidate.logits;
        let (mask, stability) = stability_and_mask(logits, MASK_THRESHOLD, self.stability_score_offset);
        self.passes_stability(stability).then_some((mask, stability))
    }

    fn passes_iou(&self, predicted_iou: f32) -> bool {
        self.pred_iou_thresh <= 0.0 || predicted_iou > self.pred_iou_thresh
    }

    fn passes_stability(&self, stability: f32) -> bool {
        self.stability_score_thresh <= 0.0 || stability >= self.stability_score_thresh
    }

    /// Indices of the proposals that pass the filters, are not cut off by their crop, and survive suppression in it.
    fn unique_within_crops(&self, proposals: &Proposals) -> Vec<usize> {
        let whole = Rect::whole(proposals.size);
        let mut kept = Vec::new();
        for (crop, crop_rect) in proposals.crops.iter().enumerate() {
            let passing: Vec<usize> = (0..proposals.masks.len())
                .filter(|&index| {
                    let proposal = &proposals.masks[index];
                    proposal.crop == crop
                        && self.passes_iou(proposal.predicted_iou)
                        && self.passes_stability(proposal.stability_score)
                        && !is_cut_off(&proposal.mask.rect(), crop_rect, &whole)
                })
                .collect();
            let boxes: Vec<Rect> = passing.iter().map(|&index| proposals.masks[index].mask.rect()).collect();
            let scores: Vec<f32> = passing.iter().map(|&index| proposals.masks[index].predicted_iou).collect();
            kept.extend(box_nms(&boxes, &scores, self.box_nms_thresh).into_iter().map(|index| passing[index]));
        }
        kept
    }

    /// Of masks that several crops found, keeps the one from the smallest crop.
    fn keep_smaller_crops(&self, proposals: &Proposals, kept: &mut Vec<usize>) {
        let boxes: Vec<Rect> = kept.iter().map(|&index| proposals.masks[index].mask.rect()).collect();
        let area = |index: usize| proposals.crops[proposals.masks[index].crop].area() as f32;
        let scores: Vec<f32> = kept.iter().map(|&index| 1.0 / area(index)).collect();
        *kept = box_nms(&boxes, &scores, self.crop_nms_thresh).into_iter().map(|index| kept[index]).collect();
    }

    /// Fills small holes and removes small islands; where that made masks alike, those that needed no change stay.
    fn without_small_regions(&self, proposals: &Proposals, kept: Vec<usize>) -> Vec<(usize, Mask)> {
        if self.min_mask_region_area == 0 {
            return kept.into_iter().map(|index| (index, proposals.masks[index].mask.clone())).collect();
        }
        let cleaned: Vec<(Mask, f32)> = kept
            .par_iter()
            .map(|&index| {
                let mask = &proposals.masks[index].mask;
                let filled = fill_small_holes(mask, proposals.size, self.min_mask_region_area);
                let joined = remove_small_islands(filled.as_ref().unwrap_or(mask), self.min_mask_region_area);
                let unchanged = if filled.is_none() && joined.is_none() { 1.0 } else { 0.0 };
                (joined.or(filled).unwrap_or_else(|| mask.clone()), unchanged)
            })
            .collect();
        let boxes: Vec<Rect> = cleaned.iter().map(|(mask, _)| mask.rect()).collect();
        let scores: Vec<f32> = cleaned.iter().map(|&(_, unchanged)| unchanged).collect();
        let threshold = self.box_nms_thresh.max(self.crop_nms_thresh);
        let unique = box_nms(&boxes, &scores, threshold);
        unique.into_iter().map(|index| (kept[index], cleaned[index].0.clone())).collect()
    }

    /// Paints masks by falling area, so that the smaller lie on top; pieces that do not touch become objects of their own.
    fn to_segmentation(&self, proposals: &Proposals, masks: &[(usize, Mask)]) -> Segmentation {
        let Painted { labels, mask_of_object } =
            self.painting().paint(proposals.size, &masks.iter().map(|(_, mask)| mask).collect::<Vec<_>>());
        let describe = |id: u32| proposals.masks[masks[mask_of_object[id as usize - 1]].0].origin();
        let mut labels = labels;
        if self.with_background == WithBackground::RemoveSurrounding
            && let Some(background) = surrounding_object(&labels)
        {
            labels.as_mut_slice().iter_mut().filter(|id| **id == background).for_each(|id| *id = 0);
        }
        Segmentation::from_labels(labels, describe)
    }
}

impl Amg {
    fn painting(&self) -> Paint {
        Paint {
            min_size_px: self.min_object_size,
            claim: Claim::Smallest,
            separate_pieces: true,
            remove_largest: self.with_background == WithBackground::RemoveLargest,
            compat: self.compat,
        }
    }
}

impl Proposal {
    fn origin(&self) -> ObjectOrigin {
        ObjectOrigin {
            score: self.predicted_iou * self.stability_score,
            predicted_iou: Some(self.predicted_iou),
            stability_score: Some(self.stability_score),
            prompt: Some(self.point),
            cut: false,
        }
    }
}

/// `count` points over 0–1, each in the middle of its cell: the numbers of `numpy.linspace(1 / 2n, 1 − 1 / 2n, n)`.
fn spaced_points(count: u32) -> Vec<f64> {
    let offset = 1.0 / (2.0 * f64::from(count));
    let last = 1.0 - offset;
    let step = (last - offset) / f64::from(count.max(2) - 1);
    let point = |index: u32| if index > 0 && index + 1 == count { last } else { f64::from(index) * step + offset };
    (0..count).map(point).collect()
}

/// Whether a box (tight, image frame) comes within 20 px of an edge of its crop that is not within 20 px of the same edge of the
/// image: then the object probably goes on outside the crop. SAM measures from the last pixel inside the box to the crop's end.
pub fn is_cut_off(rect: &Rect, crop: &Rect, whole: &Rect) -> bool {
    let near = |edge: u32, other: u32| edge.abs_diff(other) <= EDGE_TOLERANCE_PX;
    let cut = |edge: u32, crop: u32, whole: u32| near(edge, crop) && !near(edge, whole);
    // An empty mask has an all-zero box in SAM, in the frame of the crop.
    let (y0, x0, y1, x1) = match rect.is_empty() {
        true => (crop.y0, crop.x0, crop.y0, crop.x0),
        false => (rect.y0, rect.x0, rect.y1 - 1, rect.x1 - 1),
    };
    cut(y0, crop.y0, whole.y0) || cut(x0, crop.x0, whole.x0) || cut(y1, crop.y1, whole.y1) || cut(x1, crop.x1, whole.x1)
}

/// The largest object, if it has more pixels than the background and reaches three sides of the image.
fn surrounding_object(labels: &cytomask_image::Labels) -> Option<u32> {
    let [h, w] = labels.size();
    let extents = labels.extents();
    let covered: u64 = extents.iter().map(|&(area, _)| area).sum();
    let free = u64::from(h) * u64::from(w) - covered;
    // The first of equals.
    let largest = (0..extents.len()).max_by_key(|&index| (extents[index].0, std::cmp::Reverse(index)))?;
    let (area, rect) = extents[largest];
    let sides = [rect.y0 == 0, rect.x0 == 0, rect.y1 == h, rect.x1 == w].iter().filter(|&&reached| reached).count();
    (area > free && sides >= 3).then_some(largest as u32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{ScriptedError, ScriptedModel};

    const SIZE: [u32; 2] = [97, 131];

    fn quiet(_: usize, _: usize) {}

    /// Discs apart from each other, touching the border, and one too small for the grid to hit.
    fn model() -> ScriptedModel {
        let discs = [(20.3, 30.2, 12.0), (20.1, 60.4, 14.0), (70.2, 100.3, 20.0), (95.0, 3.0, 15.0), (60.1, 31.3, 1.1)];
        ScriptedModel::new(SIZE, &discs)
    }

    #[test]
    fn looser_proposals_serve_stricter_settings() {
        let discs = [(48.0, 50.0, 12.0), (48.0, 73.0, 12.0), (20.0, 110.0, 7.0)];
        let model = ScriptedModel { sharpness: 1.0, ..ScriptedModel::new([97, 131], &discs) };
        let loose = Amg { points_per_side: 12, pred_iou_thresh: 0.4, stability_score_thresh: 0.3, ..Amg::default() };
        let proposals = loose.propose(&model, &model.image(), &mut |_, _| ()).unwrap();
        let mut counts = Vec::new();
        for pred_iou_thresh in [0.4, 0.6, 0.9] {
            for stability_score_thresh in [0.3, 0.6, 0.8] {
                for (box_nms_thresh, min_object_size) in [(0.7, 0), (0.3, 200)] {
                    let amg = Amg {
                        pred_iou_thresh,
                        stability_score_thresh,
                        box_nms_thresh,
                        min_object_size,
                        ..loose.clone()
                    };
                    assert!(loose.proposals_serve(&amg));
                    let plain = amg.run(&model, &model.image(), &mut |_, _| ()).unwrap();
                    let found = amg.merge(&proposals);
                    assert_eq!((&plain.labels, &plain.objects), (&found.labels, &found.objects), "{amg:?}");
                    counts.push(found.objects.len());
                }
            }
        }
        assert!(counts.iter().min() < counts.iter().max(), "the settings matter: {counts:?}");
        for other in [
            Amg { pred_iou_thresh: 0.39, ..loose.clone() },
            Amg { pred_iou_thresh: 0.0, ..loose.clone() },
            Amg { stability_score_thresh: 0.2, ..loose.clone() },
            Amg { points_per_side: 13, ..loose.clone() },
            Amg { crop_n_layers: 1, ..loose.clone() },
        ] {
            assert!(!loose.proposals_serve(&other), "{other:?}");
        }
        assert!(Amg { pred_iou_thresh: 0.0, ..loose.clone() }.proposals_serve(&loose), "no filter lets all pass");
        let other = Amg { pred_iou_thresh: 0.3, stability_score_thresh: 0.9, ..loose.clone() };
        let both = loose.looser_of(&other).unwrap();
        assert!(both.proposals_serve(&loose) && both.proposals_serve(&other) && !loose.proposals_serve(&other));
        assert_eq!(loose.looser_of(&Amg { points_per_side: 13, ..loose.clone() }), None);
    }

    #[test]
    fn every_disc_the_grid_hits_becomes_one_object() {
        let model = model();
        let amg = Amg { points_per_side: 12, points_per_batch: 50, ..Amg::default() };
        let mut calls = Vec::new();
        let found = amg.run(&model, &model.image(), &mut |done, total| calls.push((done, total))).unwrap();
        assert_eq!(calls, [(1, 3), (2, 3), (3, 3)]);
        assert_eq!((model.encode_calls(), model.prompts_decoded()), (1, 144));
        assert_eq!(found.objects.len(), 4);
        for object in &found.objects {
            let [y, x] = object.prompt.unwrap();
            let disc = model.discs.iter().position(|disc| disc.distance(y, x) < disc.radius).unwrap();
            assert_eq!(object.area_px, model.discs[disc].mask(SIZE).area());
            assert_eq!(object.predicted_iou, Some(0.99 - disc as f32 * 0.001));
            assert_eq!(object.score, object.predicted_iou.unwrap() * object.stability_score.unwrap());
            assert_eq!(found.labels.at(object.centroid[0] as u32, object.centroid[1] as u32), object.id);
        }
    }

    #[test]
    fn coarse_logits_give_nearly_the_same() {
        let fine = model();
        let coarse = ScriptedModel { stride: 4, ..model() };
        let amg = Amg { points_per_side: 12, ..Amg::default() };
        let a = amg.run(&fine, &fine.image(), &mut quiet).unwrap();
        let b = amg.run(&coarse, &coarse.image(), &mut quiet).unwrap();
        assert_eq!(a.objects.len(), b.objects.len());
        for (a, b) in a.objects.iter().zip(&b.objects) {
            assert!(a.area_px.abs_diff(b.area_px) * 20 < a.area_px, "{} {}", a.area_px, b.area_px);
        }
    }

    #[test]
    fn filters_drop_the_unsure_and_the_unstable() {
        let model = model();
        let run = |amg: Amg| amg.run(&model, &model.image(), &mut quiet).unwrap().objects.len();
        let amg = Amg { points_per_side: 12, ..Amg::default() };
        assert_eq!(run(Amg { pred_iou_thresh: 0.9895, ..amg.clone() }), 1, "only the first disc has 0.99");
        assert_eq!(run(Amg { stability_score_offset: 60.0, ..amg.clone() }), 0);
        assert_eq!(run(Amg { min_object_size: 700, ..amg }), 1);
    }

    #[test]
    fn merging_again_equals_running_again() {
        let model = model();
        let low = Amg { points_per_side: 12, pred_iou_thresh: 0.3, stability_score_thresh: 0.3, ..Amg::default() };
        let proposals = low.propose(&model, &model.image(), &mut quiet).unwrap();
        for pred_iou_thresh in [0.3, 0.6, 0.88, 0.9885] {
            let amg = Amg { pred_iou_thresh, stability_score_thresh: 0.9, ..low.clone() };
            let (again, anew) = (amg.merge(&proposals), amg.run(&model, &model.image(), &mut quiet).unwrap());
            assert_eq!(again.labels, anew.labels);
            assert_eq!(again.objects, anew.objects);
        }
    }

    #[test]
    fn crops_find_small_objects_once_each() {
        let size = [190, 260];
        let discs: Vec<(f32, f32, f32)> = (0..40)
            .map(|i| (15.3 + (i / 8) as f32 * 38.0, 17.2 + (i % 8) as f32 * 32.0, 7.2 + (i % 5) as f32))
            .collect();
        let model = ScriptedModel::new(size, &discs);
        let amg = Amg { points_per_side: 16, crop_n_layers: 1, ..Amg::default() };
        let found = amg.run(&model, &model.image(), &mut quiet).unwrap();
        assert_eq!(model.encode_calls(), 5);
        assert_eq!(found.labels.max_id(), 40);
        for (object, disc) in found.objects.iter().map(|object| (object, &model.discs)) {
            assert!(disc.iter().any(|disc| disc.mask(size).area() == object.area_px), "cut objects are dropped");
        }
    }

    #[test]
    fn only_a_segment_that_surrounds_is_taken_for_background() {
        // A disc larger than the image, holding three cells: background. Score order does not matter, area does.
        let cells = [(30.2, 30.1, 12.0), (30.1, 70.3, 12.0), (70.2, 50.4, 12.0), (48.0, 65.0, 200.0)];
        let model = ScriptedModel::new(SIZE, &cells);
        let run = |model: &ScriptedModel, with_background| {
            let amg = Amg { points_per_side: 12, with_background, ..Amg::default() };
            amg.run(model, &model.image(), &mut quiet).unwrap().objects.len()
        };
        assert_eq!(run(&model, WithBackground::Keep), 4);
        assert_eq!(run(&model, WithBackground::RemoveLargest), 3);
        assert_eq!(run(&model, WithBackground::RemoveSurrounding), 3);
        // A cell that covers most of the image but reaches no side.
        let model = ScriptedModel::new([61, 61], &[(30.0, 30.0, 29.5)]);
        assert_eq!(run(&model, WithBackground::RemoveLargest), 0, "upstream deletes it");
        assert_eq!(run(&model, WithBackground::RemoveSurrounding), 1);
    }

    #[test]
    fn failures_pass_through() {
        let mut model = model();
        model.decode_fails_after = Some(1);
        let amg = Amg { points_per_side: 12, ..Amg::default() };
        assert_eq!(amg.run(&model, &model.image(), &mut quiet).unwrap_err(), ScriptedError);
        model.encode_fails_after = Some(0);
        assert!(amg.run(&model, &model.image(), &mut quiet).is_err());
    }

    #[test]
    fn no_objects_no_labels() {
        let model = ScriptedModel::new(SIZE, &[]);
        let amg = Amg { points_per_side: 4, ..Amg::default() };
        assert_eq!(amg.run(&model, &model.image(), &mut quiet).unwrap().labels.max_id(), 0);
        let amg = Amg { points_per_side: 0, ..amg };
        assert_eq!(amg.run(&model, &model.image(), &mut quiet).unwrap().labels.max_id(), 0);
    }

    #[test]
    fn settings_for_models() {
        let amg = Amg::for_model("vit_l_lm");
        assert_eq!((amg.pred_iou_thresh, amg.stability_score_thresh, amg.min_object_size), (0.65, 0.73, 100));
        assert_eq!(Amg::for_model("vit_h"), Amg::default());
    }

    #[test]
    fn small_regions_are_cleaned_before_merging() {
        let ring = Mask::from_fn(Rect::whole([20, 20]), |y, x| {
            (4..16).contains(&y) && (4..16).contains(&x) && (y, x) != (9, 9)
        });
        let whole = Mask::from_fn(Rect::whole([20, 20]), |y, x| (4..16).contains(&y) && (4..16).contains(&x));
        let proposal = |mask: &Mask, predicted_iou| {
            let mask = mask.clone();
            Proposal { mask, predicted_iou, stability_score: 1.0, point: [5.0, 5.0], crop: 0 }
        };
        let crops = vec![Rect::whole([20, 20])];
        let proposals = Proposals { size: [20, 20], crops, masks: vec![proposal(&ring, 0.9), proposal(&whole, 0.95)] };
        let amg = Amg { min_mask_region_area: 5, box_nms_thresh: 1.0, crop_nms_thresh: 0.7, ..Amg::default() };
        let found = amg.merge(&proposals);
        assert_eq!((found.objects.len(), found.objects[0].area_px), (1, 144));
    }
}
