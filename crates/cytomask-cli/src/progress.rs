//! Words to stderr: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// One line to stderr. A closed stderr is no reason to fail.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// One line to stdout.
///
/// # Errors
/// When stdout is closed or full.
pub(crate) fn print(line: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        // A reader such as `head` has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => Ok(outcome?),
    }
}

/// Lines of plain progress come at most this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Progress of one long piece of work.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    last: Instant,
}

impl Progress {
    /// Starts to report on `what`.
    pub(crate) fn new(what: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed} (left {eta})");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(what.to_owned());
            bar
        });
        Self { bar, what: what.to_owned(), last: Instant::now() }
    }

    /// `done` of `total` steps.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        } else if self.last.elapsed() >= PLAIN_INTERVAL {
            self.last = Instant::now();
            say(&format!("{}: {done} of {total}", self.what));
        }
    }

    /// `done` of `total` steps, and how it goes. What is left is said by `how`.
    pub(crate) fn set_with(&mut self, done: u64, total: u64, how: &dyn std::fmt::Display) {
        if let Some(bar) = &self.bar {
            if bar.length() != Some(total) {
                let style = ProgressStyle::with_template("{bar:20} {pos}/{len} {msg}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_length(total);
            }
            bar.set_position(done);
            bar.set_message(how.to_string());
        } else if self.last.elapsed() >= PLAIN_INTERVAL {
            self.last = Instant::now();
            say(&format!("{}: {done} of {total}, {how}", self.what));
        }
    }

    /// A line that stays, above the bar.
    pub(crate) fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
