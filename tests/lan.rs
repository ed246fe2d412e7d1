//! The switch from outside: raw ports, guests that fail over, clients on forwarded ports, and the command.
#![allow(clippy::unwrap_used)]

#[path = "lan/guest.rs"]
mod guest;
#[allow(dead_code)]
#[path = "load/server.rs"]
mod server;

use crossbeam::channel::{self, Receiver};
use ft::lan::{Endpoint, Forward, Mac, Notice, Port, PortConfig, Switch, SwitchConfig, announcement};
use ft::load::{Load, LoadConfig};
use guest::{GUEST, Guest, HANG_UP, SERVICE};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// For everything that must happen at some time.
const PATIENCE: Duration = Duration::from_secs(30);

struct Lan {
    dir: TempDir,
    switch: Switch,
    notices: Receiver<Notice>,
}

impl Lan {
    fn start(change: impl FnOnce(&mut SwitchConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = SwitchConfig::new(dir.path().join("switch"));
        change(&mut config);
        let (sender, notices) = channel::unbounded();
        let switch = Switch::start(config, move |notice| drop(sender.send(notice))).unwrap();
        Self { dir, switch, notices }
    }

    /// A switch with the guest's ports forwarded, in their order.
    fn forwarding(ports: &[u16]) -> Self {
        Self::start(|config| config.forwards = forwards(ports))
    }

    fn raw(&self) -> Raw {
        let Endpoint::Unix(path) = self.switch.endpoint() else { unreachable!() };
        let raw = Raw::new(UnixStream::connect(path).unwrap());
        self.wait(|notice| matches!(notice, Notice::PortOpened { .. }));
        raw
    }

    fn port(&self) -> Port {
        let port = Port::connect(self.switch.endpoint()).unwrap();
        assert!(port.wait_connected(PATIENCE));
        port
    }

    fn client(&self, forward: usize) -> TcpStream {
        client(self.switch.forward_addresses()[forward])
    }

    fn wait(&self, what: impl Fn(&Notice) -> bool) -> Notice {
        loop {
            let notice = self.notices.recv_timeout(PATIENCE).expect("the switch has something to say");
            if what(&notice) {
                return notice;
            }
        }
    }
}

fn forwards(ports: &[u16]) -> Vec<Forward> {
    let to = |port| Forward { host: "127.0.0.1:0".parse().unwrap(), guest: SocketAddrV4::new(GUEST, port) };
    ports.iter().copied().map(to).collect()
}

fn client(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A port without any of the library's code.
struct Raw(UnixStream);

impl Raw {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn send(&mut self, frame: &[u8]) {
        let length = (frame.len() as u32).to_be_bytes();
        self.0.write_all(&[&length, frame].concat()).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).unwrap();
        frame
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
            || self.0.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    }
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, n])
}

fn frame(to: Mac, from: Mac, content: &[u8]) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &[0x88, 0xB5], content].concat();
    frame.resize(60.max(frame.len()), 0);
    frame
}

/// Bytes that say where in a stream they are.
fn pattern(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| (at ^ (at >> 8) ^ (at >> 16) ^ (at >> 24)) as u8).collect()
}

