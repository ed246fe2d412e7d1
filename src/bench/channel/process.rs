//! The coordinator's view of its two peer processes.
//!
//! Invariant: dropping a [`Duo`] leaves no process behind; each child is killed and waited for by id.

use super::error::{Doing, Error};
use super::interrupt::Interrupt;
use super::order::{Line, Order, Sample, Side};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How often a wait looks up to see whether it was interrupted.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Up to two peers and what they say.
pub(super) struct Duo<'a> {
    title: &'static str,
    interrupt: &'a Interrupt,
    children: Vec<(Side, Child)>,
    /// The sides that have said `Done`; only they may end.
    finished: Vec<Side>,
    said: Receiver<(Side, Event)>,
    say: Sender<(Side, Event)>,
}

enum Event {
    Said(Line),
    Garbled(String),
    Ended,
}

impl<'a> Duo<'a> {
    /// No process yet. `title` names what they will measure.
    pub(super) fn new(title: &'static str, interrupt: &'a Interrupt) -> Self {
        let (say, said) = channel();
        Self { title, interrupt, children: Vec::new(), finished: Vec::new(), said, say }
    }

    /// Starts this very program as a peer, inside `namespace` if there is one, and gives it its order.
    pub(super) fn start(&mut self, namespace: Option<&str>, order: &Order) -> Result<(), Error> {
        let who = self.who(order.side);
        let line = serde_json::to_string(order).doing("write an order")?;
        let mut child = command(namespace, &who).spawn().doing(format!("start the {who}"))?;
        let (stdin, stdout) = (child.stdin.as_mut(), child.stdout.take());
        let told = stdin.map_or(Ok(()), |stdin| writeln!(stdin, "{line}"));
        self.children.push((order.side, child));
        if let Some(stdout) = stdout {
            let (side, say) = (order.side, self.say.clone());
            std::thread::spawn(move || relay(side, BufReader::new(stdout), &say));
        }
        told.doing(format!("give the {who} its order"))
    }

    /// Waits until the serving side can be connected to.
    pub(super) fn ready(&mut self, deadline: Deadline) -> Result<SocketAddr, Error> {
        loop {
            if let (_, Line::Ready { address }) = self.next(deadline, Side::Serve)? {
                return Ok(address);
            }
        }
    }

    /// Waits for both results: the serving side's and the driving side's.
    pub(super) fn done(&mut self, deadline: Deadline) -> Result<(Sample, Sample), Error> {
        let (mut serve, mut drive) = (None, None);
        loop {
            if let (Some(serve), Some(drive)) = (&serve, &drive) {
                return Ok((Sample::clone(serve), Sample::clone(drive)));
            }
            let waiting_for = if drive.is_none() { Side::Drive } else { Side::Serve };
            if let (side, Line::Done(sample)) = self.next(deadline, waiting_for)? {
                self.finished.push(side);
                match side {
                    Side::Serve => serve = Some(sample),
                    Side::Drive => drive = Some(sample),
                }
            }
        }
    }

    /// The next line of either peer.
    fn next(&mut self, deadline: Deadline, waiting_for: Side) -> Result<(Side, Line), Error> {
        loop {
            self.interrupt.check()?;
            match self.said.recv_timeout(LOOK_UP) {
                Ok((side, Event::Said(line))) => return self.accept(side, line),
                Ok((side, Event::Garbled(said))) => {
                    return Err(Error::PeerFailed { who: self.who(side), said });
                }
                Ok((side, Event::Ended)) if !self.finished.contains(&side) => return Err(self.death(side)),
                Ok((_, Event::Ended)) => {}
                Err(_) if deadline.passed() => {
                    return Err(Error::PeerSilent { who: self.who(waiting_for), seconds: deadline.seconds });
                }
                Err(_) => {}
            }
        }
    }

    fn accept(&self, side: Side, line: Line) -> Result<(Side, Line), Error> {
        match line {
            Line::Failed { error } => Err(Error::PeerFailed { who: self.who(side), said: error }),
            line => Ok((side, line)),
        }
    }

    fn death(&mut self, side: Side) -> Error {
        let who = self.who(side);
        let Some((_, child)) = self.children.iter_mut().find(|(of, _)| *of == side) else {
            return Error::PeerFailed { who, said: "it was never started".to_owned() };
        };
        let pid = child.id();
        match child.wait() {
            Ok(status) => Error::PeerDied { who, pid, status },
            Err(error) => Error::PeerFailed { who, said: error.to_string() },
        }
    }

    /// "sender of bare quinn".
    fn who(&self, side: Side) -> String {
        let role = match side {
            Side::Serve => "receiver",
            Side::Drive => "sender",
        };
        format!("{role} of {}", self.title)
    }
}

impl Drop for Duo<'_> {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            // Both fail only if the child is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A moment by which something must have happened, and the allowance it came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Instant,
    seconds: u64,
}

impl Deadline {
    /// From now.
    pub(super) fn after(seconds: u64) -> Self {
        Self { at: Instant::now() + Duration::from_secs(seconds), seconds }
    }

    fn passed(self) -> bool {
        Instant::now() >= self.at
    }
}

/// `ip netns exec` replaces itself with the program, so the child's id is the peer's own. The program is named by this
/// process's link in /proc: it stays the same program even if the file is replaced during the run. The child gets its
/// own process group, so that Ctrl-C reaches the coordinator alone, which then ends the child.
fn command(namespace: Option<&str>, who: &str) -> Command {
    let program = format!("/proc/{}/exe", std::process::id());
    let mut command = match namespace {
        None => Command::new(program),
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace, &program]);
            command
        }
    };
    command.args(["bench", "channel-peer", who]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    command
}

/// Hands every line on; the receiver hangs up when the measurement is over.
fn relay(side: Side, lines: impl BufRead, say: &Sender<(Side, Event)>) {
    for line in lines.lines().map_while(Result::ok) {
        let event = match serde_json::from_str(&line) {
            Ok(line) => Event::Said(line),
            Err(_) => Event::Garbled(format!("it printed something else than a result: {line}")),
        };
        if say.send((side, event)).is_err() {
            return;
        }
    }
    let _ = say.send((side, Event::Ended));
}
