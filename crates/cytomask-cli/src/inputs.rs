//! Which files to work on, and by what names their results go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use glob::{MatchOptions, Pattern};
use serde_json::Value;

use crate::outputs;

/// Extensions looked for in folders. A file named on the command line is opened whatever it is called.
const EXTENSIONS: [&str; 8] = ["png", "tif", "tiff", "jpg", "jpeg", "bmp", "npy", "btf"];

/// One image to segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    /// The file.
    pub(crate) path: PathBuf,
    /// Where its results go below the output folder: where the file lies below the folder named on the command line.
    pub(crate) folder: PathBuf,
    /// What its results are called by.
    pub(crate) stem: String,
    /// One of several time points, each with results of its own; without it the flags decide.
    pub(crate) time: Option<u32>,
}

impl Input {
    fn new(path: PathBuf, folder: PathBuf) -> Self {
        Self { stem: stem(&path), path, folder, time: None }
    }

    /// Which part of the file this is, of what the flags choose.
    pub(crate) fn part(&self, chosen: &cytomask::Selection) -> cytomask::Selection {
        cytomask::Selection { time: self.time.or(chosen.time), ..chosen.clone() }
    }

    /// What people read: the file, and the time point where there is one.
    pub(crate) fn shown(&self) -> String {
        let time = self.time.map_or_else(String::new, |time| format!(" (time point {time})"));
        format!("{}{time}", self.path.display())
    }

    /// The same below the output folder.
    pub(crate) fn shown_below(&self) -> String {
        // The images of a plate are called 0, 1, …
        let of_file = self.path.file_name().filter(|_| stem(&self.path) == self.stem);
        let name = of_file.map_or_else(|| self.stem.clone(), |name| name.to_string_lossy().into_owned());
        self.folder.join(name).to_string_lossy().into_owned()
    }
}

/// Which files of the named folders are taken.
#[derive(Default)]
pub(crate) struct Selection {
    /// A file must match one of them; without any, its extension decides.
    patterns: Vec<Pattern>,
    /// A file must match none of them.
    excluded: Vec<Pattern>,
    /// Whether subfolders count.
    recursive: bool,
    /// Where results go; never looked into from above.
    output: Option<PathBuf>,
}

impl Selection {
    /// From the flags.
    ///
    /// # Errors
    /// When a pattern cannot be understood.
    pub(crate) fn new(patterns: &[String], excluded: &[String], recursive: bool, output: &Path) -> Result<Self> {
        let parse = |flag: &str, texts: &[String]| -> Result<Vec<Pattern>> {
            texts.iter().map(|text| Pattern::new(text).with_context(|| format!("{flag} {text:?}"))).collect()
        };
        Ok(Self {
            patterns: parse("--pattern", patterns)?,
            excluded: parse("--exclude", excluded)?,
            recursive,
            output: output.canonicalize().ok(),
        })
    }

    /// Whether a file is taken, by its path below the named folder.
    fn takes(&self, below: &Path) -> bool {
        let matches = |pattern: &Pattern| {
            // A pattern with a `/` is for the path, one without for the name.
            let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
            match pattern.as_str().contains('/') {
                true => pattern.matches_path_with(below, options),
                false => below.file_name().is_some_and(|name| pattern.matches_path_with(Path::new(name), options)),
            }
        };
        let chosen =
            if self.patterns.is_empty() { has_image_extension(below) } else { self.patterns.iter().any(matches) };
        chosen && !self.excluded.iter().any(matches)
    }
}

/// Expands folders and keeps the order given; inside a folder, by path. Files named one by one are always taken.
pub(crate) fn select(named: &[PathBuf], selection: &Selection) -> Result<Vec<Input>> {
    let mut found = Vec::new();
    for root in named {
        // An OME-Zarr image is a folder, but one image.
        if !root.is_dir() || cytomask::is_image_folder(root) {
            found.extend(images_of(Input::new(root.clone(), PathBuf::new()))?);
            continue;
        }
        let mut inside = Vec::new();
        walk(root, Path::new(""), selection, &mut inside)?;
        if inside.is_empty() {
            let looked_for = match selection.patterns.as_slice() {
                [] => format!("looked for .{}", EXTENSIONS.join(", .")),
                patterns => {
                    format!("looked for {}", patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(", "))
                }
            };
            let hint = if selection.recursive { "" } else { "; --recursive looks into subfolders" };
            bail!("{}: no images in this folder ({looked_for}{hint})", root.display());
        }
        inside.sort_by(|a: &Input, b| a.path.cmp(&b.path));
        found.extend(inside);
    }
    Ok(found)
}

