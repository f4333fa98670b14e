//! `cytomask datasets`: the paper's 36 datasets.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use cytomask::datasets::{Dataset, PrepareOptions, SplitName, all, find, paper_scores, prepare};
use serde_json::{Value, json};

use crate::progress::{Progress, print, say};

#[derive(Args)]
pub(crate) struct DatasetsArgs {
    #[command(subcommand)]
    command: DatasetsCommand,
}

#[derive(Subcommand)]
enum DatasetsCommand {
    /// All datasets: domain, access, whether the paper's test set can be made again.
    List {
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// What is known of one dataset: sources, licence, splits, rules, the paper's scores.
    Info {
        /// A dataset's key or title.
        name: String,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the paper's 2-D images and labels from what is published.
    Prepare(PrepareArgs),
}

#[derive(Args)]
struct PrepareArgs {
    /// A dataset's key or title.
    name: String,
    /// Archives, folders or files as published (`datasets info NAME` lists them).
    #[arg(long, num_args = 1.., value_name = "PATH", required_unless_present = "download")]
    from: Vec<PathBuf>,
    /// Fetch what is published without a login, into DIR/_downloads, and go on from there.
    #[arg(long, conflicts_with = "from")]
    download: bool,
    /// Folder for the results: DIR/KEY/SPLIT with images, labels and manifest.json.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Which set.
    #[arg(long, value_enum, default_value_t = Split::Test)]
    split: Split,
    /// Accept files that differ from the published ones.
    #[arg(long)]
    any_hash: bool,
    /// Replace a set that is there already.
    #[arg(long)]
    replace: bool,
    /// Print a summary as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Split {
    /// Validation.
    Val,
    /// Test.
    Test,
}

/// Runs one of the subcommands.
pub(crate) fn run(arguments: &DatasetsArgs) -> Result<()> {
    match &arguments.command {
        DatasetsCommand::List { json } => list(*json),
        DatasetsCommand::Info { name, json } => info(known(name)?, *json),
        DatasetsCommand::Prepare(arguments) => run_prepare(arguments),
    }
}

fn known(name: &str) -> Result<&'static Dataset> {
    match find(name) {
        Some(dataset) => Ok(dataset),
        None => bail!("{name}: no dataset of this name; see `cytomask datasets list`"),
    }
}

fn list(as_json: bool) -> Result<()> {
    if as_json {
        let rows: Vec<Value> = all().map(describe).collect();
        return print(&format!("{:#}", json!(rows)));
    }
    print(&format!(
        "{:18} {:18} {:18} {:12} {:30} {}",
        "key", "title", "domain", "access", "paper's test set", "images"
    ))?;
    for dataset in all() {
        print(&format!(
            "{:18} {:18} {:18} {:12} {:30} {}",
            dataset.key,
            dataset.title,
            dataset.domain.name(),
            access(dataset, SplitName::Test),
            dataset.test.repeatable.name(),
            dataset.modality
        ))?;
    }
    Ok(())
}

/// The ways a split's sources can be had.
fn access(dataset: &Dataset, split: SplitName) -> String {
    let mut names: Vec<&str> =
        dataset.sources.iter().filter(|source| source.serves(split)).map(|source| source.access.name()).collect();
    names.dedup();
    names.join(", ")
}

fn describe(dataset: &Dataset) -> Value {
    let sources: Vec<Value> = dataset
        .sources
        .iter()
        .map(|source| {
            json!({
                "file": source.file, "url": source.url, "sha256": source.sha256, "access": source.access.name(),
                "split": source.split.map_or("both", SplitName::name),
            })
        })
        .collect();
    let scores: Vec<Value> = paper_scores(dataset.title)
        .into_iter()
        .map(|score| json!({ "method": score.method.key, "msa": score.msa, "in_domain": score.in_domain }))
        .collect();
    let split = |split| {
        let rule = dataset.split(split);
        json!({ "rule": rule.rule, "papers_split": rule.repeatable.name(), "downloads": dataset.downloads(split) })
    };
    json!({
        "key": dataset.key,
        "title": dataset.title,
        "domain": dataset.domain.name(),
        "modality": dataset.modality,
        "licence": dataset.licence,
        "licence_checked": false,
        "citation": dataset.citation,
        "hint": dataset.hint,
        "sources": sources,
        "val": split(SplitName::Val),
        "test": split(SplitName::Test),
        "crop": dataset.crop.name(),
        "min_distinct_labels": dataset.min_count,
        "ignore_label": dataset.ignore_label,
        "paper_scores": scores,
    })
}

fn info(dataset: &Dataset, as_json: bool) -> Result<()> {
    if as_json {
        return print(&format!("{:#}", describe(dataset)));
    }
    let line = |name: &str, text: &str| if text.is_empty() { Ok(()) } else { print(&format!("{name:14}{text}")) };
    line("key", dataset.key)?;
    line("title", dataset.title)?;
    line("domain", dataset.domain.title())?;
    line("images", dataset.modality)?;
    line("licence", &format!("{} (general knowledge: check it at the source)", dataset.licence))?;
    line("citation", dataset.citation)?;
    for source in dataset.sources {
        let split = source.split.map_or("val and test", SplitName::name);
        line("source", &format!("{} ({}, for {split})", source.file, source.access.name()))?;
        line("", &format!("  {}", source.url))?;
        line("", &source.sha256.map_or("  no published hash".to_owned(), |hash| format!("  sha256 {hash}")))?;
    }
    line("what to give", dataset.hint)?;
    for split in [SplitName::Val, SplitName::Test] {
        let rule = dataset.split(split);
        line(split.name(), &format!("{}; the paper's: {}", rule.rule, rule.repeatable.name()))?;
    }
    line("crop", dataset.crop.name())?;
    let min_count = dataset.min_count.map(|count| format!("{count} distinct label values, background included"));
    line("at least", &min_count.unwrap_or("all images are kept".to_owned()))?;
    line("ignored", &dataset.ignore_label.map_or(String::new(), |label| format!("label {label} becomes background")))?;
    for score in paper_scores(dataset.title) {
        let msa = score.msa.map_or("not reported".to_owned(), |msa| format!("{msa:.3}"));
        let mark = if score.in_domain { " (in-domain)" } else { "" };
        line("paper's mSA", &format!("{:24}{msa}{mark}", score.method.title))?;
    }
    Ok(())
}

fn run_prepare(arguments: &PrepareArgs) -> Result<()> {
    let dataset = known(&arguments.name)?;
    let split = match arguments.split {
        Split::Val => SplitName::Val,
        Split::Test => SplitName::Test,
    };
    let inputs = if arguments.download { download(dataset, split, &arguments.output)? } else { arguments.from.clone() };
    let options = PrepareOptions {
        split,
        check_hashes: !arguments.any_hash,
        replace: arguments.replace,
        ..PrepareOptions::default()
    };
    let mut bar = Progress::new(dataset.key);
    let prepared = prepare(dataset, &inputs, &arguments.output, &options, &mut |_, done| {
        bar.set(done as u64, done as u64 + 1);
    });
    drop(bar);
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            if error.kind() == cytomask::datasets::ErrorKind::NotFound {
                say(&format!("hint: `cytomask datasets info {}` says what to give", dataset.key));
            }
            return Err(error.into());
        }
    };
    say(&format!("licence: {} (check it at the source: {})", dataset.licence, dataset.citation));
    if arguments.json {
        let summary = json!({
            "folder": prepared.folder, "images": prepared.images,
            "skipped": prepared.skipped, "left_out": prepared.left_out,
        });
        return print(&format!("{summary:#}"));
    }
    say(&format!(
        "{} images; {} skipped for too few objects, {} left out (manifest.json says why)",
        prepared.images, prepared.skipped, prepared.left_out
    ));
    print(&prepared.folder.display().to_string())
}

