//! The losses of one batch: what is prompted for, round by round, and the maps.

use burn::tensor::{Device, Tensor, TensorData};
use cytomask_image::{Rect, Rgb};
use cytomask_models::cytomask_t::BOX_STRIDE;
use cytomask_segment::{PointPrompt, Prompt};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::data::{Crop, MIN_OBJECT_PX};
use crate::network::{Decoded, Query, Trainable};
use crate::prompts::{FirstPrompt, choose_objects, corrections, first};
use crate::settings::{Part, Schedule, TrainSettings};
use crate::targets::{BoxTargets, DistanceTargets, box_targets, distance_targets};
use crate::{Error, losses};

/// What the loss of boxes counts beside that of the maps; as the built-in model was trained.
const BOX_WEIGHT: f32 = 0.8;

/// Which losses are wanted of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Of the maps.
    pub(crate) maps: bool,
    /// Of prompted masks.
    pub(crate) masks: bool,
}

/// Losses of a batch.
#[derive(Default)]
pub(crate) struct Losses {
    /// Of the maps, with the boxes where a network proposes some, or of the flows.
    pub(crate) maps: Option<Tensor<1>>,
    /// Of prompted masks; none when no crop holds an object.
    pub(crate) masks: Option<Tensor<1>>,
}

impl Losses {
    /// Their sum.
    pub(crate) fn sum(&self) -> Option<Tensor<1>> {
        match (self.maps.clone(), self.masks.clone()) {
            (Some(maps), Some(masks)) => Some(maps + masks),
            (maps, masks) => maps.or(masks),
        }
    }
}

/// The joint objective on a batch of crops.
pub(crate) fn losses<N: Trainable>(
    network: &N,
    crops: &[Crop],
    wanted: Wanted,
    settings: &TrainSettings,
    step: u64,
    rng: &mut ChaCha8Rng,
    device: &Device,
) -> Result<Losses, Error> {
    let images: Vec<&Rgb> = crops.iter().map(|crop| &crop.image).collect();
    let encoder_is_fixed = settings.freeze.contains(&Part::ImageEncoder);
    let features = network.features(&images, encoder_is_fixed, device)?;
    let maps = match wanted.maps {
        true => {
            let loss = losses::distance_map_loss(network.maps(&features)?, targets_of(crops, device));
            Some(match network.boxes(&features) {
                Some(raw) => loss + box_loss_of(raw, crops, device) * BOX_WEIGHT,
                None => loss,
            })
        }
        false => None,
    };
    let masks = match wanted.masks {
        true => mask_loss(network, crops, &features, settings, step, rng, device)?,
        false => None,
    };
    Ok(Losses { maps, masks })
}

/// Loss of prompted masks, averaged over the rounds of the crops that hold objects; none when no crop does.
fn mask_loss<N: Trainable>(
    network: &N,
    crops: &[Crop],
    features: &N::Features,
    settings: &TrainSettings,
    step: u64,
    rng: &mut ChaCha8Rng,
    device: &Device,
) -> Result<Option<Tensor<1>>, Error> {
    let kind = match settings.schedule {
        Schedule::Summed => FirstPrompt::of_iteration(step),
        Schedule::MicroSam => FirstPrompt::of_micro_sam(step),
    };
    let mut all = Vec::new();
    for (image, crop) in crops.iter().enumerate() {
        let ids = choose_objects(&crop.labels, settings.objects_per_crop, MIN_OBJECT_PX, rng);
        if ids.is_empty() {
            continue;
        }
        let extents = crop.labels.extents();
        let rect = |id: u32| -> Rect { extents[id as usize - 1].1 };
        let mut prompts: Vec<Prompt> = ids.iter().map(|&id| first(&crop.labels, id, rect(id), kind, rng)).collect();
        let truth = truth_of(crop, &ids, device);
        let largest = network.largest_offset(settings.crop_side);
        let offset = [rng.random_range(0..=largest), rng.random_range(0..=largest)];
        let mut masks = None;
        for round in 0..settings.sub_iterations {
            let query = Query { prompts: &prompts, masks, multimask: round == 0 && kind.multimask(), offset };
            let decoded = network.decode(features, image, &query)?;
            all.push(round_loss(&decoded, truth.clone()));
            masks = None;
            if round + 1 < settings.sub_iterations {
                let best = best_outputs(&decoded.predicted_iou);
                let clicks: Vec<Vec<PointPrompt>> = masks_of(&decoded.logits, &best)
                    .iter()
                    .zip(&ids)
                    .map(|(predicted, &id)| corrections(&crop.labels, id, rect(id), predicted, rng))
                    .collect();
                // An object that fills the crop has no place for a negative click; a batch needs prompts of one form.
                if clicks.iter().any(|clicks| clicks.len() != 2) {
                    break;
                }
                for (prompt, clicks) in prompts.iter_mut().zip(clicks) {
                    prompt.points.extend(clicks);
                }
                if settings.mask_probability > 0.0 && rng.random_bool(settings.mask_probability) {
                    masks = Some(chosen(decoded.coarse, &best));
                }
            }
        }
    }
    let count = all.len() as f32;
    Ok((!all.is_empty()).then(|| Tensor::cat(all, 0).sum() / count))
}

