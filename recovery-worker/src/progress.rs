//! How far consumers have come in the backlog topic: what allows an object to be retired, and
//! what tells the worker to pause.
//!
//! The offsets are those the group `spillway-consumer` commits *after* its MySQL transaction. They
//! are read by a client that carries the group's name and never joins it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use spillway_proto::kafka_record::{CONSUMER_GROUP, TOPIC_BACKLOG};
use spillway_publisher::{Asking, KafkaSettings};
use spillway_runtime::settings::SecretFileError;

use crate::republish::Place;

/// Events (errors, above all) that one reading takes off the client's queue: it serves no
/// messages, but what nobody takes would pile up in an outage.
const EVENTS_TAKEN_MAX: usize = 1_000;

/// One reading of the group's offsets and the log's ends, partition by partition.
#[derive(Clone, Debug, Default)]
pub struct GroupProgress {
    /// The next offset that the group will read; `None` if it never committed.
    committed: Vec<Option<i64>>,
    /// One past the last record.
    ends: Vec<i64>,
    cluster: Option<String>,
}

/// Whether consumers have stored a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// The group has committed past it.
    Yes,
    NotYet,
    /// The log ends before it: the topic was made anew or cut, and the record is not in it.
    LogEndsBefore,
}

impl GroupProgress {
    /// What the group committed and where the log ends, partition by partition.
    #[cfg(any(test, feature = "simulation"))]
    #[must_use]
    pub fn of(places: &[(Option<i64>, i64)]) -> Self {
        let (committed, ends) = places.iter().copied().unzip();
        Self { committed, ends, cluster: None }
    }

    /// The same, of a cluster that has told its name.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn in_cluster(self, name: &str) -> Self {
        Self { cluster: Some(name.to_owned()), ..self }
    }

    #[must_use]
    pub fn passed(&self, place: &Place) -> Passed {
        let index = usize::from(place.partition);
        let (Some(committed), Some(end)) = (self.committed.get(index), self.ends.get(index)) else {
            return Passed::NotYet;
        };
        if place.offset >= *end {
            return Passed::LogEndsBefore;
        }
        match committed {
            // A commit beyond the log's end is of another log.
            Some(committed) if place.offset < *committed && committed <= end => Passed::Yes,
            _ => Passed::NotYet,
        }
    }

    /// Records that consumers have still to read, over all partitions.
    #[must_use]
    pub fn lag(&self) -> u64 {
        let lags = self.committed.iter().zip(&self.ends).map(|(committed, end)| {
            u64::try_from(end - committed.unwrap_or_default()).unwrap_or_default()
        });
        lags.fold(0, u64::saturating_add)
    }

    /// Which Kafka this is about.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }
}

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    #[error("Kafka did not tell the group's offsets: {0}")]
    Committed(KafkaError),
    #[error("Kafka did not tell where the log ends: {0}")]
    Ends(KafkaError),
    #[error("Kafka did not tell where the log of every partition ends")]
    Incomplete,
    #[error("the reading was ended: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

