//! Reads keys back, and compares them with what they must hold.

use super::faults::Faults;
use super::keys::{Key, State};
use super::model::{Model, Pending};
use super::resp::{Reply, ReplyReader, encode};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// Keys asked for at a time.
const BATCH: usize = 16;

/// What reading back found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) faults: Faults,
    pub(super) keys: u64,
    pub(super) stories: Vec<String>,
}

/// Reads all keys of a connection. Those changed by requests in doubt may hold what they held after any of them, or before.
///
/// # Errors
/// When the connection fails. What was found until then is lost.
pub(super) fn read_back(
    model: &Model,
    in_doubt: &[Pending],
    stream: &mut (impl Read + Write),
) -> io::Result<Found> {
    let mut found = Found::default();
    let keys: Vec<(Key, Vec<State>)> = allowed(model, in_doubt).into_iter().collect();
    for batch in keys.chunks(BATCH) {
        let mut out = Vec::new();
        for (key, _) in batch {
            encode(&mut out, &[b"GET", &model.name(*key)]);
        }
        stream.write_all(&out)?;
        let mut reader = ReplyReader::default();
        for (key, states) in batch {
            let reply = next(&mut reader, stream)?;
            let faults = judge(*key, states, &reply);
            if !faults.is_none() {
                let story = format!("read back: {key}: expected {states:?}, got {}", reply.borrow());
                found.stories.push(story);
            }
            found.faults += faults;
            found.keys += 1;
        }
    }
    Ok(found)
}

/// What each key may hold.
fn allowed(model: &Model, in_doubt: &[Pending]) -> BTreeMap<Key, Vec<State>> {
    let mut allowed: BTreeMap<Key, Vec<State>> =
        model.acknowledged().map(|(key, state)| (key, vec![state])).collect();
    for pending in in_doubt {
        for (key, state) in &pending.effects {
            if pending.makes {
                // Whether or not it was made, nothing is known about what was there before.
                allowed.remove(key);
            } else if let Some(states) = allowed.get_mut(key) {
                states.push(*state);
            }
        }
    }
    allowed
}

fn judge(key: Key, states: &[State], reply: &Reply<Vec<u8>>) -> Faults {
    let Reply::Bulk(content) = reply else { return Faults::CORRUPTED };
    let each = states.iter().map(|state| state.compare(key, content.as_deref()));
    each.min_by_key(Faults::total).unwrap_or_default()
}

fn next(reader: &mut ReplyReader, stream: &mut impl Read) -> io::Result<Reply<Vec<u8>>> {
    loop {
        if let Some(reply) = reader.next_reply().map_err(io::Error::other)? {
            return Ok(reply.to_owned());
        }
        reader.fill(stream)?;
    }
}
