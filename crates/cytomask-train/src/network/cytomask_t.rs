//! cytomask-t: crops are seen at their own scale, and lie somewhere in a frame of 1024 pixels.

use burn::module::Module;
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor, TensorData};
use cytomask_image::Rgb;
use cytomask_models::cytomask_t::{BoxTaps, CytomaskT, InstanceFeatures, PIXEL_MEAN, PIXEL_STD};
use cytomask_models::layers::resize_bilinear;
use cytomask_models::tiny_vit::TinyVitTaps;
use cytomask_segment::Prompt;

use super::{Decoded, Query, Trainable, failed};
use crate::Error;

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
    maps: Tensor<4>,
    box_taps: BoxTaps,
}

impl Trainable for CytomaskT {
    type Features = Features;

    fn features(&self, crops: &[&Rgb], encoder_is_fixed: bool, device: &Device) -> Result<Features, Error> {
        let images = normalized(crops, device);
        let taps = if encoder_is_fixed {
            let plain = self.image_encoder.valid().forward_with_taps(images.clone().without_autodiff());
            constant(plain.map_err(failed)?, &images)
        } else {
            self.image_encoder.forward_with_taps(images.clone()).map_err(failed)?
        };
        let InstanceFeatures { map_logits, f4, f2 } = self.instance_decoder.forward(&taps, images);
        let box_taps = BoxTaps::new(&taps, &f4);
        let refiner = self.mask_refiner.features(f4, f2);
        Ok(Features { embedding: taps.embedding, refiner, maps: sigmoid(map_logits), box_taps })
    }

    fn maps(&self, features: &Features) -> Result<Tensor<4>, Error> {
        Ok(features.maps.clone())
    }

    fn boxes(&self, features: &Features) -> Option<Tensor<4>> {
        self.box_decoder.as_ref().map(|decoder| decoder.forward(&features.box_taps))
    }

    fn decode(&self, features: &Features, image: usize, query: &Query<'_>) -> Result<Decoded, Error> {
        let extent = [FRAME_SIDE as f32; 2];
        let embedding = features.embedding.clone().narrow(0, image, 1);
        let [_, _, h, w] = embedding.dims();
        let [dy, dx] = query.offset;
        let moved: Vec<Prompt> =
            query.prompts.iter().map(|prompt| moved(prompt, (dy * STRIDE) as f32, (dx * STRIDE) as f32)).collect();
        let sparse = self.prompt_encoder.sparse(&moved, extent).map_err(failed)?;
        let positions = self.prompt_encoder.dense_positions_from([dy, dx], [h, w], STRIDE, extent);
        let dense = match &query.masks {
            Some(masks) => self.prompt_encoder.masks(masks.clone()),
            None => self.prompt_encoder.no_mask(),
        };
        let decoded = self.mask_decoder.forward(embedding, positions, sparse, dense);
        let all = decoded.predicted_iou.dims()[1];
        let (first, count) = if query.multimask { (1, all - 1) } else { (0, 1) };
        let refined = self.mask_refiner.refine(
            features.refiner.clone().narrow(0, image, 1),
            decoded.logits.narrow(1, first, count),
            decoded.mask_tokens.narrow(1, first, count),
        );
        let [_, _, height, width] = features.maps.dims();
        Ok(Decoded {
            coarse: halved(refined.clone()),
            logits: resize_bilinear(refined, [height, width]),
            predicted_iou: decoded.predicted_iou.narrow(1, first, count),
        })
    }

    fn largest_offset(&self, side: u32) -> usize {
        (FRAME_SIDE / STRIDE).saturating_sub(side as usize / STRIDE)
    }
}

/// `[N, 3, side, side]`
pub(super) fn normalized(crops: &[&Rgb], device: &Device) -> Tensor<4> {
    let size = crops[0].size;
    let values: Vec<f32> = crops.iter().flat_map(|crop| crop.normalize_and_pad(size, PIXEL_MEAN, PIXEL_STD)).collect();
    let [h, w] = size.map(|side| side as usize);
    Tensor::from_data(TensorData::new(values, [crops.len(), 3, h, w]), device)
}

/// Features made without a graph, beside tensors that have one.
pub(super) fn lifted(x: Tensor<4>, like: &Tensor<4>) -> Tensor<4> {
    let x = x.autodiff();
    match like.gradient_checkpointing_strategy() {
        Some(strategy) => x.with_gradient_checkpointing_strategy(strategy),
        None => x,
    }
}

fn constant(taps: TinyVitTaps, like: &Tensor<4>) -> TinyVitTaps {
    let lifted = |x| lifted(x, like);
    TinyVitTaps { t2: lifted(taps.t2), t4: lifted(taps.t4), t8: lifted(taps.t8), embedding: lifted(taps.embedding) }
}

/// Means of 2 × 2: mask prompts lie at half the resolution of refined masks.
fn halved(x: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    x.reshape([n * c, h / 2, 2, w / 2, 2]).mean_dim(4).mean_dim(2).reshape([n, c, h / 2, w / 2])
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
