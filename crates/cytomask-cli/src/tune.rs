//! `cytomask tune`: settings that suit labelled images, and whether they help on others.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use cytomask::eval::BothEmpty;
use cytomask::output::write_text;
use cytomask::tune::{
    self, Check, LabelledImages, Method as Search, Parameter, Space, TuneOptions, html, images_csv, summary, trials_csv,
};
use cytomask::{ErrorKind, Labels, Normalization, Rgb, Segmenter, SettingsFile, Strategy};
use serde_json::json;

use crate::args::{Mode, ModelArgs};
use crate::choose::{self, PlaneArgs};
use crate::inputs::{Input, Selection};
use crate::progress::{Progress, print, say};
use crate::{inputs, settings};

/// Trials of the sampler, unless told otherwise: docs/tune.md.
const TRIALS: usize = 60;

/// Which combinations are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// All.
    Grid,
    /// --trials of them: some scattered, then always the neighbours of the best.
    Sample,
}

#[derive(Args)]
pub(crate) struct TuneArgs {
    /// An image or a folder of images.
    pub(crate) images: PathBuf,
    /// Their label images: a folder of files of the same names (or NAME_labels), or one file.
    pub(crate) labels: PathBuf,
    /// Folder for settings.json, trials.csv, images.csv and report.html.
    #[arg(short, long, alias = "output_path", value_name = "DIR")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) plane: PlaneArgs,
    /// How masks are found.
    #[arg(long, alias = "strategy", value_enum, default_value_t = Mode::Auto)]
    pub(crate) mode: Mode,
    /// Which combinations are tried.
    #[arg(long, value_enum, default_value_t = Method::Grid)]
    pub(crate) method: Method,
    /// Combinations tried by --method sample. [default: 60]
    #[arg(long, value_name = "N")]
    pub(crate) trials: Option<usize>,
    /// Check the gain on so many parts in turn, each with settings chosen on the others. [default: 5]
    #[arg(long, value_name = "K", conflicts_with = "held_out")]
    pub(crate) folds: Option<usize>,
    /// Check the gain on this share of the images, which then has no part in the choice.
    #[arg(long = "held_out", value_name = "SHARE")]
    pub(crate) held_out: Option<f64>,
    /// Values of one setting, NAME=START:STOP:STEP or NAME=A,B,C; once for each setting. Without it and --parameters µSAM's grid.
    #[arg(long = "range", value_name = "NAME=VALUES")]
    pub(crate) ranges: Vec<String>,
    /// A JSON file of settings with their values: {"min_size": [50, 100], "nms_threshold": "0.5:0.9:0.1"}.
    #[arg(long, value_name = "FILE")]
    pub(crate) parameters: Option<PathBuf>,
    /// Seed of the split, the sampler and the interval.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Score an image without true and found objects 0, as upstream does, instead of 1.
    #[arg(long)]
    pub(crate) compat: bool,
    /// Print the outcome as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Pairs of files.
struct Pairs {
    files: Vec<(PathBuf, PathBuf)>,
    selection: cytomask::Selection,
    normalization: Normalization,
}

impl LabelledImages for Pairs {
    fn names(&self) -> Vec<String> {
        self.files.iter().map(|(image, _)| inputs::stem(image)).collect()
    }

    fn load(&self, index: usize) -> Result<(Rgb, Labels), cytomask::Error> {
        let (image, labels) = &self.files[index];
        let selected = self.selection.read(image)?.image;
        let rgb = selected.to_rgb(self.normalization).map_err(|error| error.with_path(image))?;
        let truth = cytomask::read_labels(labels)?;
        if truth.size() != rgb.size {
            let message =
                format!("{}: expected {:?} as the image has, found {:?}", labels.display(), rgb.size, truth.size());
            return Err(cytomask::Error::new(ErrorKind::Setting, message));
        }
        Ok((rgb, truth))
    }
}

/// Searches, writes what was found, and says whether it helps.
pub(crate) fn run(arguments: &TuneArgs) -> Result<()> {
    if arguments.output.is_file() {
        bail!("{}: expected a folder for the results, found a file", arguments.output.display());
    }
    let options = options(arguments)?;
    let selection = choose::one_plane(&arguments.plane)?;
    let files = pairs(&arguments.images, &arguments.labels)?;
    let model = settings::open_recorded_model(&arguments.model, false)?;
    let base = Strategy::for_mode(arguments.mode.name(), &model).map_err(|error| anyhow!("--{error}"))?;
    settings::check_mode(&base, &model, false)?;
    if !model.has_decoder() && !matches!(base, Strategy::Amg(_) | Strategy::Flows(_)) {
        bail!("--mode {}: {} has no instance decoder; use --mode amg", base.name(), model.name());
    }
    let space = Space::new(base.clone(), parameters(arguments, &base)?)?;
    let segmenter = Segmenter::new(model).strategy(base);
    let images = Pairs { files, selection, normalization: segmenter.chosen_normalization() };
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| format!("{}: cannot make the folder", arguments.output.display()))?;

