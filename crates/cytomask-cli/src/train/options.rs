//! How a run goes, as flags; µSAM's and Cellpose's names where they have one.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use cytomask::train::{Decay, Objective, Part, Peft, Schedule, TrainSettings};
use cytomask::training::Defaults;

#[derive(Args)]
#[command(next_help_heading = "Training")]
pub(crate) struct TrainOptions {
    /// What is trained for; auto: flows for Cellpose-SAM, else joint.
    #[arg(long, value_enum, default_value_t = ObjectiveChoice::Auto)]
    objective: ObjectiveChoice,
    /// One optimizer step for both losses, or µSAM's two.
    #[arg(long, value_enum, default_value_t = ScheduleChoice::Summed)]
    schedule: ScheduleChoice,
    /// Optimizer steps.
    #[arg(long = "n_iterations", default_value_t = 1000)]
    iterations: u64,
    /// Crops in a batch [default: 4, fewer where memory is short; SAM and Cellpose-SAM: 1]
    #[arg(long = "batch_size")]
    batch_size: Option<usize>,
    /// Batches whose gradients are averaged before each step.
    #[arg(long = "gradient_accumulation", default_value_t = 1)]
    accumulation: usize,
    /// Side of the training crops, a multiple of 32 [default: 224, more on large machines, less for small images; SAM: 512]
    #[arg(long = "patch_shape")]
    patch_shape: Option<u32>,
    /// Side that a SAM sees a crop enlarged to; it sees whole images at 1024.
    #[arg(long = "input_side", default_value_t = 1024)]
    input_side: u32,
    /// Peak learning rate [default: 1e-4; SAM and Cellpose-SAM: 1e-5]
    #[arg(long = "learning_rate", alias = "lr")]
    learning_rate: Option<f64>,
    /// Decay of AdamW [default: 0.01; Cellpose-SAM: 0.1]
    #[arg(long = "weight_decay")]
    weight_decay: Option<f32>,
    /// Steps over which the learning rate rises.
    #[arg(long = "warm_up", default_value_t = 50)]
    warm_up: u64,
    /// How the learning rate goes on after that.
    #[arg(long = "lr_schedule", value_enum, default_value_t = DecayChoice::Polynomial)]
    lr_schedule: DecayChoice,
    /// Objects prompted for in each crop.
    #[arg(long = "n_objects_per_batch", default_value_t = 8)]
    objects_per_crop: usize,
    /// Rounds of prompts [default: 2; with --schedule micro-sam: 8]
    #[arg(long = "n_sub_iteration")]
    sub_iterations: Option<usize>,
    /// How likely a correction comes with the mask it corrects [default: 0; with --schedule micro-sam: 0.5]
    #[arg(long = "mask_prob")]
    mask_probability: Option<f64>,
    /// Parts held fixed.
    #[arg(long, value_enum, value_delimiter = ',')]
    freeze: Vec<PartChoice>,
    /// Train few parameters of the image encoder.
    #[arg(long, value_enum)]
    peft: Option<PeftChoice>,
    /// Rank of LoRA.
    #[arg(long, default_value_t = 4)]
    rank: usize,
    /// Factor of LoRA's updates.
    #[arg(long, default_value_t = 1.0)]
    alpha: f32,
    /// Blocks of the image encoder that --peft changes, from 0 [default: all; with blocks: the last]
    #[arg(long = "peft_blocks", value_delimiter = ',')]
    peft_blocks: Vec<usize>,
    /// Keep a moving average of the weights, validate and export it; the share kept at each step, such as 0.999.
    #[arg(long)]
    ema: Option<f64>,
    /// End after so many validations without a better score.
    #[arg(long = "early_stopping")]
    early_stopping: Option<u64>,
    /// Largest probability to leave out a block of Cellpose-SAM in a step.
    #[arg(long = "stochastic_depth", default_value_t = 0.4)]
    stochastic_depth: f64,
    /// Compute cheap operations again for gradients instead of keeping their results: less memory, more time.
    #[arg(long)]
    recompute: bool,
    /// Seed of sampling and augmentation.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ObjectiveChoice {
    Auto,
    /// Prompted masks and decoder maps.
    Joint,
    /// Decoder maps.
    Decoder,
    /// Prompted masks.
    Promptable,
    /// Cellpose's flows and cell probability.
    Flows,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScheduleChoice {
    Summed,
    MicroSam,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DecayChoice {
    Polynomial,
    Cosine,
    /// Lower after validations without a better score.
    Plateau,
    Constant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum PartChoice {
    ImageEncoder,
    PromptEncoder,
    MaskDecoder,
    InstanceDecoder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum PeftChoice {
    /// Low-rank updates of queries and values.
    Lora,
    /// Attention layers.
    Attention,
    /// Biases.
    Bias,
    /// Norms.
    LayerNorm,
    /// Whole blocks.
    Blocks,
    #[value(hide = true)]
    Fact,
    #[value(hide = true)]
    Ssf,
    #[value(hide = true)]
    Adaptformer,
    #[value(hide = true)]
    Qlora,
}

impl TrainOptions {
    /// The settings for a network that predicts flows, or sees images at their own scale.
    pub(super) fn settings(&self, predicts_flows: bool, own_scale: bool, defaults: &Defaults) -> Result<TrainSettings> {
        let micro_sam = self.schedule == ScheduleChoice::MicroSam;
        let objective = match self.objective {
            ObjectiveChoice::Auto if predicts_flows => Objective::Flows,
            ObjectiveChoice::Auto | ObjectiveChoice::Joint => Objective::Joint,
            ObjectiveChoice::Decoder => Objective::Decoder,
            ObjectiveChoice::Promptable => Objective::Promptable,
            ObjectiveChoice::Flows => Objective::Flows,
        };
        let peft = match self.peft {
            None => None,
            Some(PeftChoice::Lora) => Some(Peft::Lora { rank: self.rank, alpha: self.alpha }),
            Some(PeftChoice::Attention) => Some(Peft::Attention),
            Some(PeftChoice::Bias) => Some(Peft::Bias),
            Some(PeftChoice::LayerNorm) => Some(Peft::LayerNorm),
            Some(PeftChoice::Blocks) => Some(Peft::Blocks),
            Some(other) => {
                let name = other.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
                bail!("--peft {name}: not supported yet; expected lora, attention, bias, layer_norm or blocks");
            }
        };
        Ok(TrainSettings {
            objective,
            schedule: if micro_sam { Schedule::MicroSam } else { Schedule::Summed },
            iterations: self.iterations,
            batch_size: self.batch_size.unwrap_or(if own_scale { defaults.batch_size } else { 1 }),
            accumulation: self.accumulation,
            crop_side: self.patch_shape.unwrap_or(match (own_scale, predicts_flows) {
                (true, _) => defaults.crop_side,
                (_, true) => 224,
                _ => 512,
            }),
            input_side: self.input_side,
            learning_rate: self.learning_rate.unwrap_or(if own_scale { 1e-4 } else { 1e-5 }),
            weight_decay: self.weight_decay.unwrap_or(if predicts_flows { 0.1 } else { 0.01 }),
            warm_up: self.warm_up,
            decay: match self.lr_schedule {
                DecayChoice::Polynomial => Decay::Polynomial,
                DecayChoice::Cosine => Decay::Cosine,
                DecayChoice::Plateau => Decay::Plateau,
                DecayChoice::Constant => Decay::Constant,
            },
            objects_per_crop: self.objects_per_crop,
            sub_iterations: self.sub_iterations.unwrap_or(if micro_sam { 8 } else { 2 }),
            mask_probability: self.mask_probability.unwrap_or(if micro_sam { 0.5 } else { 0.0 }),
            freeze: self.freeze.iter().map(|part| part.part()).collect(),
            peft,
            peft_blocks: self.peft_blocks.clone(),
            average: self.ema,
            patience: self.early_stopping,
            stochastic_depth: self.stochastic_depth,
            recompute: self.recompute,
            seed: self.seed,
            ..TrainSettings::default()
        })
    }
}

impl PartChoice {
    fn part(self) -> Part {
        match self {
            Self::ImageEncoder => Part::ImageEncoder,
            Self::PromptEncoder => Part::PromptEncoder,
            Self::MaskDecoder => Part::MaskDecoder,
            Self::InstanceDecoder => Part::InstanceDecoder,
        }
    }
}
