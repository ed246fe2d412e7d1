//! The whole machine with the built-in guest: the third judge of the software vCPU, and what everything above relies on. A snapshot
//! taken anywhere goes on bit for bit; a copy that follows the log stays equal; a reset begins again; a crash is said.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "images/faulting.rs"]
mod faulting;

use bytes::Bytes;
use ft_core::effect::{Effect, EffectKind};
use ft_core::frame::LogEnd;
use ft_core::machine::{Machine, Stop};
use ft_core::recorder::{Recorder, Replayed, Replayer};
use ft_core::units::{Instant, Tick, VirtualTime};
use ft_core::{Event, Point, Record};
use ft_vmm::board::BoardConfig;
use ft_vmm::boot::{BootSource, Protocol};
use ft_vmm::guest_image::BUILT_IN;
use ft_vmm::machine::{Vm, VmConfig};
use ft_vmm::power::{Cause, OnCrash, PowerEvent};
use ft_vmm::sections::SectionError;
use ft_vmm::soft::SoftVcpu;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

/// Enough for the compute mode to finish a few rounds.
const RAM_BYTES: u64 = 16 << 20;

fn config(command_line: &str) -> VmConfig {
    let boot = BootSource {
        protocol: Protocol::Flat,
        image: BUILT_IN.into(),
        initrd: None,
        command_line: command_line.into(),
    };
    let board = BoardConfig { mac: Some([0x52, 0x54, 0, 1, 2, 3]), entropy: true, ..BoardConfig::default() };
    VmConfig { ram_bytes: RAM_BYTES, boot, board, on_crash: OnCrash::Restart }
}

fn vm(command_line: &str) -> Vm<SoftVcpu> {
    Vm::new(config(command_line), SoftVcpu::new()).unwrap()
}

/// Runs to a tick with the clock going on every 10,000 ticks, and returns what came out.
fn run_to(vm: &mut Vm<SoftVcpu>, end: u64) -> Vec<Effect> {
    let mut out = Vec::new();
    loop {
        let here = vm.point().tick.0;
        if here >= end {
            return out;
        }
        match vm.run(Tick(end)).unwrap() {
            Stop::Reached => {}
            Stop::Effect => out.extend(std::iter::from_fn(|| vm.take_effect())),
            Stop::Idle if vm.is_off() => return out,
            Stop::Idle => {
                // As the live side does for an idle guest: its clock moves on by a fixed step.
                let clock = vm.clock_ns() + 1_000_000;
                let point = Point { tick: vm.point().tick, check: None };
                vm.apply(&Record { point, event: Event::Time(VirtualTime(clock)) }).unwrap();
                out.extend(std::iter::from_fn(|| vm.take_effect()));
            }
        }
    }
}

fn console(effects: &[Effect]) -> String {
    let console = effects.iter().filter(|effect| effect.kind == EffectKind::Console);
    console.map(|effect| String::from_utf8_lossy(&effect.payload).into_owned()).collect()
}

#[test]
fn the_compute_mode_says_the_same_checksum_every_time() {
    let said: Vec<String> = (0..2)
        .map(|_| {
            let mut vm = vm("mode=compute rounds=1");
            let out = run_to(&mut vm, u64::MAX >> 1);
            assert!(vm.is_off());
            console(&out)
        })
        .collect();
    assert!(said[0].contains("checksum"), "{}", said[0]);
    assert_eq!(said[0], said[1]);
}

#[test]
fn a_snapshot_taken_anywhere_goes_on_bit_for_bit() {
    let mut seed = ChaCha8Rng::seed_from_u64(7);
    let mut original = vm("mode=kv");
    let mut tick = 0;
    for _ in 0..8 {
        tick += u64::from(seed.next_u32() % 3_000_000);
        run_to(&mut original, tick);
        let snapshot = original.snapshot();
        let mut copy = Vm::blank(config("mode=kv"), SoftVcpu::new()).unwrap();
        copy.load_snapshot(&snapshot).unwrap();
        assert_eq!(copy.point(), original.point());
        assert_eq!(copy.digest(), original.digest());
        assert_eq!(copy.snapshot(), snapshot, "what is restored is what was saved");
        let more = tick + u64::from(seed.next_u32() % 1_000_000);
        assert_eq!(run_to(&mut copy, more), run_to(&mut original, more));
        assert_eq!(copy.digest(), original.digest(), "after {more} ticks");
        tick = more;
    }
}

#[test]
fn snapshots_of_others_and_damaged_ones_are_refused() {
    let mut original = vm("mode=kv");
    run_to(&mut original, 100_000);
    let snapshot = original.snapshot();
    let load = |bytes: &[u8], command_line: &str| {
        Vm::blank(config(command_line), SoftVcpu::new()).unwrap().load_snapshot(bytes)
    };
    load(&snapshot, "mode=kv").unwrap();
    let other = load(&snapshot, "mode=compute").unwrap_err();
    assert!(other.to_string().contains("configuration"), "{other}");
    assert!(matches!(load(&snapshot[..snapshot.len() / 2], "mode=kv"), Err(SectionError::Truncated { .. })));
    let mut damaged = snapshot;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    assert!(matches!(load(&damaged, "mode=kv"), Err(SectionError::Damaged { .. })));
}

