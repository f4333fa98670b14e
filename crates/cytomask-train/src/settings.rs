//! Everything that decides how a run goes, apart from its data and first weights.

use serde::{Deserialize, Serialize};

use crate::data::Augmentation;
use crate::{Error, ErrorKind};

/// What is trained for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Prompted masks and the maps of the instance decoder.
    #[default]
    Joint,
    /// The maps of the instance decoder alone.
    Decoder,
    /// Prompted masks alone.
    Promptable,
    /// Flows and cell probability (Cellpose-SAM).
    Flows,
}

impl Objective {
    /// Whether the maps of the instance decoder are trained.
    pub fn maps(self) -> bool {
        matches!(self, Self::Joint | Self::Decoder)
    }

    /// Whether prompted masks are trained.
    pub fn masks(self) -> bool {
        matches!(self, Self::Joint | Self::Promptable)
    }
}

/// How a step of joint training goes; docs/decisions/0034-joint-step.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// One optimizer step for the sum of both losses; first prompts are a point, a box, then both.
    #[default]
    Summed,
    /// µSAM's: an optimizer step for the masks, then one for the maps of the same crops; first prompts are a point or a box.
    MicroSam,
}

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Falls to zero as `(1 − t)` to the power 0.9.
    #[default]
    Polynomial,
    /// Falls to zero as half a cosine.
    Cosine,
    /// Stays, and falls to 0.9 of itself after every four validations without a better score; µSAM's `ReduceLROnPlateau`.
    Plateau,
    /// Stays.
    Constant,
}

/// A part of a network that can be held fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Image to embedding.
    ImageEncoder,
    /// Prompts to tokens.
    PromptEncoder,
    /// Tokens and embedding to masks; of cytomask-t also what refines them.
    MaskDecoder,
    /// Embedding to the three maps.
    InstanceDecoder,
}

/// Weights of a block that LoRA can update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matrix {
    /// To queries.
    Q,
    /// To keys.
    K,
    /// To values.
    V,
    /// From the attended values.
    Proj,
    /// Both of the MLP.
    Mlp,
}

impl Matrix {
    /// Queries and values.
    pub const DEFAULT: [Self; 2] = [Self::Q, Self::V];

    /// The layers that hold it, as ViT or TinyViT names them.
    pub(crate) fn layers(self) -> &'static [&'static str] {
        match self {
            Self::Q | Self::K | Self::V => &[".attn.qkv"],
            Self::Proj => &[".attn.proj"],
            Self::Mlp => &[".mlp.lin1", ".mlp.lin2", ".mlp.fc1", ".mlp.fc2"],
        }
    }
}

fn default_matrices() -> Vec<Matrix> {
    Matrix::DEFAULT.to_vec()
}

/// Ways to train few parameters of the image encoder (µSAM's `peft_kwargs`); the rest of the encoder is held fixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peft {
    /// Low-rank updates (Hu et al. 2021).
    Lora {
        /// Rows of the narrow side.
        rank: usize,
        /// The update is multiplied by this; µSAM's is 1.
        alpha: f32,
        /// Of which weights.
        #[serde(default = "default_matrices")]
        matrices: Vec<Matrix>,
    },
    /// Low-rank updates of queries and values whose outer matrices the blocks share (Jie and Deng 2023).
    Fact {
        /// Rows of the narrow side.
        rank: usize,
        /// The update is multiplied by this; µSAM's is 1.
        alpha: f32,
    },
    /// Scales and shifts of what layers give (Lian et al. 2022).
    Ssf,
    /// The attention layers (`AttentionSurgery`).
    Attention,
    /// Biases (`BiasSurgery`).
    Bias,
    /// The norms of the blocks (`LayerNormSurgery`).
    LayerNorm,
    /// Whole blocks (`ClassicalSurgery`).
    Blocks,
}

impl Peft {
    /// What it is called in flags, messages and files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lora { .. } => "lora",
            Self::Fact { .. } => "fact",
            Self::Ssf => "ssf",
            Self::Attention => "attention",
            Self::Bias => "bias",
            Self::LayerNorm => "layer_norm",
            Self::Blocks => "blocks",
        }
    }

    /// How many times the learning rate of full training it wants: ten where it trains adapters, which begin at nothing and are few
    /// (measured for LoRA: docs/train.md, "Ten images").
    pub fn rate_factor(&self) -> f64 {
        match self {
            Self::Lora { .. } | Self::Fact { .. } | Self::Ssf => 10.0,
            Self::Attention | Self::Bias | Self::LayerNorm | Self::Blocks => 1.0,
        }
    }
}

