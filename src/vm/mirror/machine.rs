//! A VM with its mirrored disk, as one machine: beside what the VM does, the writes of a secondary go to its copy, and a transfer carries
//! the disk, too.
//!
//! Invariant: a secondary's copy is written only with what a mark has covered: what a diverged machine emits does not reach it.

use super::outgoing::{Next, Outgoing};
use super::piece::{self, Piece};
use super::store::Store;
use bytes::Bytes;
use ft_core::digest::StateDigest;
use ft_core::effect::{Effect, EffectKind};
use ft_core::error::Fault;
use ft_core::machine::{Machine, Saved, Stop};
use ft_core::units::Tick;
use ft_core::{Event, Point, Record};
use ft_vmm::machine::Vm;
use ft_vmm::vcpu::Vcpu;
use std::sync::Arc;

/// A VM, with or without a mirrored disk.
pub struct Mirrored<V> {
    vm: Vm<V>,
    mirror: Option<Mirror>,
}

struct Mirror {
    store: Arc<Store>,
    /// Writes and flushes that were emitted since the last mark.
    fresh: Vec<Effect>,
    /// Number of the last write that was emitted.
    last_write: u64,
    outgoing: Option<Outgoing>,
    incoming: Incoming,
    /// Turns of the guest while its state was copied.
    turns: u32,
    /// It rests for this one.
    rests: bool,
}

/// Where a copy that comes in stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Incoming {
    /// Nothing of it is here.
    Awaited,
    /// It is being filled.
    Filling,
    /// All of it is here: it is to be checked and to get its name before the last piece is taken, for then the pair may be protected.
    Settled,
    /// The machine has it.
    Done,
}

impl<V: Vcpu> Mirrored<V> {
    /// A VM whose disk, if it has one that is mirrored, is this.
    pub fn new(vm: Vm<V>, store: Option<Arc<Store>>) -> Self {
        let mirror = store.map(|store| Mirror {
            store,
            fresh: Vec::new(),
            last_write: 0,
            outgoing: None,
            incoming: Incoming::Awaited,
            turns: 0,
            rests: false,
        });
        Self { vm, mirror }
    }

    /// The VM.
    pub fn vm(&self) -> &Vm<V> {
        &self.vm
    }
}

impl Mirror {
    fn note(&mut self, effect: &Effect) {
        if let EffectKind::BlockWrite | EffectKind::BlockFlush = effect.kind {
            self.fresh.push(effect.clone());
        }
        if let (EffectKind::BlockWrite, Some(op)) = (effect.kind, effect.op) {
            self.last_write = op.0;
        }
    }

    /// What was emitted up to here is what the live side has emitted, too.
    fn mark(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        // The live side's leave through the gate (R3).
        if !self.store.is_live() {
            fresh.into_iter().for_each(|effect| self.store.mirror(effect));
        }
    }

    /// Whether the pieces may go on: at the cut every write that was emitted must be in the file. Asked in every turn of the transfer, so
    /// that the guest rests in as many as it should, and for none once the transfer is over, however that came.
    fn is_ready_to_save<V: Vcpu>(&mut self, vm: &Vm<V>) -> bool {
        self.turns = self.turns.wrapping_add(1);
        let Some(outgoing) = &mut self.outgoing else { return true };
        outgoing.handle_turn();
        self.rests = outgoing.rests(self.turns);
        let is_write = |effect: &Effect| effect.kind == EffectKind::BlockWrite;
        // Writes under way would be in the last piece with all their content.
        !outgoing.is_still() || self.store.is_quiet(self.last_write) && !vm.in_flight().iter().any(is_write)
    }

    fn save<V: Vcpu>(&mut self, vm: &mut Vm<V>, first: bool) -> Saved {
        if first {
            self.outgoing = None;
        }
        self.try_save(vm).unwrap_or_else(|error| {
            let path = self.store.path().display();
            tracing::error!(%path, %error, "the disk cannot be read, so no secondary can be made");
            let bytes = piece::failed(&format!("the primary cannot read its disk {path}: {error}"));
            Saved { pieces: vec![bytes.into()], last: false }
        })
    }

