//! SAM's mask decoder: prompt tokens and image embedding to mask logits and predicted IoU. Reference:
//! `segment_anything/modeling/mask_decoder.py`.

use std::ops::Range;

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};

#[cfg(feature = "flex")]
use super::blocked::BlockedImage;
use super::{config::MaskDecoderConfig, transformer::TwoWayTransformer};
use crate::layers::{
    ConvTranspose2d, Embedding, LAYER_NORM_EPS, LayerNorm2d, Mlp, gelu, layer_norm, linear, recomputed, recomputes,
};

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

    /// Computes what is the same for all prompts of one or more images.
    ///
    /// # Shapes
    /// embedding `[N, C, h, w]`, its positions `[1 or N, C, h, w]`, dense `[1 or N, C, 1 or h, 1 or w]`
    pub fn prepare(&self, embedding: Tensor<4>, positions: Tensor<4>, dense: Tensor<4>) -> PreparedImage {
        let size = [embedding.dims()[2], embedding.dims()[3]];
        #[cfg(feature = "flex")]
        if crate::cpu::takes(&embedding, &self.iou_token.weight.val()) {
            let [image, positions] = [rows(embedding + dense), rows(positions)];
            return PreparedImage { size, held: Held::Blocked(BlockedImage::new(self, image, positions)) };
        }
        PreparedImage { size, held: Held::Plain([embedding + dense, positions]) }
    }

    /// Decodes prompts and gives the masks asked for; `image_of` is the image of each prompt.
    ///
    /// # Shapes
    /// sparse `[B, T, C]` → see [`DecodedMasks`], with `masks` of the masks
    pub fn decode(
        &self,
        image: &PreparedImage,
        image_of: &[usize],
        sparse: Tensor<3>,
        masks: Range<usize>,
    ) -> DecodedMasks {
        match &image.held {
            #[cfg(feature = "flex")]
            Held::Blocked(blocked) => {
                let (tokens, maps) = blocked.exchange(&self.transformer, self.tokens(sparse), image_of);
                self.answer(tokens, masks, |weights| blocked.masks(&maps, image.size, weights))
            }
            Held::Plain([keys, positions]) => {
                let of_prompts = |maps: &Tensor<4>| {
                    if maps.dims()[0] == 1 {
                        return maps.clone();
                    }
                    let indices: Vec<i32> = image_of.iter().map(|&index| index as i32).collect();
                    let indices = TensorData::new(indices, [image_of.len()]);
                    maps.clone().select(0, Tensor::<1, Int>::from_data(indices, &maps.device()))
                };
                self.plain(of_prompts(keys), of_prompts(positions), sparse, masks)
            }
        }
    }

    /// All of it for one image, on the framework's own operations: for training.
    ///
    /// # Shapes
    /// embedding and its positions `[1, C, h, w]`, sparse `[B, T, C]`, dense `[1 or B, C, 1 or h, 1 or w]` → see [`DecodedMasks`]
    pub fn forward(
        &self,
        embedding: Tensor<4>,
        positions: Tensor<4>,
        sparse: Tensor<3>,
        dense: Tensor<4>,
    ) -> DecodedMasks {
        let inputs = [embedding, positions, sparse.unsqueeze_dim(0), dense];
        if !recomputes(&inputs) {
            let [embedding, positions, sparse, dense] = inputs;
            return self.all(embedding + dense, positions, sparse.squeeze_dim(0));
        }
        let ([_, prompts, ..], masks) = (inputs[2].dims(), self.output_hypernetworks_mlps.len());
        let [_, _, h, w] = inputs[0].dims();
        // A part has one result: what belongs to a prompt, in one row.
        let rows = recomputed(self, inputs, move |decoder, [embedding, positions, sparse, dense]| {
            let found = decoder.all(embedding + dense, positions, sparse.squeeze_dim(0));
            let (logits, tokens) = (found.logits.flatten::<2>(1, 3), found.mask_tokens.flatten::<2>(1, 2));
            Tensor::cat(vec![logits, tokens, found.predicted_iou], 1).unsqueeze::<4>()
        });
        let [_, _, _, length] = rows.dims();
        let rows = rows.reshape([prompts, length]);
        let (pixels, iou) = (16 * h * w * masks, length - masks);
        DecodedMasks {
            logits: rows.clone().slice_dim(1, 0..pixels).reshape([prompts, masks, 4 * h, 4 * w]),
            mask_tokens: rows.clone().slice_dim(1, pixels..iou).reshape([prompts, masks, (iou - pixels) / masks]),
            predicted_iou: rows.slice_dim(1, iou..length),
        }
    }

    fn all(&self, keys: Tensor<4>, positions: Tensor<4>, sparse: Tensor<3>) -> DecodedMasks {
        self.plain(keys, positions, sparse, 0..self.output_hypernetworks_mlps.len())
    }

    fn plain(&self, keys: Tensor<4>, positions: Tensor<4>, sparse: Tensor<3>, masks: Range<usize>) -> DecodedMasks {
        let [_, _, h, w] = keys.dims();
        let (tokens, image) = self.transformer.forward(self.tokens(sparse), rows(keys), rows(positions));
        self.answer(tokens, masks, |weights| self.output_upscaling.forward(image, [h, w], weights))
    }

    /// The decoder's own tokens, then those of the prompts. `[B, T, C]` → `[B, 1 + masks + T, C]`
    fn tokens(&self, sparse: Tensor<3>) -> Tensor<3> {
        let [batch, prompts, channels] = sparse.dims();
        let own = Tensor::cat(vec![self.iou_token.weight.val(), self.mask_tokens.weight.val()], 0);
        let own = own.unsqueeze::<3>();
        let count = own.dims()[1];
        let own = own.expand([batch, count, channels]);
        if prompts == 0 { own } else { Tensor::cat(vec![own, sparse], 1) }
    }

    /// From the tokens after the transformer; `upscale` makes logits of mask weights `[B, masks, C / 8]`.
    fn answer(
        &self,
        tokens: Tensor<3>,
        masks: Range<usize>,
        upscale: impl FnOnce(Tensor<3>) -> Tensor<4>,
    ) -> DecodedMasks {
        let iou_token = tokens.clone().slice_dim(1, 0..1).squeeze_dim::<2>(1);
        let mask_tokens = tokens.slice_dim(1, 1 + masks.start..1 + masks.end);
        let weights = self.output_hypernetworks_mlps[masks.clone()].iter().enumerate().map(|(mask, mlp)| {
            mlp.forward(mask_tokens.clone().slice_dim(1, mask..mask + 1)) // [B, 1, C / 8]
        });
        DecodedMasks {
            logits: upscale(Tensor::cat(weights.collect(), 1)),
            predicted_iou: self.iou_prediction_head.forward(iou_token).slice_dim(1, masks),
            mask_tokens,
        }
    }
}