/// Frames that the guest must look at: requests for its address, and noise.
fn frame(seed: &mut ChaCha8Rng) -> Bytes {
    let mut frame = vec![0; 60];
    seed.fill_bytes(&mut frame);
    if seed.next_u32().is_multiple_of(2) {
        frame[..6].copy_from_slice(&[0xff; 6]);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[28..32].copy_from_slice(&[10, 0, 2, 2]);
        frame[38..42].copy_from_slice(&[10, 0, 2, 15]);
    }
    frame.into()
}

/// Recorded with inputs at random places, and replayed: every effect, point and digest is equal.
#[test]
fn r1_a_replay_of_the_guest_with_its_inputs_is_equal() {
    let mut seed = ChaCha8Rng::seed_from_u64(1);
    let mut recorder = Recorder::new(vm("mode=kv ip=10.0.2.15/24 gw=10.0.2.2"), 32 << 10);
    let (mut clock, mut answered) = (0, 0);
    let now = Instant(0);
    for step in 0..3000u64 {
        clock += 20_000;
        recorder.enter(now, Event::Time(VirtualTime(clock.max(recorder.clock().0)))).unwrap();
        if seed.next_u32().is_multiple_of(3) {
            recorder.enter(now, Event::Net { device: 0, frame: frame(&mut seed) }).unwrap();
        }
        recorder.run(now, u64::from(seed.next_u32() % 20_000) + 1).unwrap();
        while let Some(numbered) = recorder.poll_effect() {
            if numbered.effect.kind == EffectKind::EntropyRead {
                recorder.enter(now, Event::Entropy(Bytes::from(vec![9; 32]))).unwrap();
            }
            answered += u64::from(numbered.effect.kind == EffectKind::Net);
        }
        if step.is_multiple_of(100) {
            recorder.digest(now).unwrap();
        }
    }
    recorder.finish(now).unwrap();
    assert!(answered > 50, "the guest answers requests for its address: {answered}");
    let machine = vm("mode=kv ip=10.0.2.15/24 gw=10.0.2.2");
    let mut replayer = Replayer::new(machine, LogEnd::default());
    while let Some(frame) = recorder.poll_frame() {
        replayer.push(&frame).unwrap();
        // Shares of any size: where a run ends changes nothing.
        while replayer.step(u64::from(seed.next_u32() % 7_000) + 1).unwrap() != Replayed::Drained {}
    }
    assert_eq!(replayer.progress().digests, 31);
    assert_eq!(replayer.point(), recorder.point());
}

#[test]
fn a_state_that_is_transferred_while_the_guest_runs_arrives_equal() {
    let mut original = vm("mode=compute rounds=1000");
    run_to(&mut original, 3_000_000);
    let mut copy = Vm::blank(config("mode=compute rounds=1000"), SoftVcpu::new()).unwrap();
    let mut first = true;
    let mut pieces = 0;
    loop {
        let saved = original.save(first);
        first = false;
        pieces += 1;
        for (n, piece) in saved.pieces.iter().enumerate() {
            copy.restore(piece, saved.last && n + 1 == saved.pieces.len()).unwrap();
        }
        if saved.last {
            break;
        }
        let here = original.point().tick.0;
        let _ = original.run(Tick(here + 200_000)).unwrap();
        assert!(pieces < 10_000, "a guest that writes all the time is slowed until its copy catches up");
    }
    assert!(pieces > 1);
    assert_eq!(copy.digest(), original.digest());
    let end = original.point().tick.0 + 2_000_000;
    assert_eq!(run_to(&mut copy, end), run_to(&mut original, end));
    assert_eq!(copy.digest(), original.digest());
}

/// A machine whose guest is a few instructions.
fn tiny(image: Vec<u8>, on_crash: OnCrash) -> VmConfig {
    let boot = BootSource { image: image.into(), ..config("").boot };
    VmConfig { boot, on_crash, ..config("") }
}

/// Starts the watchdog with two seconds, writes `!` to the serial port, and hangs.
const HANGS: &[u8] = &[
    0x66, 0xba, 0x43, 0x04, 0xb0, 0x0e, 0xee, // mov dx, 0x443; mov al, 14; out dx, al
    0x66, 0xba, 0xf8, 0x03, 0xb0, 0x21, 0xee, // mov dx, 0x3f8; mov al, '!'; out dx, al
    0xeb, 0xfe, // jmp here
];

/// Sets the machine's clock.
fn set_clock(vm: &mut Vm<SoftVcpu>, ns: u64) {
    let point = Point { tick: vm.point().tick, check: None };
    vm.apply(&Record { point, event: Event::Time(VirtualTime(ns)) }).unwrap();
}

fn power_event(effect: &Effect) -> PowerEvent {
    assert_eq!(effect.kind, EffectKind::Power);
    PowerEvent::decode(&effect.payload).unwrap()
}