/// Loss of one round of prompts.
pub(crate) fn round_loss(decoded: &Decoded, truth: Tensor<3>) -> Tensor<1> {
    losses::prompted_mask_loss(decoded.logits.clone(), decoded.predicted_iou.clone(), truth)
}

/// For each object the output with the highest predicted IoU, the first of equal ones.
pub(crate) fn best_outputs(predicted_iou: &Tensor<2>) -> Vec<usize> {
    let [_, outputs] = predicted_iou.dims();
    let scores: Vec<f32> = predicted_iou.clone().into_data().iter::<f32>().collect();
    let best = |row: &[f32]| (1..outputs).fold(0, |best, next| if row[next] > row[best] { next } else { best });
    scores.chunks_exact(outputs).map(best).collect()
}

/// The chosen output of each object without a graph, `[objects, outputs, h, w]` → `[objects, 1, h, w]`.
pub(crate) fn chosen(maps: Tensor<4>, outputs: &[usize]) -> Tensor<4> {
    let maps = maps.detach();
    let of_object = |(object, &output): (usize, &usize)| maps.clone().narrow(0, object, 1).narrow(1, output, 1);
    Tensor::cat(outputs.iter().enumerate().map(of_object).collect(), 0)
}

/// The chosen mask of each object.
fn masks_of(logits: &Tensor<4>, outputs: &[usize]) -> Vec<Vec<bool>> {
    let [_, _, h, w] = logits.dims();
    let values: Vec<f32> = chosen(logits.clone(), outputs).into_data().iter::<f32>().collect();
    values.chunks_exact(h * w).map(|mask| mask.iter().map(|&logit| logit > 0.0).collect()).collect()
}

/// `[N, 3, side, side]`: foreground, centre distance, boundary distance.
pub(crate) fn targets_of(crops: &[Crop], device: &Device) -> Tensor<4> {
    let [h, w] = crops[0].labels.size().map(|side| side as usize);
    let values: Vec<f32> = crops
        .iter()
        .flat_map(|crop| {
            let join =
                |of: &DistanceTargets| [of.foreground.as_slice(), &of.center_distance, &of.boundary_distance].concat();
            match &crop.targets {
                Some(targets) => join(targets),
                None => join(&distance_targets(&crop.labels, MIN_OBJECT_PX)),
            }
        })
        .collect();
    Tensor::from_data(TensorData::new(values, [crops.len(), 3, h, w]), device)
}

/// Loss of the boxes that a network proposes on a batch.
fn box_loss_of(raw: Tensor<4>, crops: &[Crop], device: &Device) -> Tensor<1> {
    let [n, _, h, w] = raw.dims();
    let targets: Vec<BoxTargets> = crops.iter().map(|crop| box_targets(&crop.labels, BOX_STRIDE as u32)).collect();
    let tensor =
        |channels: usize, values: Vec<f32>| Tensor::from_data(TensorData::new(values, [n, channels, h, w]), device);
    let edges = tensor(4, targets.iter().flat_map(|targets| targets.edges.clone()).collect());
    let weights = tensor(1, targets.into_iter().flat_map(|targets| targets.weights).collect());
    losses::box_loss(raw, edges, weights)
}

/// One binary mask for each object, `[objects, side, side]`.
pub(crate) fn truth_of(crop: &Crop, ids: &[u32], device: &Device) -> Tensor<3> {
    let [h, w] = crop.labels.size().map(|side| side as usize);
    let pixels = crop.labels.as_slice();
    let values: Vec<f32> =
        ids.iter().flat_map(|id| pixels.iter().map(move |pixel| f32::from(u8::from(pixel == id)))).collect();
    Tensor::from_data(TensorData::new(values, [ids.len(), h, w]), device)
}
