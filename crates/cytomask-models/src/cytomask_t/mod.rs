//! cytomask-t, the compact default model: MobileSAM's encoder and mask decoder, a slim decoder for the three instance maps, a
//! decoder that proposes boxes of objects, and a residual that doubles the resolution of the masks.
//!
//! The PyTorch definition it is trained with is `training/model.py`; both share tensor names. The differences from SAM at run
//! time: the input has any size that is a multiple of 32, images are not brought to 1024 pixels but run at their own scale (or
//! at twice it, [`scale`]), and coordinates are always divided by 1024, so that a token means the same distance in every image.

mod box_decoder;
mod config;
mod instance_decoder;
mod mask_refiner;
mod model;
pub mod scale;
#[cfg(test)]
mod tests;
mod window;

pub use box_decoder::{BOX_STRIDE, BoxDecoder, BoxTaps, box_edges};
pub use config::{CYTOMASK_T, CytomaskTConfig, CytomaskTOptions, PIXEL_MEAN, PIXEL_STD};
pub use instance_decoder::{InstanceDecoder, InstanceFeatures};
pub use mask_refiner::MaskRefiner;
pub use model::{CytomaskT, CytomaskTEmbedding};
pub use scale::ScaleChoice;
pub(crate) use window::COMMON_SIDE_PX;
