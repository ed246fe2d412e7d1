//! What agents say, for people.

use comfy_table::{Table, presets};
use ft::host::events::{Event, Kind};
use ft::host::message::{HostStatus, Moving, VmStatus, Why};
use ft::vm::control::Role;
use std::collections::BTreeMap;
use std::fmt::Write as _;

fn table<const N: usize>(titles: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(titles);
    table
}

/// A line for each host.
pub(super) fn hosts(hosts: &[HostStatus]) -> Table {
    let mut table = table(["HOST", "ID", "STATE", "DOMAIN", "VMS", "MEMORY FREE", "BUILD"]);
    for host in hosts {
        let state = match (&host.down, &host.description) {
            (Some(_), _) => "DOWN",
            (None, Some(description)) if description.draining => "draining",
            (None, _) => "up",
        };
        let (domain, vms, free, build) = match &host.description {
            Some(it) => (
                it.domain.clone(),
                format!("{} of {}", it.capacity.vms - it.free.vms.min(it.capacity.vms), it.capacity.vms),
                format!("{} of {} MiB", it.free.memory_mib, it.capacity.memory_mib),
                it.version.clone(),
            ),
            None => Default::default(),
        };
        table.add_row([host.name.clone(), host.id.to_string(), state.into(), domain, vms, free, build]);
    }
    table
}

/// A line for each VM of which a copy runs.
pub(super) fn copies(hosts: &[HostStatus]) -> Table {
    let mut table = table(["VM", "STATE", "LIVE ON", "TERM", "SECONDARY ON", "LAG", "NEXT"]);
    let mut vms: BTreeMap<&str, Vec<(&HostStatus, &VmStatus)>> = BTreeMap::new();
    for host in hosts.iter().filter(|host| host.down.is_none()) {
        for vm in host.description.iter().flat_map(|it| &it.vms).filter(|vm| vm.running) {
            vms.entry(&vm.name).or_default().push((host, vm));
        }
    }
    for (name, copies) in vms {
        let live = copies.iter().find(|(_, vm)| vm.is_live());
        // While its secondary moves there are three.
        let peer = live.and_then(|(_, vm)| vm.copy.peer);
        let others = || copies.iter().filter(|(_, vm)| !vm.is_live());
        let other = others().find(|(host, _)| Some(host.id) == peer).or_else(|| others().next());
        let state = match live {
            Some((_, vm)) if vm.copy.protected => "protected",
            Some(_) => "NOT PROTECTED",
            None => "NOT LIVE",
        };
        let place =
            |copy: Option<&(&HostStatus, &VmStatus)>| copy.map_or("-".into(), |(host, _)| host.name.clone());
        let (term, lag, next) = match live {
            Some((_, vm)) => (
                vm.copy.term.to_string(),
                format!("{:.1} ms", vm.copy.lag_us as f64 / 1e3),
                vm.respawn
                    .iter()
                    .flat_map(|text| text.lines())
                    .next()
                    .map_or_else(|| moving(vm), str::to_owned),
            ),
            None => Default::default(),
        };
        table.add_row([name.to_owned(), state.into(), place(live), term, place(other), lag, next]);
    }
    table
}

/// A paragraph for each copy, those that are over too.
pub(super) fn details(hosts: &[HostStatus]) -> String {
    let mut text = String::new();
    for host in hosts {
        for vm in host.description.iter().flat_map(|it| &it.vms) {
            // Writing to a string does not fail.
            let _ = detail(&mut text, host, vm);
        }
    }
    if text.is_empty() {
        text.push_str("no VM has a copy on any host");
    }
    text.trim_end().to_owned()
}

fn detail(text: &mut String, host: &HostStatus, vm: &VmStatus) -> std::fmt::Result {
    let copy = &vm.copy;
    let state = match (vm.running, copy.role) {
        (false, _) => "over",
        (true, Role::Live) if copy.protected => "live, protected",
        (true, Role::Live) => "live, NOT PROTECTED",
        (true, Role::Following) if copy.protected => "in step",
        (true, Role::Following) => "joins",
        (true, Role::Starting) => "starts",
        (true, Role::Promoting) => "takes over",
        (true, Role::Over) => "ends",
        (true, Role::Yielded) => "hands over",
    };
    writeln!(text, "{} on {}: {state}", vm.name, host.name)?;
    if let Some(down) = &host.down {
        writeln!(text, "  as of when {} last answered; now: {down}", host.name)?;
    }
    if vm.running {
        writeln!(
            text,
            "  term {}, process {} of build {}, restarts of the guest: {}",
            copy.term, copy.pid, copy.version, copy.restarts
        )?;
    }
    if vm.is_live() {
        let lag_ms = copy.lag_us as f64 / 1e3;
        writeln!(text, "  lag {lag_ms:.1} ms, log sent {:.1} MB", copy.log_bytes as f64 / 1e6)?;
    }
    for line in vm.respawn.iter().flat_map(|respawn| respawn.lines()) {
        writeln!(text, "  {line}")?;
    }
    let moving = moving(vm);
    if !moving.is_empty() {
        writeln!(text, "  {moving}")?;
    }
    if vm.retired && vm.running {
        writeln!(text, "  is being stopped: it is not made redundant any more")?;
    }
    if let Some(ended) = &vm.ended {
        writeln!(text, "  {}", ended.how)?;
        ended.words.iter().try_for_each(|word| writeln!(text, "    {word}"))?;
    }
    Ok(())
}

/// Where a VM's secondary moves, if it does.
fn moving(vm: &VmStatus) -> String {
    match &vm.moving {
        Some(Moving { to, failed: None }) => format!("its secondary moves to host {to}"),
        _ => String::new(),
    }
}

/// A paragraph on where the next copy of a VM that is live on `host` is made.
pub(super) fn why(host: &str, why: &Why) -> String {
    let (title, choice) = match &why.last {
        Some(last) => ("the last choice of a host:", last),
        None => ("what would be chosen now:", &why.now),
    };
    let text = format!("{}, live on {host}: {}\n  {title}", why.vm, why.doing);
    choice.to_string().lines().fold(text, |text, line| format!("{text}\n    {line}"))
}

/// What is being done to make a VM redundant, without how long that may still take.
pub(super) fn lasting(respawn: &str) -> String {
    let (head, hosts) = respawn.split_once('\n').unwrap_or((respawn, ""));
    let head = head.split_once("; ").map_or(head, |(head, _)| head);
    hosts.lines().fold(head.to_owned(), |text, host| format!("{text}\n      {host}"))
}

/// A line for an event.
pub(super) fn event(event: &Event) -> String {
    let Event { seq, at, vm, kind, text } = event;
    let vm = vm.as_deref().unwrap_or("-");
    format!("{seq:>6} {at} {vm:<12} {:<14} {text}", name(*kind))
}

/// The kind's name, as JSON has it.
fn name(kind: Kind) -> String {
    serde_json::to_value(kind).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}
