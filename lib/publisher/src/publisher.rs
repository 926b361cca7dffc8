//! The one way into Kafka, for every program that writes there.
//!
//! Promises:
//! - A record is [`crate::Outcome::Done`] only because its delivery report said so.
//! - A record is published once while it is in flight or was just acknowledged; the same record
//!   again joins it ([`crate::Repeat`]).
//! - A full queue gives the record back at once; nothing here waits for room.
//! - A producer beyond repair is replaced; what it held becomes `Unknown`, never lost in silence.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use prometheus_client::registry::Registry;
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use spillway_proto::kafka_record::TOPIC_DEAD_LETTERS;
use spillway_proto::limits::{DEAD_LETTER_BYTES_MAX, KAFKA_MESSAGE_BYTES_MAX};
use spillway_runtime::backoff::Backoff;
use spillway_runtime::settings::SecretFileError;
use tokio::time::Instant;

use crate::in_flight::{Delivery, Entry, InFlight, Pending};
use crate::metrics::Metrics;
use crate::record::{PublishError, Record};
use crate::report::{Context, Generation, Reports};
use crate::settings::KafkaSettings;
use crate::topics::{self, TopicsError};

/// What a producer with a fatal error may take to report the records it held.
const FATAL_FLUSH: Duration = Duration::from_secs(2);
/// Between attempts to make a new producer.
const REBUILD_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Why no publisher could be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the Kafka producer can't be made from these settings: {0}")]
    Producer(#[from] KafkaError),
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    #[error("the thread that rebuilds the Kafka producer can't be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// A producer and what it has in flight. Clones share both.
#[derive(Clone)]
pub struct Publisher {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub settings: KafkaSettings,
    pub config: ClientConfig,
    pub reports: Arc<Reports>,
    /// `None` while a new one is being made.
    pub producer: RwLock<Option<Arc<ThreadedProducer<Context>>>>,
    pub closed: AtomicBool,
    #[cfg(feature = "simulation")]
    pub broker: Option<Arc<dyn crate::simulated::Broker>>,
}

impl Publisher {
    /// Makes the producer. Kafka need not be there: records wait in the queue.
    ///
    /// # Errors
    /// [`StartError`], never because of a broker.
    pub fn start(settings: &KafkaSettings, registry: &mut Registry) -> Result<Self, StartError> {
        let config = settings.producer_config()?;
        let batch_bytes_max = settings.producer.batch_bytes_max.as_usize();
        let reports = Arc::new(Reports::new(Metrics::register(registry), batch_bytes_max));
        let (fatal, fatals) = sync_channel(16);
        let producer = producer(&config, &reports, 0, fatal)?;
        let inner = Arc::new(Inner {
            settings: settings.clone(),
            config,
            reports,
            producer: RwLock::new(Some(producer)),
            closed: AtomicBool::new(false),
            #[cfg(feature = "simulation")]
            broker: None,
        });
        let weak = Arc::downgrade(&inner);
        let thread = std::thread::Builder::new().name("kafka-rebuild".to_owned());
        thread.spawn(move || rebuild_when_told(&fatals, &weak))?;
        Ok(Self { inner })
    }

    /// Hands a record to the producer, or finds the copy of it that is on its way. Never waits.
    ///
    /// # Errors
    /// [`PublishError`] with the record in it: nothing of it is in Kafka by this call.
    pub fn publish(&self, record: Record) -> Result<Pending, PublishError> {
        let inner = &*self.inner;
        if inner.closed.load(Ordering::Acquire) {
            return Err(PublishError::Draining(Box::new(record)));
        }
        if record.bytes() > bytes_max(&record) {
            return Err(too_large(record));
        }
        match inner.reports.in_flight.enter(&record, Instant::now()) {
            Entry::Joined(pending) => {
                inner.reports.metrics.joins.inc();
                Ok(pending)
            }
            Entry::First(delivery) => inner.send(record, delivery),
        }
    }

    /// Whether the topics are what they must be; see [`topics::check_topics`].
    ///
    /// # Errors
    /// [`TopicsError`].
    pub async fn check_topics(&self, partitions: u16, within: Duration) -> Result<(), TopicsError> {
        topics::check_topics(&self.inner.settings, partitions, within).await
    }

    /// One round trip to a broker: how long it took.
    ///
    /// # Errors
    /// What the client says, also while the producer is being rebuilt.
    pub async fn ping(&self, within: Duration) -> Result<Duration, KafkaError> {
        let producer = self.inner.current();
        let ask = move || {
            let began = Instant::now();
            let producer = producer.ok_or(KafkaError::Global(RDKafkaErrorCode::Fatal))?;
            producer.client().fetch_metadata(None, within)?;
            Ok(began.elapsed())
        };
        let asked = tokio::task::spawn_blocking(ask).await;
        asked.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Records that were taken and have no delivery report yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.reports.in_flight.flying()
    }

    /// Takes no more records and waits up to `budget` for the reports of those it has. Returns
    /// how many are left without one: their fate is unknown.
    pub async fn drain(&self, budget: Duration) -> usize {
        self.inner.closed.store(true, Ordering::Release);
        if let Some(producer) = self.inner.current() {
            // Flushing blocks, in slices of 100 ms.
            let flush = tokio::task::spawn_blocking(move || producer.flush(budget));
            if !matches!(flush.await, Ok(Ok(()))) {
                tracing::warn!(left = self.in_flight(), "the Kafka producer was not empty in time");
            }
        }
        self.in_flight()
    }
}

impl Inner {
    fn current(&self) -> Option<Arc<ThreadedProducer<Context>>> {
        self.producer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn send(&self, record: Record, delivery: Arc<Delivery>) -> Result<Pending, PublishError> {
        #[cfg(feature = "simulation")]
        if let Some(broker) = &self.broker {
            return self.send_simulated(&**broker, record, delivery);
        }
        let in_flight = &self.reports.in_flight;
        let Some(producer) = self.current() else {
            in_flight.withdraw(&delivery, Instant::now());
            return Err(PublishError::Rebuilding(Box::new(record)));
        };
        let headers = record.headers.iter().fold(
            OwnedHeaders::new_with_capacity(record.headers.len()),
            |headers, (key, value)| headers.insert(Header { key, value: Some(&value[..]) }),
        );
        let message = BaseRecord::with_opaque_to(record.topic, Arc::clone(&delivery))
            .partition(i32::from(record.partition))
            .key(&record.key[..])
            .payload(&record.value[..])
            .headers(headers);
        let Err((error, _)) = producer.send(message) else {
            return Ok(InFlight::pending(delivery));
        };
        in_flight.withdraw(&delivery, Instant::now());
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        if code == RDKafkaErrorCode::Fatal {
            producer.context().fatal();
        }
        Err(self.refusal(code, record))
    }

    pub fn refusal(&self, code: RDKafkaErrorCode, record: Record) -> PublishError {
        let (topic, partition) = (record.topic, record.partition);
        match code {
            RDKafkaErrorCode::QueueFull => {
                self.reports.metrics.queue_full.inc();
                PublishError::QueueFull(Box::new(record))
            }
            RDKafkaErrorCode::Fatal => PublishError::Rebuilding(Box::new(record)),
            RDKafkaErrorCode::MessageSizeTooLarge => too_large(record),
            RDKafkaErrorCode::UnknownPartition | RDKafkaErrorCode::UnknownTopic => {
                PublishError::NoSuchPartition { topic, partition, record: Box::new(record) }
            }
            cause => PublishError::Client { cause, record: Box::new(record) },
        }
    }

    /// Replaces the producer of `generation`, unless that happened already.
    fn rebuild(&self, generation: Generation, fatals: &Receiver<Generation>) {
        let old = {
            let mut slot = self.producer.write().unwrap_or_else(PoisonError::into_inner);
            if slot.as_ref().is_none_or(|producer| producer.context().generation != generation) {
                return;
            }
            slot.take()
        };
        let Some(old) = old else { return };
        let cause = old.client().fatal_error().map(|(code, text)| format!("{code}: {text}"));
        tracing::error!(
            ?cause,
            in_flight = self.reports.in_flight.flying(),
            "fatal error of the Kafka producer: it is made anew, what it held is unknown"
        );
        self.reports.metrics.rebuilds.inc();
        let fatal = old.context().fatal.clone();
        retire(&old);
        drop(old);
        let mut pause = Backoff::new(REBUILD_PAUSE.0, REBUILD_PAUSE.1);
        while !self.closed.load(Ordering::Acquire) {
            match producer(&self.config, &self.reports, generation + 1, fatal.clone()) {
                Ok(new) => {
                    let mut slot = self.producer.write().unwrap_or_else(PoisonError::into_inner);
                    *slot = Some(new);
                    return;
                }
                Err(error) => tracing::error!(%error, "no new Kafka producer"),
            }
            // A pause that more news may shorten: there is no producer they could be about.
            if fatals.recv_timeout(pause.next_delay()).is_ok() {
                tracing::debug!("late news of the producer that is gone");
            }
        }
    }
}

fn producer(
    config: &ClientConfig,
    reports: &Arc<Reports>,
    generation: Generation,
    fatal: SyncSender<Generation>,
) -> Result<Arc<ThreadedProducer<Context>>, KafkaError> {
    let context = Context { reports: Arc::clone(reports), generation, fatal };
    ThreadedProducer::from_config_and_context(config, context).map(Arc::new)
}

/// Gets a report for every record the producer still holds.
fn retire(producer: &ThreadedProducer<Context>) {
    producer.purge(PurgeConfig::default().queue().inflight());
    if let Err(error) = producer.flush(FATAL_FLUSH) {
        tracing::warn!(%error, "the old Kafka producer did not report all its records");
    }
}

/// Ends when the publisher is gone: every sender lives in a producer of it.
fn rebuild_when_told(fatals: &Receiver<Generation>, publisher: &Weak<Inner>) {
    while let Ok(generation) = fatals.recv() {
        match publisher.upgrade() {
            Some(inner) => inner.rebuild(generation, fatals),
            None => return,
        }
    }
}

/// What the record's topic takes; a dead letter may be as large as the record that it was.
fn bytes_max(record: &Record) -> usize {
    match record.topic {
        TOPIC_DEAD_LETTERS => DEAD_LETTER_BYTES_MAX,
        _ => KAFKA_MESSAGE_BYTES_MAX,
    }
}

fn too_large(record: Record) -> PublishError {
    let (bytes, bytes_max) = (record.bytes(), bytes_max(&record));
    PublishError::TooLarge { bytes, bytes_max, record: Box::new(record) }
}
