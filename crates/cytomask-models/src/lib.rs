//! Networks, checkpoints, the weights registry and device choice. The tensor framework stays here and in cytomask-train.

mod batches;
pub mod cpsam;
#[cfg(feature = "flex")]
mod cpu;
pub mod cyto3;
pub mod cytomask_t;
pub mod device;
mod error;
pub mod flows;
#[cfg(test)]
mod golden;
#[cfg(feature = "autodiff")]
mod gradients;
pub mod layers;
pub mod loading;
mod model;
pub mod precision;
#[cfg(feature = "flex")]
mod prepared;
pub mod sam;
#[doc(hidden)]
pub mod seeded;
mod times;
pub mod tiny_vit;
pub mod unetr;

pub use cytomask_t::ScaleChoice;
pub use device::DeviceChoice;
pub use error::{Error, ErrorKind};
pub use flows::{FlowDiameter, FlowOptions};
pub use model::{BareNetwork, Cost, Embedding, Family, Model, WeightTensors, machine_rate};
pub use precision::Precision;
pub use times::NetworkSeconds;

/// A `Result` whose error is this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
