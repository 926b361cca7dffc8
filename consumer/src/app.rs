//! The consumer's parts, made and joined in the order a record meets them, and ended in the same
//! order: workers finish their transactions, the poller tells Kafka the last offsets and leaves,
//! dead letters are flushed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use rdkafka::ClientConfig;
use spillway_proto::kafka_record::CONSUMER_GROUP;
use spillway_proto::partition::Partitioning;
use spillway_publisher::Publisher;
use spillway_runtime::admin::DependencyProbe;
use spillway_runtime::program::{Context, Drained, Misconfigured, RunError};
use spillway_runtime::pulse::{self, Pulse};
use spillway_runtime::settings::SecretFileError;
use spillway_runtime::shards::{ShardFile, ShardMap};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::commit::GroupOffsets;
use crate::group::Assignment;
use crate::last_seen;
use crate::log_ends::LogEnds;
use crate::metrics::Metrics;
use crate::poller::{self, PollerError};
use crate::quarantine::DeadLetters;
use crate::receive::Intake;
use crate::settings::ConsumerSettings;
use crate::stalls;
use crate::worker::{Ended, Id, Shared, Signs, Worker};

/// Commands to the poller that may wait; more than partitions it can be told of at once.
const COMMANDS_WAITING_MAX: usize = 4_096;
/// How often Kafka is asked whether it is there, for /deepz.
const PING_EVERY: Duration = Duration::from_secs(5);
/// How long Kafka may take for that.
const PING_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks at the signs of life, and how many in a row one part may give none: ten
/// minutes, far longer than any transaction whose statements all come to an end in time.
const PULSE_LOOK: (Duration, u32) = (Duration::from_secs(15), 40);

/// Why the consumer ends before it was asked to. Started again, it goes on where MySQL stands.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("a worker failed: {0}")]
    Worker(JoinError),
    #[error("{0} gave no sign of life for ten minutes")]
    Still(Arc<str>),
}

/// Runs the consumer until it is told to stop.
pub async fn run(settings: ConsumerSettings, ctx: Context) -> Result<Drained, RunError> {
    let settings = Arc::new(settings);
    let shards = ShardFile::watch(&settings.shards_file, ctx.reload.clone())?;
    let map = shards.current();
    let partitioning = Partitioning::new(map.partitions, map.group)
        .ok_or_else(|| Misconfigured("shards.toml: group must divide partitions".to_owned()))?;
    let metrics = ctx.metrics.register(Metrics::register);
    let publisher = ctx.metrics.register(|registry| Publisher::start(&settings.kafka, registry))?;
    check_topics(&publisher, partitioning, &ctx).await?;
    let stop = CancellationToken::new();
    // Whatever ends this function, the poller's thread does not outlive it.
    let _ends_the_poller = stop.clone().drop_guard();
    let (told, redis) = last_seen::start(&settings.redis, &metrics, &ctx.health, stop.clone())?;
    let redis = redis.map(tokio::spawn);
    let config = consumer_config(&settings)?;
    let (commands, obeyed) = mpsc::channel(COMMANDS_WAITING_MAX);
    let (assignment, assigned) = watch::channel(Assignment::default());
    let group_offsets = Arc::new(GroupOffsets::default());
    let delivery_timeout = settings.dead_letters.delivery_timeout.get();
    let shared = Shared {
        settings: Arc::clone(&settings),
        partitioning,
        metrics: metrics.clone(),
        shards: shards.subscribe(),
        assignment: assigned,
        commands,
        group_offsets: Arc::clone(&group_offsets),
        log_ends: LogEnds::new(&settings.kafka.client_config()?)?,
        dead_letters: DeadLetters::new(publisher.clone(), delivery_timeout),
        last_seen: told,
        claims: Arc::new(AtomicU64::new(0)),
        shutdown: ctx.shutdown.clone(),
    };
    let mut workers = start_workers(&map, &shared, &ctx);
    let pulse = Pulse::new("the Kafka poller");
    workers.pulses.push(pulse.clone());
    let parts = poller::Parts {
        config,
        routes: std::mem::take(&mut workers.routes),
        pulse,
        commands: obeyed,
        assignment,
        group_offsets,
        commit_interval: settings.group.commit_interval.get(),
        metrics,
        stop: stop.clone(),
    };
    let poller = start_poller(parts)?;
    let (log_ends, looked) = (shared.log_ends.clone(), shared.commands.clone());
    let looks = stalls::watch(shared.assignment.clone(), log_ends, looked, stop.clone());
    let looks = tokio::spawn(looks);
    let pings = tokio::spawn(ping(publisher.clone(), ctx.health.register("kafka"), stop.clone()));
    ctx.health.set_ready(true);
    let moved = groups_moved(shards.subscribe(), &map);
    let ended = finish(workers, (poller, moved), &ctx, &stop).await;
    // Whatever ended it, what is left has nothing to wait for.
    stop.cancel();
    let left = publisher.drain(ctx.shutdown.remaining().max(Duration::from_secs(1))).await;
    pings.await?;
    looks.await?;
    if let Some(redis) = redis {
        redis.await?;
    }
    if left > 0 {
        return ended.map(|_| Drained::Left(format!("{left} dead letters without a report")));
    }
    ended
}

