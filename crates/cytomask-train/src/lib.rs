//! Fine-tuning: targets, losses, sampling, the loop and its checkpoints.

mod adapters;
mod average;
mod checkpoint;
pub mod data;
mod error;
mod flow_crops;
pub mod losses;
mod network;
mod parameters;
#[doc(hidden)]
pub mod parity;
pub mod prompts;
mod schedule;
pub mod settings;
mod step;
pub mod targets;
#[cfg(test)]
mod testing;
mod trainer;
mod validation;

pub use error::{Error, ErrorKind};
pub use parameters::Count;
pub use settings::{Decay, Matrix, Objective, Part, Peft, Schedule, TrainSettings};
pub use trainer::{Counts, StepReport, Trainer};
pub use validation::{ValidatedImage, Validation};
