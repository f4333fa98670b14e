//! Cellpose-SAM (Pachitariu, Rariden and Stringer 2025): SAM's image encoder at stride 8 with global attention in every block, and a
//! linear map from each token to the flows of its 8 × 8 pixels. Reference: `vit.py` of cellpose 4.

mod config;
mod network;
#[cfg(test)]
mod tests;

pub use config::{CpSamConfig, MAPS, released};
pub use network::CpSam;
