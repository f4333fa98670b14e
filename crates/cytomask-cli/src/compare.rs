//! `cytomask compare`: which method is best for these images, and whether the difference is real.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use cytomask::compare::{
    Case, CompareOptions, Contestant, Failure, ReportOptions, Results, Source, Step, match_by_name, predictions_for,
    read_table, run as compare, write,
};
use cytomask::eval::{BothEmpty, Metric, ScoreOptions};
use cytomask::report::{Analysis, tables};
use cytomask::{Model, Segmenter, SettingsFile, Strategy};
use serde_json::{Map, Value, json};

use crate::args::{Device, normalize};
use crate::choose::{self, PlaneArgs};
use crate::inputs;
use crate::progress::{Progress, print, say};
use crate::settings::{self, device, scaled};

const MODES: [&str; 5] = ["auto", "amg", "ais", "apg", "flows"];

const EXAMPLES: &str = "\
Methods (--run [NAME=]MODEL[:MODE[:SETTINGS]]), as often as wished; without any, the built-in model by amg, ais and apg:
  --run cytomask-t:apg                            a model and a mode (auto, amg, ais, apg)
  --run ais                                       a mode of the built-in model
  --run vit_b_lm:apg:nms_threshold=0.7,min_size=50  with settings, named as the flags of `segment`
  --run tuned=vit_b_lm:ais:best.json              with a settings file, under a name of its own
  --run finetuned.safetensors:apg                 a checkpoint file
  SETTINGS may also hold scale=FACTOR (built-in model) and normalize=model|minmax|percentile|none.

Examples:
  cytomask compare images/ labels/ -o comparison
  cytomask compare images/ labels/ -o comparison --run apg --run vit_b_lm:apg --predictions cellpose=masks/
  cytomask compare --table images.csv -o comparison    columns image, labels and, for several kinds of images, group

A comparison that was stopped goes on where it was: run the same command again.";

/// Flags of `compare`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompareArgs {
    /// A folder of images.
    #[arg(value_name = "IMAGES", required_unless_present = "table", requires = "labels")]
    images: Option<PathBuf>,
    /// The folder of their true label images, of the same names (or NAME_labels, NAME_masks).
    #[arg(value_name = "LABELS")]
    labels: Option<PathBuf>,
    /// A CSV table of images instead: columns image, labels and, if there are several kinds, group.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["images", "labels"])]
    table: Option<PathBuf>,
    /// Folder for the report, the tables, all labels and what is needed to go on after a stop.
    #[arg(short, long, alias = "output_path", value_name = "DIR")]
    output: PathBuf,
    /// A method to run, see below.
    #[arg(long = "run", value_name = "[NAME=]MODEL[:MODE[:SETTINGS]]")]
    runs: Vec<String>,
    /// A folder of label images made elsewhere.
    #[arg(long, value_name = "NAME=FOLDER")]
    predictions: Vec<String>,
    /// The score methods are compared by: msa, sa50, sa75, f1, panoptic_quality, aggregated_jaccard, boundary_f1, …
    #[arg(long, value_name = "NAME", default_value = "msa", value_parser = metric)]
    metric: Metric,
    /// Level of the tests.
    #[arg(long, value_name = "0..1", default_value_t = 0.05, value_parser = level)]
    alpha: f64,
    #[command(flatten)]
    plane: PlaneArgs,
    /// Where networks run.
    #[arg(short, long, value_enum, default_value_t = Device::Auto)]
    device: Device,
    /// Score an image without true and predicted objects 0, as upstream does, instead of 1.
    #[arg(long)]
    compat: bool,
    /// Heading of the report. [default: the folder of images]
    #[arg(long)]
    title: Option<String>,
    /// Print the analysis as JSON on stdout.
    #[arg(long)]
    json: bool,
}

fn metric(text: &str) -> Result<Metric, String> {
    let scores = || Metric::ALL.into_iter().filter(|metric| !metric.is_count());
    scores().find(|metric| metric.name() == text).ok_or_else(|| {
        format!("expected one of {}, found {text:?}", scores().map(Metric::name).collect::<Vec<_>>().join(", "))
    })
}

fn level(text: &str) -> Result<f64, String> {
    let level = text.parse().ok().filter(|level| *level > 0.0 && *level < 1.0);
    level.ok_or_else(|| format!("expected a number between 0 and 1, found {text:?}"))
}