#[test]
fn frames_are_flooded_until_their_receiver_is_known_and_follow_it_when_it_moves() {
    let lan = Lan::start(|_| {});
    let (mut a, mut b, mut c) = (lan.raw(), lan.raw(), lan.raw());
    a.send(&frame(mac(2), mac(1), b"who is 2"));
    assert_eq!(b.receive(), c.receive());
    b.send(&frame(mac(1), mac(2), b"me"));
    assert_eq!(a.receive(), frame(mac(1), mac(2), b"me"));
    // Only b gets it: the next frame at c is the broadcast.
    a.send(&frame(mac(2), mac(1), b"for you"));
    a.send(&frame(Mac::BROADCAST, mac(1), b"for all"));
    assert_eq!(b.receive(), frame(mac(2), mac(1), b"for you"));
    assert_eq!(b.receive(), frame(Mac::BROADCAST, mac(1), b"for all"));
    assert_eq!(c.receive(), frame(Mac::BROADCAST, mac(1), b"for all"));
    // 2 is now behind c.
    c.send(&announcement(mac(2)));
    assert_eq!((a.receive(), b.receive()), (announcement(mac(2)).to_vec(), announcement(mac(2)).to_vec()));
    assert!(matches!(lan.wait(|notice| matches!(notice, Notice::Moved { .. })),
        Notice::Moved { mac: moved, from: Some(_), .. } if moved == mac(2)));
    a.send(&frame(mac(2), mac(1), b"there"));
    assert_eq!(c.receive(), frame(mac(2), mac(1), b"there"));
    // The port of 2 is gone, so the frame goes everywhere.
    drop(c);
    lan.wait(|notice| matches!(notice, Notice::PortClosed { .. }));
    a.send(&frame(mac(2), mac(1), b"anybody"));
    assert_eq!(b.receive(), frame(mac(2), mac(1), b"anybody"));
    let stats = lan.switch.statistics().unwrap();
    assert_eq!((stats.fabric.moves, stats.ports.len(), stats.addresses), (1, 2, 2));
}

#[test]
fn lengths_that_no_frame_has_close_the_port_and_nothing_else() {
    let lan = Lan::start(|_| {});
    let (mut a, mut b) = (lan.raw(), lan.raw());
    for length in [0u32, 13, 1519, 65536, u32::MAX] {
        let mut bad = lan.raw();
        bad.0.write_all(&length.to_be_bytes()).unwrap();
        assert!(bad.is_closed(), "{length}");
        match lan.wait(|notice| matches!(notice, Notice::PortClosed { .. })) {
            Notice::PortClosed { why, .. } => assert!(why.contains(&format!("{length} bytes")), "{why}"),
            other => panic!("{other}"),
        }
    }
    let longest = frame(Mac::BROADCAST, mac(1), &[7; 1504]);
    assert_eq!(longest.len(), 1518);
    a.send(&longest);
    assert_eq!(b.receive(), longest);
    assert_eq!(lan.switch.statistics().unwrap().malformed, 5);
}

#[test]
fn a_port_that_does_not_read_loses_its_own_frames_only() {
    let lan = Lan::start(|config| config.port_queue = 64 << 10);
    let (mut sender, mut reader, _sleeper) = (lan.raw(), lan.raw(), lan.raw());
    let count = 5000u32;
    for number in 0..count {
        sender.send(&frame(Mac::BROADCAST, mac(1), &[&number.to_be_bytes()[..], &[0; 1000]].concat()));
        // In step with the reader, whose queue is as small.
        assert_eq!(reader.receive()[14..18], number.to_be_bytes());
    }
    let stats = lan.switch.statistics().unwrap();
    let dropped: Vec<u64> = stats.ports.iter().map(|(_, port)| port.dropped).collect();
    assert_eq!((dropped[0], dropped[1]), (0, 0));
    assert!(dropped[2] > 0 && dropped[2] < u64::from(count), "{dropped:?}");
    assert_eq!(stats.fabric.dropped, dropped[2]);
}

#[test]
fn a_port_finds_its_switch_again_and_announces_what_it_was_told() {
    let lan = Lan::start(|_| {});
    let port = lan.port();
    let mut raw = lan.raw();
    assert!(port.send(&frame(Mac::BROADCAST, mac(5), b"hello")));
    assert_eq!(raw.receive(), frame(Mac::BROADCAST, mac(5), b"hello"));
    raw.send(&frame(mac(5), mac(1), b"hello 5"));
    assert_eq!(port.frames().recv_timeout(PATIENCE).unwrap(), frame(mac(5), mac(1), b"hello 5"));
    assert!(!port.send(&[0; 13]) && !port.send(&[0; 1519]));
    // The switch goes away. Another one finds first what the port was told in between.
    let Lan { dir, switch, .. } = lan;
    switch.stop();
    assert_eq!(raw.0.read(&mut [0]).unwrap(), 0);
    port.announce(mac(5));
    let next = UnixListener::bind(dir.path().join("switch")).unwrap();
    for connects in 2..4 {
        let mut switch = Raw::new(next.accept().unwrap().0);
        assert_eq!(switch.receive(), announcement(mac(5)));
        assert_eq!((port.counts().connects, port.counts().dropped_out), (connects, 2));
    }
    port.withdraw();
    let mut switch = Raw::new(next.accept().unwrap().0);
    // What is sent before the port knows that it is connected again is dropped.
    let hello = frame(Mac::BROADCAST, mac(5), b"hello");
    while port.counts().connects < 4 {
        std::thread::yield_now();
    }
    assert!(port.send(&hello));
    assert_eq!(switch.receive(), hello);
}

