//! An object's batches into Kafka's backlog topic, with proof: a batch is published when its
//! delivery report names an offset, and an object is when all of its batches are.
//!
//! Anything less is published again, from the start if need be: the consumer recognises what it
//! has by its id. The record is the one the API would have made of the same frame.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use spillway_proto::kafka_record::{KafkaRecord, Lane};
use spillway_proto::partition::Partitioning;
use spillway_publisher::{
    Hindrance, Outcome, Pending, PublishError, Publisher, Record, Refused, Repeat, wait_all,
};
use tokio::time::Instant;

use crate::unseal::{FrameCause, FrameFault, Opened, OpenedBatch};

/// How often a batch is published again because Kafka recognised it but did not say where it is.
const OFFSETLESS_ATTEMPTS_MAX: u32 = 5;
/// Between looks at a full queue.
const QUEUE_PAUSE: Duration = Duration::from_millis(50);

/// Where a batch lies in Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub topic: String,
    pub partition: u16,
    pub offset: i64,
}

/// The fact that every batch of an object is in Kafka. Made of delivery reports, here, or of a
/// claim that remembers them; nowhere else.
#[derive(Clone, Debug)]
pub struct Published {
    places: Vec<Place>,
    /// When this process learned of it.
    since: Instant,
}

impl Published {
    /// What a claim remembers. The hold time starts anew.
    #[must_use]
    pub(crate) fn remembered(places: &[Place]) -> Option<Self> {
        let known = places.iter().all(|place| Lane::of_topic(&place.topic) == Some(Lane::Backlog));
        known.then(|| Self { places: places.to_vec(), since: Instant::now() })
    }

    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }
}

/// What became of an object's batches.
#[derive(Debug)]
pub struct Republished {
    pub published: Published,
    pub points: u64,
    /// What Kafka will never take.
    pub refused: Vec<FrameFault>,
}

/// Why an object is not in Kafka yet. Nothing of it is lost: the object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepublishError {
    #[error("the queue towards Kafka stayed full")]
    QueueFull,
    #[error("Kafka does not take it now: {0}")]
    Hindered(Hindrance),
    #[error("Kafka has no such partition")]
    NoSuchPartition,
    #[error("no delivery report in time: stored or not")]
    Unknown,
    #[error("Kafka has it but did not say where, time and again")]
    NoOffset,
    #[error("this program is shutting down")]
    Draining,
}

/// Where and how objects are published.
#[derive(Clone)]
pub struct Way {
    pub publisher: Publisher,
    pub partitioning: Partitioning,
    /// For all of one object.
    pub timeout: Duration,
}

/// Publishes every batch of an object and waits for every report.
pub async fn republish(way: &Way, opened: &Opened) -> Result<Republished, RepublishError> {
    let until = Instant::now() + way.timeout;
    let mut done = Republished {
        published: Published { places: Vec::new(), since: Instant::now() },
        points: 0,
        refused: Vec::new(),
    };
    let mut open: Vec<&OpenedBatch> = opened.batches.iter().collect();
    let mut repeat = Repeat::Joins;
    for _ in 0..OFFSETLESS_ATTEMPTS_MAX {
        let mut pendings = Vec::with_capacity(open.len());
        for batch in &open {
            let record = record(way, &opened.environment, batch, repeat);
            pendings.push(hand_over(way, record, until).await?);
        }
        let remaining = until.saturating_duration_since(Instant::now());
        let outcomes = wait_all(&pendings, remaining).await;
        open = settle(&mut done, &open, outcomes)?;
        if open.is_empty() {
            done.published.since = Instant::now();
            return Ok(done);
        }
        // Joining the report that named no offset would name none again.
        repeat = Repeat::PublishesAgain;
    }
    Err(RepublishError::NoOffset)
}

/// The batches that have to be published once more.
fn settle<'a>(
    done: &mut Republished,
    open: &[&'a OpenedBatch],
    outcomes: Vec<Outcome>,
) -> Result<Vec<&'a OpenedBatch>, RepublishError> {
    let mut again = Vec::new();
    for (batch, outcome) in open.iter().zip(outcomes) {
        match outcome {
            Outcome::Done { topic, partition, offset: Some(offset), .. } => {
                let topic = topic.to_owned();
                done.published.places.push(Place { topic, partition, offset });
                done.points += batch.points as u64;
            }
            Outcome::Done { offset: None, .. } => again.push(*batch),
            Outcome::Refused(cause) => refuse(done, batch, cause),
            Outcome::TryLater(hindrance) => return Err(RepublishError::Hindered(hindrance)),
            Outcome::Unknown => return Err(RepublishError::Unknown),
        }
    }
    Ok(again)
}

fn refuse(done: &mut Republished, batch: &OpenedBatch, cause: Refused) {
    let (index, points) = (batch.index, batch.points);
    done.refused.push(FrameFault { index, points, cause: FrameCause::Kafka(cause) });
}

fn record(way: &Way, environment: &str, batch: &OpenedBatch, repeat: Repeat) -> Record {
    let record = KafkaRecord {
        lane: Lane::Backlog,
        partition: way.partitioning.partition_of(environment, &batch.host),
        id: batch.id,
        environment: environment.to_owned(),
        frame: batch.frame.clone(),
    };
    Record { repeat, ..Record::from(record) }
}

async fn hand_over(
    way: &Way,
    mut record: Record,
    until: Instant,
) -> Result<Pending, RepublishError> {
    loop {
        let error = match way.publisher.publish(record) {
            Ok(pending) => return Ok(pending),
            Err(error) => error,
        };
        let reason = match &error {
            PublishError::QueueFull(_) => RepublishError::QueueFull,
            PublishError::Rebuilding(_) => RepublishError::Hindered(Hindrance::NotTaken),
            PublishError::Draining(_) => return Err(RepublishError::Draining),
            PublishError::NoSuchPartition { .. } => RepublishError::NoSuchPartition,
            // Verified frames are below the limit; a broker set lower is for the operator.
            PublishError::TooLarge { .. } | PublishError::Client { .. } => {
                return Err(RepublishError::Hindered(Hindrance::TopicLimit));
            }
        };
        if Instant::now() + QUEUE_PAUSE >= until {
            return Err(reason);
        }
        tokio::time::sleep(QUEUE_PAUSE).await;
        record = error.into_record();
    }
}
