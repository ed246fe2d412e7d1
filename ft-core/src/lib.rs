//! Lockstep replication of a virtual machine, without I/O, clocks, threads, randomness or unsafe code.
//!
//! A machine that implements [`machine::Machine`] runs on two hosts at once: a primary makes [`Record`]s of everything that
//! enters it, a secondary applies them at the same [`Point`]s. Choose how deep to go:
//!
//! | take | for |
//! |---|---|
//! | [`node::Node`] | a machine and its protocol on one thread: give it messages and time, carry out what it says |
//! | [`replica::Replica`] and [`executor::Executor`] | protocol and machine on threads of their own |
//! | [`recorder::Recorder`] and [`recorder::Replayer`] | only record and replay |
//!
//! What flows: [`units`], [`Record`] in [`frame`]s in a [`log`] (on disk: [`segment`]), [`effect`]s through a [`gate`],
//! [`message`]s between the sides. Who decides: [`primary`], [`secondary`], and an [`arbiter`] outside; [`placement`] on where
//! the next copy goes. The rules R1 to R12
//! that the code cites are in docs/protocol.md.
//!
//! Two nodes in one process, with a perfect network between them:
//!
//! ```
//! # use ft_core::{Event, Point, Record, arbiter::{Arbiter, MemoryArbiter}, config::Config, digest::StateDigest};
//! # use ft_core::{effect::{Effect, EffectKind}, error::Fault, machine::{Machine, Saved, Stop}, message::Profile, node::Node};
//! # use ft_core::{replica::{Identity, Notice, Output}, units::*};
//! # use bytes::Bytes;
//! /// A machine that echoes what it receives.
//! #[derive(Default)]
//! struct Echo { out: Vec<Bytes>, count: u64 }
//!
//! impl Machine for Echo {
//!     fn point(&self) -> Point { Point::new(Tick(self.count), 0, 0) }
//!     fn run(&mut self, _until: Tick) -> Result<Stop, Fault> { Ok(Stop::Idle) }
//!     fn apply(&mut self, record: &Record) -> Result<(), Fault> {
//!         if let Event::Net { frame, .. } = &record.event {
//!             self.out.push(frame.clone());
//!         }
//!         Ok(())
//!     }
//!     fn take_effect(&mut self) -> Option<Effect> {
//!         let payload = self.out.pop()?;
//!         Some(Effect { kind: EffectKind::Net, device: 0, op: None, payload })
//!     }
//!     fn in_flight(&self) -> Vec<Effect> { Vec::new() }
//!     fn digest(&mut self) -> StateDigest { StateDigest(self.count) }
//!     fn save(&mut self, _first: bool) -> Saved { Saved::whole(Bytes::new()) }
//!     fn restore(&mut self, _piece: &[u8], _last: bool) -> Result<(), Fault> { Ok(()) }
//! }
//!
//! let node = |host| NodeId { host: HostId(host), incarnation: host + 1 };
//! let identity = |host| Identity { node: node(host), profile: Profile::default(), config: Config::default() };
//! let start = Instant(0);
//! let mut nodes = [
//!     Node::create(start, identity(0), Term(0), Echo::default())?,
//!     Node::join(start, identity(1), HostId(0), Session(1), Echo::default())?,
//! ];
//! let mut arbiter = MemoryArbiter::default();
//! let (mut protected, mut echoed) = (false, None);
//! for ms in 0..1000 {
//!     let now = start + Span::from_ms(ms);
//!     for me in 0..2 {
//!         nodes[me].handle_tick(now);
//!         nodes[me].step(now);
//!         while let Some(output) = nodes[me].poll() {
//!             match output {
//!                 Output::Send { to, envelope } => {
//!                     nodes[to.0 as usize].handle_message(now, HostId(me as u64), envelope);
//!                 }
//!                 Output::Claim(term) => {
//!                     let outcome = arbiter.claim(term, node(me as u64));
//!                     nodes[me].handle_claim(now, term, outcome);
//!                 }
//!                 Output::Release(effect) => echoed = Some(effect.effect.payload),
//!                 Output::Sealed(_) => {}
//!                 Output::Notice(notice) => protected |= matches!(notice, Notice::Protected(_)),
//!             }
//!         }
//!     }
//!     if protected && echoed.is_none() {
//!         nodes[0].handle_event(Event::Net { device: 0, frame: Bytes::from_static(b"hello") })?;
//!     }
//! }
//! assert_eq!(echoed.as_deref(), Some(&b"hello"[..]));
//! # Ok::<(), ft_core::error::Misuse>(())
//! ```
#![forbid(unsafe_code)]

pub mod arbiter;
pub mod config;
mod detector;
pub mod digest;
pub mod effect;
pub mod error;
pub mod executor;
pub mod frame;
pub mod gate;
pub mod log;
pub mod machine;
pub mod message;
pub mod node;
pub mod pace;
mod peer;
pub mod placement;
mod planted;
mod point;
pub mod primary;
pub mod record;
pub mod recorder;
pub mod replica;
pub mod secondary;
pub mod segment;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod takeover;
pub mod transfer;
pub mod units;
mod varint;

pub use point::{Point, PointCheck};
pub use record::{Event, Record};
