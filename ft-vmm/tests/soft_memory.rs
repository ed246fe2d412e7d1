//! Paging: what each kind of fault says, accessed and dirty bits, TLBs that nobody can see; instructions that are overwritten.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "soft/bed.rs"]
mod bed;

use bed::{Bed, CODE, DATA, STACK, TABLES, entry_of, get, put};
use ft_core::units::Tick;
use ft_vmm::ram::Ram;
use ft_vmm::soft::SoftVcpu;
use ft_vmm::vcpu::{CpuState, Platform, Vcpu as _, VcpuStop};
use vm_memory::{Bytes as _, GuestAddress};

/// Where the handler of exceptions is: it halts.
const HANDLER: u64 = 0x9_8000;
/// The stack of ring 0, as the TSS has it.
const KERNEL_STACK: u64 = 0x8000;

/// What came of an access: nothing, or a vector, an error code (0 if it has none) and CR2.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Through,
    To { vector: u64, error: u64, cr2: u64 },
}

/// A machine whose vector n leads to `HANDLER + n`.
fn machine() -> Ram {
    let ram = bed::ram();
    bed::put_system_tables(&ram, |vector| HANDLER + vector);
    ram.memory().write_slice(&[0xf4; 256], GuestAddress(HANDLER)).unwrap();
    ram
}

/// Runs one instruction.
fn attempt(ram: &Ram, state: &CpuState) -> (Came, CpuState) {
    let mut vcpu = SoftVcpu::new();
    vcpu.set_state(state).unwrap();
    vcpu.run(ram, &mut Bed::default(), Tick(1)).unwrap();
    let after = vcpu.state();
    let handler = HANDLER..HANDLER + 0x101;
    if !handler.contains(&after.rip) {
        return (Came::Through, after);
    }
    let vector = after.rip - HANDLER - 1;
    let error = if matches!(vector, 8 | 10..=14) { get(ram, after.gpr[4]) } else { 0 };
    (Came::To { vector, error, cr2: after.cr2 }, after)
}

const READ: &[u8] = &[0x8b, 0x07];
const WRITE: &[u8] = &[0x89, 0x07];
const CALL: &[u8] = &[0xff, 0xe7];

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const NX: u64 = 1 << 63;
/// Above the physical addresses of the processor.
const RESERVED: u64 = 1 << 45;

/// Code that accesses the page at RDI.
fn access(code: &[u8], ring: u16, entry: u64, write_protect: bool) -> Came {
    let ram = machine();
    bed::load(&ram, code);
    let mut state = bed::long_state(ring);
    if !write_protect {
        state.cr0 &= !(1 << 16);
    }
    state.gpr[7] = DATA;
    // An instruction, in case it is executed.
    ram.memory().write_obj(0x90_u8, GuestAddress(DATA)).unwrap();
    put(&ram, entry_of(DATA), DATA | entry);
    let (mut came, mut after) = attempt(&ram, &state);
    if code == CALL && came == Came::Through {
        after.tick = 0;
        (came, _) = attempt(&ram, &after);
    }
    came
}

fn fault(error: u64) -> Came {
    Came::To { vector: 14, error, cr2: DATA }
}

#[test]
fn every_kind_of_page_fault() {
    let through = || Came::Through;
    #[rustfmt::skip]
    let cases = [
        (READ, 3, P | W | U, true, through()),
        (READ, 3, P | U, true, through()),
        (READ, 3, P | W, true, fault(0b0101)),
        (READ, 3, W | U, true, fault(0b0100)),
        (READ, 0, W | U, true, fault(0b0000)),
        (READ, 0, P, true, through()),
        (READ, 3, P | W | U | NX, true, through()),
        (READ, 3, P | W | U | RESERVED, true, fault(0b1101)),
        (READ, 0, P | W | U | RESERVED, true, fault(0b1001)),
        (READ, 3, U | RESERVED, true, fault(0b0100)),
        (WRITE, 3, P | W | U, true, through()),
        (WRITE, 3, P | U, true, fault(0b0111)),
        (WRITE, 3, P | W, true, fault(0b0111)),
        (WRITE, 3, W | U, true, fault(0b0110)),
        (WRITE, 0, P | U, true, fault(0b0011)),
        (WRITE, 0, P | U, false, through()),
        (WRITE, 3, P | U, false, fault(0b0111)),
        (WRITE, 0, W | U, true, fault(0b0010)),
        (WRITE, 3, P | W | U | RESERVED, true, fault(0b1111)),
        (CALL, 3, P | U, true, through()),
        (CALL, 3, P | U | NX, true, fault(0b1_0101)),
        (CALL, 3, P, true, fault(0b1_0101)),
        (CALL, 3, 0, true, fault(0b1_0100)),
        (CALL, 0, P | NX, true, fault(0b1_0001)),
        (CALL, 0, P | U, true, through()),
        (CALL, 0, P | RESERVED, true, fault(0b1_1001)),
    ];
    for (index, (code, ring, entry, protect, expected)) in cases.into_iter().enumerate() {
        assert_eq!(access(code, ring, entry, protect), expected, "case {index}");
    }
}

