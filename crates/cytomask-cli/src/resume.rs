//! Which images are finished, so that a batch that was stopped goes on where it stopped.
//!
//! An image is finished when its provenance, written last, names the same input, model, settings and version as this run would, and
//! every file it lists is there with the listed hash. File times play no part: they change when folders are copied.

use std::path::Path;

use serde_json::Value;

use crate::inputs;
use crate::outputs::Targets;

/// What of a provenance must agree. The input's path may change, its content not. The precision is absent where it is f32.
const IDENTITY: [&str; 8] =
    ["program", "version", "model", "mode", "settings", "normalization", "arguments", "precision"];

/// What is known of an image's results before any work.
#[derive(Debug, PartialEq)]
pub(crate) enum State {
    /// Nothing was written yet, or not to the end.
    New,
    /// There are results, but of something else, or they were altered; why.
    Outdated(String),
    /// All results are there; their provenance.
    Finished(Value),
}

/// Compares what is on disk with what this run would write: `expected` is its provenance as far as it is known beforehand.
pub(crate) fn state(targets: &Targets, expected: &Value) -> State {
    let Ok(text) = std::fs::read_to_string(&targets.provenance) else { return State::New };
    let Ok(found) = serde_json::from_str::<Value>(&text) else {
        return State::Outdated("its provenance cannot be read".into());
    };
    if let Some(key) = IDENTITY.iter().find(|&&key| found[key] != expected[key]) {
        let what = if *key == "arguments" { "settings" } else { key };
        return State::Outdated(format!("other {what}"));
    }
    if found["input"]["sha256"] != expected["input"]["sha256"] {
        return State::Outdated("the image changed".into());
    }
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for path in targets.files() {
        let name = name(path);
        let Some(hash) = found["outputs"][&name].as_str() else {
            return State::Outdated(format!("{name} is not among its results"));
        };
        match inputs::sha256(path) {
            Ok(now) if now == hash => {}
            Ok(_) => return State::Outdated(format!("{name} was altered")),
            Err(_) => return State::Outdated(format!("{name} is missing")),
        }
    }
    State::Finished(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exports::Export;
    use cytomask::weights;

    #[test]
    fn only_the_same_input_settings_and_results_count() {
        let folder = tempfile::tempdir().unwrap();
        let targets = Targets::new(folder.path(), "a", &[Export::Tiff, Export::Csv]);
        let expected =
            json!({ "version": "1", "settings": { "min_size": 3 }, "input": { "path": "a.png", "sha256": "77" } });
        assert_eq!(state(&targets, &expected), State::New);
        let table = targets.path(Export::Csv).unwrap();
        std::fs::write(targets.labels().unwrap(), b"labels").unwrap();
        std::fs::write(table, b"table").unwrap();
        let mut written = expected.clone();
        written["objects"] = json!(3);
        written["outputs"] = json!({
            "a_labels.tif": weights::sha256_bytes(b"labels"),
            "a_objects.csv": weights::sha256_bytes(b"table"),
        });
        std::fs::write(&targets.provenance, written.to_string()).unwrap();
        assert_eq!(state(&targets, &expected), State::Finished(written));

        let with = |pointer: &str, value: &str| {
            let mut changed = expected.clone();
            *changed.pointer_mut(pointer).unwrap() = json!(value);
            state(&targets, &changed)
        };
        assert!(matches!(with("/input/path", "moved/a.png"), State::Finished(_)));
        assert_eq!(with("/input/sha256", "78"), State::Outdated("the image changed".into()));
        assert_eq!(with("/settings/min_size", "4"), State::Outdated("other settings".into()));
        assert_eq!(with("/version", "2"), State::Outdated("other version".into()));
        let mut reduced = expected.clone();
        reduced["precision"] = json!("int8");
        assert_eq!(state(&targets, &reduced), State::Outdated("other precision".into()));
        let with_overlay = Targets::new(folder.path(), "a", &[Export::Tiff, Export::Csv, Export::Overlay]);
        assert_eq!(state(&with_overlay, &expected), State::Outdated("a_overlay.png is not among its results".into()));

        std::fs::write(table, b"edited").unwrap();
        assert_eq!(state(&targets, &expected), State::Outdated("a_objects.csv was altered".into()));
        std::fs::remove_file(table).unwrap();
        assert_eq!(state(&targets, &expected), State::Outdated("a_objects.csv is missing".into()));
    }
}
