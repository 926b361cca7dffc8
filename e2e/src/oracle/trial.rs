//! One trial: a recorded load and an observer against a site, whatever is broken meanwhile, and
//! the judgement of all laws after heal and drain.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spillway_proto::BatchId;
use spillway_testkit::StackError;
use spillway_testkit::ports::Port;
use spillway_testkit::process::{Process, ProcessSpec};
use spillway_testkit::stack::AgentOptions;
use tokio::time::Instant;

use super::conserve::{self, Balance, UNITS, agent_balance, consumer_balance, ingest_balance};
use super::honest::Honest;
use super::log::{self, Log};
use super::offsets;
use super::recorder::Recorder;
use super::report::Report;
use super::site::Site;
use super::store::{self, Store};
use super::watch::{Observed, Observer, Sights};
use super::way;
use crate::compare::{Scope, judge};
use crate::ledger::{Fate, Ledger};
use crate::mix::Mix;
use crate::rig::{HASTY_AGENT, Totals};
use crate::sender::{ELSEWHERE, Sender, SenderOptions};
use crate::verdict::{Findings, Verdict};

/// Between two looks at something that takes its time.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Batches whose way is told.
const WAYS_TOLD: usize = 5;
/// An agent's end: the last window, and the spool.
const AGENT_STOP: Duration = Duration::from_secs(60);
/// What the hosts of a trial are called.
const NAME: &str = "oracle";

/// What is sent, and how long healing may take.
#[derive(Clone, Debug)]
pub struct Shape {
    pub environments: Vec<String>,
    /// Per environment, each an agent of its own.
    pub hosts: usize,
    pub windows: usize,
    pub series: usize,
    pub points: usize,
    pub pace: Duration,
    /// Agents of our own making beside the played ones.
    pub agents: usize,
    /// After the last fault is healed, everything must be accepted within this…
    pub accepted_within: Duration,
    /// …and spool, S3 and lag be at zero within this.
    pub drained_within: Duration,
}

impl Shape {
    /// Some seconds of everything: what a mutant is caught with.
    #[must_use]
    pub fn small() -> Self {
        Self {
            environments: vec!["demo".into()],
            hosts: 4,
            windows: 40,
            series: 6,
            points: 10,
            pace: Duration::from_millis(50),
            agents: 0,
            accepted_within: Duration::from_secs(90),
            drained_within: Duration::from_secs(60),
        }
    }

    /// Batches of all played agents, those that are not sent included.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.environments.len() * self.hosts * self.windows
    }
}

/// The process that keeps the ledger.
struct Keeping {
    spec: ProcessSpec,
    process: Process,
    file: PathBuf,
    /// Held, so that nobody else gets it while the recorder is away.
    _port: Port,
}

impl Keeping {
    fn start(dir: &Path) -> Result<(Self, Recorder), StackError> {
        let port = Port::take()?;
        let file = dir.join("ledger");
        let program = std::env::current_exe().map_err(StackError::io("finding our own binary"))?;
        let args = ["record", "--listen", &port.address(), "--file", &file.display().to_string()];
        let spec = ProcessSpec {
            name: "recorder".into(),
            program,
            args: args.map(str::to_owned).to_vec(),
            env: Vec::new(),
            cwd: dir.to_owned(),
            log: dir.join("recorder.log"),
        };
        let process = Process::start(spec.clone())?;
        let recorder = Recorder::at(port.socket());
        Ok((Self { spec, process, file, _port: port }, recorder))
    }
}

/// A running trial.
pub struct Trial {
    site: Site,
    shape: Shape,
    keeping: Keeping,
    ledger: Ledger,
    senders: Vec<Sender>,
    observer: Observer,
    agents: Vec<Agent>,
    custody: Vec<(String, Findings)>,
    began: Instant,
}

