//! Poison to dead letters, with its reason; only then may its offset pass.
//!
//! Promises:
//! - A record leaves the way only after its dead letter's delivery report.
//! - A flood of what should not exist stops the partition instead of diverting it: then the fault
//!   is more likely ours than the records'.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use spillway_proto::kafka_record::{HEADER_ENVIRONMENT, Lane, TOPIC_DEAD_LETTERS};
use spillway_publisher::{Outcome, PublishError, Publisher, Repeat};
use tokio::time::Instant;

use crate::failpoint::{Failpoint, pass};
use crate::receive::Record;
use crate::verify::Refused;

/// Why the record is here, as one word and as a sentence.
pub const HEADER_REASON: &str = "spillway-reason";
pub const HEADER_EXPLANATION: &str = "spillway-explanation";
/// Where it was.
pub const HEADER_TOPIC: &str = "spillway-topic";
pub const HEADER_PARTITION: &str = "spillway-partition";
pub const HEADER_OFFSET: &str = "spillway-offset";

/// The window of the limit.
const MINUTE: Duration = Duration::from_secs(60);
/// Environments the limiter remembers; more in one minute share the last place.
const ENVIRONMENTS_MAX: usize = 10_000;

/// A record that is in dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    pub lane: Lane,
    pub partition: u16,
    pub offset: i64,
    /// The environment of the record's header, if it is one.
    pub environment: Option<String>,
    /// As its header states.
    pub points: u64,
    pub refused: Refused,
}

/// Why a record is not in dead letters yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuarantineError {
    /// Kafka has it or not; again later, since twice in dead letters is harmless.
    #[error("Kafka did not confirm the dead letter in time")]
    Unconfirmed,
    /// Kafka will never take it as it is: someone must look.
    #[error("Kafka refuses the dead letter itself")]
    Undeliverable,
    /// More than a few of these a minute mean a fault of ours.
    #[error("more dead letters in a minute than dead_letters.per_minute_max allows")]
    TooMany,
}

/// The way to dead letters.
#[derive(Clone)]
pub struct DeadLetters {
    publisher: Publisher,
    delivery_timeout: Duration,
}

impl DeadLetters {
    #[must_use]
    pub fn new(publisher: Publisher, delivery_timeout: Duration) -> Self {
        Self { publisher, delivery_timeout }
    }

    /// Publishes one record and waits for the report.
    pub async fn send(
        &self,
        record: &Record,
        refused: &Refused,
    ) -> Result<Quarantined, QuarantineError> {
        let pending =
            self.publisher.publish(letter(record, refused)).map_err(|error| match error {
                PublishError::TooLarge { .. } => QuarantineError::Undeliverable,
                _ => QuarantineError::Unconfirmed,
            })?;
        match pending.wait(self.delivery_timeout).await {
            Outcome::Done { .. } => {}
            Outcome::Refused(_) => return Err(QuarantineError::Undeliverable),
            Outcome::TryLater(_) | Outcome::Unknown => return Err(QuarantineError::Unconfirmed),
        }
        pass(Failpoint::AfterDeadLetter).await;
        Ok(Quarantined {
            lane: record.lane,
            partition: record.partition,
            offset: record.offset,
            environment: environment(record),
            points: record.receipt.points(),
            refused: refused.clone(),
        })
    }
}

/// The environment a record claims, if it could be one's name.
#[must_use]
pub fn environment(record: &Record) -> Option<String> {
    let name = std::str::from_utf8(record.environment.as_deref()?).ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let max = spillway_proto::limits::ENVIRONMENT_BYTES_MAX;
    let fine = !name.is_empty() && name.len() <= max && name.bytes().all(plain);
    fine.then(|| name.to_owned())
}

fn letter(record: &Record, refused: &Refused) -> spillway_publisher::Record {
    let mut headers = vec![
        (HEADER_REASON, Bytes::from_static(refused.reason.word().as_bytes())),
        (HEADER_EXPLANATION, Bytes::from(refused.reason.to_string())),
        (HEADER_TOPIC, Bytes::from_static(record.lane.topic().as_bytes())),
        (HEADER_PARTITION, Bytes::from(record.partition.to_string())),
        (HEADER_OFFSET, Bytes::from(record.offset.to_string())),
    ];
    headers.extend(record.environment.clone().map(|name| (HEADER_ENVIRONMENT, name)));
    spillway_publisher::Record {
        topic: TOPIC_DEAD_LETTERS,
        // The topic has at least one partition, however many it was given.
        partition: 0,
        key: record.key.clone().unwrap_or_default(),
        value: record.value.clone().unwrap_or_default(),
        headers,
        repeat: Repeat::PublishesAgain,
    }
}

/// How many records of each environment went to dead letters within the minute.
#[derive(Debug, Default)]
pub struct Limiter {
    counts: HashMap<String, (Instant, u32)>,
}

impl Limiter {
    /// Whether one more may go. Refusals that senders can cause at will don't count.
    pub fn admits(&mut self, record: &Record, refused: &Refused, per_minute_max: u32) -> bool {
        if refused.reason.is_senders() {
            return true;
        }
        let now = Instant::now();
        if self.counts.len() >= ENVIRONMENTS_MAX {
            self.counts.retain(|_, (began, _)| now.duration_since(*began) < MINUTE);
        }
        let name = environment(record).filter(|_| self.counts.len() < ENVIRONMENTS_MAX);
        let (began, count) = self.counts.entry(name.unwrap_or_default()).or_insert((now, 0));
        if now.duration_since(*began) >= MINUTE {
            (*began, *count) = (now, 0);
        }
        *count += 1;
        *count <= per_minute_max
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::books::Receipt;
    use crate::receive::Appended;
    use crate::verify::Reason;

    fn record(environment: &'static [u8]) -> Record {
        Record {
            lane: Lane::Backlog,
            partition: 3,
            offset: 12,
            claim: 1,
            appended: Appended::At(0),
            key: None,
            value: None,
            environment: Some(Bytes::from_static(environment)),
            receipt: Receipt::new(&Arc::default(), Lane::Backlog, 0),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_from_one_environment_stops_and_another_one_does_not() {
        let mut limiter = Limiter::default();
        let refused = Refused::from(Reason::KeyMismatch);
        for _ in 0..3 {
            assert!(limiter.admits(&record(b"demo"), &refused, 3));
        }
        assert!(!limiter.admits(&record(b"demo"), &refused, 3));
        assert!(limiter.admits(&record(b"acme"), &refused, 3));
        tokio::time::advance(MINUTE).await;
        assert!(limiter.admits(&record(b"demo"), &refused, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_any_sender_can_cause_never_stops_a_partition() {
        let mut limiter = Limiter::default();
        let refused = Refused::from(Reason::FutureTime);
        assert!((0..1_000).all(|_| limiter.admits(&record(b"demo"), &refused, 3)));
    }

    #[test]
    fn a_letter_says_where_it_was_and_why_it_is_here() {
        let letter = letter(&record(b"demo"), &Refused::from(Reason::Tombstone));
        let header = |name| {
            letter.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_vec())
        };
        assert_eq!(header(HEADER_REASON).unwrap(), b"tombstone");
        assert_eq!(header(HEADER_TOPIC).unwrap(), b"spillway.backlog");
        assert_eq!(header(HEADER_PARTITION).unwrap(), b"3");
        assert_eq!(header(HEADER_OFFSET).unwrap(), b"12");
        assert_eq!(header(HEADER_ENVIRONMENT).unwrap(), b"demo");
        assert_eq!(environment(&record(b"de\xffmo")), None);
    }
}
