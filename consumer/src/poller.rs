//! The one thread that talks to the consumer group: it polls, feeds the workers' queues, pauses
//! what is full, and reads each partition from exactly the offset its worker claimed.
//!
//! - On an assignment it assigns nothing: workers first claim their partitions in MySQL. So a
//!   dead shard keeps its own partitions waiting and nothing else, and membership is kept.
//! - On a revocation everything is forgotten at once; fences make that safe for transactions that
//!   are still under way.
//! - A member that the group refuses for good joins again as a new one: after an outage of Kafka a
//!   static member can find itself fenced by its own former self.
//! - librdkafka takes no incremental assignment under an eager assignor, so every change assigns
//!   all claimed partitions again, each at its next offset that is not enqueued yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use spillway_proto::kafka_record::Lane;
use spillway_publisher::LogGate;
use spillway_runtime::backoff::Backoff;
use spillway_runtime::pulse::Pulse;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::commit::{GroupOffsets, PerLane};
use crate::failpoint::passes_over;
use crate::group::{Assignment, Change, Group};
use crate::metrics::Metrics;
use crate::receive::{Intake, Record};
use crate::sources::{Source, Taken, take};
use crate::stalls::Stalls;

mod doubts;
mod pauses;

/// How long one poll waits for a record: how late a command or a resumption may be.
const POLL_WAIT: Duration = Duration::from_millis(20);
/// Records between two looks at everything else.
const RECORDS_BETWEEN_CHORES: u32 = 256;
/// Offsets are told again, though nothing moved, this often: lag tools see that the group lives.
const IDLE_COMMIT: Duration = Duration::from_secs(5);
/// How often a lost place in a log may make every partition be claimed anew.
const RECHECK_PAUSE: Duration = Duration::from_secs(10);
/// Between being refused by the group and joining it anew.
const REJOIN_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// What a worker asks of the poller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read a partition from here, under this claim, which was made under this assignment.
    Start { assignment: u64, partition: u16, claim: u64, from: PerLane<i64> },
    /// Stop reading it, if it is still read under this claim.
    Stop { partition: u16, claim: u64 },
    /// Where the logs end, by another client's word: is everything read that should be?
    Look(BTreeMap<(Lane, u16), i64>),
}

/// What the poller needs of the others.
pub struct Parts {
    pub config: ClientConfig,
    /// The queue of each partition's worker, by partition.
    pub routes: Vec<Arc<Intake>>,
    pub commands: mpsc::Receiver<Command>,
    pub assignment: watch::Sender<Assignment>,
    pub group_offsets: Arc<GroupOffsets>,
    pub commit_interval: Duration,
    pub metrics: Metrics,
    /// Beaten at each turn.
    pub pulse: Pulse,
    /// Fired once the workers are done.
    pub stop: CancellationToken,
}

/// Why the poller ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum PollerError {
    #[error("the Kafka consumer can't be made: {0}")]
    Client(KafkaError),
}

/// Why this client will never work again.
struct Refused(String);

struct Poller {
    parts: Parts,
    consumer: BaseConsumer<Group>,
    /// How many clients were given up before this one.
    given_up: u32,
    sources: BTreeMap<u16, Source>,
    /// Lanes that are paused in the client. A pause belongs to the partition, not to its
    /// assignment, and outlives it: what is left out here before it is resumed there is never read
    /// again.
    paused: BTreeSet<(Lane, u16)>,
    stalls: Stalls,
    reassign: bool,
    committed_at: Instant,
    told_all_at: Instant,
    rechecked_at: Option<Instant>,
    rejoin: Backoff,
    gate: LogGate,
}

/// Runs until `parts.stop` fires. Blocks: give it a thread.
pub fn run(parts: Parts) -> Result<(), PollerError> {
    let consumer = join(&parts).map_err(PollerError::Client)?;
    let mut poller = Poller {
        parts,
        consumer,
        given_up: 0,
        sources: BTreeMap::new(),
        paused: BTreeSet::new(),
        stalls: Stalls::default(),
        reassign: false,
        committed_at: Instant::now(),
        told_all_at: Instant::now(),
        rechecked_at: None,
        rejoin: Backoff::new(REJOIN_PAUSE.0, REJOIN_PAUSE.1),
        gate: LogGate::default(),
    };
    let mut ended = Ok(());
    while ended.is_ok()
        && let Err(refused) = poller.run()
    {
        ended = poller.join_anew(&refused).map_err(PollerError::Client);
    }
    poller.close();
    ended
}

