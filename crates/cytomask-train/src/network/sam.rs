//! SAM (ViT-T, B, L, H) with µSAM's instance decoder: crops are enlarged to the side the network sees whole images at.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use cytomask_image::Rgb;
use cytomask_models::layers::resize_bilinear;
use cytomask_models::sam::Sam;
use cytomask_models::unetr::{UNETR_MICRO_SAM, Unetr};
use cytomask_segment::Prompt;

use super::cytomask_t::{lifted, normalized};
use super::{Decoded, Query, Trainable, failed};
use crate::parameters::FirstValues;
use crate::{Error, ErrorKind};

/// The two networks that share an image encoder.
#[derive(Module, Debug)]
pub(crate) struct SamUnetr {
    /// Image encoder, prompt encoder, mask decoder.
    pub(crate) sam: Sam,
    /// The three maps.
    pub(crate) decoder: Option<Unetr>,
    #[module(skip)]
    pub(crate) input_side: u32,
}

/// Features of a batch of crops.
pub(crate) struct Features {
    /// `[N, 256, h, w]`
    embedding: Tensor<4>,
    /// Of the crops.
    size: [u32; 2],
}

impl SamUnetr {
    /// A decoder that is missing and needed begins with PyTorch's first values.
    pub(crate) fn new(
        sam: Sam,
        decoder: Option<Unetr>,
        maps: bool,
        input_side: u32,
        seed: u64,
        device: &Device,
    ) -> Self {
        let fresh = || Unetr::new(&UNETR_MICRO_SAM, device).map(&mut FirstValues::new(seed));
        let decoder = decoder.or_else(|| maps.then(fresh));
        Self { sam, decoder, input_side }
    }
}

impl Trainable for SamUnetr {
    type Features = Features;

    fn features(&self, crops: &[&Rgb], encoder_is_fixed: bool, device: &Device) -> Result<Features, Error> {
        let size = crops[0].size;
        let enlarged: Vec<Rgb> = crops.iter().map(|crop| crop.resize([self.input_side; 2])).collect();
        let images = normalized(&enlarged.iter().collect::<Vec<_>>(), device);
        let embedding = if encoder_is_fixed {
            let plain = self.sam.image_encoder.valid().forward(images.clone().without_autodiff());
            lifted(plain.map_err(failed)?, &images)
        } else {
            self.sam.image_encoder.forward(images).map_err(failed)?
        };
        Ok(Features { embedding, size })
    }

    fn maps(&self, features: &Features) -> Result<Tensor<4>, Error> {
        let Some(decoder) = &self.decoder else {
            return Err(Error::new(ErrorKind::Unsupported, "this network has no instance decoder"));
        };
        let maps = decoder.forward(features.embedding.clone()).map_err(failed)?;
        // After the sigmoid, as torch-em does.
        Ok(resize_bilinear(maps, features.size.map(|side| side as usize)))
    }

    fn decode(&self, features: &Features, image: usize, query: &Query<'_>) -> Result<Decoded, Error> {
        let extent = [self.input_side as f32; 2];
        let embedding = features.embedding.clone().narrow(0, image, 1);
        let [_, _, h, w] = embedding.dims();
        let [scale_y, scale_x] = features.size.map(|side| self.input_side as f32 / side as f32);
        let prompts: Vec<Prompt> = query.prompts.iter().map(|prompt| scaled(prompt, scale_y, scale_x)).collect();
        let encoder = &self.sam.prompt_encoder;
        let sparse = encoder.sparse(&prompts, extent).map_err(failed)?;
        let positions = encoder.dense_positions([h, w], self.input_side as usize / h, extent);
        let dense = query.masks.as_ref().map_or_else(|| encoder.no_mask(), |masks| encoder.masks(masks.clone()));
        let decoded = self.sam.mask_decoder.forward(embedding, positions, sparse, dense);
        let all = decoded.predicted_iou.dims()[1];
        let (first, count) = if query.multimask { (1, all - 1) } else { (0, 1) };
        let coarse = decoded.logits.narrow(1, first, count);
        // To the network's frame, then to the crop, as `Sam.postprocess_masks` does.
        let whole = resize_bilinear(coarse.clone(), [self.input_side as usize; 2]);
        let logits = resize_bilinear(whole, features.size.map(|side| side as usize));
        Ok(Decoded { logits, coarse, predicted_iou: decoded.predicted_iou.narrow(1, first, count) })
    }

    fn largest_offset(&self, _side: u32) -> usize {
        // A crop fills the frame.
        0
    }
}

/// By plain multiplication, as SAM's `apply_coords` does.
fn scaled(prompt: &Prompt, y: f32, x: f32) -> Prompt {
    let mut scaled = prompt.clone();
    for point in &mut scaled.points {
        point.y *= y;
        point.x *= x;
    }
    if let Some(bounds) = &mut scaled.bounds {
        bounds.y0 *= y;
        bounds.y1 *= y;
        bounds.x0 *= x;
        bounds.x1 *= x;
    }
    scaled
}
