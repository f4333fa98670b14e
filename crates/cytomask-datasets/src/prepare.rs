//! From published archives to the paper's 2-D images and labels.
//!
//! `OUT/KEY/SPLIT/` holds `images/KEY_0000.tif`, `labels/KEY_0000.tif` and `manifest.json`. The folder appears whole or not at
//! all: everything is written beside it under another name first. Numbers have gaps: an item keeps its number in the paper's
//! list when others before it are left out for having too few objects.

mod write;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::archive::{Files, Limits};
use crate::plane::Plane;
use crate::readers::{self, Item, Job};
use crate::table::{Crop, SplitName};
use crate::{Dataset, Error, ErrorKind, Result, ops, resize};

/// Upstream stops the validation set after the item of this number.
const LAST_VAL: usize = 100;

/// How a set is prepared.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// Which set.
    pub split: SplitName,
    /// Refuse files that are not the published ones (where a hash is published).
    pub check_hashes: bool,
    /// Replace what was prepared before.
    pub replace: bool,
    /// How much archives may hold.
    pub limits: Limits,
}

impl Default for PrepareOptions {
    fn default() -> Self {
        Self { split: SplitName::Test, check_hashes: true, replace: false, limits: Limits::default() }
    }
}

/// A prepared set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Prepared {
    /// The folder with `images`, `labels` and `manifest.json`.
    pub folder: PathBuf,
    /// Images written.
    pub images: usize,
    /// Images left out for too few objects; the manifest names them.
    pub skipped: usize,
    /// Files left out before numbering; the manifest names them.
    pub left_out: usize,
}

/// Reads archives, folders or files of a dataset as published and writes one of its sets below `output`. `progress` gets the
/// name and count of each item.
///
/// # Errors
/// Each names the archive and its member. `NotFound` for a missing file or labels; `Hash` for a file that is not the published
/// one; `Unsafe` for an archive that could do harm; `Format`, `Shape`, `Unsupported`, `Value` for its content; `Value` when the
/// set is there already; `Io`.
pub fn prepare(
    dataset: &Dataset,
    inputs: &[PathBuf],
    output: impl AsRef<Path>,
    options: &PrepareOptions,
    progress: &mut dyn FnMut(&str, usize),
) -> Result<Prepared> {
    let split = options.split;
    let parent = output.as_ref().join(dataset.key);
    let folder = parent.join(split.name());
    if folder.exists() && !options.replace {
        let message = "this set is there already; remove the folder or ask for it to be replaced";
        return Err(Error::new(ErrorKind::Value, message).in_archive(folder.display()));
    }
    let sources = check_sources(dataset, inputs, options)?;
    let io = |path: &Path, what: &'static str| {
        let path = path.to_owned();
        move |source| Error::io(path, what, source)
    };
    std::fs::create_dir_all(&parent).map_err(io(&parent, "cannot create the folder"))?;
    let stage = tempfile::Builder::new()
        .prefix(&format!(".{}-", split.name()))
        .suffix(".partial")
        .tempdir_in(&parent)
        .map_err(io(&parent, "cannot create a folder in it"))?;
    for name in ["images", "labels"] {
        let path = stage.path().join(name);
        std::fs::create_dir(&path).map_err(io(&path, "cannot create the folder"))?;
    }
    let mut files = Files::open(inputs, stage.path(), options.limits)?;
    let mut set =
        Set { dataset, split, stage: stage.path(), next: 0, images: vec![], skipped: vec![], left_out: vec![] };
    let mut job = Job { files: &mut files, split, rule: *dataset.split(split) };
    readers::read(dataset, &mut job, &mut |item| {
        let (name, done) = (
            match &item {
                Item::Pair { name, .. } | Item::LeftOut { name, .. } => name.clone(),
            },
            set.next,
        );
        progress(&name, done);
        set.take(item)
    })?;
    if set.images.is_empty() {
        let message = format!(
            "no image is left: {} have too few objects, {} were left out",
            set.skipped.len(),
            set.left_out.len()
        );
        return Err(Error::new(ErrorKind::NotFound, message).in_archive(files.roots()));
    }
    let prepared = Prepared {
        images: set.images.len(),
        skipped: set.skipped.len(),
        left_out: set.left_out.len(),
        folder: folder.clone(),
    };
    let manifest = set.manifest(sources);
    let path = stage.path().join("manifest.json");
    std::fs::write(&path, format!("{manifest:#}\n")).map_err(io(&path, "cannot write"))?;
    // Takes the scratch copies away before the folder becomes visible.
    drop(files);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(io(&folder, "cannot remove the earlier set"))?;
    }
    std::fs::rename(stage.path(), &folder).map_err(io(&folder, "cannot move the finished set to its place"))?;
    Ok(prepared)
}

/// A set that is being written.
struct Set<'a> {
    dataset: &'a Dataset,
    split: SplitName,
    stage: &'a Path,
    /// Number of the next item.
    next: usize,
    images: Vec<Value>,
    skipped: Vec<Value>,
    left_out: Vec<Value>,
}

