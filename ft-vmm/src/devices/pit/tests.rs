use super::*;
use proptest::prelude::*;

/// A counter as the data sheet draws it: one step for each count, no arithmetic on time.
struct Model {
    mode: u8,
    count: u32,
    written: Option<u32>,
    value: u32,
    loaded: bool,
    output: bool,
    gate: bool,
    over: bool,
}

impl Model {
    fn new(mode: u8) -> Self {
        let output = mode != 0;
        Self { mode, count: 0, written: None, value: 0, loaded: false, output, gate: true, over: false }
    }

    fn write(&mut self, count: u32) {
        self.written = Some(count);
        if matches!(self.mode, 0 | 4) {
            // The write begins anew, also where it falls on the strobe itself.
            self.output = self.mode == 4;
            self.over = false;
            self.loaded = false;
        }
    }

    fn set_gate(&mut self, gate: bool) {
        if matches!(self.mode, 2 | 3) {
            self.output |= !gate;
            if gate && !self.gate && self.count > 0 {
                self.loaded = false;
            }
        }
        self.gate = gate;
    }

    fn step(&mut self) {
        let runs = self.gate || matches!(self.mode, 0 | 4);
        if !self.loaded {
            let begun = self.written.is_some() || self.count > 0;
            if runs && begun {
                self.reload();
            }
            return;
        }
        if !self.gate {
            return;
        }
        match self.mode {
            0 => {
                self.value = self.value.wrapping_sub(1) & 0xffff;
                self.output |= self.value == 0;
            }
            4 => {
                self.value = self.value.wrapping_sub(1) & 0xffff;
                self.output = self.value != 0 || self.over;
                self.over |= self.value == 0;
            }
            2 if self.value == 1 => self.reload(),
            2 => {
                self.value -= 1;
                self.output = self.value != 1;
            }
            _ => {
                let last = if self.output && self.count % 2 == 1 { 0 } else { 2 };
                if self.value != last {
                    self.value -= 2;
                } else if self.output {
                    (self.output, self.value) = (false, self.count & !1);
                } else {
                    self.reload();
                }
            }
        }
    }

    fn reload(&mut self) {
        let count = self.written.take().unwrap_or(self.count);
        self.load(count);
    }

    fn load(&mut self, count: u32) {
        self.count = count;
        self.value = if self.mode == 3 { count & !1 } else { count };
        self.output = self.mode != 0;
        self.loaded = true;
    }
}

#[derive(Clone, Debug)]
enum Act {
    Write(u16),
    Gate(bool),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => (2u16..40).prop_map(Act::Write),
        1 => any::<bool>().prop_map(Act::Gate),
        3 => (1u64..90).prop_map(Act::Wait),
    ]
}

fn bytes_of(channel: &mut Channel, now: u64) -> u16 {
    channel.latch_count(now);
    u16::from_le_bytes([channel.read(now), channel.read(now)])
}

proptest! {
    /// Output and count of every moment, and every rising edge, are those of a counter that is stepped.
    #[test]
    fn a_channel_counts_as_the_data_sheet_says(
        mode in prop_oneof![Just(0u8), Just(2), Just(3), Just(4)],
        start in 0u64..5,
        acts in proptest::collection::vec(act(), 1..30),
    ) {
        let (mut channel, mut model) = (Channel::new(true), Model::new(mode));
        let mut now = start;
        channel.control(0x30 | mode << 1, now);
        for act in acts {
            match act {
                Act::Write(count) => {
                    // The first byte stops mode 0 until the second: both come at once here.
                    let [low, high] = count.to_le_bytes();
                    channel.write_count(low, now);
                    channel.write_count(high, now);
                    model.write(u32::from(count));
                }
                // What a gate does to a strobe under way, the data sheet does not say.
                Act::Gate(_) if mode == 4 => {}
                Act::Gate(gate) => {
                    channel.set_gate(gate, now);
                    model.set_gate(gate);
                }
                Act::Wait(counts) => {
                    for _ in 0..counts {
                        let (was, foretold) = (model.output, channel.next_rise(now));
                        now += 1;
                        model.step();
                        prop_assert_eq!(channel.output(now), model.output, "output at {}", now);
                        prop_assert_eq!(foretold == Some(now), !was && model.output, "edge at {}", now);
                        if model.loaded {
                            prop_assert_eq!(u32::from(bytes_of(&mut channel, now)), model.value, "at {}", now);
                        }
                    }
                }
            }
        }
    }

    /// The deadline is the first nanosecond of its count.
    #[test]
    fn counts_and_nanoseconds_convert_exactly(counts in 0u64..1 << 54) {
        let ns = ns_at(counts);
        prop_assert_eq!(counts_at(ns), counts);
        prop_assert!(ns == 0 || counts_at(ns - 1) < counts);
    }
}

fn program(pit: &mut PitState, pic: &mut PicState, control: u8, count: u16, now_ns: u64) {
    pit.write(0x43, control, now_ns, pic);
    let port = 0x40 + u16::from(control >> 6);
    for byte in count.to_le_bytes() {
        pit.write(port, byte, now_ns, pic);
    }
}

/// A controller with line 0 open.
fn listening() -> PicState {
    let mut pic = PicState::default();
    pic.write(0x21, 0xfe);
    pic
}

