//! SAM's prompt encoder: points and boxes become tokens, mask logits become a map added to the embedding. Reference:
//! `segment_anything/modeling/prompt_encoder.py`.
//!
//! Coordinates are divided by an extent before they are encoded. SAM divides by the padded input, so that the frame is always
//! the unit square; cytomask-t always divides by 1024, so that a pixel keeps its meaning at any input size. The extent is an
//! argument of every method that needs it, `[height, width]` in pixels of the network's input.

use std::f32::consts::TAU;

use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData},
};
use cytomask_segment::Prompt;

use super::config::PromptEncoderConfig;
use crate::{
    error::{Error, ErrorKind},
    layers::{Conv2d, Embedding, LayerNorm2d, buffer, gelu},
};

/// What a prompt token stands for. The order is that of the table [`PromptEncoder::kinds`] builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenKind {
    /// Padding: the position is dropped.
    NotAPoint,
    Negative,
    Positive,
    TopLeft,
    BottomRight,
}

/// Prompt encoder. Field names are the checkpoint's keys under `prompt_encoder.`.
#[derive(Module, Debug)]
pub struct PromptEncoder {
    /// Positions.
    pub pe_layer: RandomPositions,
    /// Negative, positive, top left corner, bottom right corner; each `[1, C]`.
    pub point_embeddings: Vec<Embedding>,
    /// Padding point, `[1, C]`.
    pub not_a_point_embed: Embedding,
    /// Mask logits to the embedding's grid.
    pub mask_downscaling: MaskDownscaling,
    /// Added everywhere when there is no mask, `[1, C]`.
    pub no_mask_embed: Embedding,
}

impl PromptEncoder {
    /// Placeholder values; see [`crate::loading`].
    pub fn new(config: &PromptEncoderConfig, device: &Device) -> Self {
        let token = || Embedding::new(1, config.channels, device);
        Self {
            pe_layer: RandomPositions {
                positional_encoding_gaussian_matrix: buffer([2, config.channels / 2], 0.0, device),
            },
            point_embeddings: (0..4).map(|_| token()).collect(),
            not_a_point_embed: token(),
            mask_downscaling: MaskDownscaling::new(config, device),
            no_mask_embed: token(),
        }
    }

    /// Tokens of the points and boxes of some prompts. All prompts must have the same number of points, and all or none a box.
    /// Coordinates are in pixels of the network's input, the centre of the top-left pixel at `(0, 0)`; masks are not looked at.
    ///
    /// # Shapes
    /// `B` prompts → `[B, T, C]`, `T` = points + 1 without a box (a padding point is appended), points + 2 with one; 0 when a
    /// prompt has neither
    ///
    /// # Errors
    /// `Value` when there is no prompt, or the prompts differ in form.
    pub fn sparse(&self, prompts: &[Prompt], extent: [f32; 2]) -> Result<Tensor<3>, Error> {
        let Some(first) = prompts.first() else {
            return Err(Error::new(ErrorKind::Value, "prompts: expected at least one, found none"));
        };
        let form = (first.points.len(), first.bounds.is_some());
        if let Some(odd) = prompts.iter().find(|prompt| (prompt.points.len(), prompt.bounds.is_some()) != form) {
            let found = (odd.points.len(), odd.bounds.is_some());
            let message =
                format!("prompts of one batch: expected all of form (points, has box) {form:?}, found {found:?}");
            return Err(Error::new(ErrorKind::Value, message));
        }
        let tokens: Vec<Vec<(TokenKind, [f32; 2])>> = prompts.iter().map(tokens_of).collect();
        let (batch, count) = (tokens.len(), tokens[0].len());
        let device = self.no_mask_embed.weight.lazy_device();
        let channels = self.no_mask_embed.weight.lazy_shape()[1];
        if count == 0 {
            return Ok(Tensor::zeros([batch, 0, channels], &device));
        }
        // Pixel centres lie at half-integers of the frame the extent measures.
        let positions: Vec<f32> =
            tokens.iter().flatten().flat_map(|(_, [y, x])| [(x + 0.5) / extent[1], (y + 0.5) / extent[0]]).collect();
        let positions =
            self.pe_layer.encode(Tensor::from_data(TensorData::new(positions, [batch * count, 2]), &device));
        let kinds: Vec<TokenKind> = tokens.iter().flatten().map(|(kind, _)| *kind).collect();
        let placed: Vec<f32> = kinds.iter().map(|kind| f32::from(*kind != TokenKind::NotAPoint)).collect();
        let placed = Tensor::<2>::from_data(TensorData::new(placed, [batch * count, 1]), &device);
        let rows: Vec<i32> = kinds.iter().map(|kind| *kind as i32).collect();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [batch * count]), &device);
        Ok((positions * placed + self.kinds().select(0, rows)).reshape([batch, count, channels]))
    }

    /// One row for each [`TokenKind`], `[5, C]`.
    fn kinds(&self) -> Tensor<2> {
        let rows = std::iter::once(&self.not_a_point_embed).chain(&self.point_embeddings);
        Tensor::cat(rows.map(|row| row.weight.val()).collect(), 0)
    }

    /// The map that stands for "no mask", to be broadcast.
    ///
    /// # Shapes
    /// → `[1, C, 1, 1]`
    pub fn no_mask(&self) -> Tensor<4> {
        let weight = self.no_mask_embed.weight.val();
        let [_, channels] = weight.dims();
        weight.reshape([1, channels, 1, 1])
    }

    /// Mask prompts.
    ///
    /// # Shapes
    /// logits `[B, 1, 4 h, 4 w]` → `[B, C, h, w]`
    pub fn masks(&self, logits: Tensor<4>) -> Tensor<4> {
        self.mask_downscaling.forward(logits)
    }

    /// Positions of the embedding's pixels, `stride` input pixels apart.
    ///
    /// # Shapes
    /// → `[1, C, h, w]` for `grid` `[h, w]`
    pub fn dense_positions(&self, grid: [usize; 2], stride: usize, extent: [f32; 2]) -> Tensor<4> {
        self.dense_positions_from([0, 0], grid, stride, extent)
    }

    /// As [`PromptEncoder::dense_positions`] of a window of a larger grid, from pixel `[y, x]` of it on.
    ///
    /// # Shapes
    /// → `[1, C, h, w]`
    pub fn dense_positions_from(
        &self,
        [top, left]: [usize; 2],
        [h, w]: [usize; 2],
        stride: usize,
        extent: [f32; 2],
    ) -> Tensor<4> {
        let at = |index: usize, extent: f32| (index as f32 + 0.5) * stride as f32 / extent;
        let row = |y: usize| (left..left + w).flat_map(move |x| [at(x, extent[1]), at(y, extent[0])]);
        let positions: Vec<f32> = (top..top + h).flat_map(row).collect();
        let device = self.no_mask_embed.weight.lazy_device();
        let encoded = self.pe_layer.encode(Tensor::from_data(TensorData::new(positions, [h * w, 2]), &device));
        let [_, channels] = encoded.dims();
        encoded.transpose().reshape([1, channels, h, w])
    }
}

