//! One worker: its partitions of one shard, one connection, one transaction at a time.
//!
//! It claims what the group gave it, gathers records, applies them ([`apply`]), and goes on; what
//! its shard suffers stays with it. It never waits for ever, and never holds more than its queues
//! and one transaction.

mod hold;
mod link;
mod gauges;
mod apply;
#[cfg(feature = "mutants")]
mod spoiled;
mod trouble;
mod finish;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spillway_proto::frame::Decoder;
use spillway_proto::kafka_record::Lane;
use spillway_proto::partition::Partitioning;
use spillway_publisher::LogGate;
use spillway_runtime::admin::DependencyProbe;
use spillway_runtime::backoff::Backoff;
use spillway_runtime::pulse::Pulse;
use spillway_runtime::shards::ShardMap;
use spillway_runtime::shutdown::Shutdown;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::claim::{Claimed, Expected, Obstacle, claim};
use crate::commit::GroupOffsets;
use crate::gather::gather;
use crate::group::Assignment;
use crate::last_seen::LastSeen;
use crate::log_ends::LogEnds;
use crate::metrics::Metrics;
use crate::poller::Command;
use crate::quarantine::{DeadLetters, Limiter};
use crate::receive::{Intake, Record};
use crate::settings::ConsumerSettings;
use crate::store::classify::{Trouble, Verdict, classify, of_checkout};
use crate::store::draft::Drafts;
use crate::store::rows::Rows;

use self::gauges::Reported;
use self::hold::Partitions;
use self::link::{Link, LinkError, Target};

/// The shortest pause after a failure.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// An idle worker looks at its server this often.
const IDLE: Duration = Duration::from_secs(10);

/// What all workers of a process share.
#[derive(Clone)]
pub struct Shared {
    pub settings: Arc<ConsumerSettings>,
    pub partitioning: Partitioning,
    pub metrics: Metrics,
    pub shards: watch::Receiver<Option<Arc<ShardMap>>>,
    pub assignment: watch::Receiver<Assignment>,
    pub commands: mpsc::Sender<Command>,
    pub group_offsets: Arc<GroupOffsets>,
    pub log_ends: LogEnds,
    pub dead_letters: DeadLetters,
    pub last_seen: LastSeen,
    pub claims: Arc<AtomicU64>,
    pub shutdown: Shutdown,
}

/// Which worker of which shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    pub shard: String,
    pub worker: u16,
}

/// How a worker shows that it lives, and that its shard does.
pub struct Signs {
    pub probe: DependencyProbe,
    pub pulse: Pulse,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing was under way any more.
    Idle,
    /// A transaction could not be brought to an end in time; Kafka still has it.
    Unfinished,
}

/// One worker.
pub struct Worker {
    id: Id,
    shared: Shared,
    intake: Arc<Intake>,
    probe: DependencyProbe,
    pulse: Pulse,
    target: Option<Target>,
    link: Option<Link>,
    /// The server on which everything held was claimed.
    server: Option<String>,
    partitions: Partitions,
    pause: Backoff,
    gate: LogGate,
    limiter: Limiter,
    decoder: Decoder,
    drafts: Drafts,
    rows: Rows,
    reported: Reported,
}

impl Worker {
    #[must_use]
    pub fn new(id: Id, shared: Shared, intake: Arc<Intake>, signs: Signs) -> Self {
        let pause_max = shared.settings.store.retry_pause_max.get();
        Self {
            id,
            shared,
            intake,
            probe: signs.probe,
            pulse: signs.pulse,
            target: None,
            link: None,
            server: None,
            partitions: Partitions::default(),
            pause: Backoff::new(PAUSE_MIN, pause_max),
            gate: LogGate::default(),
            limiter: Limiter::default(),
            decoder: Decoder::new(),
            drafts: Drafts::default(),
            rows: Rows::default(),
            reported: Reported::default(),
        }
    }

    /// Whether a partition is this worker's: groups of partitions are spread over the workers, so
    /// that a large environment keeps all of them busy.
    #[must_use]
    pub fn owns(partitioning: Partitioning, workers: u16, worker: u16, partition: u16) -> bool {
        partition % partitioning.group_size() % workers.max(1) == worker
    }

