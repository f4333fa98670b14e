//! The network as the loop sees it: features of a batch of crops, and masks at crop size for prompts on one of them.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use cytomask_models::cytomask_t::{CytomaskT, InstanceFeatures};
use cytomask_models::layers::resize_bilinear;
use cytomask_segment::Prompt;

use crate::{Error, ErrorKind};

/// Coordinates are divided by this, and crops lie somewhere in a square of this side.
const FRAME_SIDE: usize = 1024;

/// Pixels from one token of the embedding to the next.
const STRIDE: usize = 16;

/// Features of a batch of crops.
pub(crate) struct Features {
    /// `[N, 256, H / 16, W / 16]`
    embedding: Tensor<4>,
    /// `[N, C, H / 2, W / 2]`
    refiner: Tensor<4>,
    /// `[N, 3, H, W]`, 0–1.
    pub(crate) maps: Tensor<4>,
}

/// Encodes a batch.
///
/// # Shapes
/// `images` `[N, 3, H, W]`, normalised
pub(crate) fn features(network: &CytomaskT, images: Tensor<4>) -> Result<Features, Error> {
    let taps = network.image_encoder.forward_with_taps(images.clone()).map_err(failed)?;
    let InstanceFeatures { map_logits, f4, f2 } = network.instance_decoder.forward(&taps, images);
    let refiner = network.mask_refiner.features(f4, f2);
    Ok(Features { embedding: taps.embedding, refiner, maps: sigmoid(map_logits) })
}

/// Decodes prompts of one form (as many points each, all or none with a box) on crop `index` of the batch.
///
/// `offset_tokens` `[y, x]` moves crop and prompts within the frame of positions, so that a network trained on small crops knows
/// all of it.
///
/// # Shapes
/// → logits `[prompts, outputs, H, W]` and predicted IoU `[prompts, outputs]`; 3 outputs with `multimask`, else 1
pub(crate) fn decode(
    network: &CytomaskT,
    features: &Features,
    index: usize,
    prompts: &[Prompt],
    multimask: bool,
    offset_tokens: [usize; 2],
) -> Result<(Tensor<4>, Tensor<2>), Error> {
    let extent = [FRAME_SIDE as f32; 2];
    let embedding = features.embedding.clone().narrow(0, index, 1);
    let [_, _, h, w] = embedding.dims();
    let [dy, dx] = offset_tokens;
    let moved: Vec<Prompt> =
        prompts.iter().map(|prompt| moved(prompt, (dy * STRIDE) as f32, (dx * STRIDE) as f32)).collect();
    let sparse = network.prompt_encoder.sparse(&moved, extent).map_err(failed)?;
    let frame = FRAME_SIDE / STRIDE;
    let positions =
        network.prompt_encoder.dense_positions([frame; 2], STRIDE, extent).narrow(2, dy, h).narrow(3, dx, w);
    let decoded = network.mask_decoder.forward(embedding, positions, sparse, network.prompt_encoder.no_mask());
    let all = decoded.predicted_iou.dims()[1];
    let (first, count) = if multimask { (1, all - 1) } else { (0, 1) };
    let logits = network.mask_refiner.refine(
        features.refiner.clone().narrow(0, index, 1),
        decoded.logits.narrow(1, first, count),
        decoded.mask_tokens.narrow(1, first, count),
    );
    let [_, _, height, width] = features.maps.dims();
    Ok((resize_bilinear(logits, [height, width]), decoded.predicted_iou.narrow(1, first, count)))
}

/// The largest offset, in tokens, that keeps a crop of `side` pixels inside the frame.
pub(crate) fn largest_offset(side: u32) -> usize {
    (FRAME_SIDE / STRIDE).saturating_sub(side as usize / STRIDE)
}

fn moved(prompt: &Prompt, dy: f32, dx: f32) -> Prompt {
    let mut moved = prompt.clone();
    for point in &mut moved.points {
        point.y += dy;
        point.x += dx;
    }
    if let Some(bounds) = &mut moved.bounds {
        bounds.y0 += dy;
        bounds.y1 += dy;
        bounds.x0 += dx;
        bounds.x1 += dx;
    }
    moved
}

fn failed(error: cytomask_models::Error) -> Error {
    Error::new(ErrorKind::Model, "a training step failed").with_source(error)
}
