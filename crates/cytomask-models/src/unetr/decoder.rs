//! The decoder top-down, and its blocks.

use burn::{
    module::Module,
    tensor::{Device, Tensor, activation::sigmoid},
};

use super::config::{BatchStatistics, UnetrConfig, UpsamplerKind};
use crate::{
    error::Error,
    layers::{Activation, BatchNorm2d, Conv2d, ConvTranspose2d, recomputed, relu, upsample2},
};

/// Instance decoder. Field names are the keys of a decoder checkpoint.
#[derive(Module, Debug)]
pub struct Unetr {
    /// Embedding → first level.
    pub base: ConvBlock,
    /// Embedding → skip of level 0.
    pub deconv1: Deconv,
    /// → skip of level 1.
    pub deconv2: Deconv,
    /// → skip of level 2.
    pub deconv3: Deconv,
    /// → skip at full size.
    pub deconv4: Deconv,
    /// Three levels.
    pub decoder: Levels,
    /// To full size.
    pub deconv_out: Upsampler,
    /// Joins the full-size skip.
    pub decoder_head: ConvBlock,
    /// To the maps.
    pub out_conv: Conv2d,
    #[module(skip)]
    norm_statistics: BatchStatistics,
}

impl Unetr {
    /// Placeholder values; see [`crate::loading`].
    pub fn new(config: &UnetrConfig, device: &Device) -> Self {
        let [f0, f1, f2, f3] = config.features;
        let kind = config.upsampler;
        let deconv = |c_in, c_out| Deconv::new(c_in, c_out, kind, device);
        Self {
            base: ConvBlock::new(config.embed_channels, f0, device),
            deconv1: deconv(config.embed_channels, f0),
            deconv2: deconv(f0, f1),
            deconv3: deconv(f1, f2),
            deconv4: deconv(f2, f3),
            decoder: Levels::new(config.features, kind, device),
            deconv_out: Upsampler::new(f3, f3, kind, device),
            decoder_head: ConvBlock::new(2 * f3, f3, device),
            out_conv: Conv2d::new(f3, config.out_channels, 1, device),
            norm_statistics: config.norm_statistics,
        }
    }

    /// With other batch-norm statistics.
    #[must_use]
    pub fn with_norm_statistics(mut self, norm_statistics: BatchStatistics) -> Self {
        self.norm_statistics = norm_statistics;
        self
    }

    /// The maps, 0–1, in the padded frame: foreground, centre distance, boundary distance.
    ///
    /// # Shapes
    /// `[N, 256, h, w]` → `[N, 3, 16 h, 16 w]`
    ///
    /// # Errors
    /// `Shape` when the embedding has other channels or no pixels.
    pub fn forward(&self, embedding: Tensor<4>) -> Result<Tensor<4>, Error> {
        Ok(sigmoid(self.forward_logits(embedding)?))
    }

    /// As [`Unetr::forward`], before the sigmoid.
    ///
    /// # Errors
    /// `Shape` when the embedding has other channels or no pixels.
    pub fn forward_logits(&self, embedding: Tensor<4>) -> Result<Tensor<4>, Error> {
        let [n, channels, h, w] = embedding.dims();
        let expected = self.base.channels();
        if channels != expected || n * h * w == 0 {
            return Err(Error::shape("instance decoder input", format!("[N, {expected}, h, w]"), [n, channels, h, w]));
        }
        let statistics = self.norm_statistics;
        let z9 = self.deconv1.forward(embedding.clone(), statistics); // stride 8
        let z6 = self.deconv2.forward(z9.clone(), statistics); // stride 4
        let z3 = self.deconv3.forward(z6.clone(), statistics); // stride 2
        let z0 = self.deconv4.forward(z3.clone(), statistics); // stride 1
        let x = self.base.forward([embedding]); // stride 16
        let x = self.decoder.forward(x, [z9, z6, z3]); // stride 2
        let x = self.deconv_out.forward(x);
        let x = self.decoder_head.forward([x, z0]);
        Ok(self.out_conv.forward(x))
    }
}

/// The three levels between the base and full size.
#[derive(Module, Debug)]
pub struct Levels {
    /// One for each level, after the skip is joined.
    pub blocks: Vec<ConvBlock>,
    /// One for each level, before the skip is joined.
    pub samplers: Vec<Upsampler>,
}

impl Levels {
    fn new(features: [usize; 4], kind: UpsamplerKind, device: &Device) -> Self {
        Self {
            blocks: features.windows(2).map(|pair| ConvBlock::new(pair[0], pair[1], device)).collect(),
            samplers: features.windows(2).map(|pair| Upsampler::new(pair[0], pair[1], kind, device)).collect(),
        }
    }

    fn forward(&self, x: Tensor<4>, skips: [Tensor<4>; 3]) -> Tensor<4> {
        self.samplers.iter().zip(&self.blocks).zip(skips).fold(x, |x, ((sampler, block), skip)| {
            let x = sampler.forward(x);
            let skip = centre_channels(skip, x.dims()[1]);
            block.forward([x, skip])
        })
    }
}

