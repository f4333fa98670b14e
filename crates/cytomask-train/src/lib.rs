//! Fine-tuning: targets, losses, sampling, the loop and its checkpoints.

pub mod data;
mod error;
pub mod losses;
mod network;
pub mod prompts;
pub mod targets;
mod trainer;

pub use error::{Error, ErrorKind};
pub use trainer::{StepReport, TrainSettings, Trainer, Validation};
