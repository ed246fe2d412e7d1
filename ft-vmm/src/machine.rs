//! The machine: vCPU, RAM and devices, as one deterministic function of start state and records (R1).
//!
//! [`Vm::run`](ft_core::machine::Machine::run) is the run loop of both roles and every vCPU. Where records come from, it cannot tell.

mod restart;

use crate::board::{Board, BoardConfig, BoardState};
use crate::boot::{self, BootError, BootSource};
use crate::digests::PageDigests;
use crate::power::OnCrash;
use crate::ram::{PAGE_BYTES, Ram, RamError};
use crate::sections::{SectionError, SectionWriter, Sections};
use crate::transfer::{Outgoing, SECTIONS_BYTES_MAX, encode_pages, take_pages, with_sections};
use crate::vcpu::{CpuState, Vcpu, VcpuStop};
use ft_core::digest::{Digester, StateDigest};
use ft_core::effect::Effect;
use ft_core::error::Fault;
use ft_core::machine::{Machine, Saved, Stop};
use ft_core::units::Tick;
use ft_core::{Event, Point, Record};
use restart::{Power, Rest};
use std::collections::VecDeque;
use thiserror::Error;

/// A [`Event::Vendor`] record with this id says what the machine is made of. It changes nothing in the machine.
pub const RECIPE_ID: u32 = 0x4654_0001;

/// Which machine this is. Two builds that say the same can be a pair (R10), replay each other's recordings and read each other's state; so it
/// goes up with every change that a guest, its digests or the state's format could show. `tests/machine_version.rs` notices such a change.
pub const MACHINE_VERSION: u32 = 3;

/// What a machine is made of. Both sides of a pair must be given the same.
#[derive(Clone, Debug)]
pub struct VmConfig {
    /// RAM in bytes.
    pub ram_bytes: u64,
    /// What is started in it.
    pub boot: BootSource,
    /// Its devices.
    pub board: BoardConfig,
    /// What happens when its guest crashes.
    pub on_crash: OnCrash,
}

impl VmConfig {
    /// Hash of everything that is the same for both sides, for the handshake (R10).
    pub fn digest(&self) -> u64 {
        let BootSource { protocol, image, initrd, command_line } = &self.boot;
        let board =
            postcard::to_allocvec(&(&self.board, self.on_crash)).expect("plain data is always encoded");
        let mut digest = Digester::new();
        digest.u64(self.ram_bytes).u64(*protocol as u64);
        for part in [&image[..], initrd.as_deref().unwrap_or_default(), command_line.as_bytes(), &board] {
            digest.u64(part.len() as u64).bytes(part);
        }
        digest.finish().0
    }
}

/// A machine that cannot be made.
#[derive(Debug, Error)]
pub enum VmError {
    /// Its memory.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// Its guest.
    #[error("cannot start the guest")]
    Boot(#[from] BootError),
    /// Its vCPU does not take on the state that it starts with.
    #[error("cannot start the processor: {0}")]
    Vcpu(Fault),
}

/// A whole machine.
pub struct Vm<V> {
    vcpu: V,
    board: Board,
    ram: Ram,
    rest: Rest,
    config: VmConfig,
    digests: PageDigests,
    /// Emitted, and not taken yet.
    effects: VecDeque<Effect>,
    outgoing: Option<Outgoing>,
    /// What has come in of the sections of a state.
    incoming: Vec<u8>,
    /// The guest rests for one turn, so that a transfer catches up.
    rests: bool,
}

impl<V: Vcpu> Vm<V> {
    /// A machine at its first instruction.
    ///
    /// # Errors
    /// [`VmError`].
    pub fn new(config: VmConfig, vcpu: V) -> Result<Self, VmError> {
        let mut vm = Self::blank(config, vcpu)?;
        let start = boot::load(&vm.config.boot, &vm.ram)?;
        vm.vcpu.set_state(&start).map_err(VmError::Vcpu)?;
        Ok(vm)
    }

    /// A machine into which another's state is to come.
    ///
    /// # Errors
    /// [`VmError::Ram`].
    pub fn blank(config: VmConfig, vcpu: V) -> Result<Self, VmError> {
        let ram = Ram::new(config.ram_bytes)?;
        let digests = PageDigests::new(ram.page_count());
        let (board, effects) = (Board::new(&config.board), VecDeque::new());
        let rest = Rest::default();
        Ok(Self {
            vcpu,
            board,
            ram,
            rest,
            config,
            digests,
            effects,
            outgoing: None,
            incoming: Vec::new(),
            rests: false,
        })
    }

