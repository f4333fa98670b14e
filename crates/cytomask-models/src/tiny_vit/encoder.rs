//! The encoder top-down: stem, one stage of convolutions, three stages of attention, neck.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use super::{attention::TinyVitBlock, config::TinyVitConfig};
use crate::{
    error::Error,
    layers::{Activation, Conv2d, ConvBn, LayerNorm2d, recomputed},
};

/// Image encoder of MobileSAM. Field names are the checkpoint's keys under `image_encoder.`.
#[derive(Module, Debug)]
pub struct TinyVit {
    /// Stem, stride 4.
    pub patch_embed: PatchEmbed,
    /// Four stages.
    pub layers: Stages,
    /// To the embedding's channels.
    pub neck: Neck,
}

/// The encoder's output and the feature maps a decoder takes as skips.
#[derive(Clone, Debug)]
pub struct TinyVitTaps {
    /// `[N, C_0 / 2, H / 2, W / 2]`, after the stem's first convolution and GELU.
    pub t2: Tensor<4>,
    /// `[N, C_0, H / 4, W / 4]`, after the blocks of stage 0, before its merging.
    pub t4: Tensor<4>,
    /// `[N, C_1, H / 8, W / 8]`, after the blocks of stage 1, before its merging.
    pub t8: Tensor<4>,
    /// `[N, 256, H / 16, W / 16]`, after the neck.
    pub embedding: Tensor<4>,
}

impl TinyVit {
    /// Placeholder values; see [`crate::loading`].
    pub fn new(config: &TinyVitConfig, device: &Device) -> Self {
        Self {
            patch_embed: PatchEmbed::new(config.embed_dims[0], device),
            layers: Stages::new(config, device),
            neck: Neck::new(config.embed_dims[3], config.out_channels, device),
        }
    }

    /// # Shapes
    /// `[N, 3, H, W]` → `[N, 256, H / 16, W / 16]`, `H` and `W` multiples of 32
    ///
    /// # Errors
    /// `Shape` when the input is not of that form.
    pub fn forward(&self, image: Tensor<4>) -> Result<Tensor<4>, Error> {
        Ok(self.forward_with_taps(image)?.embedding)
    }

    /// As [`TinyVit::forward`], with the feature maps on the way.
    ///
    /// # Errors
    /// `Shape` when the input is not `[N, 3, H, W]` with `H` and `W` multiples of 32 and not 0.
    pub fn forward_with_taps(&self, image: Tensor<4>) -> Result<TinyVitTaps, Error> {
        let [n, channels, h, w] = image.dims();
        let fits = |side: usize| side != 0 && side.is_multiple_of(TinyVitConfig::INPUT_MULTIPLE);
        if channels != 3 || n == 0 || !fits(h) || !fits(w) {
            return Err(Error::shape("image encoder input", "[N, 3, 32·h, 32·w]", [n, channels, h, w]));
        }
        let (t2, x) = self.patch_embed.forward(image);
        // Between stem and neck the channels lie last.
        let t4 = self.layers._0.forward(x.permute([0, 2, 3, 1]));
        let t8 = self.layers._1.forward(self.layers._0.downsample.forward(t4.clone()));
        let x = self.layers._1.merge(t8.clone());
        let x = self.layers._2.merge(self.layers._2.forward(x));
        let x = self.layers._3.forward(x);
        let [t4, t8, x] = [t4, t8, x].map(|x| x.permute([0, 3, 1, 2]));
        Ok(TinyVitTaps { t2, t4, t8, embedding: self.neck.forward(x) })
    }
}

/// Two strided convolutions, GELU between them.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    /// The sequence; index 1 is the activation.
    pub seq: Stem,
}

/// See [`PatchEmbed`].
#[derive(Module, Debug)]
pub struct Stem {
    /// `[C / 2, 3, 3, 3]`, stride 2.
    pub _0: ConvBn,
    /// `[C, C / 2, 3, 3]`, stride 2.
    pub _2: ConvBn,
}

impl PatchEmbed {
    fn new(channels: usize, device: &Device) -> Self {
        let strided = |c_in, c_out| ConvBn::new(Conv2d::new(c_in, c_out, 3, device).with_stride(2).with_padding(1));
        Self { seq: Stem { _0: strided(3, channels / 2), _2: strided(channels / 2, channels) } }
    }

    /// `[N, 3, H, W]` → `[N, C / 2, H / 2, W / 2]` and `[N, C, H / 4, W / 4]`.
    fn forward(&self, image: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let half = self.seq._0.forward_then(image, Activation::Gelu);
        (half.clone(), self.seq._2.forward(half))
    }
}

/// The four stages under their index.
#[derive(Module, Debug)]
pub struct Stages {
    /// Stride 4, convolutions.
    pub _0: ConvStage,
    /// Stride 8, attention.
    pub _1: AttentionStage,
    /// Stride 16, attention.
    pub _2: AttentionStage,
    /// Stride 16 (`vit_t`), attention.
    pub _3: AttentionStage,
}

