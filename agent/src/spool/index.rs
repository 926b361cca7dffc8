//! Which batches wait, where their bytes are, and in which order they go.
//!
//! Lanes are a matter of age: a batch is live until it has waited `backlog_after`; what a restart
//! finds is backlog. Live goes newest first, so that after a pause dashboards are current at
//! once; backlog goes oldest first, so that history fills in from where it stopped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use spillway_proto::BatchId;
use spillway_proto::kafka_record::Lane;

/// The place of a batch in the order of arrival; never reused within one run.
pub type Serial = u64;

/// Where a batch's bytes are.
#[derive(Clone, Debug)]
pub enum Place {
    Disk {
        segment: u64,
        offset: u64,
    },
    /// The disk did not take it, or must not be touched.
    Memory(Bytes),
}

/// Whether deliver may see a batch: [`super::Held`] sets it.
#[derive(Clone, Debug)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    pub fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// One waiting batch.
#[derive(Clone, Debug)]
pub struct Entry {
    pub id: BatchId,
    pub window_ts: u32,
    pub points: u32,
    pub frame_bytes: u32,
    pub place: Place,
    /// On the spool's clock: when it came.
    pub since_ms: i64,
    /// Found at a start.
    pub recovered: bool,
    pub gate: Gate,
    /// Deliver has it at the moment.
    pub in_hand: bool,
    /// On the spool's clock: not to be taken earlier.
    pub not_before_ms: i64,
    /// Reads that failed so far.
    pub failed_reads: u8,
}

/// All waiting batches.
#[derive(Debug, Default)]
pub struct Index {
    entries: BTreeMap<Serial, Entry>,
    next: Serial,
    pub points: u64,
    pub frame_bytes: u64,
    pub memory_batches: u64,
    pub memory_bytes: u64,
}

impl Index {
    pub fn insert(&mut self, entry: Entry) -> Serial {
        let serial = self.next;
        self.next += 1;
        self.points += u64::from(entry.points);
        self.frame_bytes += u64::from(entry.frame_bytes);
        if let Place::Memory(bytes) = &entry.place {
            self.memory_batches += 1;
            self.memory_bytes += bytes.len() as u64;
        }
        self.entries.insert(serial, entry);
        serial
    }

    pub fn remove(&mut self, serial: Serial) -> Option<Entry> {
        let entry = self.entries.remove(&serial)?;
        self.points -= u64::from(entry.points);
        self.frame_bytes -= u64::from(entry.frame_bytes);
        self.forget_memory(&entry.place);
        Some(entry)
    }

    /// Notes that a batch that lay in memory is on disk now.
    pub fn move_to_disk(&mut self, serial: Serial, segment: u64, offset: u64) {
        let Some(entry) = self.entries.get_mut(&serial) else { return };
        let old = std::mem::replace(&mut entry.place, Place::Disk { segment, offset });
        self.forget_memory(&old);
    }

    fn forget_memory(&mut self, place: &Place) {
        if let Place::Memory(bytes) = place {
            self.memory_batches -= 1;
            self.memory_bytes -= bytes.len() as u64;
        }
    }

    pub fn get(&self, serial: Serial) -> Option<&Entry> {
        self.entries.get(&serial)
    }

    pub fn get_mut(&mut self, serial: Serial) -> Option<&mut Entry> {
        self.entries.get_mut(&serial)
    }

    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Serial, &Entry)> {
        self.entries.iter().map(|(serial, entry)| (*serial, entry))
    }

    /// What may be taken from `lane`, in its order. `live_since`: what came before is backlog.
    pub fn takeable(
        &self,
        lane: Lane,
        now_ms: i64,
        live_since_ms: i64,
    ) -> Box<dyn Iterator<Item = (Serial, &Entry)> + '_> {
        let ready = move |(_, entry): &(Serial, &Entry)| {
            !entry.in_hand && entry.not_before_ms <= now_ms && entry.gate.is_open()
        };
        let is_live = move |(_, entry): &(Serial, &Entry)| entry.is_live(live_since_ms);
        let all = self.entries.iter().map(|(serial, entry)| (*serial, entry));
        match lane {
            Lane::Live => Box::new(all.rev().take_while(is_live).filter(ready)),
            Lane::Backlog => Box::new(all.take_while(move |e| !is_live(e)).filter(ready)),
        }
    }
}

impl Entry {
    pub fn is_live(&self, live_since_ms: i64) -> bool {
        !self.recovered && self.since_ms >= live_since_ms
    }

    pub fn segment(&self) -> Option<u64> {
        match self.place {
            Place::Disk { segment, .. } => Some(segment),
            Place::Memory(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(since: &[i64]) -> Index {
        let mut index = Index::default();
        for (seq, since_ms) in since.iter().enumerate() {
            let gate = Gate::closed();
            gate.open();
            index.insert(Entry {
                id: BatchId::Content { hash: seq as u128 },
                window_ts: 0,
                points: 1,
                frame_bytes: 1,
                place: Place::Memory(Bytes::from_static(b"x")),
                since_ms: *since_ms,
                recovered: false,
                gate,
                in_hand: false,
                not_before_ms: 0,
                failed_reads: 0,
            });
        }
        index
    }

    fn order(index: &Index, lane: Lane) -> Vec<Serial> {
        index.takeable(lane, 100, 50).map(|(serial, _)| serial).collect()
    }

    #[test]
    fn live_goes_newest_first_and_backlog_oldest_first() {
        let index = index(&[10, 20, 60, 70]);
        assert_eq!(order(&index, Lane::Live), [3, 2]);
        assert_eq!(order(&index, Lane::Backlog), [0, 1]);
    }

    #[test]
    fn what_is_in_hand_or_held_back_is_not_taken_twice() {
        let mut index = index(&[10, 20, 30, 40]);
        index.get_mut(0).unwrap().in_hand = true;
        index.get_mut(1).unwrap().not_before_ms = 101;
        index.get_mut(2).unwrap().gate = Gate::closed();
        assert_eq!(order(&index, Lane::Backlog), [3]);
    }

    #[test]
    fn sums_follow_what_is_there() {
        let mut index = index(&[1, 2, 3]);
        index.move_to_disk(0, 7, 0);
        index.remove(1);
        assert_eq!((index.len(), index.points, index.memory_batches), (2, 2, 1));
        index.remove(0);
        index.remove(2);
        assert_eq!((index.len(), index.frame_bytes, index.memory_bytes), (0, 0, 0));
    }
}