    /// What it is made of.
    pub fn config(&self) -> &VmConfig {
        &self.config
    }

    /// Its memory.
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// Its processor.
    pub fn vcpu(&self) -> &V {
        &self.vcpu
    }

    /// What the machine's clock shows, in nanoseconds.
    pub fn clock_ns(&self) -> u64 {
        self.board.clock().now(self.vcpu.tick())
    }

    /// Whether it is off, and stays so.
    pub fn is_off(&self) -> bool {
        matches!(self.rest.power, Power::Off { .. })
    }

    /// How often it has begun again since it was made.
    pub fn restarts(&self) -> u64 {
        self.rest.restarts
    }

    /// All of its state, as a snapshot. [`Vm::load_snapshot`] takes it back, on any host.
    pub fn snapshot(&mut self) -> Vec<u8> {
        self.refresh_digests();
        let pages: Vec<usize> = self.digests.nonzero().collect();
        let mut writer = SectionWriter::new();
        self.write_sections(&mut writer);
        writer.raw("ram", MACHINE_VERSION, &encode_pages(&self.ram, &self.digests, &pages));
        writer.finish()
    }

    /// Takes on the state in a snapshot. The machine must be blank, and made of the same.
    ///
    /// # Errors
    /// [`SectionError`]; the machine is then of no use.
    pub fn load_snapshot(&mut self, bytes: &[u8]) -> Result<(), SectionError> {
        let sections = Sections::parse(bytes)?;
        let pages = sections.raw("ram", MACHINE_VERSION)?;
        let wrong = |reason: String| SectionError::Content { name: "ram".into(), reason };
        let rest = take_pages(&self.ram, pages).map_err(|fault| wrong(fault.0))?;
        if !rest.is_empty() {
            return Err(wrong(format!("{} bytes too many", rest.len())));
        }
        self.read_sections(&sections)
    }

    fn write_sections(&self, writer: &mut SectionWriter) {
        writer.state("machine", MACHINE_VERSION, &(V::model(), self.config.digest(), &self.rest));
        writer.state("cpu", MACHINE_VERSION, &self.vcpu.state());
        let board = self.board.state();
        writer.state("clock", MACHINE_VERSION, &board.clock);
        writer.state("pic", MACHINE_VERSION, &board.pic);
        writer.state("pit", MACHINE_VERSION, &board.pit);
        writer.state("rtc", MACHINE_VERSION, &board.rtc);
        writer.state("serial", MACHINE_VERSION, &board.serial);
        writer.state("acpi", MACHINE_VERSION, &board.acpi);
        writer.state("reset", MACHINE_VERSION, &board.reset);
        writer.state("watchdog", MACHINE_VERSION, &board.watchdog);
        writer.state("net", MACHINE_VERSION, &board.net);
        writer.state("block", MACHINE_VERSION, &board.block);
        writer.state("console", MACHINE_VERSION, &board.console);
        writer.state("entropy", MACHINE_VERSION, &board.entropy);
        writer.state("operations", MACHINE_VERSION, &board.last_op);
    }

    fn read_sections(&mut self, sections: &Sections<'_>) -> Result<(), SectionError> {
        let refused = |name: &str, reason: String| SectionError::Content { name: name.into(), reason };
        let (model, config, rest): (String, u64, Rest) = sections.state("machine", MACHINE_VERSION)?;
        if model != V::model() {
            let reason =
                format!("it is of a machine with the processor {model:?}; this one has {:?}", V::model());
            return Err(refused("machine", reason));
        }
        let ours = self.config.digest();
        if config != ours {
            let reason =
                format!("it is of a machine with configuration {config:016x}; this one has {ours:016x}");
            return Err(refused("machine", reason));
        }
        let cpu: CpuState = sections.state("cpu", MACHINE_VERSION)?;
        let board = BoardState {
            clock: sections.state("clock", MACHINE_VERSION)?,
            pic: sections.state("pic", MACHINE_VERSION)?,
            pit: sections.state("pit", MACHINE_VERSION)?,
            rtc: sections.state("rtc", MACHINE_VERSION)?,
            serial: sections.state("serial", MACHINE_VERSION)?,
            acpi: sections.state("acpi", MACHINE_VERSION)?,
            reset: sections.state("reset", MACHINE_VERSION)?,
            watchdog: sections.state("watchdog", MACHINE_VERSION)?,
            net: sections.state("net", MACHINE_VERSION)?,
            block: sections.state("block", MACHINE_VERSION)?,
            console: sections.state("console", MACHINE_VERSION)?,
            entropy: sections.state("entropy", MACHINE_VERSION)?,
            last_op: sections.state("operations", MACHINE_VERSION)?,
        };
        self.vcpu.set_state(&cpu).map_err(|fault| refused("cpu", fault.0))?;
        self.board.set_state(&board).map_err(|fault| refused("devices", fault.0))?;
        self.rest = rest;
        Ok(())
    }