/// Runs as a live side does, with 10 ms of the clock for each 1000 ticks, until the machine's power changes: when that was, and why.
fn run_to_power_event(vm: &mut Vm<SoftVcpu>) -> (Point, u64, PowerEvent) {
    for _ in 0..1000 {
        let tick = vm.point().tick.0;
        vm.run(Tick(tick + 1000)).unwrap();
        let clock = vm.clock_ns();
        let mut effects = std::iter::from_fn(|| vm.take_effect());
        if let Some(effect) = effects.find(|effect| effect.kind == EffectKind::Power) {
            return (vm.point(), clock, power_event(&effect));
        }
        set_clock(vm, clock + 10_000_000);
    }
    panic!("nothing happens")
}

#[test]
fn a_triple_fault_is_said_and_turns_the_machine_off_if_it_is_told_to() {
    let mut vm = Vm::new(tiny(faulting::image(), OnCrash::Stop), SoftVcpu::new()).unwrap();
    assert_eq!(vm.run(Tick(1000)).unwrap(), Stop::Effect);
    let effect = vm.take_effect().unwrap();
    let crash = PowerEvent { cause: Cause::Crash, goes_on: false, restarts: 0, rip: 0x20_0000 };
    assert_eq!(power_event(&effect), crash);
    assert!(vm.is_off());
    assert_eq!(vm.run(Tick(2000)).unwrap(), Stop::Idle);
    assert_eq!(vm.in_flight(), [effect], "whoever goes live with it is told the same");
    // Whoever asks for a reset has it begin again.
    let point = Point { tick: vm.point().tick, check: None };
    vm.apply(&Record { point, event: Event::Reset }).unwrap();
    assert!(!vm.is_off());
    assert_eq!(vm.run(Tick(3000)).unwrap(), Stop::Effect, "the same again");
    assert_eq!(power_event(&vm.take_effect().unwrap()), PowerEvent { restarts: 1, ..crash });
}

/// At once the first time, and once a second if that does not help.
#[test]
fn a_guest_that_crashes_begins_again_but_not_all_the_time() {
    let mut vm = Vm::new(tiny(faulting::image(), OnCrash::Restart), SoftVcpu::new()).unwrap();
    set_clock(&mut vm, 5_000_000_000);
    let mut clocks = Vec::new();
    for restarts in 1..5 {
        let (_, clock, event) = run_to_power_event(&mut vm);
        assert_eq!(event, PowerEvent { cause: Cause::Crash, goes_on: true, restarts, rip: 0x20_0000 });
        assert_eq!((vm.is_off(), vm.restarts()), (false, restarts));
        clocks.push(clock / 100_000_000);
    }
    assert_eq!(clocks, [50, 50, 60, 70], "in tenths of a second");
}

#[test]
fn r1_a_guest_that_hangs_begins_again_at_the_same_tick_in_every_copy() {
    let config = || tiny(faulting::image_of(HANGS), OnCrash::Restart);
    let mut recorder = Recorder::new(Vm::new(config(), SoftVcpu::new()).unwrap(), 4 << 10);
    let now = Instant(0);
    let (mut clock, mut said, mut hung) = (0, String::new(), Vec::new());
    for step in 0..500 {
        clock = (clock + 10_000_000).max(recorder.clock().0);
        recorder.enter(now, Event::Time(VirtualTime(clock))).unwrap();
        recorder.run(now, 1000).unwrap();
        while let Some(numbered) = recorder.poll_effect() {
            match numbered.effect.kind {
                EffectKind::Power => hung.push(power_event(&numbered.effect)),
                _ => said += &console(&[numbered.effect]),
            }
        }
        if step == 120 {
            // In the middle of a countdown: a copy goes on from there.
            recorder.digest(now).unwrap();
        }
    }
    recorder.finish(now).unwrap();
    let spins = 0x20_000e;
    let hang = |restarts| PowerEvent { cause: Cause::Watchdog, goes_on: true, restarts, rip: spins };
    assert_eq!(hung, [hang(1), hang(2)], "every two seconds");
    assert_eq!(said, "!!!");
    let mut replayer = Replayer::new(Vm::new(config(), SoftVcpu::new()).unwrap(), LogEnd::default());
    while let Some(frame) = recorder.poll_frame() {
        replayer.push(&frame).unwrap();
        while replayer.step(333).unwrap() != Replayed::Drained {}
    }
    assert_eq!(replayer.progress().digests, 2);
    assert_eq!(replayer.point(), recorder.point());
}

#[test]
fn a_snapshot_in_the_middle_of_a_countdown_expires_at_the_same_tick() {
    let config = || tiny(faulting::image_of(HANGS), OnCrash::Restart);
    let mut original = Vm::new(config(), SoftVcpu::new()).unwrap();
    run_to(&mut original, 100_000);
    set_clock(&mut original, 50_000_000);
    let mut copy = Vm::blank(config(), SoftVcpu::new()).unwrap();
    copy.load_snapshot(&original.snapshot()).unwrap();
    let expired = run_to_power_event(&mut original);
    assert_eq!((expired.1 / 100_000_000, expired.2.cause), (20, Cause::Watchdog));
    assert_eq!(run_to_power_event(&mut copy), expired);
    assert_eq!(copy.digest(), original.digest());
}
