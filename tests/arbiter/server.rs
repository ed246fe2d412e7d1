//! etcd clusters for tests: real processes, on free ports, in a directory of their own.

use crate::suite::DEADLINE;
use ft::arbiter::{ArbiterConfig, EtcdConfig};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;
use tempfile::TempDir;

/// A cluster of one or more members. Its processes end with it.
pub(crate) struct Etcd {
    members: Vec<Member>,
    tls: Option<Tls>,
    pub(crate) dir: TempDir,
}

struct Member {
    client: u16,
    peer: u16,
    process: Option<Child>,
}

/// What members show their clients, and ask of them.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

fn program() -> PathBuf {
    let program = std::env::var_os("FT_TEST_ETCD").map_or("/usr/bin/etcd".into(), PathBuf::from);
    assert!(program.exists(), "{} is missing: apt-get install etcd-server", program.display());
    program
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

impl Etcd {
    pub(crate) fn start() -> Self {
        Self::start_cluster(1, None)
    }

    pub(crate) fn start_cluster(members: usize, tls: Option<Tls>) -> Self {
        let member = |_| Member { client: free_port(), peer: free_port(), process: None };
        let dir = tempfile::tempdir().unwrap();
        let mut etcd = Self { members: (0..members).map(member).collect(), tls, dir };
        (0..members).for_each(|member| etcd.spawn(member));
        (0..members).for_each(|member| etcd.wait_until_it_accepts(member));
        etcd
    }

    pub(crate) fn port(&self, member: usize) -> u16 {
        self.members[member].client
    }

    pub(crate) fn url(&self, member: usize) -> String {
        let (scheme, host) = if self.tls.is_some() { ("https", "localhost") } else { ("http", "127.0.0.1") };
        format!("{scheme}://{host}:{}", self.port(member))
    }

    pub(crate) fn config(&self) -> EtcdConfig {
        EtcdConfig {
            timeout_ms: 3000,
            ..EtcdConfig::new((0..self.members.len()).map(|member| self.url(member)))
        }
    }

    pub(crate) fn arbiter(&self) -> ArbiterConfig {
        ArbiterConfig::Etcd(self.config())
    }

    pub(crate) fn kill(&mut self, member: usize) {
        let mut process = self.members[member].process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Starts a member that was killed, with the data that it had.
    pub(crate) fn restart(&mut self, member: usize) {
        self.spawn(member);
        self.wait_until_it_accepts(member);
    }

    pub(crate) fn signal(&self, member: usize, signal: &str) {
        let id = self.members[member].process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }

    fn spawn(&mut self, member: usize) {
        let peer_url = |member: &Member| format!("http://127.0.0.1:{}", member.peer);
        let cluster = self.members.iter().enumerate();
        let cluster: Vec<_> = cluster.map(|(id, member)| format!("m{id}={}", peer_url(member))).collect();
        let peer = peer_url(&self.members[member]);
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let client = format!("{scheme}://127.0.0.1:{}", self.port(member));
        let log = File::options().create(true).append(true).open(self.log(member)).unwrap();
        let mut command = Command::new(program());
        command
            .args(["--name", &format!("m{member}"), "--initial-cluster", &cluster.join(",")])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .arg("--data-dir")
            .arg(self.dir.path().join(format!("m{member}")))
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if let Some(Tls { ca, cert, key }) = &self.tls {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(ca);
            command.arg("--cert-file").arg(cert).arg("--key-file").arg(key);
        }
        self.members[member].process = Some(command.spawn().unwrap());
    }

    fn log(&self, member: usize) -> PathBuf {
        self.dir.path().join(format!("m{member}.log"))
    }

    /// A member listens for clients once it is part of a cluster that has a leader.
    fn wait_until_it_accepts(&mut self, member: usize) {
        let (started, port, log) = (Instant::now(), self.port(member), self.log(member));
        let story = |log: &Path| fs::read_to_string(log).unwrap_or_default();
        let process = self.members[member].process.as_mut().unwrap();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "etcd ended: {}", story(&log));
            assert!(started.elapsed() < DEADLINE, "etcd does not listen: {}", story(&log));
            std::thread::sleep(std::time::Duration::from_millis(10)); // between two looks
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