/// Everything that decides how a run goes, apart from its data and first weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSettings {
    /// What is trained for.
    pub objective: Objective,
    /// How a step of joint training goes.
    pub schedule: Schedule,
    /// Optimizer steps of the whole run (of [`Schedule::MicroSam`]: pairs of them).
    pub iterations: u64,
    /// Crops that are run together.
    pub batch_size: usize,
    /// Batches whose gradients are averaged before a step.
    pub accumulation: usize,
    /// Side of a crop, pixels, a multiple of 32.
    pub crop_side: u32,
    /// Side that SAMs see a crop enlarged to, pixels, a multiple of 32; other networks see it as it is.
    pub input_side: u32,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of AdamW.
    pub weight_decay: f32,
    /// The gradient of each parameter is scaled down to this norm; none: as it is.
    pub gradient_norm: Option<f32>,
    /// Steps over which the learning rate rises from zero.
    pub warm_up: u64,
    /// How it goes on.
    pub decay: Decay,
    /// Objects prompted for in a crop.
    pub objects_per_crop: usize,
    /// Rounds of prompts: the first one, then corrections.
    pub sub_iterations: usize,
    /// How likely a correction is given together with the mask it corrects.
    pub mask_probability: f64,
    /// How crops are changed.
    pub augmentation: Augmentation,
    /// Share of crops that are taken with objects or without.
    pub empty_share: f64,
    /// Parts held fixed.
    pub freeze: Vec<Part>,
    /// How few parameters of the image encoder are trained; none: all of them.
    pub peft: Option<Peft>,
    /// Blocks of the image encoder that `peft` changes, from 0; empty: all (of [`Peft::Blocks`]: the last one).
    pub peft_blocks: Vec<usize>,
    /// Share of the moving average that is kept at each step; the average is validated and exported. None: the weights themselves.
    pub average: Option<f64>,
    /// Validations without a better score after which the run ends.
    pub patience: Option<u64>,
    /// Blocks of Cellpose-SAM are left out of a step with a probability that rises to this.
    pub stochastic_depth: f64,
    /// Whether parts of the network are computed again for gradients instead of keeping what lies between their inputs and results.
    pub recompute: bool,
    /// Seed of sampling and augmentation.
    pub seed: u64,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            objective: Objective::Joint,
            schedule: Schedule::Summed,
            iterations: 1000,
            batch_size: 4,
            accumulation: 1,
            crop_side: 224,
            input_side: 1024,
            learning_rate: 1e-4,
            weight_decay: 0.01,
            gradient_norm: Some(5.0),
            warm_up: 50,
            decay: Decay::Polynomial,
            objects_per_crop: 8,
            sub_iterations: 2,
            mask_probability: 0.0,
            augmentation: Augmentation::default(),
            empty_share: 0.05,
            freeze: Vec::new(),
            peft: None,
            peft_blocks: Vec::new(),
            average: None,
            patience: None,
            stochastic_depth: 0.4,
            recompute: false,
            seed: 0,
        }
    }
}

impl TrainSettings {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |name: &str, expected: &str, found: String| {
            Err(Error::new(ErrorKind::Setting, format!("{name}: expected {expected}, found {found}")))
        };
        if self.crop_side == 0 || !self.crop_side.is_multiple_of(32) {
            return wrong("patch_shape", "a multiple of 32", self.crop_side.to_string());
        }
        if self.input_side == 0 || !self.input_side.is_multiple_of(32) {
            return wrong("input_side", "a multiple of 32", self.input_side.to_string());
        }
        if self.batch_size == 0 || self.iterations == 0 || self.sub_iterations == 0 || self.accumulation == 0 {
            let names = "batch_size, n_iterations, n_sub_iteration and gradient_accumulation";
            return wrong(names, "at least 1", "0".into());
        }
        if !(self.learning_rate > 0.0 && self.learning_rate < 1.0) {
            return wrong("learning_rate", "a number above 0 and below 1", self.learning_rate.to_string());
        }
        if !(0.0..=1.0).contains(&self.empty_share) {
            return wrong("empty_share", "a number from 0 to 1", self.empty_share.to_string());
        }
        for (name, value) in [("mask_prob", self.mask_probability), ("stochastic_depth", self.stochastic_depth)] {
            if !(0.0..=1.0).contains(&value) {
                return wrong(name, "a share from 0 to 1", value.to_string());
            }
        }
        if let Some(kept) = self.average
            && !(0.0..1.0).contains(&kept)
        {
            return wrong("ema", "at least 0 and below 1", kept.to_string());
        }
        if self.peft.is_some() && self.freeze.contains(&Part::ImageEncoder) {
            return wrong(
                "freeze",
                "no image_encoder beside peft, which trains a few of its parameters",
                "both".into(),
            );
        }
        if let Some(Peft::Lora { rank, alpha, .. } | Peft::Fact { rank, alpha }) = self.peft
            && (rank == 0 || !alpha.is_finite())
        {
            return wrong("rank and alpha", "a rank of at least 1 and a finite alpha", format!("{rank} and {alpha}"));
        }
        if matches!(&self.peft, Some(Peft::Lora { matrices, .. }) if matrices.is_empty()) {
            return wrong("update_matrices", "at least one of q, k, v, proj and mlp", "none".into());
        }
        Ok(())
    }
}
