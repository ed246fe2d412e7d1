//! The commands: which there are, and how a request becomes a call of one.
//!
//! Error texts are those of Redis: clients compare them.

mod keys;
mod server;
mod strings;
#[cfg(test)]
mod tests;

use crate::resp::{Arguments, Reply, integer};
use crate::service::Service;
use crate::store::{Full, KEY_BYTES_MAX};
use alloc::vec::Vec;
use core::fmt;

/// Why a command was refused.
#[derive(Clone, Copy)]
pub enum Refusal<'a> {
    /// No such command.
    Unknown(Arguments<'a>),
    /// Of this command.
    ArgumentCount(&'static str),
    /// Of command and subcommand.
    UnknownSubcommand(&'static str, &'a [u8]),
    /// Options that make no sense.
    Syntax,
    /// Not a number.
    NotInteger,
    /// A number that would get too large.
    Overflow,
    /// The deadline of this command.
    InvalidExpire(&'static str),
    /// No room.
    Full(Full),
    /// Of key or value.
    TooLong(&'static str),
    /// Of EXPIRE.
    UnsupportedOption(&'a [u8]),
    /// RESP3, or something newer.
    Protocol,
    /// A number that is no number of a database.
    DatabaseIndex,
    /// The only cursors are those that SCAN returned.
    Cursor,
    /// Any other, in full.
    Other(&'static str),
}

impl From<Full> for Refusal<'_> {
    fn from(full: Full) -> Self {
        Self::Full(full)
    }
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(arguments) => unknown(*arguments, f),
            Self::ArgumentCount(name) => {
                write!(f, "ERR wrong number of arguments for '{}' command", Lower(name.as_bytes()))
            }
            Self::UnknownSubcommand(command, name) => {
                write!(f, "ERR unknown subcommand '{}'. Try {command} HELP.", Shown(name, 128))
            }
            Self::Syntax => f.write_str("ERR syntax error"),
            Self::NotInteger => f.write_str("ERR value is not an integer or out of range"),
            Self::Overflow => f.write_str("ERR increment or decrement would overflow"),
            Self::InvalidExpire(name) => {
                write!(f, "ERR invalid expire time in '{}' command", Lower(name.as_bytes()))
            }
            Self::Full(Full::Memory) => {
                f.write_str("OOM command not allowed when used memory > 'maxmemory'.")
            }
            Self::Full(Full::Disk) => {
                f.write_str("MISCONF Errors writing to the AOF file: No space left on device")
            }
            Self::TooLong(what) => write!(f, "ERR {what} exceeds maximum allowed size"),
            Self::UnsupportedOption(word) => write!(f, "ERR Unsupported option {}", Shown(word, 128)),
            Self::Protocol => f.write_str("NOPROTO unsupported protocol version"),
            Self::DatabaseIndex => f.write_str("ERR DB index is out of range"),
            Self::Cursor => f.write_str("ERR invalid cursor"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// As Redis words it: the name, then the beginnings of arguments, up to 128 bytes each in all.
fn unknown(arguments: Arguments<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const SHOWN_BYTES: usize = 128;
    write!(f, "ERR unknown command '{}', with args beginning with: ", Shown(arguments.at(0), SHOWN_BYTES))?;
    let mut room = SHOWN_BYTES;
    for argument in arguments.from(1) {
        if room == 0 {
            break;
        }
        write!(f, "'{}' ", Shown(argument, room))?;
        room = room.saturating_sub(argument.len() + 3);
    }
    Ok(())
}

/// Bytes as text, at most so many.
struct Shown<'a>(&'a [u8], usize);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(self.1).try_for_each(|byte| {
            let shown = if byte.is_ascii() { char::from(*byte) } else { '?' };
            fmt::Write::write_char(f, shown)
        })
    }
}

/// A name as error texts have it.
struct Lower<'a>(&'a [u8]);

impl fmt::Display for Lower<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| fmt::Write::write_char(f, char::from(byte.to_ascii_lowercase())))
    }
}