/// Runs, scores, reports. Images on which a method fails are left out, and the exit status says so.
pub(crate) fn run(arguments: &CompareArgs) -> Result<()> {
    if arguments.output.is_file() {
        bail!("{}: expected a folder for the results, found a file", arguments.output.display());
    }
    let cases = cases(arguments)?;
    let contestants = contestants(arguments, &cases)?;
    let selection = choose::one_plane(&arguments.plane)?;
    let both_empty = if arguments.compat { BothEmpty::Zero } else { BothEmpty::One };
    let options = CompareOptions { score: ScoreOptions { both_empty, ..ScoreOptions::default() }, selection };
    let folder = &arguments.output;
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;

    let mut progress = Progress::new("comparing");
    let results = compare(&cases, &contestants, folder, &options, &mut |step| match step {
        Step::Done { done, total } => progress.set(done as u64, total as u64),
        Step::Failed(failure) => progress.line(&format!("error: {}", words(failure))),
    })?;
    drop(progress);
    say(&format!("{} results computed, {} taken from before", results.computed, results.reused));

    let report = ReportOptions {
        title: title(arguments),
        metric: arguments.metric,
        alpha: arguments.alpha,
        provenance: provenance(arguments, &cases, &results),
    };
    let (analysis, page) = write(folder, &cases, &results, &options, &report)?;
    if arguments.json {
        print(&format!("{:#}", json!({ "report": page, "analysis": analysis })))?;
    } else {
        summary(&analysis)?;
    }
    say(&format!("report: {}", page.display()));
    if !results.failures.is_empty() {
        bail!("{} of {} images left out: a method failed on them", cases.len() - results.kept.len(), cases.len());
    }
    Ok(())
}

fn words(failure: &Failure) -> String {
    let method = failure.method.as_ref().map_or_else(String::new, |method| format!(" ({method})"));
    format!("{}{method}: {}", failure.case, failure.message)
}

fn cases(arguments: &CompareArgs) -> Result<Vec<Case>> {
    match (&arguments.table, &arguments.images, &arguments.labels) {
        (Some(table), ..) => Ok(read_table(table)?),
        (None, Some(images), Some(labels)) => {
            let found = inputs::images_in(images)?;
            if found.is_empty() {
                bail!("{}: no images in this folder", images.display());
            }
            Ok(match_by_name(&found, &inputs::images_in(labels)?)?)
        }
        _ => bail!("name a folder of images and one of labels, or --table FILE"),
    }
}

fn contestants(arguments: &CompareArgs, cases: &[Case]) -> Result<Vec<Contestant>> {
    let default = ["amg", "ais", "apg"].map(str::to_owned);
    let runs = match (arguments.runs.is_empty(), arguments.predictions.is_empty()) {
        (true, true) => &default[..],
        _ => &arguments.runs[..],
    };
    let specs = runs.iter().map(|text| Spec::parse(text)).collect::<Result<Vec<_>>>()?;
    let folders = arguments.predictions.iter().map(|text| {
        let (name, folder) = text
            .split_once('=')
            .filter(|(name, folder)| !name.is_empty() && !folder.is_empty())
            .with_context(|| format!("--predictions: expected NAME=FOLDER, found {text:?}"))?;
        let files = predictions_for(name, cases, &inputs::images_in(Path::new(folder))?)?;
        Ok(Contestant { name: name.to_owned(), source: Source::Files(files) })
    });
    let folders = folders.collect::<Result<Vec<_>>>()?;
    let mut models = Models::new(arguments.device);
    let mut contestants = Vec::new();
    for (spec, text) in specs.iter().zip(runs) {
        contestants.push(models.contestant(spec, text, arguments.compat)?);
    }
    contestants.extend(folders);
    Ok(contestants)
}

/// Models loaded so far: methods that differ in mode or settings share one.
pub(crate) struct Models {
    device: Device,
    loaded: Vec<(String, Model)>,
}

impl Models {
    pub(crate) fn new(device: Device) -> Self {
        Self { device, loaded: Vec::new() }
    }

    /// The method that a `--run` names.
    pub(crate) fn run(&mut self, text: &str, compat: bool) -> Result<Contestant> {
        self.contestant(&Spec::parse(text)?, text, compat)
    }

