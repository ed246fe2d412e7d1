//! `ft ca`: the cluster's certificate authority.
use super::CliResult;

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> CliResult {
    unimplemented!()
}