    let mut progress = Progress::new("tuning");
    let mut report = |share: f64| progress.set((share * 1000.0) as u64, 1000);
    let tuning = tune::tune(&segmenter, &space, &images, &options, &mut report)?;
    drop(progress);

    let title = format!("Tuning {} of {}", space.base().name(), segmenter.model().name());
    let strategy = space.strategy(tuning.best.candidate)?;
    let file = SettingsFile::new(&strategy, segmenter.model(), Some(tune::record(&tuning)))?;
    let folder = &arguments.output;
    write_text(folder.join("trials.csv"), &trials_csv(&tuning))?;
    write_text(folder.join("images.csv"), &images_csv(&tuning))?;
    write_text(folder.join("report.html"), &html(&tuning, &title))?;
    write_text(folder.join("settings.json"), &format!("{:#}\n", serde_json::to_value(&file)?))?;
    if arguments.json {
        let outcome = json!({
            "mode": file.mode, "best": tuning.best.settings, "tuned": file.tuned,
            "sampler_trials": tuning.sampler.as_ref().map(|found| json!({ "median": found.median, "most": found.most })),
        });
        print(&format!("{outcome:#}"))?;
    } else {
        print(&summary(&tuning))?;
    }
    say(&format!(
        "results in {}; use them by: cytomask segment --settings {}",
        folder.display(),
        folder.join("settings.json").display()
    ));
    Ok(())
}

fn options(arguments: &TuneArgs) -> Result<TuneOptions> {
    let method = match (arguments.method, arguments.trials) {
        (Method::Grid, Some(_)) => bail!("--trials has no effect with --method grid; it belongs to sample"),
        (Method::Grid, None) => Search::Grid,
        (Method::Sample, trials) => Search::Sample(trials.unwrap_or(TRIALS)),
    };
    let defaults = TuneOptions::default();
    let check = match (arguments.folds, arguments.held_out) {
        (Some(folds), _) => Check::Folds(folds),
        (None, Some(share)) => Check::HeldOut(share),
        (None, None) => defaults.check,
    };
    let both_empty = if arguments.compat { BothEmpty::Zero } else { BothEmpty::One };
    Ok(TuneOptions { method, check, seed: arguments.seed, both_empty, ..defaults })
}

fn parameters(arguments: &TuneArgs, base: &Strategy) -> Result<Vec<Parameter>> {
    let mut parameters = Vec::new();
    if let Some(path) = &arguments.parameters {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
        let object = serde_json::from_str(&text).with_context(|| format!("{}: not JSON", path.display()))?;
        parameters.extend(Parameter::from_json(&object).with_context(|| path.display().to_string())?);
    }
    for text in &arguments.ranges {
        parameters.push(Parameter::parse(text).map_err(|error| anyhow!("--range: {error}"))?);
    }
    Ok(if parameters.is_empty() { Space::standard_parameters(base) } else { parameters })
}

/// Images and the label files of their names.
fn pairs(images: &Path, labels: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    if images.is_file() && labels.is_file() {
        return Ok(vec![(images.to_path_buf(), labels.to_path_buf())]);
    }
    let images = inputs::select(&[images.to_path_buf()], &Selection::default())?;
    inputs::refuse_same_names(&images)?;
    let found = inputs::images_in(labels)?;
    let label_of = |image: Input| {
        let (path, name) = (image.path, image.stem);
        let of_image = |label: &&PathBuf| [name.clone(), format!("{name}_labels")].contains(&inputs::stem(label));
        let label = found.iter().find(of_image).with_context(|| {
            format!("{}: no labels named {name} or {name}_labels in {}", path.display(), labels.display())
        })?;
        Ok((path, label.clone()))
    };
    images.into_iter().map(label_of).collect()
}
