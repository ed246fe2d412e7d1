use super::*;

/// As Linux sets them up: vectors 0x20 and 0x28, nothing masked.
fn pic(icw4: u8) -> PicState {
    let mut pic = PicState::default();
    for (port, base, wiring) in [(0x20, 0x20, 1 << CASCADE), (0xa0, 0x28, CASCADE)] {
        pic.write(port, 0x11);
        pic.write(port + 1, base);
        pic.write(port + 1, wiring);
        pic.write(port + 1, icw4);
        pic.write(port + 1, 0);
    }
    pic
}

fn eoi(pic: &mut PicState, line: u8) {
    if line >= 8 {
        pic.write(0xa0, 0x20);
    }
    pic.write(0x20, 0x20);
}

#[test]
fn after_reset_everything_is_masked() {
    let mut pic = PicState::default();
    for line in 0..16 {
        pic.pulse(line);
    }
    assert!(!pic.interrupt());
    assert_eq!((pic.read(0x21), pic.read(0xa1)), (0xff, 0xff));
    pic.write(0x21, 0xfe);
    assert_eq!(pic.acknowledge(), 0x08);
}

#[test]
fn lines_have_their_vectors_and_priorities() {
    let mut pic = pic(1);
    for line in [15, 3, 8, 1] {
        pic.pulse(line);
    }
    for line in [1u8, 8, 15, 3] {
        assert!(pic.interrupt());
        assert_eq!(pic.acknowledge(), 0x20 + line);
        eoi(&mut pic, line);
    }
    assert!(!pic.interrupt());
}

#[test]
fn a_line_in_service_holds_back_those_below_it() {
    let mut pic = pic(1);
    pic.pulse(3);
    assert_eq!(pic.acknowledge(), 0x23);
    pic.pulse(4);
    assert!(!pic.interrupt());
    pic.pulse(1);
    assert_eq!(pic.acknowledge(), 0x21);
    pic.write(0x20, 0x0b);
    assert_eq!(pic.read(0x20), 1 << 3 | 1 << 1);
    pic.write(0x20, 0x0a);
    assert_eq!(pic.read(0x20), 1 << 4);
    eoi(&mut pic, 1);
    eoi(&mut pic, 3);
    assert_eq!(pic.acknowledge(), 0x24);
}

#[test]
fn edges_count_once_and_levels_as_long_as_they_last() {
    let mut pic = pic(1);
    pic.set_line(3, true);
    assert_eq!(pic.acknowledge(), 0x23);
    eoi(&mut pic, 3);
    assert!(!pic.interrupt(), "still high, but no new edge");
    pic.write(0x4d0, 0xff);
    assert_eq!(pic.read(0x4d0), 0xf8, "timer, keyboard and cascade are edges for ever");
    assert_eq!(pic.acknowledge(), 0x23, "now a level");
    eoi(&mut pic, 3);
    assert_eq!(pic.acknowledge(), 0x23);
    pic.set_line(3, false);
    eoi(&mut pic, 3);
    assert!(!pic.interrupt());
}

#[test]
fn a_level_that_goes_away_leaves_a_spurious_interrupt() {
    let mut pic = pic(1);
    pic.set_line(5, true);
    assert!(pic.interrupt());
    pic.set_line(5, false);
    assert!(!pic.interrupt());
    assert_eq!(pic.acknowledge(), 0x27);
    pic.write(0x20, 0x0b);
    assert_eq!(pic.read(0x20), 0, "nothing is in service");
}

#[test]
fn the_second_controller_requests_again_after_its_own_end_of_interrupt() {
    let mut pic = pic(1);
    pic.pulse(12);
    pic.pulse(14);
    assert_eq!(pic.acknowledge(), 0x2c);
    pic.write(0x20, 0x20);
    assert!(!pic.interrupt(), "14 waits for 12's end at the second controller");
    pic.write(0xa0, 0x20);
    assert_eq!(pic.acknowledge(), 0x2e);
    pic.pulse(8);
    assert!(!pic.interrupt(), "the first controller holds all of the second back");
    pic.write(0x20, 0x20);
    assert_eq!(pic.acknowledge(), 0x28);
}

#[test]
fn special_fully_nested_mode_lets_the_second_controller_in_again() {
    let mut pic = pic(1);
    for (value, odd) in [(0x11, false), (0x20, true), (4, true), (0x11, true), (0, true)] {
        pic.write(if odd { 0x21 } else { 0x20 }, value);
    }
    pic.pulse(12);
    assert_eq!(pic.acknowledge(), 0x2c);
    pic.pulse(14);
    assert!(!pic.interrupt());
    pic.pulse(8);
    assert_eq!(pic.acknowledge(), 0x28);
}

#[test]
fn special_mask_mode_lets_those_below_in() {
    let mut pic = pic(1);
    pic.pulse(3);
    assert_eq!(pic.acknowledge(), 0x23);
    pic.pulse(6);
    pic.write(0x21, 1 << 3);
    assert!(!pic.interrupt());
    pic.write(0x20, 0x68);
    assert_eq!(pic.acknowledge(), 0x26);
    pic.write(0x20, 0x20);
    pic.write(0x20, 0x0b);
    assert_eq!(pic.read(0x20), 1 << 3, "an unspecific end passes over what is masked");
    pic.write(0x20, 0x63);
    assert_eq!(pic.read(0x20), 0, "a specific one does not");
    pic.write(0x20, 0x48);
}

#[test]
fn automatic_end_of_interrupt_leaves_nothing_in_service() {
    let mut pic = pic(3);
    pic.pulse(3);
    assert_eq!(pic.acknowledge(), 0x23);
    pic.pulse(4);
    assert_eq!(pic.acknowledge(), 0x24);
    // Rotating: the one that was served goes last.
    pic.write(0x20, 0x80);
    pic.pulse(3);
    assert_eq!(pic.acknowledge(), 0x23);
    pic.pulse(3);
    pic.pulse(4);
    assert_eq!(pic.acknowledge(), 0x24);
}

#[test]
fn priorities_rotate() {
    let mut pic = pic(1);
    pic.pulse(3);
    pic.acknowledge();
    pic.write(0x20, 0xa0);
    pic.pulse(3);
    pic.pulse(4);
    assert_eq!(pic.acknowledge(), 0x24, "3 went last");
    pic.write(0x20, 0xe0 | 4);
    pic.write(0x20, 0xc0 | 2);
    pic.pulse(0);
    assert_eq!(pic.acknowledge(), 0x23, "2 is last, so 3 is first");
}

#[test]
fn a_poll_acknowledges() {
    let mut pic = pic(1);
    pic.write(0x20, 0x0c);
    assert_eq!(pic.read(0x20), 0, "nothing");
    pic.pulse(6);
    pic.write(0x20, 0x0c);
    assert_eq!(pic.read(0x20), 0x86);
    assert!(!pic.interrupt());
    pic.write(0x20, 0x0b);
    assert_eq!(pic.read(0x20), 1 << 6);
}

#[test]
fn initialisation_forgets_requests_but_not_levels() {
    let mut first = pic(1);
    first.pulse(3);
    first.set_line(5, true);
    first.write(0x20, 0x11);
    assert!(first.interrupt());
    first.write(0x21, 0x40);
    first.write(0x21, 4);
    first.write(0x21, 1);
    assert_eq!(first.acknowledge(), 0x45);
}
