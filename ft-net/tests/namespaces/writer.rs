//! Writes the log and sends it until all of it is acknowledged.

use crate::cluster::linked::Host;
use crate::traffic::{append, log};
use crate::{FRAMES, content, link, process};
use ft_core::frame::LogEnd;
use ft_core::log::LogWriter;
use ft_core::message::{Ack, Message};
use ft_core::units::{HostId, Seq};
use ft_net::NetEvent;
use std::time::Duration;

const FOLLOWER: HostId = HostId(2);

/// The ring is not let grow above this.
const RING_BYTES: usize = 8 << 20;

#[test]
#[ignore = "a process that other tests start"]
fn writer_process() {
    let Some((identity, words)) = process::part() else { return };
    let [own, peer, idle_ms, len_max] = words.try_into().unwrap();
    let told = process::told();
    let own = Host::start_at(
        format!("{own}:0").parse().unwrap(),
        identity,
        1,
        &[(2, peer.parse().unwrap())],
        link(&idle_ms),
    );
    let mut writer = Writer {
        host: own,
        log: LogWriter::new(LogEnd::default(), 1),
        len_max: len_max.parse().unwrap(),
        is_up: false,
        sent: Seq(0),
        acked: Seq(0),
    };
    while writer.acked < Seq(FRAMES) {
        writer.write();
        writer.send();
        writer.take_event();
    }
    process::say(&format!("written {}", writer.log.sealed().chain));
    assert_eq!(told.recv().unwrap(), "leave");
}

struct Writer {
    host: Host,
    log: LogWriter,
    len_max: u64,
    is_up: bool,
    sent: Seq,
    acked: Seq,
}

impl Writer {
    fn write(&mut self) {
        while self.log.last() < Seq(FRAMES) && self.log.bytes() < RING_BYTES {
            let n = self.log.last().0 + 1;
            append(&mut self.log, n, content(n, self.len_max));
            self.log.seal();
        }
    }

    /// As far as the link takes it.
    fn send(&mut self) {
        let due = self.log.after(self.sent).expect("what is not acknowledged is kept");
        for frame in due {
            if !self.is_up || !self.host.network.send(FOLLOWER, log(frame)) {
                return;
            }
            self.sent = frame.last();
        }
    }

    fn take_event(&mut self) {
        match self.host.events.recv_timeout(Duration::from_millis(5)) {
            Ok(NetEvent::Up(_)) => {
                process::say("up");
                self.is_up = true;
                self.sent = self.acked;
            }
            Ok(NetEvent::Message(_, envelope)) => {
                let Message::Ack(Ack { held, gap, .. }) = envelope.message else { panic!("{envelope:?}") };
                self.acked = self.acked.max(held);
                self.log.trim(self.acked);
                self.sent = if gap { self.acked } else { self.sent.max(self.acked) };
            }
            Ok(NetEvent::Down(..)) => {
                process::say("down");
                self.is_up = false;
            }
            Ok(NetEvent::Gone(_)) => panic!("the follower lives"),
            // The link's queue may have room again.
            Err(_) => {}
        }
    }
}
