//! Classical image operations the strategies are made of.

pub mod boundaries;
pub mod components;
pub mod distance;
pub mod flow_targets;
pub mod gaussian;
pub mod nms;
pub mod otsu;
pub mod paint;
pub mod peaks;
pub mod small_regions;
pub mod stability;
pub mod watershed;
