//! `ft move`, `ft drain`, `ft undrain`, `ft failover`: what operators plan.

use super::{Common, print_json, show};
use crate::cli::CliResult;
use ft::host::message::{Request, VmStatus};
use ft::host::moving::{self, Moved, What};
use ft::host::planned::{self, Failover};
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct MoveArgs {
    /// The VM: protected throughout, its live copy moves; its other copy is then where it was live
    vm: String,
    /// The host that it moves to
    host: String,
    /// Move only the second copy
    #[arg(long)]
    secondary: bool,
    /// Seconds that it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(crate) struct DrainArgs {
    /// The host: it takes no further copies, and those that it has are moved to others
    host: String,
    /// Seconds that each VM may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(crate) struct UndrainArgs {
    /// The host: it takes copies again
    host: String,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(crate) struct FailoverArgs {
    /// The VM: its live copy is killed, and its secondary takes over
    vm: String,
    /// Yes, kill it: to see that the other copy takes over
    #[arg(long)]
    test: bool,
    /// Seconds to wait until it is protected again
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn move_vm(args: MoveArgs) -> CliResult {
    let MoveArgs { vm, host, secondary, timeout, common } = args;
    let what = if secondary { What::Secondary } else { What::Live };
    let say = |text: &str| eprintln!("ft: {vm}: {text}");
    let patience = Duration::from_secs(timeout);
    let moved = moving::move_vm(&mut common.connect()?, &vm, (&host, what), patience, say)?;
    if common.json {
        print_json(&serde_json::json!({ "vm": vm, "moved": moved }))?;
    } else {
        let Moved { live_on, secondary_on } = moved;
        writeln!(io::stdout(), "{vm} is live on {live_on}; its other copy is on {secondary_on}")?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn drain(args: DrainArgs) -> CliResult {
    let DrainArgs { host, timeout, common } = args;
    let say = |text: &str| eprintln!("ft: {text}");
    let drained = planned::drain(&mut common.connect()?, &host, Duration::from_secs(timeout), say)?;
    if common.json {
        print_json(&serde_json::json!({ "host": host, "moved": drained.moved, "left": drained.left }))?;
    } else {
        for left in &drained.left {
            eprintln!("ft: {} stays on {host}: {}", left.vm, left.why.replace('\n', "\n      "));
        }
        let text = match drained.left.len() {
            0 => format!("{host} is empty and takes no further copies"),
            n => format!("{host} takes no further copies; what it has of {n} VMs could not be moved"),
        };
        writeln!(io::stdout(), "{text}")?;
    }
    Ok(if drained.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn undrain(args: UndrainArgs) -> CliResult {
    let UndrainArgs { host, common } = args;
    common.connect()?.ask(Some(&host), Request::Drain { draining: false })?;
    if common.json {
        print_json(&serde_json::json!({ "host": host, "draining": false }))?;
    } else {
        writeln!(io::stdout(), "{host} takes copies again")?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn failover(args: FailoverArgs) -> CliResult {
    let FailoverArgs { vm, test, timeout, common } = args;
    if !test {
        return Err(format!(
            "failovers happen by themselves when a copy is lost. To kill the live copy and see that the other takes over, say \
             `ft failover {vm} --test`; to change roles with nothing killed, `ft switchover {vm}`"
        )
        .into());
    }
    let done = planned::try_failover(&mut common.connect()?, &vm, Duration::from_secs(timeout))?;
    if common.json {
        print_json(&serde_json::json!({ "vm": vm, "failover": done }))?;
    } else {
        let Failover { killed_on, pid, live_on, live_after_ms, secondary_on, protected_after_ms } = done;
        let secondary = secondary_on.map_or_else(String::new, |host| format!(" by {host}"));
        writeln!(
            io::stdout(),
            "{vm}: process {pid} on {killed_on} was killed\n\
             live on {live_on} after {live_after_ms} ms\nprotected again{secondary} after {protected_after_ms} ms"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Why the next copy of each VM, or of one, is made where it is.
pub(super) fn why(common: &Common, vm: Option<&str>) -> CliResult {
    let mut client = common.connect()?;
    let request = vm.map_or(Request::List, |vm| Request::Status { vm: vm.to_owned() });
    let mut all = Vec::new();
    for host in planned::hosts(&mut client, None, request)?.into_iter().filter(|host| host.down.is_none()) {
        let vms = host.description.into_iter().flat_map(|description| description.vms);
        for vm in vms.filter(VmStatus::is_live) {
            all.push((host.name.clone(), planned::why(&mut client, &host.name, &vm.name)?));
        }
    }
    if let (Some(vm), true) = (vm, all.is_empty()) {
        return Err(format!("VM {vm:?} is live on no host that answers: see `ft status {vm}`").into());
    }
    if common.json {
        let all: Vec<_> =
            all.iter().map(|(host, why)| serde_json::json!({ "live_on": host, "why": why })).collect();
        print_json(&all)?;
    } else {
        for (host, why) in &all {
            writeln!(io::stdout(), "{}", show::why(host, why))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
