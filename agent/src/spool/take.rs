//! How batches get out of the spool: taken in hand in their lane's order, and then settled.

use std::sync::Arc;

use bytes::Bytes;
use spillway_proto::BatchId;
use spillway_proto::kafka_record::Lane;

use super::disk::Disk;
use super::index::{Place, Serial};
use super::record::{self, Header};
use super::segment;
use super::store::Store;
use crate::identity::{CustodyLog, GivenUpReason};

/// The pause after a first failed read of a record; twice as long after each further one, up to ten
/// seconds. A disk that refuses to read says nothing of the record: it waits until it can be read,
/// or until it is too old.
const READ_AGAIN_AFTER_MS: i64 = 1_000;
const READ_AGAIN_AFTER_MS_MAX: i64 = 10_000;

/// What deliver asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub lane: Lane,
    /// Of frames, together; the first batch comes however large it is.
    pub bytes_max: usize,
    pub batches_max: usize,
}

/// A batch that was taken.
#[derive(Clone, Debug)]
pub struct TakenBatch {
    pub serial: Serial,
    pub id: BatchId,
    pub window_ts: u32,
    pub points: u32,
    pub frame: Bytes,
    pub volatile: bool,
}

/// How a batch in hand ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Somebody else has it, or it was given up through the log.
    Gone,
    /// It waits on; `after_ms` from now it may be taken again.
    Returned { after_ms: i64 },
}

enum Unread {
    Damaged,
    Unreadable,
}

impl<D: Disk> Store<D> {
    /// Takes batches in hand. A damaged one is declared and skipped.
    pub fn take(&mut self, wish: Wish, log: &Arc<dyn CustodyLog>) -> Vec<TakenBatch> {
        let mut chosen = Vec::new();
        let mut bytes = 0;
        for (serial, entry) in self.index.takeable(wish.lane, self.now_ms, self.live_since_ms()) {
            bytes += entry.frame_bytes as usize;
            let full = chosen.len() >= wish.batches_max || bytes > wish.bytes_max;
            if full && !chosen.is_empty() {
                break;
            }
            chosen.push(serial);
        }
        let taken = chosen.into_iter().filter_map(|serial| match self.read(serial) {
            Ok(frame) => self.in_hand(serial, frame),
            Err(unread) => {
                self.read_failed(serial, &unread, log);
                None
            }
        });
        taken.collect()
    }

    fn in_hand(&mut self, serial: Serial, frame: Bytes) -> Option<TakenBatch> {
        let entry = self.index.get_mut(serial)?;
        entry.in_hand = true;
        Some(TakenBatch {
            serial,
            id: entry.id,
            window_ts: entry.window_ts,
            points: entry.points,
            frame,
            volatile: entry.segment().is_none(),
        })
    }

    fn read(&self, serial: Serial) -> Result<Bytes, Unread> {
        let entry = self.index.get(serial).ok_or(Unread::Damaged)?;
        let (segment, offset) = match &entry.place {
            Place::Memory(frame) => return Ok(frame.clone()),
            Place::Disk { segment, offset } => (segment, *offset),
        };
        let (Some(disk), Some(segment)) = (&self.disk, self.segments.get(segment)) else {
            return Err(Unread::Damaged);
        };
        let count = record::record_bytes(entry.frame_bytes as usize);
        let bytes = segment::read(disk, segment.name, offset, count).map_err(|error| {
            tracing::error!(%error, "a spooled batch can't be read");
            self.count_error("read");
            Unread::Unreadable
        })?;
        let header = Header::read(segment.name.salt, &bytes).map(|(header, _)| header);
        let header = header.filter(|header| header.id == entry.id).ok_or(Unread::Damaged)?;
        header.payload(&bytes).ok_or(Unread::Damaged)?;
        let end = record::HEADER_BYTES + header.payload_bytes as usize;
        Ok(Bytes::from(bytes).slice(record::HEADER_BYTES..end))
    }

    fn read_failed(&mut self, serial: Serial, unread: &Unread, log: &Arc<dyn CustodyLog>) {
        let Some(entry) = self.index.get_mut(serial) else { return };
        let pause_ms = READ_AGAIN_AFTER_MS << entry.failed_reads.min(10);
        entry.failed_reads = entry.failed_reads.saturating_add(1);
        entry.not_before_ms = self.now_ms + pause_ms.min(READ_AGAIN_AFTER_MS_MAX);
        let is_damaged = matches!(unread, Unread::Damaged);
        if is_damaged && self.give_up(&[serial], GivenUpReason::SpoolDamaged, log) {
            self.metrics.spool_damaged_records.inc();
        }
    }

    /// Ends a custody. A batch that is not there any more (given up meanwhile) stays so.
    pub fn settle(&mut self, serial: Serial, ending: Ending) {
        match ending {
            Ending::Gone => self.forget(serial),
            Ending::Returned { after_ms } => {
                let not_before_ms = self.now_ms.saturating_add(after_ms);
                if let Some(entry) = self.index.get_mut(serial) {
                    entry.in_hand = false;
                    entry.not_before_ms = not_before_ms;
                }
            }
        }
    }
}
