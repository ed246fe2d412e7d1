//! What an arbiter keeps under a term: one line that says who owns it.
//!
//! ```text
//! host 1 incarnation 1729345 at 2026-11-20T14:09:19Z
//! ```
//!
//! Invariant: only host and incarnation are ever read back for a decision. What follows them is a remark, and may be anything.

use ft_core::units::{HostId, NodeId};
use ft_net::identity::UtcTime;
use std::fmt;
use std::time::SystemTime;

/// An owner, and what it noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) owner: NodeId,
    pub(super) remark: String,
}

impl Entry {
    /// The entry of a claim that is made now.
    pub(super) fn now(owner: NodeId) -> Self {
        Self { owner, remark: format!("at {}", UtcTime::from(SystemTime::now())) }
    }

    /// Reads an entry; `None` when it is not a whole one. The end of the line is a part of it: a number that was cut short would be
    /// another's.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (line, _) = text.split_once('\n')?;
        let mut words = line.split_whitespace();
        let mut number = |name| match (words.next(), words.next()) {
            (Some(word), Some(value)) if word == name => value.parse().ok(),
            _ => None,
        };
        let owner = NodeId { host: HostId(number("host")?), incarnation: number("incarnation")? };
        Some(Self { owner, remark: words.collect::<Vec<_>>().join(" ") })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, remark } = self;
        writeln!(f, "host {} incarnation {} {remark}", owner.host.0, owner.incarnation)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OWNER: NodeId = NodeId { host: HostId(3), incarnation: 1234 };

    #[test]
    fn an_entry_is_read_back_and_dated() {
        let entry = Entry::now(OWNER);
        assert_eq!(Entry::parse(&entry.to_string()).unwrap(), entry);
        assert!(entry.remark.starts_with("at 20") && entry.remark.ends_with('Z'), "{}", entry.remark);
    }

    #[test]
    fn remarks_decide_nothing() {
        for remark in ["", " at 1970-01-01T00:00:00Z", " at the end of time", " host 9 incarnation 9"] {
            let entry = Entry::parse(&format!("host 3 incarnation 1234{remark}\n")).unwrap();
            assert_eq!((entry.owner, &entry.remark[..]), (OWNER, remark.trim()));
        }
    }

    #[test]
    fn what_is_not_whole_names_nobody() {
        let whole = "host 3 incarnation 1234\n";
        for end in 0..whole.len() {
            assert_eq!(Entry::parse(&whole[..end]), None, "{:?}", &whole[..end]);
        }
        for text in
            ["garbage\n", "host x incarnation 1\n", "incarnation 1 host 3\n", "host 3 incarnation -1\n"]
        {
            assert_eq!(Entry::parse(text), None, "{text}");
        }
    }
}