    fn contestant(&mut self, spec: &Spec, text: &str, compat: bool) -> Result<Contestant> {
        let at_run = || format!("--run {text}");
        let model = match self.loaded.iter().find(|(name, _)| *name == spec.model) {
            Some((_, model)) => model.clone(),
            None => {
                let model = cytomask::load_recorded_model(&spec.model, None, device(self.device));
                let model = model.with_context(at_run)?.released();
                self.loaded.push((spec.model.clone(), model.clone()));
                model
            }
        };
        spec.contestant(model, compat).with_context(at_run)
    }
}

/// What `--run` asks for.
#[derive(Debug, PartialEq)]
struct Spec {
    name: Option<String>,
    model: String,
    mode: Option<String>,
    settings: Option<String>,
}

impl Spec {
    fn parse(text: &str) -> Result<Self> {
        let expected = || anyhow!("--run: expected [NAME=]MODEL[:MODE[:SETTINGS]], found {text:?}");
        // A name comes before the first colon; settings, which hold = too, after it.
        let (name, rest) = match text.split_once('=') {
            Some((name, rest)) if !name.contains(':') && !Path::new(text).is_file() => (Some(name.to_owned()), rest),
            _ => (None, text),
        };
        if rest.is_empty() || name.as_deref() == Some("") {
            return Err(expected());
        }
        // The first part that is a mode ends the model, whose path may hold colons.
        let parts: Vec<&str> = rest.split(':').collect();
        let at = parts.iter().position(|part| MODES.contains(part));
        let (model, mode, settings) = match at {
            Some(0) => (cytomask::embedded::NAME.to_owned(), Some(parts[0]), parts[1..].join(":")),
            Some(at) => (parts[..at].join(":"), Some(parts[at]), parts[at + 1..].join(":")),
            None => (rest.to_owned(), None, String::new()),
        };
        if let (None, [model, mode]) = (at, &parts[..])
            && model.len() > 1
            && !Path::new(rest).is_file()
        {
            bail!("--run {text}: {mode:?} is no mode of {model}; modes are {}", MODES.join(", "));
        }
        let settings = (!settings.is_empty()).then_some(settings);
        Ok(Self { name, model, mode: mode.map(str::to_owned), settings })
    }

    fn contestant(&self, mut model: Model, compat: bool) -> Result<Contestant> {
        let mode = self.mode.as_deref().unwrap_or("auto");
        let mut normalization = None;
        let mut strategy = Strategy::for_mode(mode, &model)?;
        if compat {
            strategy = strategy.compat();
        }
        match &self.settings {
            None => {}
            Some(path) if !path.contains('=') => {
                let file = SettingsFile::read(Path::new(path))?;
                if mode != "auto" && mode != file.mode {
                    bail!("{path}: these settings are for mode {}, not {mode}", file.mode);
                }
                strategy = file.strategy(&model)?;
                if let Some(warning) = file.mismatch(&model)? {
                    say(&format!("warning: {path}: {warning}"));
                }
            }
            Some(pairs) => {
                let mut settings = Map::new();
                for pair in pairs.split(',') {
                    let (key, value) =
                        pair.split_once('=').with_context(|| format!("expected KEY=VALUE, found {pair:?}"))?;
                    match key.trim() {
                        "diameter" => model = with_diameter(model, value)?,
                        "scale" => model = scaled(model, value)?,
                        "normalize" => {
                            let choice = normalize(value).map_err(|error| anyhow!("normalize: {error}"))?;
                            normalization = Some(settings::normalization(choice, &model));
                        }
                        key => {
                            // Numbers and true or false; all else is a word.
                            let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
                            settings.insert(key.to_owned(), value);
                        }
                    }
                }
                strategy = strategy.with_settings(&Value::Object(settings))?;
            }
        }
        let described = || {
            let settings = self.settings.as_ref().map_or_else(String::new, |settings| {
                let short = if settings.contains('=') { settings.clone() } else { inputs::stem(Path::new(settings)) };
                format!(" {short}")
            });
            format!("{} {}{settings}", model.name(), strategy.name().to_uppercase())
        };
        let name = self.name.clone().unwrap_or_else(described);
        crate::settings::check_mode(&strategy, &model, false)?;
        let mut segmenter = Segmenter::new(model).strategy(strategy);
        if let Some(normalization) = normalization {
            segmenter = segmenter.normalization(normalization);
        }
        Ok(Contestant { name, source: Source::Run(Box::new(segmenter)) })
    }
}

