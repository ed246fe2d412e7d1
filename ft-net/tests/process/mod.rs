//! A host in a process of its own: this test's program, run again, with one ignored test in it that plays the host.

use crate::cluster::{Cluster, DEADLINE, host};
use crossbeam::channel::{Receiver, unbounded};
use ft_net::Identity;
use ft_net::identity::DAY;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Tells the process what to be: words between spaces.
const PART: &str = "FT_TEST_PART";

/// Stands before every line that a process says to its test; libtest writes to the same place.
const MARK: &str = "@ft ";

pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    _credentials: tempfile::TempDir,
}

impl Process {
    /// Runs the ignored test `play`, behind `wrapper`, as `host-<number>`. The part is what [`part`] returns there.
    pub(crate) fn start(cluster: &Cluster, wrapper: &[&str], play: &str, number: u64, part: &str) -> Self {
        let credentials = tempfile::tempdir().unwrap();
        let dir = credentials.path().join("host");
        cluster.ca().issue(&host(&format!("host-{number}")), DAY).unwrap().write(&dir).unwrap();
        let program = std::env::current_exe().unwrap();
        let own = [program.to_str().unwrap(), "--exact", play, "--ignored", "--nocapture"];
        let words: Vec<&str> = wrapper.iter().copied().chain(own).collect();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .env(PART, format!("{} {part}", dir.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = unbounded();
        std::thread::spawn(move || {
            let said = stdout.lines().map_while(Result::ok);
            let marked = said.filter_map(|line| line.split_once(MARK).map(|(_, said)| said.to_owned()));
            // The test may be over.
            marked.for_each(|line| drop(sender.send(line)));
        });
        Self { child, stdin, lines, _credentials: credentials }
    }

    /// The rest of the next line that is not `passing`; it must begin like this.
    pub(crate) fn expect_after(&self, passing: &str, begin: &str) -> String {
        let until = Instant::now() + DEADLINE;
        let next = || {
            let line = self.lines.recv_deadline(until);
            line.unwrap_or_else(|_| panic!("no {begin:?} within {DEADLINE:?}"))
        };
        let line = std::iter::repeat_with(next).find(|line| line != passing).expect("it repeats for ever");
        let rest = line.strip_prefix(begin).unwrap_or_else(|| panic!("{line:?} where {begin:?} was due"));
        rest.trim().to_owned()
    }

    /// The rest of the next line, which must begin like this.
    pub(crate) fn expect(&self, begin: &str) -> String {
        self.expect_after("", begin)
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    /// Sends it a signal: STOP, CONT.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("`kill` is installed");
        assert!(status.success(), "kill -s {name} {pid}: {status}");
    }

    /// SIGKILL. Returns when the process is no more.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself, and in peace.
    pub(crate) fn ends(&mut self) {
        let until = Instant::now() + DEADLINE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < until, "the process does not end"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the process: the host's identity, and the words of its part. `None` where no test has started this.
pub(crate) fn part() -> Option<(Identity, Vec<String>)> {
    let part = std::env::var(PART).ok()?;
    let mut words = part.split(' ').map(str::to_owned);
    let identity = Identity::load(Path::new(&words.next()?)).unwrap();
    Some((identity, words.collect()))
}

/// In the process: says a line to the test.
pub(crate) fn say(line: &str) {
    println!("{MARK}{line}");
}

/// In the process: the lines that the test tells. When the test is over, so is the process.
pub(crate) fn told() -> Receiver<String> {
    let (sender, lines) = unbounded();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
        std::process::exit(0);
    });
    lines
}
