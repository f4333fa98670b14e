//! The slim decoder of the three instance maps: five levels from stride 16 to 1, each joining a skip by addition.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use super::config::CytomaskTConfig;
use crate::{
    layers::{Activation, Conv2d, ConvBn, upsample2},
    tiny_vit::TinyVitTaps,
};

/// From encoder taps to maps.
#[derive(Module, Debug)]
pub struct InstanceDecoder {
    /// 1 × 1, skip channels → width of the level.
    pub lateral: Vec<Conv2d>,
    /// Two 3 × 3 convolutions for each level; the second changes to the next level's width.
    pub blocks: Vec<Vec<ConvBn>>,
    /// 1 × 1, to the maps.
    pub out_conv: Conv2d,
}

/// What the decoder gives.
#[derive(Clone, Debug)]
pub struct InstanceFeatures {
    /// `[N, 3, H, W]`: foreground, centre distance, boundary distance, before the sigmoid.
    pub map_logits: Tensor<4>,
    /// `[N, W_3, H / 4, W / 4]`, for the mask refiner.
    pub f4: Tensor<4>,
    /// `[N, W_4, H / 2, W / 2]`, for the mask refiner.
    pub f2: Tensor<4>,
}

impl InstanceDecoder {
    /// Placeholder values; see [`crate::loading`].
    pub fn new(config: &CytomaskTConfig, device: &Device) -> Self {
        let widths = config.decoder_widths;
        let [c0, c1, _, _] = config.encoder.embed_dims;
        let skips = [config.encoder.out_channels, c1, c0, c0 / 2, 3];
        let convolution = |c_in, c_out| ConvBn::new(Conv2d::new(c_in, c_out, 3, device).with_padding(1));
        let next = |level: usize| widths[(level + 1).min(widths.len() - 1)];
        Self {
            lateral: skips.iter().zip(widths).map(|(&skip, width)| Conv2d::new(skip, width, 1, device)).collect(),
            blocks: (0..widths.len())
                .map(|level| vec![convolution(widths[level], widths[level]), convolution(widths[level], next(level))])
                .collect(),
            out_conv: Conv2d::new(widths[4], 3, 1, device),
        }
    }

    /// # Shapes
    /// taps of and `image` `[N, 3, H, W]`, normalised → see [`InstanceFeatures`]
    pub fn forward(&self, taps: &TinyVitTaps, image: Tensor<4>) -> InstanceFeatures {
        let level = |index: usize, coarser: Option<&Tensor<4>>, skip: Tensor<4>| {
            let skip = self.lateral[index].forward(skip);
            let x = match coarser {
                Some(coarser) => upsample2(coarser.clone()) + skip,
                None => skip,
            };
            self.blocks[index].iter().fold(x, |x, block| block.forward_then(x, Activation::Relu))
        };
        let f16 = level(0, None, taps.embedding.clone());
        let f8 = level(1, Some(&f16), taps.t8.clone());
        let f4 = level(2, Some(&f8), taps.t4.clone());
        let f2 = level(3, Some(&f4), taps.t2.clone());
        let f1 = level(4, Some(&f2), image);
        InstanceFeatures { map_logits: self.out_conv.forward(f1), f4, f2 }
    }
}
