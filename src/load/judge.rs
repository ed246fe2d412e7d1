//! Decides what a reply that is not the expected one means.
//!
//! When two replies change places, each looks like a loss, a duplicate or garbage. So unexpected replies are collected for a
//! moment: if they are the expected ones in another order, they are misordered and nothing else; if not, each is judged by
//! itself.

use super::faults::Faults;
use super::model::{Model, Pending};
use super::resp::Reply;

/// Stories kept.
pub(super) const MOST_STORIES: usize = 16;

struct Suspect {
    pending: Pending,
    reply: Reply<Vec<u8>>,
}

pub(super) struct Judge {
    suspects: Vec<Suspect>,
    /// Replies until the suspects are judged one by one.
    left: usize,
    window: usize,
    /// What was wrong, in words, until somebody takes it.
    pub(super) stories: Vec<String>,
}

/// What became of a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) faults: Faults,
    /// The server refused the request.
    pub(super) refused: bool,
}

impl Judge {
    /// Replies change places among so many at most.
    pub(super) fn new(pipeline: usize) -> Self {
        Self { suspects: Vec::new(), left: 0, window: 2 * pipeline, stories: Vec::new() }
    }

    /// Checks a reply.
    pub(super) fn handle_reply(
        &mut self,
        model: &mut Model,
        pending: Pending,
        reply: Reply<&[u8]>,
    ) -> Verdict {
        model.acknowledge(&pending);
        let mut verdict = Verdict::default();
        if let Reply::Error(_) = reply {
            verdict.refused = true;
            self.tell("refused", &pending, &reply);
            model.give_up(&pending);
        } else if model.is_current(pending.key) && !pending.expected.compare(pending.key, &reply).is_none() {
            if self.suspects.is_empty() {
                self.left = self.window;
            }
            self.suspects.push(Suspect { pending, reply: reply.to_owned() });
            if self.is_permutation() {
                verdict.faults.misordered = self.suspects.len() as u64;
                for Suspect { pending, reply } in std::mem::take(&mut self.suspects) {
                    self.tell("misordered", &pending, &reply.borrow());
                }
            }
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            verdict.faults += self.flush(model);
        }
        verdict
    }

    /// Judges what was collected: no more replies will explain it.
    pub(super) fn flush(&mut self, model: &mut Model) -> Faults {
        let mut faults = Faults::NONE;
        for Suspect { pending, reply } in std::mem::take(&mut self.suspects) {
            // The key's first fault explains the later ones.
            if model.is_current(pending.key) {
                faults += pending.expected.compare(pending.key, &reply.borrow());
                self.tell("wrong", &pending, &reply.borrow());
                model.give_up(&pending);
            }
        }
        faults
    }

    fn tell(&mut self, what: &str, pending: &Pending, reply: &Reply<&[u8]>) {
        if self.stories.len() < MOST_STORIES {
            self.stories
                .push(format!("{what}: {}: expected {:?}, got {reply}", pending.key, pending.expected));
        }
    }

    /// Whether the replies are the expected ones in another order.
    fn is_permutation(&self) -> bool {
        let mut free: Vec<&Suspect> = self.suspects.iter().collect();
        self.suspects.iter().all(|Suspect { reply, .. }| {
            let fits = |other: &&Suspect| {
                other.pending.expected.compare(other.pending.key, &reply.borrow()).is_none()
            };
            free.iter().position(fits).map(|at| free.swap_remove(at)).is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::config::LoadConfig;
    use super::super::keys::{Kind, State};
    use super::super::model::Expected;
    use super::*;
    use std::time::Instant;

    fn model() -> Model {
        Model::new(&LoadConfig::new("127.0.0.1:1".parse().unwrap()), 0)
    }

    /// The next request of a kind, after all keys of the kind are known.
    fn next(model: &mut Model, fits: impl Fn(&Pending) -> bool) -> Pending {
        loop {
            let pending = model.next_request(&mut Vec::new(), Instant::now());
            model.acknowledge(&pending);
            if fits(&pending) {
                return pending;
            }
        }
    }

    fn incr(model: &mut Model) -> (Pending, i64) {
        let pending = next(model, |pending| matches!(pending.expected, Expected::Count(_)));
        let Expected::Count(count) = pending.expected else { unreachable!() };
        (pending, count as i64)
    }

    fn get(model: &mut Model) -> (Pending, Vec<u8>) {
        let fits = |pending: &Pending| {
            pending.key.kind == Kind::Register
                && matches!(pending.expected, Expected::Content(State::Written { .. }))
        };
        let pending = next(model, fits);
        let Expected::Content(State::Written { number, size }) = pending.expected else { unreachable!() };
        let value = pending.key.value(number, size);
        (pending, value)
    }

    #[test]
    fn replies_that_change_places_are_misordered_and_nothing_else() {
        let (mut model, mut judge) = (model(), Judge::new(4));
        let ((a, one), (b, value), (c, three)) = (incr(&mut model), get(&mut model), incr(&mut model));
        let mut faults = Faults::NONE;
        for (pending, reply) in
            [(a, Reply::Integer(three)), (b, Reply::Integer(one)), (c, Reply::Bulk(Some(&value[..])))]
        {
            faults += judge.handle_reply(&mut model, pending, reply).faults;
        }
        assert_eq!(faults, Faults { misordered: 3, ..Faults::NONE });
        assert_eq!(judge.flush(&mut model), Faults::NONE);
    }

    #[test]
    fn a_counter_that_is_ahead_is_duplicated_once_however_many_replies_say_so() {
        let (mut model, mut judge) = (model(), Judge::new(4));
        let (first, count) = incr(&mut model);
        let key = first.key;
        let mut faults = judge.handle_reply(&mut model, first, Reply::Integer(count + 1)).faults;
        for _ in 0..20 {
            let again = next(&mut model, |pending| {
                pending.key.index == key.index && matches!(pending.expected, Expected::Count(_))
            });
            let Expected::Count(count) = again.expected else { unreachable!() };
            let ahead = if model.is_current(again.key) && again.key == key { 1 } else { 0 };
            faults += judge.handle_reply(&mut model, again, Reply::Integer(count as i64 + ahead)).faults;
        }
        faults += judge.flush(&mut model);
        assert_eq!(faults, Faults::duplicated(1));
    }

    #[test]
    fn a_refused_request_is_no_fault_but_its_key_is_made_anew() {
        let (mut model, mut judge) = (model(), Judge::new(4));
        let (pending, _) = get(&mut model);
        let verdict = judge.handle_reply(&mut model, pending.clone(), Reply::Error(b"ERR"));
        assert_eq!(verdict, Verdict { faults: Faults::NONE, refused: true });
        assert!(!model.is_current(pending.key));
        let again =
            |again: &Pending| (again.key.kind, again.key.index) == (pending.key.kind, pending.key.index);
        let made = next(&mut model, again);
        assert!(made.makes && made.key != pending.key && made.expected == Expected::ZeroOrOne);
    }
}
