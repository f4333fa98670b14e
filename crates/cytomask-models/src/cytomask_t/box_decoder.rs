//! The decoder of boxes: for every cell of stride 4 the box of the object that lies there, as the cell sees it.
//!
//! After FCOS (Tian et al., ICCV 2019); the rating of a box is its expected overlap, as in Generalized Focal Loss (Li et al., NeurIPS
//! 2020). A box is seen from many cells; which one stays is for the strategy (`cytomask_segment::apg`).

use burn::{
    module::Module,
    tensor::{Device, Tensor, activation::sigmoid},
};
use cytomask_image::LogitFrame;
use cytomask_segment::{BoxPrompt, ProposedBox};

use super::{config::CytomaskTConfig, model::in_image_frame};
use crate::{
    layers::{Activation, Conv2d, ConvBn, upsample2},
    loading::values,
    tiny_vit::TinyVitTaps,
};

/// Pixels of the network's input from one cell to the next.
pub const BOX_STRIDE: usize = 4;
/// Pixels that an output of 0 for a distance stands for.
const UNIT_PX: f32 = 16.0;
/// Limits of the logarithm of a distance in that unit.
const LOG_DISTANCE: [f32; 2] = [-6.0, 5.0];
/// Boxes rated lower than this are never worth a prompt and are not handed on.
const LEAST_SCORE: f32 = 0.15;

/// From encoder taps to boxes.
#[derive(Module, Debug)]
pub struct BoxDecoder {
    /// 1 × 1, skip channels → width: embedding, strides 8 and 4 of the encoder, stride 4 of the instance decoder.
    pub lateral: Vec<Conv2d>,
    /// Two 3 × 3 convolutions for each of the strides 16, 8 and 4.
    pub blocks: Vec<Vec<ConvBn>>,
    /// 1 × 1, to the rating and the four distances.
    pub out_conv: Conv2d,
}

/// What the decoder starts from.
#[derive(Clone, Debug)]
pub struct BoxTaps {
    /// `[N, 256, H / 16, W / 16]`, the embedding.
    t16: Tensor<4>,
    /// Of the encoder, stride 8.
    t8: Tensor<4>,
    /// Of the encoder, stride 4.
    t4: Tensor<4>,
    /// Of the instance decoder, stride 4.
    f4: Tensor<4>,
}

impl BoxTaps {
    /// Of the encoder's taps and [`super::InstanceFeatures::f4`].
    pub fn new(taps: &TinyVitTaps, f4: &Tensor<4>) -> Self {
        Self { t16: taps.embedding.clone(), t8: taps.t8.clone(), t4: taps.t4.clone(), f4: f4.clone() }
    }
}

impl BoxDecoder {
    /// Placeholder values; see [`crate::loading`].
    pub fn new(config: &CytomaskTConfig, device: &Device) -> Self {
        let width = config.box_width;
        let [c0, c1, _, _] = config.encoder.embed_dims;
        let skips = [config.encoder.out_channels, c1, c0, config.decoder_widths[3]];
        let convolution = || ConvBn::new(Conv2d::new(width, width, 3, device).with_padding(1));
        Self {
            lateral: skips.iter().map(|&skip| Conv2d::new(skip, width, 1, device)).collect(),
            blocks: (0..3).map(|_| vec![convolution(), convolution()]).collect(),
            out_conv: Conv2d::new(width, 5, 1, device),
        }
    }

    /// # Shapes
    /// taps of `[N, 3, H, W]` → `[N, 5, H / 4, W / 4]`: the logit of the rating, and the logarithms of the distances to the left, top,
    /// right and bottom edge in units of 16 pixels
    pub fn forward(&self, BoxTaps { t16, t8, t4, f4 }: &BoxTaps) -> Tensor<4> {
        let level = |index: usize, x: Tensor<4>| {
            self.blocks[index].iter().fold(x, |x, block| block.forward_then(x, Activation::Relu))
        };
        let skip = |index: usize, tap: &Tensor<4>| self.lateral[index].forward(tap.clone());
        let at16 = level(0, skip(0, t16));
        let at8 = level(1, upsample2(at16) + skip(1, t8));
        let at4 = level(2, upsample2(at8) + skip(2, t4) + skip(3, f4));
        self.out_conv.forward(at4)
    }
}

/// Ratings and edges of what [`BoxDecoder::forward`] gives.
///
/// # Shapes
/// `[N, 5, h, w]` → ratings `[N, 1, h, w]`, 0–1, and edges `[N, 4, h, w]`: left, top, right, bottom, in pixels of the input from the
/// outer edge of its first pixel
pub fn box_edges(raw: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    let [_, _, h, w] = raw.dims();
    let device = raw.device();
    let distance = raw.clone().narrow(1, 1, 4).clamp(LOG_DISTANCE[0], LOG_DISTANCE[1]).exp() * UNIT_PX;
    let middles = |count: usize| -> Vec<f32> { (0..count).map(|at| (at as f32 + 0.5) * BOX_STRIDE as f32).collect() };
    let y = Tensor::<1>::from_floats(middles(h).as_slice(), &device).reshape([1, 1, h, 1]);
    let x = Tensor::<1>::from_floats(middles(w).as_slice(), &device).reshape([1, 1, 1, w]);
    let part = |index: usize| distance.clone().narrow(1, index, 1);
    let edges = Tensor::cat(vec![-part(0) + x.clone(), -part(1) + y.clone(), part(2) + x, part(3) + y], 1);
    (sigmoid(raw.narrow(1, 0, 1)), edges)
}

/// The boxes of one image, in its own frame: one for each cell that shows an object.
///
/// # Shapes
/// `raw` `[1, 5, h, w]`, from [`BoxDecoder::forward`]
pub(super) fn proposed_boxes(raw: Tensor<4>, frame: &LogitFrame) -> Vec<ProposedBox> {
    let [_, _, h, w] = raw.dims();
    let (score, edges) = box_edges(raw);
    let (score, edges) = (values(score), values(edges));
    let [input_h, input_w] = frame.input.map(|side| side as f32);
    let [rows, columns] = frame.input.map(|side| (side as usize).div_ceil(BOX_STRIDE));
    let to_image = |at: f32, axis: usize| in_image_frame(at, axis, frame);
    let mut boxes = Vec::new();
    for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
        let cell = row * w + column;
        if score[cell] < LEAST_SCORE {
            continue;
        }
        let edge = |index: usize, limit: f32| edges[index * h * w + cell].clamp(0.0, limit);
        let middle = |at: usize, axis: usize| {
            let at = to_image((at as f32 + 0.5) * BOX_STRIDE as f32 - 0.5, axis).round().max(0.0) as u32;
            at.min(frame.image[axis] - 1)
        };
        boxes.push(ProposedBox {
            bounds: BoxPrompt {
                y0: to_image(edge(1, input_h), 0),
                x0: to_image(edge(0, input_w), 1),
                y1: to_image(edge(3, input_h) - 1.0, 0),
                x1: to_image(edge(2, input_w) - 1.0, 1),
            },
            point: [middle(row, 0), middle(column, 1)],
            score: score[cell],
        });
    }
    boxes
}
