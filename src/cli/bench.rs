//! `ft bench`: measurements.
use super::CliResult;

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> CliResult {
    unimplemented!()
}
