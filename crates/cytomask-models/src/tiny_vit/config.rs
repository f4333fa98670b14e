//! Sizes of TinyViT.

/// What fixes the shape of every tensor of a [`crate::tiny_vit::TinyVit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TinyVitConfig {
    /// Channels of the four stages.
    pub embed_dims: [usize; 4],
    /// Blocks of the four stages.
    pub depths: [usize; 4],
    /// Attention heads of stages 1, 2 and 3 (stage 0 has convolutions only).
    pub heads: [usize; 3],
    /// Side of the attention windows of stages 1, 2 and 3, in tokens.
    pub windows: [usize; 3],
    /// Stride of the merging after stages 0, 1 and 2. Upstream derives it from the channels: 1 where the next stage has 320,
    /// 448 or 576, else 2.
    pub merge_strides: [usize; 3],
    /// Hidden channels of the convolution blocks, as a multiple.
    pub expand_ratio: usize,
    /// Hidden channels of the MLPs, as a multiple.
    pub mlp_ratio: usize,
    /// Channels of the embedding.
    pub out_channels: usize,
}

/// TinyViT-5M as in MobileSAM: 5.7 M parameters, 38.8 GMAC at 1024 × 1024.
pub const VIT_T: TinyVitConfig = TinyVitConfig {
    embed_dims: [64, 128, 160, 320],
    depths: [2, 2, 6, 2],
    heads: [4, 5, 10],
    windows: [7, 14, 7],
    merge_strides: [2, 2, 1],
    expand_ratio: 4,
    mlp_ratio: 4,
    out_channels: 256,
};

impl TinyVitConfig {
    /// Both sides of an input are multiples of this.
    pub const INPUT_MULTIPLE: usize = 32;
}