/// The middle `count` channels. Upstream's crop of a skip to the size of its partner trims the channel axis too, so that only
/// half of each skip is used; the released weights were trained so.
fn centre_channels(x: Tensor<4>, count: usize) -> Tensor<4> {
    let start = (x.dims()[1] - count) / 2;
    x.slice_dim(1, start..start + count)
}

/// Twice instance norm, 3 × 3 convolution and ReLU.
#[derive(Module, Debug)]
pub struct ConvBlock {
    /// The sequence; only the convolutions carry weights.
    pub block: ConvBlockSequence,
}

/// See [`ConvBlock`].
#[derive(Module, Debug)]
pub struct ConvBlockSequence {
    /// `[C_out, C_in, 3, 3]`
    pub _1: Conv2d,
    /// `[C_out, C_out, 3, 3]`
    pub _4: Conv2d,
}

impl ConvBlock {
    fn new(c_in: usize, c_out: usize, device: &Device) -> Self {
        let convolution = |c_in| Conv2d::new(c_in, c_out, 3, device).with_padding(1);
        Self { block: ConvBlockSequence { _1: convolution(c_in), _4: convolution(c_out) } }
    }

    fn channels(&self) -> usize {
        self.block._1.weight.lazy_shape()[1]
    }

    /// Of maps joined along the channels.
    fn forward<const I: usize>(&self, parts: [Tensor<4>; I]) -> Tensor<4> {
        recomputed(&self.block, parts, |ConvBlockSequence { _1, _4 }, parts| {
            let x = _1.forward_normed(parts.into(), Activation::Relu);
            _4.forward_normed(vec![x], Activation::Relu)
        })
    }
}

/// Doubles the size, then 3 × 3 convolution, batch norm and ReLU.
#[derive(Module, Debug)]
pub struct Deconv {
    /// The sequence; index 3 is the activation.
    pub block: DeconvSequence,
}

/// See [`Deconv`].
#[derive(Module, Debug)]
pub struct DeconvSequence {
    /// ×2.
    pub _0: Upsampler,
    /// 3 × 3.
    pub _1: SingleConv,
    /// Over the output channels.
    pub _2: BatchNorm2d,
}

/// A convolution under the name `block`.
#[derive(Module, Debug)]
pub struct SingleConv {
    /// `[C, C, 3, 3]`
    pub block: Conv2d,
}

impl Deconv {
    fn new(c_in: usize, c_out: usize, kind: UpsamplerKind, device: &Device) -> Self {
        let block = Conv2d::new(c_out, c_out, 3, device).with_padding(1);
        Self {
            block: DeconvSequence {
                _0: Upsampler::new(c_in, c_out, kind, device),
                _1: SingleConv { block },
                _2: BatchNorm2d::new(c_out, device),
            },
        }
    }

    fn forward(&self, x: Tensor<4>, statistics: BatchStatistics) -> Tensor<4> {
        recomputed(&self.block, [x], move |DeconvSequence { _0, _1, _2 }, [x]| {
            let x = _1.block.forward(_0.forward(x));
            match statistics {
                BatchStatistics::CurrentImage => _2.forward_batch_statistics(x, Activation::Relu),
                BatchStatistics::Running => relu(_2.forward(x)),
            }
        })
    }
}

/// Doubles the size and changes the channels.
#[derive(Module, Debug)]
pub enum Upsampler {
    /// Bilinear.
    Bilinear(BilinearUpsampler),
    /// Transposed convolution.
    Transposed(TransposedUpsampler),
}

/// See [`UpsamplerKind::Bilinear`].
#[derive(Module, Debug)]
pub struct BilinearUpsampler {
    /// `[C_out, C_in, 1, 1]`
    pub conv: Conv2d,
}

/// See [`UpsamplerKind::Transposed`].
#[derive(Module, Debug)]
pub struct TransposedUpsampler {
    /// `[C_in, C_out, 2, 2]`
    pub block: ConvTranspose2d,
}

impl Upsampler {
    fn new(c_in: usize, c_out: usize, kind: UpsamplerKind, device: &Device) -> Self {
        match kind {
            UpsamplerKind::Bilinear => Self::Bilinear(BilinearUpsampler { conv: Conv2d::new(c_in, c_out, 1, device) }),
            UpsamplerKind::Transposed => {
                Self::Transposed(TransposedUpsampler { block: ConvTranspose2d::new(c_in, c_out, 2, 2, device) })
            }
        }
    }

    /// `[N, C_in, h, w]` → `[N, C_out, 2 h, 2 w]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            // Upstream resizes first. A 1 × 1 convolution and an interpolation whose weights add up to 1 commute, bias and all;
            // this order computes a quarter.
            Self::Bilinear(sampler) => upsample2(sampler.conv.forward(x)),
            Self::Transposed(sampler) => sampler.block.forward(x),
        }
    }
}