/// The tokens of one prompt with their `[y, x]`.
fn tokens_of(prompt: &Prompt) -> Vec<(TokenKind, [f32; 2])> {
    let mut tokens: Vec<_> = prompt
        .points
        .iter()
        .map(|point| (if point.positive { TokenKind::Positive } else { TokenKind::Negative }, [point.y, point.x]))
        .collect();
    match &prompt.bounds {
        Some(bounds) => tokens
            .extend([(TokenKind::TopLeft, [bounds.y0, bounds.x0]), (TokenKind::BottomRight, [bounds.y1, bounds.x1])]),
        // The decoder was trained to see a padding point whenever there are points and no box.
        None if !tokens.is_empty() => tokens.push((TokenKind::NotAPoint, [0.0, 0.0])),
        None => {}
    }
    tokens
}

/// Random Fourier features of positions (Tancik et al. 2020).
#[derive(Module, Debug)]
pub struct RandomPositions {
    /// `[2, C / 2]`, rows x and y; fixed.
    pub positional_encoding_gaussian_matrix: Param<Tensor<2>>,
}

impl RandomPositions {
    /// # Shapes
    /// `(x, y)` in the unit square `[N, 2]` → `[N, C]`
    fn encode(&self, positions: Tensor<2>) -> Tensor<2> {
        let matrix = self.positional_encoding_gaussian_matrix.val().detach();
        let phases = (positions * 2.0 - 1.0).matmul(matrix) * TAU;
        Tensor::cat(vec![phases.clone().sin(), phases.cos()], 1)
    }
}

/// Mask logits to the embedding's grid and channels. Indices are those of the reference's sequence.
#[derive(Module, Debug)]
pub struct MaskDownscaling {
    /// 2×2, stride 2.
    pub _0: Conv2d,
    /// Norm, then GELU.
    pub _1: LayerNorm2d,
    /// 2×2, stride 2.
    pub _3: Conv2d,
    /// Norm, then GELU.
    pub _4: LayerNorm2d,
    /// 1×1.
    pub _6: Conv2d,
}

impl MaskDownscaling {
    fn new(config: &PromptEncoderConfig, device: &Device) -> Self {
        let (first, second) = (config.mask_channels / 4, config.mask_channels);
        Self {
            _0: Conv2d::new(1, first, 2, device).with_stride(2),
            _1: LayerNorm2d::new(first, device),
            _3: Conv2d::new(first, second, 2, device).with_stride(2),
            _4: LayerNorm2d::new(second, device),
            _6: Conv2d::new(second, config.channels, 1, device),
        }
    }

    /// # Shapes
    /// `[B, 1, 4 h, 4 w]` → `[B, C, h, w]`
    fn forward(&self, logits: Tensor<4>) -> Tensor<4> {
        let x = gelu(self._1.forward(self._0.forward(logits)));
        self._6.forward(gelu(self._4.forward(self._3.forward(x))))
    }
}
