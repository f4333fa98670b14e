//! Sizes and variants of the instance decoder.

/// How a decoder doubles a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpsamplerKind {
    /// Bilinear ×2 and a 1 × 1 convolution (key `conv`); µSAM's models since generation 2.
    #[default]
    Bilinear,
    /// A transposed 2 × 2 convolution (key `block`); older decoders.
    Transposed,
}

impl UpsamplerKind {
    /// The variant of a checkpoint, from its tensor names (without prefix): upstream asks whether a name under
    /// `decoder.samplers` contains `.block.`.
    pub fn detect<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let transposed = |name: &str| name.starts_with("decoder.samplers") && name.contains(".block.");
        if names.into_iter().any(transposed) { Self::Transposed } else { Self::Bilinear }
    }
}

/// Which statistics the four batch norms use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchStatistics {
    /// Those of the images being decoded. µSAM never calls `eval()` on its decoder, so this is what its published scores were
    /// made with; the maps differ from [`BatchStatistics::Running`] by up to 0.36. Images of one batch influence each other.
    #[default]
    CurrentImage,
    /// Those stored with the weights.
    Running,
}

/// What fixes the shape of every tensor of a [`crate::unetr::Unetr`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnetrConfig {
    /// Channels of the embedding.
    pub embed_channels: usize,
    /// Channels of the levels, coarse to fine; each half of the one before.
    pub features: [usize; 4],
    /// Maps.
    pub out_channels: usize,
    /// How maps are doubled.
    pub upsampler: UpsamplerKind,
    /// Statistics of the batch norms.
    pub norm_statistics: BatchStatistics,
}

/// The decoder of µSAM's and PathoSAM's models: 9.6 M parameters, 411 GMAC at 1024 × 1024 as upstream computes it.
pub const UNETR_MICRO_SAM: UnetrConfig = UnetrConfig {
    embed_channels: 256,
    features: [512, 256, 128, 64],
    out_channels: 3,
    upsampler: UpsamplerKind::Bilinear,
    norm_statistics: BatchStatistics::CurrentImage,
};

impl UnetrConfig {
    /// The configuration of a µSAM decoder checkpoint, from its tensor names (without prefix).
    pub fn detect<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { upsampler: UpsamplerKind::detect(names), ..UNETR_MICRO_SAM }
    }
}
