use super::*;

const S: u64 = NS_PER_S;

fn started(value: u8, now: u64) -> WatchdogState {
    let mut watchdog = WatchdogState::default();
    watchdog.write(START, value, now);
    watchdog
}

/// The table in Linux's driver, whose comment quotes the board's manual.
#[test]
fn values_stand_for_the_times_of_the_manual() {
    let seconds: Vec<u64> = (0..16).map(|value| countdown_ns(value) / S).collect();
    assert_eq!(seconds, [30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0]);
    assert_eq!(countdown_ns(0xfd), 4 * S, "the high bits are not looked at");
}

#[test]
fn it_expires_once_and_not_before_its_time() {
    let mut watchdog = started(0x0e, 5);
    assert_eq!(watchdog.deadline_ns(), Some(2 * S + 5));
    assert!(!watchdog.advance(2 * S + 4));
    assert!(watchdog.advance(2 * S + 5));
    assert!(!watchdog.advance(20 * S), "it has stopped");
    assert_eq!(watchdog, WatchdogState::default());
}

#[test]
fn writing_starts_it_anew_and_stopping_stops_it() {
    let mut watchdog = started(0x0e, 0);
    watchdog.write(START, 0x0d, S);
    assert_eq!(watchdog.deadline_ns(), Some(5 * S));
    watchdog.write(STOP, 0x0f, 2 * S);
    assert_eq!(watchdog.deadline_ns(), None);
    assert!(!watchdog.advance(u64::MAX));
}

#[test]
fn nothing_runs_before_it_is_started_and_ports_beside_it_do_nothing() {
    let mut watchdog = WatchdogState::default();
    watchdog.write(0x442, 0, 0);
    assert_eq!(watchdog.deadline_ns(), None);
    let mut watchdog = started(0, 0);
    watchdog.write(0x444, 0, 0);
    assert_eq!(watchdog.deadline_ns(), Some(30 * S));
}

#[test]
fn zero_seconds_are_over_at_once() {
    assert!(started(0x0f, 7).advance(7));
}

#[test]
fn a_machine_that_stood_still_has_not_hung() {
    let mut watchdog = started(0x0e, 0);
    watchdog.handle_step(LEAP_NS_MAX);
    assert_eq!(watchdog.deadline_ns(), Some(2 * S), "so much may lie between two records");
    watchdog.handle_step(60 * S);
    assert!(!watchdog.advance(60 * S));
    assert_eq!(watchdog.deadline_ns(), Some(62 * S - LEAP_NS_MAX));
    let mut stopped = WatchdogState::default();
    stopped.handle_step(60 * S);
    assert_eq!(stopped.deadline_ns(), None);
}

/// Even a clock that leaps at every step gets there.
#[test]
fn a_guest_that_hangs_is_found_however_the_clock_moves() {
    let mut watchdog = started(0x0e, 0);
    let mut now = 0;
    let steps = (1..).find(|_| {
        now += 3 * S;
        watchdog.handle_step(3 * S);
        watchdog.advance(now)
    });
    assert_eq!(steps, Some(2 * S / LEAP_NS_MAX));
}

#[test]
fn the_end_of_time_is_no_surprise() {
    let mut watchdog = started(0, u64::MAX);
    assert_eq!(watchdog.deadline_ns(), Some(u64::MAX));
    watchdog.handle_step(u64::MAX);
    assert!(watchdog.advance(u64::MAX));
}
