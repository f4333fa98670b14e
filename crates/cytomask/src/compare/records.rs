//! What has been done already, kept in the output folder.

use std::path::{Path, PathBuf};

use cytomask_report::Scores;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, ErrorKind};

/// The largest record that is read, bytes: many times what one takes.
const LARGEST: u64 = 1 << 20;

/// One method on one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Hash of everything the labels depend on.
    pub(super) prediction_key: String,
    /// Hash of everything the scores depend on.
    pub(super) score_key: String,
    /// Of the label file.
    pub(super) labels_sha256: String,
    /// Where the time went; empty for predictions made elsewhere.
    pub(super) seconds: Option<Seconds>,
    /// What it scored.
    pub(super) scores: Scores,
}

/// Seconds of one method on one image, without reading, writing and scoring.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Seconds {
    /// Conversion of samples and the image encoder; shared with the model's other strategies that look at the same scales.
    pub(super) encoder: f64,
    /// Decoder maps; 0 for strategies that do not use them. Shared as well.
    pub(super) decoder_maps: f64,
    /// What belongs to the strategy alone.
    pub(super) strategy: f64,
}

impl Seconds {
    /// As if the method had run alone.
    pub(super) fn total(self) -> f64 {
        self.encoder + self.decoder_maps + self.strategy
    }
}

impl Record {
    /// The record at `path`; `None` when there is none or it cannot be understood, so that the work is done again.
    pub(super) fn read(path: &Path) -> Option<Self> {
        if std::fs::metadata(path).ok()?.len() > LARGEST {
            return None;
        }
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::new(ErrorKind::Image, format!("{}: {error}", path.display())))?;
        Ok(cytomask_image::output::write_text(path, &text)?)
    }
}

/// SHA-256 of a value's JSON, whose fields are in order of name.
pub(super) fn key(value: &Value) -> String {
    cytomask_weights::sha256_bytes(value.to_string().as_bytes())
}

/// Where the files of one method and image lie.
pub(super) struct Places {
    pub(super) record: PathBuf,
    pub(super) labels: PathBuf,
}

impl Places {
    pub(super) fn new(folder: &Path, method: &str, case: &str) -> Self {
        let (method, case) = (file_name(method), file_name(case));
        Self {
            record: folder.join("records").join(&method).join(format!("{case}.json")),
            labels: folder.join("labels").join(&method).join(format!("{case}.tif")),
        }
    }

    pub(super) fn make_folders(&self) -> Result<(), Error> {
        for path in [&self.record, &self.labels] {
            let folder = path.parent().unwrap_or(Path::new(""));
            std::fs::create_dir_all(folder).map_err(|error| {
                Error::new(ErrorKind::Image, format!("{}: cannot make the folder: {error}", folder.display()))
            })?;
        }
        Ok(())
    }
}

/// A name that is a file name everywhere. Where letters had to go, a part of the hash keeps names apart.
fn file_name(name: &str) -> String {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let safe: String = name.chars().take(80).map(|letter| if allowed(letter) { letter } else { '_' }).collect();
    if safe == name && !safe.starts_with('.') && !safe.is_empty() {
        return safe;
    }
    let hash = cytomask_weights::sha256_bytes(name.as_bytes());
    format!("{}-{}", safe.trim_start_matches('.'), &hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_safe_and_apart() {
        assert_eq!(file_name("cytomask-t_apg.1"), "cytomask-t_apg.1");
        let (a, b) = (file_name("a/b"), file_name("a b"));
        assert!(a.starts_with("a_b-") && b.starts_with("a_b-") && a != b, "{a} {b}");
        assert!(!file_name("../x").contains('/') && !file_name("..").starts_with('.'));
        assert!(file_name(&"x".repeat(500)).len() < 100);
    }

    #[test]
    fn a_damaged_record_is_no_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        assert_eq!(Record::read(&path), None);
        std::fs::write(&path, b"{ \"prediction_key\": ").unwrap();
        assert_eq!(Record::read(&path), None);
    }
}
