//! One copy of a machine's protocol state, whatever its role: the face of the core.
//!
//! Give it what happened with the `handle_*` methods, then drain [`Replica::poll`] before the next. Methods are of four
//! kinds: getters, `handle_*` for what comes from outside, mutators for what the machine's thread does, and `poll*`.
//!
//! Invariant: outputs are carried out in the order in which they are polled. A record is logged before it enters the
//! machine; an effect is polled only once it may leave.
//!
//! It does not run the machine: see [`Node`](crate::node::Node), which does both.

use crate::arbiter::ClaimOutcome;
use crate::config::Config;
use crate::effect::{Effect, Numbered};
use crate::error::{HaltReason, Misuse};
use crate::frame::Frame;
use crate::message::{Envelope, Message, Profile, Refusal};
use crate::primary::{HandoverRefused, Primary, ReliefRefused};
use crate::secondary::Secondary;
use crate::transfer::StateHead;
use crate::units::{HostId, Instant, NodeId, Session, Term};
use std::collections::VecDeque;

/// What a replica wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send this. Losing it is allowed.
    Send {
        /// To whom.
        to: HostId,
        /// What.
        envelope: Envelope,
    },
    /// Let this effect out into the world.
    Release(Numbered),
    /// Ask the arbiter for this term; answer with [`Replica::handle_claim`].
    Claim(Term),
    /// This frame has been added to the log, before any effect that depends on it leaves. Only with
    /// [`Config::record`](crate::config::Config::record).
    Sealed(Frame),
    /// For operators and embedders.
    Notice(Notice),
}

/// Something that an operator, or the code around the machine, wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// This copy is live from here on: attach the backends, announce the network address.
    Live(Term),
    /// A secondary is being given the state.
    Seeding(HostId),
    /// The secondary could not be completed; the primary goes on as before.
    SeedingFailed(HostId, String),
    /// The pair is in step: either side may fail.
    Protected(HostId),
    /// Contact with the secondary is lost: effects wait for the arbiter.
    Contested(HostId),
    /// Contact came back before the arbiter had answered.
    Reunited(HostId),
    /// There is only one copy, by a won claim.
    Solo(Term),
    /// The secondary gave up, and why (R11).
    Resigned(HostId, String),
    /// This secondary holds the machine and follows.
    Following(HostId),
    /// This secondary won the term and applies what it holds (R7).
    Promoting(Term),
    /// This copy owns a term that it does not use: the primary came back first.
    Renounced(Term),
    /// This copy has handed the machine over to the one on this host, and follows it: detach the backends.
    Yielded(HostId),
    /// The machine could not be handed over, and why; it goes on where it is.
    HandoverFailed(String),
    /// This copy is over (R5).
    Halted(HaltReason),
}

/// Who a replica is and how it works.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// This life on this host.
    pub node: NodeId,
    /// What must match on both sides (R10).
    pub profile: Profile,
    /// Limits and intervals.
    pub config: Config,
}

impl Identity {
    /// With what the profile says of the configuration.
    fn completed(mut self) -> Result<Self, Misuse> {
        self.config.validate()?;
        self.profile.silence = self.config.silence;
        self.profile.lease = self.config.lease;
        Ok(self)
    }
}

/// One copy of a machine's protocol state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    role: Role,
    outputs: Outbox,
}

/// The three lives of a replica. A transition consumes the old state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant, reason = "there is one for each machine, and it hardly ever moves")]
pub enum Role {
    /// Live, or about to be.
    Primary(Primary),
    /// Follows a primary.
    Secondary(Secondary),
    /// Over. Its host may start a new replica.
    Halted(Halted),
}

/// A replica that is over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Halted {
    /// Why.
    pub reason: HaltReason,
    /// What it still answers to its former primary, so that a lost farewell does not leave that waiting.
    farewell: Option<(HostId, Envelope)>,
}

impl Replica {
    /// The first copy of a machine: claims the term after `after` and is live once it has it. `after` is `Term(0)` for a
    /// new machine; for one whose copies were all lost, and that starts again from what is on its disks, the last term that
    /// the arbiter knows.
    ///
    /// # Errors
    /// [`Misuse::Config`].
    pub fn create(now: Instant, identity: Identity, after: Term) -> Result<Self, Misuse> {
        let identity = identity.completed()?;
        let mut outputs = Outbox::default();
        let role = Role::Primary(Primary::create(now, identity, after, &mut outputs));
        Ok(Self { role, outputs })
    }

