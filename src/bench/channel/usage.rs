//! Time: the wall's, this process's CPU time and the whole machine's.
//!
//! Network work in the kernel is charged to whichever process happens to run when it is done, so one side's CPU time
//! alone can mislead; the sum of both sides and the machine's busy time stand beside it.

use super::order::Sample;
use nix::sys::resource::{UsageWho, getrusage};
use std::time::Instant;

/// Clock ticks in /proc/stat: the kernel reports in units of 1/100 s on every architecture we build for (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Started at "go", stopped at the receipt.
pub(super) struct Meter {
    start: Instant,
    cpu_seconds: f64,
    machine: CpuTimes,
}

impl Meter {
    pub(super) fn start() -> Self {
        let (machine, cpu_seconds) = (CpuTimes::read(), process_cpu_seconds());
        Self { start: Instant::now(), cpu_seconds, machine }
    }

    pub(super) fn stop(self, bytes: u64) -> Sample {
        let seconds = self.start.elapsed().as_secs_f64();
        Sample {
            bytes,
            seconds,
            cpu_seconds: process_cpu_seconds() - self.cpu_seconds,
            machine_seconds: CpuTimes::read().busy - self.machine.busy,
            ..Sample::default()
        }
    }
}

/// User and system time of this process so far; 0 where the kernel does not say.
fn process_cpu_seconds() -> f64 {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Seconds summed over all cores since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct CpuTimes {
    pub(super) busy: f64,
    pub(super) idle: f64,
}

impl CpuTimes {
    /// Zeroes where /proc is not mounted.
    pub(super) fn read() -> Self {
        std::fs::read_to_string("/proc/stat").ok().and_then(|stat| Self::parse(&stat)).unwrap_or_default()
    }

    /// The first line of /proc/stat: user nice system idle iowait irq softirq steal (guest time is in user already).
    fn parse(stat: &str) -> Option<Self> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<f64> =
            fields.split_whitespace().take(8).filter_map(|field| field.parse().ok()).collect();
        let idle = ticks.get(3)? + ticks.get(4)?;
        let busy = ticks.iter().sum::<f64>() - idle;
        Some(Self { busy: busy / TICKS_PER_SECOND, idle: idle / TICKS_PER_SECOND })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_proc_stat() {
        let stat = "cpu  100 0 50 1000 20 0 30 20 7 0\ncpu0 1 2 3\n";
        assert_eq!(CpuTimes::parse(stat), Some(CpuTimes { busy: 2.0, idle: 10.2 }));
        assert_eq!(CpuTimes::parse("intr 5"), None);
        assert_eq!(CpuTimes::parse("cpu  1 2"), None);
    }

    #[test]
    fn a_meter_counts_the_bytes_it_is_given() {
        assert_eq!(Meter::start().stop(42).bytes, 42);
    }
}
