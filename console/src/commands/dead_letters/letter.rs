//! One dead letter: what its headers say of it, and whether its batch can go once more.

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use spillway_consumer::quarantine::{HEADER_OFFSET, HEADER_PARTITION, HEADER_REASON, HEADER_TOPIC};
use spillway_consumer::verify::{Reason, Said, verify_said};
use spillway_proto::BatchId;
use spillway_proto::frame::{Decoder, is_environment_name, points_claimed};
use spillway_proto::kafka_record::{HEADER_ENVIRONMENT, KafkaRecord, Lane};
use spillway_proto::partition::Partitioning;

/// What a letter costs in memory beside its key and value.
const OVERHEAD_BYTES: usize = 256;
/// Reasons are words of ours; anything longer is none.
const REASON_BYTES_MAX: usize = 64;
/// Shown for what no header says, or says in no words of ours.
const UNKNOWN: &str = "unknown";

/// A letter as it lies in the topic.
#[derive(Clone, Debug, Default)]
pub struct Letter {
    pub partition: i32,
    pub offset: i64,
    /// When it was appended, ms since the Unix epoch.
    pub at_ms: Option<i64>,
    pub key: Bytes,
    pub value: Bytes,
    pub(super) reason: Option<String>,
    pub(super) environment: Option<Bytes>,
    pub(super) from: (Option<Lane>, Option<u16>, Option<i64>),
}

/// A batch that can go once more.
#[derive(Debug)]
pub struct Fit {
    pub record: KafkaRecord,
    pub points: u64,
    /// The frame's checksum: an id that was given twice names two batches.
    pub crc: u32,
}

impl Letter {
    pub fn copy(message: &BorrowedMessage<'_>) -> Self {
        let header = |name: &str| {
            let mut named = message.headers()?.iter().filter(|header| header.key == name);
            named.next()?.value
        };
        let text = |name| header(name).and_then(|value| std::str::from_utf8(value).ok());
        let word = |text: &&str| {
            text.len() <= REASON_BYTES_MAX
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let copied = |bytes: Option<&[u8]>| Bytes::copy_from_slice(bytes.unwrap_or_default());
        Self {
            partition: message.partition(),
            offset: message.offset(),
            at_ms: message.timestamp().to_millis(),
            key: copied(message.key()),
            value: copied(message.payload()),
            reason: text(HEADER_REASON).filter(word).map(str::to_owned),
            environment: header(HEADER_ENVIRONMENT).map(Bytes::copy_from_slice),
            from: (
                text(HEADER_TOPIC).and_then(Lane::of_topic),
                text(HEADER_PARTITION).and_then(|text| text.parse().ok()),
                text(HEADER_OFFSET).and_then(|text| text.parse().ok()),
            ),
        }
    }

    pub fn bytes(&self) -> usize {
        OVERHEAD_BYTES + self.key.len() + self.value.len()
    }

    /// One word.
    pub fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or(UNKNOWN)
    }

    /// For which it was accepted, if that could be one's name.
    pub fn environment(&self) -> Option<&str> {
        let name = std::str::from_utf8(self.environment.as_deref()?).ok()?;
        is_environment_name(name).then_some(name)
    }

    /// As the frame's header states; nobody vouches for it.
    pub fn points(&self) -> u64 {
        points_claimed(&self.value) as u64
    }

    /// As the record's key says.
    pub fn id(&self) -> Option<BatchId> {
        self.key[..].try_into().ok().and_then(BatchId::from_bytes)
    }

    /// Where the record was when it was refused.
    pub fn from(&self) -> String {
        let (lane, partition, offset) = self.from;
        let topic = lane.map_or(UNKNOWN, Lane::topic);
        let number = |n: Option<i64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
        format!("{topic}/{}/{}", number(partition.map(i64::from)), number(offset))
    }

    /// Where the letter lies.
    pub fn place(&self) -> String {
        format!("partition {} offset {}", self.partition, self.offset)
    }

