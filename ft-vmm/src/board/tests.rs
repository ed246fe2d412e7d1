mod driver;
mod equality;
mod hostile;
mod virtio;

use super::*;
use crate::vcpu::Platform as _;
use driver::{Rig, config};
use ft_core::effect::EffectKind;
use ft_core::units::VirtualTime;

/// Unmasks everything, with vectors 0x20 and 0x28.
fn open_interrupts(rig: &mut Rig) {
    for (port, base, wiring) in [(0x20, 0x20, 4), (0xa0, 0x28, 2)] {
        rig.outb(port, 0x11);
        for value in [base, wiring, 1, 0] {
            rig.outb(port + 1, value);
        }
    }
}

#[test]
fn nothing_answers_where_nothing_is() {
    let mut rig = Rig::new(&BoardConfig::default());
    assert_eq!(rig.inb(0x80), 0xff);
    let mut data = [0; 8];
    rig.board.attach(&rig.ram).pio_read(Tick(0), 0xffff, &mut data[..4]);
    assert_eq!(data[..4], [0xff; 4]);
    rig.board.attach(&rig.ram).mmio_read(Tick(0), 0xe000_0000, &mut data);
    assert_eq!(data, [0xff; 8]);
    for slot in 0..SLOT_COUNT {
        let registers = [0x000, 0x004, 0x008, 0x070].map(|offset| rig.read(slot, offset));
        assert_eq!(registers, [0x7472_6976, 2, 0, 0]);
        rig.write(slot, 0x070, 1);
        assert_eq!(rig.read(slot, 0x070), 0);
    }
}

#[test]
fn a_timer_fires_at_its_tick_and_not_before() {
    let mut rig = Rig::new(&config());
    open_interrupts(&mut rig);
    rig.tick = 1000;
    for (port, value) in [(0x43, 0x34), (0x40, 0xe8), (0x40, 0x03)] {
        rig.outb(port, value);
    }
    // Loaded with the count after 1 us (count 1), 1000 counts of 838.095 ns each.
    let deadline = rig.board.next_deadline(Tick(rig.tick)).unwrap();
    assert_eq!(deadline, Tick((1002 * 1_000_000_000u64).div_ceil(1_193_182)));
    rig.board.advance(Tick(deadline.0 - 1));
    assert!(!rig.board.attach(&rig.ram).interrupt());
    rig.board.advance(deadline);
    let mut view = rig.board.attach(&rig.ram);
    assert!(view.interrupt());
    assert_eq!(view.acknowledge(), 0x20);
    assert_eq!(view.tsc(deadline), deadline.0);
}

#[test]
fn a_halted_machines_timer_fires_with_the_record() {
    let config = BoardConfig { ns_per_tick: 0, ..config() };
    let mut rig = Rig::new(&config);
    open_interrupts(&mut rig);
    for (port, value) in [(0x43, 0x30), (0x40, 100), (0x40, 0)] {
        rig.outb(port, value);
    }
    assert_eq!(rig.board.next_deadline(Tick(5)), None, "ticks do not move this clock");
    let due = rig.board.next_deadline_ns().unwrap();
    assert_eq!(due, (101 * 1_000_000_000u64).div_ceil(1_193_182));
    rig.apply(Event::Time(VirtualTime(due - 1)));
    assert!(!rig.board.attach(&rig.ram).interrupt());
    rig.apply(Event::Time(VirtualTime(due)));
    assert!(rig.board.attach(&rig.ram).interrupt());
    assert_eq!(rig.board.next_deadline_ns(), None);
}

