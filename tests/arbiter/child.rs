//! A process that claims. Its standard output: `ready`, then `claim TERM INCARNATION OWNER-HOST OWNER-INCARNATION` for each claim; it
//! begins when its standard input says so.

use crate::small_disk;
use crate::suite::{VM, claim, node, race};
use ft::arbiter::ArbiterConfig;
use ft::core::arbiter::ClaimOutcome;
use ft::core::units::{NodeId, Term};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

/// In the environment of the child: the arbiter, its host's number, what to do.
const ARBITER: &str = "FT_TEST_ARBITER";
const HOST: &str = "FT_TEST_HOST";
const TASK: &str = "FT_TEST_TASK";

pub(crate) struct Child {
    host: u64,
    process: std::process::Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Child {
    pub(crate) fn start(config: &ArbiterConfig, host: u64, task: &str) -> Self {
        let program = Command::new(std::env::current_exe().unwrap());
        Self::start_by(program, config, host, task)
    }

    /// By a command that ends in starting this program.
    pub(crate) fn start_by(mut command: Command, config: &ArbiterConfig, host: u64, task: &str) -> Self {
        let mut process = command
            .args(["--ignored", "--exact", "claiming_process", "--nocapture"])
            .env(ARBITER, serde_json::to_string(config).unwrap())
            .env(HOST, host.to_string())
            .env(TASK, task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        assert!(output.any(|line| line.unwrap() == "ready"), "the child is not ready");
        Self { host, process, input, output }
    }

    pub(crate) fn go(&mut self) {
        writeln!(self.input, "go").unwrap();
    }

    /// The next claims that it makes.
    pub(crate) fn listen(&mut self, count: usize) -> Vec<(NodeId, Term, ClaimOutcome)> {
        let host = self.host;
        let lines = self.output.by_ref().map_while(Result::ok);
        lines.filter_map(|line| read(host, &line)).take(count).collect()
    }

    /// All claims that it makes until it ends, which must be well.
    pub(crate) fn claims(mut self) -> Vec<(NodeId, Term, ClaimOutcome)> {
        let claims = self.listen(usize::MAX);
        assert!(self.process.wait().unwrap().success());
        claims
    }

    /// Kills it; what it still had said.
    pub(crate) fn kill(mut self) -> Vec<(NodeId, Term, ClaimOutcome)> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.listen(usize::MAX)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(host: u64, line: &str) -> Option<(NodeId, Term, ClaimOutcome)> {
    // A line that a kill cut short was never said.
    let words = line.strip_prefix("claim ")?.strip_suffix(" .")?;
    let numbers: Vec<u64> = words.split(' ').map(|word| word.parse().unwrap()).collect();
    let [term, incarnation, owner_host, owner_incarnation] = numbers[..] else { panic!("{line:?}") };
    let (claimer, owner) = (node(host, incarnation), node(owner_host, owner_incarnation));
    let outcome = if owner == claimer { ClaimOutcome::Won } else { ClaimOutcome::Lost { owner } };
    Some((claimer, Term(term), outcome))
}

fn say(claimer: NodeId, term: Term, outcome: ClaimOutcome) {
    let owner = match outcome {
        ClaimOutcome::Won => claimer,
        ClaimOutcome::Lost { owner } => owner,
        ClaimOutcome::Unreachable => panic!("claims are repeated"),
    };
    let (term, mine) = (term.0, claimer.incarnation);
    say_line(&format!("claim {term} {mine} {} {} .", owner.host.0, owner.incarnation));
}

fn say_line(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").and_then(|()| out.flush()).unwrap();
}

pub(crate) fn run() {
    let env = |name| std::env::var(name).unwrap();
    let config: ArbiterConfig = serde_json::from_str(&env(ARBITER)).unwrap();
    let host = env(HOST).parse().unwrap();
    say_line("ready");
    std::io::stdin().lock().lines().next().unwrap().unwrap();
    let task = env(TASK);
    match task.split(' ').collect::<Vec<_>>()[..] {
        ["race", threads, terms] => std::thread::scope(|scope| {
            let (config, terms) = (&config, terms.parse().unwrap());
            for thread in 0..threads.parse().unwrap() {
                let claimer = node(host, thread);
                scope.spawn(move || {
                    for (term, outcome) in race(config, claimer, terms) {
                        say(claimer, term, outcome);
                    }
                });
            }
        }),
        ["hurry", first] => {
            let mut arbiter = config.open(VM).unwrap();
            let claimer = node(host, u64::from(std::process::id()));
            for term in (first.parse().unwrap()..).map(Term) {
                say(claimer, term, claim(&mut arbiter, term, claimer));
            }
        }
        ["small-disk"] => small_disk::scenario(&config),
        _ => panic!("{task:?}"),
    }
}