impl Trial {
    /// Starts recorder, observer and load; the ledger is kept in `dir`.
    ///
    /// # Errors
    /// The recorder or an agent does not start.
    pub async fn start(site: Site, shape: Shape, dir: &Path) -> Result<Self, StackError> {
        let (keeping, recorder) = Keeping::start(dir)?;
        let ledger = Ledger::recorded_by(recorder);
        let options: Vec<SenderOptions> = shape
            .environments
            .iter()
            .filter_map(|environment| options(&site, &shape, environment))
            .collect();
        let honest = options.iter().flat_map(|options| honest(&site, options)).collect();
        let observer = Observer::start(Sights { site: site.clone(), honest });
        let agents = start_agents(&site, &shape).await?;
        let senders =
            options.into_iter().map(|options| Sender::noting(options, ledger.clone())).collect();
        let began = Instant::now();
        let custody = Vec::new();
        Ok(Self { site, shape, keeping, ledger, senders, observer, agents, custody, began })
    }

    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// What the senders know so far.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Notes what was seen of a hop that must not forget its copy yet.
    pub fn custody(&mut self, checked: String, found: Findings) {
        self.custody.push((checked, found));
    }

    /// Waits until this part of the load has been answered, or a minute after the last progress:
    /// then something hinders it, and whoever waits must heal it.
    pub async fn reached(&self, percent: usize) {
        let wanted = self.shape.batches() * percent / 100;
        let (mut best, mut since) = (0, Instant::now());
        loop {
            let done = self.ledger.all().len();
            if done >= wanted || since.elapsed() > Duration::from_secs(60) {
                return;
            }
            if done > best {
                (best, since) = (done, Instant::now());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Kills the recorder and starts it again on its file; senders stand still meanwhile.
    ///
    /// # Errors
    /// It does not start again.
    pub async fn restart_recorder(&mut self) -> Result<(), StackError> {
        self.keeping.process.kill().await?;
        self.keeping.process = Process::start(self.keeping.spec.clone())?;
        Ok(())
    }

    /// Waits for the load's end, for heal and drain, and judges. The ledger is read from its file.
    ///
    /// # Errors
    /// Kafka, MySQL or the ledger can't be read: then nothing is proven.
    pub async fn end(mut self) -> Result<Report, StackError> {
        let mut slow = Findings::default();
        for sender in std::mem::take(&mut self.senders) {
            sender.ended(self.shape.accepted_within).await;
        }
        let sent = self.began.elapsed();
        let open = self.ledger.count(Fate::Info);
        if open > 0 {
            let limit = self.shape.accepted_within;
            slow.push(None, || format!("{open} batches not accepted within {limit:?}"));
        }
        let mut unbalanced = self.end_agents().await;
        let drained = self.drained(&mut slow).await;
        unbalanced.extend(self.balance_servers().await);
        let mut observed = self.observer.end().await;
        observed.unbalanced.extend(unbalanced);
        let ledger = Ledger::read(&self.keeping.file).map_err(StackError::io("the ledger"))?;
        let mut judging = Judging { site: self.site, ledger, report: Report::default() };
        judging.head(&self.ledger, sent);
        judging.judge(observed, &self.agents, (slow, drained)).await?;
        for (checked, found) in self.custody {
            judging.report.law("custody", checked, found);
        }
        Ok(judging.report)
    }

    /// The equations of those that publish and those that store, once all is at rest. A life is
    /// begun with empty hands, so they hold of each.
    async fn balance_servers(&self) -> Findings {
        let mut unbalanced = Findings::default();
        for process in self.site.processes() {
            let of: Balance = match process.name.as_str() {
                name if name.starts_with("ingest-api") => ingest_balance,
                name if name.starts_with("consumer") => consumer_balance,
                _ => continue,
            };
            let holds = |came, gone| came == gone;
            self.balance(&process.name, of, holds, &mut unbalanced).await;
        }
        unbalanced
    }

    /// Looks at a program's equation until it holds; counters move one after the other, and between
    /// two batches they agree.
    async fn balance(
        &self,
        name: &str,
        of: Balance,
        holds: impl Fn(f64, f64) -> bool,
        unbalanced: &mut Findings,
    ) {
        let Some(stack) = self.site.stack() else { return };
        for unit in UNITS {
            let until = Instant::now() + self.shape.drained_within;
            let (mut came, mut gone) = (0.0, -1.0);
            while !holds(came, gone) && Instant::now() < until {
                if let Ok(metrics) = stack.metrics(name).await {
                    (came, gone) = of(&metrics, unit);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            if !holds(came, gone) {
                unbalanced.push(None, || format!("{name}: {came} {unit} came, {gone} are told of"));
            }
        }
    }

    /// Each agent's own equation, then its end in order: exit code 0 says that its spool is empty.
    async fn end_agents(&self) -> Findings {
        let mut unbalanced = Findings::default();
        let Some(stack) = self.site.stack() else { return unbalanced };
        let pid_of = |name: &str| {
            let processes = self.site.processes();
            processes.into_iter().find(|process| process.name == name).and_then(|p| p.pid)
        };
        for Agent { name, pid, .. } in &self.agents {
            // What an earlier life numbered and lost, this one gives up without having counted it.
            let lived_on = pid_of(name) == *pid;
            let holds = |came, gone| if lived_on { came == gone } else { came <= gone };
            self.balance(name, agent_balance, holds, &mut unbalanced).await;
            let code = stack.terminate(name, AGENT_STOP).await;
            if !matches!(code, Ok(Some(0))) {
                unbalanced.push(None, || format!("{name} ended with {code:?}"));
            }
        }
        unbalanced
    }

    /// Waits until S3 and the lag are at zero.
    async fn drained(&self, slow: &mut Findings) -> Duration {
        let began = Instant::now();
        let mut left = String::new();
        while began.elapsed() < self.shape.drained_within {
            match self.left().await {
                None => return began.elapsed(),
                Some(more) => left = more,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        slow.push(None, || format!("{left} after {:?}", self.shape.drained_within));
        began.elapsed()
    }

    async fn left(&self) -> Option<String> {
        let parked = self.site.parked_objects().await;
        if parked > 0 {
            return Some(format!("{parked} objects in S3"));
        }
        let brokers = self.site.file().kafka.clone();
        let ends = tokio::task::spawn_blocking(move || log::ends(&brokers)).await;
        let Ok(Ok(ends)) = ends else { return Some("Kafka does not answer".into()) };
        let mut stands = std::collections::BTreeMap::new();
        for (shard, mysql) in self.site.shards() {
            match store::positions(&mysql).await {
                Ok(positions) => stands.extend(positions),
                Err(error) => return Some(format!("{shard}: {error}")),
            }
            mysql.close().await;
        }
        let behind = ends.iter().map(|(partition, (_, high))| {
            high - stands.get(partition).map_or(0, |standing| standing.next)
        });
        let lag: i64 = behind.sum();
        (lag != 0).then(|| format!("lag is {lag} records"))
    }
}

fn options(site: &Site, shape: &Shape, environment: &str) -> Option<SenderOptions> {
    let file = site.file();
    let token = file.tokens.get(environment)?.clone();
    let small = SenderOptions::small(file.api.clone(), token, environment);
    let span = u32::try_from(shape.windows).unwrap_or(0) * 10;
    Some(SenderOptions {
        hosts: shape.hosts,
        windows: shape.windows,
        series: shape.series,
        points: shape.points,
        pace: shape.pace,
        first_window_ts: small.first_window_ts - span,
        name: format!("{NAME}-{environment}"),
        mix: site.s3_door().map(Mix::everything).unwrap_or_default(),
        ..small
    })
}

fn honest(site: &Site, options: &SenderOptions) -> Vec<Honest> {
    let holds = |names: &[String]| names.contains(&options.environment);
    let shard = site.file().mysql.iter().find(|shard| holds(&shard.environments));
    let Some(reader) = shard.and_then(|shard| shard.reader.clone()) else { return vec![] };
    let of = |host: usize| Honest {
        reader: reader.clone(),
        environment: options.environment.clone(),
        host: options.host(host),
        first_window_ts: options.first_window_ts,
    };
    (0..options.hosts).map(of).collect()
}

/// An agent of our own making, in its first life.
struct Agent {
    name: String,
    environment: String,
    pid: Option<i32>,
}

async fn start_agents(site: &Site, shape: &Shape) -> Result<Vec<Agent>, StackError> {
    let mut agents = Vec::new();
    let Some(stack) = site.stack() else { return Ok(agents) };
    for number in 0..shape.agents {
        let name = format!("oracle-agent-{number}");
        let environment = shape.environments.get(number % shape.environments.len().max(1));
        let Some(environment) = environment else { break };
        let options = AgentOptions::new(&name, environment, &name);
        stack.spawn_agent(AgentOptions { toml: HASTY_AGENT.to_owned(), ..options }).await?;
        let started = site.processes().into_iter().find(|process| process.name == name);
        let pid = started.and_then(|process| process.pid);
        agents.push(Agent { name, environment: environment.clone(), pid });
    }
    Ok(agents)
}

/// What judges, once everything is over.
struct Judging {
    site: Site,
    ledger: Ledger,
    report: Report,
}

impl Judging {
    fn head(&mut self, memory: &Ledger, sent: Duration) {
        let ledger = &self.ledger;
        self.report.head = format!(
            "{} in {:.0} s; {} declared, {} withheld; {} objects put into S3",
            ledger.summary(),
            sent.as_secs_f64(),
            ledger.count(Fate::Declared),
            ledger.count(Fate::Withheld),
            ledger.all().iter().map(|entry| u64::from(entry.puts)).sum::<u64>(),
        );
        let mut forgotten = Findings::default();
        for entry in memory.all() {
            let noted = ledger.get(&entry.recipe.id).map(|noted| noted.fate);
            if noted != Some(entry.fate) {
                let text = || format!("sender {:?}, recorder {noted:?}", entry.fate);
                forgotten.push(Some(entry.recipe.id), text);
            }
        }
        if ledger.count(Fate::Ok) == 0 {
            forgotten.push(None, || "nothing was accepted, so nothing is proven".into());
        }
        let checked = format!("{} batches as the senders know them", memory.all().len());
        self.report.law("ledger", checked, forgotten);
    }

    async fn judge(
        &mut self,
        observed: Observed,
        agents: &[Agent],
        (mut slow, drained): (Findings, Duration),
    ) -> Result<(), StackError> {
        let brokers = self.site.file().kafka.clone();
        let log = tokio::task::spawn_blocking(move || Log::read(&brokers)).await;
        let log = log.map_err(|error| unread(&error))?.map_err(|error| unread(&error))?;
        let store = Store::read(&self.site).await.map_err(|error| unread(&error))?;
        let mut verdict = self.points().await;
        verdict.phantom.extend(self.strangers(&store, agents));
        self.judge_agents(agents, &mut verdict).await;
        let (counts, mut offsets) = offsets::judge(&log, &store, &self.ledger.all());
        offsets.extend(observed.went_back.clone());
        slow.extend(observed.peaks.judge());
        let mut unbalanced = observed.unbalanced.clone();
        unbalanced.extend(conserve::judge_end(&observed.tallies, counts.records));
        verdict.gaps.extend(observed.dishonest.clone());
        let batches = batches_of(&verdict, &offsets);
        self.tell_points(&verdict, &observed);
        let checked = format!(
            "{} records in both topics: {} applied from their place, {} duplicates, {} \
             quarantined; {} positions at their log's end with the crc before it; {} snapshots, \
             none further back",
            counts.records,
            counts.applied,
            counts.duplicates,
            counts.quarantined,
            log.ends.len(),
            observed.snapshots
        );
        self.report.law("L5", checked, offsets);
        let memory = observed.peaks.summary();
        let checked = format!("lag and S3 at zero after {:.1} s; {memory}", drained.as_secs_f64());
        self.report.law("L6", checked, slow);
        let checked = format!(
            "books = positions in {} snapshots; published {} and consumed {} of {} records, \
             compared {} times",
            observed.snapshots,
            observed.tallies.published(),
            observed.tallies.consumed(),
            counts.records,
            observed.ends_read
        );
        self.report.law("L7", checked, unbalanced);
        let ways = batches.iter().take(WAYS_TOLD);
        self.report.ways = ways.map(|id| way::of(id, &self.ledger, &log, &store)).collect();
        Ok(())
    }

    /// L1 to L4 and L8 over all environments, the one that does not exist included.
    async fn points(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let environments: BTreeSet<String> =
            self.ledger.all().iter().map(|entry| entry.recipe.environment.clone()).collect();
        for environment in environments.iter().filter(|name| *name != ELSEWHERE) {
            let Some(reader) = self.site.reader(environment) else {
                verdict.missing.push(None, || format!("{environment} has no reader to look with"));
                continue;
            };
            let scope = Scope {
                environment: environment.clone(),
                hosts: format!("{NAME}-{environment}-"),
                windows: None,
            };
            verdict.extend(judge(&reader, &self.ledger, &scope).await);
            reader.close().await;
        }
        for (_, reader) in self.site.readers() {
            let scope =
                Scope { environment: ELSEWHERE.into(), hosts: String::new(), windows: None };
            verdict.extend(judge(&reader, &self.ledger, &scope).await);
            reader.close().await;
        }
        verdict
    }

    /// A stack that others use too may hold whatever they sent.
    fn strangers(&self, store: &Store, agents: &[Agent]) -> Findings {
        if self.site.stack().is_none() {
            return Findings::default();
        }
        let entries = self.ledger.all();
        let sent = entries.iter().map(|e| (e.recipe.environment.clone(), e.recipe.host.clone()));
        let agents = agents.iter().map(|agent| (agent.environment.clone(), agent.name.clone()));
        store.strangers(&sent.chain(agents).collect())
    }

    /// Our own agents' batches: what they measured is not ours to know, that each came once is.
    async fn judge_agents(&self, agents: &[Agent], verdict: &mut Verdict) {
        for Agent { name, environment, .. } in agents {
            let Some(reader) = self.site.reader(environment) else {
                verdict.miscounted.push(None, || format!("{name}: nobody can look"));
                continue;
            };
            let totals = Totals::read(&reader, name).await;
            if !totals.complete() {
                verdict.miscounted.push(None, || format!("{name}: {totals:?}"));
            }
            verdict.epochs += usize::try_from(totals.epochs).unwrap_or(0);
            verdict.batches += totals.applied;
            reader.close().await;
        }
    }

    fn tell_points(&mut self, verdict: &Verdict, observed: &Observed) {
        let points = format!(
            "{} points expected, {} found in {} series",
            verdict.points_expected, verdict.points_found, verdict.series
        );
        let refused = self.ledger.count(Fate::Fail);
        let open = self.ledger.count(Fate::Info);
        let books = format!(
            "count, sum and hash of {} series; {} epochs applied {} batches and recognised {} \
             duplicates",
            verdict.series, verdict.epochs, verdict.batches, verdict.duplicates
        );
        let gaps = format!(
            "gaps are what was given up; {} looks on the way at {} seqs, {} of them missing then",
            observed.honest_looks, observed.seqs, observed.missing
        );
        let mut thrice = verdict.twice.clone();
        thrice.extend(verdict.unequal.clone());
        thrice.extend(verdict.miscounted.clone());
        let none =
            format!("{refused} refused batches, {open} open ones; nothing else may be there");
        self.report.law("L1", points, verdict.missing.clone());
        self.report.law("L2", none, verdict.phantom.clone());
        self.report.law("L3", books, thrice);
        let bits =
            format!("{} values bit for bit, revised ones as last sent", verdict.points_found);
        self.report.law("L4", bits, verdict.different.clone());
        self.report.law("L8", gaps, verdict.gaps.clone());
    }
}

fn batches_of(verdict: &Verdict, offsets: &Findings) -> BTreeSet<BatchId> {
    let found = verdict.findings().into_iter().map(|(_, _, found)| found);
    found.chain([offsets]).flat_map(|found| found.batches().iter().copied()).collect()
}

fn unread(error: &dyn std::error::Error) -> StackError {
    StackError::Refused { what: format!("can't be read, so nothing is proven: {error}") }
}
