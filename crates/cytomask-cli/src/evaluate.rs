//! `cytomask evaluate`: scores of predictions against true labels, for each image and over all.

mod pairs;
mod tables;

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use cytomask::eval::{
    BothEmpty, LabelArray, Metric, ObjectScore, ScoreOptions, Scores, Summary, SummaryOptions, connected_components,
    contingency, object_scores, score, summarize,
};
use cytomask::output::write_text;
use cytomask::{LabelStack, read_label_stack};

use crate::progress::{Progress, print, say};
use pairs::Pair;

#[derive(Args)]
pub(crate) struct EvaluateArgs {
    /// A true label image, or a folder of them.
    #[arg(required_unless_present = "pairs")]
    pub(crate) labels: Option<PathBuf>,
    /// The predicted label image, or a folder. `NAME_labels.tif` matches the true `NAME.*`.
    #[arg(required_unless_present = "pairs")]
    pub(crate) predictions: Option<PathBuf>,
    /// A CSV file with the columns labels and predictions (and name, if wished) in place of folders; paths are relative to it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["labels", "predictions"])]
    pub(crate) pairs: Option<PathBuf>,
    /// Scores to give, in this order (docs/evaluate.md), or `all`.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "all")]
    pub(crate) metrics: Vec<String>,
    /// Write one line per image.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Write one line per object, true and predicted: best and matched partner with their IoU.
    #[arg(long, value_name = "FILE")]
    pub(crate) objects: Option<PathBuf>,
    /// IoU from which two objects match in the table of objects.
    #[arg(long, value_name = "0..1", default_value_t = 0.5, requires = "objects")]
    pub(crate) threshold: f64,
    /// Distance within which boundaries agree, in pixels.
    #[arg(long = "boundary_tolerance", value_name = "PIXELS", default_value_t = 2.0)]
    pub(crate) boundary_tolerance_px: f64,
    /// Number the true objects anew by connected components (8 neighbours, 26 in 3-D), as µSAM does.
    #[arg(long)]
    pub(crate) relabel: bool,
    /// True labels without a prediction: score them as if nothing had been found, or leave them out. An error without this.
    #[arg(long = "allow_missing", value_name = "HOW", value_enum)]
    pub(crate) allow_missing: Option<Allowance>,
    /// Predictions of another size than the truth: score them as if nothing had been found, or leave them out. An error without this.
    #[arg(long = "allow_misshaped", value_name = "HOW", value_enum)]
    pub(crate) allow_misshaped: Option<Allowance>,
    /// Leave predictions out that no true labels belong to. An error without this.
    #[arg(long = "allow_extra")]
    pub(crate) allow_extra: bool,
    /// Probability of the confidence intervals of the means (bootstrap over images, percentiles).
    #[arg(long, value_name = "0..1", default_value_t = 0.95)]
    pub(crate) confidence: f64,
    /// Bootstrap samples.
    #[arg(long, value_name = "N", default_value_t = 9999)]
    pub(crate) resamples: usize,
    /// Seed of the bootstrap.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Score an image without true and predicted objects 0, as upstream does, instead of 1.
    #[arg(long)]
    pub(crate) compat: bool,
    /// Print the table as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What becomes of an image that cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Allowance {
    /// It scores 0: every true object is missed, none is found.
    Zero,
    /// It is left out of the tables and the means.
    Skip,
}

/// The scores of one image.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) scores: Scores,
    pub(crate) objects: Vec<ObjectScore>,
    /// Why the scores are not those of a prediction.
    pub(crate) note: &'static str,
}

const MISSING: &str = "prediction missing";
const MISSHAPED: &str = "prediction of another size";

/// Scores every true label image; a missing, extra or mis-shaped prediction is an error unless allowed.
pub(crate) fn run(arguments: &EvaluateArgs) -> Result<()> {
    let metrics = chosen(&arguments.metrics)?;
    let pairs = find_pairs(arguments)?;
    let with_boundary = metrics.iter().any(|metric| metric.is_of_boundary());
    let options = ScoreOptions {
        both_empty: if arguments.compat { BothEmpty::Zero } else { BothEmpty::One },
        boundary_tolerance_px: with_boundary.then_some(arguments.boundary_tolerance_px),
    };
    let summary_options =
        SummaryOptions { confidence: arguments.confidence, resamples: arguments.resamples, seed: arguments.seed };
    // Settings out of range are found before any file is read.
    summarize(&[0.0, 1.0], &SummaryOptions { resamples: arguments.resamples.min(1), ..summary_options.clone() })?;

    let mut progress = Progress::new("scoring");
    let mut rows: Vec<Row> = Vec::new();
    let mut skipped = 0;
    for (index, pair) in pairs.iter().enumerate() {
        progress.set(index as u64, pairs.len() as u64);
        match score_pair(pair, arguments, &options)? {
            Some(row) => rows.push(row),
            None => skipped += 1,
        }
    }
    drop(progress);
    for (note, what) in [(MISSING, "without a prediction"), (MISSHAPED, "with a prediction of another size")] {
        let count = rows.iter().filter(|row| row.note == note).count();
        if count > 0 {
            say(&format!("note: {count} image(s) {what} scored as if nothing had been found"));
        }
    }
    if skipped > 0 {
        say(&format!("note: {skipped} image(s) without a prediction of their size left out"));
    }
    if rows.is_empty() {
        bail!("no image is left to score");
    }
    let summaries: Vec<(Metric, Summary)> = metrics
        .iter()
        .map(|&metric| {
            let values: Vec<f64> = rows.iter().map(|row| row.scores.get(metric)).collect();
            Ok((metric, summarize(&values, &summary_options)?))
        })
        .collect::<Result<_>>()?;

    if let Some(path) = &arguments.csv {
        write_text(path, &tables::per_image(&rows, &metrics))?;
    }
    if let Some(path) = &arguments.objects {
        write_text(path, &tables::per_object(&rows))?;
    }
    if arguments.json {
        return print(&format!("{:#}", tables::as_json(&rows, &summaries, arguments, &options)));
    }
    for line in tables::for_people(&rows, &summaries, arguments.confidence) {
        print(&line)?;
    }
    Ok(())
}