fn join(parts: &Parts) -> Result<BaseConsumer<Group>, KafkaError> {
    let group = Group::new(parts.metrics.clone());
    let consumer: BaseConsumer<Group> =
        BaseConsumer::from_config_and_context(&parts.config, group)?;
    consumer.subscribe(&Lane::ALL.map(Lane::topic))?;
    Ok(consumer)
}

impl Poller {
    fn run(&mut self) -> Result<(), Refused> {
        while !self.parts.stop.is_cancelled() {
            self.parts.pulse.beat();
            let mut records = 0;
            while records < RECORDS_BETWEEN_CHORES {
                let Some(polled) = self.consumer.poll(POLL_WAIT) else { break };
                match polled {
                    Ok(message) if passes_over(self.given_up, &message) => {}
                    Ok(message) => {
                        let record = take(&mut self.sources, &message, &self.parts.metrics.books);
                        drop(message);
                        match record {
                            Taken::Record(record) => self.enqueue(record),
                            Taken::Suspect => self.reassign = true,
                            Taken::Doubted(hole) => self.doubt(hole)?,
                            Taken::Believed(record) => {
                                self.parts.metrics.offset_jumps.inc();
                                self.enqueue(record);
                            }
                            Taken::Nothing => {}
                        }
                    }
                    Err(error) => self.judge(error)?,
                }
                records += 1;
                if self.reassign {
                    break;
                }
            }
            self.chores()?;
        }
        Ok(())
    }

    /// Gives everything up and comes back as a new member. Should another process bear the same
    /// instance name, the two refuse each other for ever: the log says so each time, and fences
    /// keep what they write apart.
    fn join_anew(&mut self, refused: &Refused) -> Result<(), KafkaError> {
        let pause = self.rejoin.next_delay();
        tracing::error!(
            cause = refused.0,
            ?pause,
            "this client is given up and joins the group anew (if this goes on, look for another \
             consumer with the same group.instance)"
        );
        self.forget_all();
        let nothing = self.parts.assignment.borrow().next(&Change::Revoked);
        self.parts.assignment.send_replace(nothing);
        self.parts.metrics.rejoins.inc();
        self.given_up = self.given_up.saturating_add(1);
        std::thread::park_timeout(pause);
        self.consumer = join(&self.parts)?;
        // What was paused was so in the client before.
        self.paused.clear();
        self.count_paused();
        Ok(())
    }

    fn chores(&mut self) -> Result<(), Refused> {
        self.follow_group();
        while let Ok(command) = self.parts.commands.try_recv() {
            self.obey(command)?;
        }
        if std::mem::take(&mut self.reassign) {
            self.assign();
        }
        self.resume();
        self.tell_group();
        Ok(())
    }

    fn enqueue(&mut self, record: Record) {
        let (lane, partition) = (record.lane, record.partition);
        let Some(intake) = self.parts.routes.get(usize::from(partition)) else { return };
        if intake.offer(record) {
            let intake = Arc::clone(intake);
            self.pause(lane, &intake);
        }
    }

    fn follow_group(&mut self) {
        for change in self.consumer.context().take_changes() {
            self.forget_all();
            let next = self.parts.assignment.borrow().next(&change);
            if !next.whole.is_empty() {
                self.rejoin.reset();
            }
            tracing::info!(partitions = next.whole.len(), half = next.half.len(), "assignment");
            self.parts.metrics.rebalances.inc();
            let count = i64::try_from(next.whole.len() + next.half.len()).unwrap_or(i64::MAX);
            self.parts.metrics.partitions_assigned.set(count);
            self.parts.assignment.send_replace(next);
        }
    }