    /// Runs until the stop is asked for and the transaction in hand has ended.
    pub async fn run(mut self) -> Ended {
        while !self.shared.shutdown.requested() {
            self.pulse.beat();
            self.follow();
            let due = self.partitions.due();
            if !due.is_empty() {
                self.claim(due).await;
            }
            self.report();
            if !self.wait().await {
                continue;
            }
            let limits = &self.shared.settings.gather;
            let current = |record: &Record| self.partitions.is_current(record);
            let records = gather(&self.intake, limits, current).await;
            if self.apply(records).await == Ended::Unfinished {
                return Ended::Unfinished;
            }
        }
        Ended::Idle
    }

    /// Takes over the newest assignment and the newest address of the shard.
    fn follow(&mut self) {
        let assignment = self.shared.assignment.borrow_and_update().clone();
        let (id, partitioning) = (&self.id, self.shared.partitioning);
        let workers = self.shared.settings.store.workers_per_shard;
        let Some(shards) = self.shared.shards.borrow_and_update().clone() else { return };
        let mine = |partition: u16| {
            let shard = shards.shard_of_partition(partition);
            shard.is_some_and(|shard| shard.name == id.shard)
                && Self::owns(partitioning, workers, id.worker, partition)
        };
        self.partitions.follow(&assignment, mine);
        let Some(shard) = shards.shard(&self.id.shard) else { return };
        if self.target.as_ref().is_some_and(|target| target.shard == *shard) {
            return;
        }
        if self.target.is_some() {
            tracing::warn!(shard = %self.id.shard, epoch = shard.epoch, "the shard moved");
        }
        match Target::new(&self.shared.settings.mysql, shard) {
            Ok(target) => self.target = Some(target),
            Err(error) => tracing::error!(%error, shard = %self.id.shard, "no MySQL password"),
        }
        self.link = None;
        self.release_all(Duration::ZERO);
    }

    /// Waits for records, news or time; `true` when there are records.
    async fn wait(&mut self) -> bool {
        let idle = Instant::now() + IDLE;
        let until = self.partitions.next_due().map_or(idle, |due| due.min(idle));
        let shared = &mut self.shared;
        tokio::select! {
            () = self.intake.arrival() => return true,
            _ = shared.assignment.changed() => {}
            _ = shared.shards.changed() => {}
            () = shared.shutdown.wait() => {}
            () = tokio::time::sleep_until(until) => {}
        }
        if Instant::now() >= idle {
            self.look_at_server().await;
        }
        false
    }

    async fn look_at_server(&mut self) {
        let limit = self.statement_timeout();
        let Some(link) = &mut self.link else { return };
        match link.ping(limit).await {
            Ok(latency) => self.probe.ok(latency),
            Err(error) => {
                self.probe.failed(&error);
                self.link = None;
            }
        }
    }

    /// Claims what is due, each partition or not; a shard that does not answer is asked again.
    async fn claim(&mut self, due: Vec<u16>) {
        let limit = self.statement_timeout();
        if !self.connect().await {
            let pause = self.pause.next_delay();
            self.partitions.put_off(&due, pause);
            return;
        }
        let (Some(link), Some(target)) = (&mut self.link, &self.target) else { return };
        let expected = Expected { shard: target.shard.name.clone(), epoch: target.shard.epoch };
        let log_ends = &self.shared.log_ends;
        let began = Instant::now();
        match claim(&mut link.session, limit, &due, &expected, log_ends).await {
            Ok(outcomes) => {
                self.pause.reset();
                self.probe.ok(began.elapsed());
                for outcome in outcomes {
                    match outcome {
                        Ok(claimed) => self.start(&claimed).await,
                        Err((partition, obstacle)) => self.stop(partition, obstacle).await,
                    }
                }
            }
            Err(error) => {
                if self.gate.pass().is_some() {
                    tracing::warn!(%error, shard = %self.id.shard, "claiming partitions");
                }
                self.probe.failed(&error);
                self.link = None;
                let pause = self.pause.next_delay();
                self.partitions.put_off(&due, pause);
            }
        }
    }

