//! The log of a run: JSON lines, each on its way to the disk before the next step begins.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

pub(super) struct Log(std::fs::File);

impl Log {
    /// Keeps the lines of the steps up to `step`, if the run goes on, and appends to them.
    pub(super) fn open(path: &Path, step: u64, goes_on: bool) -> Result<Self> {
        let failed = || format!("{}: cannot write the log", path.display());
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path).with_context(failed)?;
        let text = std::fs::read_to_string(path).with_context(failed)?;
        let kept = if goes_on { kept(&text, step) } else { 0 };
        file.set_len(kept as u64).with_context(failed)?;
        Ok(Self(file))
    }

    pub(super) fn line(&mut self, value: &Value) -> Result<()> {
        // One write: a killed run leaves whole lines, or one without its end.
        self.0.write_all(format!("{value}\n").as_bytes()).context("cannot write the log")
    }
}

/// Bytes of the whole lines up to a step.
fn kept(text: &str, step: u64) -> usize {
    let before = |line: &&str| {
        let value: Option<Value> = serde_json::from_str(line).ok();
        line.ends_with('\n') && value.and_then(|value| value["step"].as_u64()).is_some_and(|at| at <= step)
    };
    text.split_inclusive('\n').take_while(before).map(str::len).sum()
}

#[cfg(test)]
mod tests {
    use super::kept;

    #[test]
    fn later_steps_and_torn_lines_are_dropped() {
        let text = "{\"step\":0}\n{\"step\":1,\"maps\":0.5}\n{\"step\":2}\n{\"step\":1,\"ma";
        assert_eq!(&text[..kept(text, 1)], "{\"step\":0}\n{\"step\":1,\"maps\":0.5}\n");
        assert_eq!(kept("{\"step\":1}", 1), 0);
    }
}