/// What is known of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Its number, from 1 on.
    pub id: u64,
    /// As set by CLIENT SETNAME.
    pub name: Vec<u8>,
}

/// What happens to the connection after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It goes on.
    Continue,
    /// It is closed once the reply is out.
    Close,
    /// It goes on when all that was changed so far is on the disk; only then is there a reply.
    Saved,
    /// The machine is turned off when all that was changed so far is on the disk.
    Shutdown,
    /// The machine hangs at once.
    Hang,
    /// The machine crashes at once.
    Crash,
}

/// A command being executed.
pub(crate) struct Call<'a> {
    pub(crate) service: &'a mut Service,
    pub(crate) client: &'a mut Client,
    pub(crate) arguments: Arguments<'a>,
    pub(crate) reply: &'a mut Reply,
    pub(crate) after: After,
    /// The command's name.
    pub(crate) name: &'static str,
}

type Outcome<'a> = Result<(), Refusal<'a>>;

impl<'a> Call<'a> {
    pub(crate) fn count(&self) -> usize {
        self.arguments.count()
    }

    pub(crate) fn at(&self, index: usize) -> &'a [u8] {
        self.arguments.at(index)
    }

    pub(crate) fn integer(&self, index: usize) -> Result<i64, Refusal<'a>> {
        integer(self.at(index)).ok_or(Refusal::NotInteger)
    }

    /// Argument `index` as a word in capitals, for options; longer ones are none.
    pub(crate) fn word(&self, index: usize) -> u64 {
        packed(self.at(index))
    }
}

/// A command.
pub(crate) struct Spec {
    name: &'static str,
    word: u64,
    /// Arguments, the name included; negative: at least so many.
    arity: i8,
    writes: bool,
    /// First, last and step of the arguments that are keys.
    keys: (i8, i8, i8),
    run: for<'a> fn(&mut Call<'a>) -> Outcome<'a>,
}

/// Up to eight bytes in capitals as a number, for comparison; 0 for what is longer.
pub(crate) const fn packed(name: &[u8]) -> u64 {
    let mut word = 0;
    let mut at = 0;
    if name.len() > 8 {
        return 0;
    }
    while at < name.len() {
        word = word << 8 | name[at].to_ascii_uppercase() as u64;
        at += 1;
    }
    word
}

const READS: bool = false;
const WRITES: bool = true;
const NO_KEYS: (i8, i8, i8) = (0, 0, 0);
const FIRST: (i8, i8, i8) = (1, 1, 1);
const ALL: (i8, i8, i8) = (1, -1, 1);
const EVERY_OTHER: (i8, i8, i8) = (1, -1, 2);

const fn spec(
    name: &'static str,
    arity: i8,
    writes: bool,
    keys: (i8, i8, i8),
    run: for<'a> fn(&mut Call<'a>) -> Outcome<'a>,
) -> Spec {
    Spec { name, word: packed(name.as_bytes()), arity, writes, keys, run }
}

