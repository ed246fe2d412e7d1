//! `ft protect`, `ft list`, `ft drain` and their kin: what people ask of the agents.

mod planned;
mod show;

pub(crate) use planned::{DrainArgs, FailoverArgs, MoveArgs, UndrainArgs, drain, failover, move_vm, undrain};

use super::CliResult;
use ft::host::client::{Client, ClientError};
use ft::host::config::STATE_DIR;
use ft::host::message::{Answer, Request, VmStatus};
use ft::host::planned::{LOOK_EVERY, copies, hosts, live, switch_over, unexpected};
use ft::vm::config::VmFile;
use serde::Serialize;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long one request for events waits for the next.
const WAIT_MS: u64 = 10_000;

/// What all of them have in common.
#[derive(clap::Args)]
struct Common {
    /// State directory of this host's agent [default: $FT_STATE, or /var/lib/ft]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct ProtectArgs {
    /// The VM's file, without [cluster]
    #[arg(value_name = "VM.toml")]
    file: PathBuf,
    /// The host where it goes live [default: this one]
    #[arg(long, value_name = "HOST")]
    on: Option<String>,
    /// Start a VM that has been live before from what is on its disks; all of its copies must be over
    #[arg(long)]
    again: bool,
    /// A host that is off for good, so that no copy can run there; may be repeated
    #[arg(long, value_name = "HOST", requires = "again")]
    lost: Vec<String>,
    /// Do not wait until it is protected
    #[arg(long)]
    no_wait: bool,
    /// Seconds to wait until it is protected
    #[arg(long, value_name = "SECONDS", default_value_t = 300, conflicts_with = "no_wait")]
    timeout: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(crate) struct StatusArgs {
    /// The VM [default: all]
    vm: Option<String>,
    /// Print it again whenever something has changed, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Say where the next copy is made, and why on no other host
    #[arg(long, conflicts_with = "watch")]
    why: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(crate) struct StopArgs {
    /// The VM: all of its copies end
    vm: String,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(crate) struct SwitchoverArgs {
    /// The VM: its secondary goes live, and its live copy becomes the secondary
    vm: String,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(crate) struct EventsArgs {
    /// Go on with what happens, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// The host whose events they are [default: this one]
    #[arg(long, value_name = "HOST")]
    on: Option<String>,
    /// Only those after the event of this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    since: u64,
    #[command(flatten)]
    common: Common,
}

impl Common {
    fn connect(&self) -> Result<Client, ClientError> {
        let state = self.state.clone().or_else(|| std::env::var_os("FT_STATE").map(PathBuf::from));
        Client::connect(&state.unwrap_or_else(|| STATE_DIR.into()))
    }
}

pub(crate) fn protect(args: ProtectArgs) -> CliResult {
    let ProtectArgs { file, on, again, lost, no_wait, timeout, common } = args;
    // The agent works elsewhere: what is relative is relative to here.
    let file = VmFile::read(&std::path::absolute(file)?)?;
    let mut client = common.connect()?;
    let request = Request::Protect { file: toml::to_string(&file)?, again, lost };
    client.ask(on.as_deref(), request)?;
    let goal = if no_wait { "live" } else { "protected" };
    let deadline = Instant::now() + Duration::from_secs(timeout);
    let mut said = None;
    loop {
        let copies = copies(&mut client, on.as_deref(), &file.name)?;
        if let Some((host, vm)) = copies.iter().find(|(_, vm)| vm.is_live()) {
            if no_wait || vm.copy.protected {
                return protected(host, vm, goal, common.json);
            }
            let doing = vm.respawn.as_deref().map_or("not protected yet".into(), show::lasting);
            if said.as_ref() != Some(&doing) {
                eprintln!("ft: live on {host}; {doing}");
                said = Some(doing);
            }
        } else if let Some((host, vm)) = copies.iter().find(|(_, vm)| vm.ended.is_some())
            && copies.iter().all(|(_, vm)| !vm.running)
        {
            let ended = vm.ended.as_ref().map(|ended| format!("{}: {}", ended.how, ended.words.join(" / ")));
            return Err(format!("the copy on {host} {}", ended.unwrap_or_default()).into());
        }
        if Instant::now() > deadline {
            return Err(format!(
                "VM {} is not {goal} after {timeout} s; it goes on: see `ft status {0}`",
                file.name
            )
            .into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn protected(host: &str, vm: &VmStatus, goal: &str, json: bool) -> CliResult {
    if json {
        print_json(&serde_json::json!({ "host": host, "vm": vm }))?;
    } else {
        writeln!(io::stdout(), "{} is {goal}, live on {host} in term {}", vm.name, vm.copy.term)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn list(args: ListArgs) -> CliResult {
    let hosts = hosts(&mut args.common.connect()?, None, Request::List)?;
    if args.common.json {
        print_json(&hosts)?;
    } else {
        writeln!(io::stdout(), "{}\n\n{}", show::hosts(&hosts), show::copies(&hosts))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn status(args: StatusArgs) -> CliResult {
    if args.why {
        return planned::why(&args.common, args.vm.as_deref());
    }
    let mut client = args.common.connect()?;
    let mut last = None;
    loop {
        let request = args.vm.clone().map_or(Request::List, |vm| Request::Status { vm });
        let hosts = hosts(&mut client, None, request)?;
        let text = match args.common.json {
            true => serde_json::to_string(&hosts)?,
            false => show::details(&hosts),
        };
        if last.as_ref() != Some(&text) {
            writeln!(io::stdout(), "{text}")?;
        }
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        last = Some(text);
        std::thread::sleep(LOOK_EVERY);
    }
}

pub(crate) fn stop(args: StopArgs) -> CliResult {
    let remarks = match args.common.connect()?.ask(None, Request::Stop { vm: args.vm.clone() })? {
        Answer::Done { remarks } => remarks,
        other => return Err(unexpected(&other).into()),
    };
    if args.common.json {
        print_json(&serde_json::json!({ "vm": args.vm, "remarks": remarks }))?;
    } else {
        for remark in &remarks {
            eprintln!("ft: {remark}");
        }
        writeln!(io::stdout(), "{} is stopped", args.vm)?;
    }
    Ok(if remarks.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn switchover(args: SwitchoverArgs) -> CliResult {
    let SwitchoverArgs { vm, common } = args;
    let mut client = common.connect()?;
    let (from, _) = live(&mut client, &vm)?
        .ok_or_else(|| format!("VM {vm:?} is live on no host that answers: see `ft list`"))?;
    let to = switch_over(&mut client, &from, &vm)?;
    let to = hosts(&mut client, None, Request::List)?.into_iter().find(|host| host.id == to);
    let to = to.map_or_else(|| "the other host".to_owned(), |host| host.name);
    if common.json {
        print_json(&serde_json::json!({ "vm": vm, "from": from, "to": to }))?;
    } else {
        writeln!(io::stdout(), "{vm} is live on {to}; {from} follows")?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn events(args: EventsArgs) -> CliResult {
    let mut client = args.common.connect()?;
    let (mut since, mut wait_ms) = (args.since, 0);
    loop {
        let events = match client.ask(args.on.as_deref(), Request::Events { since, wait_ms })? {
            Answer::Events { events } => events,
            other => return Err(unexpected(&other).into()),
        };
        for event in events {
            since = event.seq;
            match args.common.json {
                true => print_json(&event)?,
                false => writeln!(io::stdout(), "{}", show::event(&event))?,
            }
        }
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        wait_ms = WAIT_MS;
    }
}

fn print_json(value: &impl Serialize) -> Result<(), Box<dyn std::error::Error>> {
    writeln!(io::stdout(), "{}", serde_json::to_string(value)?)?;
    Ok(())
}
