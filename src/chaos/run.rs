//! A chaos test from its start to its verdict.

use super::config::{ChaosConfig, ChaosError};
use super::faults::{Drawn, Fault, Faults};
use super::history::{Entry, History, What};
use super::judge::Judge;
use super::rooms::Rooms;
use super::strikes::{Over, Strikes};
use super::verdict::Verdict;
use crate::arbiter::ArbiterConfig;
use crate::demo::watch::{Heard, Picture, Said, Witness};
use crate::demo::{Agents, AgentsConfig, HostsError, Wires};
use crate::lan::Notice;
use crate::load::{Load, LoadConfig, LoadReport};
use crate::vm::report::Report;
use crossbeam::channel::{Receiver, Sender, TryRecvError, unbounded};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The VM, and the host where it starts.
const VM: &str = "store";
const FIRST: u64 = 1;

/// What takes longer has failed: until the VM is protected, at first and in the end.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often it is looked what is due.
const TURN: Duration = Duration::from_millis(10);

/// The load: enough for several requests to be under way at any moment, and no more than a busy machine can serve.
const CONNECTIONS: usize = 6;
const OPERATIONS_PER_SECOND: f64 = 600.0;

/// What can be broken here besides processes.
struct Means {
    wires: bool,
    rooms: bool,
}

/// A test that runs. Its order matters: clients end first, then the witnesses, the cluster, and what it stands on.
struct Chaos<'a> {
    load: Option<Load>,
    _witnesses: Vec<Witness>,
    agents: Agents,
    _rooms: Option<Rooms>,
    config: ChaosConfig,
    means: Means,
    strikes: Strikes,
    picture: Picture,
    judge: Judge,
    heard: Receiver<Heard>,
    lan: Receiver<(Instant, Notice)>,
    history: History<'a>,
    verdict: Verdict,
}

/// Runs a test. What happens is told to `tell` as it happens, and kept in `history.jsonl` in the test's directory.
///
/// # Errors
/// [`ChaosError`]: there is no verdict.
pub fn run(config: ChaosConfig, tell: &mut dyn FnMut(&Entry)) -> Result<Verdict, ChaosError> {
    if !(2..=16).contains(&config.hosts) {
        return Err(ChaosError::Hosts);
    }
    let mut history = History::create(&config.dir, tell)?;
    let shared = config.dir.join(SHARED);
    std::fs::create_dir(&shared).map_err(ChaosError::io(format!("make {}", shared.display())))?;
    let (wires, rooms) = prepare(&config, &mut history);
    let means = Means { wires: wires.is_some(), rooms: rooms.is_some() };
    let agents_config = AgentsConfig {
        hosts: config.hosts,
        vm: VM.into(),
        arbiter: arbiter(),
        wires,
        stop: config.stop.clone(),
        ..AgentsConfig::new(&config.program, &config.dir)
    };
    let (saw, lan) = unbounded();
    let agents = Agents::start(agents_config, move |notice| drop(saw.send((Instant::now(), notice))))?;
    let (hears, heard) = unbounded();
    let mut chaos = Chaos {
        load: None,
        _witnesses: witnesses(&agents, &hears)?,
        agents,
        _rooms: rooms,
        means,
        strikes: Strikes::new(shared, config.dir.join(arbiter())),
        picture: Picture::default(),
        judge: Judge::default(),
        heard,
        lan,
        history,
        verdict: Verdict { seed: config.seed, hosts: config.hosts, ..Verdict::default() },
        config,
    };
    let played = chaos.play();
    chaos.end(played)
}

/// What the arbiter's directory is below, so that it can be away, or have no room.
const SHARED: &str = "shared";

fn arbiter() -> PathBuf {
    PathBuf::from(SHARED).join("arbiter")
}

/// What the hosts stand on, as far as this machine has it.
fn prepare(config: &ChaosConfig, history: &mut History<'_>) -> (Option<Wires>, Option<Rooms>) {
    let mut skip = |what: &str, why: String| history.add(What::Skipped, None, format!("{what}: {why}"));
    let wires = Wires::make(config.hosts);
    let wires = wires.map_err(|error| skip("no link is cut", crate::error::in_one_line(&error))).ok();
    let state = (1..=config.hosts).map(|host| config.dir.join(format!("state-{host}")));
    let rooms = Rooms::make(&std::iter::once(config.dir.join(SHARED)).chain(state).collect::<Vec<_>>());
    (wires, rooms.map_err(|why| skip("no disk runs full", why)).ok())
}

fn witnesses(agents: &Agents, hears: &Sender<Heard>) -> Result<Vec<Witness>, HostsError> {
    agents.hosts().map(|host| Witness::start(host, agents.control_socket(host), hears.clone())).collect()
}