/// Why the group can't be watched at all.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("the Kafka client that reads the group's offsets can't be made: {0}")]
    Client(#[from] KafkaError),
    #[error(transparent)]
    Secret(#[from] SecretFileError),
}

/// Where a reading comes from.
#[async_trait]
pub trait ReadProgress: Send + Sync {
    /// One reading; ends within its own time-out.
    async fn read(&self) -> Result<GroupProgress, ProgressError>;
}

/// Reads the group's offsets; clones share one source.
#[derive(Clone)]
pub struct GroupWatch {
    source: Arc<dyn ReadProgress>,
}

/// Kafka itself.
#[derive(Clone)]
struct KafkaWatch {
    asking: Arc<Asking>,
    partitions: u16,
    timeout: Duration,
}

impl GroupWatch {
    /// Makes the client. Kafka need not be there.
    pub fn start(
        settings: &KafkaSettings,
        partitions: u16,
        timeout: Duration,
    ) -> Result<Self, WatchError> {
        let mut config: ClientConfig = settings.client_config()?;
        config
            .set("group.id", CONSUMER_GROUP)
            .set("enable.auto.commit", "false")
            .set("log_level", "3");
        let asking = Arc::new(Asking::new(config)?);
        Ok(Self::of(Arc::new(KafkaWatch { asking, partitions, timeout })))
    }

    /// Reads from this source.
    #[must_use]
    pub fn of(source: Arc<dyn ReadProgress>) -> Self {
        Self { source }
    }

    /// Asks Kafka; ends within the time-out.
    pub async fn read(&self) -> Result<GroupProgress, ProgressError> {
        self.source.read().await
    }
}

#[async_trait]
impl ReadProgress for KafkaWatch {
    async fn read(&self) -> Result<GroupProgress, ProgressError> {
        let watch = self.clone();
        tokio::task::spawn_blocking(move || watch.asking.ask(|consumer| watch.read_with(consumer)))
            .await?
    }
}

impl KafkaWatch {
    fn read_with(&self, consumer: &BaseConsumer) -> Result<GroupProgress, ProgressError> {
        let until = Instant::now() + self.timeout;
        let remaining = || until.saturating_duration_since(Instant::now());
        for _ in 0..EVENTS_TAKEN_MAX {
            if consumer.poll(Duration::ZERO).is_none() {
                break;
            }
        }
        let asked = self.all(Offset::Invalid).map_err(ProgressError::Committed)?;
        let committed = consumer.committed_offsets(asked, remaining());
        let committed = committed.map_err(ProgressError::Committed)?;
        // A "time" of -1 asks for the end of the log, all partitions at once.
        let asked = self.all(Offset::End).map_err(ProgressError::Ends)?;
        let ends = consumer.offsets_for_times(asked, remaining());
        let ends = ends.map_err(ProgressError::Ends)?;
        let cluster = consumer.client().fetch_cluster_id(remaining());
        Ok(GroupProgress {
            committed: self.offsets(&committed, ProgressError::Committed)?,
            ends: self
                .offsets(&ends, ProgressError::Ends)?
                .into_iter()
                .collect::<Option<Vec<i64>>>()
                .ok_or(ProgressError::Incomplete)?,
            cluster,
        })
    }

    fn all(&self, offset: Offset) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(usize::from(self.partitions));
        for partition in 0..self.partitions {
            list.add_partition_offset(TOPIC_BACKLOG, i32::from(partition), offset)?;
        }
        Ok(list)
    }

    fn offsets(
        &self,
        list: &TopicPartitionList,
        wrong: fn(KafkaError) -> ProgressError,
    ) -> Result<Vec<Option<i64>>, ProgressError> {
        let mut offsets = vec![None; usize::from(self.partitions)];
        for element in list.elements() {
            element.error().map_err(wrong)?;
            let index = usize::try_from(element.partition()).unwrap_or(usize::MAX);
            if let (Some(slot), Offset::Offset(offset)) = (offsets.get_mut(index), element.offset())
            {
                *slot = Some(offset);
            }
        }
        Ok(offsets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(partition: u16, offset: i64) -> Place {
        Place { topic: TOPIC_BACKLOG.to_owned(), partition, offset }
    }

    #[test]
    fn a_record_is_passed_only_when_the_commit_lies_beyond_it() {
        let progress = GroupProgress::of(&[(Some(5), 9), (None, 9)]);
        assert_eq!(progress.passed(&place(0, 4)), Passed::Yes);
        assert_eq!(progress.passed(&place(0, 5)), Passed::NotYet);
        assert_eq!(progress.passed(&place(1, 0)), Passed::NotYet, "the group never committed");
        assert_eq!(progress.passed(&place(7, 0)), Passed::NotYet, "no such partition");
    }

    #[test]
    fn offsets_of_a_topic_that_was_made_anew_prove_nothing() {
        let progress = GroupProgress::of(&[(Some(100), 3)]);
        assert_eq!(progress.passed(&place(0, 50)), Passed::LogEndsBefore);
        assert_eq!(progress.passed(&place(0, 2)), Passed::NotYet, "a commit of another log");
    }

    #[test]
    fn lag_counts_what_was_never_committed_as_well() {
        assert_eq!(GroupProgress::of(&[(Some(5), 9), (None, 7), (Some(9), 3)]).lag(), 11);
    }
}
