//! SAM's mask decoder: prompt tokens and image embedding to mask logits and predicted IoU. Reference:
//! `segment_anything/modeling/mask_decoder.py`.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use super::{config::MaskDecoderConfig, transformer::TwoWayTransformer};
use crate::layers::{ConvTranspose2d, Embedding, LAYER_NORM_EPS, LayerNorm2d, Mlp, gelu, layer_norm, linear};

/// Mask decoder. Field names are the checkpoint's keys under `mask_decoder.`.
#[derive(Module, Debug)]
pub struct MaskDecoder {
    /// Exchange between tokens and image.
    pub transformer: TwoWayTransformer,
    /// `[1, C]`
    pub iou_token: Embedding,
    /// The single mask, then the ones for ambiguous prompts, `[masks, C]`.
    pub mask_tokens: Embedding,
    /// Embedding to a grid four times finer.
    pub output_upscaling: Upscaling,
    /// For each mask, from its token to the weights of its dot product.
    pub output_hypernetworks_mlps: Vec<Mlp>,
    /// From the IoU token to one estimate for each mask.
    pub iou_prediction_head: Mlp,
}

/// What the decoder says about `B` prompts. Mask 0 is the one for unambiguous prompts, 1–3 are for single points.
#[derive(Clone, Debug)]
pub struct DecodedMasks {
    /// `[B, masks, 4 h, 4 w]`, above 0 is inside.
    pub logits: Tensor<4>,
    /// `[B, masks]`
    pub predicted_iou: Tensor<2>,
    /// The mask tokens after the transformer, `[B, masks, C]`.
    pub mask_tokens: Tensor<3>,
}

impl MaskDecoder {
    /// Placeholder values; see [`crate::loading`].
    pub fn new(config: &MaskDecoderConfig, device: &Device) -> Self {
        let (channels, masks) = (config.channels, config.multimask_outputs + 1);
        let mut iou_widths = vec![config.iou_head_channels; config.iou_head_depth + 1];
        iou_widths[0] = channels;
        iou_widths[config.iou_head_depth] = masks;
        Self {
            transformer: TwoWayTransformer::new(config, device),
            iou_token: Embedding::new(1, channels, device),
            mask_tokens: Embedding::new(masks, channels, device),
            output_upscaling: Upscaling::new(channels, device),
            output_hypernetworks_mlps: (0..masks)
                .map(|_| Mlp::new(&[channels, channels, channels, channels / 8], device))
                .collect(),
            iou_prediction_head: Mlp::new(&iou_widths, device),
        }
    }

    /// # Shapes
    /// embedding and its positions `[1, C, h, w]`, sparse `[B, T, C]`, dense `[1 or B, C, 1 or h, 1 or w]` → see [`DecodedMasks`]
    pub fn forward(
        &self,
        embedding: Tensor<4>,
        positions: Tensor<4>,
        sparse: Tensor<3>,
        dense: Tensor<4>,
    ) -> DecodedMasks {
        let [_, channels, h, w] = embedding.dims();
        let [batch, prompts, _] = sparse.dims();
        let masks = self.output_hypernetworks_mlps.len();
        let own = Tensor::cat(vec![self.iou_token.weight.val(), self.mask_tokens.weight.val()], 0);
        let own = own.unsqueeze::<3>().expand([batch, 1 + masks, channels]);
        let tokens = if prompts == 0 { own } else { Tensor::cat(vec![own, sparse], 1) };

        let rows = |map: Tensor<4>| -> Tensor<3> {
            let own = map.dims()[0];
            map.permute([0, 2, 3, 1]).reshape([own, h * w, channels])
        };
        let (tokens, image) = self.transformer.forward(tokens, rows(embedding + dense), rows(positions));

        let iou_token = tokens.clone().slice_dim(1, 0..1).squeeze_dim::<2>(1);
        let mask_tokens = tokens.slice_dim(1, 1..1 + masks);
        let weights = self.output_hypernetworks_mlps.iter().enumerate().map(|(mask, mlp)| {
            mlp.forward(mask_tokens.clone().slice_dim(1, mask..mask + 1)) // [B, 1, C / 8]
        });
        DecodedMasks {
            logits: self.output_upscaling.forward(image, [h, w], Tensor::cat(weights.collect(), 1)),
            predicted_iou: self.iou_prediction_head.forward(iou_token),
            mask_tokens,
        }
    }
}

/// Two transposed convolutions of kernel and stride 2, and the dot product with each mask's weights. Indices are those of the
/// reference's sequence.
#[derive(Module, Debug)]
pub struct Upscaling {
    /// To `C / 4`.
    pub _0: ConvTranspose2d,
    /// Norm, then GELU.
    pub _1: LayerNorm2d,
    /// To `C / 8`, then GELU.
    pub _3: ConvTranspose2d,
}

impl Upscaling {
    fn new(channels: usize, device: &Device) -> Self {
        Self {
            _0: ConvTranspose2d::new(channels, channels / 4, 2, 2, device),
            _1: LayerNorm2d::new(channels / 4, device),
            _3: ConvTranspose2d::new(channels / 4, channels / 8, 2, 2, device),
        }
    }

    /// With kernel and stride equal, an output pixel has one input pixel: the convolutions are linear maps of rows, and only the
    /// masks, not the features, are brought into image order.
    ///
    /// # Shapes
    /// image `[B, h · w, C]`, mask weights `[B, masks, C / 8]` → `[B, masks, 4 h, 4 w]`
    fn forward(&self, image: Tensor<3>, [h, w]: [usize; 2], weights: Tensor<3>) -> Tensor<4> {
        let [batch, tokens, _] = image.dims();
        let [_, masks, _] = weights.dims();
        let x = split_pixels(image, &self._0); // [B, h · w · 4, C / 4]
        let x = gelu(layer_norm(x, self._1.weight.val(), self._1.bias.val(), LAYER_NORM_EPS));
        let x = gelu(split_pixels(x, &self._3)); // [B, h · w · 16, C / 8]
        x.matmul(weights.swap_dims(1, 2)) // [B, h · w · 16, masks]
            .reshape([batch, tokens / w, w, 2, 2, 2, 2, masks]) // y, x, dy, dx, ddy, ddx
            .permute([0, 7, 1, 3, 5, 2, 4, 6])
            .reshape([batch, masks, 4 * h, 4 * w])
    }
}

/// A transposed convolution of kernel and stride 2 on pixels as rows; the four new pixels follow each other, row by row.
///
/// # Shapes
/// `[B, N, C_in]` → `[B, N · 4, C_out]`
fn split_pixels(x: Tensor<3>, layer: &ConvTranspose2d) -> Tensor<3> {
    let [batch, pixels, _] = x.dims();
    let weight = layer.weight.val();
    let [c_in, c_out, _, _] = weight.dims();
    let weight = weight.permute([2, 3, 1, 0]).reshape([4 * c_out, c_in]);
    let bias = layer.bias.as_ref().map(|bias| bias.val().repeat_dim(0, 4));
    linear(x, weight, bias).reshape([batch, pixels * 4, c_out])
}