    fn try_save<V: Vcpu>(&mut self, vm: &mut Vm<V>) -> std::io::Result<Saved> {
        let outgoing = match &mut self.outgoing {
            Some(outgoing) => outgoing,
            None => self.outgoing.insert(Outgoing::new(&self.store)?),
        };
        let first = outgoing.first;
        let bytes = match outgoing.next(&self.store, || vm.is_nearly_saved(first)) {
            Next::Blocks => Some(outgoing.piece(&self.store)?),
            Next::Settle => Some(piece::settle(outgoing.settle())),
            Next::Machine => None,
        };
        self.rests |= outgoing.is_still();
        if let Some(bytes) = bytes {
            return Ok(Saved { pieces: vec![bytes.into()], last: false });
        }
        let Saved { pieces, last } = vm.save(std::mem::take(&mut outgoing.first));
        if last {
            assert!(outgoing.is_still(), "the machine's last piece comes when the disk has been sent");
            (self.outgoing, self.rests) = (None, false);
        }
        Ok(Saved { pieces: piece::machine(&pieces, last), last })
    }

    fn restore<V: Vcpu>(&mut self, vm: &mut Vm<V>, piece: &[u8], last: bool) -> Result<(), Fault> {
        if self.incoming == Incoming::Awaited {
            self.store.begin();
            self.incoming = Incoming::Filling;
        }
        match piece::parse(piece)? {
            Piece::Machine(piece) if !last => vm.restore(piece, false),
            Piece::Blocks(body) if !last => {
                piece::blocks(body, self.store.blocks())?;
                self.incoming = Incoming::Filling;
                self.store.fill(Bytes::copy_from_slice(body));
                Ok(())
            }
            Piece::Settle(sum) if !last => {
                self.incoming = Incoming::Settled;
                self.store.settle(sum);
                Ok(())
            }
            Piece::Last(machine) if last && self.incoming == Incoming::Settled => {
                self.incoming = Incoming::Done;
                vm.restore(machine, true)
            }
            Piece::Failed(reason) => Err(Fault(reason)),
            _ => Err(Fault("pieces of state in another order than they are made".into())),
        }
    }
}

impl<V: Vcpu> Machine for Mirrored<V> {
    fn point(&self) -> Point {
        self.vm.point()
    }

    fn run(&mut self, until: Tick) -> Result<Stop, Fault> {
        if self.mirror.as_mut().is_some_and(|mirror| std::mem::take(&mut mirror.rests)) {
            return Ok(Stop::Idle);
        }
        self.vm.run(until)
    }

    fn apply(&mut self, record: &Record) -> Result<(), Fault> {
        if let (Event::Emit { .. }, Some(mirror)) = (&record.event, &mut self.mirror) {
            mirror.mark();
        }
        self.vm.apply(record)
    }

    fn take_effect(&mut self) -> Option<Effect> {
        let effect = self.vm.take_effect()?;
        if let Some(mirror) = &mut self.mirror {
            mirror.note(&effect);
        }
        Some(effect)
    }

    fn in_flight(&self) -> Vec<Effect> {
        self.vm.in_flight()
    }

    fn digest(&mut self) -> StateDigest {
        self.vm.digest()
    }

    fn is_ready(&mut self) -> bool {
        match &mut self.mirror {
            None => true,
            Some(mirror) if mirror.store.is_live() => mirror.is_ready_to_save(&self.vm),
            Some(mirror) if mirror.incoming == Incoming::Settled => mirror.store.is_quiet(0),
            Some(mirror) => mirror.store.has_room(),
        }
    }

    fn save(&mut self, first: bool) -> Saved {
        match &mut self.mirror {
            Some(mirror) => mirror.save(&mut self.vm, first),
            None => self.vm.save(first),
        }
    }

    fn restore(&mut self, piece: &[u8], last: bool) -> Result<(), Fault> {
        match &mut self.mirror {
            Some(mirror) => mirror.restore(&mut self.vm, piece, last),
            None => self.vm.restore(piece, last),
        }
    }
}
