//! How an error is told in a place that has one line for it: a terminal, a report, a pipe to another process.

use std::error::Error;

/// An error and its sources in one line, outermost first.
pub fn in_one_line(error: &dyn Error) -> String {
    let sources = std::iter::successors(error.source(), |&source| source.source());
    sources.fold(error.to_string(), |line, source| format!("{line}: {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiserror::Error;

    #[derive(Debug, Error)]
    #[error("cannot start")]
    struct Outer(#[source] Inner);

    #[derive(Debug, Error)]
    #[error("cannot read x")]
    struct Inner(#[source] std::io::Error);

    #[test]
    fn every_source_is_told_outermost_first() {
        let lowest = || std::io::Error::other("no such luck");
        assert_eq!(in_one_line(&lowest()), "no such luck");
        assert_eq!(in_one_line(&Outer(Inner(lowest()))), "cannot start: cannot read x: no such luck");
    }
}
