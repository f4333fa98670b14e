//! Which images `train` learns from, as flags; reading and checking them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use cytomask::Normalization;
use cytomask::train::data::Augmentation;
use cytomask::train::data::check::{Finding, Severity};
use cytomask::training::{DataOptions, Dataset, Hardware, Pair, Use, open, pair_folders, read_pairs};
use serde_json::json;

use crate::choose::{self, PlaneArgs};
use crate::inputs;
use crate::progress::{Progress, print, say};

/// More validation images than this would take longer than the training between two checkpoints.
const MAX_VALIDATION: usize = 25;

/// Findings of one kind written out one by one; the rest is counted.
const MOST_OF_A_KIND: usize = 5;

/// Pairs, weights by source, and what did not pair.
type Belonging = (Vec<Pair>, BTreeMap<String, f64>, Vec<Finding>);

#[derive(Args)]
#[command(next_help_heading = "Images")]
pub(crate) struct DataArgs {
    /// Folder of training images.
    #[arg(value_name = "IMAGES", required_unless_present_any = ["images_flag", "table"])]
    images: Option<PathBuf>,
    /// Folder of their label images, named as the images (or NAME_labels, NAME_masks, NAME_seg.npy). [default: `labels` beside
    /// `images` in IMAGES, or IMAGES itself]
    #[arg(value_name = "LABELS")]
    labels: Option<PathBuf>,
    /// The same as IMAGES; several folders are several sources.
    #[arg(long = "images", value_name = "DIR", id = "images_flag", conflicts_with = "images", num_args = 1..)]
    images_flag: Vec<PathBuf>,
    /// The same as LABELS, one for each of --images.
    #[arg(long = "labels", value_name = "DIR", id = "labels_flag", conflicts_with = "labels", num_args = 1..)]
    labels_flag: Vec<PathBuf>,
    /// A CSV table instead, with the columns image and labels and, if wished, split (train, val), group and weight.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["images", "labels", "images_flag", "labels_flag", "val_images"])]
    table: Option<PathBuf>,
    /// Folder of validation images; without it one image in ten is held out.
    #[arg(long = "val_images", value_name = "DIR")]
    val_images: Option<PathBuf>,
    /// Folder of validation label images.
    #[arg(long = "val_labels", value_name = "DIR", requires = "val_images")]
    val_labels: Option<PathBuf>,
    /// How often a source (a folder's name, or a group of the table) is drawn beside the others. [default: the root of the number of its
    /// images]
    #[arg(long = "weight", value_name = "NAME=NUMBER", value_parser = weight)]
    weights: Vec<(String, f64)>,
    #[command(flatten)]
    plane: PlaneArgs,
    /// Leave images without labels, and labels without image, out.
    #[arg(long = "skip_unlabelled", help_heading = "Images")]
    skip_unlabelled: bool,
    /// Make every connected part of the labels an object: for semantic masks.
    #[arg(long = "split_components", help_heading = "Images")]
    split_components: bool,
    /// Fill the holes of objects.
    #[arg(long = "fill_holes", help_heading = "Images")]
    fill_holes: bool,
    /// How crops are changed: none, light, default or strong; after commas factors for single changes, such as `default,blur=0,stain=2`
    /// (flip, rotate, scale, size, stretch, gamma, gain, offset, invert, stain, illumination, blur, noise).
    #[arg(long, value_name = "SET[,NAME=FACTOR…]", default_value = "default", value_parser = augmentation, help_heading = "Images")]
    pub(super) augment: Augmentation,
    /// Check images and labels, print what was found, and stop.
    #[arg(long = "check_only", help_heading = "Images")]
    pub(super) check_only: bool,
    /// Print the result of --check_only as JSON.
    #[arg(long, requires = "check_only", help_heading = "Images")]
    json: bool,
}