/// Fetches a split's sources; refuses with a list where one needs a person.
fn download(dataset: &Dataset, split: SplitName, output: &Path) -> Result<Vec<PathBuf>> {
    let sources: Vec<_> = dataset.sources.iter().filter(|source| source.serves(split)).collect();
    if !dataset.downloads(split) {
        let key = dataset.key;
        let mut text = format!("{key}: cannot be downloaded by a program; fetch by hand:");
        for source in &sources {
            text.push_str(&format!("\n  {} ({}): {}", source.file, source.access.name(), source.url));
        }
        if !dataset.hint.is_empty() {
            text.push_str(&format!("\nwhat to give: {}", dataset.hint));
        }
        let files: Vec<&str> = sources.iter().map(|source| source.file).collect();
        say(&text);
        let files = files.join(" ");
        say(&format!("hint: cytomask datasets prepare {key} --split {} --from {files} -o DIR", split.name()));
        bail!("{key}: needs a person to fetch it");
    }
    let folder = output.join("_downloads").join(dataset.key);
    std::fs::create_dir_all(&folder)?;
    sources.iter().map(|source| fetch(source.url, folder.join(source.file))).collect()
}

#[cfg(feature = "download")]
fn fetch(url: &str, path: PathBuf) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut progress = Progress::new(&name);
    cytomask::weights::download_file(url, &path, std::time::Duration::from_secs(60), &mut |done, total| {
        progress.set(done, total.unwrap_or(done));
    })?;
    Ok(path)
}

#[cfg(not(feature = "download"))]
fn fetch(url: &str, path: PathBuf) -> Result<PathBuf> {
    bail!("this program was built without downloads; fetch {url} as {} yourself and use --from", path.display())
}
