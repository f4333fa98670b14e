//! Which prediction belongs to which true label image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::inputs;

/// Endings of label files' names: of those `segment` and Cellpose write, and of their training sets. In a folder with such files
/// only they are label images.
const SUFFIXES: [&str; 4] = ["_labels", "_cp_masks", "_masks", "_seg"];

/// A true label image and its prediction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    /// What the image is called in tables.
    pub(crate) name: String,
    pub(crate) truth: PathBuf,
    pub(crate) prediction: Option<PathBuf>,
    /// Where a prediction was looked for.
    pub(crate) expected: String,
}

/// Pairs, and what belongs to none.
pub(crate) struct Found {
    pub(crate) pairs: Vec<Pair>,
    pub(crate) extra: Vec<PathBuf>,
}

/// Two files, or files of two folders (or one file and a folder) by their names.
pub(crate) fn from_folders(truth: &Path, predictions: &Path) -> Result<Found> {
    for path in [truth, predictions] {
        if !path.exists() {
            bail!("{}: no such file or folder", path.display());
        }
    }
    if truth.is_file() && predictions.is_file() {
        let pair = Pair {
            name: inputs::stem(truth),
            truth: truth.to_path_buf(),
            prediction: Some(predictions.to_path_buf()),
            expected: String::new(),
        };
        return Ok(Found { pairs: vec![pair], extra: Vec::new() });
    }
    if predictions.is_file() {
        bail!("{}: expected a folder, as the true labels are one, found a file", predictions.display());
    }
    let is_single = truth.is_file();
    let true_files = if is_single { by_name(vec![truth.to_path_buf()])? } else { by_name(label_files(truth)?)? };
    if true_files.is_empty() {
        bail!("{}: no label images in this folder", truth.display());
    }
    let mut candidates = by_name(label_files(predictions)?)?;
    let pairs = true_files
        .into_iter()
        .map(|(name, path)| {
            let expected = format!("named {name} or {name}{} in {}", SUFFIXES[0], predictions.display());
            Pair { name: inputs::stem(&path), prediction: candidates.remove(&name), truth: path, expected }
        })
        .collect();
    // One image may be looked up in a folder of many.
    let extra = if is_single { Vec::new() } else { candidates.into_values().collect() };
    Ok(Found { pairs, extra })
}

/// The label images of a folder.
fn label_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = inputs::images_in(folder)?;
    let has_suffix = |path: &PathBuf| SUFFIXES.iter().any(|suffix| inputs::stem(path).ends_with(suffix));
    if files.iter().any(has_suffix) {
        files.retain(has_suffix);
    }
    Ok(files)
}

/// Files by their names without extension and suffix.
fn by_name(files: Vec<PathBuf>) -> Result<BTreeMap<String, PathBuf>> {
    let mut named: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in files {
        let stem = inputs::stem(&path);
        let name = SUFFIXES.iter().find_map(|suffix| stem.strip_suffix(suffix)).unwrap_or(&stem).to_owned();
        if let Some(other) = named.insert(name.clone(), path.clone()) {
            bail!("{} and {} are both called {name}; which is meant?", other.display(), path.display());
        }
    }
    Ok(named)
}

/// A CSV file with the columns `labels` and `predictions`, and `name` if wished. An empty prediction is a missing one.
pub(crate) fn from_table(table: &Path) -> Result<Found> {
    let text = std::fs::read_to_string(table).with_context(|| format!("{}: cannot read", table.display()))?;
    let folder = table.parent().unwrap_or(Path::new(""));
    let pairs = rows(&text, folder).with_context(|| table.display().to_string())?;
    if pairs.is_empty() {
        bail!("{}: the table has no rows", table.display());
    }
    Ok(Found { pairs, extra: Vec::new() })
}