impl Chaos<'_> {
    fn play(&mut self) -> Result<(), Stop> {
        self.say(What::Test, format!("{} hosts, seed {}", self.config.hosts, self.config.seed));
        self.agents.protect(FIRST).map_err(ChaosError::from)?;
        self.pass_until("a protected VM", |chaos| chaos.picture.pair().is_some())?;
        self.say(What::Test, "protected; the load begins");
        let service = self.agents.service();
        let load = LoadConfig {
            connections: CONNECTIONS,
            rate: Some(OPERATIONS_PER_SECOND),
            seed: self.config.seed,
            ..LoadConfig::new(service)
        };
        self.load = Some(Load::start(load).map_err(ChaosError::from)?);
        let began = Instant::now();
        self.strike_until(began + self.config.lasts)?;
        self.verdict.seconds = began.elapsed().as_secs_f64();
        self.say(What::Test, "no more faults; everything heals");
        self.heal()
    }

    /// Draws faults and lets them strike until the time is over.
    fn strike_until(&mut self, end: Instant) -> Result<(), Stop> {
        let mut faults = Faults::new(self.config.seed);
        while let Some(drawn) = faults.next().filter(|_| Instant::now() < end) {
            if !self.can_have(drawn.fault) {
                self.verdict.skipped += 1;
                continue;
            }
            let host = loop {
                if Instant::now() >= end {
                    return Ok(());
                }
                match self.strikes.permits(drawn.fault, &self.picture, &self.agents, Instant::now()) {
                    Some(host) => break host,
                    None => self.turn()?,
                }
            };
            self.strike(drawn, host)?;
            let next = Instant::now() + drawn.pause;
            while Instant::now() < next.min(end) {
                self.turn()?;
            }
        }
        Ok(())
    }

    fn can_have(&self, fault: Fault) -> bool {
        let has_spare = self.config.hosts > 2 || fault.place() != Some(super::Place::Spare);
        has_spare
            && match fault {
                Fault::CutLink(_) => self.means.wires,
                Fault::ArbiterFull | Fault::StateFull(_) => self.means.rooms,
                _ => true,
            }
    }

    fn strike(&mut self, drawn: Drawn, host: Option<u64>) -> Result<(), Stop> {
        self.verdict.faults += 1;
        let mut text = drawn.fault.to_string();
        if !drawn.fault.is_instant() {
            text += &format!(", for {} ms", drawn.lasts.as_millis());
        }
        let details = serde_json::to_value(drawn.fault).unwrap_or_default();
        self.history.add_at(Instant::now(), What::Fault, host, text, details);
        Ok(self.strikes.strike(drawn, host, &mut self.agents)?)
    }

    /// Waits until all faults are over, all agents answer and the VM is protected; then everything is read back.
    fn heal(&mut self) -> Result<(), Stop> {
        self.pass_until("the end of all faults", |chaos| chaos.strikes.is_quiet())?;
        self.pass_until("a protected VM", |chaos| {
            chaos.picture.is_settled(chaos.strikes.quiet(), Instant::now())
        })?;
        self.pass_until("answers of all agents", |chaos| {
            chaos.agents.hosts().all(|host| chaos.agents.describe(host).is_some())
        })?;
        self.say(What::Test, "healed; the load ends, and every key is read back");
        self.verdict.load = self.read_back()?;
        self.read_arbiter()?;
        self.judge.close(self.picture.live());
        Ok(())
    }

    fn read_back(&mut self) -> Result<LoadReport, Stop> {
        let Some(load) = self.load.take() else { return Ok(LoadReport::default()) };
        let finish = std::thread::Builder::new().name("chaos-finish".into()).spawn(|| load.finish());
        let finish = finish.map_err(ChaosError::io("start a thread"))?;
        while !finish.is_finished() {
            self.turn()?;
        }
        finish.join().map_err(|_| ChaosError::LoadCrashed.into())
    }

    /// Lets time pass until `is_so`.
    fn pass_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<(), Stop> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            self.turn()?;
            if Instant::now() > deadline {
                return Err(Stop::Judged(format!("{what} did not come about within {PATIENCE:?}")));
            }
        }
        Ok(())
    }

    /// One turn: what is due is done, what was heard is taken in.
    fn turn(&mut self) -> Result<(), Stop> {
        if let Err(TryRecvError::Disconnected) = self.config.stop.try_recv() {
            return Err(ChaosError::from(HostsError::Interrupted).into());
        }
        let over = self.strikes.go_on(&mut self.agents, Instant::now())?;
        if let Some(thawed) = self.strikes.thawed {
            self.judge.thaw(thawed);
        }
        for Over { fault, host } in over {
            self.history.add(What::Over, host, format!("over: {fault}"));
        }
        if let Ok(heard) = self.heard.recv_timeout(TURN) {
            self.hear(&heard);
            while let Ok(heard) = self.heard.try_recv() {
                self.hear(&heard);
            }
        }
        while let Ok((at, notice)) = self.lan.try_recv() {
            self.see(at, &notice);
        }
        if self.picture.pairs > 0 && self.picture.is_empty() && self.agents.vms().is_empty() {
            return Err(Stop::Judged("no copy of the VM is left".into()));
        }
        let pairs = self.picture.pairs;
        self.picture.look(Instant::now());
        if self.picture.pairs > pairs {
            self.come_together()?;
        }
        Ok(())
    }

    /// Two copies have come into step.
    fn come_together(&mut self) -> Result<(), Stop> {
        if let Some((live, other)) = self.picture.pair() {
            self.history.add(What::Test, Some(live), format!("in step with host {other}"));
        }
        // While it is away, it is read the next time.
        match self.read_arbiter() {
            Err(Stop::Failed(ChaosError::Arbiter(_))) => Ok(()),
            read => read,
        }
    }

    fn hear(&mut self, heard: &Heard) {
        self.picture.take_in(heard);
        self.judge.hear(heard);
        let details = serde_json::json!({ "pid": heard.pid });
        let (what, text) = match &heard.what {
            Said::Stands(stands) => (What::Detail, format!("is there, {:?}", stands.role)),
            Said::Gone => (What::Said, "its process is gone".into()),
            Said::Reports(report) => {
                let Some(words) = report.words() else { return };
                let is_news = !matches!(
                    report,
                    Report::Listening { .. }
                        | Report::Following { .. }
                        | Report::Promoting { .. }
                        | Report::Seeding { .. }
                        | Report::Notice { .. }
                );
                (if is_news { What::Said } else { What::Detail }, words)
            }
        };
        self.history.add_at(heard.at, what, Some(heard.host), text, details);
    }

    fn see(&mut self, at: Instant, notice: &Notice) {
        if let Notice::Moved { mac, from, to, .. } = notice {
            self.judge.see(at, *mac, *from, *to);
        }
        self.history.add_at(at, What::Lan, None, notice.to_string(), serde_json::Value::Null);
    }

    fn read_arbiter(&mut self) -> Result<(), Stop> {
        let config = ArbiterConfig::Dir(self.config.dir.join(arbiter()));
        let mut store = config.open(VM).map_err(ChaosError::from)?;
        let history = store.history().map_err(ChaosError::from)?;
        self.verdict.terms = history.last().map_or(0, |owned| owned.term.0);
        self.judge.read(&history);
        Ok(())
    }

    fn say(&mut self, what: What, text: impl Into<String>) {
        self.history.add(what, None, text);
    }

    /// The verdict on what was played.
    fn end(mut self, played: Result<(), Stop>) -> Result<Verdict, ChaosError> {
        match played {
            Ok(()) => {}
            Err(Stop::Judged(why)) => {
                // What clients saw until then is of no use: their replies may never come.
                self.judge.blame(why);
                if let Err(Stop::Failed(error)) = self.read_arbiter() {
                    self.judge.blame(crate::error::in_one_line(&error));
                }
            }
            Err(Stop::Failed(error)) => return Err(error),
        }
        let mut verdict = self.verdict;
        verdict.last_words = self.judge.last_words;
        verdict.failovers = self.picture.failovers;
        verdict.heals = self.picture.pairs.saturating_sub(1);
        verdict.violations = self.judge.judge();
        verdict.passed = verdict.violations.is_empty() && verdict.load.is_clean();
        verdict.history = Some(self.history.path().to_owned());
        for violation in &verdict.violations {
            self.history.add(What::Violation, None, violation);
        }
        for story in &verdict.load.stories {
            self.history.add(What::Violation, None, format!("a client: {story}"));
        }
        let details = serde_json::to_value(&verdict).unwrap_or_default();
        self.history.add_at(Instant::now(), What::Verdict, None, verdict.to_string(), details);
        self.history.check()?;
        Ok(verdict)
    }
}

/// Why a test ends before its end.
enum Stop {
    /// With a verdict: what should have come about did not.
    Judged(String),
    /// Without one.
    Failed(ChaosError),
}

impl From<ChaosError> for Stop {
    fn from(error: ChaosError) -> Self {
        Self::Failed(error)
    }
}
