//! Which image and which labels belong together, and what each pair is for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cytomask_train::data::check::{Finding, Problem};

use super::Use;
use crate::Error;
use crate::compare::cases::{SUFFIXES, bare, stem};
use crate::image_table::ImageTable;

/// An image and its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The image.
    pub image: PathBuf,
    /// Its label image.
    pub labels: PathBuf,
    /// The source it belongs to, by which images are balanced.
    pub group: String,
    /// What it is for; without it validation images are held out.
    pub purpose: Option<Use>,
}

/// Pairs, and what did not pair.
#[derive(Clone, Debug, Default)]
pub struct Paired {
    /// In the order of the images.
    pub pairs: Vec<Pair>,
    /// Images without labels, labels without image.
    pub findings: Vec<Finding>,
}

/// Pairs the files of two folders (which may be one) by name: `NAME` with `NAME`, `NAME_masks`, `NAME_cp_masks`, `NAME_labels`,
/// `NAME_seg`. What does not pair becomes an error each, or with `skip_unlabelled` a warning.
pub fn pair_folders(
    images: &[PathBuf],
    labels: &[PathBuf],
    group: &str,
    purpose: Option<Use>,
    skip_unlabelled: bool,
) -> Paired {
    let names: BTreeSet<String> = images.iter().map(|image| stem(image)).collect();
    let is_labels_of_another = |path: &Path| {
        let own = stem(path);
        let of = base(&own);
        labels.iter().any(|label| label == path) && of != own && names.contains(of)
    };
    let mut of_name: BTreeMap<String, Vec<&PathBuf>> = BTreeMap::new();
    for label in labels {
        let own = stem(label);
        // In a folder of both, an image is not its own labels.
        let of = if images.contains(label) || !names.contains(&own) { base(&own).to_owned() } else { own.clone() };
        if !(images.contains(label) && of == own) {
            of_name.entry(of).or_default().push(label);
        }
    }
    let mut paired = Paired::default();
    for image in images.iter().filter(|image| !is_labels_of_another(image)) {
        match of_name.remove(&stem(image)).as_deref() {
            Some([labels]) => paired.pairs.push(Pair {
                image: image.clone(),
                labels: (*labels).clone(),
                group: group.to_owned(),
                purpose,
            }),
            Some(several) => {
                let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
                let found = format!("several label images: {}", names.join(", "));
                paired.findings.push(Finding::error(Problem::NoLabels, image, found, "keep one of them"));
            }
            None => paired.findings.push(unlabelled(image, skip_unlabelled)),
        }
    }
    for label in of_name.values().flatten() {
        let finding = match skip_unlabelled {
            true => Finding::warning(Problem::NoImage, label, "labels without an image", "they are left out"),
            false => Finding::error(
                Problem::NoImage,
                label,
                "labels without an image",
                format!("give both the same name (or NAME{}), or leave it out with --skip_unlabelled", SUFFIXES[0]),
            ),
        };
        paired.findings.push(finding);
    }
    paired
}

fn unlabelled(image: &Path, skip: bool) -> Finding {
    let found = "an image without labels";
    match skip {
        true => Finding::warning(Problem::NoLabels, image, found, "it is left out"),
        false => {
            let name = stem(image);
            let remedy = format!(
                "expected {name} or {name}{} with an image's ending in the folder of labels; --skip_unlabelled leaves it out",
                SUFFIXES[0]
            );
            Finding::error(Problem::NoLabels, image, found, remedy)
        }
    }
}

/// The image's name in the name of its labels.
fn base(stem: &str) -> &str {
    // Cellpose's `NAME_seg.npy`.
    stem.strip_suffix("_seg").filter(|rest| !rest.is_empty()).unwrap_or_else(|| bare(stem))
}