fn weight(text: &str) -> Result<(String, f64), String> {
    let parsed = text.rsplit_once('=').and_then(|(name, value)| Some((name.to_owned(), value.parse::<f64>().ok()?)));
    let parsed = parsed.filter(|(_, value)| value.is_finite() && *value >= 0.0);
    parsed.ok_or_else(|| format!("expected NAME=NUMBER with a number from 0, found {text:?}"))
}

fn augmentation(text: &str) -> Result<Augmentation, String> {
    Augmentation::parse(text).map_err(|error| error.to_string())
}

impl DataArgs {
    /// What the user named, for messages and titles.
    pub(super) fn place(&self) -> &Path {
        let named = self.table.as_deref().or(self.images.as_deref()).or(self.images_flag.first().map(PathBuf::as_path));
        named.unwrap_or(Path::new("."))
    }

    /// Reads and checks everything. Warnings are said; with errors the run ends.
    pub(super) fn open(&self, normalization: Normalization, hardware: &Hardware) -> Result<Dataset> {
        let data = self.read(normalization, hardware)?;
        say_findings(&data.findings);
        if data.errors() > 0 {
            bail!("{}: {} of the images cannot be learnt from as they are", self.place().display(), data.errors());
        }
        if data.store.is_empty() {
            bail!("{}: no training images", self.place().display());
        }
        Ok(data)
    }

    fn read(&self, normalization: Normalization, hardware: &Hardware) -> Result<Dataset> {
        let (pairs, weights, findings) = self.pairs()?;
        let options = DataOptions {
            selection: choose::one_plane(&self.plane)?,
            normalization,
            split_components: self.split_components,
            fill_holes: self.fill_holes,
            kept_bytes: hardware.defaults(&[]).kept_bytes,
            max_validation: MAX_VALIDATION,
            weights: weights.into_iter().chain(self.weights.iter().cloned()).collect(),
        };
        let mut progress = Progress::new("checking images");
        let total = pairs.len() as u64;
        Ok(open(self.place(), &pairs, findings, &options, &mut |done| progress.set(done as u64, total))?)
    }

    /// What belongs together.
    fn pairs(&self) -> Result<Belonging> {
        if let Some(table) = &self.table {
            let (pairs, weights) = read_pairs(table)?;
            return Ok((pairs, weights, Vec::new()));
        }
        let images: Vec<&PathBuf> = self.images.iter().chain(&self.images_flag).collect();
        let labels: Vec<&PathBuf> = self.labels.iter().chain(&self.labels_flag).collect();
        if !labels.is_empty() && labels.len() != images.len() {
            bail!("--labels: expected one folder for each of --images ({}), found {}", images.len(), labels.len());
        }
        let (mut pairs, mut findings) = (Vec::new(), Vec::new());
        let mut add = |images: &Path, labels: Option<&PathBuf>, group: &str, purpose: Option<Use>| -> Result<()> {
            let (images, labels) = folders(images, labels);
            let found = inputs::images_in(&images)?;
            if found.is_empty() {
                bail!("{}: no images in this folder", images.display());
            }
            let paired = pair_folders(&found, &inputs::images_in(&labels)?, group, purpose, self.skip_unlabelled);
            pairs.extend(paired.pairs);
            findings.extend(paired.findings);
            Ok(())
        };
        let training = self.val_images.as_ref().map(|_| Use::Training);
        for (index, folder) in images.iter().enumerate() {
            add(folder, labels.get(index).copied(), &source_name(folder, &images), training)?;
        }
        if let Some(folder) = &self.val_images {
            let group = source_name(images.first().copied().context("IMAGES is missing")?, &images);
            add(folder, self.val_labels.as_ref(), &group, Some(Use::Validation))?;
        }
        Ok((pairs, BTreeMap::new(), findings))
    }