impl Stages {
    fn new(config: &TinyVitConfig, device: &Device) -> Self {
        let [c0, c1, _, _] = config.embed_dims;
        Self {
            _0: ConvStage {
                blocks: (0..config.depths[0]).map(|_| MbConv::new(c0, config.expand_ratio, device)).collect(),
                downsample: PatchMerging::new(c0, c1, config.merge_strides[0], device),
            },
            _1: AttentionStage::new(config, 1, device),
            _2: AttentionStage::new(config, 2, device),
            _3: AttentionStage::new(config, 3, device),
        }
    }
}

/// Inverted-bottleneck convolutions, channels last.
#[derive(Module, Debug)]
pub struct ConvStage {
    /// In order.
    pub blocks: Vec<MbConv>,
    /// To the next stage.
    pub downsample: PatchMerging,
}

impl ConvStage {
    /// The blocks without the merging.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.blocks.iter().fold(x, |x, block| block.forward(x))
    }
}

/// Blocks of windowed attention, channels last.
#[derive(Module, Debug)]
pub struct AttentionStage {
    /// In order.
    pub blocks: Vec<TinyVitBlock>,
    /// To the next stage; the last stage has none.
    pub downsample: Option<PatchMerging>,
}

impl AttentionStage {
    fn new(config: &TinyVitConfig, stage: usize, device: &Device) -> Self {
        let channels = config.embed_dims[stage];
        let (heads, window) = (config.heads[stage - 1], config.windows[stage - 1]);
        let block = || TinyVitBlock::new(channels, heads, window, config.mlp_ratio, device);
        let merging = |&next: &usize| PatchMerging::new(channels, next, config.merge_strides[stage], device);
        Self {
            blocks: (0..config.depths[stage]).map(|_| block()).collect(),
            downsample: config.embed_dims.get(stage + 1).map(merging),
        }
    }

    /// The blocks without the merging.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.blocks.iter().fold(x, |x, block| block.forward(x))
    }

    fn merge(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.downsample {
            Some(downsample) => downsample.forward(x),
            None => x,
        }
    }
}

/// Widens, filters each channel, narrows; the activation follows the residual addition.
#[derive(Module, Debug)]
pub struct MbConv {
    /// 1 × 1, `C → expand · C`.
    pub conv1: ConvBn,
    /// 3 × 3, one filter for each channel.
    pub conv2: ConvBn,
    /// 1 × 1, `expand · C → C`.
    pub conv3: ConvBn,
}

impl MbConv {
    fn new(channels: usize, expand_ratio: usize, device: &Device) -> Self {
        let hidden = channels * expand_ratio;
        Self {
            conv1: ConvBn::new(Conv2d::new(channels, hidden, 1, device)),
            conv2: depthwise(hidden, 1, device),
            conv3: ConvBn::new(Conv2d::new(hidden, channels, 1, device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        recomputed(self, [x], |block, [x]| {
            let y = block.conv1.forward_last(x.clone(), Activation::Gelu, None, Activation::None);
            let y = block.conv2.forward_last(y, Activation::Gelu, None, Activation::None);
            block.conv3.forward_last(y, Activation::None, Some(x), Activation::Gelu)
        })
    }
}

/// Changes the channels and, with stride 2, halves the size.
#[derive(Module, Debug)]
pub struct PatchMerging {
    /// 1 × 1, `C_in → C_out`.
    pub conv1: ConvBn,
    /// 3 × 3, one filter for each channel, strided.
    pub conv2: ConvBn,
    /// 1 × 1, `C_out → C_out`.
    pub conv3: ConvBn,
}

impl PatchMerging {
    fn new(c_in: usize, c_out: usize, stride: usize, device: &Device) -> Self {
        Self {
            conv1: ConvBn::new(Conv2d::new(c_in, c_out, 1, device)),
            conv2: depthwise(c_out, stride, device),
            conv3: ConvBn::new(Conv2d::new(c_out, c_out, 1, device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.conv1.forward_last(x, Activation::Gelu, None, Activation::None);
        let x = self.conv2.forward_last(x, Activation::Gelu, None, Activation::None);
        self.conv3.forward_last(x, Activation::None, None, Activation::None)
    }
}

/// A 3 × 3 convolution of each channel on its own, with its norm.
pub(super) fn depthwise(channels: usize, stride: usize, device: &Device) -> ConvBn {
    ConvBn::new(Conv2d::new(channels, channels, 3, device).depthwise().with_stride(stride).with_padding(1))
}

/// SAM's neck: 1 × 1 and 3 × 3 convolutions without bias, each followed by a layer norm over channels.
#[derive(Module, Debug)]
pub struct Neck {
    /// `[C_out, C, 1, 1]`
    pub _0: Conv2d,
    /// `[C_out]`
    pub _1: LayerNorm2d,
    /// `[C_out, C_out, 3, 3]`
    pub _2: Conv2d,
    /// `[C_out]`
    pub _3: LayerNorm2d,
}

impl Neck {
    fn new(channels: usize, out_channels: usize, device: &Device) -> Self {
        Self {
            _0: Conv2d::new(channels, out_channels, 1, device).without_bias(),
            _1: LayerNorm2d::new(out_channels, device),
            _2: Conv2d::new(out_channels, out_channels, 3, device).with_padding(1).without_bias(),
            _3: LayerNorm2d::new(out_channels, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self._3.forward(self._2.forward(self._1.forward(self._0.forward(x))))
    }
}
