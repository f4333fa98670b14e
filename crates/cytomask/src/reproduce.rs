//! The paper's table with our own numbers beside it: methods run over prepared datasets, mean scores next to the reported ones.
//!
//! Archit & Pape, "Revisiting foundation models for cell instance segmentation", MIDL 2026. A dataset counts as prepared when
//! `DIR/KEY/SPLIT/manifest.json` exists, which `cytomask datasets prepare` writes last. Scoring, resuming and the report of each
//! dataset are [`crate::compare`]'s; missing here are the methods of other programs (Cellpose, CellSAM, SAM3), whose columns hold
//! the paper's numbers alone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cytomask_datasets::{Dataset, METHODS, SplitName, paper_scores};
use serde_json::{Value, json};

use crate::compare::{Case, match_by_name};
use crate::{Error, ErrorKind};

/// A prepared set.
#[derive(Clone, Debug)]
pub struct PreparedSet {
    /// What it is.
    pub dataset: &'static Dataset,
    /// Where its `images` and `labels` are.
    pub folder: PathBuf,
}

/// The prepared sets below `folder`, in the paper's order.
pub fn find_sets(folder: &Path, split: SplitName) -> Vec<PreparedSet> {
    cytomask_datasets::all()
        .map(|dataset| PreparedSet { dataset, folder: folder.join(dataset.key).join(split.name()) })
        .filter(|set| set.folder.join("manifest.json").is_file())
        .collect()
}

impl PreparedSet {
    /// Its images with their labels.
    ///
    /// # Errors
    /// `Setting` when a folder cannot be read or files do not belong together.
    pub fn cases(&self) -> Result<Vec<Case>, Error> {
        let files = |name: &str| -> Result<Vec<PathBuf>, Error> {
            let folder = self.folder.join(name);
            let failed = |error: std::io::Error| {
                Error::new(ErrorKind::Setting, format!("{}: cannot read the folder: {error}", folder.display()))
            };
            let mut files = Vec::new();
            for entry in std::fs::read_dir(&folder).map_err(failed)? {
                files.push(entry.map_err(failed)?.path());
            }
            files.retain(|file| file.extension().is_some_and(|extension| extension == "tif"));
            files.sort();
            Ok(files)
        };
        match_by_name(&files("images")?, &files("labels")?)
    }
}

/// One of our means.
#[derive(Clone, Debug, PartialEq)]
pub struct Mean {
    /// The method's name.
    pub method: String,
    /// Mean segmentation accuracy over the images.
    pub msa: f64,
    /// Bootstrap interval of the mean, 95 %.
    pub interval: [f64; 2],
    /// Median seconds an image.
    pub seconds: Option<f64>,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// The dataset.
    pub dataset: &'static Dataset,
    /// Images scored.
    pub images: usize,
    /// Images given.
    pub given: usize,
    /// Our methods that ran.
    pub ours: Vec<Mean>,
}

/// Our methods in the order in which they first appear.
fn methods(rows: &[Row]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for mean in rows.iter().flat_map(|row| &row.ours) {
        if !names.contains(&mean.method.as_str()) {
            names.push(&mean.method);
        }
    }
    names
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.3}"))
}

/// The paper's score of a dataset by a method of [`METHODS`].
fn reported(dataset: &Dataset, key: &str) -> Option<f64> {
    paper_scores(dataset.title).into_iter().find(|score| score.method.key == key)?.msa
}

