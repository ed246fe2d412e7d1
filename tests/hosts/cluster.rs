//! Three hosts: their agents are processes that the tests start and kill, and so are VM processes.

use ft::demo::{Agents, AgentsConfig};
use ft::host::events::Event;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const VM: &str = "store";

/// A machine that runs all tests at once may leave a process waiting for longer than an operator would bear.
const HEARTBEAT_MS: u64 = 400;

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct Cluster {
    agents: Agents,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Three agents that see each other.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = AgentsConfig {
            vm: VM.into(),
            heartbeat_ms: Some(HEARTBEAT_MS),
            ..AgentsConfig::new(env!("CARGO_BIN_EXE_ft"), dir.path())
        };
        let agents = Agents::start(config, |_| {}).unwrap();
        Self { agents, dir }
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.path().join(file)).unwrap()
    }

    pub(crate) fn write_file(&self, file: &str, text: &str) {
        fs::write(self.dir.path().join(file), text).unwrap();
    }

    /// What a host's agent answers at `path` of its metrics' address.
    pub(crate) fn get(&self, host: u64, path: &str) -> String {
        let file = self.read(&format!("host-{host}.toml"));
        let file: toml::Table = file.parse().unwrap();
        let mut stream = TcpStream::connect(file["metrics"].as_str().unwrap()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn start_agent(&mut self, host: u64) {
        self.agents.start_agent(host).unwrap();
    }

    /// Replaces a host's program, and starts its agent again.
    pub(crate) fn upgrade(&mut self, host: u64, program: &Path) {
        self.agents.kill_agent(host).unwrap();
        self.agents.set_program(host, program.to_owned());
        self.agents.start_agent(host).unwrap();
        self.wait_until("agents that see the upgraded one", |cluster| {
            cluster.agents.hosts().all(|other| cluster.sees(other, host) || other == host)
        });
    }

    /// The builds of the copies that run, by host.
    pub(crate) fn builds(&self) -> BTreeMap<u64, String> {
        let build = |host| {
            let description = self.agents.describe(host)?;
            let vm = description.vms.iter().find(|vm| vm.running)?;
            Some((host, vm.copy.version.clone()))
        };
        self.agents.hosts().filter_map(build).collect()
    }

    /// A copy of the program with another stamp.
    pub(crate) fn stamped(&self, name: &str, flags: &[&str]) -> PathBuf {
        self.ft(1, &[&["stamp"], flags, &[name]].concat());
        self.dir.path().join(name)
    }

    pub(crate) fn kill_agent(&mut self, host: u64) {
        self.agents.kill_agent(host).unwrap();
    }

    /// Kills the VM's process on a host.
    pub(crate) fn kill_vm(&self, host: u64) {
        self.agents.signal_vm(host, Signal::SIGKILL).unwrap().unwrap();
    }

    /// The VM's process on a host, if one runs.
    pub(crate) fn vm_of(&self, host: u64) -> Option<u32> {
        self.agents.vm_of(host)
    }

    /// The VM's processes by host.
    pub(crate) fn running(&self) -> BTreeMap<u64, u32> {
        self.agents.vms()
    }

    fn command(&self, host: u64, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ft"));
        command.args(args).env("FT_STATE", self.agents.state(host)).current_dir(self.dir.path());
        command
    }

    fn run(&self, host: u64, args: &[&str]) -> Output {
        self.command(host, args).output().unwrap()
    }

    /// Begins to run `ft` on a host.
    pub(crate) fn begin(&self, host: u64, args: &[&str]) -> Ongoing {
        let mut command = self.command(host, args);
        Ongoing(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Runs `ft` on a host; what it said.
    pub(crate) fn ft(&self, host: u64, args: &[&str]) -> String {
        let output = self.run(host, args);
        assert!(output.status.success(), "{args:?}: {output:?}\n{}", self.agents.words());
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same where it must fail.
    pub(crate) fn ft_refused(&self, host: u64, args: &[&str]) -> String {
        let output = self.run(host, args);
        assert!(!output.status.success(), "{args:?} worked: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn events(&self, host: u64) -> Vec<Event> {
        self.agents.events(host).unwrap()
    }

    /// Whether the agent of a host sees another.
    pub(crate) fn sees(&self, host: u64, other: u64) -> bool {
        self.agents.sees(host, other)
    }

    pub(crate) fn is_protected(&self) -> bool {
        self.agents.pair().is_some()
    }

    pub(crate) fn pair(&mut self) -> (u64, u64) {
        self.wait_for_protection();
        let pair = self.agents.pair();
        pair.unwrap_or_else(|| panic!("not protected any more\n{}", self.agents.words()))
    }

    pub(crate) fn wait_for_protection(&self) {
        self.wait_until("a protected pair", Self::is_protected);
    }

    pub(crate) fn wait_for_live(&self, host: u64) {
        self.wait_until("going live", |cluster| cluster.agents.is_live(host));
    }

    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        self.agents.wait_until(what, |_| is_so(self)).unwrap_or_else(|error| panic!("{error}"));
    }

    /// A connection to the store, which is served as soon as a live copy is there.
    pub(crate) fn connect(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}", self.agents.service())).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let connection = client.get_connection_with_timeout(Duration::from_secs(5));
            match connection.and_then(|mut it| redis::cmd("PING").query::<String>(&mut it).map(|_| it)) {
                Ok(connection) => return connection,
                Err(error) => assert!(Instant::now() < deadline, "{error}\n{}", self.agents.words()),
            }
        }
    }

    pub(crate) fn write(&self, keys: Range<u64>) {
        let mut connection = self.connect();
        for key in keys {
            let said: String =
                redis::cmd("SET").arg(format!("key:{key}")).arg(key * 7).query(&mut connection).unwrap();
            assert_eq!(said, "OK");
        }
    }

    pub(crate) fn check(&self, keys: Range<u64>) {
        let mut connection = self.connect();
        for key in keys {
            let value: u64 = redis::cmd("GET").arg(format!("key:{key}")).query(&mut connection).unwrap();
            assert_eq!(value, key * 7);
        }
    }
}

/// A command under way.
pub(crate) struct Ongoing(Child);

impl Ongoing {
    /// Waits for its end: whether it worked, and what it said on standard error.
    pub(crate) fn join(self) -> (bool, String) {
        let output = self.0.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }
}

/// A client that counts: a request that is lost or done twice is seen.
pub(crate) struct Counter {
    connection: redis::Connection,
    count: u64,
}

impl Counter {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        Self { connection: cluster.connect(), count: 0 }
    }

    /// A hundred times more.
    pub(crate) fn go_on(&mut self) {
        for _ in 0..100 {
            self.count += 1;
            let counted: u64 = redis::cmd("INCR").arg("counter").query(&mut self.connection).unwrap();
            assert_eq!(counted, self.count, "neither lost nor done twice");
        }
    }
}
