//! Three hosts: their agents are processes that the tests start and kill; VM processes are killed by the ids that agents wrote down.

use ft::host::client::Client;
use ft::host::events::Event;
use ft::host::message::{Answer, HostStatus, Request};
use ft::lan::{Forward, Switch, SwitchConfig};
use ft::vm::control::Role;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const VM: &str = "store";

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often it is looked whether something has come about.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) struct Cluster {
    agents: BTreeMap<u64, Child>,
    service: SocketAddr,
    _switch: Switch,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Three agents that see each other.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("lan.sock");
        let forward: Forward = "127.0.0.1:0=10.0.2.15:6379".parse().unwrap();
        let config = SwitchConfig { forwards: vec![forward], ..SwitchConfig::new(&socket) };
        let switch = Switch::start(config, |_| {}).unwrap();
        let service = switch.forward_addresses()[0];
        let mut cluster = Self { agents: BTreeMap::new(), service, _switch: switch, dir };
        cluster.write_files();
        for id in 1..=3 {
            cluster.start_agent(id);
        }
        cluster.wait_until("agents that see each other", |cluster| {
            (1..=3).all(|id| (1..=3).all(|other| cluster.sees(id, other)))
        });
        cluster
    }

    fn write_files(&self) {
        let dir = self.dir.path();
        let mut init = Command::new(env!("CARGO_BIN_EXE_ft"));
        assert!(init.args(["ca", "init"]).current_dir(dir).output().unwrap().status.success());
        fs::create_dir(dir.join("arbiter")).unwrap();
        // Held until all are chosen, so that no two are the same.
        let ports: Vec<UdpSocket> = (1..=3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let metrics: Vec<TcpListener> = (1..=3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<SocketAddr> = ports.iter().map(|port| port.local_addr().unwrap()).collect();
        for id in 1..=3u64 {
            let name = format!("host-{id}");
            let mut issue = Command::new(env!("CARGO_BIN_EXE_ft"));
            assert!(issue.args(["ca", "issue", &name]).current_dir(dir).output().unwrap().status.success());
            let peer = |other: u64| {
                let address = addresses[other as usize - 1];
                format!("{{ id = {other}, name = \"host-{other}\", address = \"{address}\" }}")
            };
            let peers: Vec<String> = (1..=3).filter(|other| *other != id).map(peer).collect();
            let text = format!(
                "id = {id}\nname = \"{name}\"\nlisten = \"{}\"\nvm_address = \"127.0.0.1\"\ncredentials = \"{name}\"\n\
                 arbiter = \"arbiter\"\nstate = \"state-{id}\"\nmetrics = \"{}\"\npeers = [{}]\n[capacity]\nmemory_mib = 64\nvms = 2\n",
                addresses[id as usize - 1],
                metrics[id as usize - 1].local_addr().unwrap(),
                peers.join(", ")
            );
            fs::write(dir.join(format!("{name}.toml")), text).unwrap();
        }
        let vm = format!(
            "name = \"{VM}\"\nram_mib = 32\n[guest]\ncommand_line = \"ip=10.0.2.15/24 gw=10.0.2.2 mode=kv\"\n\
             [net]\nmac = \"52:54:00:12:34:56\"\nswitch = \"lan.sock\"\n[disk]\npath = \"disk.img\"\nmib = 16\n"
        );
        fs::write(dir.join("vm.toml"), vm).unwrap();
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

    fn state(&self, host: u64) -> PathBuf {
        self.dir.path().join(format!("state-{host}"))
    }

    pub(crate) fn start_agent(&mut self, host: u64) {
        let log = self.dir.path().join(format!("agent-{host}.log"));
        let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let agent = Command::new(env!("CARGO_BIN_EXE_ft"))
            .args(["host", &format!("host-{host}.toml")])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agents.insert(host, agent);
        self.wait_until("an agent that answers", |cluster| cluster.ask(host, Request::Describe).is_some());
    }

    pub(crate) fn kill_agent(&mut self, host: u64) {
        let mut agent = self.agents.remove(&host).unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Kills the VM's process on a host.
    pub(crate) fn kill_vm(&self, host: u64) {
        let pid = self.vm_of(host).unwrap();
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    }

    /// The VM's process on a host, if one runs: as its agent wrote down.
    pub(crate) fn vm_of(&self, host: u64) -> Option<u32> {
        let dir = self.state(host).join("vms").join(VM);
        let meta: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("meta.json")).ok()?).unwrap();
        let pid = u32::try_from(meta["process"]["pid"].as_u64()?).unwrap();
        // A number that was given again is no VM of this test, and one that has ended has no command line.
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = dir.join("vm.toml");
        String::from_utf8_lossy(&command).contains(ours.to_str().unwrap()).then_some(pid)
    }

    /// The VM's processes by host.
    pub(crate) fn running(&self) -> BTreeMap<u64, u32> {
        (1..=3).filter_map(|host| Some((host, self.vm_of(host)?))).collect()
    }

    fn run(&self, host: u64, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ft"));
        command.args(args).env("FT_STATE", self.state(host)).current_dir(self.dir.path()).output().unwrap()
    }

    /// Runs `ft` on a host; what it said.
    pub(crate) fn ft(&self, host: u64, args: &[&str]) -> String {
        let output = self.run(host, args);
        assert!(output.status.success(), "{args:?}: {output:?}\n{}", self.words());
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same where it must fail.
    pub(crate) fn ft_refused(&self, host: u64, args: &[&str]) -> String {
        let output = self.run(host, args);
        assert!(!output.status.success(), "{args:?} worked: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn ask(&self, host: u64, request: Request) -> Option<Answer> {
        Client::connect(&self.state(host)).ok()?.ask(None, request).ok()
    }

    pub(crate) fn events(&self, host: u64) -> Vec<Event> {
        match self.ask(host, Request::Events { since: 0, wait_ms: 0 }) {
            Some(Answer::Events { events }) => events,
            other => panic!("{other:?} instead of events"),
        }
    }

    /// What an agent knows of all hosts.
    fn hosts(&self, host: u64) -> Vec<HostStatus> {
        match self.ask(host, Request::List) {
            Some(Answer::Hosts { hosts }) => hosts,
            other => panic!("{other:?} instead of hosts"),
        }
    }

    /// Whether the agent of a host sees another.
    pub(crate) fn sees(&self, host: u64, other: u64) -> bool {
        self.hosts(host).iter().any(|status| status.id == other && status.down.is_none())
    }

    /// The hosts of the live copy and of the other one, as their own agents have it, if there is a pair in step.
    fn find_pair(&self) -> Option<(u64, u64)> {
        let (mut live, mut other) = (None, None);
        for host in self.agents.keys() {
            let Some(Answer::Description(own)) = self.ask(*host, Request::Describe) else { continue };
            for vm in own.vms.iter().filter(|vm| vm.running && vm.copy.protected) {
                match vm.copy.role {
                    Role::Live => live = Some(*host),
                    Role::Following => other = Some(*host),
                    _ => {}
                }
            }
        }
        live.zip(other)
    }

    pub(crate) fn is_protected(&self) -> bool {
        self.find_pair().is_some()
    }

    pub(crate) fn pair(&mut self) -> (u64, u64) {
        self.wait_for_protection();
        self.find_pair().unwrap_or_else(|| panic!("not protected any more\n{}", self.words()))
    }

    pub(crate) fn wait_for_protection(&self) {
        self.wait_until("a protected pair", Self::is_protected);
    }

    pub(crate) fn wait_for_live(&self, host: u64) {
        self.wait_until("going live", |cluster| match cluster.ask(host, Request::Describe) {
            Some(Answer::Description(own)) => own.vms.iter().any(|vm| vm.is_live()),
            _ => false,
        });
    }

    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}\n{}", self.words());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The last words of all agents, for a test that has failed.
    fn words(&self) -> String {
        let words = (1..=3).map(|host| {
            let text = fs::read_to_string(self.dir.path().join(format!("agent-{host}.log")));
            format!("--- agent {host}\n{}\n", text.unwrap_or_default())
        });
        words.collect()
    }

    /// A connection to the store, which is served as soon as a live copy is there.
    pub(crate) fn connect(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}", self.service)).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let connection = client.get_connection_with_timeout(Duration::from_secs(5));
            match connection.and_then(|mut it| redis::cmd("PING").query::<String>(&mut it).map(|_| it)) {
                Ok(connection) => return connection,
                Err(error) => assert!(Instant::now() < deadline, "{error}\n{}", self.words()),
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

impl Drop for Cluster {
    /// Ends what the test started: agents first, so that they start nothing anew.
    fn drop(&mut self) {
        for agent in self.agents.values_mut() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        for pid in self.running().into_values() {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        end_what_was_started(self.dir.path());
    }
}

/// A process that an agent had no time to write down listens at its control socket all the same.
fn end_what_was_started(dir: &Path) {
    for host in 1..=3 {
        let socket = dir.join(format!("state-{host}/vms/{VM}/control.sock"));
        if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(socket) {
            let _ = stream.write_all(b"{\"cmd\":\"stop\"}\n");
        }
    }
}
