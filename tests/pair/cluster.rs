//! The parent: starts hosts, signals them by their ids, and is the client that checks every reply.

use super::host::{ARBITER, CREDENTIALS, NUMBER};
use crossbeam::channel::{Receiver, Sender, unbounded};
use ft::net::identity::DAY;
use ft::net::{ClusterCa, HostName};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Generous: what takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(60);

/// A request that has no answer by then is repeated; the machine ignores repetitions.
const REPEAT: Duration = Duration::from_millis(50);

struct Host {
    number: u64,
    child: Child,
    input: ChildStdin,
    address: String,
    replies: usize,
    notices: Vec<String>,
}

/// Which host, and the line.
type Said = (&'static str, String);

pub(crate) struct Cluster {
    ca: ClusterCa,
    dir: tempfile::TempDir,
    hosts: BTreeMap<&'static str, Host>,
    said: (Sender<Said>, Receiver<Said>),
    live: &'static str,
    request: u64,
    total: u64,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("arbiter")).unwrap();
        let ca = ClusterCa::generate("test", 2 * DAY, SystemTime::now()).unwrap();
        Self { ca, dir, hosts: BTreeMap::new(), said: unbounded(), live: "", request: 0, total: 0 }
    }

    pub(crate) fn create(&mut self, name: &'static str) {
        self.spawn(name);
        self.tell(name, "start");
        self.wait_for(name, "Live(Term(1))");
    }

    pub(crate) fn join(&mut self, name: &'static str, primary: &'static str) {
        self.spawn(name);
        let (number, address) = (self.hosts[name].number, self.hosts[name].address.clone());
        let others: Vec<_> = self.hosts.keys().copied().filter(|other| *other != name).collect();
        for other in others {
            let line = format!("peer {} {other} {}", self.hosts[other].number, self.hosts[other].address);
            self.tell(name, &line);
            self.tell(other, &format!("peer {number} {name} {address}"));
        }
        let primary_number = self.hosts[primary].number;
        self.tell(name, &format!("join {primary_number}"));
        self.wait_for(primary, &format!("Protected(HostId({number}))"));
    }

    /// Sends requests one after the other, and checks every reply: nothing lost, nothing counted twice.
    pub(crate) fn requests(&mut self, count: u64) {
        for _ in 0..count {
            self.request += 1;
            let number = self.request % 7 + 1;
            let line = format!("input {} {number}", self.request);
            let started = Instant::now();
            self.tell(self.live, &line);
            while !self.heard_total(self.total + number, REPEAT) {
                assert!(
                    started.elapsed() < DEADLINE,
                    "no reply to request {}; {}",
                    self.request,
                    self.story()
                );
                self.tell(self.live, &line);
            }
            self.total += number;
        }
    }

    pub(crate) fn live(&self) -> &'static str {
        self.live
    }

    pub(crate) fn replies_of(&self, name: &str) -> usize {
        self.hosts[name].replies
    }

    /// Waits until a host has given this notice.
    pub(crate) fn wait_for(&mut self, name: &str, notice: &str) {
        let started = Instant::now();
        while !self.hosts[name].notices.iter().any(|said| said == notice) {
            assert!(started.elapsed() < DEADLINE, "{name} never said {notice}; {}", self.story());
            self.listen(REPEAT);
        }
    }

    pub(crate) fn signal(&mut self, name: &str, signal: &str) {
        let id = self.hosts[name].child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }

    fn heard_total(&mut self, wanted: u64, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match self.listen(left) {
                Some(total) if total == wanted => return true,
                // Emitted again by a machine that had to be sure (R7).
                Some(total) => {
                    assert!(total <= self.total, "reply {total} after {}; {}", self.total, self.story())
                }
                None => {}
            }
        }
        false
    }

    /// Takes one line from any host; a reply's number if it is one.
    fn listen(&mut self, patience: Duration) -> Option<u64> {
        let (name, line) = self.said.1.recv_timeout(patience).ok()?;
        let host = self.hosts.get_mut(name).unwrap();
        if let Some(total) = line.strip_prefix("reply ") {
            host.replies += 1;
            return Some(total.parse().unwrap());
        }
        let notice = line.strip_prefix("notice ")?.to_owned();
        if notice.starts_with("Live(") {
            self.live = name;
        }
        host.notices.push(notice);
        None
    }

    fn spawn(&mut self, name: &'static str) {
        let credentials = self.dir.path().join(name);
        let host: HostName = name.parse().unwrap();
        self.ca.issue(&host, DAY).unwrap().write(&credentials).unwrap();
        let number = self.hosts.len() as u64;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "host_process", "--nocapture"])
            .env(CREDENTIALS, &credentials)
            .env(NUMBER, number.to_string())
            .env(ARBITER, self.dir.path().join("arbiter"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| Some(line.strip_prefix("address ")?.to_owned()));
        let said = self.said.0.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = said.send((name, line));
            }
        });
        let (input, address) = (child.stdin.take().unwrap(), address.unwrap());
        let (replies, notices) = (0, Vec::new());
        self.hosts.insert(name, Host { number, child, input, address, replies, notices });
    }

    /// Says a line to a host. One that is dead does not hear it, as a dead host does not.
    fn tell(&mut self, name: &str, line: &str) {
        let _ = writeln!(self.hosts.get_mut(name).unwrap().input, "{line}");
    }

    fn story(&self) -> String {
        self.hosts.iter().map(|(name, host)| format!("{name}: {:?}\n", host.notices)).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for host in self.hosts.values_mut() {
            let _ = host.child.kill();
            let _ = host.child.wait();
        }
    }
}