fn rows(text: &str, folder: &Path) -> Result<Vec<Pair>> {
    let mut lines = text.trim_start_matches('\u{feff}').lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let (header, _) = lines.next().ok_or_else(|| anyhow!("the file is empty"))?;
    let columns = cells(header).ok_or_else(|| anyhow!("line 1: a quotation mark is not closed"))?;
    let column = |name: &str| columns.iter().position(|column| column.trim() == name);
    let missing = |name: &str| anyhow!("expected the columns labels and predictions, found no {name}");
    let labels = column("labels").ok_or_else(|| missing("labels"))?;
    let predictions = column("predictions").ok_or_else(|| missing("predictions"))?;
    let names = column("name");
    let mut pairs = Vec::new();
    for (line, number) in lines {
        let cells = cells(line).ok_or_else(|| anyhow!("line {number}: a quotation mark is not closed"))?;
        if cells.len() != columns.len() {
            bail!("line {number}: expected {} cells, found {}", columns.len(), cells.len());
        }
        if cells[labels].is_empty() {
            bail!("line {number}: labels is empty");
        }
        let truth = folder.join(&cells[labels]);
        let prediction = (!cells[predictions].is_empty()).then(|| folder.join(&cells[predictions]));
        // A file that is named but not there is missing, too.
        let expected = prediction
            .as_ref()
            .map_or_else(|| format!("is named on line {number}"), |path| format!("at {}", path.display()));
        pairs.push(Pair {
            name: names.map(|at| cells[at].clone()).unwrap_or_else(|| inputs::stem(&truth)),
            prediction: prediction.filter(|path| path.exists()),
            truth,
            expected,
        });
    }
    Ok(pairs)
}

/// The cells of a line; quoted ones may hold commas and doubled quotation marks. `None` when a quotation is not closed.
fn cells(line: &str) -> Option<Vec<String>> {
    let mut cells = vec![String::new()];
    let mut is_quoted = false;
    let mut characters = line.trim_end().chars().peekable();
    while let Some(character) = characters.next() {
        let cell = cells.last_mut()?;
        match character {
            '"' if is_quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' if is_quoted || cell.trim().is_empty() => {
                if !is_quoted {
                    cell.clear(); // blanks before the quotation
                }
                is_quoted = !is_quoted;
            }
            ',' if !is_quoted => cells.push(String::new()),
            other => cell.push(other),
        }
    }
    (!is_quoted).then(|| cells.into_iter().map(|cell| cell.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(folder: &Path, names: &[&str]) {
        std::fs::create_dir_all(folder).unwrap();
        for name in names {
            std::fs::write(folder.join(name), b"").unwrap();
        }
    }

    #[test]
    fn files_match_by_name_and_strays_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let (truth, found) = (folder.path().join("truth"), folder.path().join("found"));
        touch(&truth, &["a.tif", "b.png", "c_masks.txt"]);
        touch(&found, &["a_labels.tif", "a_overlay.png", "c_labels.tif"]);
        let matched = from_folders(&truth, &found).unwrap();
        assert_eq!(matched.pairs[0].prediction, Some(found.join("a_labels.tif")));
        assert_eq!((matched.pairs[1].name.as_str(), &matched.pairs[1].prediction), ("b", &None));
        assert_eq!(matched.extra, [found.join("c_labels.tif")]);
    }

    #[test]
    fn training_sets_of_cellpose_match() {
        let folder = tempfile::tempdir().unwrap();
        let (truth, found) = (folder.path().join("truth"), folder.path().join("found"));
        touch(&truth, &["000_img.png", "000_masks.png"]);
        touch(&found, &["000_cp_masks.png"]);
        let matched = from_folders(&truth, &found).unwrap();
        assert_eq!(matched.pairs.len(), 1);
        assert_eq!(matched.pairs[0].prediction, Some(found.join("000_cp_masks.png")));
    }

    #[test]
    fn two_files_of_one_name_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["a.tif", "a.png"]);
        let error = from_folders(folder.path(), folder.path()).err().unwrap().to_string();
        assert!(error.contains("a.png") && error.contains("a.tif"), "{error}");
    }

    #[test]
    fn tables_name_their_columns() {
        let folder = Path::new("base");
        let found =
            rows("predictions,name,labels\n\"p, 1.tif\",\"the \"\"first\"\"\",t1.tif\n\n,second,t2.tif\n", folder);
        let found = found.unwrap();
        assert_eq!(found[0].name, "the \"first\"");
        assert_eq!((&found[0].truth, &found[0].expected), (&folder.join("t1.tif"), &"at base/p, 1.tif".to_owned()));
        assert_eq!((&found[1].prediction, found[1].expected.as_str()), (&None, "is named on line 4"));
        let error = |text: &str| rows(text, folder).unwrap_err().to_string();
        assert!(error("a,b\n").contains("no labels"));
        assert!(error("labels,predictions\na\n").contains("line 2: expected 2 cells, found 1"));
        assert!(error("labels,predictions\n\"a,b\n").contains("line 2: a quotation mark"));
        assert!(error("labels,predictions\n,b\n").contains("line 2: labels is empty"));
        assert!(error("").contains("empty"));
    }
}
