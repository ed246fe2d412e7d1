//! A tiny Redis for tests, which can be told to misbehave.

use crossbeam::channel::{self, Receiver, Sender};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server does wrong, and with which command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trick {
    /// Nothing.
    None,
    /// Acknowledges so many of these commands and does not execute them.
    Lose(&'static str, usize),
    /// Executes the command twice, and replies the second result.
    Twice(&'static str),
    /// Executes the command twice, and replies the first result.
    TwiceSilently(&'static str),
    /// Exchanges two neighbouring replies.
    Swap,
    /// Changes a byte of a value that it sends.
    Corrupt,
    /// Sends something that is no reply.
    Garbage,
    /// Refuses the command.
    Refuse(&'static str),
    /// Executes the command and hangs up without a reply.
    HangUpAfter(&'static str),
    /// Hangs up without executing the command.
    HangUpBefore(&'static str),
    /// Undoes the last two executions of this command, and hangs up: what a failover must not do.
    HangUpAndUndo(&'static str),
    /// Does nothing for some time.
    Stall(Duration),
    /// Cuts the last piece off a log, when somebody connects after the load.
    CutLater,
}

/// Matching commands before the trick.
const BEFORE: usize = 100;
/// Commands after it until the test goes on.
const AFTER: usize = 3000;

struct State {
    data: BTreeMap<Vec<u8>, Vec<u8>>,
    trick: Trick,
    /// Matching commands until the trick, and how often it still is to be done.
    countdown: usize,
    times: usize,
    /// Earlier contents of the key of the trick.
    history: Vec<(Vec<u8>, Vec<u8>)>,
    after: usize,
    done: Sender<()>,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    done: Receiver<()>,
}

enum Act {
    Reply(Vec<u8>),
    HangUp,
}

impl Server {
    pub(crate) fn start(trick: Trick) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, done) = channel::bounded(1);
        let times = match trick {
            Trick::None => 0,
            Trick::Lose(_, times) => times,
            _ => 1,
        };
        let state = State {
            data: BTreeMap::new(),
            trick,
            countdown: BEFORE,
            times,
            history: Vec::new(),
            after: 0,
            done: sender,
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream.unwrap(), &state));
            }
        });
        Self { address, state, done }
    }

    /// Waits until the trick is done and the load has had time to notice.
    pub(crate) fn wait(&self) {
        self.done.recv_timeout(Duration::from_secs(30)).expect("the load comes to the trick");
    }

    /// Cuts the last piece off some log.
    pub(crate) fn cut_when_connected(&self) {
        self.state.lock().unwrap().trick = Trick::CutLater;
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    stream.set_nodelay(true).unwrap();
    state.lock().unwrap().connected();
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
        let (mut replies, mut hang_up) = (Vec::new(), false);
        while let Some((words, length)) = parse(&bytes) {
            bytes.drain(..length);
            match state.lock().unwrap().execute(&words) {
                Act::Reply(reply) => replies.push(reply),
                Act::HangUp => {
                    hang_up = true;
                    break;
                }
            }
        }
        state.lock().unwrap().swap(&mut replies);
        if stream.write_all(&replies.concat()).is_err() || hang_up {
            return;
        }
    }
}

/// A command and its length.
fn parse(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let line = |at: usize| {
        let length = bytes.get(at..)?.windows(2).position(|pair| pair == b"\r\n")?;
        let number = std::str::from_utf8(&bytes[at + 1..at + length]).unwrap().parse::<usize>().unwrap();
        Some((number, at + length + 2))
    };
    let (count, mut at) = line(0)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (length, start) = line(at)?;
        at = start + length + 2;
        words.push(bytes.get(start..start + length)?.to_vec());
    }
    (bytes.len() >= at).then_some((words, at))
}

impl State {
    fn connected(&mut self) {
        if self.trick == Trick::CutLater {
            let log = self.data.iter_mut().find(|(key, value)| is_log(key) && value.len() > 32).unwrap().1;
            log.truncate(log.len() - 16);
        }
    }

