//! The network. Field names are the checkpoint's keys; `_0`, `_1`, `_2` are indices of its sequences (a ReLU has none).

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, module as ops, ops::MaxPoolOptions},
};
use cytomask_weights::TensorMap;

use crate::layers::{BatchNorm2d, Conv2d, Linear, buffer, relu};
use crate::loading::load_into;
use crate::{Error, ErrorKind};

/// Levels of the U-Net.
const LEVELS: usize = 4;

/// Channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpNetConfig {
    /// Of the image, 2 for all released ones; then of each level. cyto3: 2, 32, 64, 128, 256.
    pub channels: [usize; LEVELS + 1],
}

impl CpNetConfig {
    /// The sizes of the network whose tensors these are.
    ///
    /// # Errors
    /// `Format` or `MissingTensor` for a file of another layout; `Unsupported` for networks of Cellpose that give no flows.
    pub fn of(tensors: &TensorMap) -> Result<Self, Error> {
        let shape = |name: &str| {
            let found = tensors.get(name).map(|view| view.shape.to_vec());
            found.ok_or_else(|| Error::new(ErrorKind::MissingTensor, format!("tensor `{name}` is missing")))
        };
        let mut channels = [0; LEVELS + 1];
        for level in 0..LEVELS {
            let name = format!("downsample.down.res_down_{level}.proj.1.weight");
            let found = shape(&name)?;
            let &[c_out, c_in, 1, 1] = found.as_slice() else {
                return Err(Error::shape(format_args!("tensor `{name}`"), "[C_out, C_in, 1, 1]", found));
            };
            channels[level] = c_in;
            channels[level + 1] = c_out;
        }
        let outputs = shape("output.2.weight")?.first().copied().unwrap_or_default();
        if outputs != 3 || channels[0] > 3 {
            let message = format!(
                "a Cellpose network of {} channels with {outputs} outputs: expected 1 to 3 channels and 3 outputs (flows \
                 and cell probability); networks that restore images are not supported",
                channels[0]
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(Self { channels })
    }
}

/// Cellpose's network.
#[derive(Module, Debug)]
pub struct CpNet {
    /// Encoder.
    pub downsample: Downsample,
    /// Decoder.
    pub upsample: Upsample,
    /// To the three maps.
    pub output: BatchConv,
    /// Mean diameter of the objects of the fine-tuning images, pixels.
    pub diam_labels: Param<Tensor<1>>,
    /// Diameter the network was trained at, pixels.
    pub diam_mean: Param<Tensor<1>>,
}

impl CpNet {
    /// Placeholder values; see [`crate::loading`].
    pub fn new(config: &CpNetConfig, device: &Device) -> Self {
        let c = config.channels;
        let style = c[LEVELS];
        let down = |level: usize| ResDown::new(c[level], c[level + 1], device);
        // The deepest decoder level takes the deepest map as it is.
        let up = |level: usize| ResUp::new(c[(level + 2).min(LEVELS)], c[level + 1], style, device);
        Self {
            downsample: Downsample {
                down: Down { res_down_0: down(0), res_down_1: down(1), res_down_2: down(2), res_down_3: down(3) },
            },
            upsample: Upsample { up: Up { res_up_0: up(0), res_up_1: up(1), res_up_2: up(2), res_up_3: up(3) } },
            output: BatchConv::new(c[1], 3, 1, device),
            diam_labels: buffer([1], 30.0, device),
            diam_mean: buffer([1], 30.0, device),
        }
    }

    /// From a file of Cellpose 1 to 3.
    ///
    /// # Errors
    /// `MissingTensor`, `Shape`, `Format` or `Unsupported` for tensors that do not fit.
    pub fn load(tensors: &TensorMap, device: &Device) -> Result<Self, Error> {
        let loaded = load_into(Self::new(&CpNetConfig::of(tensors)?, device), tensors, "")?;
        match loaded.unused.first() {
            Some(name) => Err(Error::new(ErrorKind::Format, format!("tensor `{name}` has no place in Cellpose 3"))),
            None => Ok(loaded.module),
        }
    }

    /// Channels of an image.
    pub fn channels(&self) -> usize {
        self.downsample.down.res_down_0.proj._1.weight.lazy_shape()[1]
    }

    /// The three maps (flow along y, flow along x, logit of being in a cell) and the style of each image.
    ///
    /// # Shapes
    /// `[N, C, H, W]` → `[N, 3, H, W]` and `[N, S]`, `H` and `W` multiples of 8
    ///
    /// # Errors
    /// `Shape` when the input is not of that form.
    pub fn forward(&self, image: Tensor<4>) -> Result<(Tensor<4>, Tensor<2>), Error> {
        let [n, channels, h, w] = image.dims();
        let fits = |side: usize| side != 0 && side.is_multiple_of(8);
        if channels != self.channels() || n == 0 || !fits(h) || !fits(w) {
            let expected = format!("[N, {}, 8·h, 8·w]", self.channels());
            return Err(Error::shape("Cellpose network input", expected, [n, channels, h, w]));
        }
        let maps = self.downsample.forward(image);
        let style = style(maps[LEVELS - 1].clone());
        Ok((self.output.forward(self.upsample.forward(&style, maps)), style))
    }
}

/// Mean of each channel, all divided by their Euclidean length.
///
/// # Shapes
/// `[N, C, H, W]` → `[N, C]`
fn style(x: Tensor<4>) -> Tensor<2> {
    let [n, c, h, w] = x.dims();
    let mean = x.reshape([n, c, h * w]).mean_dim(2).reshape([n, c]);
    let length = mean.clone().powf_scalar(2.0).sum_dim(1).sqrt();
    mean / length
}

/// Norm, ReLU, convolution.
#[derive(Module, Debug)]
pub struct BatchConv {
    /// Frozen norm.
    pub _0: BatchNorm2d,
    /// Keeps the size.
    pub _2: Conv2d,
}

impl BatchConv {
    fn new(c_in: usize, c_out: usize, kernel: usize, device: &Device) -> Self {
        Self {
            _0: BatchNorm2d::new(c_in, device),
            _2: Conv2d::new(c_in, c_out, kernel, device).with_padding(kernel / 2),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self._2.forward(relu(self._0.forward(x)))
    }
}

/// Norm and 1×1 convolution.
#[derive(Module, Debug)]
pub struct Projection {
    /// Frozen norm.
    pub _0: BatchNorm2d,
    /// 1×1.
    pub _1: Conv2d,
}

impl Projection {
    fn new(c_in: usize, c_out: usize, device: &Device) -> Self {
        Self { _0: BatchNorm2d::new(c_in, device), _1: Conv2d::new(c_in, c_out, 1, device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self._1.forward(self._0.forward(x))
    }
}

/// The encoder.
#[derive(Module, Debug)]
pub struct Downsample {
    /// Its levels.
    pub down: Down,
}

/// Levels of the encoder, full size first.
#[derive(Module, Debug)]
pub struct Down {
    /// At 1 / 1 of the size.
    pub res_down_0: ResDown,
    /// At 1 / 2 of the size.
    pub res_down_1: ResDown,
    /// At 1 / 4 of the size.
    pub res_down_2: ResDown,
    /// At 1 / 8 of the size.
    pub res_down_3: ResDown,
}

impl Downsample {
    /// The maps of all levels.
    pub(super) fn forward(&self, image: Tensor<4>) -> [Tensor<4>; LEVELS] {
        let half = |x: &Tensor<4>| ops::max_pool2d(x.clone(), MaxPoolOptions::new([2, 2]));
        let Down { res_down_0, res_down_1, res_down_2, res_down_3 } = &self.down;
        let first = res_down_0.forward(image);
        let second = res_down_1.forward(half(&first));
        let third = res_down_2.forward(half(&second));
        let fourth = res_down_3.forward(half(&third));
        [first, second, third, fourth]
    }
}

/// A level of the encoder.
#[derive(Module, Debug)]
pub struct ResDown {
    /// Four convolutions.
    pub conv: DownConvs,
    /// Around the first two.
    pub proj: Projection,
}

/// In order.
#[derive(Module, Debug)]
pub struct DownConvs {
    /// First.
    pub conv_0: BatchConv,
    /// Second.
    pub conv_1: BatchConv,
    /// Third.
    pub conv_2: BatchConv,
    /// Fourth.
    pub conv_3: BatchConv,
}

impl ResDown {
    fn new(c_in: usize, c_out: usize, device: &Device) -> Self {
        let conv = |c_in: usize| BatchConv::new(c_in, c_out, 3, device);
        Self {
            conv: DownConvs { conv_0: conv(c_in), conv_1: conv(c_out), conv_2: conv(c_out), conv_3: conv(c_out) },
            proj: Projection::new(c_in, c_out, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let DownConvs { conv_0, conv_1, conv_2, conv_3 } = &self.conv;
        let x = self.proj.forward(x.clone()) + conv_1.forward(conv_0.forward(x));
        x.clone() + conv_3.forward(conv_2.forward(x))
    }
}

/// The decoder.
#[derive(Module, Debug)]
pub struct Upsample {
    /// Its levels.
    pub up: Up,
}

/// Levels of the decoder, full size first.
#[derive(Module, Debug)]
pub struct Up {
    /// At 1 / 1 of the size.
    pub res_up_0: ResUp,
    /// At 1 / 2 of the size.
    pub res_up_1: ResUp,
    /// At 1 / 4 of the size.
    pub res_up_2: ResUp,
    /// At 1 / 8 of the size.
    pub res_up_3: ResUp,
}

impl Upsample {
    fn forward(&self, style: &Tensor<2>, maps: [Tensor<4>; LEVELS]) -> Tensor<4> {
        let [first, second, third, fourth] = maps;
        let Up { res_up_0, res_up_1, res_up_2, res_up_3 } = &self.up;
        let x = res_up_3.forward(fourth.clone(), fourth, style);
        let x = res_up_2.forward(twice(x), third, style);
        let x = res_up_1.forward(twice(x), second, style);
        res_up_0.forward(twice(x), first, style)
    }
}

/// Each pixel four times.
///
/// # Shapes
/// `[N, C, H, W]` → `[N, C, 2H, 2W]`
fn twice(x: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    x.reshape([n * c, h, 1, w, 1]).expand([n * c, h, 2, w, 2]).reshape([n, c, 2 * h, 2 * w])
}

/// A level of the decoder.
#[derive(Module, Debug)]
pub struct ResUp {
    /// Four convolutions, three of which are told the style.
    pub conv: UpConvs,
    /// Around the first two.
    pub proj: Projection,
}

/// In order.
#[derive(Module, Debug)]
pub struct UpConvs {
    /// First.
    pub conv_0: BatchConv,
    /// Second.
    pub conv_1: StyledConv,
    /// Third.
    pub conv_2: StyledConv,
    /// Fourth.
    pub conv_3: StyledConv,
}

impl ResUp {
    fn new(c_in: usize, c_out: usize, style: usize, device: &Device) -> Self {
        let styled =
            || StyledConv { conv: BatchConv::new(c_out, c_out, 3, device), full: Linear::new(style, c_out, device) };
        Self {
            conv: UpConvs {
                conv_0: BatchConv::new(c_in, c_out, 3, device),
                conv_1: styled(),
                conv_2: styled(),
                conv_3: styled(),
            },
            proj: Projection::new(c_in, c_out, device),
        }
    }

    fn forward(&self, x: Tensor<4>, skip: Tensor<4>, style: &Tensor<2>) -> Tensor<4> {
        let UpConvs { conv_0, conv_1, conv_2, conv_3 } = &self.conv;
        let x = self.proj.forward(x.clone()) + conv_1.forward(style, conv_0.forward(x) + skip);
        x.clone() + conv_3.forward(style, conv_2.forward(style, x))
    }
}

/// [`BatchConv`] of the map plus what the style says of each channel.
#[derive(Module, Debug)]
pub struct StyledConv {
    /// After the sum.
    pub conv: BatchConv,
    /// From the style.
    pub full: Linear,
}

impl StyledConv {
    fn forward(&self, style: &Tensor<2>, x: Tensor<4>) -> Tensor<4> {
        let [n, c, _, _] = x.dims();
        self.conv.forward(x + self.full.forward(style.clone()).reshape([n, c, 1, 1]))
    }
}
