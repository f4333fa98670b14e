//! The network.
#![expect(non_snake_case, reason = "`W2` is the checkpoint's key")]

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use cytomask_weights::TensorMap;

use super::config::{CpSamConfig, MAPS};
use crate::layers::{Conv2d, buffer, linear};
use crate::loading::load_into;
use crate::sam::ImageEncoder;
use crate::sam::image_encoder::Block;
use crate::{Error, ErrorKind};

/// Cellpose-SAM. Field names are the checkpoint's keys.
#[derive(Module, Debug)]
pub struct CpSam {
    /// SAM's, at stride 8, every block global.
    pub encoder: ImageEncoder,
    /// 1×1, to the values of a token's pixels.
    pub out: Conv2d,
    /// Where each of these goes: `[3 · p², 3, p, p]`, a rearrangement that is not trained.
    pub W2: Param<Tensor<4>>,
    /// Mean diameter of the objects of the fine-tuning images, pixels.
    pub diam_labels: Param<Tensor<1>>,
    /// Diameter the network was trained at, pixels.
    pub diam_mean: Param<Tensor<1>>,
}

impl CpSam {
    /// Placeholder values; see [`crate::loading`].
    pub fn new(config: &CpSamConfig, device: &Device) -> Self {
        let patch = config.patch_size;
        let mut encoder = ImageEncoder::new(&config.encoder(), device);
        encoder.blocks =
            config.table_rows.iter().map(|rows| Block::global(&config.encoder(), rows.div_ceil(2), device)).collect();
        let outputs = MAPS * patch * patch;
        Self {
            encoder,
            out: Conv2d::new(config.out_channels, outputs, 1, device),
            W2: buffer([outputs, MAPS, patch, patch], 0.0, device),
            diam_labels: buffer([1], 30.0, device),
            diam_mean: buffer([1], 30.0, device),
        }
    }

    /// From a file of Cellpose 4, whose keys may begin with `module.`.
    ///
    /// # Errors
    /// `MissingTensor`, `Shape` or `Format` for tensors that do not fit.
    pub fn load(tensors: &TensorMap, device: &Device) -> Result<Self, Error> {
        let prefix = if tensors.contains("module.W2") { "module." } else { "" };
        let loaded = load_into(Self::new(&CpSamConfig::of(tensors, prefix)?, device), tensors, prefix)?;
        match loaded.unused.first() {
            Some(name) => Err(Error::new(ErrorKind::Format, format!("tensor `{name}` has no place in Cellpose-SAM"))),
            None => Ok(loaded.module),
        }
    }

    /// Side of the tile it was trained at, pixels.
    pub fn tile_side(&self) -> usize {
        self.encoder.pos_embed.lazy_shape()[1] * self.encoder.patch_size()
    }

    /// Flow along y, flow along x (both five times a unit vector's component) and the logit of being in a cell.
    ///
    /// # Shapes
    /// `[N, 3, H, W]` → `[N, 3, H, W]`, `H` and `W` multiples of the patch size
    ///
    /// # Errors
    /// `Shape` when the input is not of that form.
    pub fn forward(&self, image: Tensor<4>) -> Result<Tensor<4>, Error> {
        Ok(self.pixels(self.encoder.forward(image)?))
    }

    /// As [`CpSam::forward`] with stochastic depth (Huang et al. 2016, without rescaling): `skipped[image][block]` says which blocks an
    /// image goes around.
    ///
    /// # Shapes
    /// `[N, 3, H, W]` → `[N, 3, H, W]`
    ///
    /// # Errors
    /// `Shape` when the input is not of that form.
    ///
    /// # Panics
    /// When `skipped` does not name every block of every image.
    pub fn forward_skipping(&self, image: Tensor<4>, skipped: &[Vec<bool>]) -> Result<Tensor<4>, Error> {
        let [images, ..] = image.dims();
        assert_eq!(skipped.len(), images, "images that skip blocks");
        let mut x = self.encoder.tokens(image)?; // [N, h, w, C]
        for (index, block) in self.encoder.blocks.iter().enumerate() {
            let around = skipped.iter().filter(|blocks| blocks[index]).count();
            x = match around {
                0 => block.forward(x),
                _ if around == images => x,
                _ => {
                    let keep: Vec<f32> = skipped.iter().map(|blocks| f32::from(u8::from(!blocks[index]))).collect();
                    let keep = Tensor::<4>::from_data(TensorData::new(keep, [images, 1, 1, 1]), &x.device());
                    x.clone() * (-keep.clone() + 1.0) + block.forward(x) * keep
                }
            };
        }
        Ok(self.pixels(self.encoder.neck.forward(x)))
    }

    /// Features of tokens to maps of pixels.
    ///
    /// # Shapes
    /// `[N, C, h, w]` → `[N, 3, p · h, p · w]`
    pub(super) fn pixels(&self, features: Tensor<4>) -> Tensor<4> {
        let patch = self.encoder.patch_size();
        let x = self.out.forward(features).permute([0, 2, 3, 1]); // [N, h, w, 3 · p²]
        let [n, h, w, outputs] = x.dims();
        // A transposed convolution whose stride is its kernel: one product for each token.
        let rearrange = self.W2.val().reshape([outputs, outputs]).transpose();
        linear(x, rearrange, None).reshape([n, h, w, MAPS, patch, patch]).permute([0, 3, 1, 4, 2, 5]).reshape([
            n,
            MAPS,
            h * patch,
            w * patch,
        ])
    }
}