#[test]
fn a_second_has_as_many_interrupts_as_periods() {
    let (mut pit, mut pic) = (PitState::default(), listening());
    program(&mut pit, &mut pic, 0x34, 11932, 0);
    let (mut interrupts, mut last) = (0, 0);
    while let Some(deadline) = pit.deadline_ns().filter(|deadline| *deadline <= 1_000_000_000) {
        pit.advance(deadline - 1, &mut pic);
        assert!(!pic.interrupt(), "not before its time");
        pit.advance(deadline, &mut pic);
        assert!(pic.interrupt());
        pic.acknowledge();
        pic.write(0x20, 0x20);
        (interrupts, last) = (interrupts + 1, deadline);
    }
    // 1193182 / 11932 = 99.998: the hundredth comes after the second.
    assert_eq!(interrupts, 99);
    assert_eq!(last, ((99 * 11932 + 1) * 1_000_000_000u64).div_ceil(1_193_182));
}

#[test]
fn periods_that_the_clock_leaps_over_are_one_interrupt() {
    let (mut pit, mut pic) = (PitState::default(), listening());
    program(&mut pit, &mut pic, 0x34, 1193, 0);
    pit.advance(50_000_000, &mut pic);
    assert_eq!(pic.acknowledge(), 8);
    pic.write(0x20, 0x20);
    assert!(!pic.interrupt());
    assert!(pit.deadline_ns().is_some_and(|deadline| (50_000_000..51_000_000).contains(&deadline)));
}

#[test]
fn one_shots_interrupt_once() {
    for (control, counts) in [(0x30, 101), (0x38, 102)] {
        let (mut pit, mut pic) = (PitState::default(), listening());
        program(&mut pit, &mut pic, control, 100, 0);
        assert_eq!(pit.deadline_ns(), Some(ns_at(counts)));
        pit.advance(ns_at(counts), &mut pic);
        assert!(pic.interrupt());
        assert_eq!(pit.deadline_ns(), None);
    }
}

#[test]
fn leaving_mode_0_raises_the_output() {
    let (mut pit, mut pic) = (PitState::default(), listening());
    program(&mut pit, &mut pic, 0x30, 100, 0);
    assert!(!pic.interrupt());
    pit.write(0x43, 0x34, 0, &mut pic);
    assert!(pic.interrupt(), "mode 2 begins high");
}

#[test]
fn channel_2_is_gated_and_seen_at_port_61() {
    let (mut pit, mut pic) = (PitState::default(), PicState::default());
    program(&mut pit, &mut pic, 0xb0, 1000, 0);
    assert_eq!(pit.read(0x61, ns_at(5000)) & 0x20, 0, "its gate is low");
    pit.write(0x61, 1, ns_at(5000), &mut pic);
    assert_eq!(pit.read(0x61, ns_at(5999)) & 0x21, 1);
    assert_eq!(pit.read(0x61, ns_at(6000)) & 0x21, 0x21);
    assert_eq!(pit.deadline_ns(), None, "it interrupts nobody");
}

#[test]
fn latches_hold_until_read() {
    let (mut pit, mut pic) = (PitState::default(), PicState::default());
    program(&mut pit, &mut pic, 0x34, 5000, 0);
    let at = |counts| ns_at(counts);
    pit.write(0x43, 0x00, at(1001), &mut pic);
    assert_eq!(pit.read(0x40, at(2000)), (4000u16 & 0xff) as u8);
    pit.write(0x43, 0x00, at(2001), &mut pic);
    assert_eq!(pit.read(0x40, at(2002)), (4000u16 >> 8) as u8, "the first latch holds");
    // Read-back of status and count of channel 0: status is read first.
    pit.write(0x43, 0xc2, at(3001), &mut pic);
    assert_eq!(pit.read(0x40, at(4000)), 0x80 | 0x34, "high, loaded, both bytes, mode 2");
    let count = u16::from_le_bytes([pit.read(0x40, at(4000)), pit.read(0x40, at(4000))]);
    assert_eq!(count, 2000);
    assert_eq!(pit.read(0x43, 0), 0xff);
}

#[test]
fn bcd_counts_in_decimal() {
    let (mut pit, mut pic) = (PitState::default(), PicState::default());
    program(&mut pit, &mut pic, 0x35, 0x1000, 0);
    let read = |pit: &mut PitState, counts: u64| {
        u16::from_le_bytes([pit.read(0x40, ns_at(counts)), pit.read(0x40, ns_at(counts))])
    };
    assert_eq!(read(&mut pit, 1), 0x1000);
    assert_eq!(read(&mut pit, 2), 0x0999);
    assert_eq!(read(&mut pit, 1001), 0x1000);
}

#[test]
fn status_says_whether_the_count_is_loaded() {
    let (mut pit, mut pic) = (PitState::default(), PicState::default());
    pit.write(0x43, 0x34, 0, &mut pic);
    pit.write(0x43, 0xe2, 0, &mut pic);
    assert_eq!(pit.read(0x40, 0) & 0x40, 0x40, "no count yet");
    program(&mut pit, &mut pic, 0x34, 100, 0);
    pit.write(0x43, 0xe2, ns_at(1), &mut pic);
    assert_eq!(pit.read(0x40, ns_at(1)) & 0x40, 0);
}
