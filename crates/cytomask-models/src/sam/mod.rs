//! Segment Anything (Kirillov et al. 2023): image encoder, prompt encoder, mask decoder, and their joiner.

#[cfg(feature = "flex")]
mod blocked;
pub mod config;
pub mod image_encoder;
pub mod mask_decoder;
pub mod model;
pub mod prompt_encoder;
pub mod transformer;

pub use config::{
    MaskDecoderConfig, PIXEL_MEAN, PIXEL_STD, PromptEncoderConfig, SamConfig, VIT_B, VIT_H, VIT_L, VitConfig,
};
pub use image_encoder::ImageEncoder;
pub use mask_decoder::{DecodedMasks, MaskDecoder, PreparedImage};
pub use model::{Encoder, Sam, SamEmbedding, SamOptions, SamPredictor};
pub use prompt_encoder::PromptEncoder;

#[cfg(test)]
mod tests;
