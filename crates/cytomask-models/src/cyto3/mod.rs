//! Cellpose up to version 3 (Stringer et al. 2021, Stringer and Pachitariu 2025): a residual U-Net whose decoder is told the style of
//! the image, and a linear model of the objects' diameter. Reference: `resnet_torch.py` and `models.py` of cellpose 3.

mod network;
mod size;
#[cfg(test)]
mod tests;

pub use network::{CpNet, CpNetConfig};
pub use size::SizeModel;
