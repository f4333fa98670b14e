//! The mask decoder's image side on the CPU: what all prompts of an image share is computed once, and every prompt's pass over the
//! image runs in the loops of `cytomask-kernels`.
//!
//! Shared by the prompts: the image with its dense prompt, the positions, and the three projections of them that layer 0 needs.
//! From layer 1 on the image differs from prompt to prompt, and its projections are moved to the tokens' side, which has 7 rows
//! in place of 4096 (docs/decisions/0027-sharing-between-prompts.md). Results differ from the other path by rounding only.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use cytomask_kernels::{BlockedMaps, Exchange, MaskUpscaling, Queries, gather};

use super::{
    mask_decoder::{MaskDecoder, parts_of_pixel},
    transformer::{DownscaledAttention, TwoWayTransformer},
};
use crate::{
    layers::{LAYER_NORM_EPS, LayerNorm, TORCH_NORM_EPS, linear},
    loading::values,
};

/// Some images of one size.
#[derive(Clone, Debug)]
pub(super) struct BlockedImage {
    maps: Arc<Maps>,
    upscaling: Arc<Upscaling>,
}

/// What is the same for all prompts, `[N, …, h · w]`.
#[derive(Debug)]
struct Maps {
    image: BlockedMaps,
    positions: BlockedMaps,
    /// Keys and values of layer 0's tokens-to-image attention.
    keys: BlockedMaps,
    values: BlockedMaps,
    /// Queries of layer 0's image-to-tokens attention.
    queries: BlockedMaps,
}

/// The weights of the decoder's upscaling.
#[derive(Debug)]
struct Upscaling {
    first: [Vec<f32>; 2],
    norm: [Vec<f32>; 2],
    second: [Vec<f32>; 2],
}

impl BlockedImage {
    /// # Shapes
    /// image `[N, L, C]`, positions `[1 or N, L, C]`
    pub(super) fn new(decoder: &MaskDecoder, image: Tensor<3>, positions: Tensor<3>) -> Self {
        let positions = positions.expand(image.dims());
        let placed = image.clone() + positions.clone();
        let first = &decoder.transformer.layers[0];
        let maps = Maps {
            keys: blocked(first.cross_attn_token_to_image.k_proj.forward(placed.clone())),
            values: blocked(first.cross_attn_token_to_image.v_proj.forward(image.clone())),
            queries: blocked(first.cross_attn_image_to_token.q_proj.forward(placed)),
            image: blocked(image),
            positions: blocked(positions),
        };
        let parts = &decoder.output_upscaling;
        let bias = |layer: &crate::layers::ConvTranspose2d| {
            let channels = layer.weight.lazy_shape()[1];
            layer.bias.as_ref().map_or_else(|| vec![0.0; channels], |bias| values(bias.val()))
        };
        let upscaling = Upscaling {
            first: [values(parts_of_pixel(&parts._0)), bias(&parts._0)],
            norm: [values(parts._1.weight.val()), values(parts._1.bias.val())],
            second: [values(parts_of_pixel(&parts._3)), bias(&parts._3)],
        };
        Self { maps: Arc::new(maps), upscaling: Arc::new(upscaling) }
    }

    pub(super) fn images(&self) -> usize {
        self.maps.image.images()
    }

    /// Windows of the first image, whose rows are `width` pixels wide.
    pub(super) fn windows(&self, width: usize, starts: &[[usize; 2]], size: [usize; 2]) -> Self {
        let starts: Vec<[usize; 3]> = starts.iter().map(|&[y, x]| [0, y, x]).collect();
        let cut = |maps: &BlockedMaps| maps.windows(width, &starts, size);
        let Maps { image, positions, keys, values, queries } = &*self.maps;
        let maps = Maps {
            image: cut(image),
            positions: cut(positions),
            keys: cut(keys),
            values: cut(values),
            queries: cut(queries),
        };
        Self { maps: Arc::new(maps), upscaling: self.upscaling.clone() }
    }

