//! Batches into Kafka, and the wait for its word. The answer may be 2xx only if this stage
//! returns [`Acknowledged`], and only a delivery report of every batch makes one.

use std::time::Duration;

use spillway_proto::kafka_record::{KafkaRecord, Lane};
use spillway_proto::verdict::{Refusal, RejectedBatch};
use spillway_publisher::{
    Hindrance, Outcome, Pending, PublishError, Publisher, Record, Refused, wait_all,
};
use tokio::time::Instant;

use crate::authenticate::Caller;
use crate::verify::{Batch, Checked, Rejection};

/// Proof that Kafka has every batch of a request that it can take.
#[derive(Debug)]
#[non_exhaustive]
pub struct Acknowledged {
    pub batches: usize,
    pub points: usize,
    /// In the order of the request.
    pub rejected: Vec<Rejection>,
    /// How long Kafka took.
    pub waited: Duration,
}

/// Why a request is not acknowledged. All of it must come again, and joins what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAcknowledged {
    #[error("the queue towards Kafka is full")]
    QueueFull,
    #[error("the way to Kafka is being made anew after an error")]
    Rebuilding,
    #[error("this server is shutting down")]
    Draining,
    #[error("Kafka did not acknowledge in time; what is under way will be recognised")]
    TooSlow,
    #[error("Kafka does not take the records: {0}")]
    Hindered(Hindrance),
}

/// Publishes all batches and waits until each is acknowledged, for at most `within`.
///
/// # Errors
/// [`NotAcknowledged`]; what of the request is under way goes on and is joined by the next attempt.
pub async fn all(
    publisher: &Publisher,
    lane: Lane,
    caller: &Caller,
    checked: Checked,
    within: Duration,
) -> Result<Acknowledged, NotAcknowledged> {
    let began = Instant::now();
    let Checked { batches, rejected, series: _ } = checked;
    let pendings = hand_over(publisher, lane, caller, &batches)?;
    #[cfg(feature = "mutants")]
    let (pendings, batches, early) = hasty(pendings, batches);
    let outcomes = wait_all(&pendings, within).await;
    let waited = began.elapsed();
    let mut acknowledged = Acknowledged { batches: 0, points: 0, rejected, waited };
    #[cfg(feature = "mutants")]
    {
        acknowledged.batches += early;
    }
    for (batch, outcome) in batches.iter().zip(outcomes) {
        match outcome {
            Outcome::Done { .. } => {
                acknowledged.batches += 1;
                acknowledged.points += batch.points;
            }
            Outcome::Refused(refused) => {
                acknowledged.rejected.push(rejection(batch, &refused));
            }
            Outcome::TryLater(cause) => return Err(NotAcknowledged::Hindered(cause)),
            Outcome::Unknown => return Err(NotAcknowledged::TooSlow),
        }
    }
    acknowledged.rejected.sort_by_key(|rejection| rejection.batch.index);
    Ok(acknowledged)
}

/// What Kafka will never take.
fn rejection(batch: &Batch, refused: &Refused) -> Rejection {
    let refusal = match refused {
        Refused::TooLarge { .. } => Refusal::LimitExceeded,
        Refused::Invalid => Refusal::InvalidContent,
    };
    let told = RejectedBatch { index: batch.index, error: refused.to_string(), refusal };
    Rejection { batch: told, points: batch.points }
}

/// What a request says of how quickly Kafka acknowledges; `within` was its deadline. A refusal
/// counts like a missed deadline, and what never asked Kafka says nothing.
#[must_use]
pub fn ack_time(
    result: &Result<Acknowledged, NotAcknowledged>,
    within: Duration,
) -> Option<Duration> {
    match result {
        Ok(acknowledged) => (acknowledged.batches > 0).then_some(acknowledged.waited),
        Err(NotAcknowledged::Rebuilding | NotAcknowledged::Draining) => None,
        Err(
            NotAcknowledged::QueueFull | NotAcknowledged::TooSlow | NotAcknowledged::Hindered(_),
        ) => Some(within),
    }
}

/// Everything or nothing to wait for: a request that the queue can't hold as a whole is refused at
/// once. What went ahead of the refusal stays under way and is joined by the next attempt.
fn hand_over(
    publisher: &Publisher,
    lane: Lane,
    caller: &Caller,
    batches: &[Batch],
) -> Result<Vec<Pending>, NotAcknowledged> {
    let publish = |batch: &Batch| {
        let record = Record::from(KafkaRecord {
            lane,
            partition: batch.partition,
            id: batch.id,
            environment: caller.environment.to_string(),
            frame: batch.frame.clone(),
        });
        publisher.publish(record).map_err(|error| match error {
            PublishError::QueueFull(_) => NotAcknowledged::QueueFull,
            PublishError::Rebuilding(_) => NotAcknowledged::Rebuilding,
            PublishError::Draining(_) => NotAcknowledged::Draining,
            PublishError::NoSuchPartition { .. } => {
                NotAcknowledged::Hindered(Hindrance::NoSuchPartition)
            }
            // proto's limits keep every frame below what Kafka takes, with room to spare.
            PublishError::TooLarge { .. } => NotAcknowledged::Hindered(Hindrance::TopicLimit),
            PublishError::Client { .. } => NotAcknowledged::Hindered(Hindrance::NotTaken),
        })
    };
    batches.iter().map(publish).collect()
}

/// What the hasty mutants wait for, and how many batches they answer without waiting.
#[cfg(feature = "mutants")]
fn hasty(pendings: Vec<Pending>, batches: Vec<Batch>) -> (Vec<Pending>, Vec<Batch>, usize) {
    use crate::mutant::{Mutant, is};
    let all = batches.len();
    let waits = |pending: &Pending| {
        let joins = is(Mutant::JoinWithoutWaiting) && pending.joined();
        !(joins || is(Mutant::AnswerBeforeReport))
    };
    let both = pendings.into_iter().zip(batches).filter(|(pending, _)| waits(pending));
    let (pendings, batches): (Vec<_>, Vec<_>) = both.unzip();
    let early = all - batches.len();
    (pendings, batches, early)
}
