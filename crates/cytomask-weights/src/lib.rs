//! Checkpoints, the model registry and the store of downloaded weights: everything about weights that needs no tensor
//! framework.
//!
//! - [`Checkpoint`] opens torch and safetensors files as they are published, memory-mapped; pickles are parsed, never
//!   executed. Building a network from the tensors is left to `cytomask-models`.
//! - [`write_safetensors`] and [`write_torch`] write files that other programs, µSAM's Python among them, open.
//! - [`registry`] knows the published models; [`Store`] downloads, checks and keeps their files.

mod checkpoint;
#[cfg(feature = "download")]
mod download;
mod error;
mod family;
mod hash;
mod numpy;
mod pickle;
pub mod registry;
mod safetensors_file;
mod store;
mod tensor;
mod torch;
mod write;

pub use checkpoint::{Checkpoint, Kind};
#[cfg(feature = "download")]
pub use download::download_file;
pub use error::{Error, ErrorKind, Result};
pub use family::Family;
pub use hash::{ContentHash, FileHashes, Hash, sha256_bytes, sha256_file};
pub use numpy::{NumpyArray, read_pickled_npy};
pub use safetensors_file::DECODER_PREFIX;
pub use store::{CACHE_DIR_VARIABLE, Listed, MIRROR_VARIABLE, ModelPaths, Store, StoreOptions};
pub use tensor::{DType, TensorMap, TensorView};
pub use write::{HalfTensor, WriteTensor, write_safetensors, write_torch};
