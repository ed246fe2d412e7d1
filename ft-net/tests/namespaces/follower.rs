//! Follows the log, checks every record, and acknowledges.

use crate::cluster::linked::{DIALER, Host};
use crate::traffic::envelope;
use crate::{FRAMES, content, link, process};
use ft_core::Event;
use ft_core::frame::{Frame, LogEnd};
use ft_core::log::{Accepted, LogReader};
use ft_core::message::{Ack, Message};
use ft_core::units::{HostId, Seq, Tick};
use ft_net::NetEvent;
use std::time::Duration;

const WRITER: HostId = HostId(1);

#[test]
#[ignore = "a process that other tests start"]
fn follower_process() {
    let Some((identity, words)) = process::part() else { return };
    let [own, idle_ms, len_max, pause] = words.try_into().unwrap();
    let told = process::told();
    let host = Host::start_at(format!("{own}:0").parse().unwrap(), identity, 2, &[DIALER], link(&idle_ms));
    process::say(&format!("listening {}", host.address()));
    let mut follower = Follower {
        log: LogReader::new(LogEnd::default(), Tick(0)),
        len_max: len_max.parse().unwrap(),
        gap: false,
        twice: 0,
    };
    let pause = Seq(pause.parse().unwrap());
    let mut has_paused = pause == Seq(0);
    while follower.held() < Seq(FRAMES) {
        // An acknowledgement may be lost: the last one is sent again when nothing else comes.
        match host.events.recv_timeout(Duration::from_millis(20)) {
            Ok(NetEvent::Message(_, envelope)) => match envelope.message {
                Message::Log { frame, .. } => follower.take(&frame),
                other => panic!("{}", other.name()),
            },
            Ok(NetEvent::Gone(_)) => panic!("the writer lives"),
            Ok(_) | Err(_) => {}
        }
        host.network.send(WRITER, envelope(Message::Ack(follower.ack())));
        if !has_paused && follower.held() >= pause {
            has_paused = true;
            process::say("paused");
            assert_eq!(told.recv().unwrap(), "go on");
        }
    }
    process::say(&format!("followed {} twice {}", follower.log.end().chain, follower.twice));
    // Until the writer knows as well.
    while told.recv_timeout(Duration::from_millis(20)).is_err() {
        host.network.send(WRITER, envelope(Message::Ack(follower.ack())));
    }
}

struct Follower {
    log: LogReader,
    len_max: u64,
    gap: bool,
    twice: u64,
}

impl Follower {
    fn held(&self) -> Seq {
        self.log.end().seq
    }

    fn ack(&self) -> Ack {
        Ack { held: self.held(), applied: self.held(), gap: self.gap, ..Ack::default() }
    }

    fn take(&mut self, frame: &Frame) {
        let accepted = self.log.accept(frame).unwrap();
        self.gap = accepted == Accepted::Gap;
        self.twice += u64::from(accepted == Accepted::Duplicate);
        let Accepted::New(records) = accepted else { return };
        for (n, record) in (frame.first().0..).zip(records) {
            let Event::Net { frame: bytes, .. } = record.event else { panic!("{}", record.event.name()) };
            assert!(bytes == content(n, self.len_max), "record {n} is not what was written");
        }
    }
}
