//! One client's connection: requests in, replies out.
//!
//! Invariant: replies are in the order of requests. While more than [`OUTPUT_BYTES_HIGH`] of replies wait to be taken, or a SAVE is not
//! done, no further request is executed; what has been received stays where it is.

use crate::commands::{After, Client, Refusal, execute};
use crate::resp::{Parsed, Parser, Reply};
use crate::service::Service;
use alloc::vec::Vec;

/// Replies beyond this stop the execution of further requests until they are taken.
pub const OUTPUT_BYTES_HIGH: usize = 256 * 1024;
/// A reply of this length has room however little memory is left.
const REPLY_BYTES_MIN: usize = 4096;
/// Longest reply.
pub const REPLY_BYTES_MAX: usize = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The reply to SAVE begins at this byte of the output and must not leave before the log has come to `ticket`.
    Saving {
        ticket: u64,
        then: After,
        held_from: usize,
    },
    /// Nothing more is executed.
    Closing,
}

/// What a client wants to become of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// It is turned off.
    PowerOff,
    /// It hangs.
    Hang,
    /// It crashes.
    Crash,
}

/// A connection.
#[derive(Debug)]
pub struct Session {
    client: Client,
    parser: Parser,
    /// Received and not executed yet, from the first byte of a request on.
    input: Vec<u8>,
    /// Execution stopped before the end of the input.
    stalled: bool,
    /// How long the request is that stands there, as far as known.
    wanted: usize,
    reply: Reply,
    /// How much of the reply was taken.
    taken: usize,
    state: State,
    /// What shall become of the machine.
    demand: Option<Demand>,
}

impl Session {
    /// Of connection number `id`.
    pub fn new(id: u64) -> Self {
        Self {
            client: Client { id, name: Vec::new() },
            parser: Parser::default(),
            input: Vec::new(),
            stalled: false,
            wanted: 0,
            reply: Reply::default(),
            taken: 0,
            state: State::Open,
            demand: None,
        }
    }

    /// Memory that waits here in buffers.
    pub fn buffered(&self) -> usize {
        self.input.capacity() + self.reply.bytes.capacity()
    }

    /// Whether it wants more input now.
    pub fn wants_input(&self) -> bool {
        self.state == State::Open && self.output().len() < OUTPUT_BYTES_HIGH
    }

    /// Whether it is over once its output is taken.
    pub fn is_closing(&self) -> bool {
        self.state == State::Closing
    }

    /// What shall become of the machine.
    pub fn demand(&self) -> Option<Demand> {
        self.demand
    }

    /// Replies that may leave.
    pub fn output(&self) -> &[u8] {
        let to = match self.state {
            State::Saving { held_from, .. } => held_from,
            State::Open | State::Closing => self.reply.bytes.len(),
        };
        &self.reply.bytes[self.taken..to]
    }

    /// `bytes` of the output have left.
    pub fn take(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.taken == self.reply.bytes.len() {
            self.taken = 0;
            // What was large once need not stay so.
            if self.reply.bytes.capacity() > OUTPUT_BYTES_HIGH {
                self.reply.bytes = Vec::new();
            }
            self.reply.bytes.clear();
        }
    }

    /// Takes in what the client sent: all of it. `room` is how much more memory this may hold in buffers.
    pub fn receive(&mut self, bytes: &[u8], room: usize, service: &mut Service) {
        if self.input.is_empty() {
            let used = self.run(bytes, room, service);
            self.keep(&bytes[used..], room);
        } else {
            self.keep(bytes, room);
            self.stalled = true;
            self.resume(room, service);
        }
    }

    /// Whether there are requests left that the state or the amount of output kept from being executed.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Goes on with what was received, if anything has changed: output was taken, the log has come further.
    pub fn resume(&mut self, room: usize, service: &mut Service) {
        self.finish_saving(service);
        if self.input.is_empty() || !self.stalled || !self.wants_input() {
            return;
        }
        let mut input = core::mem::take(&mut self.input);
        let used = self.run(&input, room, service);
        input.drain(..used);
        if input.is_empty() && input.capacity() > OUTPUT_BYTES_HIGH {
            input = Vec::new();
        }
        self.input = input;
        self.make_room(room);
    }

