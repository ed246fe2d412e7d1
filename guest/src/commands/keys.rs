//! Commands on keys, whatever their values.

use super::{Call, Outcome, Refusal, packed};
use crate::glob;
use crate::store::NEVER;
use alloc::vec::Vec;

pub(super) fn remove<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let removed = call.arguments.from(1).filter(|key| call.service.remove(key)).count();
    call.reply.integer(removed as i64);
    Ok(())
}

pub(super) fn exists<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let found = call.arguments.from(1).filter(|key| call.service.read(key).is_some()).count();
    call.reply.integer(found as i64);
    Ok(())
}

pub(super) fn kind<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let found = call.service.store.get(call.at(1)).is_some();
    call.reply.simple(if found { "string" } else { "none" });
    Ok(())
}

pub(super) fn dbsize<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    call.reply.integer(call.service.store.len() as i64);
    Ok(())
}

pub(super) fn flush<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    const ASYNC: u64 = packed(b"ASYNC");
    const SYNC: u64 = packed(b"SYNC");
    if call.count() > 2 || call.count() == 2 && !matches!(call.word(1), ASYNC | SYNC) {
        return Err(Refusal::Syntax);
    }
    call.service.clear();
    call.reply.ok();
    Ok(())
}

pub(super) fn ttl<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let left = time_left(call);
    // Rounded, as Redis does.
    call.reply.integer(if left < 0 { left } else { (left + 500) / 1000 });
    Ok(())
}

pub(super) fn pttl<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let left = time_left(call);
    call.reply.integer(left);
    Ok(())
}

/// Milliseconds, -1 for ever, -2 without a key.
fn time_left(call: &Call<'_>) -> i64 {
    match call.service.store.get(call.at(1)) {
        None => -2,
        Some(entry) if entry.deadline() == NEVER => -1,
        Some(entry) => entry.deadline().saturating_sub(call.service.now.unix_ms()) as i64,
    }
}

pub(super) fn persist<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let key = call.at(1);
    let expires = call.service.store.get(key).is_some_and(|entry| entry.deadline() != NEVER);
    if expires {
        call.service.set_deadline(key, NEVER);
    }
    call.reply.integer(i64::from(expires));
    Ok(())
}

pub(super) fn expire<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    expire_after(call, 1000)
}

pub(super) fn pexpire<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    expire_after(call, 1)
}

fn expire_after<'a>(call: &mut Call<'a>, unit_ms: i64) -> Outcome<'a> {
    let key = call.at(1);
    let invalid = Refusal::InvalidExpire(call.name);
    let now = call.service.now.unix_ms() as i64;
    let after = call.integer(2)?.checked_mul(unit_ms);
    let deadline = after.and_then(|after| after.checked_add(now)).ok_or(invalid)?;
    let conditions = Conditions::parse(call)?;
    let old = call.service.store.get(key).map(|entry| entry.deadline());
    let deadline = u64::try_from(deadline).unwrap_or(0);
    let sets = old.is_some_and(|old| conditions.allow(old, deadline));
    if sets {
        call.service.set_deadline(key, deadline);
    }
    call.reply.integer(i64::from(sets));
    Ok(())
}

/// NX, XX, GT, LT of EXPIRE.
#[derive(Default)]
struct Conditions {
    only_new: bool,
    only_old: bool,
    only_later: bool,
    only_earlier: bool,
}

impl Conditions {
    fn parse<'a>(call: &Call<'a>) -> Result<Self, Refusal<'a>> {
        const NX: u64 = packed(b"NX");
        const XX: u64 = packed(b"XX");
        const GT: u64 = packed(b"GT");
        const LT: u64 = packed(b"LT");
        let mut conditions = Self::default();
        for word in call.arguments.from(3) {
            match packed(word) {
                NX => conditions.only_new = true,
                XX => conditions.only_old = true,
                GT => conditions.only_later = true,
                LT => conditions.only_earlier = true,
                _ => return Err(Refusal::UnsupportedOption(word)),
            }
        }
        if conditions.only_new && (conditions.only_old || conditions.only_later || conditions.only_earlier) {
            return Err(Refusal::Other(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if conditions.only_later && conditions.only_earlier {
            return Err(Refusal::Other("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    fn allow(&self, old: u64, new: u64) -> bool {
        !(self.only_new && old != NEVER
            || self.only_old && old == NEVER
            || self.only_later && new <= old
            || self.only_earlier && new >= old)
    }
}

pub(super) fn keys<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let pattern = call.at(1);
    let (mut count, mut bytes) = (0, 0);
    call.service.store.scan(0, usize::MAX, |entry| {
        if glob::matches(pattern, entry.key()) {
            count += 1;
            bytes += entry.key().len();
        }
    });
    // Known beforehand, so that a long list is refused before it is made.
    call.reply.array(count);
    call.reply.expect(bytes);
    if !call.reply.overflowed {
        call.service.store.scan(0, usize::MAX, |entry| {
            if glob::matches(pattern, entry.key()) {
                call.reply.bulk(entry.key());
            }
        });
    }
    Ok(())
}

pub(super) fn scan<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    const MATCH: u64 = packed(b"MATCH");
    const COUNT: u64 = packed(b"COUNT");
    const TYPE: u64 = packed(b"TYPE");
    const COUNT_DEFAULT: usize = 10;
    let cursor = core::str::from_utf8(call.at(1)).ok().and_then(|text| text.parse().ok());
    let cursor: u64 = cursor.ok_or(Refusal::Cursor)?;
    let (mut pattern, mut count, mut all_types) = (None, COUNT_DEFAULT, true);
    for index in (2..call.count()).step_by(2) {
        if index + 1 == call.count() {
            return Err(Refusal::Syntax);
        }
        match call.word(index) {
            MATCH => pattern = Some(call.at(index + 1)),
            COUNT => {
                let number = call.integer(index + 1)?;
                count = usize::try_from(number).ok().filter(|count| *count > 0).ok_or(Refusal::Syntax)?;
            }
            TYPE => all_types = call.at(index + 1).eq_ignore_ascii_case(b"string"),
            _ => return Err(Refusal::Syntax),
        }
    }
    let mut found = Vec::new();
    let cursor = call.service.store.scan(cursor, count, |entry| {
        if all_types && pattern.is_none_or(|pattern| glob::matches(pattern, entry.key())) {
            found.push(entry.key());
        }
    });
    call.reply.array(2);
    call.reply.unsigned(cursor);
    call.reply.array(found.len());
    found.iter().for_each(|key| call.reply.bulk(key));
    Ok(())
}
