//! Speed of the software vCPU on a loop as a compiler makes it. Run it in a release build:
//! `cargo test --release -p ft-vmm --test soft_speed -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "soft/bed.rs"]
mod bed;

use bed::{Bed, CODE, DATA, STACK};
use ft_core::units::Tick;
use ft_vmm::soft::SoftVcpu;
use ft_vmm::vcpu::Vcpu as _;

/// ```text
/// f:    xor eax, eax
///       xor ecx, ecx
/// .l:   mov edx, [rdi + rcx*4]
///       imul edx, edx, 31
///       add eax, edx
///       mov [rsi + rcx*4], eax
///       test al, 1
///       je .s
///       xor eax, 0x5bd1e995
/// .s:   inc rcx
///       cmp rcx, 1000
///       jb .l
///       ret
/// main: call f
///       jmp main
/// ```
const LOOP: &[u8] = &[
    0x31, 0xc0, 0x31, 0xc9, 0x8b, 0x14, 0x8f, 0x6b, 0xd2, 0x1f, 0x01, 0xd0, 0x89, 0x04, 0x8e, 0xa8, 0x01,
    0x74, 0x05, 0x35, 0x95, 0xe9, 0xd1, 0x5b, 0x48, 0xff, 0xc1, 0x48, 0x81, 0xf9, 0xe8, 0x03, 0x00, 0x00,
    0x72, 0xe0, 0xc3, 0xe8, 0xd6, 0xff, 0xff, 0xff, 0xeb, 0xf9,
];

#[test]
#[ignore = "measures; the result depends on the host"]
fn millions_of_instructions_per_second() {
    let ram = bed::ram();
    bed::load(&ram, LOOP);
    let mut state = bed::long_state(3);
    state.rip = CODE + 37;
    state.gpr[4] = STACK;
    state.gpr[6] = DATA - 0x8000;
    state.gpr[7] = DATA - 0x4000;
    let mut vcpu = SoftVcpu::new();
    vcpu.set_state(&state).unwrap();
    let ticks = 1_000_000_000;
    let start = cpu_seconds();
    vcpu.run(&ram, &mut Bed::default(), Tick(ticks)).unwrap();
    let seconds = cpu_seconds() - start;
    println!("{:.0} million instructions per second of CPU time", ticks as f64 / seconds / 1e6);
    assert_eq!(vcpu.tick(), Tick(ticks));
}

/// CPU time of this thread: what others do on the host does not count.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}