    /// Holds a claimed partition and has it read from its offsets, one before where the crc of the
    /// last applied record is to be compared.
    async fn start(&mut self, claimed: &Claimed) {
        let number = self.shared.claims.fetch_add(1, Ordering::AcqRel) + 1;
        if self.partitions.hold(claimed, number) {
            self.shared.metrics.went_back.inc();
            tracing::error!(
                shard = %self.id.shard, partition = claimed.partition, next = ?claimed.next,
                "the shard stands before what was applied (a stale replica took over?): going back"
            );
        }
        let partition = claimed.partition;
        tracing::debug!(partition, fence = claimed.fence, next = ?claimed.next, "claimed");
        self.shared.group_offsets.note_stored(partition, claimed.next);
        for (lane, next) in Lane::ALL.into_iter().zip(claimed.next) {
            self.shared.metrics.applied(lane, partition, next);
        }
        let [live, backlog] = claimed.next;
        let back = |crc: Option<u32>| i64::from(crc.is_some());
        let [live_crc, backlog_crc] = claimed.crc;
        let from = [live - back(live_crc), backlog - back(backlog_crc)];
        #[cfg(feature = "mutants")]
        let from = self.spoiled_from(claimed, from).await;
        let assignment = self.partitions.assignment();
        self.tell_poller(Command::Start { assignment, partition, claim: number, from }).await;
    }

    /// Stops a partition and says what an operator has to do.
    async fn stop(&mut self, partition: u16, obstacle: Obstacle) {
        let known = self.partitions.is_stopped(partition);
        if !known || self.gate.pass().is_some() {
            tracing::error!(
                shard = %self.id.shard, partition, reason = obstacle.word(),
                "partition waits for an operator: {obstacle}"
            );
        }
        if let Some(claim) = self.partitions.stop(partition, obstacle) {
            self.tell_poller(Command::Stop { partition, claim }).await;
        }
    }

    /// Gives up holds; the poller forgets what it read for them.
    async fn release(&mut self, partitions: &[u16], fenced: bool) {
        for partition in partitions {
            let claim = match fenced {
                true => self.partitions.release_fenced(*partition),
                false => self.partitions.release(*partition, Duration::ZERO),
            };
            if let Some(claim) = claim {
                self.tell_poller(Command::Stop { partition: *partition, claim }).await;
            }
        }
    }

    /// Gives up all holds. The poller reads on until the new claims; what it reads is forgotten.
    fn release_all(&mut self, pause: Duration) {
        for partition in self.partitions.held() {
            self.partitions.release(partition, pause);
        }
    }

    /// Waits while the poller's queue of commands is full. A poller that is gone needs no commands.
    async fn tell_poller(&self, command: Command) {
        if self.shared.commands.send(command).await.is_err() {
            tracing::debug!("the poller has ended");
        }
    }

    /// Makes sure that there is a link. On another server than before, every hold is given up.
    async fn connect(&mut self) -> bool {
        if self.link.is_some() {
            return true;
        }
        let Some(target) = &self.target else { return false };
        let limit = self.statement_timeout();
        match target.connect(limit).await {
            Ok(link) => {
                let moved = self.server.as_ref().is_some_and(|server| *server != link.server);
                if moved {
                    tracing::warn!(shard = %self.id.shard, server = %link.server, "another server");
                    self.release_all(Duration::ZERO);
                }
                self.server = Some(link.server.clone());
                self.link = Some(link);
                true
            }
            Err(error) => {
                let verdict = match &error {
                    LinkError::Checkout(error) => of_checkout(error),
                    LinkError::Store(error) => classify(error),
                    LinkError::Secret(_) => Verdict::Wait(Trouble::Setup),
                    LinkError::SmallPackets(_) => Verdict::Wait(Trouble::SmallPackets),
                };
                self.note_trouble(&error, verdict);
                false
            }
        }
    }

    fn note_trouble(&self, error: &dyn std::fmt::Display, verdict: Verdict) {
        self.shared.metrics.error(&self.id.shard, verdict.word());
        self.probe.failed(error);
        let Some(held_back) = self.gate.pass() else { return };
        let (shard, class) = (&self.id.shard, verdict.word());
        match verdict {
            Verdict::Wait(trouble) => {
                let remedy = trouble.remedy();
                tracing::error!(%error, %shard, class, remedy, held_back, "the shard needs help");
            }
            _ => tracing::warn!(%error, %shard, class, held_back, "the shard is in trouble"),
        }
    }

    fn statement_timeout(&self) -> Duration {
        self.shared.settings.store.statement_timeout.get()
    }
}