    /// As [`TwoWayTransformer::forward`]: tokens `[B, T, C]` and the maps `[B, C, L]` of their images after it.
    pub(super) fn exchange(
        &self,
        transformer: &TwoWayTransformer,
        tokens: Tensor<3>,
        image_of: &[usize],
    ) -> (Tensor<3>, BlockedMaps) {
        let Maps { image, positions, keys, values: of_pixels, queries: pixel_queries } = &*self.maps;
        let [batch, count, channels] = tokens.dims();
        // The tokens' positions are the tokens themselves, as they came in.
        let token_positions = tokens.clone();
        let first = &transformer.layers[0];
        let mut queries = first.among_tokens(tokens, token_positions.clone());
        let reader = &first.cross_attn_token_to_image;
        let heads = reader.heads;

        let wanted =
            values(by_heads(reader, scaled(reader, reader.q_proj.forward(queries.clone() + token_positions.clone()))));
        let found = gather(&looking(&wanted, [heads, count], heads), keys, of_pixels, image_of);
        let inner = found.len() / (batch * count).max(1) / heads;
        let found = tensor(found, [batch, heads, count, inner], &token_positions);
        let mut attended = reader.out_proj.forward(found.swap_dims(1, 2).reshape([batch, count, heads * inner]));

        let mut maps = BlockedMaps::reused(batch, channels, image.pixels());
        for (index, layer) in transformer.layers.iter().enumerate() {
            queries = layer.after_reading(queries, attended);
            // The next to read the image needs nothing of it to know what it looks for, and can read while it is being changed.
            let (next, reader) = match transformer.layers.get(index + 1) {
                Some(next) => {
                    (next.among_tokens(queries.clone(), token_positions.clone()), &next.cross_attn_token_to_image)
                }
                None => (queries.clone(), &transformer.final_attn_token_to_image),
            };
            let writer = &layer.cross_attn_image_to_token;
            let token_keys = scaled(writer, writer.k_proj.forward(queries.clone() + token_positions.clone()));
            let token_keys = by_heads(writer, token_keys);
            let (token_keys, offsets, groups) = if index == 0 {
                (token_keys, None, heads)
            } else {
                let offsets = writer.q_proj.bias.as_ref().map(|bias| values(times_bias(&token_keys, bias.val())));
                (fold(token_keys, writer.q_proj.weight.val()), offsets, 1)
            };
            let token_values = by_heads(writer, writer.v_proj.forward(queries));
            let token_values = values(fold(token_values, writer.out_proj.weight.val().transpose()));
            let token_keys = values(token_keys);
            // The key's bias is the same number for all pixels and changes no softmax.
            let token_queries = scaled(reader, reader.q_proj.forward(next.clone() + token_positions.clone()));
            let token_queries = values(fold(by_heads(reader, token_queries), reader.k_proj.weight.val()));
            let bias = writer.out_proj.bias.as_ref().map_or_else(|| vec![0.0; channels], |bias| values(bias.val()));
            let [norm_weight, norm_bias] = parameters(&layer.norm4);
            let step = Exchange {
                positions,
                image_of,
                pixel_queries: (index == 0).then_some(pixel_queries),
                token_keys: Queries { offsets: offsets.as_deref(), ..looking(&token_keys, [heads, count], groups) },
                token_values: &token_values,
                bias: &bias,
                norm: (&norm_weight, &norm_bias, TORCH_NORM_EPS as f32),
                token_queries: looking(&token_queries, [heads, count], 1),
            };
            let means = step.run((index == 0).then_some(image), &mut maps);
            attended = read(reader, tensor(means, [batch, heads, count, channels], &token_positions));
            queries = next;
        }
        (transformer.norm_final_attn.forward(queries + attended), maps)
    }