/// Reads a CSV table with the columns `image` and `labels` and, if wished, `split` (`train` or `val`; empty: decided by the program) and
/// `group` (the source an image belongs to). Paths are relative to the table's folder. Fields cannot hold commas or quotes. The second
/// value is the weight of each group, from the column `weight`, where there is one.
///
/// # Errors
/// `Setting`, naming file and line, for a missing column, a line of another length, an unknown split or weight.
pub fn read_pairs(path: &Path) -> Result<(Vec<Pair>, BTreeMap<String, f64>), Error> {
    let table = ImageTable::open(path)?;
    let [split, group, weight] = ["split", "group", "weight"].map(|name| table.column(name));
    let (mut pairs, mut weights) = (Vec::new(), BTreeMap::new());
    for row in table.rows() {
        let row = row?;
        let wrong = |what: String| table.wrong(row.line, what);
        let purpose = match row.field(split) {
            "" => None,
            "train" | "training" => Some(Use::Training),
            "val" | "validation" => Some(Use::Validation),
            other => return Err(wrong(format!("split: expected train, val or nothing, found {other:?}"))),
        };
        let group = row.field(group).to_owned();
        let text = row.field(weight);
        if !text.is_empty() {
            let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
            let value = value.ok_or_else(|| wrong(format!("weight: expected a number from 0, found {text:?}")))?;
            if weights.insert(group.clone(), value).is_some_and(|other| other != value) {
                return Err(wrong(format!("weight: group {group:?} has another one above")));
            }
        }
        pairs.push(Pair { image: row.image, labels: row.labels, group, purpose });
    }
    if pairs.is_empty() {
        return Err(table.wrong(1, "expected at least one image, found none"));
    }
    Ok((pairs, weights))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    fn shown(paired: &Paired) -> Vec<String> {
        let pairs = paired.pairs.iter().map(|pair| format!("{}+{}", pair.image.display(), pair.labels.display()));
        pairs
            .chain(paired.findings.iter().map(|finding| format!("{:?} {}", finding.problem, finding.path.display())))
            .collect()
    }

    #[test]
    fn names_pair_in_two_folders_and_in_one() {
        let images = paths(&["i/a.png", "i/b_masks.tif", "i/c.png"]);
        let labels = paths(&["l/a_cp_masks.png", "l/b_masks.tif", "l/c_seg.npy"]);
        let found = pair_folders(&images, &labels, "", None, false);
        assert_eq!(shown(&found), ["i/a.png+l/a_cp_masks.png", "i/b_masks.tif+l/b_masks.tif", "i/c.png+l/c_seg.npy"]);
        let both = paths(&["x/a.png", "x/a_masks.png", "x/b.tif", "x/b_labels.tif", "x/c.tif"]);
        let found = pair_folders(&both, &both, "", None, false);
        assert_eq!(shown(&found), ["x/a.png+x/a_masks.png", "x/b.tif+x/b_labels.tif", "NoLabels x/c.tif"]);
    }

    #[test]
    fn what_is_alone_is_named() {
        let images = paths(&["i/a.png", "i/b.png"]);
        let labels = paths(&["l/a.tif", "l/a_labels.tif", "l/c.tif"]);
        let found = pair_folders(&images, &labels, "", None, false);
        assert_eq!(shown(&found), ["NoLabels i/a.png", "NoLabels i/b.png", "NoImage l/c.tif"]);
        assert!(found.findings[0].found.contains("l/a_labels.tif"));
        assert!(found.findings[1].remedy.contains("--skip_unlabelled"));
        let skipping = pair_folders(&images, &labels[..1], "", None, true);
        assert_eq!(skipping.findings[0].severity, cytomask_train::data::check::Severity::Warning);
    }

    #[test]
    fn tables_have_splits_and_weights() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_pairs(&path)
        };
        let table = "image,labels,split,group,weight\na.png,a.tif,train,x,2\nb.png,b.tif,val,x,\nc.png,c.tif,,y,1\n";
        let (pairs, weights) = read(table).unwrap();
        let uses: Vec<Option<Use>> = pairs.iter().map(|pair| pair.purpose).collect();
        assert_eq!(uses, [Some(Use::Training), Some(Use::Validation), None]);
        assert_eq!(weights, BTreeMap::from([("x".into(), 2.0), ("y".into(), 1.0)]));
        assert_eq!(pairs[2].labels, folder.path().join("c.tif"));
        for (text, expected) in [
            ("", "line 1"),
            ("image,labels\n", "found none"),
            ("image,truth\n1.png,1.tif\n", "\"labels\""),
            ("image,labels,split\n1.png,1.tif,test\n", "\"test\""),
            ("image,labels,weight\n1.png,1.tif,-1\n", "weight"),
            ("image,labels\n1.png\n", "line 2"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
