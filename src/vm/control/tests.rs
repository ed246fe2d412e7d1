#![allow(clippy::unwrap_used)]
use super::*;
use crate::vm::report::GuestReport;
use crossbeam::channel::RecvTimeoutError;
use ft_core::units::HostId;
use ft_net::identity::DAY;
use ft_net::{ClusterCa, LinkConfig, Network, NetworkConfig};
use ft_vmm::power::Cause;
use std::time::SystemTime;

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

struct Bed {
    dir: tempfile::TempDir,
    control: Control,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(LogFile::open(&dir.path().join("log")).unwrap());
        let control = Control::listen(&dir.path().join("control.sock"), log).unwrap();
        control.name("vm", 2);
        Self { dir, control }
    }

    fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.dir.path().join("control.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(BufReader::new(stream))
    }

    fn say(&self, report: Report) {
        self.control.reporter().say(report);
    }
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn hear(&mut self) -> Line {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the connection has ended");
        serde_json::from_str(&line).unwrap()
    }

    fn snapshot(&mut self) -> Snapshot {
        match self.hear() {
            Line::Snapshot(snapshot) => snapshot,
            other => panic!("{other:?} instead of a snapshot"),
        }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.0.get_mut(), "{line}").unwrap();
    }
}

#[test]
fn a_controller_hears_how_things_stand_and_then_what_happens() {
    let bed = Bed::new();
    bed.say(Report::Listening { address: "127.0.0.1:7001".into() });
    bed.say(Report::Live { term: 3 });
    bed.say(Report::Solo { term: 3 });
    bed.say(Report::Guest(GuestReport {
        event: Cause::Watchdog,
        restarted: true,
        restarts: 1,
        rip: "0x1000".into(),
    }));
    let mut early = bed.connect();
    let snapshot = early.snapshot();
    assert_eq!((&snapshot.vm[..], snapshot.host, snapshot.pid), ("vm", 2, std::process::id()));
    assert_eq!((snapshot.role, snapshot.term, snapshot.solo, snapshot.restarts), (Role::Live, 3, true, 1));
    assert_eq!(snapshot.address, Some("127.0.0.1:7001".parse().unwrap()));
    bed.say(Report::Protected { with: 5 });
    assert_eq!(early.hear(), Line::Report(Report::Protected { with: 5 }));
    let late = bed.connect().snapshot();
    assert_eq!((late.protected, late.solo, late.peer), (true, false, Some(5)));
    let log = std::fs::read_to_string(bed.dir.path().join("log")).unwrap();
    assert!(log.contains("live in term 3\n") && log.contains("protected, with host 5\n"), "{log}");
}

#[test]
fn commands_are_answered_to_whoever_gave_them() {
    let bed = Bed::new();
    let (mut one, mut other) = (bed.connect(), bed.connect());
    one.snapshot();
    other.snapshot();
    let refused = |line: Line, word: &str| match line {
        Line::Refused { reason, .. } => assert!(reason.contains(word), "{reason}"),
        other => panic!("{other:?} instead of a refusal"),
    };
    one.say("{\"cmd\":\"dance\"}");
    refused(one.hear(), "dance");
    one.say("{\"cmd\":\"add_peer\",\"id\":1,\"name\":\"a\",\"address\":\"127.0.0.1:1\"}");
    refused(one.hear(), "starting");
    one.say("{\"cmd\":\"hand_over\"}");
    refused(one.hear(), "starting");
    one.say("{\"cmd\":\"relieve\",\"id\":3}");
    refused(one.hear(), "starting");
    one.say("{\"cmd\":\"status\"}");
    assert!(matches!(one.hear(), Line::Snapshot(_)));
    one.say("{\"cmd\":\"stop\"}");
    assert_eq!(one.hear(), Line::Done { cmd: "stop".into() });
    assert_eq!(bed.control.stop().recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    // The other one has heard none of this.
    bed.say(Report::Live { term: 1 });
    assert_eq!(other.hear(), Line::Report(Report::Live { term: 1 }));
}

#[test]
fn peers_are_added_under_their_own_names() {
    let bed = Bed::new();
    let ca = ClusterCa::generate("test", 2 * DAY, SystemTime::now()).unwrap();
    let identity = ca.issue(&"host-b".parse().unwrap(), DAY).unwrap().identity().unwrap();
    let config = NetworkConfig {
        host: HostId(2),
        incarnation: 1,
        listen: ([127, 0, 0, 1], 0).into(),
        peers: BTreeMap::new(),
        link: LinkConfig::default(),
    };
    let (network, _events) = Network::start(identity, config).unwrap();
    bed.control.attach(network.peers(), bounded(0).0);
    let mut client = bed.connect();
    client.snapshot();
    for (id, name, is_good) in [(3, "host-c", true), (3, "Host C", false), (2, "host-b", false)] {
        client.say(&format!(
            "{{\"cmd\":\"add_peer\",\"id\":{id},\"name\":\"{name}\",\"address\":\"127.0.0.1:1\"}}"
        ));
        let heard = client.hear();
        assert_eq!(heard == Line::Done { cmd: "add_peer".into() }, is_good, "{heard:?}");
    }
}

#[test]
fn r9_a_controller_that_does_not_read_is_dropped_and_holds_nobody_up() {
    let bed = Bed::new();
    let mut deaf = bed.connect();
    deaf.snapshot();
    let mut good = bed.connect();
    good.snapshot();
    let text = "x".repeat(8 << 10);
    let deadline = Instant::now() + PATIENCE;
    // More than its queue and its socket hold, each line heard by the one that reads.
    for _ in 0..LINES_MAX + 200 {
        bed.say(Report::Console { device: 0, text: text.clone() });
        assert!(matches!(good.hear(), Line::Report(Report::Console { .. })));
        assert!(Instant::now() < deadline, "held up");
    }
    let mut rest = Vec::new();
    deaf.0.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < (LINES_MAX + 200) * text.len(), "it was dropped before the end");
}

#[test]
fn what_was_said_last_is_heard_although_the_process_ends() {
    let bed = Bed::new();
    let mut client = bed.connect();
    client.snapshot();
    bed.say(Report::Halted { reason: "lost".into() });
    let Bed { dir, control } = bed;
    drop(control);
    assert_eq!(client.hear(), Line::Report(Report::Halted { reason: "lost".into() }));
    assert_eq!(client.0.read_line(&mut String::new()).unwrap(), 0);
    assert!(!dir.path().join("control.sock").exists());
}
