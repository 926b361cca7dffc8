//! The worker's loop: look at the bucket and at Kafka, send objects on their way, retire those
//! that have arrived. It holds no truth of its own: a crash at any point costs repetition only.
//!
//! Bounded: objects in flight and their bytes, objects awaiting, retirements in flight, and the
//! listing's oldest part; what is postponed is remembered only as long as it is listed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use spillway_proto::object_key::ObjectKey;
use spillway_publisher::LogGate;
use spillway_runtime::admin::DependencyProbe;
use spillway_runtime::backoff::Backoff;
use spillway_runtime::shutdown::Shutdown;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::bucket::Listed;
use crate::bucket_error::BucketError;
use crate::claim::Claimant;
use crate::discover::{Discovery, discover};
use crate::gate::{Closed, Gate, Known};
use crate::journey::{Ended, Errand, Parts, Postponed, now_ms, travel};
use crate::progress::{GroupProgress, GroupWatch};
use crate::republish::Published;
use crate::retire::{self, RetireProof, Retired, Unproven};
use crate::settings::DrainSettings;
use crate::travelling::Travelling;

/// Deletions at the same time; each is three small requests.
const RETIREMENTS_IN_FLIGHT_MAX: usize = 32;
/// Between attempts at one object.
const POSTPONED_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// Between sweeps of claims that were left behind.
const SWEEP_PERIOD: Duration = Duration::from_secs(600);
/// After a sweep that failed.
const SWEEP_RETRY: Duration = Duration::from_secs(30);
/// Between listings while S3 does not answer.
const SILENT_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What a task came to.
enum Outcome {
    Travelled(Ended),
    Retired(Result<Retired, BucketError>),
    Swept(Result<u64, BucketError>),
}

/// An object that is in Kafka and may not be deleted yet.
struct Awaiting {
    object: Listed,
    published: Published,
}

/// An object that is left alone for a while.
struct Later {
    until: Instant,
    pauses: Backoff,
}

/// Dependencies as `/deepz` shows them.
pub struct Probes {
    pub s3: DependencyProbe,
    pub kafka: DependencyProbe,
    pub tokens: DependencyProbe,
}

/// The loop's whole state.
pub struct Drain {
    parts: Parts,
    watch: GroupWatch,
    settings: DrainSettings,
    owner: String,
    probes: Probes,
    gate: Gate,
    closed: Option<Closed>,
    progress: Option<GroupProgress>,
    /// Not yet on their way, oldest first.
    queue: VecDeque<Listed>,
    tasks: JoinSet<Outcome>,
    travelling: Travelling,
    retiring: HashMap<Id, Listed>,
    awaiting: BTreeMap<ObjectKey, Awaiting>,
    proven: VecDeque<RetireProof>,
    later: HashMap<ObjectKey, Later>,
    publish_again: HashSet<ObjectKey>,
    listing_pauses: Backoff,
    next_listing: Instant,
    next_sweep: Instant,
    log: LogGate,
}

impl Drain {
    #[must_use]
    pub fn new(parts: Parts, watch: GroupWatch, settings: &DrainSettings, probes: Probes) -> Self {
        let awaiting_max = usize::try_from(settings.objects_awaiting_max).unwrap_or(usize::MAX);
        Self {
            parts,
            watch,
            owner: settings.owner_or_hostname(),
            gate: Gate::new(settings.lag_records_max, awaiting_max),
            settings: settings.clone(),
            probes,
            closed: Some(Closed::KafkaSilent),
            progress: None,
            queue: VecDeque::new(),
            tasks: JoinSet::new(),
            travelling: Travelling::new(settings),
            retiring: HashMap::new(),
            awaiting: BTreeMap::new(),
            proven: VecDeque::new(),
            later: HashMap::new(),
            publish_again: HashSet::new(),
            listing_pauses: Backoff::new(SILENT_PAUSE.0, SILENT_PAUSE.1),
            next_listing: Instant::now(),
            next_sweep: Instant::now(),
            log: LogGate::default(),
        }
    }

