//! Commands on the connection and the server.

use super::{After, COMMANDS, Call, Outcome, Refusal, Spec, find, packed};
use crate::glob;
use crate::resp::ARGUMENT_BYTES_MAX;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What clients that look at versions are told: the protocol's state that is spoken here.
const REDIS_VERSION: &str = "7.0.0";

pub(super) fn ping<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    match call.count() {
        1 => call.reply.simple("PONG"),
        2 => call.reply.bulk(call.at(1)),
        _ => return Err(Refusal::ArgumentCount(call.name)),
    }
    Ok(())
}

pub(super) fn echo<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    call.reply.bulk(call.at(1));
    Ok(())
}

pub(super) fn quit<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    call.reply.ok();
    call.after = After::Close;
    Ok(())
}

pub(super) fn time<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let now = call.service.now.unix_us;
    call.reply.array(2);
    call.reply.unsigned(now / 1_000_000);
    call.reply.unsigned(now % 1_000_000);
    Ok(())
}

pub(super) fn select<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    if call.integer(1)? != 0 {
        return Err(Refusal::DatabaseIndex);
    }
    call.reply.ok();
    Ok(())
}

pub(super) fn save<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    call.reply.ok();
    call.after = After::Saved;
    Ok(())
}

pub(super) fn bgsave<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    // Everything is on its way to the disk all the time.
    call.service.save();
    call.reply.simple("Background saving started");
    Ok(())
}

pub(super) fn shutdown<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    const OPTIONS: [u64; 4] = [packed(b"SAVE"), packed(b"NOSAVE"), packed(b"NOW"), packed(b"FORCE")];
    if !call.arguments.from(1).all(|word| OPTIONS.contains(&packed(word))) {
        return Err(Refusal::Syntax);
    }
    call.after = After::Shutdown;
    Ok(())
}

pub(super) fn debug<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    const HANG: u64 = packed(b"HANG");
    const CRASH: u64 = packed(b"CRASH");
    if !call.service.debug {
        return Err(Refusal::Other(
            "ERR DEBUG command not allowed. Put the word debug on the guest's command line to allow it.",
        ));
    }
    call.after = match (call.word(1), call.count()) {
        (HANG, 2) => After::Hang,
        (CRASH, 2) => After::Crash,
        (HANG | CRASH, _) => return Err(Refusal::ArgumentCount(call.name)),
        _ => return Err(Refusal::UnknownSubcommand(call.name, call.at(1))),
    };
    Ok(())
}

pub(super) fn hello<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    const AUTH: u64 = packed(b"AUTH");
    const SETNAME: u64 = packed(b"SETNAME");
    if call.count() > 1 {
        let version = call
            .integer(1)
            .map_err(|_| Refusal::Other("ERR Protocol version is not an integer or out of range"))?;
        if version != 2 {
            return Err(Refusal::Protocol);
        }
    }
    let mut index = 2;
    while index < call.count() {
        match call.word(index) {
            // There is no password that could be wrong.
            AUTH if index + 2 < call.count() => index += 3,
            SETNAME if index + 1 < call.count() => {
                call.client.name = client_name(call.at(index + 1))?;
                index += 2;
            }
            _ => return Err(Refusal::Syntax),
        }
    }
    call.reply.array(14);
    for (name, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        call.reply.bulk(name.as_bytes());
        call.reply.bulk(value.as_bytes());
    }
    for (name, value) in [("proto", 2), ("id", call.client.id as i64)] {
        call.reply.bulk(name.as_bytes());
        call.reply.integer(value);
    }
    for (name, value) in [("mode", "standalone"), ("role", "master")] {
        call.reply.bulk(name.as_bytes());
        call.reply.bulk(value.as_bytes());
    }
    call.reply.bulk(b"modules");
    call.reply.array(0);
    Ok(())
}

fn client_name<'a>(name: &'a [u8]) -> Result<Vec<u8>, Refusal<'a>> {
    const NAME_BYTES_MAX: usize = 1024;
    if name.len() > NAME_BYTES_MAX {
        return Err(Refusal::TooLong("client name"));
    }
    if !name.iter().all(u8::is_ascii_graphic) {
        return Err(Refusal::Other(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    Ok(name.into())
}

pub(super) fn client<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    const SETNAME: u64 = packed(b"SETNAME");
    const GETNAME: u64 = packed(b"GETNAME");
    const SETINFO: u64 = packed(b"SETINFO");
    const ID: u64 = packed(b"ID");
    match (call.word(1), call.count()) {
        (SETNAME, 3) => {
            call.client.name = client_name(call.at(2))?;
            call.reply.ok();
        }
        (GETNAME, 2) => call.reply.optional(Some(&*call.client.name).filter(|name| !name.is_empty())),
        // Name and version of the client's library are nobody's business here.
        (SETINFO, 4) => call.reply.ok(),
        (ID, 2) => call.reply.integer(call.client.id as i64),
        (SETNAME | GETNAME | SETINFO | ID, _) => return Err(Refusal::ArgumentCount(call.name)),
        _ => return Err(Refusal::UnknownSubcommand(call.name, call.at(1))),
    }
    Ok(())
}

pub(super) fn config<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    const GET: u64 = packed(b"GET");
    match (call.word(1), call.count()) {
        (GET, 3..) => {
            let settings = settings(call);
            let wanted = |name: &str| {
                let name = name.as_bytes();
                call.arguments.from(2).any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name))
            };
            let found: Vec<_> = settings.iter().filter(|(name, _)| wanted(name)).collect();
            call.reply.array(found.len() * 2);
            for (name, value) in found {
                call.reply.bulk(name.as_bytes());
                call.reply.bulk(value.as_bytes());
            }
            Ok(())
        }
        (GET, _) => Err(Refusal::ArgumentCount(call.name)),
        _ => Err(Refusal::UnknownSubcommand(call.name, call.at(1))),
    }
}