#[test]
fn a_port_by_tcp_is_on_the_same_lan() {
    let lan = Lan::start(|config| config.listen_tcp = Some("127.0.0.1:0".parse().unwrap()));
    let mut raw = lan.raw();
    let port = Port::with_config(PortConfig::new(lan.switch.tcp_address().unwrap())).unwrap();
    assert!(port.wait_connected(PATIENCE));
    port.announce(mac(9));
    assert_eq!(raw.receive(), announcement(mac(9)));
    raw.send(&frame(mac(9), mac(1), b"by tcp"));
    assert_eq!(port.frames().recv_timeout(PATIENCE).unwrap(), frame(mac(9), mac(1), b"by tcp"));
}

/// Sends so many bytes of the pattern and reads them back. Returns the longest time without any.
fn echo(stream: TcpStream, length: usize, mut progress: impl FnMut(usize)) -> Duration {
    let mut sender = stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        for from in (0..length).step_by(64 << 10) {
            sender.write_all(&pattern(from, (length - from).min(64 << 10))).unwrap();
        }
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let (mut stream, mut got, mut gap, mut last) = (stream, 0, Duration::ZERO, Instant::now());
    let mut piece = vec![0; 64 << 10];
    loop {
        let count = stream.read(&mut piece).unwrap();
        (gap, last) = (gap.max(last.elapsed()), Instant::now());
        if count == 0 {
            break;
        }
        assert!(piece[..count] == pattern(got, count), "wrong byte after {got}");
        got += count;
        progress(got);
    }
    assert_eq!(got, length);
    writer.join().unwrap();
    gap
}

#[test]
fn a_client_talks_to_a_guest_and_both_directions_end_by_themselves() {
    let lan = Lan::forwarding(&[SERVICE]);
    let _guest = Guest::boot(lan.port(), 2);
    echo(lan.client(0), 4 << 20, |_| {});
    // Half-closed by the client from the beginning: what was sent before still comes back.
    let mut stream = lan.client(0);
    stream.write_all(b"last words").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all, "last words");
    let stats = lan.switch.statistics().unwrap();
    assert_eq!((stats.connections, stats.resets), (2, 0));
    assert_eq!((stats.to_guests, stats.to_clients), ((4 << 20) + 10, (4 << 20) + 10));
}

#[test]
fn a_clients_stream_survives_failovers_of_its_guest() {
    let lan = Lan::forwarding(&[SERVICE]);
    let guest = Guest::boot(lan.port(), 1);
    let outage = Duration::from_millis(200);
    let (mut failovers, mut moves, mut next) = (0, 0, 1 << 20);
    // What the host buffers still arrives during an outage, so there is much more than three times that.
    let gap = echo(lan.client(0), 48 << 20, |got| {
        moves += lan.notices.try_iter().filter(|notice| matches!(notice, Notice::Moved { .. })).count();
        if got >= next && failovers < 3 && moves == failovers {
            failovers += 1;
            next = got + (1 << 20);
            guest.fail_over(lan.port(), outage);
        }
    });
    assert!(gap >= outage, "{gap:?}: there was no outage");
    assert!(gap < outage + Duration::from_secs(1), "{gap:?}: what was lost was sent again too late");
    let stats = lan.switch.statistics().unwrap();
    assert_eq!((failovers, stats.fabric.moves, stats.resets), (3, 3, 0));
}

