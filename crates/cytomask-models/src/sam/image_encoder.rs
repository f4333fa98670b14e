//! SAM's image encoder: a plain vision transformer with windowed attention and decomposed relative positions (Kirillov et al.
//! 2023, after ViTDet, Li et al. 2022). Reference: `segment_anything/modeling/image_encoder.py`.
//!
//! Other input sizes than the trained one: the reference refuses them. Here `pos_embed` is resampled bilinearly to the grid and
//! the relative tables linearly to the length the grid needs (the latter is the reference's own rule); at the trained size
//! nothing is resampled.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};

use super::config::VitConfig;
use crate::{
    error::Error,
    layers::{
        Activation, Around, Conv2d, LAYER_NORM_EPS, LayerNorm, LayerNorm2d, Linear, MapAttention, Positions, QkvOrder,
        layer_norm, linear, map_attention, parameter, recomputed, resampled_table, resize_bilinear,
    },
};

/// Image encoder. Field names are the checkpoint's keys under `image_encoder.`.
#[derive(Module, Debug)]
pub struct ImageEncoder {
    /// `[1, grid, grid, C]`
    pub pos_embed: Param<Tensor<4>>,
    /// Patches to tokens.
    pub patch_embed: PatchEmbed,
    /// In order.
    pub blocks: Vec<Block>,
    /// To the embedding's channels.
    pub neck: Neck,
}

impl ImageEncoder {
    /// See [`crate::Model::released`].
    pub(crate) fn release_weights(&mut self) {
        for block in &mut self.blocks {
            for layer in [&mut block.attn.qkv, &mut block.attn.proj, &mut block.mlp.lin1, &mut block.mlp.lin2] {
                layer.release_weight();
            }
        }
    }

    /// Placeholder values; see [`crate::loading`].
    pub fn new(config: &VitConfig, device: &Device) -> Self {
        let grid = config.trained_grid();
        Self {
            pos_embed: parameter([1, grid, grid, config.embed_dim], 0.0, device),
            patch_embed: PatchEmbed {
                proj: Conv2d::new(3, config.embed_dim, config.patch_size, device).with_stride(config.patch_size),
            },
            blocks: (0..config.depth)
                .map(|index| {
                    let window = (!config.global_blocks.contains(&index)).then_some(config.window);
                    Block::new(config, window, device)
                })
                .collect(),
            neck: Neck::new(config.embed_dim, config.out_channels, device),
        }
    }

    /// # Shapes
    /// `[N, 3, H, W]` → `[N, 256, H / 16, W / 16]`, `H` and `W` multiples of the patch size
    ///
    /// # Errors
    /// `Shape` when the input is not of that form.
    pub fn forward(&self, image: Tensor<4>) -> Result<Tensor<4>, Error> {
        let mut x = self.tokens(image)?; // [N, h, w, C]
        for block in &self.blocks {
            x = block.forward(x);
        }
        Ok(self.neck.forward(x))
    }

    /// Patches as tokens with their absolute positions added.
    ///
    /// # Shapes
    /// `[N, 3, H, W]` → `[N, h, w, C]`
    ///
    /// # Errors
    /// `Shape` when the input is not of that form.
    pub(crate) fn tokens(&self, image: Tensor<4>) -> Result<Tensor<4>, Error> {
        let [n, channels, h, w] = image.dims();
        let patch = self.patch_size();
        let fits = |side: usize| side != 0 && side.is_multiple_of(patch);
        if channels != 3 || n == 0 || !fits(h) || !fits(w) {
            let expected = format!("[N, 3, {patch}·h, {patch}·w]");
            return Err(Error::shape("image encoder input", expected, [n, channels, h, w]));
        }
        let x = self.patch_embed.forward(image);
        let [_, h, w, _] = x.dims();
        Ok(x + self.positions([h, w]))
    }

    /// Side of a patch, pixels.
    pub fn patch_size(&self) -> usize {
        self.patch_embed.proj.weight.lazy_shape()[2]
    }

    /// `[1, h, w, C]`
    fn positions(&self, grid: [usize; 2]) -> Tensor<4> {
        let stored = self.pos_embed.val();
        let [_, h, w, _] = stored.dims();
        if [h, w] == grid {
            return stored;
        }
        resize_bilinear(stored.permute([0, 3, 1, 2]), grid).permute([0, 2, 3, 1])
    }
}

/// Patches to tokens by one strided convolution.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    /// Kernel and stride are the patch size.
    pub proj: Conv2d,
}

impl PatchEmbed {
    /// # Shapes
    /// `[N, 3, H, W]` → `[N, h, w, C]`
    fn forward(&self, image: Tensor<4>) -> Tensor<4> {
        // Patches do not overlap: each is a row of one product.
        let weight = self.proj.weight.val();
        let [c_out, channels, side, _] = weight.dims();
        let [n, _, h, w] = image.dims();
        let (h, w) = (h / side, w / side);
        let patches = image.reshape([n, channels, h, side, w, side]).permute([0, 2, 4, 1, 3, 5]);
        let patches = patches.reshape([n, h, w, channels * side * side]);
        linear(patches, weight.reshape([c_out, channels * side * side]), self.proj.bias.as_ref().map(Param::val))
    }
}

/// A transformer block.
#[derive(Module, Debug)]
pub struct Block {
    /// Before attention.
    pub norm1: LayerNorm,
    /// Within windows, or over the whole map.
    pub attn: Attention,
    /// Before the MLP.
    pub norm2: LayerNorm,
    /// Per token.
    pub mlp: MlpBlock,
    /// Side of an attention window; `None`: the whole map.
    #[module(skip)]
    window: Option<usize>,
}

