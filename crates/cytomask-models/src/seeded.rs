//! Reproducible tensors from a name and a shape, the same in `parity/seeded.py`.
//!
//! Golden files store outputs only: weights and inputs are made on both sides from the names the checkpoints use. Values are
//! uniform, scaled so that activations keep their size through a deep network.

use burn::module::Module;

use crate::{
    error::Error,
    loading::{TensorSource, load_into, state_shapes},
    sam::{MaskDecoderConfig, PromptEncoderConfig, SamConfig, VitConfig},
};

/// The small network of the golden files: `parity/sam.py` and `parity/training.py` build the same.
pub const SMALL_SAM: SamConfig = SamConfig {
    encoder: VitConfig {
        trained_side: 160,
        patch_size: 16,
        embed_dim: 32,
        depth: 3,
        heads: 2,
        mlp_ratio: 4,
        window: 4,
        global_blocks: &[1],
        out_channels: 32,
    },
    prompt_encoder: PromptEncoderConfig { channels: 32, mask_channels: 16 },
    mask_decoder: MaskDecoderConfig {
        channels: 32,
        depth: 2,
        heads: 4,
        mlp_channels: 64,
        attention_downsample: 2,
        multimask_outputs: 3,
        iou_head_channels: 24,
        iou_head_depth: 3,
    },
};

/// Names whose values lie in ±0.5: tables and tokens, where a scale by fan-in would make them vanish.
const TABLES: [&str; 8] = [
    "pos_embed",
    "rel_pos",
    "attention_biases",
    "gaussian_matrix",
    "token.weight",
    "tokens.weight",
    "point_embeddings",
    "_embed.weight",
];

/// Row-major values of the tensor called `key`: SplitMix64 started from the FNV-1a hash of the key.
pub fn seeded(key: &str, shape: &[usize]) -> Vec<f32> {
    let hash = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let (offset, factor) = scale(key, shape);
    (1..=shape.iter().product::<usize>() as u64)
        .map(|index| {
            let mut z = hash.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            let uniform = (z >> 40) as f64 / f64::from(1 << 23) - 1.0;
            (offset + factor * uniform) as f32
        })
        .collect()
}

/// Offset and factor of the uniform value in `[-1, 1)`; the first rule that fits.
fn scale(key: &str, shape: &[usize]) -> (f64, f64) {
    if key.ends_with("running_var") {
        (1.0, 0.5)
    } else if key.ends_with("running_mean") {
        (0.0, 0.1)
    } else if key.ends_with("num_batches_tracked") {
        (0.0, 0.0)
    } else if TABLES.iter().any(|name| key.contains(name)) {
        (0.0, 0.5)
    } else if shape.len() >= 2 {
        (0.0, (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt())
    } else if key.ends_with(".weight") {
        (1.0, 0.1)
    } else {
        (0.0, 0.1)
    }
}

/// A module with seeded values, named as in a checkpoint of it alone.
///
/// # Errors
/// `Shape` and others of [`load_into`], which say that a module's names and shapes do not agree with each other.
pub fn filled<M: Module>(module: M) -> Result<M, Error> {
    let source = Seeded::of(&module, "");
    Ok(load_into(module, &source, "")?.module)
}

/// A checkpoint of seeded tensors for every parameter of a module.
#[derive(Clone, Debug)]
pub struct Seeded {
    key_prefix: String,
    shapes: Vec<(String, Vec<usize>)>,
}

impl Seeded {
    /// For the parameters of `module` under `prefix`, as [`crate::loading::load_into`] names them.
    pub fn of<M: Module>(module: &M, prefix: &str) -> Self {
        Self { key_prefix: String::new(), shapes: state_shapes(module, prefix) }
    }

    /// Seeds from `key_prefix` + name, for tensors that live in another state dict (`decoder_state/`).
    #[must_use]
    pub fn with_key_prefix(mut self, key_prefix: &str) -> Self {
        self.key_prefix = key_prefix.to_owned();
        self
    }
}

impl TensorSource for Seeded {
    fn names(&self) -> Vec<String> {
        self.shapes.iter().map(|(name, _)| name.clone()).collect()
    }

    fn get(&self, name: &str) -> Option<Result<(Vec<usize>, Vec<f32>), Error>> {
        let (_, shape) = self.shapes.iter().find(|(known, _)| known == name)?;
        Some(Ok((shape.clone(), seeded(&format!("{}{name}", self.key_prefix), shape))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values printed by `parity/seeded.py`.
    #[test]
    fn equals_the_python_side() {
        let found = seeded("image_encoder.blocks.0.attn.qkv.weight", &[6, 4]);
        assert_eq!(found[..4], QKV);
        assert_eq!(seeded("a.norm1.weight", &[7])[0], NORM);
        assert_eq!(seeded("a.num_batches_tracked", &[]), [0.0]);
    }

    const QKV: [f32; 4] = [-0.23886445, -0.69659775, -0.14389846, -0.64077765];
    const NORM: f32 = 0.961089;
}
