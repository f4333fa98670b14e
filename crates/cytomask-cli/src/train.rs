//! `cytomask train`.

mod log;
mod options;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use cytomask::Strategy;
use cytomask::train::data::{Sample, load_folder};
use cytomask::train::{Count, Part, TrainSettings, Trainer};
use serde_json::json;
use std::path::PathBuf;

use crate::args::{ModelArgs, Precision};
use crate::progress::{Progress, say};
use crate::settings;
use log::Log;
use options::TrainOptions;

/// One image in so many is held out when no validation folder is given.
const HOLD_OUT: usize = 10;

/// More validation images than this would take longer than the training between two checkpoints.
const MAX_VALIDATION: usize = 25;

#[derive(Args)]
pub(crate) struct TrainArgs {
    /// Folder of training images.
    #[arg(value_name = "IMAGES", required_unless_present = "images_flag")]
    images: Option<PathBuf>,
    /// Folder of label images with the same stems.
    #[arg(value_name = "LABELS", required_unless_present = "labels_flag")]
    labels: Option<PathBuf>,
    /// The same as IMAGES.
    #[arg(
        long = "images",
        value_name = "DIR",
        id = "images_flag",
        conflicts_with = "images",
        requires = "labels_flag"
    )]
    images_flag: Option<PathBuf>,
    /// The same as LABELS.
    #[arg(
        long = "labels",
        value_name = "DIR",
        id = "labels_flag",
        conflicts_with = "labels",
        requires = "images_flag"
    )]
    labels_flag: Option<PathBuf>,
    /// Folder of validation images; without it one image in ten is held out.
    #[arg(long = "val_images", value_name = "DIR", requires = "val_labels")]
    val_images: Option<PathBuf>,
    /// Folder of validation label images.
    #[arg(long = "val_labels", value_name = "DIR", requires = "val_images")]
    val_labels: Option<PathBuf>,
    /// Folder for checkpoints and the log.
    #[arg(short, long, alias = "save_root", value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    options: TrainOptions,
    /// Validate and write a checkpoint every so many steps.
    #[arg(long = "save_every", default_value_t = 100)]
    save_every: u64,
    /// Begin with first values instead of the model's weights.
    #[arg(long = "from_scratch")]
    from_scratch: bool,
    /// Go on from the last checkpoint in the output folder; from the beginning if the run was stopped before its first one.
    #[arg(long)]
    resume: bool,
}

/// Trains until all steps are done; checkpoints on the way, so that `--resume` goes on after any interruption.
pub(crate) fn run(arguments: &TrainArgs) -> Result<()> {
    if !matches!(arguments.model.precision, Precision::Auto | Precision::F32) {
        bail!("--precision: training computes in f32; the trained model then runs in any format");
    }
    let device = settings::device(arguments.model.device);
    let model = cytomask::load_model(&arguments.model.model, arguments.model.decoder.as_deref(), device)?;
    let settings = arguments.options.settings(model.flow_predictor().is_some(), model.scale().is_some())?;
    let normalization = model.normalization();
    let apg = Strategy::apg_for(&model);
    let (mut network, device) = model.into_bare()?;
    if arguments.from_scratch {
        network = Trainer::from_scratch(network, settings.seed);
    }

    let folder_of = |given: &Option<PathBuf>, flag: &Option<PathBuf>| given.clone().or_else(|| flag.clone());
    let images = folder_of(&arguments.images, &arguments.images_flag).context("IMAGES is missing")?;
    let labels = folder_of(&arguments.labels, &arguments.labels_flag).context("LABELS is missing")?;
    let all = load_folder(&images, &labels, normalization)?;
    let (training, mut validation) = match (&arguments.val_images, &arguments.val_labels) {
        (Some(images), Some(labels)) => (all, load_folder(images, labels, normalization)?),
        _ => hold_out(all),
    };
    validation.truncate(MAX_VALIDATION);
    say(&format!("{} training and {} validation images", training.len(), validation.len()));
    let mut trainer = Trainer::new(network, &device, settings, training, validation)?;
    describe(&trainer);
    let folder = &arguments.output;
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
    let log_file = folder.join("log.jsonl");
    if !arguments.resume && log_file.exists() {
        bail!("{}: holds a run already; go on with --resume or name another folder", folder.display());
    }
    if arguments.resume {
        if Trainer::can_resume(folder) {
            trainer = trainer.resume(folder)?;
            say(&format!("going on after step {}", trainer.steps_done()));
        } else if log_file.exists() {
            say("stopped before its first checkpoint: beginning anew");
        } else {
            bail!("{}: no run to go on with", folder.display());
        }
    }
    // What a killed run logged after its last checkpoint is done again.
    let mut log = Log::open(&log_file, trainer.steps_done(), Trainer::can_resume(folder))?;
    if trainer.steps_done() == 0 {
        let before = trainer.validate(&apg)?;
        log.line(&json!({ "step": 0, "validation": before }))?;
        if let Some(before) = before {
            say(&format!("before training: validation {before}"));
        }
    }
    train(&mut trainer, folder, arguments.save_every.max(1), &apg, &mut log)?;
    if trainer.stopped_early() {
        say(&format!("stopped after step {}: the validation score no longer rises", trainer.steps_done()));
    }
    say(&format!("models in {}: last.safetensors and, by validation, best.safetensors", folder.display()));
    Ok(())
}

fn train(trainer: &mut Trainer, folder: &Path, every: u64, apg: &cytomask::Apg, log: &mut Log) -> Result<()> {
    let mut progress = Progress::new("training");
    let total = trainer.settings().iterations;
    while !trainer.is_done() {
        let start = Instant::now();
        let report = trainer.step()?;
        progress.set(report.step, total);
        log.line(&json!({
            "step": report.step,
            "maps": report.maps,
            "masks": report.masks,
            "learning_rate": report.learning_rate,
            "seconds": start.elapsed().as_secs_f64(),
        }))?;
        if report.step.is_multiple_of(every) || report.step == total {
            let validation = trainer.validate(apg)?;
            // Before the checkpoint: a run killed in between writes it again, one killed after it has it.
            log.line(&json!({ "step": report.step, "validation": validation }))?;
            trainer.save(folder, validation)?;
            let score = validation.map_or_else(String::new, |found| format!(", validation {found}"));
            progress.line(&format!("step {}: loss {:.3} + {:.3}{score}", report.step, report.maps, report.masks));
        }
    }
    Ok(())
}

/// What is trained, and how much of it.
fn describe(trainer: &Trainer) {
    let counts = trainer.counts();
    let text = |count: Count| {
        let share = 100.0 * count.trained as f64 / count.all.max(1) as f64;
        format!("{:.2} of {:.2} million ({share:.1} %)", count.trained as f64 / 1e6, count.all as f64 / 1e6)
    };
    say(&format!("parameters trained: {}; of the image encoder {}", text(counts.all), text(counts.image_encoder)));
    let settings: &TrainSettings = trainer.settings();
    if settings.peft.is_some() && !settings.freeze.contains(&Part::InstanceDecoder) {
        say("hint: the decoders are trained whole; --freeze prompt_encoder,mask_decoder,instance_decoder holds them");
    }
}

/// Every tenth image for validation.
fn hold_out(all: Vec<Sample>) -> (Vec<Sample>, Vec<Sample>) {
    let (mut training, mut validation) = (Vec::new(), Vec::new());
    for (index, sample) in all.into_iter().enumerate() {
        if index % HOLD_OUT == HOLD_OUT - 1 { validation.push(sample) } else { training.push(sample) }
    }
    (training, validation)
}
