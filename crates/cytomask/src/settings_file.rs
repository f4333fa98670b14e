//! Settings files: what `cytomask tune` writes and `segment --settings` reads.
//!
//! JSON, as all other records of the program are, so that no second format is needed and any language reads it.

use std::path::Path;

use cytomask_models::Model;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::settings::MODES;
use crate::{Error, ErrorKind, Strategy};

/// A mode with its settings, and what they were chosen for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsFile {
    /// Version of the program that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The model they were chosen for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<SettingsModel>,
    /// `amg`, `ais` or `apg`.
    pub mode: String,
    /// By name; what is left out is as suits the model.
    pub settings: Map<String, Value>,
    /// How they were chosen; not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned: Option<Value>,
}

/// The model a settings file was made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsModel {
    /// Its name.
    pub name: String,
    /// Of its weights, lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl SettingsFile {
    /// The largest file that is read, bytes: far more than all settings need.
    const LARGEST: u64 = 1 << 20;

    /// Reads a file; keys it does not know are errors.
    ///
    /// # Errors
    /// `Setting`, naming the file, when it cannot be read or is not of this form.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |what: String| Error::new(ErrorKind::Setting, format!("{}: {what}", path.display()));
        let length = std::fs::metadata(path).map_err(|error| wrong(format!("cannot read: {error}")))?.len();
        if length > Self::LARGEST {
            return Err(wrong(format!("expected a settings file of at most {} bytes, found {length}", Self::LARGEST)));
        }
        let bytes = std::fs::read(path).map_err(|error| wrong(format!("cannot read: {error}")))?;
        serde_json::from_slice(&bytes).map_err(|error| wrong(format!("not a settings file: {error}")))
    }

    /// A strategy with all its settings, chosen for `model` by this version of the program.
    ///
    /// # Errors
    /// `Weights` when the model's file can no longer be read.
    pub fn new(strategy: &Strategy, model: &Model, tuned: Option<Value>) -> Result<Self, Error> {
        let settings = match strategy.settings() {
            Value::Object(settings) => settings,
            _ => Map::new(),
        };
        Ok(Self {
            version: Some(env!("CARGO_PKG_VERSION").into()),
            model: Some(SettingsModel { name: model.name().into(), sha256: Some(crate::model_sha256(model)?) }),
            mode: strategy.name().into(),
            settings,
            tuned,
        })
    }

    /// The strategy for `model`.
    ///
    /// # Errors
    /// `Setting` as [`Strategy::from_settings`].
    pub fn strategy(&self, model: &Model) -> Result<Strategy, Error> {
        let of_file = |error: Error| Error::new(error.kind(), format!("settings file: {error}"));
        if !MODES.contains(&self.mode.as_str()) {
            let message = format!("settings file: mode: expected one of {}, found {:?}", MODES.join(", "), self.mode);
            return Err(Error::new(ErrorKind::Setting, message));
        }
        Strategy::from_settings(&self.mode, &Value::Object(self.settings.clone()), model).map_err(of_file)
    }

    /// A warning when the settings were chosen for other weights than `model`'s.
    ///
    /// # Errors
    /// `Weights` when the model's file can no longer be read.
    pub fn mismatch(&self, model: &Model) -> Result<Option<String>, Error> {
        let Some(made_for) = &self.model else { return Ok(None) };
        let same = match &made_for.sha256 {
            Some(sha256) => *sha256 == crate::model_sha256(model)?,
            None => made_for.name == model.name(),
        };
        Ok((!same).then(|| {
            let others = if made_for.name == model.name() { "other weights of this name" } else { &made_for.name };
            format!("these settings were chosen for {others}, not for {}", model.name())
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Random changes of a good file: whatever comes out, nothing panics.
    #[test]
    fn changed_files_are_harmless() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.json");
        let text = r#"{ "mode": "ais", "settings": { "min_size": 40, "foreground_threshold": 0.5 }, "model": { "name": "a" } }"#;
        let mut state = 7_u64;
        let mut random = |limit: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % limit
        };
        for _ in 0..1000 {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                bytes[at] = b"0123456789-e.,[]{}\"x "[random(21)];
            }
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(file) = SettingsFile::read(&path) {
                let settings = Value::Object(file.settings);
                let _ = Strategy::from(crate::Ais::default()).with_settings(&settings);
                let _ = Strategy::from(crate::Apg::default()).with_settings(&settings);
            }
        }
    }

    #[test]
    fn a_file_says_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            SettingsFile::read(&path)
        };
        let good = read(r#"{ "mode": "ais", "settings": { "min_size": 40 } }"#).unwrap();
        assert_eq!((good.mode.as_str(), &good.settings["min_size"]), ("ais", &json!(40)));
        for (text, expected) in [
            ("", "not a settings file"),
            ("{", "not a settings file"),
            (r#"{ "settings": {} }"#, "mode"),
            (r#"{ "mode": "ais" }"#, "settings"),
            (r#"{ "mode": "ais", "settings": {}, "seting": 1 }"#, "seting"),
            (r#"{ "mode": "ais", "settings": [] }"#, "map"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("settings.json") && error.contains(expected), "{text}: {error}");
        }
        assert!(SettingsFile::read(&folder.path().join("absent.json")).unwrap_err().to_string().contains("absent"));
    }
}
