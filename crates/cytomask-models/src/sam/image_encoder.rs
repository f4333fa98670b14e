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
        Conv2d, LAYER_NORM_EPS, LayerNorm, LayerNorm2d, Linear, gelu, join_windows, parameter, partition_windows,
        relative_attention, resize_bilinear,
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
        self.proj.forward(image).permute([0, 2, 3, 1])
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
        let [_, h, w, _] = x.dims();
        let normed = self.norm1.forward(x.clone());
        let attended = match self.window {
            // The norm comes before the padding: padded tokens are zeros, carry the bias of `qkv`, and are attended to.
            Some(size) => join_windows(self.attn.forward(partition_windows(normed, size)), [h, w]),
            None => self.attn.forward(normed),
        };
        let x = x + attended;
        x.clone() + self.mlp.forward(self.norm2.forward(x))
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

    /// # Shapes
    /// `[..., C]` → `[..., C]`
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.lin2.forward(gelu(self.lin1.forward(x)))
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

    /// # Shapes
    /// `[N, h, w, C]` → `[N, h, w, C]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, h, w, c] = x.dims();
        let (heads, head) = (self.heads, c / self.heads);
        let qkv = self.qkv.forward(x).reshape([n, h * w, 3, heads, head]).permute([2, 0, 3, 1, 4]);
        // Views of one tensor, [N, heads, h · w, head].
        let [q, k, v] = [0, 1, 2].map(|part| qkv.clone().slice_dim(0, part..part + 1).squeeze_dim::<4>(0));
        let table_h = relative_table(self.rel_pos_h.val(), h);
        let table_w = relative_table(self.rel_pos_w.val(), w);
        let attended = relative_attention(q, k, v, table_h, table_w);
        self.proj.forward(attended.swap_dims(1, 2).reshape([n, h, w, c]))
    }
}

/// The rows of a relative table that each pair of positions on one axis uses: `out[q, k] = table[q − k + side − 1]`.
///
/// # Shapes
/// `[L, head]` → `[side, side, head]`; `L` other than `2 · side − 1` is resampled linearly.
fn relative_table(table: Tensor<2>, side: usize) -> Tensor<3> {
    let [length, head] = table.dims();
    let device = table.device();
    let table = if length == 2 * side - 1 {
        table
    } else {
        let row = table.transpose().reshape([1, head, 1, length]);
        resize_bilinear(row, [1, 2 * side - 1]).reshape([head, 2 * side - 1]).transpose()
    };
    let rows: Vec<i32> = (0..side).flat_map(|q| (0..side).map(move |k| (q + side - 1 - k) as i32)).collect();
    table.select(0, Tensor::from_data(rows.as_slice(), &device)).reshape([side, side, head])
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
        let x = self._0.forward(x.permute([0, 3, 1, 2]));
        self._3.forward(self._2.forward(self._1.forward(x)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceChoice, loading::values};

    #[test]
    fn relative_table_is_indexed_by_query_minus_key() {
        let device = DeviceChoice::Cpu.open().unwrap();
        let table = Tensor::<2>::from_data([[0.0], [1.0], [2.0], [3.0], [4.0]], &device);
        assert_eq!(values(relative_table(table.clone(), 3)), [2.0, 1.0, 0.0, 3.0, 2.0, 1.0, 4.0, 3.0, 2.0]);
        // Five rows resampled to three: centres at 1/3, 2 and 11/3 of the stored rows.
        let resampled = values(relative_table(table, 2));
        for (found, expected) in resampled.iter().zip([2.0, 1.0 / 3.0, 11.0 / 3.0, 2.0]) {
            assert!((found - expected).abs() < 1e-5, "{resampled:?}");
        }
    }
}
