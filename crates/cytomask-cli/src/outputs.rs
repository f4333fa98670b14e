//! What `segment` writes for one image: labels, overlay, table, provenance.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cytomask::{Labels, ObjectRecord, Rgb, Segmentation, output, weights};
use serde_json::{Map, Value};

use crate::args::LabelFormat;
use crate::draw;

/// How the name of a provenance file ends.
pub(crate) const PROVENANCE_SUFFIX: &str = "_provenance.json";

/// Where the results of one image go.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    pub(crate) labels: PathBuf,
    pub(crate) overlay: Option<PathBuf>,
    pub(crate) table: PathBuf,
    pub(crate) provenance: PathBuf,
}

impl Targets {
    /// `STEM_labels.tif` and its companions in `folder`, or the named label file with companions beside it.
    pub(crate) fn new(output: &Path, stem: &str, format: LabelFormat, overlay: bool) -> Self {
        let (folder, stem, labels) = match as_label_file(output) {
            Some(_) => {
                let folder = output.parent().map_or_else(PathBuf::new, Path::to_path_buf);
                let named =
                    output.file_stem().map_or_else(|| stem.to_owned(), |stem| stem.to_string_lossy().into_owned());
                (folder, named, output.to_path_buf())
            }
            None => {
                let extension = match format {
                    LabelFormat::Tiff => "tif",
                    LabelFormat::Png => "png",
                };
                (output.to_path_buf(), stem.to_owned(), output.join(format!("{stem}_labels.{extension}")))
            }
        };
        Self {
            labels,
            overlay: overlay.then(|| folder.join(format!("{stem}_overlay.png"))),
            table: folder.join(format!("{stem}_objects.csv")),
            provenance: folder.join(format!("{stem}{PROVENANCE_SUFFIX}")),
        }
    }

    /// Every file but the provenance.
    pub(crate) fn files(&self) -> Vec<&Path> {
        let mut files = vec![self.labels.as_path(), self.table.as_path()];
        files.extend(self.overlay.as_deref());
        files
    }

    /// Writes everything; each file appears whole or not at all, the provenance last, with the hashes of the others as `outputs`.
    /// So a provenance stands for a finished image: see [`crate::resume`].
    pub(crate) fn write(&self, image: &Rgb, segmentation: &Segmentation, mut provenance: Value) -> Result<Value> {
        write_labels(&self.labels, &segmentation.labels)?;
        if let Some(path) = &self.overlay {
            let (size, bytes) = draw::overlay(image, &segmentation.labels);
            output::write_rgb_png(path, size, &bytes)?;
        }
        write_text(&self.table, &table(&segmentation.objects))?;
        provenance["outputs"] = Value::Object(hashes(&self.files())?);
        write_text(&self.provenance, &format!("{provenance:#}\n"))?;
        Ok(provenance)
    }
}

/// SHA-256 of files, by their names.
fn hashes(files: &[&Path]) -> Result<Map<String, Value>> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    files.iter().map(|path| Ok((name(path), weights::sha256_file(path)?.into()))).collect()
}

/// The label format a path names by its extension, if it names a file.
pub(crate) fn as_label_file(path: &Path) -> Option<LabelFormat> {
    match path.extension()?.to_str()?.to_lowercase().as_str() {
        "tif" | "tiff" => Some(LabelFormat::Tiff),
        "png" => Some(LabelFormat::Png),
        _ => None,
    }
}

fn write_labels(path: &Path, labels: &Labels) -> Result<()> {
    match as_label_file(path) {
        Some(LabelFormat::Png) => output::write_labels_png16(path, labels)
            .context("write 32-bit labels instead: --format tiff (or name the output .tif)")?,
        _ => output::write_labels_tiff(path, labels)?,
    }
    Ok(())
}

pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    output::write_atomically(path, |writer| {
        writer
            .write_all(text.as_bytes())
            .map_err(|error| cytomask::ImageError::new(cytomask::ImageErrorKind::Io, "cannot write").with_source(error))
    })?;
    Ok(())
}

/// One line for each object; lengths in pixels, boxes half-open.
fn table(objects: &[ObjectRecord]) -> String {
    let mut text = String::from(
        "id,area_px,centroid_y,centroid_x,box_y0,box_x0,box_y1,box_x1,score,predicted_iou,stability_score,prompt_y,prompt_x\n",
    );
    let optional = |value: Option<f32>| value.map_or_else(String::new, |value| format!("{value:.4}"));
    for object in objects {
        let _ = writeln!(
            text,
            "{},{},{:.2},{:.2},{},{},{},{},{:.4},{},{},{},{}",
            object.id,
            object.area_px,
            object.centroid[0],
            object.centroid[1],
            object.rect.y0,
            object.rect.x0,
            object.rect.y1,
            object.rect.x1,
            object.score,
            optional(object.predicted_iou),
            optional(object.stability_score),
            object.prompt.map_or_else(String::new, |[y, _]| format!("{y:.1}")),
            object.prompt.map_or_else(String::new, |[_, x]| format!("{x:.1}")),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_image_or_the_named_file() {
        let folder = Targets::new(Path::new("out"), "cells", LabelFormat::Png, true);
        assert_eq!(folder.labels, Path::new("out/cells_labels.png"));
        assert_eq!(folder.overlay.as_deref(), Some(Path::new("out/cells_overlay.png")));
        let named = Targets::new(Path::new("a/masks.tif"), "cells", LabelFormat::Png, false);
        assert_eq!(named.labels, Path::new("a/masks.tif"));
        assert_eq!(named.table, Path::new("a/masks_objects.csv"));
        assert!(named.overlay.is_none());
    }
}