#[test]
fn a_load_on_a_guest_that_fails_over_finds_nothing_wrong() {
    let lan = Lan::forwarding(&[SERVICE]);
    let mut redis = server::service();
    let (sender, served) = channel::bounded(0);
    let service = move |heard: &mut Vec<u8>| {
        // Only while the test waits for it.
        let _ = sender.try_send(());
        redis(heard)
    };
    let guest = Guest::serve(lan.port(), 8, Box::new(service));
    let config =
        LoadConfig { connections: 4, pipeline: 8, ..LoadConfig::new(lan.switch.forward_addresses()[0]) };
    let load = Load::start(config).unwrap();
    for _ in 0..3 {
        (0..300).for_each(|_| served.recv_timeout(PATIENCE).unwrap());
        let mark = load.mark();
        guest.fail_over(lan.port(), Duration::from_millis(100));
        lan.wait(|notice| matches!(notice, Notice::Moved { .. }));
        let gap = load.gap_since(mark);
        assert!(gap >= Duration::from_millis(90) && gap < Duration::from_secs(1), "{gap:?}");
    }
    let report = load.finish();
    assert!(report.is_clean() && report.ops > 1000 && report.keys_read_back > 300, "{report:#?}");
    assert_eq!(lan.switch.statistics().unwrap().resets, 0);
}

#[test]
fn an_idle_client_notices_nothing_and_one_that_comes_during_the_outage_waits() {
    let lan = Lan::start(|config| {
        config.forwards = forwards(&[SERVICE]);
        config.guest_timeout = Duration::from_millis(700);
    });
    let guest = Guest::boot(lan.port(), 2);
    let mut idle = lan.client(0);
    idle.write_all(b"a").unwrap();
    idle.read_exact(&mut [0]).unwrap();
    guest.fail_over(lan.port(), Duration::from_millis(200));
    let mut newcomer = lan.client(0);
    newcomer.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    newcomer.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    // Idle for longer than a guest may be silent: nothing was to be acknowledged.
    idle.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    assert_eq!(idle.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    idle.set_read_timeout(Some(PATIENCE)).unwrap();
    idle.write_all(b"b").unwrap();
    idle.read_exact(&mut [0]).unwrap();
}

#[test]
fn many_clients_at_a_time() {
    let lan = Lan::forwarding(&[SERVICE]);
    let _guest = Guest::boot(lan.port(), 300);
    let mut clients: Vec<TcpStream> = (0..300).map(|_| lan.client(0)).collect();
    for round in 0..3usize {
        for (number, client) in clients.iter_mut().enumerate() {
            client.write_all(&pattern(number * 1000 + round, 2000)).unwrap();
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let mut back = [0; 2000];
            client.read_exact(&mut back).unwrap();
            assert!(back[..] == pattern(number * 1000 + round, 2000));
        }
    }
    assert_eq!(lan.switch.statistics().unwrap().connections_now, 300);
}

#[test]
fn clients_beyond_the_bound_wait_for_a_place() {
    let lan = Lan::start(|config| {
        config.forwards = forwards(&[SERVICE]);
        config.max_connections = 2;
    });
    let _guest = Guest::boot(lan.port(), 8);
    let clients: Vec<TcpStream> = (0..6).map(|_| lan.client(0)).collect();
    for mut client in clients {
        client.write_all(b"my turn").unwrap();
        let mut back = [0; 7];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"my turn");
    }
}

