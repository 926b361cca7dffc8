//! Kafka as a producer and a consumer see it: logs, acknowledgements that come late, twice, wrong
//! or never, and the offsets that the group has committed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::types::RDKafkaErrorCode as Code;
use spillway_proto::frame::Header;
use spillway_proto::kafka_record::Lane;
use spillway_publisher::Record;
use spillway_publisher::simulated::{Broker as BrokerTrait, Report};
use spillway_recovery_worker::progress::{GroupProgress, ProgressError, ReadProgress};
use tokio::time::Instant;

use crate::chance;
use crate::mutant::Mutant;
use crate::weather::Fault;
use crate::world::{PARTITIONS, World};

/// As `message.timeout.ms`: after it the producer gives a record up.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a producer looks for a broker that is away.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The consumers' patience when they ask for offsets.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// The cluster.
#[derive(Debug)]
pub struct Broker {
    world: Arc<World>,
    logs: Mutex<Logs>,
}

#[derive(Debug, Default)]
struct Logs {
    records: BTreeMap<(Lane, u16), Vec<Bytes>>,
    committed: BTreeMap<(Lane, u16), usize>,
}

/// The producer of one process: what it holds goes with it.
#[derive(Debug)]
pub struct Producer {
    pub broker: Arc<Broker>,
    pub on: Arc<AtomicBool>,
}

impl Broker {
    #[must_use]
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self { world: Arc::clone(world), logs: Mutex::default() })
    }

    fn logs(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The records from `next` on, at most `most`.
    #[must_use]
    pub fn read(&self, lane: Lane, partition: u16, next: usize, most: usize) -> Vec<Bytes> {
        let logs = self.logs();
        let log = logs.records.get(&(lane, partition)).map(Vec::as_slice).unwrap_or_default();
        log.iter().skip(next).take(most).cloned().collect()
    }

    /// The group has stored everything before `next`.
    pub fn commit(&self, lane: Lane, partition: u16, next: usize) {
        self.logs().committed.insert((lane, partition), next);
    }

    /// Records that the group has not committed.
    #[must_use]
    pub fn lag(&self) -> usize {
        let logs = self.logs();
        let committed: usize = logs.committed.values().sum();
        logs.records.values().map(Vec::len).sum::<usize>().saturating_sub(committed)
    }

    fn store(&self, lane: Lane, partition: u16, value: &Bytes) -> i64 {
        let mut logs = self.logs();
        let log = logs.records.entry((lane, partition)).or_default();
        log.push(value.clone());
        let offset = log.len() - 1;
        drop(logs);
        if let Ok(header) = Header::parse(value) {
            let (id, history) = (header.id, &self.world.history);
            crate::note!(history, "broker: {id} at {}/{partition}/{offset}", lane.as_str());
        }
        i64::try_from(offset).unwrap_or(i64::MAX)
    }

    fn report(&self, value: &Bytes, report: Report, partition: u16, offset: Option<i64>) {
        if let Ok(header) = Header::parse(value) {
            self.world.oracle().acked(&header);
        }
        report.stored(partition, offset);
    }

    /// The way of one record.
    async fn deliver(&self, record: Sent, report: Report) {
        let weather = &self.world.weather;
        let until = Instant::now() + MESSAGE_TIMEOUT;
        tokio::time::sleep(chance::ms(1, 20)).await;
        while weather.is_on(Fault::BrokerDown) {
            if Instant::now() >= until {
                return report.failed(Code::MessageTimedOut);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        if !record.on.load(Ordering::Relaxed) {
            // Its process died with the record in its queue.
            return;
        }
        if weather.strikes(Fault::RecordLost) {
            tokio::time::sleep(chance::ms(10, 8_000)).await;
            return report.failed(Code::MessageTimedOut);
        }
        if weather.strikes(Fault::InvalidRecord) {
            return report.failed(Code::InvalidRecord);
        }
        let (lane, partition) = (record.lane, record.partition);
        let offset = self.store(lane, partition, &record.value);
        if weather.strikes(Fault::BrokerSlow) {
            tokio::time::sleep(chance::ms(500, 8_000)).await;
        } else {
            tokio::time::sleep(chance::ms(1, 20)).await;
        }
        if weather.strikes(Fault::AckLost) {
            return report.failed(Code::MessageTimedOut);
        }
        let offset = Some(offset).filter(|_| !weather.strikes(Fault::Offsetless));
        self.report(&record.value, report, partition, offset);
    }
}

struct Sent {
    lane: Lane,
    partition: u16,
    value: Bytes,
    on: Arc<AtomicBool>,
}

/// Stored whatever was reported before: what comes of it is not told.
async fn deliver_untold(broker: Arc<Broker>, sent: Sent) {
    tokio::time::sleep(chance::ms(1, 3_000)).await;
    let weather = &broker.world.weather;
    if sent.on.load(Ordering::Relaxed) && !weather.is_on(Fault::BrokerDown) {
        broker.store(sent.lane, sent.partition, &sent.value);
    }
}

impl BrokerTrait for Producer {
    fn produce(&self, record: &Record, report: Report) -> Result<(), Code> {
        let world = &self.broker.world;
        if world.weather.strikes(Fault::QueueFull) {
            return Err(Code::QueueFull);
        }
        if world.weather.strikes(Fault::ProducerFatal) {
            return Err(Code::Fatal);
        }
        let lane = Lane::of_topic(record.topic).ok_or(Code::UnknownTopic)?;
        if record.partition >= PARTITIONS {
            return Err(Code::UnknownPartition);
        }
        let (partition, value) = (record.partition, record.value.clone());
        let sent = Sent { lane, partition, value, on: Arc::clone(&self.on) };
        let broker = Arc::clone(&self.broker);
        if world.mutant == Some(Mutant::AckBeforeReport) {
            report.stored(partition, Some(0));
            tokio::spawn(deliver_untold(broker, sent));
            return Ok(());
        }
        tokio::spawn(async move { broker.deliver(sent, report).await });
        Ok(())
    }
}

#[async_trait]
impl ReadProgress for Broker {
    async fn read(&self) -> Result<GroupProgress, ProgressError> {
        tokio::time::sleep(chance::ms(1, 20)).await;
        if self.world.weather.is_on(Fault::BrokerDown) {
            tokio::time::sleep(PROGRESS_TIMEOUT).await;
            return Err(ProgressError::Incomplete);
        }
        let ahead = self.world.mutant == Some(Mutant::ProgressAhead);
        let logs = self.logs();
        let signed = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let places = (0..PARTITIONS).map(|partition| {
            let at = (Lane::Backlog, partition);
            let end = signed(logs.records.get(&at).map(Vec::len).unwrap_or_default());
            let committed = logs.committed.get(&at).copied().map(signed);
            (if ahead { Some(end) } else { committed }, end)
        });
        Ok(GroupProgress::of(&places.collect::<Vec<_>>()).in_cluster("sim"))
    }
}
