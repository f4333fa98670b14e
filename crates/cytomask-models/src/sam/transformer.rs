//! The two-way transformer of the mask decoder: tokens attend to the image and the image to the tokens. Reference:
//! `segment_anything/modeling/transformer.py`.
//!
//! The image side starts the same for all prompts. It is held once (batch 1) as long as that is so, through the projections and
//! first attention of layer 0; the reference repeats it for every prompt from the start.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use super::config::MaskDecoderConfig;
use crate::layers::{LayerNorm, Linear, TORCH_NORM_EPS, attention, relu};

/// Two-way transformer. Field names are the checkpoint's keys under `mask_decoder.transformer.`.
#[derive(Module, Debug)]
pub struct TwoWayTransformer {
    /// In order.
    pub layers: Vec<TwoWayBlock>,
    /// A last look at the image.
    pub final_attn_token_to_image: DownscaledAttention,
    /// After it.
    pub norm_final_attn: LayerNorm,
}

impl TwoWayTransformer {
    /// Placeholder values; see [`crate::loading`].
    pub fn new(config: &MaskDecoderConfig, device: &Device) -> Self {
        Self {
            layers: (0..config.depth).map(|index| TwoWayBlock::new(config, index == 0, device)).collect(),
            final_attn_token_to_image: DownscaledAttention::new(config, config.attention_downsample, device),
            norm_final_attn: LayerNorm::new(config.channels, TORCH_NORM_EPS, device),
        }
    }

    /// Tokens and image after the exchange.
    ///
    /// # Shapes
    /// tokens `[B, T, C]`, image `[1 or B, h · w, C]`, its positions `[1, h · w, C]` → `[B, T, C]`, `[B, h · w, C]`
    pub fn forward(&self, tokens: Tensor<3>, image: Tensor<3>, positions: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        // The tokens' positions are the tokens themselves, as they came in.
        let token_positions = tokens.clone();
        let (mut queries, mut keys) = (tokens, image);
        for layer in &self.layers {
            (queries, keys) = layer.forward(queries, keys, token_positions.clone(), positions.clone());
        }
        let attended = self.final_attn_token_to_image.forward(
            queries.clone() + token_positions,
            keys.clone() + positions,
            keys.clone(),
        );
        (self.norm_final_attn.forward(queries + attended), keys)
    }
}

/// One layer: self-attention, tokens to image, MLP, image to tokens.
#[derive(Module, Debug)]
pub struct TwoWayBlock {
    /// Among tokens.
    pub self_attn: DownscaledAttention,
    /// After self-attention.
    pub norm1: LayerNorm,
    /// Tokens look at the image.
    pub cross_attn_token_to_image: DownscaledAttention,
    /// After it.
    pub norm2: LayerNorm,
    /// Per token.
    pub mlp: TokenMlp,
    /// After it.
    pub norm3: LayerNorm,
    /// The image looks at the tokens.
    pub cross_attn_image_to_token: DownscaledAttention,
    /// After it.
    pub norm4: LayerNorm,
    /// Layer 0: no positions and no residual in the self-attention.
    first: bool,
}

impl TwoWayBlock {
    fn new(config: &MaskDecoderConfig, first: bool, device: &Device) -> Self {
        let norm = || LayerNorm::new(config.channels, TORCH_NORM_EPS, device);
        let cross = || DownscaledAttention::new(config, config.attention_downsample, device);
        Self {
            self_attn: DownscaledAttention::new(config, 1, device),
            norm1: norm(),
            cross_attn_token_to_image: cross(),
            norm2: norm(),
            mlp: TokenMlp {
                lin1: Linear::new(config.channels, config.mlp_channels, device),
                lin2: Linear::new(config.mlp_channels, config.channels, device),
            },
            norm3: norm(),
            cross_attn_image_to_token: cross(),
            norm4: norm(),
            first,
        }
    }

