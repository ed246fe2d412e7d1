//! The `ft` command.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod signals;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