/// Adds the files of `root/below`. Hidden files, earlier results and links to folders (which may lead in circles) are passed by.
fn walk(root: &Path, below: &Path, selection: &Selection, found: &mut Vec<Input>) -> Result<()> {
    let folder = root.join(below);
    let entries = entries(&folder)?;
    let results = earlier_results(&folder, &entries);
    for (name, is_folder) in entries {
        let (path, inner) = (folder.join(&name), below.join(&name));
        if is_folder && cytomask::is_image_folder(&path) {
            let chosen = selection.patterns.is_empty() || selection.takes(&inner);
            if chosen && !results.contains(&name) {
                found.extend(images_of(Input::new(path, below.to_path_buf()))?);
            }
        } else if is_folder {
            let is_output = || selection.output.is_some() && path.canonicalize().ok() == selection.output;
            if selection.recursive && !is_output() {
                walk(root, &inner, selection, found)?;
            }
        } else if !results.contains(&name) && selection.takes(&inner) && !path.is_dir() {
            found.push(Input::new(path, below.to_path_buf()));
        }
    }
    Ok(())
}

/// The image itself, or all images of a plate: `plate.zarr/B/03/0` has its results in `plate`, under `B_03_0`. A folder that
/// cannot be read stays one image, so that its error comes in its turn.
fn images_of(input: Input) -> Result<Vec<Input>> {
    let Ok(Some(images)) = cytomask::plate_images(&input.path) else { return Ok(vec![input]) };
    if images.is_empty() {
        bail!("{}: a plate without images", input.path.display());
    }
    let image = |image: PathBuf| {
        let parts: Vec<_> = image.iter().map(|part| part.to_string_lossy()).collect();
        let (stem, folder) = (parts.join("_"), input.folder.join(&input.stem));
        Input { path: input.path.join(&image), folder, stem, time: None }
    };
    Ok(images.into_iter().map(image).collect())
}

/// Every time point of every file as an image of its own, `NAME_t0`, `NAME_t1`, …, with as many digits as the file needs. What
/// cannot be opened stays one image, so that its error comes in its turn.
pub(crate) fn by_time(inputs: Vec<Input>, open: impl Fn(&Path) -> Option<u32>) -> Vec<Input> {
    let of_input = |input: Input| {
        let times = open(&input.path).unwrap_or(0);
        let digits = times.saturating_sub(1).to_string().len();
        match times {
            0 | 1 => vec![input],
            _ => (0..times)
                .map(|time| Input {
                    stem: format!("{}_t{time:0digits$}", input.stem),
                    time: Some(time),
                    ..input.clone()
                })
                .collect(),
        }
    };
    inputs.into_iter().flat_map(of_input).collect()
}

/// Names of what lies in a folder and whether it is a folder itself, by name, without hidden ones.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, bool)>> {
    let listed = || -> std::io::Result<Vec<(PathBuf, bool)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with('.') {
                found.push((PathBuf::from(entry.file_name()), entry.file_type()?.is_dir()));
            }
        }
        found.sort();
        Ok(found)
    };
    listed().with_context(|| format!("{}: cannot list the folder", folder.display()))
}

/// What earlier runs wrote here, by their provenance: results of results would pile up.
fn earlier_results(folder: &Path, entries: &[(PathBuf, bool)]) -> BTreeSet<PathBuf> {
    let mut results = BTreeSet::new();
    for (name, _) in entries {
        if !name.to_string_lossy().ends_with(outputs::PROVENANCE_SUFFIX) {
            continue;
        }
        let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let provenance: Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some(written) = provenance["outputs"].as_object() {
            results.extend(written.keys().map(PathBuf::from));
        }
    }
    results
}

fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|text| text.to_str()).unwrap_or_default().to_lowercase();
    EXTENSIONS.contains(&extension.as_str())
}

/// The image files directly inside `folder`, by name.
pub(crate) fn images_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let inside = entries(folder)?.into_iter().map(|(name, _)| folder.join(name));
    Ok(inside.filter(|path| path.is_file() && has_image_extension(path)).collect())
}

/// The name results are called by: the file's name without its extension.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "image".into(), |stem| stem.to_string_lossy().into_owned())
}

/// Two inputs of one name would overwrite each other's results: refuse before any work is done.
pub(crate) fn refuse_same_names(images: &[Input]) -> Result<()> {
    let mut seen: BTreeMap<(&Path, &str), &Path> = BTreeMap::new();
    for Input { path, folder, stem, .. } in images {
        if let Some(other) = seen.insert((folder, stem), path) {
            bail!(
                "{} and {} would write results of the same name; run them into different folders",
                other.display(),
                path.display()
            );
        }
    }
    Ok(())
}