    /// # Shapes
    /// queries and their positions `[B, T, C]`, keys `[1 or B, L, C]`, their positions `[1, L, C]` → `[B, T, C]`, `[B, L, C]`
    fn forward(
        &self,
        queries: Tensor<3>,
        keys: Tensor<3>,
        query_positions: Tensor<3>,
        key_positions: Tensor<3>,
    ) -> (Tensor<3>, Tensor<3>) {
        let queries = self.among_tokens(queries, query_positions.clone());
        let placed_keys = keys.clone() + key_positions;
        let attended = self.cross_attn_token_to_image.forward(
            queries.clone() + query_positions.clone(),
            placed_keys.clone(),
            keys.clone(),
        );
        let queries = self.after_reading(queries, attended);
        let attended =
            self.cross_attn_image_to_token.forward(placed_keys, queries.clone() + query_positions, queries.clone());
        (queries, self.norm4.forward(keys + attended))
    }

    /// Tokens look at each other. `[B, T, C]` all.
    pub(super) fn among_tokens(&self, queries: Tensor<3>, positions: Tensor<3>) -> Tensor<3> {
        let queries = if self.first {
            self.self_attn.forward(queries.clone(), queries.clone(), queries)
        } else {
            let placed = queries.clone() + positions;
            queries.clone() + self.self_attn.forward(placed.clone(), placed, queries)
        };
        self.norm1.forward(queries)
    }

    /// What becomes of the tokens once they have read the image. `[B, T, C]` all.
    pub(super) fn after_reading(&self, queries: Tensor<3>, attended: Tensor<3>) -> Tensor<3> {
        let queries = self.norm2.forward(queries + attended);
        self.norm3.forward(queries.clone() + self.mlp.forward(queries))
    }
}

/// Two linear maps with ReLU between them.
#[derive(Module, Debug)]
pub struct TokenMlp {
    /// Widens.
    pub lin1: Linear,
    /// Narrows.
    pub lin2: Linear,
}

impl TokenMlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.lin2.forward(relu(self.lin1.forward(x)))
    }
}

/// Multi-head attention on fewer channels than the tokens have.
#[derive(Module, Debug)]
pub struct DownscaledAttention {
    /// `[C / rate, C]`
    pub q_proj: Linear,
    /// `[C / rate, C]`
    pub k_proj: Linear,
    /// `[C / rate, C]`
    pub v_proj: Linear,
    /// `[C, C / rate]`
    pub out_proj: Linear,
    pub(super) heads: usize,
}

impl DownscaledAttention {
    fn new(config: &MaskDecoderConfig, rate: usize, device: &Device) -> Self {
        let (outer, inner) = (config.channels, config.channels / rate);
        Self {
            q_proj: Linear::new(outer, inner, device),
            k_proj: Linear::new(outer, inner, device),
            v_proj: Linear::new(outer, inner, device),
            out_proj: Linear::new(inner, outer, device),
            heads: config.heads,
        }
    }

    /// A batch of 1 stands for all prompts.
    ///
    /// # Shapes
    /// `q` `[1 or B, Q, C]`, `k` and `v` `[1 or B, K, C]` → `[B, Q, C]`
    fn forward(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<3> {
        let batch = q.dims()[0].max(k.dims()[0]);
        let heads = |x: Tensor<3>| -> Tensor<4> {
            let [own, tokens, inner] = x.dims();
            let x = x.reshape([own, tokens, self.heads, inner / self.heads]).swap_dims(1, 2);
            if own == batch { x } else { x.expand([batch, self.heads, tokens, inner / self.heads]) }
        };
        let attended = attention(
            heads(self.q_proj.forward(q)),
            heads(self.k_proj.forward(k)),
            heads(self.v_proj.forward(v)),
            None,
        );
        let [_, _, tokens, head] = attended.dims(); // [B, heads, Q, head]
        self.out_proj.forward(attended.swap_dims(1, 2).reshape([batch, tokens, self.heads * head]))
    }
}
