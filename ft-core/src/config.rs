//! The named limits and intervals of the protocol (R9), in one place.

use crate::error::Misuse;
use crate::units::Span;

/// What happens when digests are compared (R11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// A difference is reported and the secondary seeded again.
    #[default]
    Report,
    /// Moreover, effects wait until the secondary has compared a digest taken after them: a CPU that computes wrongly is
    /// caught before anybody sees its result.
    Strict,
}

/// Limits and intervals. Both sides should use the same; [`Config::default`] suits a pair on one LAN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// How often each side speaks when it has nothing to say.
    pub heartbeat: Span,
    /// Silence after which a peer counts as lost.
    pub silence: Span,
    /// How long the primary may release effects after a time that the secondary has echoed. Below `silence`, so that
    /// the primary stops before the secondary can be live; the difference is what the two clocks may drift apart
    /// within `silence`.
    pub lease: Span,
    /// How long a peer that talks may hold back what is due: log that it does not acknowledge, state that it does not
    /// take. Then it counts as lost.
    pub stall: Span,
    /// How long a record may wait for others before its frame is sent, when no effect waits for it. Each frame wakes both hosts' network
    /// threads, which takes time from a guest that only computes.
    pub flush_after: Span,
    /// The same while the guest idles: there is nothing the secondary could run ahead to.
    pub flush_idle_after: Span,
    /// After what time without progress the log or the state is sent again. Over a transport that repeats what was lost
    /// (QUIC), this is only a safeguard.
    pub resend_after: Span,
    /// First pause between two tries to reach the arbiter; it doubles up to `silence`.
    pub claim_retry: Span,
    /// How long a machine may stand still to be handed over before it goes on where it is.
    pub handover_patience: Span,
    /// Pause between two greetings of a secondary that wants to join.
    pub hello_retry: Span,
    /// How often the machine's clock is set while it runs.
    pub time_every: Span,
    /// How often a digest of the machine is recorded.
    pub digest_every: Span,
    /// Ticks that a live machine runs between two looks at its inbox.
    pub quantum_ticks: u64,
    /// Size at which a frame is sealed, in bytes.
    pub frame_bytes: usize,
    /// The log kept for the secondary, in bytes. A primary whose secondary is alive but this far behind stops the guest.
    pub ring_bytes: usize,
    /// Effects that wait, in bytes.
    pub gate_bytes: usize,
    /// Events that wait to enter the machine, in bytes.
    pub inbox_bytes: usize,
    /// Records that a secondary keeps before it has applied them, in bytes of log.
    pub backlog_bytes: usize,
    /// State on its way to a joining secondary, in bytes.
    pub transfer_bytes: usize,
    /// A joining secondary is close enough to be depended on once this much of the log is unacknowledged, in bytes.
    pub catch_up_bytes: usize,
    /// Within what time log is acknowledged that no effect waits for.
    pub ack_after: Span,
    /// How far the secondary's machine may run behind before the primary is slowed.
    pub lag_target: Span,
    /// What follows from digests.
    pub verify: Verify,
    /// Whether each frame of the live side's log is handed out, for a recording.
    pub record: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Span::from_ms(100),
            silence: Span::from_ms(300),
            lease: Span::from_ms(190),
            stall: Span::from_ms(5000),
            flush_after: Span::from_ms(15),
            flush_idle_after: Span::from_ms(50),
            resend_after: Span::from_ms(1000),
            claim_retry: Span::from_ms(10),
            handover_patience: Span::from_ms(500),
            hello_retry: Span::from_ms(100),
            time_every: Span::from_ms(10),
            digest_every: Span::from_ms(1000),
            quantum_ticks: 200_000,
            frame_bytes: 128 << 10,
            ring_bytes: 32 << 20,
            gate_bytes: 8 << 20,
            inbox_bytes: 4 << 20,
            backlog_bytes: 32 << 20,
            transfer_bytes: 8 << 20,
            catch_up_bytes: 256 << 10,
            ack_after: Span::from_ms(20),
            lag_target: Span::from_ms(10),
            verify: Verify::Report,
            record: false,
        }
    }
}

impl Config {
    /// Refuses values with which the protocol would be unsafe or could not move.
    ///
    /// # Errors
    /// [`Misuse::Config`], which names the field and what to do.
    pub fn validate(&self) -> Result<(), Misuse> {
        let wrong = |field, value, hint| Err(Misuse::Config { field, value, hint });
        if self.heartbeat == Span::ZERO {
            return wrong("heartbeat", 0, "choose 10 ms to 1 s");
        }
        if self.silence < self.heartbeat.scale(3, 1) {
            return wrong(
                "silence",
                self.silence.0,
                "choose at least three heartbeats, or one lost datagram ends the pair",
            );
        }
        // The hundredth allows for clocks that differ by 1 %, a hundred times what a quartz does; the heartbeat for one
        // leap of the secondary's clock, of which at most so much counts as silence.
        let longest = Span(self.silence.0.saturating_sub(self.heartbeat.0)).scale(99, 100);
        if self.lease > longest || self.lease <= self.heartbeat {
            let hint = "choose more than one heartbeat and at most 0.99 of silence less one heartbeat";
            return wrong("lease", self.lease.0, hint);
        }
        if self.stall < self.silence {
            return wrong("stall", self.stall.0, "choose at least the silence limit");
        }
        if self.frame_bytes < 64 || self.frame_bytes > 512 << 10 {
            return wrong("frame_bytes", self.frame_bytes as u64, "choose 64 bytes to 512 KiB");
        }
        let smallest = [
            ("ring_bytes", self.ring_bytes),
            ("gate_bytes", self.gate_bytes),
            ("inbox_bytes", self.inbox_bytes),
            ("backlog_bytes", self.backlog_bytes),
            ("transfer_bytes", self.transfer_bytes),
            ("catch_up_bytes", self.catch_up_bytes),
            ("quantum_ticks", self.quantum_ticks as usize),
        ];
        if let Some((field, _)) = smallest.iter().find(|(_, value)| *value == 0) {
            return wrong(field, 0, "choose more than zero");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_a_lease_beyond_the_silence_is_not() {
        let config = Config::default();
        config.validate().unwrap();
        let unsafe_lease = Config { lease: config.silence, ..config.clone() };
        assert!(unsafe_lease.validate().unwrap_err().to_string().starts_with("lease = "));
        let deaf = Config { silence: config.heartbeat, ..config };
        assert!(deaf.validate().unwrap_err().to_string().contains("three heartbeats"));
    }
}
