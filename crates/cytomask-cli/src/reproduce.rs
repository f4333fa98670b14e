//! `cytomask reproduce`: the paper's table, ours beside the paper's numbers.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use cytomask::compare::{CompareOptions, Contestant, ReportOptions, Step, run as compare, write};
use cytomask::datasets::{Domain, SplitName, find};
use cytomask::eval::{BothEmpty, Metric, ScoreOptions};
use cytomask::output::write_text;
use cytomask::reproduce::{Mean, PreparedSet, Row, as_json, csv, find_sets, markdown};
use serde_json::json;

use crate::args::Device;
use crate::compare::Models;
use crate::progress::{Progress, print, say};

const ABOUT_RUNS: &str = "\
Without --run, the paper's AMG, AIS and APG with SAM ViT-B and µSAM's models (PathoSAM's for histopathology), as far as they were
pulled (`cytomask models pull`), and the built-in model by AIS and APG.

Prepare datasets first: cytomask datasets prepare KEY --from ARCHIVE -o DIR. A run that was stopped goes on where it was.";

/// Flags of `reproduce`.
#[derive(Args)]
#[command(after_help = ABOUT_RUNS)]
pub(crate) struct ReproduceArgs {
    /// The folder `datasets prepare` wrote to.
    #[arg(value_name = "DIR")]
    datasets: PathBuf,
    /// Folder for the table and a report of each dataset.
    #[arg(short, long, alias = "output_path", value_name = "DIR")]
    output: PathBuf,
    /// Only these datasets.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// A method to run, as in `compare`.
    #[arg(long = "run", value_name = "[NAME=]MODEL[:MODE[:SETTINGS]]")]
    runs: Vec<String>,
    /// Where networks run.
    #[arg(short, long, value_enum, default_value_t = Device::Auto)]
    device: Device,
    /// Print the table as JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// Runs all methods on all prepared sets; a set or method that cannot be run is said and left out.
pub(crate) fn run(arguments: &ReproduceArgs) -> Result<()> {
    let sets = sets(arguments)?;
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| format!("{}: cannot make the folder", arguments.output.display()))?;
    let mut rows = Vec::new();
    let mut incomplete = 0;
    let mut models = Models::new(arguments.device);
    for set in &sets {
        say(&format!("{} ({})", set.dataset.title, set.dataset.key));
        let row = row(arguments, set, &mut models).with_context(|| set.folder.display().to_string())?;
        incomplete += usize::from(row.images < row.given);
        rows.push(row);
        // After each dataset, so that a run of days shows what it has.
        write_text(arguments.output.join("table.md"), &markdown(&rows))?;
        write_text(arguments.output.join("table.csv"), &csv(&rows))?;
        write_text(arguments.output.join("table.json"), &format!("{:#}\n", as_json(&rows)))?;
    }
    print(&if arguments.json { format!("{:#}", as_json(&rows)) } else { markdown(&rows) })?;
    let missing = cytomask::datasets::all().count() - sets.len();
    if missing > 0 && arguments.only.is_empty() {
        say(&format!("{missing} of 36 datasets are not prepared; see `cytomask datasets list`"));
    }
    if incomplete > 0 {
        bail!("{incomplete} dataset(s) with images left out: a method failed on them");
    }
    Ok(())
}

fn sets(arguments: &ReproduceArgs) -> Result<Vec<PreparedSet>> {
    let mut wanted = Vec::new();
    for name in &arguments.only {
        let Some(dataset) = find(name) else {
            bail!("--only {name}: no dataset of this name; see `cytomask datasets list`")
        };
        wanted.push(dataset.key);
    }
    let mut sets = find_sets(&arguments.datasets, SplitName::Test);
    if let Some(absent) = wanted.iter().find(|key| sets.iter().all(|set| set.dataset.key != **key)) {
        bail!("{}: {absent} is not prepared here (no {absent}/test/manifest.json)", arguments.datasets.display());
    }
    sets.retain(|set| wanted.is_empty() || wanted.contains(&set.dataset.key));
    if sets.is_empty() {
        bail!("{}: no prepared dataset (KEY/test/manifest.json)", arguments.datasets.display());
    }
    Ok(sets)
}

/// The methods for a dataset: those asked for, or the paper's with the built-in ones.
fn contestants(arguments: &ReproduceArgs, domain: Domain, models: &mut Models) -> Result<Vec<Contestant>> {
    if !arguments.runs.is_empty() {
        return arguments.runs.iter().map(|text| models.run(text, false)).collect();
    }
    let specialist = if domain == Domain::Histopathology { "vit_b_histopathology" } else { "vit_b_lm" };
    let mut found = Vec::new();
    for (name, run) in [
        ("SAM AMG", "vit_b:amg".to_owned()),
        ("µSAM AIS", format!("{specialist}:ais")),
        ("APG", format!("{specialist}:apg")),
    ] {
        match models.run(&format!("{name}={run}"), true) {
            Ok(contestant) => found.push(contestant),
            Err(error) => say(&format!("{name} left out: {error:#}")),
        }
    }
    for run in ["ais", "apg"] {
        found.push(models.run(run, false)?);
    }
    Ok(found)
}

fn row(arguments: &ReproduceArgs, set: &PreparedSet, models: &mut Models) -> Result<Row> {
    let cases = set.cases()?;
    let contestants = contestants(arguments, set.dataset.domain, models)?;
    // The paper's scores count an image without objects and predictions as 0.
    let score = ScoreOptions { both_empty: BothEmpty::Zero, ..ScoreOptions::default() };
    let options = CompareOptions { score, ..Default::default() };
    let folder = arguments.output.join(set.dataset.key);
    std::fs::create_dir_all(&folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
    let mut progress = Progress::new(set.dataset.key);
    let results = compare(&cases, &contestants, &folder, &options, &mut |step| match step {
        Step::Done { done, total } => progress.set(done as u64, total as u64),
        Step::Failed(failure) => progress.line(&format!("error: {}: {}", failure.case, failure.message)),
    })?;
    drop(progress);
    let report = ReportOptions {
        title: format!("{}: ours and the paper's", set.dataset.title),
        metric: Metric::Msa,
        alpha: 0.05,
        provenance: json!({
            "program": format!("cytomask {}", env!("CARGO_PKG_VERSION")),
            "dataset": set.dataset.key,
            "split": set.dataset.test.rule,
            "the paper's split": set.dataset.test.repeatable.name(),
        }),
    };
    let (analysis, _) = write(&folder, &cases, &results, &options, &report)?;
    let mean = |method: &cytomask::report::MethodSummary| Mean {
        method: method.method.clone(),
        msa: method.mean.value,
        interval: [method.mean.low, method.mean.high],
        seconds: method.median_seconds,
    };
    Ok(Row {
        dataset: set.dataset,
        images: results.kept.len(),
        given: cases.len(),
        ours: analysis.methods.iter().map(mean).collect(),
    })
}
