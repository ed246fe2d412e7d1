//! Guests that hang or crash: each restart is told and counted, and a VM whose guest goes down again soon is handed over to its other
//! host, for the fault may be this one's.
//!
//! Invariant: a VM is moved once in a window. What goes on after that has come along with it: it is the guest's.

use super::Agent;
use crate::host::events::Kind;
use crate::host::telemetry;
use crate::vm::report::{GuestReport, Report};
use ft_core::placement::HostState;
use ft_vmm::power::Cause;
use std::time::{Duration, Instant};

/// What is known of a guest's restarts on this host.
#[derive(Default)]
pub(super) struct Supervision {
    /// When it last began again.
    last: Option<Instant>,
    /// When the VM was last handed over for that, from here or to here.
    moved: Option<Instant>,
    /// It has gone live here and has not been alone since: if it is protected next, it was handed over.
    arrives: bool,
}

impl Supervision {
    /// The guest has begun again: whether it has done so before within the window, and the VM was not moved within it.
    fn note_restart(&mut self, now: Instant, window: Duration) -> bool {
        let is_recent = |at: Instant| now.duration_since(at) <= window;
        let again = self.last.replace(now).is_some_and(is_recent);
        again && !self.moved.is_some_and(is_recent)
    }

    /// The VM is handed over, from here or to here.
    fn note_move(&mut self, now: Instant) {
        *self = Self { last: None, moved: Some(now), arrives: false };
    }

    /// Takes in what the copy says of itself; `solo`: whether it is alone. After a failover it is, after a handover it never was.
    pub(super) fn hear(&mut self, report: &Report, solo: bool, now: Instant) {
        match report {
            Report::Live { .. } => self.arrives = !solo,
            Report::Solo { .. } => self.arrives = false,
            Report::Protected { .. } if self.arrives => self.note_move(now),
            _ => {}
        }
    }
}

/// Whether something is wrong: a guest may also ask for a reset.
pub(super) fn is_fault(report: &GuestReport) -> bool {
    report.restarted && matches!(report.event, Cause::Watchdog | Cause::Crash)
}

impl Agent {
    /// The guest of a VM that is live here has begun again.
    pub(super) fn handle_restart(&mut self, name: &str, report: &GuestReport, now: Instant) {
        telemetry::count_guest_restart(name, report.event);
        let Some(vm) = self.vms.get_mut(name) else { return };
        let window = vm.file.guest.again_within();
        if !vm.guest.note_restart(now, window) || !vm.is_live() || !vm.copy.protected || vm.meta.retired {
            return;
        }
        let takes =
            |host: &u64| self.peers.get(host).is_some_and(|peer| peer.candidate().state == HostState::Up);
        let Some(to) = vm.copy.peer.filter(takes) else { return };
        vm.guest.note_move(now);
        let text = format!("to host {to}: its guest went down twice within {} s here", window.as_secs());
        self.events.add(Some(name), Kind::GuestMoved, text);
        self.rim.switch_over(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_restart_within_the_window_moves_the_vm_once() {
        let (begin, window) = (Instant::now(), Duration::from_secs(10));
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut guest = Supervision::default();
        assert!(!guest.note_restart(at(0), window), "the first time it may be chance");
        assert!(!guest.note_restart(at(11), window), "that was long ago");
        assert!(guest.note_restart(at(12), window));
        guest.note_move(at(12));
        assert!(
            !guest.note_restart(at(13), window) && !guest.note_restart(at(14), window),
            "once in a window"
        );
        assert!(guest.note_restart(at(23), window));
        assert!(!Supervision::default().note_restart(at(0), Duration::ZERO));
    }

    #[test]
    fn a_handover_is_told_from_a_failover() {
        let (now, window) = (Instant::now(), Duration::from_secs(10));
        let (live, solo, protected) =
            (Report::Live { term: 2 }, Report::Solo { term: 2 }, Report::Protected { with: 1 });
        for (reports, moves) in [
            (&[(&live, false), (&protected, false)][..], false),
            (&[(&live, false), (&solo, true), (&protected, false)], true),
            (&[(&solo, true), (&live, true), (&protected, false)], true),
        ] {
            let mut guest = Supervision::default();
            reports.iter().for_each(|(report, solo)| guest.hear(report, *solo, now));
            assert!(!guest.note_restart(now, window));
            assert_eq!(guest.note_restart(now, window), moves, "{reports:?}");
        }
    }
}