/// All commands, in the order of [`packed`]: shorter names first, then by the alphabet.
static COMMANDS: [Spec; 43] = [
    spec("DEL", -2, WRITES, ALL, keys::remove),
    spec("GET", 2, READS, FIRST, strings::get),
    spec("SET", -3, WRITES, FIRST, strings::set),
    spec("TTL", 2, READS, FIRST, keys::ttl),
    spec("DECR", 2, WRITES, FIRST, strings::decr),
    spec("ECHO", 2, READS, NO_KEYS, server::echo),
    spec("INCR", 2, WRITES, FIRST, strings::incr),
    spec("INFO", -1, READS, NO_KEYS, server::info),
    spec("KEYS", 2, READS, NO_KEYS, keys::keys),
    spec("MGET", -2, READS, ALL, strings::mget),
    spec("MSET", -3, WRITES, EVERY_OTHER, strings::mset),
    spec("PING", -1, READS, NO_KEYS, server::ping),
    spec("PTTL", 2, READS, FIRST, keys::pttl),
    spec("QUIT", -1, READS, NO_KEYS, server::quit),
    spec("SAVE", 1, READS, NO_KEYS, server::save),
    spec("SCAN", -2, READS, NO_KEYS, keys::scan),
    spec("TIME", 1, READS, NO_KEYS, server::time),
    spec("TYPE", 2, READS, FIRST, keys::kind),
    spec("DEBUG", -2, READS, NO_KEYS, server::debug),
    spec("HELLO", -1, READS, NO_KEYS, server::hello),
    spec("SETEX", 4, WRITES, FIRST, strings::setex),
    spec("SETNX", 3, WRITES, FIRST, strings::setnx),
    spec("APPEND", 3, WRITES, FIRST, strings::append),
    spec("BGSAVE", -1, READS, NO_KEYS, server::bgsave),
    spec("CLIENT", -2, READS, NO_KEYS, server::client),
    spec("CONFIG", -2, READS, NO_KEYS, server::config),
    spec("DBSIZE", 1, READS, NO_KEYS, keys::dbsize),
    spec("DECRBY", 3, WRITES, FIRST, strings::decrby),
    spec("EXISTS", -2, READS, ALL, keys::exists),
    spec("EXPIRE", -3, WRITES, FIRST, keys::expire),
    spec("GETDEL", 2, WRITES, FIRST, strings::getdel),
    spec("GETSET", 3, WRITES, FIRST, strings::getset),
    spec("INCRBY", 3, WRITES, FIRST, strings::incrby),
    spec("PSETEX", 4, WRITES, FIRST, strings::psetex),
    spec("SELECT", 2, READS, NO_KEYS, server::select),
    spec("STRLEN", 2, READS, FIRST, strings::strlen),
    spec("UNLINK", -2, WRITES, ALL, keys::remove),
    spec("COMMAND", -1, READS, NO_KEYS, server::command),
    spec("FLUSHDB", -1, WRITES, NO_KEYS, keys::flush),
    spec("PERSIST", 2, WRITES, FIRST, keys::persist),
    spec("PEXPIRE", -3, WRITES, FIRST, keys::pexpire),
    spec("FLUSHALL", -1, WRITES, NO_KEYS, keys::flush),
    spec("SHUTDOWN", -1, READS, NO_KEYS, server::shutdown),
];

fn find(name: &[u8]) -> Option<&'static Spec> {
    let word = packed(name);
    COMMANDS.binary_search_by_key(&word, |spec| spec.word).ok().map(|index| &COMMANDS[index])
}

/// Executes a request with at least one argument.
pub fn execute(
    service: &mut Service,
    client: &mut Client,
    arguments: Arguments<'_>,
    reply: &mut Reply,
) -> After {
    service.counters.commands += 1;
    let start = reply.bytes.len();
    let Some(spec) = find(arguments.at(0)) else {
        reply.error(Refusal::Unknown(arguments));
        return After::Continue;
    };
    let mut call = Call { service, client, arguments, reply, after: After::Continue, name: spec.name };
    let outcome = check(&call, spec).and_then(|()| (spec.run)(&mut call));
    let after = call.after;
    if let Err(refusal) = outcome {
        call.reply.bytes.truncate(start);
        call.reply.error(refusal);
    }
    if reply.overflowed {
        reply.overflowed = false;
        reply.bytes.truncate(start);
        reply.error("OOM the reply is larger than the memory left for replies");
    }
    after
}

fn check<'a>(call: &Call<'a>, spec: &Spec) -> Outcome<'a> {
    let count = call.count();
    let needed = usize::from(spec.arity.unsigned_abs());
    if count < needed || (spec.arity > 0 && count != needed) {
        return Err(Refusal::ArgumentCount(spec.name));
    }
    if !spec.writes || spec.keys == NO_KEYS {
        return Ok(());
    }
    let last = if spec.keys.1 < 0 { count } else { 2 };
    let step = usize::from(spec.keys.2.unsigned_abs());
    let too_long = call.arguments.from(1).take(last - 1).step_by(step).any(|key| key.len() > KEY_BYTES_MAX);
    if too_long { Err(Refusal::TooLong("key")) } else { Ok(()) }
}
