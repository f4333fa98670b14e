//! Strategies that turn a network into instances, one file each: [`amg`], [`ais`], [`apg`], [`flows`] (in three dimensions [`volume`]), [`prompted`].
//!
//! They work on the traits of [`model`], so that they run on a scripted model in milliseconds and know neither tensors nor
//! weights.

pub mod ais;
pub mod amg;
pub mod apg;
pub mod flows;
#[cfg(test)]
mod golden;
mod grow;
pub mod model;
pub mod object_size;
pub mod ops;
pub mod prompted;
#[doc(hidden)]
pub mod scripted;
mod segmentation;
pub mod stitch;
pub mod volume;

pub use ais::Ais;
pub use amg::Amg;
pub use apg::Apg;
pub use flows::{FlowFields, Flows};
pub use model::{BoxPrompt, Candidate, FieldModel, Fields, PointPrompt, Prompt, PromptModel, ProposedBox};
pub use object_size::Smoothing;
pub use prompted::Prompted;
pub use segmentation::{ObjectOrigin, ObjectRecord, Segmentation};
pub use volume::{VolumeFlows, stitch_planes};
