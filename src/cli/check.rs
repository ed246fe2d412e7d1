//! `ft check`: what this host can do, and what to change where it cannot.

use super::CliResult;
use comfy_table::{Table, presets};
use serde::Serialize;
use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Ok,
    /// It works, and could work better.
    Hint,
    /// Something cannot be used.
    Missing,
}

#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do; empty where nothing is to be done.
    fix: String,
}

impl Check {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Ok, found: found.into(), fix: String::new() }
    }

    fn hint(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Hint, found: found.into(), fix: fix.into() }
    }

    fn missing(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Missing, found: found.into(), fix: fix.into() }
    }
}

/// Fails only where a VM could not be run at all.
pub(crate) fn run(args: Args) -> CliResult {
    let checks = [
        vcpu_soft(),
        vcpu_kvm(),
        cores(),
        memory(),
        socket_buffer("rmem_max"),
        socket_buffer("wmem_max"),
        udp(),
        tcp(),
        clock(),
    ];
    let is_usable = checks[0].verdict == Verdict::Ok
        && checks.iter().all(|check| check.what == "vcpu kvm" || check.verdict != Verdict::Missing);
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::json!({ "usable": is_usable, "checks": checks }))?;
    } else {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        for check in &checks {
            let verdict = match check.verdict {
                Verdict::Ok => "ok",
                Verdict::Hint => "hint",
                Verdict::Missing => "no",
            };
            let fix = if check.fix.is_empty() { String::new() } else { format!("-> {}", check.fix) };
            table.add_row([verdict, check.what, &check.found, &fix]);
        }
        writeln!(out, "{table}")?;
    }
    Ok(if is_usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn vcpu_soft() -> Check {
    Check::ok("vcpu soft", "every x86-64 Linux host")
}

fn vcpu_kvm() -> Check {
    let build = "this build has no KVM vCPU yet; VMs run with the software vCPU";
    match fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Check::hint("vcpu kvm", "/dev/kvm can be opened", build),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Check::hint(
            "vcpu kvm",
            "/dev/kvm: permission denied",
            format!("run as a member of group kvm; {build}"),
        ),
        Err(error) => Check::hint("vcpu kvm", format!("/dev/kvm: {error}"), build),
    }
}

fn cores() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match cores {
        1 => Check::hint(
            "cores",
            "1",
            "a copy of a VM wants one core for its processor, and a little for the network",
        ),
        _ => Check::ok("cores", cores.to_string()),
    }
}

fn memory() -> Check {
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    match available.map(|kib| kib >> 10) {
        Some(mib) if mib < 256 => {
            Check::hint("memory", format!("{mib} MiB available"), "a VM takes its RAM and up to 64 MiB more")
        }
        Some(mib) => Check::ok("memory", format!("{mib} MiB available")),
        None => Check::hint("memory", "unknown", "mount /proc"),
    }
}

fn socket_buffer(name: &'static str) -> Check {
    /// What links ask for.
    const WANTED: u64 = 8 << 20;
    let what = if name == "rmem_max" { "receive buffer" } else { "send buffer" };
    let path = Path::new("/proc/sys/net/core").join(name);
    let limit = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    match limit {
        // CAP_NET_ADMIN may go beyond the limit.
        Some(limit) if limit < WANTED && !nix::unistd::geteuid().is_root() => Check::hint(
            what,
            format!("{} KiB", limit >> 10),
            format!("sysctl -w net.core.{name}={WANTED}: bursts of the log lose packets otherwise"),
        ),
        Some(limit) => Check::ok(what, format!("{} KiB", limit.max(WANTED) >> 10)),
        None => Check::hint(what, "unknown", "mount /proc"),
    }
}

fn udp() -> Check {
    match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) {
        Ok(_) => Check::ok("udp", "sockets can be opened"),
        Err(error) => {
            Check::missing("udp", error.to_string(), "let this user open UDP sockets: the log goes over QUIC")
        }
    }
}

fn tcp() -> Check {
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)) {
        Ok(_) => Check::ok("tcp", "ports can be opened"),
        Err(error) => Check::missing(
            "tcp",
            error.to_string(),
            "let this user open TCP ports: a peer's death is noticed through one",
        ),
    }
}

fn clock() -> Check {
    let source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    match source.as_deref().map(str::trim) {
        Ok(source @ ("tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page")) => Check::ok("clock", source),
        Ok(source) => Check::hint(
            "clock",
            source,
            "reading it costs a system call: prefer clocksource=tsc where it is stable",
        ),
        Err(_) => Check::hint("clock", "unknown", "mount /sys"),
    }
}
