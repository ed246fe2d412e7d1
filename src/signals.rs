//! What asks a command to end: Ctrl-C, a service manager, a terminal that goes away.
//!
//! A signal does nothing but close a channel; who waits for something waits for that too, and unwinds, so that every guard drops.

use crossbeam::channel::{Receiver, Sender, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;

/// Closed by SIGINT (Ctrl-C), SIGTERM, and SIGHUP unless nohup is in front of the command.
///
/// # Errors
/// When the host refuses a handler or a thread.
pub(crate) fn on_signal() -> io::Result<Receiver<()>> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if !is_hangup_ignored()? {
        signals.add_signal(SIGHUP)?;
    }
    let (open, closed) = bounded(0);
    std::thread::Builder::new().name("ft-signals".into()).spawn(move || {
        signals.forever().next();
        drop::<Sender<()>>(open);
    })?;
    Ok(closed)
}

/// Whether who started this process had SIGHUP ignored: a handler would undo that.
fn is_hangup_ignored() -> io::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    Ok(ignored.is_some_and(|mask| mask & 1 << (SIGHUP - 1) != 0))
}