    /// Runs until shutdown; then waits for what is on its way. Returns how many objects were
    /// given up in the middle (they are still in the bucket).
    pub async fn run(mut self, shutdown: &Shutdown) -> usize {
        let mut tick = tokio::time::interval(self.settings.poll_period.get());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // In this order, so that a simulation's seed decides all there is to decide. What
            // ended comes first: there are few, and each takes a while to come again.
            tokio::select! {
                biased;
                () = shutdown.wait() => break,
                Some(ended) = self.tasks.join_next_with_id() => self.settle(ended),
                _ = tick.tick() => tokio::select! {
                    biased;
                    () = shutdown.wait() => break,
                    () = self.look() => {}
                },
            }
            self.start_more();
        }
        self.finish(shutdown).await
    }

    async fn finish(mut self, shutdown: &Shutdown) -> usize {
        let until = shutdown.drain_until();
        while let Ok(Some(ended)) =
            tokio::time::timeout_at(until, self.tasks.join_next_with_id()).await
        {
            self.settle(ended);
        }
        self.tasks.len()
    }

    /// One look at Kafka and at the bucket.
    async fn look(&mut self) {
        self.look_at_kafka().await;
        if self.next_listing <= Instant::now() {
            self.look_at_bucket().await;
        }
        match self.parts.tokens.current() {
            Ok(_) => self.probes.tokens.ok(Duration::ZERO),
            Err(error) => self.probes.tokens.failed(error),
        }
        self.prove();
        self.judge();
        if self.next_sweep <= Instant::now() {
            self.next_sweep = Instant::now() + SWEEP_PERIOD;
            let bucket = self.parts.bucket.clone();
            self.tasks.spawn(async move { Outcome::Swept(retire::sweep_claims(&bucket).await) });
        }
    }

    async fn look_at_kafka(&mut self) {
        let began = Instant::now();
        match self.watch.read().await {
            Ok(progress) => {
                self.probes.kafka.ok(began.elapsed());
                let lag = i64::try_from(progress.lag()).unwrap_or(i64::MAX);
                self.parts.metrics.backlog_lag_records.set(lag);
                self.progress = Some(progress);
            }
            Err(error) => {
                self.probes.kafka.failed(&error);
                if let Some(held_back) = self.log.pass() {
                    tracing::warn!(%error, held_back, "Kafka is away; nothing is drained");
                }
                self.progress = None;
            }
        }
    }

    async fn look_at_bucket(&mut self) {
        let began = Instant::now();
        match discover(&self.parts.bucket).await {
            Ok(found) => {
                self.probes.s3.ok(began.elapsed());
                self.listing_pauses.reset();
                self.take_stock(found);
            }
            Err(error) => {
                self.probes.s3.failed(&error);
                self.parts.metrics.s3_failed(error.operation());
                self.next_listing = Instant::now() + self.listing_pauses.next_delay();
                if let Some(held_back) = self.log.pass() {
                    tracing::warn!(%error, held_back, "the bucket can't be listed");
                }
            }
        }
    }

    fn take_stock(&mut self, found: Discovery) {
        let metrics = &self.parts.metrics;
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.objects_pending.set(gauge(found.pending));
        metrics.pending_bytes.set(gauge(found.pending_bytes));
        metrics.objects_foreign.set(gauge(found.foreign));
        let oldest = found.oldest.first().map_or_else(now_ms, |object| object.modified_ms);
        metrics.oldest_object_seconds.set(now_ms().saturating_sub(oldest).max(0) as f64 / 1e3);
        if found.whole {
            let listed: HashMap<&ObjectKey, &Listed> =
                found.oldest.iter().map(|object| (&object.key, object)).collect();
            self.later.retain(|key, _| listed.contains_key(key));
            self.publish_again.retain(|key| listed.contains_key(key));
            self.awaiting.retain(|key, awaiting| {
                listed.get(key).is_some_and(|object| object.may_be(&awaiting.object))
            });
        }
        let now = Instant::now();
        let on_their_way: HashSet<&ObjectKey> = self
            .travelling
            .objects()
            .chain(self.retiring.values())
            .map(|object| &object.key)
            .collect();
        let free = |object: &Listed| {
            !on_their_way.contains(&object.key)
                && !self.awaiting.contains_key(&object.key)
                && self.later.get(&object.key).is_none_or(|later| later.until <= now)
        };
        self.queue = found.oldest.into_iter().filter(free).collect();
    }

    /// Which of those that await may go.
    fn prove(&mut self) {
        let Some(progress) = &self.progress else { return };
        let (hold, now) = (self.settings.hold.get(), Instant::now());
        let mut lost = Vec::new();
        for (key, Awaiting { object, published }) in &self.awaiting {
            match RetireProof::establish(object, published, progress, hold, now) {
                Ok(proof) => self.proven.push_back(proof),
                Err(Unproven::Held | Unproven::NotStored) => {}
                Err(Unproven::GoneFromKafka) => lost.push(key.clone()),
            }
        }
        for key in lost {
            tracing::error!(object = %key, "Kafka lost what it acknowledged; publishing it again");
            self.parts.metrics.objects_republished.inc();
            self.awaiting.remove(&key);
            self.publish_again.insert(key);
        }
    }

    fn judge(&mut self) {
        let closed = self.gate.judge(Known {
            lag: self.progress.as_ref().map(GroupProgress::lag),
            tokens: self.parts.tokens.current().is_ok(),
            awaiting: self.awaiting.len(),
        });
        if closed != self.closed {
            match closed {
                Some(closed) => tracing::info!(because = closed.as_str(), "draining paused"),
                None => tracing::info!(waiting = self.queue.len(), "draining"),
            }
        }
        self.closed = closed;
        self.parts.metrics.paused.set(i64::from(closed.is_some()));
        let awaiting = i64::try_from(self.awaiting.len()).unwrap_or(i64::MAX);
        self.parts.metrics.objects_awaiting.set(awaiting);
    }

    /// Fills the free places.
    fn start_more(&mut self) {
        while self.retiring.len() < RETIREMENTS_IN_FLIGHT_MAX
            && let Some(proof) = self.proven.pop_front()
        {
            // Out of `awaiting`, so that it is not proven twice.
            let Some(awaiting) = self.awaiting.remove(proof.key()) else { continue };
            let bucket = self.parts.bucket.clone();
            let retire = async move { Outcome::Retired(retire::delete(&bucket, &proof).await) };
            self.retiring.insert(self.tasks.spawn(retire).id(), awaiting.object);
        }
        while self.closed.is_none()
            && let Some(object) = self.queue.pop_front_if(|next| self.travelling.has_room(next))
        {
            let errand = Errand {
                publish_again: self.publish_again.contains(&object.key),
                claimant: Claimant {
                    owner: self.owner.clone(),
                    life: self.settings.claim_life.get(),
                    cluster: self.progress.as_ref().and_then(|p| p.cluster().map(str::to_owned)),
                },
                object: object.clone(),
            };
            let parts = self.parts.clone();
            let travel = async move { Outcome::Travelled(travel(&parts, &errand).await) };
            self.travelling.add(self.tasks.spawn(travel).id(), object);
        }
    }

    fn settle(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let object = self.travelling.remove(&id).or_else(|| self.retiring.remove(&id));
        match (ended, object) {
            (Ok((_, Outcome::Travelled(ended))), Some(object)) => {
                self.settle_journey(object, ended);
            }
            (Ok((_, Outcome::Retired(retired))), Some(object)) => {
                self.settle_retirement(object, retired);
            }
            (Ok((_, Outcome::Swept(Ok(claims)))), _) => {
                tracing::debug!(claims, "swept claims that were left behind");
            }
            (Ok((_, Outcome::Swept(Err(error)))), _) => {
                tracing::debug!(%error, "the sweep of claims is tried again");
                self.next_sweep = Instant::now() + SWEEP_RETRY;
            }
            (Err(_), Some(object)) => self.postpone(object.key, &Postponed::Ended),
            (_, None) => {}
        }
    }

    fn settle_journey(&mut self, object: Listed, ended: Ended) {
        match ended {
            Ended::Awaiting(object, published) => {
                self.later.remove(&object.key);
                self.publish_again.remove(&object.key);
                self.awaiting.insert(object.key.clone(), Awaiting { object, published });
            }
            Ended::Quarantined | Ended::Seen => {
                self.later.remove(&object.key);
            }
            Ended::Theirs { until_ms } => {
                tracing::debug!(object = %object.key, until_ms, "claimed by another worker");
                let wait = u64::try_from(until_ms.saturating_sub(now_ms())).unwrap_or_default();
                let until = Instant::now() + Duration::from_millis(wait);
                self.later.insert(object.key, Later { until, pauses: postponed_pauses() });
            }
            Ended::Postponed(postponed) => self.postpone(object.key, &postponed),
        }
    }

    fn settle_retirement(&mut self, object: Listed, retired: Result<Retired, BucketError>) {
        match retired {
            Ok(Retired::Deleted) => {
                self.parts.metrics.objects_drained.inc();
                tracing::debug!(object = %object.key, "drained and deleted");
            }
            Ok(Retired::WasGone | Retired::Replaced) => {}
            // It is found in the next listing, its claim knows the offsets, and it comes again.
            Err(error) => self.postpone(object.key, &Postponed::Bucket(error)),
        }
    }

    fn postpone(&mut self, key: ObjectKey, postponed: &Postponed) {
        self.parts.metrics.postponed(postponed.as_str());
        if let Postponed::Bucket(error) = postponed {
            self.parts.metrics.s3_failed(error.operation());
        }
        if let Some(held_back) = self.log.pass() {
            tracing::warn!(object = %key, error = %postponed, held_back, "an object has to wait");
        }
        let later = self.later.entry(key);
        let later =
            later.or_insert_with(|| Later { until: Instant::now(), pauses: postponed_pauses() });
        later.until = Instant::now() + later.pauses.next_delay();
    }
}

fn postponed_pauses() -> Backoff {
    Backoff::new(POSTPONED_PAUSE.0, POSTPONED_PAUSE.1)
}
