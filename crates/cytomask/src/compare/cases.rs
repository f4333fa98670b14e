//! Which files belong together: image, true labels, predictions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::image_table::ImageTable;
use crate::{Error, ErrorKind};

/// Endings that programs append to an image's name for its labels: ours, Cellpose's, and plain ones.
pub(crate) const SUFFIXES: [&str; 5] = ["_labels", "_cp_masks", "_masks", "_mask", "_label"];

/// An image with ground truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Unique among the cases.
    pub name: String,
    /// The kind of image it is, where there are several.
    pub group: Option<String>,
    /// The image.
    pub image: PathBuf,
    /// Its true label image.
    pub truth: PathBuf,
}

pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

pub(crate) fn bare(stem: &str) -> &str {
    SUFFIXES.iter().find_map(|suffix| stem.strip_suffix(suffix)).filter(|rest| !rest.is_empty()).unwrap_or(stem)
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Setting, message)
}

/// The file of each name among `files`, for names that may end as programs make them end. A whole name goes before a shortened one;
/// a folder that `segment` wrote also holds overlays, which are told by the labels beside them.
fn by_name<'f>(files: &'f [PathBuf], names: &BTreeSet<&str>) -> Result<BTreeMap<String, &'f PathBuf>, Error> {
    let suffixed = files.iter().any(|file| names.contains(bare(&stem(file))) && bare(&stem(file)) != stem(file));
    let mut found: BTreeMap<String, &PathBuf> = BTreeMap::new();
    for file in files {
        let own = stem(file);
        if suffixed && own.ends_with("_overlay") && !names.contains(own.as_str()) {
            continue;
        }
        let name = if names.contains(own.as_str()) { own.as_str() } else { bare(&own) };
        if let Some(other) = found.insert(name.to_owned(), file) {
            let message = format!("{} and {} both belong to {name}; keep one of them", other.display(), file.display());
            return Err(wrong(message));
        }
    }
    Ok(found)
}

/// Pairs images with label images of the same name (or `NAME_labels`, `NAME_cp_masks`, `NAME_masks`).
///
/// # Errors
/// `Setting`, naming the file, when an image has no labels, labels have no image, or two files have one name.
pub fn match_by_name(images: &[PathBuf], labels: &[PathBuf]) -> Result<Vec<Case>, Error> {
    let stems: Vec<String> = images.iter().map(|image| stem(image)).collect();
    let names: BTreeSet<&str> = stems.iter().map(String::as_str).collect();
    let mut of_name = by_name(labels, &names)?;
    let mut cases: Vec<Case> = Vec::with_capacity(images.len());
    for (image, name) in images.iter().zip(stems.iter()) {
        let Some(truth) = of_name.remove(name) else {
            return Err(match cases.iter().find(|case| case.name == *name) {
                Some(other) => wrong(format!("{} and {} have one name", other.image.display(), image.display())),
                None => wrong(format!("{}: no label image named {name} or {name}_labels", image.display())),
            });
        };
        cases.push(Case { name: name.clone(), group: None, image: image.clone(), truth: truth.clone() });
    }
    if let Some(stray) = of_name.values().next() {
        let message = format!("{}: no image belongs to these labels ({} such)", stray.display(), of_name.len());
        return Err(wrong(message));
    }
    Ok(cases)
}

/// The prediction of each case among `files`, by name as in [`match_by_name`].
///
/// # Errors
/// `Setting` when one is missing or belongs to no case.
pub fn predictions_for(method: &str, cases: &[Case], files: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.rsplit('/').next().unwrap_or(&case.name)).collect();
    let mut of_name = by_name(files, &names)?;
    let mut found = Vec::with_capacity(cases.len());
    for case in cases {
        let name = case.name.rsplit('/').next().unwrap_or(&case.name);
        let Some(file) = of_name.get(name) else {
            let message =
                format!("predictions {method}: none named {name} or {name}_labels for {}", case.image.display());
            return Err(wrong(message));
        };
        found.push((*file).clone());
    }
    of_name.retain(|name, _| !names.contains(name.as_str()));
    if let Some(stray) = of_name.values().next() {
        let message = format!("predictions {method}: no image belongs to {} ({} such)", stray.display(), of_name.len());
        return Err(wrong(message));
    }
    Ok(found)
}