/// Ours and the paper's side by side, a line a dataset.
pub fn markdown(rows: &[Row]) -> String {
    let names = methods(rows);
    let mut text = String::from("| dataset | domain | images | ");
    for name in &names {
        let _ = write!(text, "**{name}** (ours) | ");
    }
    for method in METHODS {
        let _ = write!(text, "{} (paper) | ", method.title);
    }
    text.push_str("\n|---|---|---|");
    text.push_str(&"---|".repeat(names.len() + METHODS.len()));
    text.push('\n');
    for row in rows {
        let _ = write!(text, "| {} | {} | {} | ", row.dataset.title, row.dataset.domain.name(), row.images);
        for name in &names {
            let mean = row.ours.iter().find(|mean| mean.method == *name);
            let shown = mean.map_or_else(String::new, |mean| {
                format!("{:.3} [{:.3}, {:.3}]", mean.msa, mean.interval[0], mean.interval[1])
            });
            let _ = write!(text, "{shown} | ");
        }
        for method in METHODS {
            let _ = write!(text, "{} | ", number(reported(row.dataset, method.key)));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// The same as a long table: `dataset,domain,source,method,images,msa,low,high`; `source` is `ours` or `paper`.
pub fn csv(rows: &[Row]) -> String {
    let mut text = String::from("dataset,domain,source,method,images,msa,low,high\n");
    for row in rows {
        let (key, domain) = (row.dataset.key, row.dataset.domain.name());
        for Mean { method, msa, interval: [low, high], .. } in &row.ours {
            let method = method.replace('"', "\"\"");
            let _ = writeln!(text, "{key},{domain},ours,\"{method}\",{},{msa:.6},{low:.6},{high:.6}", row.images);
        }
        for method in METHODS {
            if let Some(msa) = reported(row.dataset, method.key) {
                let _ = writeln!(text, "{key},{domain},paper,\"{}\",,{msa:.3},,", method.title);
            }
        }
    }
    text
}

/// The same for programs.
pub fn as_json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let ours: Vec<Value> = row
            .ours
            .iter()
            .map(|mean| {
                json!({ "method": mean.method, "msa": mean.msa, "interval": mean.interval, "seconds": mean.seconds })
            })
            .collect();
        let paper: Vec<Value> = paper_scores(row.dataset.title)
            .into_iter()
            .map(|score| json!({ "method": score.method.title, "msa": score.msa, "in_domain": score.in_domain }))
            .collect();
        json!({
            "dataset": row.dataset.key,
            "title": row.dataset.title,
            "domain": row.dataset.domain.name(),
            "images": row.images,
            "images_given": row.given,
            "paper_split": row.dataset.test.repeatable.name(),
            "ours": ours,
            "paper": paper,
        })
    };
    Value::Array(rows.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_stand_beside_the_papers() {
        let dataset = cytomask_datasets::find("dsb").unwrap();
        let ours = vec![Mean { method: "cytomask-t APG".into(), msa: 0.4321, interval: [0.4, 0.5], seconds: None }];
        let rows = [Row { dataset, images: 50, given: 50, ours }];
        let table = markdown(&rows);
        let line = table.lines().nth(2).unwrap();
        assert!(line.starts_with("| DSB | ") && line.contains("| 50 | 0.432 [0.400, 0.500] | 0.331 |"), "{line}");
        assert_eq!(table.lines().next().unwrap().matches('|').count(), line.matches('|').count());
        let csv = csv(&rows);
        assert!(
            csv.contains("ours,\"cytomask-t APG\",50,0.432100") && csv.contains("paper,\"SAM AMG\",,0.331"),
            "{csv}"
        );
        assert_eq!(as_json(&rows)[0]["paper"][0]["msa"], 0.331);
    }

    #[test]
    fn only_finished_sets_count() {
        let folder = tempfile::tempdir().unwrap();
        assert!(find_sets(folder.path(), SplitName::Test).is_empty());
        let set = folder.path().join("tnbc/test");
        std::fs::create_dir_all(set.join("images")).unwrap();
        assert!(find_sets(folder.path(), SplitName::Test).is_empty());
        std::fs::write(set.join("manifest.json"), "{}").unwrap();
        let found = find_sets(folder.path(), SplitName::Test);
        assert_eq!(found[0].dataset.key, "tnbc");
        assert!(found[0].cases().is_err(), "labels are missing");
    }
}
