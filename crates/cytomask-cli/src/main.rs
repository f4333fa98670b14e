//! The program `cytomask`: arguments, conversion, drawing. All computing lives in the library crates.

mod args;
mod draw;
mod dump;
mod estimate;
mod evaluate;
mod inputs;
mod models;
mod outputs;
mod progress;
mod prompts;
mod segment;
mod settings;
#[cfg(feature = "train")]
mod train;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

/// Exit status when at least one image, file or check failed. Wrong usage exits with clap's 2.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse_from(args::normalized(std::env::args_os()));
    let outcome = match cli.command {
        Command::Segment(arguments) => segment::run(&arguments),
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        Command::Models(arguments) => models::run(&arguments),
        #[cfg(feature = "train")]
        Command::Train(arguments) => train::run(&arguments),
        Command::Dump(arguments) => dump::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::say(&format!("error: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}