/// Reads a CSV table with the columns `image`, `labels` and, if there are several kinds of images, `group`. Paths are relative to the
/// table's folder. Fields cannot hold commas or quotes.
///
/// # Errors
/// `Setting`, naming file and line, for a missing column, a line of another length, or two images of one name in a group.
pub fn read_table(path: &Path) -> Result<Vec<Case>, Error> {
    let table = ImageTable::open(path)?;
    let group = table.column("group");
    let mut cases: Vec<Case> = Vec::new();
    let mut seen = BTreeSet::new();
    for row in table.rows() {
        let row = row?;
        let group = Some(row.field(group)).filter(|group| !group.is_empty()).map(str::to_owned);
        let name = group.as_ref().map_or_else(|| stem(&row.image), |group| format!("{group}/{}", stem(&row.image)));
        if !seen.insert(name.clone()) {
            return Err(table.wrong(row.line, format!("a second image named {name}")));
        }
        cases.push(Case { name, group, image: row.image, truth: row.labels });
    }
    if cases.is_empty() {
        return Err(table.wrong(1, "expected at least one image, found none"));
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn names_match_with_and_without_endings() {
        let images = paths(&["i/a.png", "i/b_masks.tif", "i/c.png"]);
        let labels = paths(&["l/a_cp_masks.png", "l/a_overlay.png", "l/b_masks.tif", "l/c_labels.tif"]);
        let cases = match_by_name(&images, &labels).unwrap();
        let truth: Vec<&Path> = cases.iter().map(|case| case.truth.as_path()).collect();
        assert_eq!(truth, paths(&["l/a_cp_masks.png", "l/b_masks.tif", "l/c_labels.tif"]));
        let found =
            predictions_for("x", &cases, &paths(&["p/c.tif", "p/a_labels.tif", "p/b_masks_labels.tif"])).unwrap();
        assert_eq!(found, paths(&["p/a_labels.tif", "p/b_masks_labels.tif", "p/c.tif"]));
    }

    #[test]
    fn strays_and_doubles_are_named() {
        let text = |result: Result<Vec<Case>, Error>| result.unwrap_err().to_string();
        let images = paths(&["i/a.png", "i/b.png"]);
        assert!(text(match_by_name(&images, &paths(&["l/a.tif"]))).contains("i/b.png"));
        assert!(text(match_by_name(&images, &paths(&["l/a.tif", "l/b.tif", "l/c.tif"]))).contains("l/c.tif"));
        assert!(text(match_by_name(&images, &paths(&["l/a.tif", "l/a_labels.tif"]))).contains("keep one"));
        assert!(text(match_by_name(&paths(&["a.png", "a.tif"]), &paths(&["l/a.tif"]))).contains("one name"));
        let cases = match_by_name(&images, &paths(&["l/a.tif", "l/b.tif"])).unwrap();
        assert!(predictions_for("x", &cases, &paths(&["p/a.tif"])).unwrap_err().to_string().contains("i/b.png"));
        let extra = paths(&["p/a.tif", "p/b.tif", "p/z.tif"]);
        assert!(predictions_for("x", &cases, &extra).unwrap_err().to_string().contains("z.tif"));
    }

    #[test]
    fn tables_name_the_wrong_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_table(&path)
        };
        let cases = read("image,labels,group\na/1.png,a/1.tif,cells\n\nb/1.png,b/1.tif,nuclei\n").unwrap();
        assert_eq!((cases.len(), cases[1].name.as_str()), (2, "nuclei/1"));
        assert_eq!(cases[0].image, folder.path().join("a/1.png"));
        for (text, expected) in [
            ("", "line 1"),
            ("image,labels\n", "found none"),
            ("image,truth\n1.png,1.tif\n", "\"labels\""),
            ("image,labels\n1.png\n", "line 2"),
            ("image,labels\n1.png,1.tif\n1.tif,1.tif\n", "line 3"),
            ("image,labels\n\"1.png\",1.tif\n", "quoted"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
