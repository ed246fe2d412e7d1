//! Notices when the machine behaves otherwise than other builds with the same [`MACHINE_VERSION`]: two such builds would diverge as a pair.
//!
//! The program reads CPUID, the time stamp counter, the clock and the timer, prints, and computes with integers, SSE and x87:
//!
//! ```text
//! .intel_syntax noprefix
//! _start:
//!   mov rsp, 0x300000
//! again:
//!   mov ecx, 64
//!   mov eax, 0x12345678
//! 1: imul eax, eax, 1103515245
//!   add eax, 12345
//!   rol eax, 7
//!   adc r8, rax
//!   bsr edx, eax
//!   cmovc r9d, edx
//!   loop 1b
//!   xor eax, eax
//!   cpuid
//!   add r8, rbx
//!   mov eax, 1
//!   cpuid
//!   add r8, rax
//!   rdtsc
//!   add r8, rax
//!   mov al, 0
//!   out 0x70, al
//!   in al, 0x71
//!   add r8b, al
//!   mov al, 0
//!   out 0x43, al
//!   in al, 0x40
//!   add r8b, al
//!   in al, 0x40
//!   add r8b, al
//!   mov edx, 0x3f8
//!   mov al, '.'
//!   out dx, al
//!   cvtsi2sd xmm0, r8
//!   sqrtsd xmm0, xmm0
//!   movsd [0x280000], xmm0
//!   fild qword ptr [0x280000]
//!   fsqrt
//!   fstp tbyte ptr [0x280010]
//!   push r8
//!   pop qword ptr [0x280020]
//!   jmp again
//! ```
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "images/faulting.rs"]
mod image;

use ft_core::machine::{Machine as _, Stop};
use ft_core::units::{Tick, VirtualTime};
use ft_core::{Event, Record};
use ft_vmm::board::BoardConfig;
use ft_vmm::boot::{BootSource, Protocol};
use ft_vmm::machine::{MACHINE_VERSION, Vm, VmConfig};
use ft_vmm::power::OnCrash;
use ft_vmm::soft::SoftVcpu;

/// The program above.
#[rustfmt::skip]
const PROGRAM: &[u8] = &[
    0x48, 0xc7, 0xc4, 0x00, 0x00, 0x30, 0x00, 0xb9, 0x40, 0x00, 0x00, 0x00, 0xb8, 0x78, 0x56, 0x34, 0x12, 0x69, 0xc0, 0x6d,
    0x4e, 0xc6, 0x41, 0x05, 0x39, 0x30, 0x00, 0x00, 0xc1, 0xc0, 0x07, 0x49, 0x11, 0xc0, 0x0f, 0xbd, 0xd0, 0x44, 0x0f, 0x42,
    0xca, 0xe2, 0xe6, 0x31, 0xc0, 0x0f, 0xa2, 0x49, 0x01, 0xd8, 0xb8, 0x01, 0x00, 0x00, 0x00, 0x0f, 0xa2, 0x49, 0x01, 0xc0,
    0x0f, 0x31, 0x49, 0x01, 0xc0, 0xb0, 0x00, 0xe6, 0x70, 0xe4, 0x71, 0x41, 0x00, 0xc0, 0xb0, 0x00, 0xe6, 0x43, 0xe4, 0x40,
    0x41, 0x00, 0xc0, 0xe4, 0x40, 0x41, 0x00, 0xc0, 0xba, 0xf8, 0x03, 0x00, 0x00, 0xb0, 0x2e, 0xee, 0xf2, 0x49, 0x0f, 0x2a,
    0xc0, 0xf2, 0x0f, 0x51, 0xc0, 0xf2, 0x0f, 0x11, 0x04, 0x25, 0x00, 0x00, 0x28, 0x00, 0xdf, 0x2c, 0x25, 0x00, 0x00, 0x28,
    0x00, 0xd9, 0xfa, 0xdb, 0x3c, 0x25, 0x10, 0x00, 0x28, 0x00, 0x41, 0x50, 0x8f, 0x04, 0x25, 0x20, 0x00, 0x28, 0x00, 0xe9,
    0x77, 0xff, 0xff, 0xff,
];

/// Version of the machine, digest of its configuration, and digest of its state after every million of ticks.
const KNOWN: (u32, u64, [u64; 3]) = (
    3,
    7_258_729_253_115_920_390,
    [5_742_017_218_432_206_480, 9_207_002_668_335_158_426, 17_179_387_615_791_141_268],
);

#[test]
fn a_machine_of_this_version_behaves_as_it_always_did() {
    let boot = BootSource {
        protocol: Protocol::Linux,
        image: image::image_of(PROGRAM).into(),
        initrd: None,
        command_line: String::new(),
    };
    let board = BoardConfig { mac: Some([0x52, 0x54, 0, 1, 2, 3]), entropy: true, ..BoardConfig::default() };
    let config = VmConfig { ram_bytes: 16 << 20, boot, board, on_crash: OnCrash::Stop };
    let configuration = config.digest();
    let mut vm = Vm::new(config, SoftVcpu::new()).unwrap();
    let digests = [1, 2, 3].map(|part: u64| {
        let mut printed = 0;
        while vm.point().tick < Tick(part * 1_000_000) {
            let stop = vm.run(Tick(part * 1_000_000)).unwrap();
            assert_ne!(stop, Stop::Idle, "the program never waits");
            printed +=
                std::iter::from_fn(|| vm.take_effect()).map(|effect| effect.payload.len()).sum::<usize>();
        }
        assert!(printed > 1000, "it prints at every turn: {printed}");
        let time = Event::Time(VirtualTime(part * 10_000_000));
        vm.apply(&Record { point: vm.point(), event: time }).unwrap();
        vm.digest().0
    });
    let found = (MACHINE_VERSION, configuration, digests);
    assert_eq!(
        found, KNOWN,
        "a machine of another behaviour must have another MACHINE_VERSION; when it has, note the new values here"
    );
}