#[test]
fn rights_are_those_of_all_levels() {
    // In the second 2 MiB, so that code and stacks are not concerned.
    let address = 0x3f_0000;
    let table = TABLES + 0x2000 + 8;
    let fault = |error| Came::To { vector: 14, error, cr2: address };
    for (ring, bit, expected) in [
        (0, W, fault(0b0011)),
        (3, W, fault(0b0111)),
        (3, U, fault(0b0111)),
        (0, U, Came::Through),
        (0, P, fault(0b10)),
    ] {
        let ram = machine();
        bed::load(&ram, WRITE);
        let mut state = bed::long_state(ring);
        state.gpr[7] = address;
        put(&ram, table, get(&ram, table) & !bit);
        assert_eq!(attempt(&ram, &state).0, expected, "ring {ring} without {bit}");
    }
}

#[test]
fn large_pages_and_their_reserved_bits() {
    let gib = 1u64 << 30;
    for (pd_entry, expected) in
        [(P | W | U | 0x80, Came::Through), (P | W | U | 0x80 | 1 << 14, fault(0b1001))]
    {
        let ram = machine();
        // The second 2 MiB, where the tables are, at once; the first stays as it is, but for a second map of it at 1 GiB.
        put(&ram, TABLES + 0x2000 + 8, 0x20_0000 | pd_entry);
        bed::load(&ram, READ);
        let mut state = bed::long_state(0);
        state.gpr[7] = TABLES;
        let (came, after) = attempt(&ram, &state);
        match came {
            Came::Through => assert_eq!(after.gpr[0], (TABLES + 0x1000) & 0xffff_ffff | 0x27),
            Came::To { error, cr2, .. } => assert_eq!((fault(error), cr2), (expected, TABLES)),
        }
    }
    let ram = machine();
    put(&ram, TABLES + 0x1000 + 8, P | W | U | 0x80);
    bed::load(&ram, READ);
    put(&ram, DATA, 0x1234_5678);
    let mut state = bed::long_state(3);
    state.gpr[7] = gib + DATA;
    let (came, after) = attempt(&ram, &state);
    assert_eq!((came, after.gpr[0]), (Came::Through, 0x1234_5678));
    assert_eq!(get(&ram, TABLES + 0x1000 + 8) & 0x60, 0x20, "accessed, not dirty");
}

#[test]
fn accessed_and_dirty_bits() {
    let ram = machine();
    bed::load(&ram, &[READ, WRITE].concat());
    put(&ram, entry_of(DATA), DATA | P | W | U);
    let mut state = bed::long_state(3);
    state.gpr[7] = DATA;
    let mut vcpu = SoftVcpu::new();
    vcpu.set_state(&state).unwrap();
    let mut bed = Bed::default();
    for (tick, bits) in [(1, 0x20), (2, 0x60)] {
        vcpu.run(&ram, &mut bed, Tick(tick)).unwrap();
        assert_eq!(get(&ram, entry_of(DATA)) & 0x60, bits);
    }
}

#[test]
fn an_access_across_pages_happens_whole_or_not_at_all() {
    let ram = machine();
    // mov [rdi], eax; push rax; add [rdi], eax
    for code in [WRITE, &[0x50], &[0x01, 0x07]] {
        bed::load(&ram, code);
        put(&ram, entry_of(DATA + 0x1000), (DATA + 0x1000) | P | U);
        put(&ram, DATA + 0xff8, 0x1111_1111_1111_1111);
        let mut state = bed::long_state(3);
        state.gpr[0] = u64::MAX;
        state.gpr[7] = DATA + 0xffe;
        state.gpr[4] = DATA + 0x1004;
        let (came, after) = attempt(&ram, &state);
        assert_eq!(came, Came::To { vector: 14, error: 7, cr2: DATA + 0x1000 });
        assert_eq!(get(&ram, DATA + 0xff8), 0x1111_1111_1111_1111);
        assert_eq!(get(&ram, after.gpr[4] + 32), DATA + 0x1004, "RSP as it was");
    }
}

#[test]
fn addresses_that_are_not_canonical() {
    for (code, register, vector) in [(READ, 7, 13), (&[0x8b, 0x45, 0x00], 5, 12), (&[0x50], 4, 12)] {
        let ram = machine();
        bed::load(&ram, code);
        let mut state = bed::long_state(3);
        state.gpr[register] = 0x8000_0000_0000_0010;
        let (came, after) = attempt(&ram, &state);
        assert_eq!(came, Came::To { vector, error: 0, cr2: 0 });
        assert_eq!(get(&ram, after.gpr[4] + 8), CODE);
        assert_eq!(after.gpr[4], KERNEL_STACK - 48);
    }
}

