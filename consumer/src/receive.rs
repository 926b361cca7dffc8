//! Records between the poller's thread and a worker: one bounded queue per worker and lane.
//!
//! Promise: a queue takes every record it is offered and says when it is full; the poller then
//! stops fetching for it. So a queue holds at most its limit plus one record of each partition.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rdkafka::Timestamp;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use spillway_proto::frame::points_claimed;
use spillway_proto::kafka_record::{HEADER_ENVIRONMENT, Lane};
use tokio::sync::Notify;

use crate::books::{Books, Receipt};

/// What a record costs beside its key and value, for the queue's accounts.
const RECORD_OVERHEAD_BYTES: usize = 256;

/// The time under which a record was appended, as the broker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The broker's own clock, in ms.
    At(i64),
    /// The topic carries senders' times: nothing to judge by.
    Unknown,
}

/// One record, copied once out of the Kafka client's memory.
#[derive(Debug)]
pub struct Record {
    pub lane: Lane,
    pub partition: u16,
    pub offset: i64,
    /// Which claim of the partition it was read under; records of an older one are forgotten.
    pub claim: u64,
    pub appended: Appended,
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    pub environment: Option<Bytes>,
    pub receipt: Receipt,
}

impl Record {
    /// Copies what Kafka handed out, and enters it in the books.
    #[must_use]
    pub fn copy(
        message: &BorrowedMessage<'_>,
        (lane, partition): (Lane, u16),
        claim: u64,
        books: &Arc<Books>,
    ) -> Self {
        let appended = match message.timestamp() {
            Timestamp::LogAppendTime(ms) => Appended::At(ms),
            Timestamp::CreateTime(_) | Timestamp::NotAvailable => Appended::Unknown,
        };
        let environment = message.headers().and_then(|headers| {
            let mut named = headers.iter().filter(|header| header.key == HEADER_ENVIRONMENT);
            named.next().and_then(|header| header.value.map(Bytes::copy_from_slice))
        });
        Self {
            lane,
            partition,
            offset: message.offset(),
            claim,
            appended,
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice),
            environment,
            receipt: Receipt::new(books, lane, message.payload().map_or(0, points_claimed)),
        }
    }

    /// What it counts against a queue's limit.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        RECORD_OVERHEAD_BYTES + of(&self.key) + of(&self.value) + of(&self.environment)
    }

    /// crc32c of the value, by which a position is recognised when it is read again.
    #[must_use]
    pub fn crc(&self) -> u32 {
        crc32c::crc32c(self.value.as_deref().unwrap_or_default())
    }
}

/// The two queues of one worker.
#[derive(Debug)]
pub struct Intake {
    lanes: Mutex<[Waiting; 2]>,
    bytes_max: [usize; 2],
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Intake {
    /// `live_max` and `backlog_max` in bytes.
    #[must_use]
    pub fn new(live_max: usize, backlog_max: usize) -> Self {
        Self { lanes: Mutex::default(), bytes_max: [live_max, backlog_max], arrived: Notify::new() }
    }

    /// Takes a record; `true` says that its lane is full now.
    pub fn offer(&self, record: Record) -> bool {
        let lane = record.lane;
        let bytes = {
            let mut lanes = self.lock();
            let waiting = of(&mut lanes, lane);
            waiting.bytes += record.bytes();
            waiting.records.push_back(record);
            waiting.bytes
        };
        self.arrived.notify_one();
        bytes >= self.bytes_max(lane)
    }

    /// The oldest record of a lane.
    pub fn take(&self, lane: Lane) -> Option<Record> {
        let mut lanes = self.lock();
        let waiting = of(&mut lanes, lane);
        let record = waiting.records.pop_front()?;
        waiting.bytes = waiting.bytes.saturating_sub(record.bytes());
        Some(record)
    }

    /// Whether so much was taken that fetching for this lane should go on.
    #[must_use]
    pub fn has_room(&self, lane: Lane) -> bool {
        of(&mut self.lock(), lane).bytes <= self.bytes_max(lane) / 2
    }

    /// Bytes waiting in a lane.
    #[must_use]
    pub fn bytes(&self, lane: Lane) -> usize {
        of(&mut self.lock(), lane).bytes
    }

    /// Forgets what was read of a partition.
    pub fn forget(&self, partition: u16) {
        self.lock().iter_mut().for_each(|waiting| waiting.forget(partition));
    }

    /// Returns once something arrived since the last look, or at once if something waits.
    pub async fn arrival(&self) {
        if self.lock().iter().all(|waiting| waiting.records.is_empty()) {
            self.arrived.notified().await;
        }
    }

    fn bytes_max(&self, lane: Lane) -> usize {
        let [live, backlog] = self.bytes_max;
        match lane {
            Lane::Live => live,
            Lane::Backlog => backlog,
        }
    }

    fn lock(&self) -> MutexGuard<'_, [Waiting; 2]> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn forget(&mut self, partition: u16) {
        self.records.retain(|record| record.partition != partition);
        self.bytes = self.records.iter().map(Record::bytes).sum();
    }
}

fn of(lanes: &mut [Waiting; 2], lane: Lane) -> &mut Waiting {
    let [live, backlog] = lanes;
    match lane {
        Lane::Live => live,
        Lane::Backlog => backlog,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(lane: Lane, partition: u16, offset: i64) -> Record {
        Record {
            lane,
            partition,
            offset,
            claim: 1,
            appended: Appended::At(0),
            key: None,
            value: Some(Bytes::from(vec![0; 1_000])),
            environment: None,
            receipt: Receipt::new(&Arc::default(), lane, 0),
        }
    }

    #[test]
    fn a_full_lane_says_so_and_asks_for_more_at_half() {
        let intake = Intake::new(10_000, 10_000);
        let full: Vec<bool> = (0..8).map(|at| intake.offer(record(Lane::Live, 0, at))).collect();
        assert_eq!(full, [false, false, false, false, false, false, false, true]);
        assert!(!intake.has_room(Lane::Live) && intake.has_room(Lane::Backlog));
        for offset in 0..5 {
            assert_eq!(intake.take(Lane::Live).unwrap().offset, offset);
        }
        assert!(intake.has_room(Lane::Live));
    }

    #[test]
    fn forgetting_a_partition_keeps_the_others_in_order() {
        let intake = Intake::new(100_000, 100_000);
        for offset in 0..6 {
            intake.offer(record(Lane::Live, (offset % 2) as u16, offset));
        }
        intake.forget(1);
        let left: Vec<i64> =
            std::iter::from_fn(|| intake.take(Lane::Live)).map(|r| r.offset).collect();
        assert_eq!(left, [0, 2, 4]);
        assert_eq!(intake.bytes(Lane::Live), 0);
    }
}
