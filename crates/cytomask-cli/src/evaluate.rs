//! `cytomask evaluate`: mSA, SA50 and SA75 of predictions against true labels.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cytomask::eval::{BothEmpty, MeanSegmentationAccuracy, contingency, mean_segmentation_accuracy};
use serde_json::json;

use crate::args::EvaluateArgs;
use crate::inputs;
use crate::outputs::write_text;
use crate::progress::{Progress, print};

/// Suffix of the label images `segment` writes.
const SUFFIX: &str = "_labels";

/// Scores every true label image; a missing, extra or mis-shaped prediction is an error.
pub(crate) fn run(arguments: &EvaluateArgs) -> Result<()> {
    let pairs = pairs(&arguments.labels, &arguments.predictions)?;
    let both_empty = if arguments.compat { BothEmpty::Zero } else { BothEmpty::One };
    let mut progress = Progress::new("scoring");
    let mut rows: Vec<(String, MeanSegmentationAccuracy)> = Vec::new();
    for (index, (truth, prediction)) in pairs.iter().enumerate() {
        progress.set(index as u64, pairs.len() as u64);
        let table = contingency(&cytomask::read_labels(truth)?, &cytomask::read_labels(prediction)?)
            .with_context(|| prediction.display().to_string())?;
        rows.push((inputs::stem(truth), mean_segmentation_accuracy(&table, both_empty)));
    }
    drop(progress);
    let mean = |value: fn(&MeanSegmentationAccuracy) -> f64| {
        rows.iter().map(|(_, row)| value(row)).sum::<f64>() / rows.len() as f64
    };
    let (msa, sa50, sa75) = (mean(|row| row.msa), mean(|row| row.sa50), mean(|row| row.sa75));

    if let Some(path) = &arguments.csv {
        let mut text = String::from("image,msa,sa50,sa75,true_objects,predicted_objects\n");
        for (name, row) in &rows {
            let _ = writeln!(
                text,
                "{name},{:.6},{:.6},{:.6},{},{}",
                row.msa, row.sa50, row.sa75, row.n_true, row.n_predicted
            );
        }
        write_text(path, &text)?;
    }
    if arguments.json {
        let images: Vec<_> = rows
            .iter()
            .map(|(name, row)| {
                json!({
                    "image": name, "msa": row.msa, "sa50": row.sa50, "sa75": row.sa75,
                    "true_objects": row.n_true, "predicted_objects": row.n_predicted,
                })
            })
            .collect();
        return print(&format!("{:#}", json!({ "msa": msa, "sa50": sa50, "sa75": sa75, "images": images })));
    }
    for (name, row) in &rows {
        print(&format!("{name}: mSA {:.3}, {} of {} objects", row.msa, row.n_predicted, row.n_true))?;
    }
    print(&format!("{} image(s): mSA {msa:.4}, SA50 {sa50:.4}, SA75 {sa75:.4}", rows.len()))
}

/// True and predicted label images that belong together.
fn pairs(truth: &Path, predictions: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    if truth.is_file() && predictions.is_file() {
        return Ok(vec![(truth.to_path_buf(), predictions.to_path_buf())]);
    }
    let true_files = if truth.is_file() { vec![truth.to_path_buf()] } else { inputs::images_in(truth)? };
    if true_files.is_empty() {
        bail!("{}: no label images in this folder", truth.display());
    }
    let mut candidates = inputs::images_in(predictions)?;
    // A folder written by `segment` also holds overlays.
    let written_by_segment = candidates.iter().any(|path| inputs::stem(path).ends_with(SUFFIX));
    candidates.retain(|path| !written_by_segment || inputs::stem(path).ends_with(SUFFIX));
    let name_of = |path: &Path| {
        let stem = inputs::stem(path);
        stem.strip_suffix(SUFFIX).map_or(stem.clone(), str::to_owned)
    };
    let mut pairs = Vec::new();
    for path in true_files {
        let name = name_of(&path);
        let at = candidates.iter().position(|candidate| name_of(candidate) == name);
        let Some(at) = at else {
            bail!("{}: no prediction named {name} or {name}{SUFFIX} in {}", path.display(), predictions.display());
        };
        pairs.push((path, candidates.remove(at)));
    }
    if let Some(extra) = candidates.first() {
        bail!("{}: no true label image belongs to this prediction ({} such)", extra.display(), candidates.len());
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_match_by_name_and_strays_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (truth, found) = (folder.path().join("truth"), folder.path().join("found"));
        for (folder, names) in [(&truth, ["a.tif", "b.png"]), (&found, ["a_labels.tif", "b_labels.tif"])] {
            std::fs::create_dir_all(folder).unwrap();
            for name in names {
                std::fs::write(folder.join(name), b"").unwrap();
            }
        }
        std::fs::write(found.join("a_overlay.png"), b"").unwrap();
        let matched = pairs(&truth, &found).unwrap();
        assert_eq!(matched[1], (truth.join("b.png"), found.join("b_labels.tif")));
        std::fs::write(found.join("c_labels.tif"), b"").unwrap();
        assert!(pairs(&truth, &found).unwrap_err().to_string().contains("c_labels.tif"));
        std::fs::remove_file(found.join("b_labels.tif")).unwrap();
        assert!(pairs(&truth, &found).unwrap_err().to_string().contains("b.png"));
    }
}