/// Waits for Kafka as long as it takes, but not for wrong topics: those need an operator.
async fn check_topics(
    publisher: &Publisher,
    partitioning: Partitioning,
    ctx: &Context,
) -> Result<(), RunError> {
    let probe = ctx.health.register("topics");
    loop {
        match publisher.check_topics(partitioning.partitions(), PING_WITHIN).await {
            Ok(()) => {
                probe.ok(Duration::ZERO);
                return Ok(());
            }
            Err(error) if error.is_transient() => {
                probe.failed(&error);
                tracing::warn!(%error, "waiting for Kafka");
            }
            Err(error) => return Err(Misconfigured(error.to_string()).into()),
        }
        tokio::select! {
            () = ctx.shutdown.wait() => return Ok(()),
            () = tokio::time::sleep(PING_EVERY) => {}
        }
    }
}

/// Everything that the promise rests on is set here and can't be set from outside.
fn consumer_config(settings: &ConsumerSettings) -> Result<ClientConfig, SecretFileError> {
    let group = &settings.group;
    let session_ms = group.session_timeout.get().as_millis();
    let mut config = settings.kafka.client_config()?;
    config
        .set("group.id", CONSUMER_GROUP)
        // Partition p of both topics goes to the same member.
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", session_ms.to_string())
        .set("heartbeat.interval.ms", (session_ms / 10).clamp(500, 3_000).to_string())
        // A topic that seemed to be missing at the start is found again, not in five minutes.
        .set("topic.metadata.refresh.interval.ms", "5000")
        // Offsets live in MySQL; Kafka's are a hint, written after COMMIT.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A lost offset is a page, never a jump.
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "false")
        // The frame has a checksum of its own; this one covers keys and headers as well.
        .set("check.crcs", "true")
        .set("queued.min.messages", "1000")
        .set("queued.max.messages.kbytes", (group.fetch_ahead.get() / 1024).to_string())
        .set("fetch.message.max.bytes", "1048588")
        .set("fetch.wait.max.ms", "100");
    if !group.instance.is_empty() {
        config.set("group.instance.id", &group.instance);
    }
    Ok(config)
}

/// What works, and how to reach it.
#[derive(Default)]
struct Workers {
    tasks: JoinSet<Ended>,
    /// The queue of each partition, by partition.
    routes: Vec<Arc<Intake>>,
    pulses: Vec<Pulse>,
}

