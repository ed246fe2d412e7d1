//! A host: at most one process with one copy of the machine.

use super::guest::Guest;
use super::rng::Rng;
use super::world::Happening;
use crate::config::{Config, Verify};
use crate::message::{PROTOCOL_VERSION, Profile};
use crate::node::Node;
use crate::replica::{Identity, Role};
use crate::secondary::Progress;
use crate::units::{HostId, Instant, NodeId, Span};

/// What may wait in the sockets of a stopped process.
const SOCKET_BUFFER: usize = 200;

pub(super) struct Host {
    pub(super) id: HostId,
    pub(super) node: Option<Node<Guest>>,
    /// Drawn anew for each process.
    pub(super) life: u64,
    pub(super) is_up: bool,
    pub(super) is_paused: bool,
    pub(super) is_slow: bool,
    pub(super) arbiter_away: bool,
    /// How far its clock has leapt ahead of the world's.
    pub(super) leap: Span,
    /// How often it looks at its clock: at least once in every heartbeat, as the contract says.
    pub(super) tick: Span,
    pub(super) greeted: Instant,
    pub(super) step_due: bool,
    /// What happened while the process stood still.
    pub(super) missed: Vec<Happening>,
}

impl Host {
    pub(super) fn new(id: HostId, rng: &mut Rng) -> Self {
        Self {
            id,
            node: None,
            life: 0,
            is_up: true,
            is_paused: false,
            is_slow: false,
            arbiter_away: false,
            leap: Span::ZERO,
            tick: Span::from_us(rng.pick(&[1000, 1000, 2500, 5000])),
            greeted: Instant(0),
            step_due: false,
            missed: Vec::new(),
        }
    }

    /// The host's own clock when the world's shows `now`.
    pub(super) fn clock(&self, now: Instant) -> Instant {
        now + self.leap
    }

    pub(super) fn node_id(&self) -> NodeId {
        NodeId { host: self.id, incarnation: self.life }
    }

    pub(super) fn identity(&self, strict: bool) -> Identity {
        let profile = Profile { protocol: PROTOCOL_VERSION, vm: "toy".into(), ..Profile::default() };
        Identity { node: self.node_id(), profile, config: config(strict) }
    }

    /// Keeps something for later when the process stands still; otherwise gives it back.
    pub(super) fn defer(&mut self, happening: Happening) -> Option<Happening> {
        if !self.is_paused {
            return Some(happening);
        }
        if self.missed.len() < SOCKET_BUFFER {
            self.missed.push(happening);
        }
        None
    }

    /// Whether it may start a new copy: it has none, or one that leads nowhere.
    pub(super) fn is_free(&self, now: Instant) -> bool {
        let waits_in_vain = |node: &Node<Guest>| match node.role() {
            Role::Halted(_) => true,
            Role::Secondary(secondary) => {
                secondary.progress() == Progress::Greeting && now.since(self.greeted) > Span::from_ms(12)
            }
            Role::Primary(_) => false,
        };
        // One that was refused asks again after a while.
        let rested = self.greeted == Instant(0) || now.since(self.greeted) > Span::from_ms(5);
        self.is_up && !self.is_paused && rested && self.node.as_ref().is_none_or(waits_in_vain)
    }
}

/// Small buffers and short intervals, so that their limits are met often.
pub(super) fn config(strict: bool) -> Config {
    Config {
        heartbeat: Span::from_ms(5),
        silence: Span::from_ms(20),
        lease: Span::from_us(14_850),
        stall: Span::from_ms(150),
        flush_after: Span::from_ms(1),
        flush_idle_after: Span::from_ms(3),
        resend_after: Span::from_ms(6),
        claim_retry: Span::from_ms(2),
        handover_patience: Span::from_ms(25),
        hello_retry: Span::from_ms(4),
        time_every: Span::from_ms(2),
        digest_every: Span::from_ms(10),
        quantum_ticks: 8,
        frame_bytes: 512,
        ring_bytes: 8 << 10,
        gate_bytes: 4 << 10,
        inbox_bytes: 2 << 10,
        backlog_bytes: 8 << 10,
        transfer_bytes: 100,
        catch_up_bytes: 1 << 10,
        ack_after: Span::from_ms(1),
        lag_target: Span::from_ms(2),
        record: false,
        verify: if strict { Verify::Strict } else { Verify::Report },
    }
}
