//! The quantities of the protocol, one type each, so that a term can never be taken for a tick.

use std::fmt;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            ///
            /// # Panics
            /// At `u64::MAX`, which no execution reaches.
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a u64 counter does not wrap"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

counter! {
    /// Number of a record in the machine's history. The first record is 1; 0 means "none yet".
    Seq, "#"
}
counter! {
    /// Number of an effect in the machine's history. The first effect is 1; 0 means "none yet".
    EffectSeq, "e"
}
counter! {
    /// Grows by one each time somebody goes live or goes solo (R4). The first live machine owns term 1.
    Term, "term "
}
counter! {
    /// The vCPU backend's own clock: retired instructions or synchronous exits.
    Tick, "tick "
}
counter! {
    /// Names one attempt of one secondary to join one primary. Drawn at random by the driver; 0 is never used.
    Session, "session "
}

/// A host, as the driver numbers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u64);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {}", self.0)
    }
}

/// One life of one replica on one host. A replica that starts again is another node, because what it knew is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// Where it runs.
    pub host: HostId,
    /// Drawn at random when the replica starts, so that no two lives share one.
    pub incarnation: u64,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} life {:x}", self.host, self.incarnation)
    }
}

/// A length of time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// From microseconds.
    pub const fn from_us(us: u64) -> Self {
        Self(us * 1_000)
    }

    /// From milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// `self * numerator / denominator`, rounded down.
    pub const fn scale(self, numerator: u64, denominator: u64) -> Self {
        Self(self.0 / denominator * numerator + self.0 % denominator * numerator / denominator)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} ms", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}

/// A moment on the driver's monotonic clock, in nanoseconds since a start of the driver's choosing.
///
/// The clock must not stop while the process is stopped (SIGSTOP) or the host is suspended: leases are measured
/// on it. On Linux that is `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// Time since `earlier`; zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Span> for Instant {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Span(self.0))
    }
}

/// The machine's own clock in nanoseconds, which only [`Event::Time`](crate::Event::Time) records move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualTime(pub u64);

impl fmt::Display for VirtualTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Span(self.0))
    }
}