    /// The record once more, in its right partition, if the consumer's own check passes it. What
    /// it was refused for is not asked: that is what was mended.
    pub fn fit(&self, decoder: &mut Decoder, partitioning: Partitioning) -> Result<Fit, Reason> {
        // Letters have no tombstones: the record's missing value became an empty one.
        let tombstone = self.value.is_empty() && self.reason() == Reason::Tombstone.word();
        let said = Said {
            key: Some(&self.key),
            environment: self.environment.as_deref(),
            value: Some(&self.value[..]).filter(|_| !tombstone),
        };
        let view = verify_said(decoder, said)?;
        Ok(Fit {
            record: KafkaRecord {
                lane: Lane::Backlog,
                partition: partitioning.partition_of(view.environment, view.host),
                id: view.header.id,
                environment: view.environment.to_owned(),
                frame: self.value.clone(),
            },
            points: view.header.points as u64,
            crc: view.header.crc,
        })
    }

    /// The host that the frame names, if it is a frame.
    pub fn host(&self, decoder: &mut Decoder) -> Option<String> {
        decoder.decode(&self.value).ok().map(|view| view.host.to_owned())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use spillway_proto::frame::Encoder;
    use spillway_proto::{Batch, Kind, Point, Series};
    use uuid::Uuid;

    use super::*;

    const TS: u32 = 1_700_000_000;

    pub fn letter() -> Letter {
        numbered(42, 1.0)
    }

    /// A batch of `demo` with this seq and this content, refused as of the future.
    pub fn numbered(seq: u64, value: f64) -> Letter {
        let series = Series {
            metric: "m".to_owned(),
            labels: Vec::new(),
            kind: Kind::Gauge,
            unit: String::new(),
            points: vec![Point { ts_ms: i64::from(TS) * 1_000, value }],
        };
        let (agent_id, epoch) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let batch = Batch {
            id: BatchId::Sequenced { agent_id, epoch, seq },
            environment: "demo".to_owned(),
            host: "web-1".to_owned(),
            window_ts: TS,
            series: vec![series],
            previous: None,
            declarations: Vec::new(),
            closing: false,
            host_info: None,
        };
        Letter {
            key: Bytes::copy_from_slice(&batch.id.to_bytes()),
            value: Encoder::new().encode(&batch).unwrap(),
            reason: Some("future-time".to_owned()),
            environment: Some(Bytes::from_static(b"demo")),
            ..Letter::default()
        }
    }

    fn judged(letter: &Letter) -> Result<Fit, Reason> {
        letter.fit(&mut Decoder::new(), Partitioning::new(64, 4).unwrap())
    }

    #[test]
    fn a_batch_goes_once_more_as_the_recovery_worker_would_publish_it() {
        let (letter, partitioning) = (letter(), Partitioning::new(64, 4).unwrap());
        let fit = judged(&letter).unwrap();
        assert_eq!(fit.points, 1);
        assert_eq!(letter.host(&mut Decoder::new()).as_deref(), Some("web-1"));
        assert_eq!(fit.record.partition, partitioning.partition_of("demo", "web-1"));
        let record = spillway_publisher::Record::from(fit.record);
        assert_eq!((record.topic, &record.key), ("spillway.backlog", &letter.key));
        assert_eq!(record.value, letter.value);
        assert_eq!(record.headers, [(HEADER_ENVIRONMENT, Bytes::from_static(b"demo"))]);
    }

    #[test]
    fn what_is_no_batch_or_lies_about_whose_it_is_is_not_replayed() {
        let other = Letter { environment: Some(Bytes::from_static(b"acme")), ..letter() };
        assert_eq!(judged(&other).unwrap_err(), Reason::EnvironmentMismatch);
        let nobodys = Letter { environment: None, ..letter() };
        assert_eq!(judged(&nobodys).unwrap_err(), Reason::EnvironmentMismatch);
        let forged = Letter { key: Bytes::from_static(b"key"), ..letter() };
        assert_eq!(judged(&forged).unwrap_err(), Reason::KeyMismatch);
        let nothing = Letter { value: Bytes::new(), ..letter() };
        assert_eq!(judged(&nothing).unwrap_err().word(), "undecodable-frame");
        let tombstone = Letter { reason: Some("tombstone".to_owned()), ..nothing };
        assert_eq!(judged(&tombstone).unwrap_err(), Reason::Tombstone);
    }

    #[test]
    fn what_no_header_says_is_unknown_and_no_name_is_taken_from_bytes_that_are_none() {
        let letter =
            Letter { environment: Some(Bytes::from_static(b"\x1b[2J")), ..Letter::default() };
        assert_eq!((letter.reason(), letter.environment()), ("unknown", None));
        assert_eq!(letter.from(), "unknown/?/?");
    }
}