    /// A new copy that joins the primary on `host`. `greeting` is drawn at random for each join.
    ///
    /// # Errors
    /// [`Misuse::Config`].
    pub fn join(now: Instant, identity: Identity, host: HostId, greeting: Session) -> Result<Self, Misuse> {
        let identity = identity.completed()?;
        let mut outputs = Outbox::default();
        let role = Role::Secondary(Secondary::join(now, identity, host, greeting, &mut outputs));
        Ok(Self { role, outputs })
    }

    /// What it is.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The primary, while it is one.
    pub fn primary(&mut self) -> Option<(&mut Primary, &mut Outbox)> {
        match &mut self.role {
            Role::Primary(primary) => Some((primary, &mut self.outputs)),
            _ => None,
        }
    }

    /// The secondary, while it is one.
    pub fn secondary(&mut self) -> Option<(&mut Secondary, &mut Outbox)> {
        match &mut self.role {
            Role::Secondary(secondary) => Some((secondary, &mut self.outputs)),
            _ => None,
        }
    }

    /// Its term; `Term(0)` before it has one.
    pub fn term(&self) -> Term {
        match &self.role {
            Role::Primary(primary) => primary.term(),
            Role::Secondary(secondary) => secondary.term(),
            Role::Halted(_) => Term(0),
        }
    }

    /// Takes in a message from `from`, whom the transport has authenticated (R12).
    pub fn handle_message(&mut self, now: Instant, from: HostId, envelope: Envelope) {
        let out = &mut self.outputs;
        let halt = match &mut self.role {
            Role::Primary(primary) => primary.handle_message(now, from, envelope, out),
            Role::Secondary(secondary) => secondary.handle_message(now, from, envelope, out),
            Role::Halted(halted) => {
                halted.handle_message(from, envelope, out);
                Ok(())
            }
        };
        self.settle(halt);
    }

    /// Takes in that time has passed. Call it at least once in every heartbeat interval.
    pub fn handle_tick(&mut self, now: Instant) {
        let halt = match &mut self.role {
            Role::Primary(primary) => {
                primary.handle_tick(now, &mut self.outputs);
                Ok(())
            }
            Role::Secondary(secondary) => secondary.handle_tick(now, &mut self.outputs),
            Role::Halted(_) => Ok(()),
        };
        self.settle(halt);
    }

    /// Takes in the arbiter's answer to [`Output::Claim`].
    pub fn handle_claim(&mut self, now: Instant, term: Term, outcome: ClaimOutcome) {
        let out = &mut self.outputs;
        let halt = match &mut self.role {
            Role::Primary(primary) => primary.handle_claim(now, term, outcome, out),
            Role::Secondary(secondary) => secondary.handle_claim(now, term, outcome, out),
            Role::Halted(_) => Ok(()),
        };
        self.settle(halt);
    }

    /// Takes in that a new connection to `host` is up: what was on its way in the old one is sent again.
    pub fn handle_link_up(&mut self, now: Instant, host: HostId) {
        if let Role::Primary(primary) = &mut self.role {
            primary.handle_link_up(now, host, &mut self.outputs);
        }
    }

    /// Takes in proof that the peer `node` has ended, which needs no waiting for its silence. The proof must be from that
    /// host's kernel, over an authenticated connection of that life. Were it wrong, still only one side would go on (R4); but
    /// the other could emit repetitions until its lease ends.
    pub fn handle_peer_gone(&mut self, now: Instant, node: NodeId) {
        let halt = match &mut self.role {
            Role::Primary(primary) => {
                primary.handle_peer_gone(now, node, &mut self.outputs);
                Ok(())
            }
            Role::Secondary(secondary) => secondary.handle_peer_gone(now, node, &mut self.outputs),
            Role::Halted(_) => Ok(()),
        };
        self.settle(halt);
    }

    /// Stops for good. A secondary tells its primary.
    pub fn halt(&mut self, reason: HaltReason) {
        self.settle(Err(reason));
    }

