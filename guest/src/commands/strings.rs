//! Commands on values.

use super::{Call, Outcome, Refusal, packed};
use crate::resp::{ARGUMENT_BYTES_MAX, Decimal, integer};
use crate::store::NEVER;

pub(super) fn get<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let value = call.service.read(call.arguments.at(1));
    call.reply.optional(value);
    Ok(())
}

pub(super) fn mget<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    call.reply.array(call.count() - 1);
    for key in call.arguments.from(1) {
        let value = call.service.read(key);
        call.reply.optional(value);
    }
    Ok(())
}

pub(super) fn strlen<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let bytes = call.service.read(call.at(1)).map_or(0, <[u8]>::len);
    call.reply.integer(bytes as i64);
    Ok(())
}

/// What follows key and value in SET.
#[derive(Default)]
struct SetOptions {
    deadline: Option<u64>,
    keep_deadline: bool,
    only_new: bool,
    only_old: bool,
    reply_old: bool,
}

const NX: u64 = packed(b"NX");
const XX: u64 = packed(b"XX");
const GET: u64 = packed(b"GET");
const KEEPTTL: u64 = packed(b"KEEPTTL");
const EX: u64 = packed(b"EX");
const PX: u64 = packed(b"PX");
const EXAT: u64 = packed(b"EXAT");
const PXAT: u64 = packed(b"PXAT");

impl SetOptions {
    fn parse<'a>(call: &Call<'a>) -> Result<Self, Refusal<'a>> {
        let mut options = Self::default();
        let mut index = 3;
        while index < call.count() {
            match call.word(index) {
                NX => options.only_new = true,
                XX => options.only_old = true,
                GET => options.reply_old = true,
                KEEPTTL if options.deadline.is_none() => options.keep_deadline = true,
                word @ (EX | PX | EXAT | PXAT)
                    if index + 1 < call.count() && options.deadline.is_none() && !options.keep_deadline =>
                {
                    index += 1;
                    let milliseconds = matches!(word, PX | PXAT);
                    let relative = matches!(word, EX | PX);
                    options.deadline = Some(deadline(call, index, milliseconds, relative)?);
                }
                _ => return Err(Refusal::Syntax),
            }
            index += 1;
        }
        if options.only_new && options.only_old { Err(Refusal::Syntax) } else { Ok(options) }
    }
}

/// The deadline that argument `index` says; it must be positive.
fn deadline<'a>(call: &Call<'a>, index: usize, milliseconds: bool, relative: bool) -> Result<u64, Refusal<'a>> {
    let number = call.integer(index)?;
    let invalid = Refusal::InvalidExpire(call.name);
    if number <= 0 {
        return Err(invalid);
    }
    let milliseconds = if milliseconds { Some(number) } else { number.checked_mul(1000) };
    let start = if relative { call.service.now.unix_ms() as i64 } else { 0 };
    let deadline = milliseconds.and_then(|milliseconds| milliseconds.checked_add(start)).ok_or(invalid)?;
    Ok(deadline as u64)
}

pub(super) fn set<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let options = SetOptions::parse(call)?;
    let (key, value) = (call.at(1), call.at(2));
    let old = call.service.store.get(key);
    let kept = old.map_or(NEVER, |entry| entry.deadline());
    let exists = old.is_some();
    let write = !(options.only_new && exists || options.only_old && !exists);
    if write {
        call.service.admit(key.len(), value.len())?;
    }
    if options.reply_old {
        call.reply.optional(old_value(call.service, key));
    }
    if write {
        let deadline = options.deadline.unwrap_or(if options.keep_deadline { kept } else { NEVER });
        call.service.set(key, value, deadline);
        if deadline <= call.service.now.unix_ms() {
            call.service.remove(key);
        }
    }
    match (options.reply_old, write) {
        (true, _) => {}
        (false, true) => call.reply.ok(),
        (false, false) => call.reply.null(),
    }
    Ok(())
}

fn old_value<'s>(service: &'s crate::service::Service, key: &[u8]) -> Option<&'s [u8]> {
    service.store.get(key).map(|entry| entry.value())
}

pub(super) fn setnx<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let (key, value) = (call.at(1), call.at(2));
    let fresh = call.service.store.get(key).is_none();
    if fresh {
        call.service.admit(key.len(), value.len())?;
        call.service.set(key, value, NEVER);
    }
    call.reply.integer(i64::from(fresh));
    Ok(())
}

pub(super) fn setex<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    set_expiring(call, false)
}

pub(super) fn psetex<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    set_expiring(call, true)
}

fn set_expiring<'a>(call: &mut Call<'a>, milliseconds: bool) -> Outcome<'a> {
    let deadline = deadline(call, 2, milliseconds, true)?;
    let (key, value) = (call.at(1), call.at(3));
    call.service.admit(key.len(), value.len())?;
    call.service.set(key, value, deadline);
    call.reply.ok();
    Ok(())
}

pub(super) fn getset<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let (key, value) = (call.at(1), call.at(2));
    call.service.admit(key.len(), value.len())?;
    call.reply.optional(call.service.read(key));
    call.service.set(key, value, NEVER);
    Ok(())
}

pub(super) fn getdel<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let key = call.at(1);
    call.reply.optional(call.service.read(key));
    call.service.remove(key);
    Ok(())
}

pub(super) fn mset<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    if call.count().is_multiple_of(2) {
        return Err(Refusal::ArgumentCount(call.name));
    }
    // All or nothing: there must be room for all as if all were new.
    let (mut key_bytes, mut value_bytes) = (0, 0);
    let pairs = (1..call.count()).step_by(2);
    for index in pairs.clone() {
        key_bytes += call.at(index).len();
        value_bytes += call.at(index + 1).len();
    }
    call.service.admit_many(pairs.len(), key_bytes, value_bytes)?;
    for index in pairs {
        call.service.set(call.at(index), call.at(index + 1), NEVER);
    }
    call.reply.ok();
    Ok(())
}

pub(super) fn append<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let (key, tail) = (call.at(1), call.at(2));
    let bytes = old_value(call.service, key).map_or(0, <[u8]>::len) + tail.len();
    if bytes > ARGUMENT_BYTES_MAX {
        return Err(Refusal::Other("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
    }
    // The slack of a value that grows, too.
    call.service.admit(key.len(), tail.len() + bytes / 4)?;
    let bytes = call.service.append(key, tail);
    call.reply.integer(bytes as i64);
    Ok(())
}

pub(super) fn incr<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    add(call, 1)
}

pub(super) fn decr<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    add(call, -1)
}

pub(super) fn incrby<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let by = call.integer(2)?;
    add(call, by)
}

pub(super) fn decrby<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let by = call.integer(2)?.checked_neg().ok_or(Refusal::Other("ERR decrement would overflow"))?;
    add(call, by)
}

fn add<'a>(call: &mut Call<'a>, by: i64) -> Outcome<'a> {
    let key = call.at(1);
    let (value, deadline) = match call.service.store.get(key) {
        Some(entry) => (integer(entry.value()).ok_or(Refusal::NotInteger)?, entry.deadline()),
        None => (0, NEVER),
    };
    let sum = value.checked_add(by).ok_or(Refusal::Overflow)?;
    let text = Decimal::new(sum);
    call.service.admit(key.len(), text.bytes().len())?;
    call.service.set(key, text.bytes(), deadline);
    call.reply.integer(sum);
    Ok(())
}
