//! How a run goes, as flags; µSAM's and Cellpose's names where they have one.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use cytomask::train::{Decay, Matrix, Objective, Part, Peft, Schedule, TrainSettings};
use cytomask::training::Defaults;

/// Of LoRA: what gave nine tenths of full training's gain on ten images (docs/train.md).
const LORA_RANK: usize = 8;

/// Of FacT: the paper's.
const FACT_RANK: usize = 16;

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
    /// Peak learning rate [default: 1e-4; SAM and Cellpose-SAM: 1e-5; ten times that with --peft lora, fact or ssf]
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
    /// Rank of the updates [default: lora 8, fact 16]
    #[arg(long)]
    rank: Option<usize>,
    /// Factor of the updates of lora and fact [default: 1]
    #[arg(long)]
    alpha: Option<f32>,
    /// Weights that lora updates [default: q,v]
    #[arg(long = "update_matrices", value_enum, value_delimiter = ',', value_name = "MATRIX")]
    update_matrices: Vec<MatrixChoice>,
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
    /// Compute parts of the network again for gradients instead of keeping what lies between: less memory; auto: on for SAM and
    /// Cellpose-SAM on the CPU where keeping would take more than half of the free memory.
    #[arg(long, value_enum, default_value_t = RecomputeChoice::Auto)]
    recompute: RecomputeChoice,
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
enum RecomputeChoice {
    Auto,
    On,
    Off,
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
    /// Low-rank updates of queries and values, or of --update_matrices.
    Lora,
    /// The same with outer matrices that all blocks share.
    Fact,
    /// Scales and shifts of what layers give.
    Ssf,
    /// Attention layers.
    Attention,
    /// Biases.
    Bias,
    /// Norms.
    LayerNorm,
    /// Whole blocks.
    Blocks,
    #[value(hide = true)]
    Adaptformer,
    #[value(hide = true)]
    Qlora,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MatrixChoice {
    /// To queries.
    Q,
    /// To keys.
    K,
    /// To values.
    V,
    /// After attention.
    Proj,
    /// Both of the MLP.
    Mlp,
}

impl TrainOptions {
    /// The settings for a network that predicts flows, or sees images at their own scale. `recomputes` says of the other
    /// settings whether parts had better be run again than all be kept. What no flag says is as in `stored`, the run that is gone on with,
    /// whatever the defaults have become on this machine or in this version.
    pub(super) fn settings(
        &self,
        [predicts_flows, own_scale]: [bool; 2],
        recomputes: &dyn Fn(&TrainSettings) -> bool,
        defaults: &Defaults,
        stored: Option<&TrainSettings>,
    ) -> Result<TrainSettings> {
        let micro_sam = self.schedule == ScheduleChoice::MicroSam;
        let objective = match self.objective {
            ObjectiveChoice::Auto if predicts_flows => Objective::Flows,
            ObjectiveChoice::Auto | ObjectiveChoice::Joint => Objective::Joint,
            ObjectiveChoice::Decoder => Objective::Decoder,
            ObjectiveChoice::Promptable => Objective::Promptable,
            ObjectiveChoice::Flows => Objective::Flows,
        };
        let peft = self.peft(stored.and_then(|stored| stored.peft.as_ref()))?;
        let full_rate = if own_scale { 1e-4 } else { 1e-5 };
        let usual = TrainSettings {
            batch_size: if own_scale { defaults.batch_size } else { 1 },
            crop_side: match (own_scale, predicts_flows) {
                (true, _) => defaults.crop_side,
                (_, true) => 224,
                _ => 512,
            },
            learning_rate: full_rate * peft.as_ref().map_or(1.0, Peft::rate_factor),
            weight_decay: if predicts_flows { 0.1 } else { 0.01 },
            sub_iterations: if micro_sam { 8 } else { 2 },
            mask_probability: if micro_sam { 0.5 } else { 0.0 },
            ..TrainSettings::default()
        };
        let unsaid = stored.unwrap_or(&usual);
        let mut settings = TrainSettings {
            objective,
            schedule: if micro_sam { Schedule::MicroSam } else { Schedule::Summed },
            iterations: self.iterations,
            batch_size: self.batch_size.unwrap_or(unsaid.batch_size),
            accumulation: self.accumulation,
            crop_side: self.patch_shape.unwrap_or(unsaid.crop_side),
            input_side: self.input_side,
            learning_rate: self.learning_rate.unwrap_or(unsaid.learning_rate),
            weight_decay: self.weight_decay.unwrap_or(unsaid.weight_decay),
            warm_up: self.warm_up,
            decay: match self.lr_schedule {
                DecayChoice::Polynomial => Decay::Polynomial,
                DecayChoice::Cosine => Decay::Cosine,
                DecayChoice::Plateau => Decay::Plateau,
                DecayChoice::Constant => Decay::Constant,
            },
            objects_per_crop: self.objects_per_crop,
            sub_iterations: self.sub_iterations.unwrap_or(unsaid.sub_iterations),
            mask_probability: self.mask_probability.unwrap_or(unsaid.mask_probability),
            freeze: self.freeze.iter().map(|part| part.part()).collect(),
            peft,
            peft_blocks: self.peft_blocks.clone(),
            average: self.ema,
            patience: self.early_stopping,
            stochastic_depth: self.stochastic_depth,
            recompute: self.recompute == RecomputeChoice::On,
            seed: self.seed,
            ..TrainSettings::default()
        };
        if self.recompute == RecomputeChoice::Auto {
            // A resumed run does as it began: the two ways differ by rounding.
            settings.recompute = stored.map_or_else(|| recomputes(&settings), |stored| stored.recompute);
        }
        Ok(settings)
    }

