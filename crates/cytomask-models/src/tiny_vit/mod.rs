//! TinyViT, the image encoder of MobileSAM (`vit_t`): convolutions at strides 2 and 4, then windowed attention at strides 8
//! and 16, and SAM's neck.
//!
//! Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", ECCV 2022; Zhang et al., "Faster Segment
//! Anything", 2023. Upstream: `mobile_sam/modeling/tiny_vit_sam.py`. The classifier (`norm_head`, `head`) that MobileSAM's
//! files carry is never used and has no place here.

mod attention;
mod config;
mod encoder;
#[cfg(test)]
mod tests;

pub use attention::{TinyVitBlock, WindowAttention};
pub use config::{TinyVitConfig, VIT_T};
pub use encoder::{TinyVit, TinyVitTaps};

/// Names under `image_encoder.` that a checkpoint of this encoder may have and that nobody reads.
pub const UNUSED_PREFIXES: [&str; 2] = ["head.", "norm_head."];
