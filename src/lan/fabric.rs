//! The switch proper: which frame goes into which queue. It does no I/O.
//!
//! Invariant: a full queue costs its own port a frame, and nobody else anything.

use super::frame::{HEADER, Header, Mac};
use super::stream::FrameQueue;
use super::table::{Learned, Table};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Names a port as long as the switch runs; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PortId(pub u64);

impl std::fmt::Display for PortId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "port {}", self.0)
    }
}

/// What one port did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PortStats {
    /// Frames from the port.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames queued for the port.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames for the port that found its queue full.
    pub dropped: u64,
}

/// What all ports together did so far, those that are gone included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FabricStats {
    /// Frames from ports.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that went to all ports, because they are for all or because it is not known behind which port the receiver is.
    pub flooded: u64,
    /// Frames that found a port's queue full.
    pub dropped: u64,
    /// Frames whose sender's address cannot be a sender's: a group's, or the switch's own.
    pub forged: u64,
    /// Times that an address moved to another port.
    pub moves: u64,
    /// Frames whose sender was not learned because the table was full.
    pub not_learned: u64,
}

/// What a frame from a port means for others than ports.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The frame is (also) for the switch itself.
    pub(super) for_host: bool,
    /// Its sender turned up at another port.
    pub(super) moved: Option<Moved>,
}

/// An address that turned up at another port.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) mac: Mac,
    /// Nothing if that port is gone.
    pub(super) from: Option<PortId>,
    /// Time since its last frame.
    pub(super) silent: Duration,
}

struct Out {
    queue: FrameQueue,
    stats: PortStats,
}

pub(super) struct Fabric {
    host: Mac,
    table: Table,
    ports: BTreeMap<PortId, Out>,
    queue_bound: usize,
    stats: FabricStats,
}

impl Fabric {
    /// `host` is the switch's own address.
    pub(super) fn new(host: Mac, table: Table, queue_bound: usize) -> Self {
        Self { host, table, ports: BTreeMap::new(), queue_bound, stats: FabricStats::default() }
    }

    pub(super) fn add_port(&mut self, port: PortId) {
        let out = Out { queue: FrameQueue::new(self.queue_bound), stats: PortStats::default() };
        self.ports.insert(port, out);
    }

    pub(super) fn remove_port(&mut self, port: PortId) {
        self.ports.remove(&port);
        self.table.forget_port(port);
    }

    /// What waits for the port to take it.
    pub(super) fn queue(&mut self, port: PortId) -> Option<&mut FrameQueue> {
        self.ports.get_mut(&port).map(|out| &mut out.queue)
    }

    pub(super) fn stats(&self) -> FabricStats {
        self.stats
    }

    pub(super) fn addresses(&self) -> usize {
        self.table.len()
    }

    pub(super) fn port_stats(&self) -> impl Iterator<Item = (PortId, PortStats)> {
        self.ports.iter().map(|(id, out)| (*id, out.stats))
    }

    /// A frame came in at a port.
    pub(super) fn handle_frame(&mut self, from: PortId, frame: &[u8], now: Instant) -> Seen {
        self.stats.frames += 1;
        self.stats.bytes += frame.len() as u64;
        if let Some(port) = self.ports.get_mut(&from) {
            port.stats.frames_in += 1;
            port.stats.bytes_in += frame.len() as u64;
        }
        let Some(header) = Header::parse(frame) else { return Seen::default() };
        if !header.from.is_unicast() || header.from == self.host {
            self.stats.forged += 1;
            return Seen::default();
        }
        let moved = self.learn(header.from, from, now);
        if header.to == self.host {
            return Seen { for_host: true, moved };
        }
        self.pass_on(header.to, Some(from), frame, now);
        Seen { for_host: !header.to.is_unicast(), moved }
    }

    /// A frame from the switch itself.
    pub(super) fn handle_host_frame(&mut self, frame: &[u8], now: Instant) {
        debug_assert!(frame.len() >= HEADER, "the switch makes whole frames");
        if let Some(header) = Header::parse(frame) {
            self.pass_on(header.to, None, frame, now);
        }
    }

    fn learn(&mut self, mac: Mac, port: PortId, now: Instant) -> Option<Moved> {
        match self.table.learn(mac, port, now) {
            Learned::Same | Learned::New => None,
            Learned::Full => {
                self.stats.not_learned += 1;
                None
            }
            Learned::Moved { from, silent } => {
                self.stats.moves += 1;
                Some(Moved { mac, from, silent })
            }
        }
    }

