//! What goes wrong, and when. Every fault ends by itself; all end when the world heals.

use super::net::Weather;
use super::rng::Rng;
use crate::message::Lane;
use crate::units::{HostId, Span};

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// Nothing passes from one host to another.
    Cut { from: HostId, to: HostId, both: bool },
    /// The network loses, repeats and delays.
    Weather(Weather),
    /// The process stands still, as under SIGSTOP; its sockets fill.
    Pause(HostId),
    /// The process, or the host with it, is gone; it returns empty.
    Crash { host: HostId, process_only: bool },
    /// The arbiter does not answer this host; claims may take effect all the same.
    ArbiterAway(HostId),
    /// The arbiter answers late.
    ArbiterSlow,
    /// A host's clock leaps ahead.
    ClockJump(HostId, Span),
    /// Disk operations fail.
    DiskFull,
    /// The machine of the secondary runs slowly.
    Slow(HostId),
    /// Messages of one kind do not pass, while the others do.
    Mute(Lane),
    /// An operator stops the copy on a host, if it is a secondary.
    Quit(HostId),
    /// An operator has the live copy hand the machine over, if it can. No fault, but planned operations meet faults too.
    HandOver,
    /// An operator has a copy on this host relieve the secondary, if it can.
    Relieve(HostId),
}

/// Draws a fault and how long it lasts.
pub(super) fn draw(rng: &mut Rng, hosts: u64) -> (Fault, Span) {
    let host = HostId(rng.range(0..hosts));
    let other = HostId((host.0 + rng.range(1..hosts)) % hosts);
    let fault = match rng.range(0..34) {
        0..=4 => Fault::Cut { from: host, to: other, both: rng.chance(600) },
        5..=7 => Fault::Weather(Weather {
            drop: rng.pick(&[0, 20, 200]),
            repeat: rng.pick(&[0, 50, 300]),
            delay: rng.pick(&[0, 100, 500]),
            // Up to twenty times the silence limit: long after a session is over.
            latest_ms: rng.pick(&[20, 20, 400]),
        }),
        8..=10 => Fault::Pause(host),
        11..=13 => Fault::Crash { host, process_only: rng.chance(500) },
        14..=16 => Fault::ArbiterAway(host),
        17 => Fault::ArbiterSlow,
        18 => Fault::ClockJump(host, Span::from_ms(rng.range(1..200))),
        19 => Fault::DiskFull,
        20..=21 => Fault::Slow(host),
        22..=23 => Fault::Mute(rng.pick(&[Lane::Control, Lane::Log, Lane::Datagram, Lane::State])),
        24..=25 => Fault::Quit(host),
        26..=29 => Fault::HandOver,
        _ => Fault::Relieve(host),
    };
    let length = if rng.chance(500) { rng.range(1..20) } else { rng.range(20..120) };
    (fault, Span::from_ms(length))
}