/// SHA-256 of an image: of the file, or of the names and contents of a folder that is one image.
///
/// # Errors
/// When something cannot be read, or is neither (reading from a pipe would wait for ever).
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let metadata = std::fs::metadata(path).with_context(|| format!("{}: cannot read", path.display()))?;
    if metadata.is_file() {
        return Ok(cytomask::weights::sha256_file(path)?);
    }
    if !metadata.is_dir() {
        bail!("{}: expected a file, found something that is neither file nor folder", path.display());
    }
    let listed = std::fs::read_dir(path).with_context(|| format!("{}: cannot list the folder", path.display()))?;
    let mut inside = listed.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>()?;
    inside.sort();
    let mut list = String::new();
    for path in inside {
        list += &format!("{} {}\n", sha256(&path)?, path.file_name().unwrap_or_default().to_string_lossy());
    }
    Ok(cytomask::weights::sha256_bytes(list.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with empty files at these paths.
    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for path in paths {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        folder
    }

    fn selected(root: &Path, patterns: &[&str], excluded: &[&str], recursive: bool) -> Vec<String> {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let selection = Selection::new(&owned(patterns), &owned(excluded), recursive, &root.join("results")).unwrap();
        let found = select(&[root.to_path_buf()], &selection).unwrap();
        found.iter().map(|input| format!("{}|{}", input.folder.display(), input.stem)).collect()
    }

    #[test]
    fn patterns_choose_by_name_or_by_path() {
        let folder =
            tree(&["a_w1.tif", "a_w2.tif", "b.PNG", "notes.txt", ".hidden.tif", "day1/a_w1.tif", "day1/x/c.jpg"]);
        let root = folder.path();
        assert_eq!(selected(root, &[], &[], false), ["|a_w1", "|a_w2", "|b"]);
        assert_eq!(selected(root, &[], &[], true), ["|a_w1", "|a_w2", "|b", "day1|a_w1", "day1/x|c"]);
        assert_eq!(selected(root, &["*_w1.tif"], &[], true), ["|a_w1", "day1|a_w1"]);
        assert_eq!(selected(root, &["day1/*"], &[], true), ["day1|a_w1"]);
        assert_eq!(selected(root, &["day1/**/*"], &[], true), ["day1|a_w1", "day1/x|c"]);
        assert_eq!(selected(root, &[], &["*_w?.tif"], true), ["|b", "day1/x|c"]);
        let selection = Selection::new(&["*.zip".into()], &[], true, root).unwrap();
        assert!(select(&[root.to_path_buf()], &selection).unwrap_err().to_string().contains("*.zip"));
        assert!(Selection::new(&["[".into()], &[], true, root).is_err());
    }

    #[test]
    fn results_are_not_taken_for_images() {
        let folder = tree(&["a.png", "a_labels.tif", "a_overlay.png", "results/a_overlay.png", "other/b.png"]);
        let root = folder.path();
        assert_eq!(selected(root, &[], &[], true).len(), 4, "without a provenance they are images");
        let written = r#"{ "outputs": { "a_labels.tif": "", "a_overlay.png": "" } }"#;
        std::fs::write(root.join("a_provenance.json"), written).unwrap();
        assert_eq!(selected(root, &[], &[], true), ["|a", "other|b"]);
    }

    #[test]
    fn equal_names_are_refused_unless_folders_differ() {
        let folder = tree(&["a.png", "day1/a.png"]);
        let selection = Selection::new(&[], &[], true, Path::new("out")).unwrap();
        let found = select(&[folder.path().to_path_buf()], &selection).unwrap();
        assert!(refuse_same_names(&found).is_ok());
        let twice = select(&[folder.path().join("a.png"), folder.path().join("day1/a.png")], &selection).unwrap();
        assert!(refuse_same_names(&twice).is_err());
    }

    #[test]
    fn a_folder_has_the_hash_of_its_names_and_contents() {
        let folder = tree(&["image/0/c.png", "image/.meta"]);
        let image = folder.path().join("image");
        let before = sha256(&image).unwrap();
        assert_eq!(sha256(&image).unwrap(), before);
        std::fs::write(image.join(".meta"), b"changed").unwrap();
        assert_ne!(sha256(&image).unwrap(), before);
        assert!(sha256(&folder.path().join("absent")).is_err());
    }
}
