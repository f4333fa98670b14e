//! What `segment` writes for one image: labels, overlay, table, provenance.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cytomask::{Image, Pixels, Resolved, Segmentation, output};
use serde_json::{Map, Value};

use crate::args::{LabelFormat, SegmentArgs};
use crate::exports::{self, Export, ExportOptions, Subject};
use crate::inputs;

/// How the name of a provenance file ends.
pub(crate) const PROVENANCE_SUFFIX: &str = "_provenance.json";

/// Where the results of one image go.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    /// Label images first.
    pub(crate) exports: Vec<(Export, PathBuf)>,
    pub(crate) provenance: PathBuf,
    stem: String,
}

impl Targets {
    /// `STEM_labels.tif` and its companions in `folder`, or the named label file with companions beside it.
    pub(crate) fn new(output: &Path, stem: &str, exports: &[Export]) -> Self {
        let named = as_label_file(output);
        let (folder, stem) = match named {
            Some(_) => {
                let folder = output.parent().map_or_else(PathBuf::new, Path::to_path_buf);
                let named =
                    output.file_stem().map_or_else(|| stem.to_owned(), |stem| stem.to_string_lossy().into_owned());
                (folder, named)
            }
            None => (output.to_path_buf(), stem.to_owned()),
        };
        let named = named.map(|format| (Export::from(format), output.to_path_buf()));
        // The named file stands for the label image of its kind, or of the other kind where that was only a default.
        let unnamed = |export: &&Export| named.is_none() || !matches!(export, Export::Tiff | Export::Png);
        let others = exports.iter().filter(unnamed).map(|&export| (export, folder.join(export.file_name(&stem))));
        let mut exports: Vec<(Export, PathBuf)> = named.iter().cloned().chain(others).collect();
        exports.sort_by_key(|(export, _)| !export.is_label_image());
        Self { exports, provenance: folder.join(format!("{stem}{PROVENANCE_SUFFIX}")), stem }
    }

    /// Where the file of a kind goes, if it is wanted.
    pub(crate) fn path(&self, wanted: Export) -> Option<&Path> {
        self.exports.iter().find(|(export, _)| *export == wanted).map(|(_, path)| path.as_path())
    }

    /// The first label image.
    pub(crate) fn labels(&self) -> Option<&Path> {
        self.exports.iter().find(|(export, _)| export.is_label_image()).map(|(_, path)| path.as_path())
    }

    /// Every file but the provenance.
    pub(crate) fn files(&self) -> Vec<&Path> {
        self.exports.iter().map(|(_, path)| path.as_path()).collect()
    }

    /// What the exports are made of: `image` is the image as read, for intensities, `from` what part of the file it is.
    pub(crate) fn subject<'a>(
        &self,
        input: &Path,
        image: Option<&'a Image>,
        from: &Resolved,
        pixels: &'a dyn Pixels,
        segmentation: &'a Segmentation,
    ) -> Subject<'a> {
        Subject {
            file_name: input.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            stem: self.stem.clone(),
            labels: &segmentation.labels,
            known: exports::columns(&segmentation.objects),
            image,
            pixels: Some(pixels),
            channel_names: from.channel_names.clone(),
            pixel_size_um: from.pixel_size_um,
        }
    }

    /// Writes everything; each file appears whole or not at all, the provenance last, with the hashes of the others as `outputs`.
    /// So a provenance stands for a finished image: see [`crate::resume`].
    pub(crate) fn write(&self, subject: Subject<'_>, options: &ExportOptions, mut provenance: Value) -> Result<Value> {
        exports::write(&self.exports, subject, options)?;
        provenance["outputs"] = Value::Object(hashes(&self.files())?);
        output::write_text(&self.provenance, &format!("{provenance:#}\n"))?;
        Ok(provenance)
    }
}

/// The kinds of files the flags ask for: those of `--export`, or label image, overlay and table.
pub(crate) fn chosen_exports(arguments: &SegmentArgs) -> Vec<Export> {
    let format = arguments.format.map(Export::from);
    let mut chosen = arguments.exports.clone();
    if chosen.is_empty() {
        chosen = vec![format.unwrap_or(Export::Tiff), Export::Overlay, Export::Csv];
    }
    chosen.extend(format);
    let mut seen = Vec::new();
    chosen.retain(|&export| {
        let fresh = !seen.contains(&export);
        seen.push(export);
        fresh && !(arguments.no_overlay && export == Export::Overlay)
    });
    chosen
}

impl From<LabelFormat> for Export {
    fn from(format: LabelFormat) -> Self {
        match format {
            LabelFormat::Tiff => Self::Tiff,
            LabelFormat::Png => Self::Png,
        }
    }
}

/// SHA-256 of files and folders, by their names.
fn hashes(files: &[&Path]) -> Result<Map<String, Value>> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    files.iter().map(|path| Ok((name(path), inputs::sha256(path)?.into()))).collect()
}

/// The label format a path names by its extension, if it names a file.
pub(crate) fn as_label_file(path: &Path) -> Option<LabelFormat> {
    match path.extension()?.to_str()?.to_lowercase().as_str() {
        "tif" | "tiff" => Some(LabelFormat::Tiff),
        "png" => Some(LabelFormat::Png),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_image_or_the_named_file() {
        let exports = [Export::Csv, Export::Png, Export::Overlay];
        let folder = Targets::new(Path::new("out"), "cells", &exports);
        assert_eq!(folder.labels(), Some(Path::new("out/cells_labels.png")));
        assert_eq!(folder.path(Export::Overlay), Some(Path::new("out/cells_overlay.png")));
        let named = Targets::new(Path::new("a/masks.tif"), "cells", &[Export::Png, Export::Csv, Export::Svg]);
        assert_eq!(named.labels(), Some(Path::new("a/masks.tif")));
        assert_eq!(named.path(Export::Csv), Some(Path::new("a/masks_objects.csv")));
        assert_eq!(named.files().len(), 3);
        assert!(named.path(Export::Overlay).is_none());
    }
}
