//! `ft stamp`: a copy of this program with names of its own.

use super::CliResult;
use ft::stamp::stamp;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the build, which status and events show
    #[arg(long, value_name = "NAME")]
    build: Option<String>,
    /// Mark its machine as another than this source's: for a build with changes that a guest could notice. Only copies with the same
    /// mark are a pair
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// The file to be written; it must not exist
    file: PathBuf,
}

pub(crate) fn run(args: Args) -> CliResult {
    let own = std::env::current_exe()?;
    let reading = |error| format!("cannot read {}: {error}", own.display());
    let mut program = fs::read(&own).map_err(reading)?;
    stamp(&mut program, args.build.as_deref(), args.machine.as_deref())?;
    let writing = |error| format!("cannot write {}: {error}", args.file.display());
    let mut file = fs::File::create_new(&args.file).map_err(writing)?;
    std::io::Write::write_all(&mut file, &program).map_err(writing)?;
    let permissions = fs::metadata(&own).map_err(reading)?.permissions();
    file.set_permissions(permissions).map_err(writing)?;
    Ok(ExitCode::SUCCESS)
}
