//! `cytomask train`.

mod data;
mod options;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use cytomask::train::{Count, Part, TrainSettings, Trainer, Validation};
use cytomask::training::{Dataset, Hardware, RunLog, Use};
use cytomask::{Normalization, Strategy};
use serde_json::json;

use crate::args::{ModelArgs, Precision};
use crate::progress::{Progress, say};
use crate::settings;
use data::DataArgs;
use options::TrainOptions;

/// Training crops on the page.
const SHOWN_CROPS: u64 = 12;

#[derive(Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Folder for models, checkpoints, the log and report.html.
    #[arg(short, long, alias = "save_root", value_name = "DIR", required_unless_present = "check_only")]
    output: Option<PathBuf>,
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
    let hardware = Hardware::detect(settings::is_accelerated(arguments.model.device));
    if arguments.data.check_only {
        // No model is needed to look at labels; contrast does not depend on its normalisation.
        return arguments.data.check(Normalization::Percentile { low: 0.1, high: 99.9 }, &hardware);
    }
    let device = settings::device(arguments.model.device);
    let model = cytomask::load_recorded_model(&arguments.model.model, arguments.model.decoder.as_deref(), device)?;
    let data = arguments.data.open(model.normalization(), &hardware)?;
    let sides: Vec<u32> = data.rows.iter().filter_map(|row| row.size).map(|[h, w]| h.min(w)).collect();
    let defaults = hardware.defaults(&sides);
    let stored = match &arguments.output {
        Some(folder) if arguments.resume => Trainer::stored_settings(folder)?,
        _ => None,
    };
    let of_model = [model.flow_predictor().is_some(), model.scale().is_some()];
    // The built-in model's crops are small: nothing would be saved that is scarce.
    let may_recompute = model.scale().is_none() && !hardware.accelerated;
    let recomputes = |settings: &_| may_recompute && !hardware.keeps_activations(model.family(), settings);
    let mut settings = arguments.options.settings(of_model, &recomputes, &defaults, stored.as_ref())?;
    settings.augmentation = arguments.data.augment;
    let apg = Strategy::apg_for(&model);
    let sha256 = (!arguments.from_scratch).then(|| cytomask::model_sha256(&model)).transpose()?;
    let (mut network, device) = model.into_bare()?;
    if arguments.from_scratch {
        network = Trainer::from_scratch(network, settings.seed);
    }
    let (training, held) = (data.count(Use::Training), data.count(Use::Validation));
    say(&format!("{training} training and {held} validation images"));
    if held == 0 {
        say(
            "hint: without validation images nothing says how good the model is; name some, or label four images or more",
        );
    }
    if data.shares.len() > 1 {
        let shares = data.shares.iter().map(|(name, share)| format!("{name} {:.0} %", 100.0 * share));
        say(&format!("shares of the sources: {}", shares.collect::<Vec<_>>().join(", ")));
    }
    let free = hardware.free_bytes.map_or_else(String::new, |bytes| format!(", {:.1} GB free", bytes as f64 / 1e9));
    say(&format!(
        "{} threads{free}: batches of {} crops of {} pixels, {} of {} images in memory",
        hardware.threads,
        settings.batch_size,
        settings.crop_side,
        data.store.kept(),
        data.store.len()
    ));
    let folder = arguments.output.as_deref().context("--output is missing")?;
    let record = json!({
        "model": arguments.model.model,
        "model_sha256": sha256,
        "version": env!("CARGO_PKG_VERSION"),
        "settings": settings,
        "hardware": hardware,
    });
    let Dataset { store, validation, rows, findings, shares } = data;
    let described = Dataset { store: Vec::new().into(), validation: Vec::new(), rows, findings, shares };
    let mut trainer = Trainer::new(network, &device, settings, store, validation)?;
    if arguments.from_scratch {
        trainer = trainer.begins_untrained();
    }
    describe(&trainer);
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
    if !arguments.resume && RunLog::exists(folder) {
        bail!("{}: holds a run already; go on with --resume or name another folder", folder.display());
    }
    let goes_on = arguments.resume && Trainer::can_resume(folder);
    if goes_on {
        trainer = trainer.resume(folder)?;
        say(&format!("going on after step {}", trainer.steps_done()));
    } else if arguments.resume {
        if !RunLog::exists(folder) {
            bail!("{}: no run to go on with", folder.display());
        }
        say("stopped before its first checkpoint: beginning anew");
    }
    let title = format!("Training on {}", arguments.data.place().display());
    // What a killed run logged after its last checkpoint is done again.
    let mut log = RunLog::open(folder, &title, record, &described, trainer.steps_done(), goes_on)?;
    let batch_size = trainer.settings().batch_size as u64;
    let mut crops = Vec::new();
    for step in 0..SHOWN_CROPS.div_ceil(batch_size) {
        crops.extend(trainer.crops_of(step)?);
    }
    crops.truncate(SHOWN_CROPS as usize);
    log.show_crops(&crops)?;
    if trainer.steps_done() == 0
        && let Some(before) = validate(&trainer, &apg, &mut log)?
    {
        let kept = match trainer.save_start(folder, Some(before))? {
            true => "; best.safetensors until a checkpoint scores better",
            false => "",
        };
        say(&format!("before training: validation {before}{kept}"));
    }
    train(&mut trainer, folder, arguments.save_every.max(1), &apg, &mut log)?;
    if trainer.stopped_early() {
        say(&format!("stopped after step {}: the validation score no longer rises", trainer.steps_done()));
    }
    if let (Some(before), Some(best)) = (trainer.start(), trainer.best())
        && best <= before
    {
        say(&format!(
            "hint: no checkpoint scores better ({best:.3}) than the model before training ({before:.3}), which best.safetensors therefore is: \
             train longer, or lower --learning_rate"
        ));
    }
    say(&format!("models in {}: last.safetensors and, by validation, best.safetensors", folder.display()));
    say(&format!("report: {}", folder.join("report.html").display()));
    Ok(())
}

/// Scores, logged and on the page.
fn validate(trainer: &Trainer, apg: &cytomask::Apg, log: &mut RunLog) -> Result<Option<Validation>> {
    let mut failed = None;
    let scores = trainer.validate_with(apg, &mut |image| {
        if let Err(error) = log.see(&image) {
            failed.get_or_insert(error);
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    log.validation(trainer.steps_done(), scores, trainer.is_best(scores), trainer.settings().iterations)?;
    Ok(scores)
}

fn train(trainer: &mut Trainer, folder: &Path, every: u64, apg: &cytomask::Apg, log: &mut RunLog) -> Result<()> {
    let mut progress = Progress::new("training");
    let total = trainer.settings().iterations;
    let crops = trainer.settings().batch_size * trainer.settings().accumulation;
    while !trainer.is_done() {
        let start = Instant::now();
        let report = trainer.step()?;
        log.step(&serde_json::to_value(report)?, start.elapsed(), trainer.waited(), crops)?;
        progress.set_with(report.step, total, &log.status(total));
        if report.step.is_multiple_of(every) || report.step == total {
            // Logged before the checkpoint: a run killed in between writes it again, one killed after it has it.
            let validation = validate(trainer, apg, log)?;
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