#[test]
fn the_vcpu_stops_for_effects_requests_and_earlier_deadlines() {
    let mut rig = Rig::new(&config());
    let Rig { board, ram, .. } = &mut rig;
    let mut view = board.attach(ram);
    assert!(!view.wants_stop());
    view.pio_write(Tick(0), 0x43, &[0x34]);
    assert!(!view.wants_stop());
    view.pio_write(Tick(0), 0x40, &[0xff]);
    view.pio_write(Tick(0), 0x40, &[0xff]);
    assert!(view.wants_stop(), "a timer was set");
    let mut view = board.attach(ram);
    assert!(!view.wants_stop(), "and the machine has seen it");
    // A later deadline stops nobody: at the old one, nothing happens.
    view.pio_write(Tick(10), 0x43, &[0x34]);
    assert!(!view.wants_stop());
    view.pio_write(Tick(10), 0x3f8, b"\n");
    assert!(view.wants_stop(), "an effect");
    assert!(board.attach(ram).wants_stop(), "until it is taken");
    board.take_effect();
    let mut view = board.attach(ram);
    assert!(!view.wants_stop());
    view.pio_write(Tick(20), 0x64, &[0xfe]);
    assert!(view.wants_stop(), "a request");
}

#[test]
fn guests_reset_and_turn_off() {
    for (port, data, request) in [
        (0x64, &[0xfe][..], Request::Reset),
        (0xcf9, &[0x06], Request::Reset),
        (0x604, &[0x00, 0x34], Request::PowerOff),
    ] {
        let mut rig = Rig::new(&config());
        rig.outb(0x3f8, b'!');
        rig.board.attach(&rig.ram).pio_write(Tick(0), port, data);
        let said = rig.effect();
        assert_eq!((said.kind, &said.payload[..]), (EffectKind::Console, &b"!"[..]));
        assert_eq!(rig.board.take_request(), Some(request));
        assert_eq!(rig.board.take_request(), None);
    }
}

#[test]
fn a_reset_from_outside_is_the_machines_business() {
    let mut rig = Rig::new(&config());
    rig.apply(Event::Reset);
    assert_eq!(rig.board.take_request(), Some(Request::ResetFromOutside));
    assert!(rig.effects().is_empty());
}

#[test]
fn a_processor_that_is_shut_down_is_the_machines_business() {
    let mut rig = Rig::new(&config());
    rig.outb(0x443, 0);
    rig.outb(0x3f8, b'!');
    rig.board.handle_shutdown();
    assert_eq!(rig.effect().kind, EffectKind::Console, "its last words");
    assert_eq!(rig.board.take_request(), Some(Request::Crash));
    assert_eq!(rig.board.next_deadline_ns(), None, "and it is not watched any more");
}

#[test]
fn a_watchdog_expires_at_its_tick_and_not_before() {
    let mut rig = Rig::new(&config());
    rig.tick = 1000;
    rig.outb(0x443, 0x0e);
    let deadline = rig.board.next_deadline(Tick(rig.tick)).unwrap();
    assert_eq!(deadline, Tick(2_000_001_000));
    rig.outb(0x3f8, b'!');
    rig.effects();
    rig.board.advance(Tick(deadline.0 - 1));
    assert_eq!(rig.board.take_request(), None);
    rig.board.advance(deadline);
    assert_eq!(rig.board.take_request(), Some(Request::Watchdog));
    assert_eq!(rig.board.next_deadline_ns(), None);
    // One that is written to in time does not.
    rig.tick = deadline.0;
    rig.outb(0x443, 0x0e);
    rig.tick += 1_999_999_999;
    rig.outb(0x443, 0x0e);
    rig.tick += 1_999_999_999;
    rig.outb(0x441, 0);
    rig.board.advance(Tick(rig.tick + 100_000_000_000));
    assert_eq!(rig.board.take_request(), None);
}