/// The metrics named, each once.
fn chosen(names: &[String]) -> Result<Vec<Metric>> {
    let mut metrics = Vec::new();
    for name in names.iter().map(|name| name.trim()) {
        let named = match name {
            "all" => Metric::ALL.to_vec(),
            _ => vec![Metric::from_name(name).ok_or_else(|| {
                let known: Vec<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
                anyhow!("--metrics: no metric is called {name:?}; there are all, {}", known.join(", "))
            })?],
        };
        for metric in named {
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
    }
    Ok(metrics)
}

fn find_pairs(arguments: &EvaluateArgs) -> Result<Vec<Pair>> {
    let found = match (&arguments.pairs, &arguments.labels, &arguments.predictions) {
        (Some(table), ..) => pairs::from_table(table)?,
        (None, Some(labels), Some(predictions)) => pairs::from_folders(labels, predictions)?,
        _ => bail!("expected true labels and predictions, or --pairs"),
    };
    if let (Some(first), false) = (found.extra.first(), arguments.allow_extra) {
        bail!(
            "{}: no true label image belongs to this prediction ({} such; --allow_extra leaves them out)",
            first.display(),
            found.extra.len()
        );
    }
    let missing: Vec<&Pair> = found.pairs.iter().filter(|pair| pair.prediction.is_none()).collect();
    if let (Some(first), None) = (missing.first(), arguments.allow_missing) {
        bail!(
            "{}: no prediction {} ({} such; --allow_missing zero or skip)",
            first.truth.display(),
            first.expected,
            missing.len()
        );
    }
    if !found.extra.is_empty() {
        say(&format!("note: {} prediction(s) without true labels left out", found.extra.len()));
    }
    Ok(found.pairs)
}

/// `None` for an image that is to be left out.
fn score_pair(pair: &Pair, arguments: &EvaluateArgs, options: &ScoreOptions) -> Result<Option<Row>> {
    let mut truth = read_label_stack(&pair.truth)?;
    if arguments.relabel {
        truth = LabelStack::from_vec(truth.size(), connected_components(&truth)?)?;
    }
    let prediction = pair.prediction.as_deref().map(read_label_stack).transpose()?;
    let (note, allowance) = match &prediction {
        None => (MISSING, arguments.allow_missing),
        Some(prediction) if prediction.size() != truth.size() => (MISSHAPED, arguments.allow_misshaped),
        Some(_) => ("", None),
    };
    let prediction = match (allowance, prediction) {
        (Some(Allowance::Skip), _) => return Ok(None),
        // Without an allowance the comparison itself says which sizes differ.
        (None, Some(prediction)) => prediction,
        _ => LabelStack::from_vec(truth.size(), vec![0; truth.as_slice().len()])?,
    };
    // Rightly nothing is an achievement of a prediction only.
    let both_empty = if note.is_empty() { options.both_empty } else { BothEmpty::Zero };
    let options = ScoreOptions { both_empty, ..options.clone() };
    let (truth, prediction) = (array(&truth)?, array(&prediction)?);
    let named = || pair.prediction.as_deref().unwrap_or(&pair.truth).display().to_string();
    let scores = score(&truth, &prediction, &options).with_context(named)?;
    let objects = match arguments.objects {
        Some(_) => object_scores(&contingency(&truth, &prediction)?, arguments.threshold).with_context(named)?,
        None => Vec::new(),
    };
    Ok(Some(Row { name: pair.name.clone(), scores, objects, note }))
}

/// A stack of one plane is an image.
fn array(stack: &LabelStack) -> Result<LabelArray<'_>> {
    let size = stack.size().map(|side| side as usize);
    let shape = if size[0] == 1 { &size[1..] } else { &size[..] };
    Ok(LabelArray::new(shape, stack.as_slice())?)
}
