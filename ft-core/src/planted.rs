//! Bugs on purpose, one for each rule, or promise within one, whose breach must be found. Only in tests of this crate: elsewhere `planted` is
//! constant and false. They prove that the simulation's checkers can fail.

/// Which rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Effects leave before the secondary has acknowledged.
    R3,
    /// A primary that loses contact goes solo without asking the arbiter.
    R4,
    /// A primary that loses a claim goes on.
    R5,
    /// A secondary that goes live forgets the effects in doubt.
    R7,
    /// Effects do not wait for a joining secondary that may already claim.
    R8,
    /// An heir goes live without waiting for the copy that yielded.
    Heir,
    /// An attempt at a further copy is not given up before the next.
    Respawn,
    /// Effects do not wait for a second secondary that may already claim.
    Relief,
}

#[cfg(not(test))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Runs `f` with a bug in place, on this thread.
#[cfg(test)]
pub(crate) fn with<T>(bug: Bug, f: impl FnOnce() -> T) -> T {
    PLANTED.set(Some(bug));
    let result = f();
    PLANTED.set(None);
    result
}