/// The host was stopped for a minute, or the effects waited for the arbiter: the guest could not have done anything.
#[test]
fn a_leap_of_the_clock_does_not_expire_a_watchdog() {
    let mut rig = Rig::new(&config());
    rig.outb(0x443, 0x0e);
    rig.apply(Event::Time(VirtualTime(60_000_000_000)));
    assert_eq!(rig.board.take_request(), None);
    assert_eq!(rig.board.next_deadline_ns(), Some(61_900_000_000));
    // A halted guest's clock moves with records only: it is found all the same.
    for step in 0..190 {
        assert_eq!(rig.board.take_request(), None);
        rig.apply(Event::Time(VirtualTime(60_000_000_000 + (step + 1) * 10_000_000)));
    }
    assert_eq!(rig.board.take_request(), Some(Request::Watchdog));
}

#[test]
fn a_machine_that_is_off_is_not_watched() {
    let mut rig = Rig::new(&config());
    rig.outb(0x443, 0);
    rig.board.attach(&rig.ram).pio_write(Tick(0), 0x604, &[0x00, 0x34]);
    assert_eq!(rig.board.take_request(), Some(Request::PowerOff));
    assert_eq!(rig.board.next_deadline_ns(), None);
}

#[test]
fn a_shutdown_presses_the_power_button() {
    let mut rig = Rig::new(&config());
    open_interrupts(&mut rig);
    rig.board.attach(&rig.ram).pio_write(Tick(0), 0x602, &[0, 1]);
    rig.apply(Event::Shutdown);
    let mut view = rig.board.attach(&rig.ram);
    assert!(view.interrupt());
    assert_eq!(view.acknowledge(), 0x29);
    assert_eq!(rig.inb(0x601), 1);
    rig.outb(0x601, 1);
    for port in [0xa0, 0x20] {
        rig.outb(port, 0x20);
    }
    assert!(!rig.board.attach(&rig.ram).interrupt());
}

#[test]
fn a_reset_leaves_clock_and_operations_counting() {
    let mut rig = Rig::new(&config());
    rig.apply(Event::Time(VirtualTime(77)));
    let mut block = rig.drive(driver::BLOCK, 1).remove(0);
    block.offer(&mut rig, &[&[0; 16]], &[512, 1]);
    block.notify(&mut rig);
    let first = rig.effect().op;
    rig.board.reset();
    assert_eq!(rig.board.in_flight(), []);
    assert_eq!(rig.board.clock().now(Tick(0)), 77);
    let mut block = rig.drive(driver::BLOCK, 1).remove(0);
    block.offer(&mut rig, &[&[0; 16]], &[512, 1]);
    block.notify(&mut rig);
    assert_ne!(rig.effect().op, first, "a late completion of the first finds nobody");
}

#[test]
fn records_that_are_nothing_for_devices_are_refused() {
    let mut rig = Rig::new(&config());
    let event = Event::Vendor { id: 1, bytes: bytes::Bytes::new() };
    assert!(rig.board.apply(&event, &rig.ram, Tick(0)).is_err());
    // What a device of another machine could have is lost.
    let mut bare = Rig::new(&BoardConfig::default());
    let before = bare.board.state();
    for device in 0..3 {
        bare.apply(Event::Net { device, frame: bytes::Bytes::from_static(b"frame") });
        bare.apply(Event::BlockDone { device, id: 1, status: 0, data: bytes::Bytes::new() });
    }
    bare.apply(Event::Console { device: 1, bytes: bytes::Bytes::from_static(b"x") });
    bare.apply(Event::Entropy(bytes::Bytes::from_static(b"x")));
    assert_eq!(bare.board.state(), before);
}

#[test]
fn states_of_other_machines_are_refused() {
    let (full, mut bare) = (Board::new(&config()), Board::new(&BoardConfig::default()));
    assert!(bare.set_state(&full.state()).is_err());
    let mut other = Board::new(&config());
    let mut damaged = full.state();
    damaged.net.as_mut().unwrap().transport.queues[0].size = 3;
    assert!(other.set_state(&damaged).is_err());
    let mut damaged = full.state();
    damaged.block.as_mut().unwrap().transport.queues.clear();
    assert!(other.set_state(&damaged).is_err());
}