    /// Executes requests; returns how many bytes they took.
    fn run(&mut self, input: &[u8], room: usize, service: &mut Service) -> usize {
        let mut at = 0;
        self.stalled = false;
        // Whoever always has more to ask would else never let go of what was taken.
        if self.taken >= OUTPUT_BYTES_HIGH {
            self.reply.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.reply.bytes_max = self.reply.bytes.len() + room.clamp(REPLY_BYTES_MIN, REPLY_BYTES_MAX);
        while self.wants_input() {
            match self.parser.next(&input[at..]) {
                Parsed::Incomplete { bytes } => {
                    self.wanted = bytes;
                    return at;
                }
                Parsed::Error(error) => {
                    self.reply.error(error);
                    self.state = State::Closing;
                }
                Parsed::Request { bytes } => {
                    let arguments = self.parser.arguments(&input[at..]);
                    at += bytes;
                    if arguments.count() > 0 {
                        let from = self.reply.bytes.len();
                        let after = execute(service, &mut self.client, arguments, &mut self.reply);
                        self.follow(after, from, service);
                    }
                }
            }
        }
        self.stalled = at < input.len();
        at
    }

    fn follow(&mut self, after: After, held_from: usize, service: &mut Service) {
        match after {
            After::Continue => {}
            After::Close => self.state = State::Closing,
            After::Hang => self.end_with(Demand::Hang),
            After::Crash => self.end_with(Demand::Crash),
            After::Saved | After::Shutdown => {
                let ticket = service.save();
                self.state = State::Saving { ticket, then: after, held_from };
                self.finish_saving(service);
            }
        }
    }

    fn end_with(&mut self, demand: Demand) {
        self.demand = Some(demand);
        self.state = State::Closing;
    }

    fn finish_saving(&mut self, service: &Service) {
        let State::Saving { ticket, then, held_from } = self.state else { return };
        match service.is_saved(ticket) {
            Ok(false) => {}
            Ok(true) => {
                self.state = State::Open;
                if then == After::Shutdown {
                    self.end_with(Demand::PowerOff);
                }
            }
            Err(full) => {
                self.reply.bytes.truncate(held_from);
                self.reply.error(Refusal::Full(full));
                self.state = State::Open;
            }
        }
    }

    fn keep(&mut self, bytes: &[u8], room: usize) {
        if self.state != State::Closing && bytes.len() > room {
            self.reply.error("OOM no memory left for requests");
            self.state = State::Closing;
        }
        if self.state == State::Closing {
            self.input = Vec::new();
            return;
        }
        if bytes.is_empty() {
            return;
        }
        self.make_room(room);
        self.input.extend_from_slice(bytes);
    }

    /// The request that has begun is known to be so long: its memory is taken at once, not in steps.
    fn make_room(&mut self, room: usize) {
        let more = self.wanted.saturating_sub(self.input.len());
        if more <= room {
            self.input.reserve(more);
        }
        self.wanted = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Limits, Store};
    use proptest::prelude::*;

    const ROOM: usize = 64 << 20;

    fn service() -> Service {
        let limits = Limits { memory_bytes: 1 << 30, record_bytes: 1 << 30 };
        Service::new(Store::new(limits), None)
    }

    /// Takes all output, a piece at a time.
    fn drain(session: &mut Session, service: &mut Service, piece: usize) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let bytes = session.output().len().min(piece);
            all.extend_from_slice(&session.output()[..bytes]);
            session.take(bytes);
            session.resume(ROOM, service);
            if bytes == 0 {
                return all;
            }
        }
    }

    #[test]
    fn replies_that_nobody_takes_stop_execution() {
        let (mut service, mut session) = (service(), Session::new(1));
        let set = [&b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100000\r\n"[..], &[b'x'; 100_000], b"\r\n"].concat();
        session.receive(&set, ROOM, &mut service);
        session.receive(&b"GET a\r\n".repeat(100), ROOM, &mut service);
        assert!(session.output().len() < OUTPUT_BYTES_HIGH + 200_000);
        assert!(session.is_stalled() && !session.wants_input());
        let (mut taken, mut buffered_max) = (0, 0);
        while !session.output().is_empty() {
            let bytes = session.output().len().min(70_000);
            session.take(bytes);
            taken += bytes;
            session.resume(ROOM, &mut service);
            buffered_max = buffered_max.max(session.buffered());
        }
        assert_eq!(taken, 5 + 100 * (100_000 + 11));
        assert!(buffered_max < OUTPUT_BYTES_HIGH * 6, "{buffered_max}");
        assert!(!session.is_stalled() && session.wants_input());
        assert!(session.buffered() < OUTPUT_BYTES_HIGH * 2);
    }

    #[test]
    fn after_an_error_of_the_protocol_nothing_is_executed() {
        let (mut service, mut session) = (service(), Session::new(1));
        session.receive(b"PING\r\n*1\r\nx\r\nSET a 1\r\n", ROOM, &mut service);
        assert_eq!(session.output(), b"+PONG\r\n-ERR Protocol error: expected '$', got 'x'\r\n");
        session.receive(b"SET a 1\r\n", ROOM, &mut service);
        assert!(session.is_closing());
        assert!(service.store().is_empty());
    }

    #[test]
    fn requests_without_room_end_the_connection() {
        let (mut service, mut session) = (service(), Session::new(1));
        session.receive(b"*2\r\n$4\r\nECHO\r\n$1000\r\n", 100, &mut service);
        session.receive(&[b'x'; 500], 100, &mut service);
        assert!(session.output().starts_with(b"-OOM"));
        assert!(session.is_closing());
    }

    #[test]
    fn shutdown_leaves_nothing_to_say() {
        let (mut service, mut session) = (service(), Session::new(1));
        session.receive(b"SHUTDOWN NOSAVE\r\nPING\r\n", ROOM, &mut service);
        assert!(session.demand() == Some(Demand::PowerOff) && session.is_closing());
        assert_eq!(session.output(), b"");
    }

    #[test]
    fn clients_bring_the_machine_down_only_where_that_is_allowed() {
        for (request, demand) in [(&b"DEBUG HANG\r\n"[..], Demand::Hang), (b"debug crash\r\n", Demand::Crash)]
        {
            let (mut service, mut session) = (service(), Session::new(1));
            session.receive(request, ROOM, &mut service);
            assert!(session.demand().is_none() && !session.is_closing());
            assert!(session.output().starts_with(b"-ERR DEBUG command not allowed."));
            session.take(session.output().len());
            service.debug = true;
            session.receive(request, ROOM, &mut service);
            assert!(session.demand() == Some(demand) && session.is_closing());
            assert_eq!(session.output(), b"", "a machine that is down says nothing");
        }
    }

    proptest! {
        #[test]
        fn replies_do_not_depend_on_how_requests_arrive(
            commands in prop::collection::vec(0usize..6, 1..30),
            pieces in prop::collection::vec(1usize..60, 1..40),
        ) {
            let texts = ["INCR n\r\n", "*1\r\n$4\r\nPING\r\n", "SET a \"b c\"\r\n", "GET a\r\n", "APPEND a xyz\r\n", "nonsense\r\n"];
            let input: Vec<u8> = commands.iter().flat_map(|index| texts[*index].bytes()).collect();
            let (mut service, mut session) = (self::service(), Session::new(1));
            session.receive(&input, ROOM, &mut service);
            let expected = drain(&mut session, &mut service, usize::MAX);
            let (mut service, mut session) = (self::service(), Session::new(1));
            let (mut rest, mut found) = (&input[..], Vec::new());
            for piece in pieces.iter().cycle() {
                let (now, later) = rest.split_at((*piece).min(rest.len()));
                session.receive(now, ROOM, &mut service);
                found.extend(drain(&mut session, &mut service, *piece));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
