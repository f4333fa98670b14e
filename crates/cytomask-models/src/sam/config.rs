//! Sizes. The three of Meta's release are constants; tests build smaller ones.

/// The vision transformer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VitConfig {
    /// Side of the square input it was trained at, pixels; the grid of `pos_embed` is this over the patch size.
    pub trained_side: usize,
    /// Side of a patch, pixels: the stride of the embedding.
    pub patch_size: usize,
    /// Channels of a token.
    pub embed_dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden channels of a block's MLP over `embed_dim`.
    pub mlp_ratio: usize,
    /// Side of an attention window, tokens.
    pub window: usize,
    /// Blocks whose attention reaches over the whole map.
    pub global_blocks: &'static [usize],
    /// Channels of the embedding.
    pub out_channels: usize,
}

impl VitConfig {
    /// Tokens along one side of the trained input.
    pub fn trained_grid(&self) -> usize {
        self.trained_side / self.patch_size
    }
}

/// The prompt encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptEncoderConfig {
    /// Channels of a prompt token and of the embedding.
    pub channels: usize,
    /// Channels inside the mask branch.
    pub mask_channels: usize,
}

/// The mask decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskDecoderConfig {
    /// Channels of tokens and embedding.
    pub channels: usize,
    /// Two-way layers.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden channels of a two-way layer's MLP.
    pub mlp_channels: usize,
    /// Cross attention works on `channels` over this.
    pub attention_downsample: usize,
    /// Masks beside the single one.
    pub multimask_outputs: usize,
    /// Hidden channels of the IoU head.
    pub iou_head_channels: usize,
    /// Linear maps of the IoU head.
    pub iou_head_depth: usize,
}

/// What is the same in every released SAM and in MobileSAM.
impl PromptEncoderConfig {
    /// 6,220 parameters.
    pub const SAM: Self = Self { channels: 256, mask_channels: 16 };
}

/// What is the same in every released SAM and in MobileSAM.
impl MaskDecoderConfig {
    /// 4,058,340 parameters.
    pub const SAM: Self = Self {
        channels: 256,
        depth: 2,
        heads: 8,
        mlp_channels: 2048,
        attention_downsample: 2,
        multimask_outputs: 3,
        iou_head_channels: 256,
        iou_head_depth: 3,
    };
}

/// A whole SAM with a vision transformer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamConfig {
    /// The image encoder.
    pub encoder: VitConfig,
    /// The prompt encoder.
    pub prompt_encoder: PromptEncoderConfig,
    /// The mask decoder.
    pub mask_decoder: MaskDecoderConfig,
}

const VIT: VitConfig = VitConfig {
    trained_side: 1024,
    patch_size: 16,
    embed_dim: 768,
    depth: 12,
    heads: 12,
    mlp_ratio: 4,
    window: 14,
    global_blocks: &[2, 5, 8, 11],
    out_channels: 256,
};

const fn sam(encoder: VitConfig) -> SamConfig {
    SamConfig { encoder, prompt_encoder: PromptEncoderConfig::SAM, mask_decoder: MaskDecoderConfig::SAM }
}

/// SAM ViT-B, 93.7 million parameters.
pub const VIT_B: SamConfig = sam(VIT);

/// SAM ViT-L, 312.3 million parameters.
pub const VIT_L: SamConfig =
    sam(VitConfig { embed_dim: 1024, depth: 24, heads: 16, global_blocks: &[5, 11, 17, 23], ..VIT });

/// SAM ViT-H, 641.1 million parameters.
pub const VIT_H: SamConfig =
    sam(VitConfig { embed_dim: 1280, depth: 32, heads: 16, global_blocks: &[7, 15, 23, 31], ..VIT });

/// Mean of the pixels of SAM's training images, RGB, 0–255.
pub const PIXEL_MEAN: [f32; 3] = [123.675, 116.28, 103.53];

/// Their standard deviation.
pub const PIXEL_STD: [f32; 3] = [58.395, 57.12, 57.375];
