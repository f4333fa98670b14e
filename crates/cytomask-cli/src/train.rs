//! `cytomask train`.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cytomask::Strategy;
use cytomask::train::data::{Sample, load_folder};
use cytomask::train::{TrainSettings, Trainer};
use serde_json::json;

use crate::args::{Precision, TrainArgs};
use crate::progress::{Progress, say};
use crate::settings;

/// One image in so many is held out when no validation folder is given.
const HOLD_OUT: usize = 10;

/// More validation images than this would take longer than the training between two checkpoints.
const MAX_VALIDATION: usize = 25;

/// Trains until all steps are done; checkpoints on the way, so that `--resume` goes on after any interruption.
pub(crate) fn run(arguments: &TrainArgs) -> Result<()> {
    if !matches!(arguments.model.precision, Precision::Auto | Precision::F32) {
        bail!("--precision: training computes in f32; the trained model then runs in any format");
    }
    let device = settings::device(arguments.model.device);
    let model = cytomask::load_model(&arguments.model.model, arguments.model.decoder.as_deref(), device)?;
    let normalization = model.normalization();
    let apg = Strategy::apg_for(&model);
    let (network, device) = model.into_cytomask_t()?;

    let all = load_folder(&arguments.images, &arguments.labels, normalization)?;
    let (training, mut validation) = match (&arguments.val_images, &arguments.val_labels) {
        (Some(images), Some(labels)) => (all, load_folder(images, labels, normalization)?),
        _ => hold_out(all),
    };
    validation.truncate(MAX_VALIDATION);
    let settings = TrainSettings {
        iterations: arguments.iterations,
        batch_size: arguments.batch_size,
        crop_side: arguments.patch_shape,
        learning_rate: arguments.learning_rate,
        objects_per_crop: arguments.objects_per_crop,
        seed: arguments.seed,
        ..TrainSettings::default()
    };
    say(&format!("{} training and {} validation images", training.len(), validation.len()));
    let mut trainer = Trainer::new(network, &device, settings, training, validation)?;
    let folder = &arguments.output;
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
    if arguments.resume {
        trainer = trainer.resume(folder)?;
        say(&format!("going on after step {}", trainer.steps_done()));
    } else if folder.join("log.jsonl").exists() {
        bail!("{}: holds a run already; go on with --resume or name another folder", folder.display());
    }

    let mut log = Log::open(&folder.join("log.jsonl"))?;
    if trainer.steps_done() == 0 {
        let before = trainer.validate(&apg)?;
        log.line(&json!({ "step": 0, "validation": before }))?;
        if let Some(before) = before {
            say(&format!("before training: validation mSA {:.3} by AIS, {:.3} by APG", before.ais, before.apg));
        }
    }
    let mut progress = Progress::new("training");
    let total = trainer.settings().iterations;
    while trainer.steps_done() < total {
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
        if report.step.is_multiple_of(arguments.save_every.max(1)) || report.step == total {
            let validation = trainer.validate(&apg)?;
            trainer.save(folder, validation)?;
            log.line(&json!({ "step": report.step, "validation": validation }))?;
            let score = validation.map_or_else(String::new, |found| {
                format!(", validation mSA {:.3} by AIS, {:.3} by APG", found.ais, found.apg)
            });
            progress.line(&format!("step {}: loss {:.3} + {:.3}{score}", report.step, report.maps, report.masks));
        }
    }
    drop(progress);
    say(&format!("models in {}: last.safetensors and, by validation mSA, best.safetensors", folder.display()));
    Ok(())
}

/// Every tenth image for validation.
fn hold_out(all: Vec<Sample>) -> (Vec<Sample>, Vec<Sample>) {
    let (mut training, mut validation) = (Vec::new(), Vec::new());
    for (index, sample) in all.into_iter().enumerate() {
        if index % HOLD_OUT == HOLD_OUT - 1 { validation.push(sample) } else { training.push(sample) }
    }
    (training, validation)
}

/// JSON lines; each is on the disk before the next step begins.
struct Log(std::fs::File);

impl Log {
    fn open(path: &Path) -> Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(file.with_context(|| format!("{}: cannot write the log", path.display()))?))
    }

    fn line(&mut self, value: &serde_json::Value) -> Result<()> {
        writeln!(self.0, "{value}").context("cannot write the log")
    }
}
