//! The machine a report was made on: without it a figure cannot be compared.

use super::usage::CpuTimes;
use serde::Serialize;
use std::fs::read_to_string;
use std::time::Duration;

/// How long the load is watched before the first measurement.
const LOAD_SAMPLE: Duration = Duration::from_millis(400);

/// What decides the figures besides the contenders.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    /// Cores that nobody used just before the run.
    pub(super) idle_cores: f64,
    pub(super) kernel: String,
    /// The kernel's TCP congestion control.
    pub(super) tcp_congestion: String,
    /// Whether this program was built with optimisation.
    pub(super) optimised: bool,
}

impl Machine {
    /// Reads /proc; what it does not say is "unknown".
    pub(super) fn read() -> Self {
        let line = |path| read_to_string(path).ok().map(|text| text.trim().to_owned());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cpu: line("/proc/cpuinfo").and_then(|info| cpu_model(&info)).unwrap_or_else(unknown),
            cores,
            idle_cores: idle_cores(cores),
            kernel: line("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            tcp_congestion: line("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_else(unknown),
            optimised: !cfg!(debug_assertions),
        }
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The model of the first CPU in /proc/cpuinfo (x86: "model name"; some ARM kernels: "Model").
fn cpu_model(cpuinfo: &str) -> Option<String> {
    let model = |line: &str| {
        let (key, value) = line.split_once(':')?;
        matches!(key.trim(), "model name" | "Model").then(|| value.trim().to_owned())
    };
    cpuinfo.lines().find_map(model)
}

pub(crate) fn idle_cores(cores: usize) -> f64 {
    let before = CpuTimes::read();
    std::thread::sleep(LOAD_SAMPLE);
    let after = CpuTimes::read();
    let (busy, idle) = (after.busy - before.busy, after.idle - before.idle);
    if busy + idle > 0.0 { cores as f64 * idle / (busy + idle) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found_among_the_other_lines() {
        let info =
            "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9B14\nmodel name\t: other\n";
        assert_eq!(cpu_model(info).as_deref(), Some("AMD EPYC 9B14"));
        assert_eq!(cpu_model("processor : 0\n"), None);
    }

    #[test]
    fn idle_cores_are_within_the_machine() {
        let machine = Machine::read();
        assert!((0.0..=machine.cores as f64).contains(&machine.idle_cores), "{}", machine.idle_cores);
    }
}