    /// How few parameters are trained; ranks and the like that no flag says are as `stored`.
    fn peft(&self, stored: Option<&Peft>) -> Result<Option<Peft>> {
        use PeftChoice::{Adaptformer, Attention, Bias, Blocks, Fact, LayerNorm, Lora, Qlora, Ssf};
        for (flag, given, methods, takes) in [
            ("rank", self.rank.is_some(), "lora or fact", matches!(self.peft, Some(Lora | Fact))),
            ("alpha", self.alpha.is_some(), "lora or fact", matches!(self.peft, Some(Lora | Fact))),
            ("update_matrices", !self.update_matrices.is_empty(), "lora", self.peft == Some(Lora)),
        ] {
            if given && !takes {
                bail!("--{flag}: expected beside --peft {methods}, which alone uses it");
            }
        }
        let Some(choice) = self.peft else { return Ok(None) };
        Ok(Some(match choice {
            Lora => {
                let (rank, alpha, matrices) = match stored {
                    Some(Peft::Lora { rank, alpha, matrices }) => (*rank, *alpha, matrices.clone()),
                    _ => (LORA_RANK, 1.0, Matrix::DEFAULT.to_vec()),
                };
                let given: Vec<Matrix> = self.update_matrices.iter().map(|matrix| matrix.matrix()).collect();
                Peft::Lora {
                    rank: self.rank.unwrap_or(rank),
                    alpha: self.alpha.unwrap_or(alpha),
                    matrices: if given.is_empty() { matrices } else { given },
                }
            }
            Fact => {
                let (rank, alpha) = match stored {
                    Some(Peft::Fact { rank, alpha }) => (*rank, *alpha),
                    _ => (FACT_RANK, 1.0),
                };
                Peft::Fact { rank: self.rank.unwrap_or(rank), alpha: self.alpha.unwrap_or(alpha) }
            }
            Ssf => Peft::Ssf,
            Attention => Peft::Attention,
            Bias => Peft::Bias,
            LayerNorm => Peft::LayerNorm,
            Blocks => Peft::Blocks,
            Adaptformer => bail!(
                "--peft adaptformer: not supported: it adds layers with a ReLU beside every MLP, which cannot be merged into the \
                 weights, so that no other program could open the model; take --peft lora --update_matrices q,v,mlp"
            ),
            Qlora => bail!(
                "--peft qlora: not supported: nothing here computes from 4-bit weights, and it is activations that fill the memory \
                 of a training step, not weights; take --peft lora, and a smaller --input_side where memory is short"
            ),
        }))
    }
}

impl MatrixChoice {
    fn matrix(self) -> Matrix {
        match self {
            Self::Q => Matrix::Q,
            Self::K => Matrix::K,
            Self::V => Matrix::V,
            Self::Proj => Matrix::Proj,
            Self::Mlp => Matrix::Mlp,
        }
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use cytomask::training::Hardware;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        options: TrainOptions,
    }