/// One queue and one task per worker, and the queue of each partition.
fn start_workers(map: &ShardMap, shared: &Shared, ctx: &Context) -> Workers {
    let settings = &shared.settings;
    let workers_per_shard = settings.store.workers_per_shard;
    let (live_max, backlog_max) = (settings.intake.live_max, settings.intake.backlog_max);
    let mut workers = Workers::default();
    let mut by_partition = BTreeMap::new();
    for shard in &map.shards {
        let probe = ctx.health.register(&format!("mysql {}", shard.name));
        for worker in 0..workers_per_shard {
            let intake = Arc::new(Intake::new(live_max.as_usize(), backlog_max.as_usize()));
            let owns = |partition: &u16| {
                Worker::owns(shared.partitioning, workers_per_shard, worker, *partition)
            };
            for partition in map.partitions_of(shard).into_iter().filter(owns) {
                by_partition.insert(partition, Arc::clone(&intake));
            }
            let id = Id { shard: shard.name.clone(), worker };
            let pulse = Pulse::new(&format!("worker {worker} of shard {}", shard.name));
            workers.pulses.push(pulse.clone());
            let signs = Signs { probe: probe.clone(), pulse };
            workers.tasks.spawn(Worker::new(id, shared.clone(), intake, signs).run());
        }
    }
    workers.routes = by_partition.into_values().collect();
    workers
}

/// The poller's end, once it has one.
type PollerEnd = oneshot::Receiver<Result<(), PollerError>>;

fn start_poller(parts: poller::Parts) -> Result<PollerEnd, std::io::Error> {
    let (ended, end) = oneshot::channel();
    let thread = std::thread::Builder::new().name("kafka-poller".to_owned());
    thread.spawn(move || {
        if ended.send(poller::run(parts)).is_err() {
            tracing::debug!("nobody waited for the poller");
        }
    })?;
    Ok(end)
}

/// Waits for the stop, or for the death of a part, and ends everything in order.
async fn finish(
    workers: Workers,
    (mut poller, moved): (PollerEnd, impl Future<Output = ()>),
    ctx: &Context,
    stop: &CancellationToken,
) -> Result<Drained, RunError> {
    let Workers { mut tasks, pulses, .. } = workers;
    let (mut unfinished, mut is_moved) = (0, false);
    let dead = tokio::select! {
        () = ctx.shutdown.wait() => None,
        end = &mut poller => Some(end),
        () = moved => {
            is_moved = true;
            tracing::warn!("groups moved to another shard: ending, to start with the new file");
            ctx.shutdown.trigger();
            None
        }
        // What failed may have left anything half done in memory, and what stands still can't be
        // waited for: both leave at once.
        Some(ended) = tasks.join_next() => {
            unfinished += usize::from(ended.map_err(Broken::Worker)? == Ended::Unfinished);
            None
        }
        name = pulse::stopped(&pulses, PULSE_LOOK.0, PULSE_LOOK.1) => {
            return Err(Broken::Still(name).into());
        }
    };
    if dead.is_some() {
        // Without a poller nothing more arrives; what is under way is still brought to its end.
        ctx.shutdown.trigger();
    }
    while let Some(ended) = tasks.join_next().await {
        unfinished += usize::from(ended.map_err(Broken::Worker)? == Ended::Unfinished);
    }
    stop.cancel();
    match dead {
        Some(end) => end??,
        None => match tokio::time::timeout_at(ctx.shutdown.drain_until(), poller).await {
            Ok(end) => end??,
            Err(_) => return Ok(Drained::Left("Kafka did not let go of the group".to_owned())),
        },
    }
    if unfinished > 0 {
        let left = format!("{unfinished} workers had a transaction that did not end; Kafka has it");
        return Ok(Drained::Left(left));
    }
    match is_moved {
        true => Ok(Drained::Left("groups moved to another shard: to be started again".to_owned())),
        false => Ok(Drained::Everything),
    }
}

/// Until a partition has another shard than `first` says. The queues of all partitions and the
/// workers behind them are made once, so the process ends in order and its supervisor starts it
/// with the new file.
async fn groups_moved(mut shards: watch::Receiver<Option<Arc<ShardMap>>>, first: &ShardMap) {
    loop {
        let new = shards.borrow_and_update().clone();
        if new.is_some_and(|new| !new.places_alike(first)) {
            return;
        }
        if shards.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn ping(publisher: Publisher, probe: DependencyProbe, stop: CancellationToken) {
    loop {
        match publisher.ping(PING_WITHIN).await {
            Ok(latency) => probe.ok(latency),
            Err(error) => probe.failed(error),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PING_EVERY) => {}
        }
    }
}
