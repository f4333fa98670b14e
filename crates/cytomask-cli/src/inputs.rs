//! Which files to work on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Extensions looked for in folders. A file named on the command line is opened whatever it is called.
const EXTENSIONS: [&str; 5] = ["png", "tif", "tiff", "jpg", "jpeg"];

/// Expands folders (not their subfolders) and keeps the order given; inside a folder, by name.
pub(crate) fn images(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in named {
        if path.is_dir() {
            let inside = images_in(path)?;
            if inside.is_empty() {
                bail!("{}: no images in this folder (looked for .{})", path.display(), EXTENSIONS.join(", ."));
            }
            found.extend(inside);
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

/// The image files directly inside `folder`, by name.
pub(crate) fn images_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut inside = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("{}: cannot list the folder", folder.display()))? {
        let path = entry.with_context(|| format!("{}: cannot list the folder", folder.display()))?.path();
        let extension = path.extension().and_then(|text| text.to_str()).unwrap_or_default().to_lowercase();
        if path.is_file() && EXTENSIONS.contains(&extension.as_str()) {
            inside.push(path);
        }
    }
    inside.sort();
    Ok(inside)
}

/// The name results are called by: the file's name without its extension.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "image".into(), |stem| stem.to_string_lossy().into_owned())
}

/// Two inputs of one name would overwrite each other's results: refuse before any work is done.
pub(crate) fn refuse_same_names(images: &[PathBuf]) -> Result<()> {
    let mut seen: BTreeMap<String, &PathBuf> = BTreeMap::new();
    for path in images {
        if let Some(other) = seen.insert(stem(path), path) {
            bail!(
                "{} and {} would write results of the same name; run them into different folders",
                other.display(),
                path.display()
            );
        }
    }
    Ok(())
}