#[test]
fn a_changed_table_counts_at_once() {
    // mov eax, [rdi]; mov [rsi], rdx; mov ecx, [rdi]
    let ram = machine();
    bed::load(&ram, &[0x8b, 0x07, 0x48, 0x89, 0x16, 0x8b, 0x0f]);
    put(&ram, DATA, 1);
    put(&ram, DATA + 0x1000, 2);
    let mut state = bed::long_state(3);
    state.gpr[7] = DATA;
    state.gpr[6] = entry_of(DATA);
    state.gpr[2] = (DATA + 0x1000) | P | W | U;
    let mut vcpu = SoftVcpu::new();
    vcpu.set_state(&state).unwrap();
    vcpu.run(&ram, &mut Bed::default(), Tick(3)).unwrap();
    assert_eq!((vcpu.state().gpr[0], vcpu.state().gpr[1]), (1, 2));
    // The same by a device, between two runs.
    put(&ram, entry_of(DATA), DATA | P | W | U);
    let again = CpuState { rip: CODE, tick: 3, ..vcpu.state() };
    vcpu.set_state(&again).unwrap();
    vcpu.run(&ram, &mut Bed::default(), Tick(4)).unwrap();
    put(&ram, entry_of(DATA), (DATA + 0x1000) | P | W | U);
    ram.memory().write_slice(&[0x8b, 0x0f], GuestAddress(CODE + 2)).unwrap();
    vcpu.run(&ram, &mut Bed::default(), Tick(5)).unwrap();
    assert_eq!((vcpu.state().gpr[0], vcpu.state().gpr[1]), (1, 2));
}

#[test]
fn the_next_instruction_is_what_was_just_written() {
    // mov byte [rip + 1], 0x2a; mov al, 0; and across a page: the immediate is the first byte of the next page.
    for at in [CODE, CODE + 0x1000 - 8] {
        let ram = machine();
        let code = [0xc6, 0x05, 0x01, 0x00, 0x00, 0x00, 0x2a, 0xb0, 0x00];
        ram.memory().write_slice(&code, GuestAddress(at)).unwrap();
        let mut state = bed::long_state(3);
        state.rip = at;
        let (stop, after) = bed::run(&ram, &state, &mut Bed::default(), 2);
        assert_eq!((stop, after.gpr[0]), (VcpuStop::Reached, 0x2a));
    }
}

#[test]
fn overwritten_instructions_are_decoded_again() {
    // 1: inc eax; mov [rdi], cl; jmp 1b -- RDI points at INC's last byte.
    let ram = machine();
    bed::load(&ram, &[0xff, 0xc0, 0x88, 0x0f, 0xeb, 0xfa]);
    let mut state = bed::long_state(3);
    state.gpr[7] = CODE + 1;
    state.gpr[1] = 0xc3;
    let (_, after) = bed::run(&ram, &state, &mut Bed::default(), 30);
    assert_eq!((after.gpr[0], after.gpr[3]), (1, 9), "INC EAX once, then INC EBX");
}

/// A device that writes to memory when its port is read.
struct Writer<'a>(&'a Ram);

impl Platform for Writer<'_> {
    fn pio_read(&mut self, _: Tick, _: u16, data: &mut [u8]) {
        data.fill(0);
        self.0.memory().write_obj(0x77_u8, GuestAddress(CODE + 3)).unwrap();
    }
    fn pio_write(&mut self, _: Tick, _: u16, _: &[u8]) {}
    fn mmio_read(&mut self, _: Tick, _: u64, _: &mut [u8]) {}
    fn mmio_write(&mut self, _: Tick, _: u64, _: &[u8]) {}
    fn tsc(&mut self, at: Tick) -> u64 {
        at.0
    }
    fn interrupt(&self) -> bool {
        false
    }
    fn acknowledge(&mut self) -> u8 {
        0
    }
    fn wants_stop(&self) -> bool {
        false
    }
}

#[test]
fn a_device_may_overwrite_the_next_instruction() {
    // in al, dx; mov bl, 0
    let ram = machine();
    bed::load(&ram, &[0xec, 0x90, 0xb3, 0x00]);
    let mut state = bed::long_state(0);
    state.gpr[4] = STACK;
    let mut vcpu = SoftVcpu::new();
    vcpu.set_state(&state).unwrap();
    vcpu.run(&ram, &mut Writer(&ram), Tick(3)).unwrap();
    assert_eq!(vcpu.state().gpr[3], 0x77);
}