    /// Of a network that sees images at their own scale, or of a SAM.
    fn settings(flags: &str, own_scale: bool, stored: Option<&TrainSettings>) -> Result<TrainSettings> {
        let words = ["train"].into_iter().chain(flags.split_whitespace());
        let defaults = Hardware::detect(false).defaults(&[256]);
        Flags::try_parse_from(words)?.options.settings(
            [false, own_scale],
            &|settings| settings.input_side > 512,
            &defaults,
            stored,
        )
    }

    #[test]
    fn the_learning_rate_follows_the_method_and_a_flag_goes_before_it() {
        let rate = |flags: &str, own_scale| settings(flags, own_scale, None).unwrap().learning_rate;
        for (flags, expected) in [
            ("", 1e-4),
            ("--peft lora", 1e-3),
            ("--peft fact", 1e-3),
            ("--peft ssf", 1e-3),
            ("--peft bias", 1e-4),
            ("--peft blocks", 1e-4),
        ] {
            assert!((rate(flags, true) / expected - 1.0).abs() < 1e-9, "{flags}");
            assert!((10.0 * rate(flags, false) / expected - 1.0).abs() < 1e-9, "{flags}");
            assert_eq!(rate(&format!("{flags} --learning_rate 3e-5"), true), 3e-5);
        }
        let lora = settings("--peft lora", true, None).unwrap().peft;
        assert_eq!(lora, Some(Peft::Lora { rank: 8, alpha: 1.0, matrices: vec![Matrix::Q, Matrix::V] }));
        let lora = settings("--peft lora --rank 2 --update_matrices k,mlp", true, None).unwrap().peft;
        assert_eq!(lora, Some(Peft::Lora { rank: 2, alpha: 1.0, matrices: vec![Matrix::K, Matrix::Mlp] }));
    }

    #[test]
    fn a_run_that_is_gone_on_with_keeps_what_no_flag_says() {
        let begun = TrainSettings {
            learning_rate: 1e-4,
            batch_size: 3,
            peft: Some(Peft::Lora { rank: 4, alpha: 1.0, matrices: Matrix::DEFAULT.to_vec() }),
            ..settings("--peft lora", true, None).unwrap()
        };
        assert_eq!(settings("--peft lora", true, Some(&begun)).unwrap(), begun);
        // What a flag says is taken, and will be refused as another run's.
        assert_eq!(settings("--peft lora --lr 1e-3", true, Some(&begun)).unwrap().learning_rate, 1e-3);
        assert_ne!(settings("--peft lora --rank 8", true, Some(&begun)).unwrap(), begun);
        // A checkpoint from before there was a choice of matrices.
        let old: Peft = serde_json::from_str(r#"{"lora": {"rank": 4, "alpha": 1.0}}"#).unwrap();
        assert_eq!(Some(old), begun.peft);
    }

    #[test]
    fn parts_run_again_where_memory_is_short_or_where_a_flag_says_so() {
        let recompute = |flags: &str| settings(flags, false, None).unwrap().recompute;
        assert!(recompute("--input_side 1024"));
        assert!(!recompute("--input_side 512"));
        assert!(recompute("--input_side 512 --recompute on"));
        assert!(!recompute("--input_side 1024 --recompute off"));
        let begun = settings("--input_side 1024", false, None).unwrap();
        assert!(settings("--input_side 512", false, Some(&begun)).unwrap().recompute);
    }

    #[test]
    fn flags_that_a_method_does_not_use_are_refused() {
        for (flags, words) in [
            ("--peft ssf --rank 4", ["--rank", "lora or fact"]),
            ("--alpha 2", ["--alpha", "lora or fact"]),
            ("--peft fact --update_matrices q", ["--update_matrices", "lora"]),
            ("--peft adaptformer", ["ReLU", "--peft lora"]),
            ("--peft qlora", ["4-bit", "--peft lora"]),
        ] {
            let message = settings(flags, true, None).unwrap_err().to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        }
    }
}