fn settings(call: &Call<'_>) -> [(&'static str, String); 6] {
    let appendonly = if call.service.has_disk() { "yes" } else { "no" };
    [
        ("appendfsync", "no".into()),
        ("appendonly", appendonly.into()),
        ("maxmemory", format!("{}", call.service.store.limits().memory_bytes)),
        ("maxmemory-policy", "noeviction".into()),
        ("proto-max-bulk-len", format!("{ARGUMENT_BYTES_MAX}")),
        ("save", String::new()),
    ]
}

pub(super) fn info<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    let sections = [
        ("Server", server_info(call)),
        ("Clients", format!("connected_clients:{}\r\n", call.service.counters.clients)),
        ("Memory", memory_info(call)),
        ("Persistence", call.service.log_info()),
        ("Stats", stats_info(call)),
        ("Replication", "role:master\r\nconnected_slaves:0\r\n".into()),
        ("Keyspace", keyspace_info(call)),
    ];
    let everything = ["ALL", "DEFAULT", "EVERYTHING"];
    let wanted = |name: &str| {
        call.count() == 1
            || call.arguments.from(1).any(|word| {
                word.eq_ignore_ascii_case(name.as_bytes())
                    || everything.iter().any(|all| word.eq_ignore_ascii_case(all.as_bytes()))
            })
    };
    let mut text = String::new();
    for (name, section) in sections.iter().filter(|(name, _)| wanted(name)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        text.push_str(&format!("# {name}\r\n{section}"));
    }
    call.reply.bulk(text.as_bytes());
    Ok(())
}

fn server_info(call: &Call<'_>) -> String {
    let up = call.service.now.up_us / 1_000_000;
    format!(
        "redis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\nos:ft-guest\r\narch_bits:64\r\n\
         guest_version:{}\r\nuptime_in_seconds:{up}\r\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn memory_info(call: &Call<'_>) -> String {
    let (used, max) = (call.service.store.used(), call.service.store.limits().memory_bytes);
    format!("used_memory:{used}\r\nmaxmemory:{max}\r\nmaxmemory_policy:noeviction\r\n")
}

fn stats_info(call: &Call<'_>) -> String {
    let counters = call.service.counters;
    format!(
        "total_connections_received:{}\r\ntotal_commands_processed:{}\r\nexpired_keys:{}\r\n\
         keyspace_hits:{}\r\nkeyspace_misses:{}\r\n",
        counters.connections, counters.commands, counters.expired, counters.hits, counters.misses
    )
}

fn keyspace_info(call: &Call<'_>) -> String {
    let (keys, expires) = (call.service.store.len(), call.service.store.expiring());
    if keys == 0 { String::new() } else { format!("db0:keys={keys},expires={expires},avg_ttl=0\r\n") }
}

pub(super) fn command<'a>(call: &mut Call<'a>) -> Outcome<'a> {
    const COUNT: u64 = packed(b"COUNT");
    const DOCS: u64 = packed(b"DOCS");
    const INFO: u64 = packed(b"INFO");
    const LIST: u64 = packed(b"LIST");
    if call.count() == 1 {
        call.reply.array(COMMANDS.len());
        COMMANDS.iter().for_each(|spec| describe(call, spec));
        return Ok(());
    }
    match call.word(1) {
        COUNT => call.reply.integer(COMMANDS.len() as i64),
        // Nothing is documented here: clients do without hints.
        DOCS => call.reply.array(0),
        LIST => {
            call.reply.array(COMMANDS.len());
            COMMANDS.iter().for_each(|spec| call.reply.bulk(spec.name.to_ascii_lowercase().as_bytes()));
        }
        INFO => {
            call.reply.array(call.count() - 2);
            for name in call.arguments.from(2) {
                match find(name) {
                    Some(spec) => describe(call, spec),
                    None => call.reply.null_array(),
                }
            }
        }
        _ => return Err(Refusal::UnknownSubcommand(call.name, call.at(1))),
    }
    Ok(())
}

/// Name, number of arguments, flags, and where the keys are.
fn describe(call: &mut Call<'_>, spec: &Spec) {
    let (first, last, step) = spec.keys;
    call.reply.array(6);
    call.reply.bulk(spec.name.to_ascii_lowercase().as_bytes());
    call.reply.integer(i64::from(spec.arity));
    call.reply.array(1);
    call.reply.simple(if spec.writes { "write" } else { "readonly" });
    for number in [first, last, step] {
        call.reply.integer(i64::from(number));
    }
}
