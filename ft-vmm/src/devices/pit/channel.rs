//! One counter of the 8254. Times are in counts.

use serde::{Deserialize, Serialize};

/// How the data port is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Access {
    Low,
    High,
    /// Low byte, then high byte.
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Mode {
    /// Mode 0: low until the count is over.
    Terminal,
    /// Mode 2: low for one count in each period.
    Rate,
    /// Mode 3: high for one half of each period.
    Square,
    /// Mode 4: low for one count when the count is over.
    Strobe,
    /// Modes 1 and 5: wait for a trigger.
    Triggered(u8),
}

impl Mode {
    fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::Terminal,
            2 | 6 => Self::Rate,
            3 | 7 => Self::Square,
            4 => Self::Strobe,
            other => Self::Triggered(other),
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::Terminal => 0,
            Self::Rate => 2,
            Self::Square => 3,
            Self::Strobe => 4,
            Self::Triggered(bits) => bits,
        }
    }

    fn is_periodic(self) -> bool {
        matches!(self, Self::Rate | Self::Square)
    }
}

/// Whether the counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Run {
    /// No count has been written since the control word, or no trigger has come; the counter shows this.
    Idle { shows: u16 },
    /// Since then; the first count of time loads the counter.
    Since(u64),
    /// Its gate has been low since then, after it had run for so long.
    Held { elapsed: u64, since: u64 },
}

/// A count written while a periodic mode runs: loaded when the period ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Next {
    count: u16,
    from: u64,
}

/// Registers and latches of one counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Channel {
    access: Access,
    mode: Mode,
    bcd: bool,
    gate: bool,
    /// As the guest wrote it; 0 stands for the largest.
    count: u16,
    run: Run,
    next: Option<Next>,
    /// Low byte written, high byte awaited.
    low_written: Option<u8>,
    /// Low byte read, high byte next.
    low_read: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
}

impl Run {
    /// How long it has run, when it does or did.
    fn elapsed(self, now: u64) -> Option<u64> {
        match self {
            Self::Idle { .. } => None,
            Self::Since(start) => Some(now.saturating_sub(start)),
            // The gate does not keep the counter from being loaded.
            Self::Held { elapsed: 0, since } => Some(u64::from(now > since)),
            Self::Held { elapsed, .. } => Some(elapsed),
        }
    }
}

impl Channel {
    pub(super) fn new(gate: bool) -> Self {
        Self {
            access: Access::Both,
            mode: Mode::Square,
            bcd: false,
            gate,
            count: 0,
            run: Run::Idle { shows: 0 },
            next: None,
            low_written: None,
            low_read: false,
            latched_count: None,
            latched_status: None,
        }
    }

    /// A control word for this channel; with access bits 0 it latches the count.
    pub(super) fn control(&mut self, word: u8, now: u64) {
        let access = match word >> 4 & 3 {
            1 => Access::Low,
            2 => Access::High,
            3 => Access::Both,
            _ => return self.latch_count(now),
        };
        let shows = self.shows(now);
        let mode = Mode::from_bits(word >> 1);
        *self = Self { access, mode, bcd: word & 1 != 0, run: Run::Idle { shows }, ..Self::new(self.gate) };
    }

    pub(super) fn write_count(&mut self, value: u8, now: u64) {
        match self.access {
            Access::Low => self.start(u16::from(value), now),
            Access::High => self.start(u16::from(value) << 8, now),
            Access::Both => match self.low_written.take() {
                Some(low) => self.start(u16::from_le_bytes([low, value]), now),
                None => {
                    self.low_written = Some(value);
                    if self.mode == Mode::Terminal {
                        // The first byte stops the counter.
                        self.run = Run::Idle { shows: self.shows(now) };
                    }
                }
            },
        }
    }

    fn start(&mut self, count: u16, now: u64) {
        self.settle(now);
        if self.mode.is_periodic() && !matches!(self.run, Run::Idle { .. }) {
            self.next = match self.run {
                Run::Since(_) => Some(Next { count, from: self.period_end(now) }),
                // The gate's rise starts the period anew.
                _ => Some(Next { count, from: u64::MAX }),
            };
            return;
        }
        self.count = count;
        self.run = match self.mode {
            Mode::Triggered(_) => Run::Idle { shows: self.shows(now) },
            _ if self.gate => Run::Since(now),
            _ => Run::Held { elapsed: 0, since: now },
        };
    }

    /// A rising gate goes on in modes 0 and 4, and starts a period in modes 2 and 3.
    pub(super) fn set_gate(&mut self, gate: bool, now: u64) {
        if gate == self.gate {
            return;
        }
        self.settle(now);
        self.gate = gate;
        self.run = match self.run {
            Run::Since(start) if !gate => Run::Held { elapsed: now.saturating_sub(start), since: now },
            Run::Held { .. } if gate && self.mode.is_periodic() => {
                self.count = self.next.take().map_or(self.count, |next| next.count);
                Run::Since(now)
            }
            run => match run.elapsed(now) {
                Some(elapsed) if gate => Run::Since(now.saturating_sub(elapsed)),
                _ => run,
            },
        };
        if let (Some(next), false) = (&mut self.next, gate) {
            next.from = u64::MAX;
        }
    }