    /// `--check_only`: the table on stdout, and an error when the images cannot be learnt from.
    pub(super) fn check(&self, normalization: Normalization, hardware: &Hardware) -> Result<()> {
        let data = self.read(normalization, hardware)?;
        if self.json {
            let found = json!({ "images": data.rows, "findings": data.findings, "shares": data.shares });
            print(&format!("{found:#}"))?;
        } else {
            print(&format!(
                "{:44} {:10} {:>13} {:>8} {:>6} {:>8}",
                "image", "for", "size", "objects", "tiny", "side px"
            ))?;
            for row in &data.rows {
                print(&format!(
                    "{:44} {:10} {:>13} {:>8} {:>6} {:>8}",
                    row.image.display().to_string(),
                    row.purpose_name(),
                    row.size.map_or_else(|| "–".to_owned(), |[h, w]| format!("{h} × {w}")),
                    row.objects,
                    row.tiny,
                    row.median_side.map_or_else(|| "–".to_owned(), |side| format!("{side:.1}")),
                ))?;
            }
            for finding in &data.findings {
                print(&line(finding))?;
            }
            let warnings = data.findings.len() - data.errors();
            print(&format!(
                "{} training and {} validation images; {} errors, {warnings} warnings",
                data.count(Use::Training),
                data.count(Use::Validation),
                data.errors()
            ))?;
        }
        if data.errors() > 0 {
            bail!("{}: {} of the images cannot be learnt from as they are", self.place().display(), data.errors());
        }
        Ok(())
    }
}

/// `FOLDER/images` and `FOLDER/labels` where FOLDER has both and no labels are named, as `datasets prepare` writes them; else labels may lie
/// beside the images.
fn folders(images: &Path, labels: Option<&PathBuf>) -> (PathBuf, PathBuf) {
    let inner = (images.join("images"), images.join("labels"));
    match labels {
        Some(labels) => (images.to_path_buf(), labels.clone()),
        None if inner.0.is_dir() && inner.1.is_dir() => inner,
        None => (images.to_path_buf(), images.to_path_buf()),
    }
}

/// A folder's name that tells it from the others: its own, or with those above it.
fn source_name(folder: &Path, all: &[&PathBuf]) -> String {
    if all.len() == 1 {
        return String::new();
    }
    let parts = |folder: &Path| -> Vec<String> {
        let parts = folder.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
        let mut parts: Vec<String> = parts.collect();
        if parts.len() > 1 && parts.last().is_some_and(|last| last == "images") {
            parts.pop();
        }
        parts
    };
    let own = parts(folder);
    for count in 1..=own.len() {
        let tail = &own[own.len() - count..];
        if all.iter().filter(|other| parts(other).ends_with(tail)).count() == 1 {
            return tail.join("/");
        }
    }
    folder.display().to_string()
}

fn line(finding: &Finding) -> String {
    let word = if finding.severity == Severity::Error { "error" } else { "warning" };
    format!("{word}: {finding}")
}

/// On stderr; many of one kind are counted.
fn say_findings(findings: &[Finding]) {
    let mut said = BTreeMap::new();
    for finding in findings {
        let count = said.entry((finding.severity, finding.problem)).or_insert(0_usize);
        *count += 1;
        if *count <= MOST_OF_A_KIND {
            say(&line(finding));
        }
    }
    let more: usize = said.values().map(|count| count.saturating_sub(MOST_OF_A_KIND)).sum();
    if more > 0 {
        say(&format!("and {more} more of these kinds; --check_only prints all"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_the_shortest_name_of_their_own() {
        let folders: Vec<PathBuf> =
            ["data/dsb/images", "data/tnbc/images", "other/tnbc/images"].map(PathBuf::from).to_vec();
        let all: Vec<&PathBuf> = folders.iter().collect();
        let names: Vec<String> = folders.iter().map(|folder| source_name(folder, &all)).collect();
        assert_eq!(names, ["dsb", "data/tnbc", "other/tnbc"]);
        assert_eq!(source_name(&folders[0], &all[..1]), "");
    }

    #[test]
    fn weights_are_numbers() {
        assert_eq!(weight("a=b=2.5"), Ok(("a=b".into(), 2.5)));
        assert!(weight("a").is_err() && weight("a=-1").is_err() && weight("a=nan").is_err());
    }
}
