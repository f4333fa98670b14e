//! The instance decoder of µSAM: three maps (foreground, centre distance, boundary distance) from a SAM embedding.
//!
//! Archit et al., "Segment Anything for Microscopy", Nature Methods 2025; upstream `torch_em/model/unetr.py` and
//! `micro_sam/instance_segmentation.py` (`DecoderAdapter`), after Hatamizadeh et al., "UNETR", WACV 2022. Of the UNETR only the
//! form without encoder skips is here: all skips are made from the embedding. PathoSAM's semantic decoder is the same network
//! with six output channels; its softmax is not done here.

mod config;
mod decoder;
#[cfg(test)]
mod tests;

pub use config::{BatchStatistics, UNETR_MICRO_SAM, UnetrConfig, UpsamplerKind};
pub use decoder::Unetr;
pub(crate) use decoder::{ConvBlock, Deconv, Upsampler};