    /// Makes a secondary that has won its term and applied all it holds the live machine (R7). `in_flight` are the
    /// machine's operations that have not completed, oldest first: those that the old primary may have issued are issued
    /// again.
    ///
    /// # Panics
    /// Unless [`Secondary::is_drained`].
    pub fn go_live(&mut self, now: Instant, in_flight: Vec<Effect>) {
        let placeholder = Role::Halted(Halted { reason: HaltReason::Requested, farewell: None });
        self.role = match std::mem::replace(&mut self.role, placeholder) {
            Role::Secondary(secondary) => {
                Role::Primary(Primary::take_over(now, secondary, in_flight, &mut self.outputs))
            }
            other => other,
        };
    }

    /// Begins to hand the machine over to the secondary: a planned change of roles in which nothing is lost and nothing is emitted twice.
    /// The machine must stand still while [`Primary::is_yielding`], but for what comes in, and be closed by a digest; once
    /// [`Replica::is_settled`], call [`Replica::yield_machine`].
    ///
    /// # Errors
    /// [`HandoverRefused`]; nothing has changed.
    pub fn hand_over(&mut self, now: Instant) -> Result<(), HandoverRefused> {
        match &mut self.role {
            Role::Primary(primary) => primary.hand_over(now),
            Role::Secondary(_) | Role::Halted(_) => Err(HandoverRefused::NotLive),
        }
    }

    /// Takes in a second secondary from `host` when that says hello, and has it relieve the first: the machine is protected throughout.
    ///
    /// # Errors
    /// [`ReliefRefused`]; nothing has changed.
    pub fn relieve(&mut self, host: HostId) -> Result<(), ReliefRefused> {
        match &mut self.role {
            Role::Primary(primary) => primary.relieve(host),
            Role::Secondary(_) | Role::Halted(_) => Err(ReliefRefused::NotLive),
        }
    }

    /// Whether a machine that is being handed over may be yielded: the secondary has all of it, and every effect has left and been polled.
    pub fn is_settled(&self) -> bool {
        self.outputs.0.is_empty() && matches!(&self.role, Role::Primary(primary) if primary.is_settled())
    }

    /// Yields the machine, which stands where `head` says, and follows its heir from now on.
    ///
    /// # Panics
    /// Unless [`Replica::is_settled`].
    pub fn yield_machine(&mut self, now: Instant, head: StateHead) {
        let placeholder = Role::Halted(Halted { reason: HaltReason::Requested, farewell: None });
        self.role = match std::mem::replace(&mut self.role, placeholder) {
            Role::Primary(primary) => Role::Secondary(primary.into_secondary(now, head, &mut self.outputs)),
            other => other,
        };
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.0.pop_front()
    }

    fn settle(&mut self, halt: Result<(), HaltReason>) {
        let Err(reason) = halt else { return };
        let farewell = match &self.role {
            Role::Secondary(secondary) => secondary.farewell(&reason),
            Role::Primary(_) => None,
            Role::Halted(_) => return,
        };
        if let Some((to, envelope)) = &farewell {
            self.outputs.send(*to, envelope.clone());
        }
        self.outputs.notice(Notice::Halted(reason.clone()));
        self.role = Role::Halted(Halted { reason, farewell });
    }
}

impl Halted {
    fn handle_message(&self, from: HostId, envelope: Envelope, out: &mut Outbox) {
        let Envelope { session, message, .. } = envelope;
        match (&self.farewell, message) {
            (_, Message::Hello(_)) => {
                let message = Message::Refuse(Refusal::NotPrimary);
                out.send(from, Envelope { session, term: Term(0), message });
            }
            (Some((to, farewell)), _) if *to == from && farewell.session == session => {
                out.send(from, farewell.clone());
            }
            _ => {}
        }
    }
}

/// Outputs that wait to be polled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outbox(VecDeque<Output>);

impl Outbox {
    pub(crate) fn send(&mut self, to: HostId, envelope: Envelope) {
        self.0.push_back(Output::Send { to, envelope });
    }

    pub(crate) fn release(&mut self, effect: Numbered) {
        self.0.push_back(Output::Release(effect));
    }

    pub(crate) fn claim(&mut self, term: Option<Term>) {
        self.0.extend(term.map(Output::Claim));
    }

    pub(crate) fn sealed(&mut self, frame: Frame) {
        self.0.push_back(Output::Sealed(frame));
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.0.push_back(Output::Notice(notice));
    }
}