    /// Mask logits.
    ///
    /// # Shapes
    /// maps `[B, C, h · w]`, weights `[B, masks, C / 8]` → `[B, masks, 4 h, 4 w]`
    pub(super) fn masks(&self, maps: &BlockedMaps, [h, w]: [usize; 2], weights: Tensor<3>) -> Tensor<4> {
        let [batch, masks, _] = weights.dims();
        let Upscaling { first, norm, second } = &*self.upscaling;
        let upscaling = MaskUpscaling {
            first: &first[0],
            first_bias: &first[1],
            norm: (&norm[0], &norm[1], LAYER_NORM_EPS as f32),
            second: &second[0],
            second_bias: &second[1],
        };
        let logits = upscaling.run(maps, [h, w], &values(weights.clone()), masks);
        tensor(logits, [batch, masks, 4 * h, 4 * w], &weights)
    }
}

/// Queries without offsets.
fn looking(values: &[f32], [heads, tokens]: [usize; 2], groups: usize) -> Queries<'_> {
    Queries { values, offsets: None, heads, tokens, groups }
}

/// Rows `[N, L, C]` in blocks.
fn blocked(rows: Tensor<3>) -> BlockedMaps {
    let shape = rows.dims();
    BlockedMaps::from_rows(&values(rows), shape)
}

/// On the device of `like`.
fn tensor<const D: usize, const E: usize>(values: Vec<f32>, shape: [usize; D], like: &Tensor<E>) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), &like.device())
}

fn parameters(norm: &LayerNorm) -> [Vec<f32>; 2] {
    [values(norm.weight.val()), values(norm.bias.val())]
}

/// Divided by the square root of a head's width. `[B, T, inner]`
fn scaled(attention: &DownscaledAttention, x: Tensor<3>) -> Tensor<3> {
    let head = x.dims()[2] / attention.heads;
    x * (head as f64).sqrt().recip()
}

/// `[B, T, inner]` → `[B, heads, T, head]`
fn by_heads(attention: &DownscaledAttention, x: Tensor<3>) -> Tensor<4> {
    let [batch, tokens, inner] = x.dims();
    x.reshape([batch, tokens, attention.heads, inner / attention.heads]).swap_dims(1, 2)
}

/// Each head by its own rows of a projection: what is compared with a pixel's projection can be compared with the pixel.
///
/// # Shapes
/// `x` `[B, heads, T, head]`, weight `[heads · head, C]` → `[B, heads, T, C]`
fn fold(x: Tensor<4>, weight: Tensor<2>) -> Tensor<4> {
    let [batch, heads, tokens, head] = x.dims();
    let channels = weight.dims()[1];
    let x = x.swap_dims(0, 1).reshape([heads, batch * tokens, head]);
    let folded = x.matmul(weight.reshape([heads, head, channels])); // [heads, B · T, C]
    folded.reshape([heads, batch, tokens, channels]).swap_dims(0, 1)
}

/// The part of the logits that the bias `[heads · head]` of the pixels' projection makes. `[B, heads, T, head]` → `[B, heads, T]`
fn times_bias(x: &Tensor<4>, bias: Tensor<1>) -> Tensor<3> {
    let [_, heads, _, head] = x.dims();
    (x.clone() * bias.reshape([1, heads, 1, head])).sum_dim(3).squeeze_dim::<3>(3)
}

/// The end of an attention whose weighted means were taken before the value projection, head by head.
///
/// # Shapes
/// means `[B, heads, T, C]` → `[B, T, C]`
fn read(attention: &DownscaledAttention, means: Tensor<4>) -> Tensor<3> {
    let [batch, heads, tokens, channels] = means.dims();
    let weight = attention.v_proj.weight.val();
    let inner = weight.dims()[0];
    let means = means.swap_dims(0, 1).reshape([heads, batch * tokens, channels]);
    let projected = means.matmul(weight.reshape([heads, inner / heads, channels]).swap_dims(1, 2)); // [heads, B · T, head]
    let projected = projected.reshape([heads, batch, tokens, inner / heads]).permute([1, 2, 0, 3]);
    let projected = projected.reshape([batch, tokens, inner]);
    let projected = match &attention.v_proj.bias {
        Some(bias) => projected + bias.val().reshape([1, 1, inner]),
        None => projected,
    };
    let out = &attention.out_proj;
    linear(projected, out.weight.val(), out.bias.as_ref().map(burn::module::Param::val))
}
