//! `ft host`: the agent of this host, until Ctrl-C. VMs go on without it.

use super::CliResult;
use ft::host::config::HostFile;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The host's file (docs/operations.md)
    #[arg(value_name = "HOST.toml")]
    file: PathBuf,
}

pub(crate) fn run(args: Args) -> CliResult {
    let file = HostFile::read(&std::path::absolute(args.file)?)?;
    // VMs outlive the agent, and so may the program's file: it is looked up once.
    ft::host::run(file, std::env::current_exe()?, crate::signals::on_signal()?)?;
    Ok(ExitCode::SUCCESS)
}
