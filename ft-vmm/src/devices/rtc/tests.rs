use super::*;

const S: u64 = NS_PER_S;

/// 2024-02-29 23:59:58 UTC, a Thursday.
const LEAP_DAY: u64 = 1_709_251_198;

struct Rig {
    rtc: RtcState,
    pic: PicState,
}

impl Rig {
    /// A clock whose interrupt reaches the processor.
    fn new(epoch_s: u64) -> Self {
        let mut pic = PicState::default();
        pic.write(0x21, 0xfb);
        pic.write(0xa1, 0xfe);
        Self { rtc: RtcState::new(epoch_s), pic }
    }

    fn read(&mut self, index: u8, now: u64) -> u8 {
        self.rtc.write(0x70, index, now, &mut self.pic);
        self.rtc.read(0x71, now, &mut self.pic)
    }

    fn write(&mut self, index: u8, value: u8, now: u64) {
        self.rtc.write(0x70, index, now, &mut self.pic);
        self.rtc.write(0x71, value, now, &mut self.pic);
    }

    /// Century to second.
    fn time(&mut self, now: u64) -> [u8; 7] {
        [CENTURY, 9, 8, 7, 4, 2, 0].map(|index| self.read(index, now))
    }
}

#[test]
fn it_follows_the_machines_clock() {
    let mut rig = Rig::new(LEAP_DAY);
    assert_eq!(rig.time(0), [0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x58]);
    assert_eq!(rig.read(6, 0), 5);
    assert_eq!(rig.time(2 * S - 1), [0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x59]);
    assert_eq!(rig.time(2 * S), [0x20, 0x24, 0x03, 0x01, 0, 0, 0]);
    rig.write(B, 4, 0);
    assert_eq!(rig.time(0), [20, 24, 2, 29, 0x80 | 11, 59, 58], "binary, twelve hours");
}

#[test]
fn an_update_is_announced() {
    let mut rig = Rig::new(0);
    assert_eq!(rig.read(A, S - UPDATE_NOTICE_NS - 1) & A_UPDATING, 0);
    assert_eq!(rig.read(A, S - UPDATE_NOTICE_NS) & A_UPDATING, A_UPDATING);
    assert_eq!(rig.read(A, S) & A_UPDATING, 0);
}

#[test]
fn the_time_can_be_set() {
    let mut rig = Rig::new(0);
    rig.write(B, B_SET | 2, 5 * S);
    for (index, value) in [(0, 0x56), (2, 0x34), (4, 0x12), (7, 0x31), (8, 0x12), (9, 0x99), (CENTURY, 0x19)]
    {
        rig.write(index, value, 5 * S);
    }
    assert_eq!(rig.read(0, 9 * S), 0x56, "it stands");
    rig.write(B, 2, 10 * S);
    assert_eq!(rig.time(11 * S), [0x19, 0x99, 0x12, 0x31, 0x12, 0x34, 0x57]);
    rig.write(2, 0x59, 11 * S);
    assert_eq!(rig.time(12 * S), [0x19, 0x99, 0x12, 0x31, 0x12, 0x59, 0x58], "without SET, too");
}

#[test]
fn dates_that_no_calendar_has_do_no_harm() {
    let mut rig = Rig::new(0);
    rig.write(B, B_SET, 0);
    for index in calendar::REGISTERS {
        rig.write(index, 0xff, 0);
    }
    rig.write(B, 0, 0);
    rig.time(u64::MAX);
}

#[test]
fn updates_interrupt_until_c_is_read() {
    let mut rig = Rig::new(0);
    rig.write(B, 2 | B_UPDATE, S / 2);
    assert_eq!(rig.rtc.deadline_ns(), Some(S));
    rig.rtc.advance(S - 1, &mut rig.pic);
    assert!(!rig.pic.interrupt());
    rig.rtc.advance(S, &mut rig.pic);
    assert!(rig.pic.interrupt());
    assert_eq!(rig.rtc.deadline_ns(), None, "no more until the guest has looked");
    assert_eq!(rig.read(C, S) & !PERIODIC, C_PENDING | UPDATED);
    assert_eq!(rig.read(C, S), 0);
    assert_eq!(rig.rtc.deadline_ns(), Some(2 * S));
}

#[test]
fn periods_come_at_their_rate() {
    let mut rig = Rig::new(0);
    // Rate 6: 1024 Hz.
    rig.write(B, 2 | PERIODIC, 0);
    let mut count = 0;
    while let Some(deadline) = rig.rtc.deadline_ns().filter(|deadline| *deadline <= S) {
        rig.rtc.advance(deadline, &mut rig.pic);
        assert_eq!(rig.read(C, deadline) & PERIODIC, PERIODIC);
        count += 1;
    }
    assert_eq!(count, 1024);
}

#[test]
fn the_alarm_rings_at_its_second() {
    let mut rig = Rig::new(LEAP_DAY);
    for (index, value) in [(5, 0xc0), (3, 0x00), (1, 0x05)] {
        rig.write(index, value, 0);
    }
    rig.write(B, 2 | ALARM, 0);
    assert_eq!(rig.rtc.deadline_ns(), Some(7 * S));
    rig.rtc.advance(7 * S, &mut rig.pic);
    assert!(rig.pic.interrupt());
    assert_eq!(rig.read(C, 7 * S) & (C_PENDING | ALARM), C_PENDING | ALARM);
    assert_eq!(rig.rtc.deadline_ns(), Some(3607 * S));
}

#[test]
fn flags_are_set_without_interrupts() {
    let mut rig = Rig::new(0);
    assert_eq!(rig.read(C, 10 * S), PERIODIC | UPDATED);
    assert_eq!(rig.read(C, 10 * S), 0);
    rig.write(A, A_RUNS, 10 * S);
    assert_eq!(rig.read(C, 10 * S + 1), 0, "no rate, no period");
    assert!(!rig.pic.interrupt());
}

#[test]
fn memory_keeps_what_is_written() {
    let mut rig = Rig::new(0);
    rig.write(0x40, 0xab, 0);
    rig.rtc.reset();
    assert_eq!(rig.read(0x40, 0), 0xab);
    assert_eq!(rig.read(D, 0), D_VALID);
    assert_eq!(rig.rtc.read(0x70, 0, &mut rig.pic), 0xff);
}