    /// Whether to do the trick now.
    fn is_time(&mut self, command: &str) -> bool {
        let fits = match self.trick {
            Trick::None | Trick::Swap | Trick::CutLater => false,
            Trick::Corrupt => command == "GET",
            Trick::Garbage | Trick::Stall(_) => true,
            Trick::Lose(name, _)
            | Trick::Twice(name)
            | Trick::TwiceSilently(name)
            | Trick::Refuse(name)
            | Trick::HangUpAfter(name)
            | Trick::HangUpBefore(name)
            | Trick::HangUpAndUndo(name) => command == name,
        };
        if !fits || self.times == 0 {
            return false;
        }
        self.countdown = self.countdown.saturating_sub(1);
        if self.countdown > 0 {
            return false;
        }
        self.times -= 1;
        true
    }

    fn execute(&mut self, words: &[Vec<u8>]) -> Act {
        let command = String::from_utf8(words[0].clone()).unwrap();
        self.after += usize::from(self.times == 0);
        if self.after == AFTER {
            let _ = self.done.try_send(());
        }
        // Resets of keys at the beginning are not what the tricks are about.
        let there = self.data.contains_key(&words[1]);
        let mut time = there && self.is_time(&command);
        if time && self.trick == Trick::Corrupt && is_counter(&words[1]) {
            self.times += 1;
            time = false;
        }
        if !time {
            return Act::Reply(self.apply(&command, words));
        }
        match self.trick {
            Trick::Lose(..) => {
                let saved = self.data.clone();
                let reply = self.apply(&command, words);
                self.data = saved;
                Act::Reply(reply)
            }
            Trick::Twice(_) => {
                self.apply(&command, words);
                Act::Reply(self.apply(&command, words))
            }
            Trick::TwiceSilently(_) => {
                let reply = self.apply(&command, words);
                self.apply(&command, words);
                Act::Reply(reply)
            }
            Trick::Corrupt => {
                let mut reply = self.apply(&command, words);
                let at = reply.len() - 3;
                reply[at] ^= 1;
                Act::Reply(reply)
            }
            Trick::Garbage => Act::Reply(b"?what\r\n".to_vec()),
            Trick::Refuse(_) => Act::Reply(b"-OOM no\r\n".to_vec()),
            Trick::HangUpAfter(_) => {
                self.apply(&command, words);
                Act::HangUp
            }
            Trick::HangUpBefore(_) => Act::HangUp,
            Trick::HangUpAndUndo(_) => {
                for (key, value) in self.history.drain(..).rev().take(2) {
                    self.data.insert(key, value);
                }
                Act::HangUp
            }
            Trick::Stall(time) => {
                std::thread::sleep(time);
                Act::Reply(self.apply(&command, words))
            }
            Trick::None | Trick::Swap | Trick::CutLater => unreachable!(),
        }
    }

    fn swap(&mut self, replies: &mut [Vec<u8>]) {
        if self.trick != Trick::Swap || self.times == 0 {
            return;
        }
        self.countdown = self.countdown.saturating_sub(1);
        let differ = replies.windows(2).position(|pair| pair[0] != pair[1]);
        if let (0, Some(at)) = (self.countdown, differ) {
            replies.swap(at, at + 1);
            self.times = 0;
        }
    }

    fn apply(&mut self, command: &str, words: &[Vec<u8>]) -> Vec<u8> {
        let key = &words[1];
        let old = self.data.get(key).cloned();
        if matches!(self.trick, Trick::HangUpAndUndo(name) if name == command) {
            self.history.push((key.clone(), old.clone().unwrap_or_default()));
        }
        match command {
            "GET" => old.map_or(b"$-1\r\n".to_vec(), |value| {
                [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat()
            }),
            "SET" | "MSET" => {
                for pair in words[1..].chunks(2) {
                    self.data.insert(pair[0].clone(), pair[1].clone());
                }
                b"+OK\r\n".to_vec()
            }
            "DEL" => integer(self.data.remove(key).is_some() as usize),
            "EXISTS" => integer(old.is_some() as usize),
            "INCR" => {
                let text = old.map_or("0".to_owned(), |old| String::from_utf8(old).unwrap());
                let next = text.parse::<usize>().unwrap() + 1;
                self.data.insert(key.clone(), next.to_string().into_bytes());
                integer(next)
            }
            "APPEND" => {
                let value = self.data.entry(key.clone()).or_default();
                value.extend_from_slice(&words[2]);
                integer(value.len())
            }
            other => panic!("the load does not need {other}"),
        }
    }
}

fn integer(number: usize) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

fn is_log(key: &[u8]) -> bool {
    key.windows(2).any(|pair| pair == b":l")
}

fn is_counter(key: &[u8]) -> bool {
    key.windows(2).any(|pair| pair == b":c")
}