    /// Loads a count whose period has come.
    fn settle(&mut self, now: u64) {
        *self = self.settled(now);
    }

    fn settled(&self, now: u64) -> Self {
        match self.next {
            Some(next) if next.from < now => {
                Self { count: next.count, run: Run::Since(next.from), next: None, ..self.clone() }
            }
            _ => self.clone(),
        }
    }

    /// Counts of a period.
    fn period(&self) -> u64 {
        let count = if self.bcd { from_bcd(self.count) } else { u64::from(self.count) };
        match count {
            0 if self.bcd => 10_000,
            0 => 0x1_0000,
            1 if self.mode.is_periodic() => 2,
            count => count,
        }
    }

    /// When the period that runs at `now` ends. Periods end so that the next one's start, like a write, precedes the load by one.
    fn period_end(&self, now: u64) -> u64 {
        let Run::Since(start) = self.run else { return u64::MAX };
        let periods = now.saturating_sub(start).div_ceil(self.period());
        start.saturating_add(periods.saturating_mul(self.period()))
    }

    /// The output.
    pub(super) fn output(&self, now: u64) -> bool {
        let this = self.settled(now);
        let period = this.period();
        let Some(elapsed) = this.run.elapsed(now) else { return this.mode != Mode::Terminal };
        match this.mode {
            Mode::Terminal => elapsed > period,
            Mode::Strobe => elapsed != period + 1,
            Mode::Rate | Mode::Square if !this.gate => true,
            Mode::Rate => elapsed == 0 || (elapsed - 1) % period != period - 1,
            Mode::Square => elapsed == 0 || (elapsed - 1) % period < period.div_ceil(2),
            Mode::Triggered(_) => true,
        }
    }

    /// When the output rises next, after `now`.
    pub(super) fn next_rise(&self, now: u64) -> Option<u64> {
        let this = self.settled(now);
        let Run::Since(start) = this.run else { return None };
        let rise = match this.mode {
            Mode::Terminal => start.checked_add(this.period() + 1)?,
            Mode::Strobe => start.checked_add(this.period() + 2)?,
            Mode::Rate | Mode::Square => {
                let periods =
                    now.checked_sub(start.saturating_add(1)).map_or(0, |elapsed| elapsed / this.period());
                start.checked_add((periods + 1).checked_mul(this.period())?)?.checked_add(1)?
            }
            Mode::Triggered(_) => return None,
        };
        (rise > now).then_some(rise)
    }

    /// What the counter shows.
    fn shows(&self, now: u64) -> u16 {
        let this = self.settled(now);
        let elapsed = match this.run {
            Run::Idle { shows } => return shows,
            run => run.elapsed(now).unwrap_or(0),
        };
        // Before the load it shows what it will be loaded with: the guest cannot tell.
        let (counted, period) = (elapsed.saturating_sub(1), this.period());
        let value = match this.mode {
            Mode::Rate => period - counted % period,
            Mode::Square => {
                let half = period.div_ceil(2);
                let phase = if counted % period < half { counted % period } else { counted % period - half };
                (period & !1) - 2 * phase
            }
            // Past zero it goes on counting, round and round.
            _ if this.bcd => (period + 10_000 - counted % 10_000) % 10_000,
            _ => period.wrapping_sub(counted),
        };
        if this.bcd { to_bcd(value) } else { value as u16 }
    }

    pub(super) fn latch_count(&mut self, now: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.shows(now));
        }
    }

    pub(super) fn latch_status(&mut self, now: u64) {
        let access = match self.access {
            Access::Low => 1,
            Access::High => 2,
            Access::Both => 3,
        };
        let this = self.settled(now);
        let not_loaded = this.next.is_some() || this.run.elapsed(now).is_none_or(|elapsed| elapsed == 0);
        let status = u8::from(self.output(now)) << 7
            | u8::from(not_loaded) << 6
            | access << 4
            | self.mode.bits() << 1
            | u8::from(self.bcd);
        self.latched_status.get_or_insert(status);
    }

    pub(super) fn read(&mut self, now: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.shows(now)).to_le_bytes();
        let (byte, done) = match self.access {
            Access::Low => (low, true),
            Access::High => (high, true),
            Access::Both => {
                self.low_read = !self.low_read;
                if self.low_read { (low, false) } else { (high, true) }
            }
        };
        if done {
            self.latched_count = None;
        }
        byte
    }
}

fn from_bcd(value: u16) -> u64 {
    // Digits above 9 count as what they are.
    (0..4).rev().fold(0, |sum, digit| sum * 10 + u64::from(value >> (4 * digit) & 15))
}

fn to_bcd(value: u64) -> u16 {
    (0..4).fold(0, |sum, digit| sum | (value / 10u64.pow(digit) % 10) << (4 * digit)) as u16
}