fn is_reset(mut client: TcpStream) -> bool {
    let end = client.read(&mut [0]);
    end.is_err_and(|error| matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
}

#[test]
fn a_client_learns_that_its_guest_refuses_hangs_up_or_is_not_there() {
    let lan = Lan::start(|config| {
        config.forwards = forwards(&[9, HANG_UP]);
        let nobody = "127.0.0.1:0=10.0.2.99:7".parse().unwrap();
        config.forwards.push(nobody);
        config.guest_timeout = Duration::from_millis(300);
    });
    let _guest = Guest::boot(lan.port(), 1);
    assert!(is_reset(lan.client(0)), "nobody listens in the guest");
    let mut client = lan.client(1);
    client.write_all(b"!").unwrap();
    assert!(is_reset(client), "the guest hung up");
    assert!(is_reset(lan.client(2)), "there is no such guest");
    let why = ["refused", "refused", "did not answer"];
    for why in why {
        let notice = lan.wait(|notice| matches!(notice, Notice::Reset { .. })).to_string();
        assert!(notice.contains(why), "{notice}");
    }
    assert_eq!(lan.switch.statistics().unwrap().connections_now, 0);
}

#[test]
fn the_guest_learns_that_its_client_is_gone() {
    let lan = Lan::forwarding(&[SERVICE]);
    // One socket: the second client is served only if the guest noticed the end of the first.
    let _guest = Guest::boot(lan.port(), 1);
    let mut rude = lan.client(0);
    rude.write_all(&[1; 100_000]).unwrap();
    rude.read_exact(&mut [0; 10]).unwrap();
    // With unread bytes this resets.
    drop(rude);
    lan.wait(|notice| matches!(notice, Notice::Reset { .. }));
    let mut polite = lan.client(0);
    polite.write_all(b"x").unwrap();
    polite.read_exact(&mut [0]).unwrap();
}

/// Processor time of the switch's threads so far, in hundredths of a second, as Linux counts it.
fn switch_ticks() -> u64 {
    let stat =
        |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
    let switches = std::fs::read_dir("/proc/self/task").unwrap().map(|task| stat(task.unwrap()));
    let ticks = |stat: String| -> u64 {
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
    };
    switches.filter(|stat| stat.contains("(ft-switch)")).map(ticks).sum()
}

/// Run it with `--release -- --ignored --nocapture` on a quiet machine.
#[test]
#[ignore = "measures"]
fn figures_of_a_forwarded_connection() {
    let lan = Lan::forwarding(&[SERVICE]);
    let _guest = Guest::boot(lan.port(), 2);
    let (length, start) = (256 << 20, Instant::now());
    echo(lan.client(0), length, |_| {});
    let rate = length as f64 / 1e6 / start.elapsed().as_secs_f64();
    let switch = 2.0 * length as f64 / 1e6 / (switch_ticks() as f64 / 100.0);
    let mut client = lan.client(0);
    client.set_nodelay(true).unwrap();
    let mut times: Vec<Duration> = (0..20_000)
        .map(|_| {
            let start = Instant::now();
            client.write_all(&[1; 64]).unwrap();
            client.read_exact(&mut [0; 64]).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "echo: {rate:.0} MB/s each way, {switch:.0} MB copied per second of the switch's processor time; 64 bytes there and back: median {:?}",
        times[10_000]
    );
    let lan = Lan::forwarding(&[SERVICE]);
    let _guest = Guest::serve(lan.port(), 260, Box::new(server::service()));
    let address = lan.switch.forward_addresses()[0];
    for connections in [16, 256] {
        let before = switch_ticks();
        let load = Load::start(LoadConfig { connections, pipeline: 1, ..LoadConfig::new(address) }).unwrap();
        std::thread::sleep(Duration::from_secs(2));
        let report = load.finish();
        let each = (switch_ticks() - before) as f64 * 1e4 / report.ops as f64;
        let (rate, latency) = (report.ops_per_second, report.latency);
        println!(
            "{connections} clients: {rate:.0} ops/s, {each:.1} us of the switch's processor each, {latency:?}"
        );
        assert!(report.is_clean(), "{report:#?}");
    }
}

#[test]
fn the_command_serves_until_it_is_told_to_stop_and_removes_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("switch");
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ft"));
        command.args(["switch", "--stats", "--forward", "127.0.0.1:0=10.0.2.15:7", "--socket"]).arg(&path);
        command.stderr(Stdio::piped());
        command
    };
    let mut switch = command().spawn().unwrap();
    let mut lines = BufReader::new(switch.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.by_ref().find(|line| line.contains("leads to")).unwrap();
    let address = line.split_whitespace().nth(2).unwrap().parse().unwrap();
    let _guest = Guest::boot(Port::connect(path.as_path()).unwrap(), 1);
    echo(client(address), 100_000, |_| {});
    let second = command().output().unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success());
    assert!(error.contains(&format!("process {}", switch.id())) && error.contains("stop it"), "{error}");
    let kill = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", switch.id())).status().unwrap();
    assert!(kill.success());
    assert!(switch.wait().unwrap().success());
    assert!(lines.any(|line| line.contains("in all:") && line.contains("100 kB to guests")));
    assert!(!path.exists());
}
