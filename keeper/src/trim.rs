//! Trimming Kafka, off unless switched on: below what MySQL has applied **and** older than the
//! replay window, records are deleted. Nothing expires by itself (topics keep for ever), so that an
//! outage of any length ends with Kafka still holding what was not applied.
//!
//! Applied means: by the primary and by every replica in shards.toml (`replicas.rs`). The window
//! alone would not do: a replica whose replication broke days ago may still be the one that is left
//! when the primary burns, and from it consumers replay what it lacks.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use spillway_publisher::KafkaSettings;
use spillway_runtime::deadline::{DeadlineExceeded, within};
use spillway_runtime::settings::{Dur, SecretFileError};
use thiserror::Error;

use crate::duty::Duty;
use crate::kafka::{AskError, Kafka, Place};
use crate::lag::{LagError, positions};
use crate::metrics::{Metrics, OfTopic};
use crate::replicas::{Replicas, UnknownReplica};
use crate::shard::{ShardError, ShardHandle};

const DELETE_DEADLINE: Duration = Duration::from_secs(30);

/// Why a round of trimming ended early. Nothing is lost by that.
#[derive(Debug, Error)]
pub enum TrimError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Positions(#[from] LagError),
    #[error("MySQL: {0}")]
    Shard(#[from] ShardError),
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("Kafka: {0}")]
    Silent(#[from] DeadlineExceeded),
    #[error("Kafka's password: {0}")]
    Password(#[from] SecretFileError),
    #[error(transparent)]
    Replica(#[from] UnknownReplica),
}

/// Trims one shard's partitions.
pub struct Trim {
    shard: ShardHandle,
    replicas: Replicas,
    kafka: Kafka,
    config: ClientConfig,
    interval: Dur,
    replay_window: Dur,
    metrics: Metrics,
    trimmed_to: HashMap<Place, i64>,
}

impl Trim {
    pub fn new(
        shard: ShardHandle,
        (kafka, settings): (Kafka, &KafkaSettings),
        (interval, replay_window): (Dur, Dur),
        metrics: &Metrics,
    ) -> Result<Self, TrimError> {
        let config = settings.client_config()?;
        let (metrics, trimmed_to) = (metrics.clone(), HashMap::new());
        let replicas = Replicas::of(&shard);
        Ok(Self { shard, replicas, kafka, config, interval, replay_window, metrics, trimmed_to })
    }

    /// Deletes below the replay window's begin, and never at or above what is applied on the
    /// primary or on a replica. What can be trimmed is, before a silent replica is told.
    pub async fn trim(&mut self, now_ms: i64) -> Result<(), TrimError> {
        let mut session = self.shard.session().await?;
        let positions = positions(&mut session, &self.shard).await?;
        session.give_back();
        let asked = self.replicas.ask().await;
        let window_ms = i64::try_from(self.replay_window.get().as_millis()).unwrap_or(i64::MAX);
        let places: Vec<Place> = positions.keys().copied().collect();
        // A partition without a record in the window is left alone: it does not grow either.
        let begin = self.kafka.since(&places, now_ms.saturating_sub(window_ms)).await?;
        let mut below = Vec::new();
        for (place, applied) in positions {
            let Some(begin) = begin.get(&place) else { continue };
            let Some(replicated) = self.replicas.applied(place) else { continue };
            let offset = applied.min(*begin).min(replicated);
            if offset > self.trimmed_to.get(&place).copied().unwrap_or(0) {
                below.push((place, offset));
            }
        }
        if !below.is_empty() {
            self.delete(&below).await?;
        }
        Ok(asked?)
    }

    async fn delete(&mut self, below: &[(Place, i64)]) -> Result<(), TrimError> {
        let mut list = TopicPartitionList::with_capacity(below.len());
        for (place, offset) in below {
            let offset = Offset::Offset(*offset);
            list.add_partition_offset(place.topic, i32::from(place.partition), offset)?;
        }
        let options = AdminOptions::new().operation_timeout(Some(DELETE_DEADLINE));
        // One client for one deletion: an old one may believe what it heard while a broker went.
        let admin: AdminClient<DefaultClientContext> = self.config.create()?;
        let deleted = within(DELETE_DEADLINE, admin.delete_records(&list, &options)).await;
        // Dropping it blocks.
        tokio::task::spawn_blocking(move || drop(admin));
        deleted??;
        for (place, offset) in below {
            let label = OfTopic { topic: place.topic, shard: self.shard.name.clone() };
            let before = self.trimmed_to.insert(*place, *offset);
            let deleted = u64::try_from(offset - before.unwrap_or(*offset)).unwrap_or(0);
            self.metrics.kafka_trimmed.get_or_create(&label).inc_by(deleted);
        }
        Ok(())
    }
}

impl Duty for Trim {
    const NAME: &'static str = "trim";
    type Error = TrimError;

    fn interval(&self) -> Duration {
        self.interval.get()
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn round(&mut self) -> Result<(), TrimError> {
        self.trim(jiff::Timestamp::now().as_millisecond()).await
    }
}