    /// Nothing is read any more; what was read will be read again by whoever claims next.
    fn forget_all(&mut self) {
        for partition in std::mem::take(&mut self.sources).into_keys() {
            self.forget(partition);
        }
        self.reassign = false;
    }

    fn forget(&self, partition: u16) {
        self.parts.group_offsets.forget(partition);
        if let Some(intake) = self.parts.routes.get(usize::from(partition)) {
            intake.forget(partition);
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), Refused> {
        match command {
            // The group has taken the partition back meanwhile: the claim is void.
            Command::Start { assignment, .. }
                if assignment != self.parts.assignment.borrow().number => {}
            Command::Start { partition, claim, from, .. } => {
                self.sources.insert(partition, Source::new(claim, from));
                self.reassign = true;
            }
            Command::Stop { partition, claim } => {
                let current = self.sources.get(&partition).is_some_and(|s| s.claim == claim);
                if current {
                    self.sources.remove(&partition);
                    self.forget(partition);
                    self.reassign = true;
                }
            }
            Command::Look(ends) => self.look(&ends)?,
        }
        Ok(())
    }

    /// Reads every claimed partition from its next offset; lanes that are paused stay so.
    fn assign(&mut self) {
        let mut list = TopicPartitionList::new();
        for (partition, source) in &self.sources {
            for (lane, next) in Lane::ALL.into_iter().zip(source.next) {
                let place = (lane.topic(), i32::from(*partition));
                let added = list.add_partition_offset(place.0, place.1, Offset::Offset(next));
                if let Err(error) = added {
                    tracing::error!(%error, ?place, next, "an offset librdkafka can't express");
                }
            }
        }
        if let Err(error) = self.consumer.assign(&list) {
            tracing::error!(%error, "librdkafka refused an assignment; again soon");
            self.reassign = true;
        }
    }

    fn judge(&mut self, error: KafkaError) -> Result<(), Refused> {
        let code = match error {
            KafkaError::MessageConsumptionFatal(code) => {
                let told = self.consumer.client().fatal_error().map(|(_, text)| text);
                return Err(Refused(told.unwrap_or_else(|| code.to_string())));
            }
            KafkaError::MessageConsumption(code) => code,
            _ => RDKafkaErrorCode::Unknown,
        };
        let lost =
            matches!(code, RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange);
        if lost {
            self.recheck(&error);
        } else if self.gate.pass().is_some() {
            tracing::warn!(%error, "Kafka");
        }
        Ok(())
    }

    /// A log no longer holds the offset that was asked for, and librdkafka does not say which. All
    /// partitions are claimed anew: the claim finds the one whose offset lies outside its log.
    fn recheck(&mut self, error: &KafkaError) {
        if self.rechecked_at.is_some_and(|at| at.elapsed() < RECHECK_PAUSE) {
            return;
        }
        self.rechecked_at = Some(Instant::now());
        tracing::error!(%error, "a log lost an offset that was to be read: checking all of them");
        self.forget_all();
        self.assign();
        self.parts.assignment.send_modify(|assignment| assignment.number += 1);
    }

    fn tell_group(&mut self) {
        if self.committed_at.elapsed() < self.parts.commit_interval {
            return;
        }
        self.committed_at = Instant::now();
        let everything = self.told_all_at.elapsed() >= IDLE_COMMIT;
        if everything {
            self.told_all_at = Instant::now();
        }
        self.tell(everything, CommitMode::Async);
    }

    fn tell(&self, everything: bool, mode: CommitMode) {
        if let Err(error) = self.parts.group_offsets.tell(&self.consumer, everything, mode) {
            self.parts.metrics.group_commits_failed.inc();
            tracing::debug!(%error, "Kafka did not take the group's offsets; they are told again");
        }
    }

    /// The last word to Kafka. Dropping the consumer leaves the group, but for a static member.
    fn close(self) {
        if !self.sources.is_empty() {
            self.tell(true, CommitMode::Sync);
        }
        drop(self.consumer);
    }
}

fn listed(places: impl Iterator<Item = (Lane, u16)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (lane, partition) in places {
        list.add_partition(lane.topic(), i32::from(partition));
    }
    list
}
