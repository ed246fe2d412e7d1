//! The watchdog: a guest that does not come round to it in time is reset.
//!
//! Whoever waits for something, and whoever works for long, says from time to time that the guest is alive.

use super::cpu::out8;
use core::sync::atomic::{AtomicU8, Ordering};

/// Starts the countdown anew; the value says from where.
const START: u16 = 0x443;
/// Seconds that the longest countdown takes, and those that each step of the value is less.
const LONGEST_S: u8 = 30;
const STEP_S: u8 = 2;
/// No value of the device's.
const OFF: u8 = 0xff;

/// What the device is written.
static VALUE: AtomicU8 = AtomicU8::new(OFF);

/// From now on the guest is reset when it does not call [`alive`] for so many seconds, up to the next even number; 0: never.
pub(crate) fn start(seconds: u8) {
    let value = match seconds {
        0 => OFF,
        seconds => LONGEST_S.saturating_sub(seconds) / STEP_S,
    };
    VALUE.store(value, Ordering::Relaxed);
    alive();
}

/// The guest is alive.
pub(crate) fn alive() {
    let value = VALUE.load(Ordering::Relaxed);
    if value != OFF {
        out8(START, value);
    }
}