impl Block {
    fn new(config: &VitConfig, window: Option<usize>, device: &Device) -> Self {
        let dim = config.embed_dim;
        Self {
            norm1: LayerNorm::new(dim, LAYER_NORM_EPS, device),
            attn: Attention::new(dim, config.heads, window.unwrap_or(config.trained_grid()), device),
            norm2: LayerNorm::new(dim, LAYER_NORM_EPS, device),
            mlp: MlpBlock::new(dim, dim * config.mlp_ratio, device),
            window,
        }
    }

    /// Attention over the whole map, with relative tables made for maps of `side` tokens.
    pub(crate) fn global(config: &VitConfig, side: usize, device: &Device) -> Self {
        Self { window: None, ..Self::new(config, Some(side), device) }
    }

    /// # Shapes
    /// `[N, h, w, C]` → `[N, h, w, C]`
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        recomputed(self, [x], |block, [x]| {
            let x = block.attn.forward(x, &block.norm1, block.window);
            block.mlp.forward(x, &block.norm2)
        })
    }
}

/// Two linear maps with GELU between them.
#[derive(Module, Debug)]
pub struct MlpBlock {
    /// Widens.
    pub lin1: Linear,
    /// Narrows.
    pub lin2: Linear,
}

impl MlpBlock {
    pub(crate) fn new(channels: usize, hidden: usize, device: &Device) -> Self {
        Self { lin1: Linear::new(channels, hidden, device), lin2: Linear::new(hidden, channels, device) }
    }

    /// With the norm before it and the residual.
    ///
    /// # Shapes
    /// `[..., C]` → `[..., C]`
    fn forward<const D: usize>(&self, x: Tensor<D>, norm: &LayerNorm) -> Tensor<D> {
        let around = Around { norm: Some(norm), activation: Activation::Gelu, residual: None };
        let hidden = self.lin1.forward_around(x.clone(), around);
        self.lin2.forward_around(hidden, Around { residual: Some(x), ..Around::default() })
    }
}

/// Self-attention over a map of tokens with decomposed relative positions.
#[derive(Module, Debug)]
pub struct Attention {
    /// To queries, keys and values: output channels `[3, heads, head]`.
    pub qkv: Linear,
    /// Back to tokens.
    pub proj: Linear,
    /// `[2 · side − 1, head]`
    pub rel_pos_h: Param<Tensor<2>>,
    /// `[2 · side − 1, head]`
    pub rel_pos_w: Param<Tensor<2>>,
    heads: usize,
}

impl Attention {
    fn new(channels: usize, heads: usize, side: usize, device: &Device) -> Self {
        let head = channels / heads;
        Self {
            qkv: Linear::new(channels, 3 * channels, device),
            proj: Linear::new(channels, channels, device),
            rel_pos_h: parameter([2 * side - 1, head], 0.0, device),
            rel_pos_w: parameter([2 * side - 1, head], 0.0, device),
            heads,
        }
    }

    /// With the norm before it and the residual.
    ///
    /// # Shapes
    /// `[N, h, w, C]` → `[N, h, w, C]`
    fn forward(&self, x: Tensor<4>, norm: &LayerNorm, window: Option<usize>) -> Tensor<4> {
        let [_, h, w, _] = x.dims();
        let qkv = self.qkv.forward_around(x.clone(), Around { norm: Some(norm), ..Around::default() });
        let attention = MapAttention {
            heads: self.heads,
            order: QkvOrder::PartsFirst,
            window,
            // The norm comes before the padding: padded tokens are zeros, carry the bias of `qkv`, and are attended to.
            outside: self.qkv.bias.as_ref().map(Param::val),
            positions: Positions::Relative {
                rows: resampled_table(self.rel_pos_h.val(), window.unwrap_or(h)),
                columns: resampled_table(self.rel_pos_w.val(), window.unwrap_or(w)),
            },
            precision: self.qkv.precision(),
        };
        let attended = map_attention(qkv, attention);
        self.proj.forward_around(attended, Around { residual: Some(x), ..Around::default() })
    }
}

/// From tokens to the embedding. Indices are those of the reference's sequence.
#[derive(Module, Debug)]
pub struct Neck {
    /// 1×1.
    pub _0: Conv2d,
    /// Norm.
    pub _1: LayerNorm2d,
    /// 3×3.
    pub _2: Conv2d,
    /// Norm.
    pub _3: LayerNorm2d,
}

impl Neck {
    fn new(c_in: usize, c_out: usize, device: &Device) -> Self {
        Self {
            _0: Conv2d::new(c_in, c_out, 1, device).without_bias(),
            _1: LayerNorm2d::new(c_out, device),
            _2: Conv2d::new(c_out, c_out, 3, device).with_padding(1).without_bias(),
            _3: LayerNorm2d::new(c_out, device),
        }
    }

    /// # Shapes
    /// `[N, h, w, C]` → `[N, 256, h, w]`
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        // A 1 × 1 convolution of tokens is a product, and their norm one of rows.
        let weight = self._0.weight.val();
        let [c_out, c_in, _, _] = weight.dims();
        let x = linear(x, weight.reshape([c_out, c_in]), None);
        let x = layer_norm(x, self._1.weight.val(), self._1.bias.val(), LAYER_NORM_EPS);
        self._3.forward(self._2.forward(x.permute([0, 3, 1, 2])))
    }
}
