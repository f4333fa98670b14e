//! The attention block: attention inside windows, a depthwise convolution, an MLP.

use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData},
};

use super::encoder::depthwise;
use crate::layers::{
    Activation, Around, ConvBn, LayerNorm, Linear, MapAttention, Positions, QkvOrder, TORCH_NORM_EPS, map_attention,
    parameter, recomputed,
};

/// Attention, local convolution and MLP of one block.
#[derive(Module, Debug)]
pub struct TinyVitBlock {
    /// Inside windows, with its own layer norm.
    pub attn: WindowAttention,
    /// 3 × 3 on each channel, between attention and MLP; replaces its input.
    pub local_conv: ConvBn,
    /// With its own layer norm.
    pub mlp: TinyVitMlp,
}

impl TinyVitBlock {
    pub(super) fn new(channels: usize, heads: usize, window: usize, mlp_ratio: usize, device: &Device) -> Self {
        Self {
            attn: WindowAttention::new(channels, heads, window, device),
            local_conv: depthwise(channels, 1, device),
            mlp: TinyVitMlp::new(channels, channels * mlp_ratio, device),
        }
    }

    /// # Shapes
    /// `[N, H, W, C]` → `[N, H, W, C]`, any `H`, `W`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        recomputed(self, [x], |block, [x]| {
            let x = block.attn.forward(x);
            let x = block.local_conv.forward_last(x, Activation::None, None, Activation::None);
            block.mlp.forward(x)
        })
    }
}

/// Multi-head attention inside square windows with a learnt bias for each distance `(|dy|, |dx|)`.
#[derive(Module, Debug)]
pub struct WindowAttention {
    /// `[heads, window²]`, at `|dy| · window + |dx|`.
    pub attention_biases: Param<Tensor<2>>,
    /// `[C]`
    pub norm: LayerNorm,
    /// `[3 C, C]`; the rows of one head lie together: its queries, its keys, its values. (SAM's ViT keeps the queries of all
    /// heads together.)
    pub qkv: Linear,
    /// `[C, C]`
    pub proj: Linear,
    heads: usize,
    window: usize,
}

impl WindowAttention {
    fn new(channels: usize, heads: usize, window: usize, device: &Device) -> Self {
        Self {
            attention_biases: parameter([heads, window * window], 0.0, device),
            norm: LayerNorm::new(channels, TORCH_NORM_EPS, device),
            qkv: Linear::new(channels, 3 * channels, device),
            proj: Linear::new(channels, channels, device),
            heads,
            window,
        }
    }

    /// With the residual. Windows are padded with zeros BEFORE the layer norm, as upstream does: padded tokens enter as the norm's
    /// bias and are attended to.
    ///
    /// # Shapes
    /// `[N, H, W, C]` → `[N, H, W, C]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let qkv = self.qkv.forward_around(x.clone(), Around { norm: Some(&self.norm), ..Around::default() });
        let outside = self.qkv.forward(self.norm.bias.val().unsqueeze::<2>()).squeeze_dim::<1>(0);
        let attention = MapAttention {
            heads: self.heads,
            order: QkvOrder::HeadsFirst,
            window: Some(self.window),
            outside: Some(outside),
            positions: Positions::Table(self.bias()),
            precision: self.qkv.precision(),
        };
        let attended = map_attention(qkv, attention);
        self.proj.forward_around(attended, Around { residual: Some(x), ..Around::default() })
    }

    /// `[heads, tokens, tokens]`
    fn bias(&self) -> Tensor<3> {
        let tokens = self.window * self.window;
        let biases = self.attention_biases.val();
        let indices = Tensor::<1, Int>::from_data(
            TensorData::new(distance_indices(self.window), [tokens * tokens]),
            &biases.device(),
        );
        biases.select(1, indices).reshape([self.heads, tokens, tokens])
    }
}

/// Where the bias of each pair of tokens of a window lies in its table, row-major `[tokens, tokens]`.
///
/// Upstream numbers the distances in the order in which they first occur; for a square window walked row by row that is
/// `|dy| · window + |dx|`, because all distances occur from the first token.
fn distance_indices(window: usize) -> Vec<i32> {
    let tokens = window * window;
    (0..tokens * tokens)
        .map(|pair| {
            let (a, b) = (pair / tokens, pair % tokens);
            let dy = (a / window).abs_diff(b / window);
            let dx = (a % window).abs_diff(b % window);
            (dy * window + dx) as i32
        })
        .collect()
}

/// Layer norm, widening, GELU, narrowing.
#[derive(Module, Debug)]
pub struct TinyVitMlp {
    /// `[C]`
    pub norm: LayerNorm,
    /// `[hidden, C]`
    pub fc1: Linear,
    /// `[C, hidden]`
    pub fc2: Linear,
}

impl TinyVitMlp {
    fn new(channels: usize, hidden: usize, device: &Device) -> Self {
        Self {
            norm: LayerNorm::new(channels, TORCH_NORM_EPS, device),
            fc1: Linear::new(channels, hidden, device),
            fc2: Linear::new(hidden, channels, device),
        }
    }

    /// `[N, H, W, C]` → `[N, H, W, C]`, with the residual.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let around = Around { norm: Some(&self.norm), activation: Activation::Gelu, residual: None };
        let hidden = self.fc1.forward_around(x.clone(), around);
        self.fc2.forward_around(hidden, Around { residual: Some(x), ..Around::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::distance_indices;

    /// Upstream's numbering as it is written there: a distance gets the next number when first seen.
    fn first_seen(window: usize) -> Vec<i32> {
        let places: Vec<(usize, usize)> = (0..window).flat_map(|y| (0..window).map(move |x| (y, x))).collect();
        let mut known: Vec<(usize, usize)> = Vec::new();
        let mut indices = Vec::new();
        for a in &places {
            for b in &places {
                let distance = (a.0.abs_diff(b.0), a.1.abs_diff(b.1));
                let index = known.iter().position(|other| *other == distance).unwrap_or_else(|| {
                    known.push(distance);
                    known.len() - 1
                });
                indices.push(index as i32);
            }
        }
        indices
    }

    #[test]
    fn distances_are_numbered_as_upstream() {
        for window in [1, 2, 7, 14] {
            assert_eq!(distance_indices(window), first_seen(window), "window {window}");
        }
        // Tokens of a 2 × 2 window: the diagonal neighbour of the first one is number 3.
        assert_eq!(distance_indices(2)[..4], [0, 1, 2, 3]);
    }
}
