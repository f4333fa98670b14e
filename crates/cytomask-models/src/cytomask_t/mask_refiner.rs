//! Doubles the resolution of SAM's masks: a linear form of decoder features, weighted by the mask token, is added to the
//! up-sampled logits (after the dynamic filters of CondInst and HQ-SAM's extra features).

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use super::config::CytomaskTConfig;
use crate::layers::{Conv2d, Mlp, gelu, upsample2};

/// High-resolution residual on the mask logits.
#[derive(Module, Debug)]
pub struct MaskRefiner {
    /// 1 × 1 on the stride-4 features.
    pub feat4: Conv2d,
    /// 1 × 1 on the stride-2 features.
    pub feat2: Conv2d,
    /// 3 × 3.
    pub conv3: Conv2d,
    /// Mask token → weights; one for all tokens.
    pub mlp: Mlp,
}

impl MaskRefiner {
    /// Placeholder values; see [`crate::loading`].
    pub fn new(config: &CytomaskTConfig, device: &Device) -> Self {
        let [_, _, _, w3, w4] = config.decoder_widths;
        let channels = config.refiner_channels;
        let hidden = config.refiner_hidden;
        Self {
            feat4: Conv2d::new(w3, channels, 1, device),
            feat2: Conv2d::new(w4, channels, 1, device),
            conv3: Conv2d::new(channels, channels, 3, device).with_padding(1),
            mlp: Mlp::new(&[config.encoder.out_channels, hidden, hidden, channels], device),
        }
    }

    /// The part that is the same for all prompts of an image.
    ///
    /// # Shapes
    /// `f4` `[N, W_3, H / 4, W / 4]`, `f2` `[N, W_4, H / 2, W / 2]` → `[N, C, H / 2, W / 2]`
    pub fn features(&self, f4: Tensor<4>, f2: Tensor<4>) -> Tensor<4> {
        self.conv3.forward(gelu(upsample2(self.feat4.forward(f4)) + self.feat2.forward(f2)))
    }

    /// Logits at stride 2.
    ///
    /// # Shapes
    /// `features` `[1, C, H / 2, W / 2]`, `low_res` `[P, K, H / 4, W / 4]`, `mask_tokens` `[P, K, 256]` →
    /// `[P, K, H / 2, W / 2]`
    pub fn refine(&self, features: Tensor<4>, low_res: Tensor<4>, mask_tokens: Tensor<3>) -> Tensor<4> {
        let [_, c, h, w] = features.dims();
        let [prompts, masks, _, _] = low_res.dims();
        let weights = self.mlp.forward(mask_tokens).reshape([prompts * masks, c]);
        let residual = weights.matmul(features.reshape([c, h * w]));
        upsample2(low_res) + residual.reshape([prompts, masks, h, w])
    }
}
