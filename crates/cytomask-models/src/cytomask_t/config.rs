//! Sizes and run-time options.

use super::scale::ScaleChoice;
pub use crate::sam::{PIXEL_MEAN, PIXEL_STD};
use crate::tiny_vit::{TinyVitConfig, VIT_T};

/// What fixes the shape of every tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CytomaskTConfig {
    /// The image encoder.
    pub encoder: TinyVitConfig,
    /// Channels of the instance decoder's levels, strides 16, 8, 4, 2, 1.
    pub decoder_widths: [usize; 5],
    /// Channels of the map that the mask tokens weigh.
    pub refiner_channels: usize,
    /// Hidden channels of the MLP on the mask tokens.
    pub refiner_hidden: usize,
    /// Channels of the box decoder.
    pub box_width: usize,
}

/// The embedded model: 11.1 M parameters.
pub const CYTOMASK_T: CytomaskTConfig = CytomaskTConfig {
    encoder: VIT_T,
    decoder_widths: [128, 96, 64, 32, 16],
    refiner_channels: 16,
    refiner_hidden: 128,
    box_width: 96,
};

/// How images are run.
#[derive(Clone, Debug, PartialEq)]
pub struct CytomaskTOptions {
    /// The scale at which the network sees an image.
    pub scale: ScaleChoice,
    /// Longest side of an image at the chosen scale, pixels. Larger images are for the caller to tile.
    pub max_side: u32,
    /// Prompts decoded at once. On a CPU small batches are faster; on a GPU take 32 or more.
    pub prompt_batch: usize,
}

impl Default for CytomaskTOptions {
    /// Automatic scale; 2048 pixels, where the full-size feature maps take 0.3 GB each; 8 prompts, measured on two cores, where two
    /// batches are under way at a time.
    fn default() -> Self {
        Self { scale: ScaleChoice::Auto, max_side: 2048, prompt_batch: 8 }
    }
}