    fn pass_on(&mut self, to: Mac, from: Option<PortId>, frame: &[u8], now: Instant) {
        let known = if to.is_unicast() { self.table.port_of(to, now) } else { None };
        match known {
            // The receiver is where the frame came from: it has it already.
            Some(port) if Some(port) == from => {}
            Some(port) => {
                if let Some(out) = self.ports.get_mut(&port) {
                    out.push(frame, &mut self.stats);
                }
            }
            None => {
                self.stats.flooded += 1;
                for (_, out) in self.ports.iter_mut().filter(|(port, _)| Some(**port) != from) {
                    out.push(frame, &mut self.stats);
                }
            }
        }
    }
}

impl Out {
    fn push(&mut self, frame: &[u8], total: &mut FabricStats) {
        if self.queue.push(frame) {
            self.stats.frames_out += 1;
            self.stats.bytes_out += frame.len() as u64;
        } else {
            self.stats.dropped += 1;
            total.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::frame::announcement;
    use super::*;

    const HOST: Mac = Mac([0x52; 6]);
    const A: PortId = PortId(1);
    const B: PortId = PortId(2);
    const C: PortId = PortId(3);

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    fn fabric() -> Fabric {
        let mut fabric = Fabric::new(HOST, Table::new(16, Duration::from_secs(300)), 4096);
        [A, B, C].into_iter().for_each(|port| fabric.add_port(port));
        fabric
    }

    fn frame(to: Mac, from: Mac) -> Vec<u8> {
        let mut frame = vec![0; 60];
        Header { to, from, kind: 0x88B5 }.write(&mut frame);
        frame
    }

    /// Frames that wait for each port, which are taken.
    fn taken(fabric: &mut Fabric) -> [usize; 3] {
        [A, B, C].map(|port| {
            let queue = fabric.queue(port).unwrap();
            let count = queue.len() / 64;
            queue.clear();
            count
        })
    }

    #[test]
    fn unknown_and_group_receivers_are_flooded_and_known_ones_are_not() {
        let (mut fabric, now) = (fabric(), Instant::now());
        fabric.handle_frame(A, &frame(mac(2), mac(1)), now);
        assert_eq!(taken(&mut fabric), [0, 1, 1]);
        fabric.handle_frame(B, &frame(mac(1), mac(2)), now);
        assert_eq!(taken(&mut fabric), [1, 0, 0]);
        fabric.handle_frame(A, &frame(mac(2), mac(1)), now);
        assert_eq!(taken(&mut fabric), [0, 1, 0]);
        assert!(fabric.handle_frame(A, &frame(Mac::BROADCAST, mac(1)), now).for_host);
        fabric.handle_host_frame(&frame(Mac::BROADCAST, HOST), now);
        assert_eq!(taken(&mut fabric), [1, 2, 2]);
        assert_eq!(fabric.stats().flooded, 3);
        // To itself, behind its own port.
        fabric.handle_frame(A, &frame(mac(1), mac(1)), now);
        assert_eq!(taken(&mut fabric), [0, 0, 0]);
    }

    #[test]
    fn an_announcement_moves_an_address() {
        let (mut fabric, now) = (fabric(), Instant::now());
        assert_eq!(fabric.handle_frame(A, &frame(HOST, mac(1)), now), Seen { for_host: true, moved: None });
        let later = now + Duration::from_millis(7);
        let seen = fabric.handle_frame(C, &announcement(mac(1)), later);
        let silent = Duration::from_millis(7);
        assert_eq!(seen.moved, Some(Moved { mac: mac(1), from: Some(A), silent }));
        taken(&mut fabric);
        fabric.handle_host_frame(&frame(mac(1), HOST), later);
        assert_eq!(taken(&mut fabric), [0, 0, 1]);
        fabric.remove_port(C);
        fabric.handle_host_frame(&frame(mac(1), HOST), later);
        assert_eq!([A, B].map(|port| fabric.queue(port).unwrap().len()), [64, 64]);
    }

    #[test]
    fn nobody_speaks_for_the_switch_or_for_a_group() {
        let (mut fabric, now) = (fabric(), Instant::now());
        for from in [HOST, Mac::BROADCAST, Mac([3; 6])] {
            assert_eq!(fabric.handle_frame(A, &frame(mac(2), from), now), Seen::default());
        }
        assert_eq!((taken(&mut fabric), fabric.stats().forged, fabric.addresses()), ([0, 0, 0], 3, 0));
    }

    #[test]
    fn a_full_queue_costs_only_its_own_port() {
        let (mut fabric, now) = (fabric(), Instant::now());
        for _ in 0..100 {
            fabric.handle_frame(A, &frame(Mac::BROADCAST, mac(1)), now);
            fabric.queue(B).unwrap().clear();
        }
        let stats: Vec<_> = fabric.port_stats().map(|(_, stats)| (stats.frames_out, stats.dropped)).collect();
        assert_eq!(stats, [(0, 0), (100, 0), (64, 36)]);
        assert_eq!(fabric.stats().dropped, 36);
    }
}