    /// Takes in which pages were written since this was last called.
    fn refresh_digests(&mut self) {
        self.vcpu.forget_writes();
        let written = self.ram.take_dirty();
        self.digests.update(&self.ram, &written);
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.handle_written(&written);
        }
    }

    /// As after a cold start, but for the tick, which goes on, and the clock.
    fn reset(&mut self) -> Result<(), Fault> {
        self.refresh_digests();
        self.digests.nonzero().for_each(|page| self.ram.write_page(page, &[0; PAGE_BYTES]));
        self.board.reset();
        let start = boot::load(&self.config.boot, &self.ram).map_err(|error| Fault(error.to_string()))?;
        self.vcpu.set_state(&CpuState { tick: self.vcpu.tick().0, ..start })?;
        self.rest.power = Power::On;
        self.rest.restarts += 1;
        Ok(())
    }
}

impl<V: Vcpu> Machine for Vm<V> {
    fn point(&self) -> Point {
        self.vcpu.point()
    }

    fn run(&mut self, until: Tick) -> Result<Stop, Fault> {
        if std::mem::take(&mut self.rests) {
            return Ok(Stop::Reached);
        }
        loop {
            let here = self.vcpu.tick();
            self.board.advance(here);
            self.settle()?;
            if !self.effects.is_empty() {
                return Ok(Stop::Effect);
            }
            if self.is_off() || self.is_held() {
                return Ok(Stop::Idle);
            }
            if here >= until {
                return Ok(Stop::Reached);
            }
            let deadline = self.board.next_deadline(here).unwrap_or(until);
            let mut platform = self.board.attach(&self.ram);
            match self.vcpu.run(&self.ram, &mut platform, until.min(deadline))? {
                VcpuStop::Halted => return Ok(Stop::Idle),
                VcpuStop::TripleFault => self.shut_down()?,
                VcpuStop::Reached | VcpuStop::Platform => {}
            }
        }
    }

    fn apply(&mut self, record: &Record) -> Result<(), Fault> {
        match &record.event {
            // Not inputs: they mark and check.
            Event::Emit { .. } | Event::Digest(_) | Event::Vendor { id: RECIPE_ID, .. } => Ok(()),
            event => {
                self.board.apply(event, &self.ram, self.vcpu.tick())?;
                self.settle()
            }
        }
    }

    fn take_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn in_flight(&self) -> Vec<Effect> {
        let mut effects = self.board.in_flight();
        // Whoever runs a machine that is off should know.
        effects.extend(self.ending());
        effects
    }

    fn digest(&mut self) -> StateDigest {
        self.refresh_digests();
        let mut digest = Digester::new();
        let cpu =
            postcard::to_allocvec(&(&self.rest, self.vcpu.state())).expect("plain data is always encoded");
        digest.bytes(&cpu).u64(self.digests.value());
        self.board.digest(&mut digest);
        digest.finish()
    }

    fn save(&mut self, first: bool) -> Saved {
        if first {
            self.outgoing = None;
        }
        self.refresh_digests();
        let mut outgoing = match self.outgoing.take() {
            Some(outgoing) => outgoing,
            None => Outgoing::new(&self.digests),
        };
        let last = outgoing.is_nearly_done();
        let piece = outgoing.piece(&self.ram, &self.digests, last);
        if !last {
            self.rests = outgoing.needs_a_slower_guest();
            self.outgoing = Some(outgoing);
            return Saved { pieces: vec![piece.into()], last };
        }
        let mut writer = SectionWriter::new();
        self.write_sections(&mut writer);
        Saved { pieces: with_sections(piece, &writer.finish()), last }
    }

    fn restore(&mut self, piece: &[u8], last: bool) -> Result<(), Fault> {
        let rest = take_pages(&self.ram, piece)?;
        if self.incoming.len() + rest.len() > SECTIONS_BYTES_MAX {
            return Err(Fault("pieces of state with too much in them".into()));
        }
        self.incoming.extend_from_slice(rest);
        if !last {
            return Ok(());
        }
        let wrong = |error: SectionError| Fault(format!("the primary's state: {error}"));
        let incoming = std::mem::take(&mut self.incoming);
        let sections = Sections::parse(&incoming).map_err(wrong)?;
        self.read_sections(&sections).map_err(wrong)
    }
}
