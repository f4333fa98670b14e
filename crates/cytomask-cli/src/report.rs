//! What a batch says while it runs: lines and a bar for people, or one JSON object a line (`--log json`), on stderr.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::progress::{Progress, say};

/// How a run is reported on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people, with a bar on a terminal.
    #[default]
    Text,
    /// One JSON object a line: started, finished, skipped, failed, warning, summary.
    Json,
}

/// Reports events; several threads may share it.
pub(crate) struct Reporter {
    format: LogFormat,
    progress: Option<Mutex<Progress>>,
    images: u64,
}

/// Parts of an image count a thousandth each, so that the bar moves within images too.
const PARTS: f64 = 1000.0;

impl Reporter {
    pub(crate) fn new(format: LogFormat, images: usize) -> Self {
        let progress = (format == LogFormat::Text).then(|| Mutex::new(Progress::new("segmenting")));
        Self { format, progress, images: images as u64 }
    }

    /// `images` of all, in fractions.
    pub(crate) fn progress(&self, images: f64) {
        if let Some(progress) = self.locked() {
            { progress }.set((images * PARTS) as u64, self.images * PARTS as u64);
        }
    }

    /// One event: its name, the input it is about, what else is known, and the same as a line for people (none if empty).
    pub(crate) fn event(&self, name: &str, input: Option<&Path>, details: Value, line: &str) {
        match self.format {
            LogFormat::Json => {
                let mut event = json!({ "event": name });
                if let Some(input) = input {
                    event["input"] = json!(input);
                }
                if let Value::Object(details) = details {
                    for (key, value) in details {
                        event[key] = value;
                    }
                }
                say(&event.to_string());
            }
            LogFormat::Text if line.is_empty() => {}
            LogFormat::Text => match self.locked() {
                Some(progress) => progress.line(line),
                None => say(line),
            },
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&mut self) {
        self.progress = None;
    }

    fn locked(&self) -> Option<MutexGuard<'_, Progress>> {
        self.progress.as_ref().map(|progress| progress.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