impl Set<'_> {
    /// Writes an item, or notes why not; `false` after the last one.
    fn take(&mut self, item: Item) -> Result<bool> {
        let (image, labels, name) = match item {
            Item::Pair { image, labels, name } => (image, labels, name),
            Item::LeftOut { name, reason } => {
                self.left_out.push(json!({ "from": name, "reason": reason }));
                return Ok(true);
            }
        };
        let number = self.next;
        self.next += 1;
        let at = |error: Error| error.in_archive(self.dataset.key).at_member(&name);
        let (image, mut labels) = cropped(self.dataset.crop, image, labels);
        if let Some(ignored) = self.dataset.ignore_label {
            labels.values.iter_mut().filter(|value| **value == ignored as f64).for_each(|value| *value = 0.0);
        }
        if let Some(min_count) = self.dataset.min_count {
            let count = labels.distinct();
            if count == 1 || count < min_count {
                let reason =
                    format!("{count} distinct label values, background included; at least {min_count} are needed");
                self.skipped.push(json!({ "number": number, "from": name, "reason": reason }));
                return Ok(true);
            }
        }
        let entry =
            write::pair(self.stage, &format!("{}_{number:04}", self.dataset.key), &image, &labels).map_err(at)?;
        let mut entry = entry;
        entry["number"] = json!(number);
        entry["from"] = json!(name);
        self.images.push(entry);
        // Upstream's quirk: it goes on when the item of this number was skipped above. Sets that it takes as they are
        // (no minimum) have no end.
        let limited = self.split == SplitName::Val && self.dataset.min_count.is_some();
        Ok(!(limited && number == LAST_VAL))
    }

    fn manifest(self, sources: Vec<Value>) -> Value {
        let (dataset, rule) = (self.dataset, self.dataset.split(self.split));
        json!({
            "format": "cytomask prepared dataset",
            "format_version": 1,
            "cytomask": env!("CARGO_PKG_VERSION"),
            "dataset": dataset.key,
            "title": dataset.title,
            "domain": dataset.domain.name(),
            "split": self.split.name(),
            "split_rule": rule.rule,
            "papers_split": rule.repeatable.name(),
            "crop": dataset.crop.name(),
            "min_distinct_labels": dataset.min_count,
            "ignore_label": dataset.ignore_label,
            "licence": format!("{} (to be checked at the source)", dataset.licence),
            "citation": dataset.citation,
            "sources": sources,
            "images": self.images,
            "skipped": self.skipped,
            "left_out": self.left_out,
        })
    }
}

fn cropped(crop: Crop, image: Plane, labels: Plane) -> (Plane, Plane) {
    let both = |(start, size): ([u32; 2], [u32; 2])| (ops::cut(&image, start, size), ops::cut(&labels, start, size));
    match crop {
        Crop::None => (image, labels),
        Crop::Centre => both(ops::centre(image.size)),
        Crop::Foreground => both(ops::around_labels(&labels)),
        // The labels too are interpolated, which makes new values along borders: upstream does so.
        Crop::Resize => (resize::resize(&image, [ops::SIDE; 2], true), resize::resize(&labels, [ops::SIDE; 2], false)),
        Crop::Pad => (ops::pad(&image), ops::pad(&labels)),
    }
}

/// Compares given files with the published hashes and describes them for the manifest.
fn check_sources(dataset: &Dataset, inputs: &[PathBuf], options: &PrepareOptions) -> Result<Vec<Value>> {
    if inputs.is_empty() {
        let wanted: Vec<&str> = dataset.sources.iter().filter(|s| s.serves(options.split)).map(|s| s.file).collect();
        let message = format!("{}: no archive or folder is given; expected {}", dataset.key, wanted.join(", "));
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    let known: Vec<_> = dataset.sources.iter().filter(|source| source.serves(options.split)).collect();
    let mut described = Vec::new();
    for input in inputs {
        let name = input.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !input.exists() {
            return Err(Error::expected(ErrorKind::NotFound, "input", "an archive or folder", "none")
                .in_archive(input.display()));
        }
        if input.is_dir() {
            described.push(json!({ "folder": input.display().to_string(), "published_hash": "not checked: a folder" }));
            continue;
        }
        let (sha256, bytes) = write::sha256(input)?;
        let same = known.iter().find(|source| source.sha256 == Some(&sha256));
        let named = known.iter().find(|source| source.file == name);
        let expected: Vec<&str> = match named {
            Some(source) => source.sha256.into_iter().collect(),
            None if known.iter().all(|source| source.sha256.is_some()) => {
                known.iter().filter_map(|s| s.sha256).collect()
            }
            None => Vec::new(),
        };
        if same.is_none() && !expected.is_empty() && options.check_hashes {
            let expected = format!("{} ({})", expected.join(" or "), dataset.key);
            return Err(Error::expected(ErrorKind::Hash, "SHA-256", expected, &sha256).in_archive(input.display()));
        }
        let verdict = match (same, expected.is_empty()) {
            (Some(_), _) => "equal",
            (None, true) => "none published",
            (None, false) => "different",
        };
        described.push(json!({ "file": name, "bytes": bytes, "sha256": sha256, "published_hash": verdict }));
    }
    Ok(described)
}
