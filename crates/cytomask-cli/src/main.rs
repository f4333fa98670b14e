//! The program `cytomask`: arguments, conversion, drawing. All computing lives in the library crates.

mod args;
mod batch;
mod choose;
mod compare;
mod convert;
mod datasets;
mod draw;
mod dump;
mod estimate;
mod evaluate;
mod exports;
mod flow_args;
mod inputs;
mod inspect;
mod interrupt;
mod models;
mod outputs;
mod page;
mod progress;
mod prompts;
mod report;
mod reproduce;
mod resume;
mod segment;
mod settings;
mod timings;
#[cfg(feature = "train")]
mod train;
mod tune;
mod volume;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

/// Exit status when at least one image, file or check failed. Wrong usage exits with clap's 2.
const FAILED: u8 = 1;

/// An error of which everything has been said; what is left is the exit status.
#[derive(Debug)]
struct Exit(u8);

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit status {}", self.0)
    }
}

impl std::error::Error for Exit {}

fn main() -> ExitCode {
    let cli = Cli::parse_from(args::normalized(std::env::args_os()));
    let outcome = match cli.command {
        Command::Segment(arguments) => segment::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Reproduce(arguments) => reproduce::run(&arguments),
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        Command::Datasets(arguments) => datasets::run(&arguments),
        Command::Tune(arguments) => tune::run(&arguments),
        Command::Models(arguments) => models::run(&arguments),
        #[cfg(feature = "train")]
        Command::Train(arguments) => train::run(&arguments),
        Command::Dump(arguments) => dump::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Exit>() => ExitCode::from(error.downcast_ref::<Exit>().map_or(FAILED, |exit| exit.0)),
        Err(error) => {
            progress::say(&format!("error: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}