/// Pixels as rows: `[N, C, h, w]` → `[N, h · w, C]`.
fn rows(maps: Tensor<4>) -> Tensor<3> {
    let [n, channels, h, w] = maps.dims();
    maps.permute([0, 2, 3, 1]).reshape([n, h * w, channels])
}

/// What [`MaskDecoder::prepare`] computed for one or more images of one size.
#[derive(Clone, Debug)]
pub struct PreparedImage {
    /// `[h, w]` of the embedding.
    size: [usize; 2],
    held: Held,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one value an image")]
enum Held {
    /// For the loops of `cytomask-kernels`.
    #[cfg(feature = "flex")]
    Blocked(BlockedImage),
    /// Image with its dense prompt, and positions, `[N, C, h, w]`.
    Plain([Tensor<4>; 2]),
}

impl PreparedImage {
    /// How many images.
    pub fn images(&self) -> usize {
        match &self.held {
            #[cfg(feature = "flex")]
            Held::Blocked(blocked) => blocked.images(),
            Held::Plain([keys, _]) => keys.dims()[0],
        }
    }

    /// Windows of the first image as images of their own: rows and columns `[y, x]` they begin at, all of `size`. All it holds of a
    /// pixel depends on that pixel alone.
    #[must_use]
    pub fn windows(&self, starts: &[[usize; 2]], size: [usize; 2]) -> Self {
        if size == self.size && starts == [[0, 0]] {
            return self.clone();
        }
        let [h, w] = size;
        let held = match &self.held {
            #[cfg(feature = "flex")]
            Held::Blocked(blocked) => Held::Blocked(blocked.windows(self.size[1], starts, size)),
            Held::Plain(parts) => Held::Plain(parts.clone().map(|maps| {
                let window = |&[y, x]: &[usize; 2]| maps.clone().narrow(2, y, h).narrow(3, x, w);
                Tensor::cat(starts.iter().map(window).collect(), 0)
            })),
        };
        Self { size, held }
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
    let weight = parts_of_pixel(layer);
    let c_out = weight.dims()[0] / 4;
    let bias = layer.bias.as_ref().map(|bias| bias.val().repeat_dim(0, 4));
    linear(x, weight, bias).reshape([batch, pixels * 4, c_out])
}

/// The weight of a transposed convolution of kernel and stride 2 as rows of a linear map, one new pixel after the other.
///
/// # Shapes
/// → `[4 · C_out, C_in]`
pub(super) fn parts_of_pixel(layer: &ConvTranspose2d) -> Tensor<2> {
    let weight = layer.weight.val();
    let [c_in, c_out, _, _] = weight.dims();
    weight.permute([2, 3, 1, 0]).reshape([4 * c_out, c_in])
}