fn with_diameter(model: Model, text: &str) -> Result<Model> {
    let pixels = text.parse::<f64>().ok().filter(|pixels| pixels.is_finite() && *pixels > 0.0);
    let pixels = pixels.with_context(|| format!("diameter: expected pixels above 0, found {text:?}"))?;
    if model.flow_predictor().is_none() {
        bail!("diameter: {} takes none; it is for networks that predict flows", model.name());
    }
    Ok(model.with_diameter(pixels))
}

fn title(arguments: &CompareArgs) -> String {
    arguments.title.clone().unwrap_or_else(|| {
        let named = arguments.table.as_deref().or(arguments.images.as_deref()).unwrap_or(Path::new("images"));
        format!("Comparison of methods on {}", named.display())
    })
}

fn provenance(arguments: &CompareArgs, cases: &[Case], results: &Results) -> Value {
    json!({
        "program": format!("cytomask {}", env!("CARGO_PKG_VERSION")),
        "images": arguments.images,
        "labels": arguments.labels,
        "table": arguments.table,
        "images given": cases.len(),
        "images compared": results.kept.len(),
        "image without true and predicted objects": if arguments.compat { "scores 0" } else { "scores 1" },
        "intervals": "95 %, percentile bootstrap over images, 10,000 resamples, seed 0",
        "boundary tolerance": "2 pixels",
        "plane": serde_json::to_value(&arguments.plane).unwrap_or_default(),
        "processor cores": std::thread::available_parallelism().map_or(0, usize::from),
    })
}

/// The recommendation and a short table.
fn summary(analysis: &Analysis) -> Result<()> {
    let metric = cytomask::report::label(analysis.metric);
    for at in analysis.order() {
        let row = &analysis.methods[at];
        let seconds = row.median_seconds.map_or_else(String::new, |seconds| format!(", {seconds:.2} s an image"));
        print(&format!(
            "{}: {metric} {:.3} [{:.3}, {:.3}], SA50 {:.3}, SA75 {:.3}, best on {} of {}{seconds}",
            row.method, row.mean.value, row.mean.low, row.mean.high, row.sa50, row.sa75, row.best_on, analysis.images
        ))?;
    }
    for pair in &analysis.pairs {
        print(&format!(
            "{} − {}: {:.3} [{:.3}, {:.3}], {}, corrected {}",
            analysis.methods[pair.first].method,
            analysis.methods[pair.second].method,
            pair.difference.value,
            pair.difference.low,
            pair.difference.high,
            tables::p_text(pair.p),
            tables::p_text(pair.p_holm)
        ))?;
    }
    for group in &analysis.groups {
        print(&format!("{} ({} images): {}", group.group, group.images, group.recommendation.headline))?;
    }
    print(&format!("{} {}", analysis.recommendation.headline, analysis.recommendation.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> (Option<String>, String, Option<String>, Option<String>) {
        let Spec { name, model, mode, settings } = Spec::parse(text).unwrap();
        (name, model, mode, settings)
    }

    #[test]
    fn runs_are_read_as_they_are_meant() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(spec("vit_b_lm:apg"), (None, "vit_b_lm".into(), some("apg"), None));
        assert_eq!(spec("ais"), (None, cytomask::embedded::NAME.into(), some("ais"), None));
        assert_eq!(spec("vit_b"), (None, "vit_b".into(), None, None));
        assert_eq!(
            spec("apg:min_size=5,a=b"),
            (None, cytomask::embedded::NAME.into(), some("apg"), some("min_size=5,a=b"))
        );
        let windows = spec("mine=C:\\w\\m.pt:ais:D:\\best.json");
        assert_eq!(windows, (some("mine"), "C:\\w\\m.pt".into(), some("ais"), some("D:\\best.json")));
        assert!(Spec::parse("vit_b:agp").unwrap_err().to_string().contains("\"agp\""));
        assert!(Spec::parse("=ais").is_err() && Spec::parse("").is_err() && Spec::parse("x=").is_err());
    }

    #[test]
    fn metrics_are_scores() {
        assert_eq!(metric("msa"), Ok(Metric::Msa));
        assert!(metric("splits").unwrap_err().contains("panoptic_quality"));
        assert!(level("1").is_err() && level("x").is_err() && level("0.01").is_ok());
    }
}
