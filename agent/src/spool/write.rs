//! How batches get into the spool: one write and one sync for a whole group, in a segment whose
//! space was taken beforehand.
//!
//! After a failed write or sync the segment is left as it is, for ever: its earlier records are
//! sound and stay readable, and the group goes whole into another segment. If no segment takes
//! it, memory does, as much as it may; `tick` moves it to disk once that works again.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use spillway_proto::BatchId;
use spillway_proto::object_key::ObjectKey;
use spillway_runtime::outside;

use super::budget::Full;
use super::disk::Disk;
use super::index::{Entry, Gate, Place, Serial};
use super::record::{self, Header, Kind, ParkedNote};
use super::segment::{Active, Segment, SegmentName};
use super::store::Store;
use super::{NewRecord, RefusalCause, Refused};
use crate::identity::{CustodyLog, GivenUpReason};

/// Segments tried for one run before memory takes it.
const TRIES_MAX: u32 = 3;
/// Bytes written and synced at once; bounds what a group costs in memory.
const RUN_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long a disk that failed is left alone.
const DISK_REST_MS: i64 = 10_000;

const _: () = assert!(record::RECORD_BYTES_MAX <= RUN_BYTES_MAX);

/// A batch on its way in.
pub struct Incoming {
    item: Item,
    record: NewRecord,
    gate: Gate,
}

impl Incoming {
    /// Refuses what no segment could hold.
    pub fn new(record: NewRecord, gate: Gate) -> Result<Self, Refused> {
        let Some(header) = Header::of(Kind::Batch, record.id, &record.frame) else {
            let reason = GivenUpReason::SpoolFull;
            return Err(Refused { record, reason, cause: RefusalCause::TooLarge });
        };
        let header = Header {
            window_ts: u32::try_from(record.window_ts).unwrap_or_default(),
            points: u32::try_from(record.points).unwrap_or(u32::MAX),
            ..header
        };
        let item = Item { header, payload: record.frame.clone() };
        Ok(Self { item, record, gate })
    }

    pub fn id(&self) -> BatchId {
        self.record.id
    }
}

/// Where it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub serial: Serial,
    pub volatile: bool,
}

/// A record to be written.
#[derive(Clone)]
struct Item {
    header: Header,
    payload: Bytes,
}

/// Why a record did not get onto the disk.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Full(#[from] Full),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the disk failed a moment ago and is left alone")]
    Resting,
    #[error("this spool keeps to memory")]
    NoDisk,
}

impl<D: Disk> Store<D> {
    /// Stores a group of batches. When it returns, each is durable, or in memory and marked so,
    /// or refused with its record.
    pub fn append(
        &mut self,
        mut group: Vec<Incoming>,
        log: &Arc<dyn CustodyLog>,
    ) -> Vec<Result<Stored, Refused>> {
        for incoming in &mut group {
            incoming.item.header.spooled_at_ms = self.now_ms;
        }
        let items: Vec<_> = group.iter().map(|incoming| incoming.item.clone()).collect();
        let (places, error) = self.write_durably(&items, log);
        let mut places = places.into_iter();
        let store = |incoming| match places.next() {
            Some(place) => Ok(self.enter(incoming, place)),
            None => self.keep_in_memory(incoming, error.as_ref(), log),
        };
        group.into_iter().map(store).collect()
    }

    /// Notes durably that these batches are in S3 under `key`; the caller may forget them after.
    /// Batches in memory need no note: it would not outlive what it speaks of.
    pub fn note_parked(
        &mut self,
        key: &ObjectKey,
        serials: &[Serial],
        log: &Arc<dyn CustodyLog>,
    ) -> Result<(), WriteError> {
        let on_disk = serials.iter().filter_map(|serial| self.index.get(*serial));
        let on_disk = on_disk.filter(|entry| entry.segment().is_some());
        let ids: Vec<_> = on_disk.map(|entry| entry.id).collect();
        let Some(first) = ids.first().copied() else { return Ok(()) };
        let payload = ParkedNote { key: key.clone(), ids }.to_bytes();
        let Some(header) = Header::of(Kind::Parked, first, &payload) else {
            return Err(WriteError::Io(io::ErrorKind::InvalidInput.into()));
        };
        let header = Header { spooled_at_ms: self.now_ms, ..header };
        match self.write_durably(&[Item { header, payload }], log) {
            (_, None) => Ok(()),
            (_, Some(error)) => Err(error),
        }
    }

    /// Moves what waits in memory to the disk, if that works again.
    pub(super) fn move_memory_to_disk(&mut self, log: &Arc<dyn CustodyLog>) {
        if self.disk.is_none() || self.index.memory_batches == 0 {
            return;
        }
        let mut serials = Vec::new();
        let mut items = Vec::new();
        for (serial, entry) in self.index.iter() {
            let Place::Memory(frame) = &entry.place else { continue };
            let header = Header::of(Kind::Batch, entry.id, frame).filter(|_| !entry.in_hand);
            let Some(header) = header else { continue };
            let header = Header {
                spooled_at_ms: entry.since_ms,
                window_ts: entry.window_ts,
                points: entry.points,
                ..header
            };
            serials.push(serial);
            items.push(Item { header, payload: frame.clone() });
        }
        let (places, _) = self.write_durably(&items, log);
        for (serial, (segment, offset)) in serials.into_iter().zip(places) {
            // Making room may have given it up meanwhile.
            if self.index.get(serial).is_some() {
                self.index.move_to_disk(serial, segment, offset);
                self.disk_refuses = false;
                self.count_waiting(segment);
            }
        }
    }

    /// Writes and syncs items in order. Gives the places of those that are durable, always the
    /// first ones, and why the rest is not.
    fn write_durably(
        &mut self,
        items: &[Item],
        log: &Arc<dyn CustodyLog>,
    ) -> (Vec<(u64, u64)>, Option<WriteError>) {
        let mut places = Vec::with_capacity(items.len());
        let mut failures = 0;
        while let Some(rest) = items.get(places.len()..).filter(|rest| !rest.is_empty()) {
            match self.write_run(rest, log) {
                Ok(written) => places.extend(written),
                Err(WriteError::Io(error)) => {
                    tracing::error!(%error, "a segment could not be written and is abandoned");
                    self.count_error("write");
                    self.active = None;
                    failures += 1;
                    if failures == TRIES_MAX {
                        self.disk_rests_until_ms = self.now_ms + DISK_REST_MS;
                        return (places, Some(error.into()));
                    }
                }
                Err(other) => return (places, Some(other)),
            }
        }
        (places, None)
    }

    /// Writes as many items as fit into one segment, with one write and one sync.
    fn write_run(
        &mut self,
        items: &[Item],
        log: &Arc<dyn CustodyLog>,
    ) -> Result<Vec<(u64, u64)>, WriteError> {
        let first = items.first().map_or(0, |item| item.header.record_bytes());
        if !self.active.as_ref().is_some_and(|active| active.has_room_for(first)) {
            self.open_segment(first as u64, log)?;
        }
        let Some(active) = &mut self.active else { return Err(WriteError::NoDisk) };
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        for item in items {
            let with_it = bytes.len() + item.header.record_bytes();
            if with_it > RUN_BYTES_MAX || !active.has_room_for(with_it) {
                break;
            }
            places.push((active.number, active.used + bytes.len() as u64));
            item.header.write_record(active.salt, &item.payload, &mut bytes);
        }
        active.append(&bytes)?;
        Ok(places)
    }

    /// Makes a new segment the active one: file and directory are synced before it is used.
    fn open_segment(
        &mut self,
        record_bytes: u64,
        log: &Arc<dyn CustodyLog>,
    ) -> Result<(), WriteError> {
        if self.disk.is_none() {
            return Err(WriteError::NoDisk);
        }
        if self.now_ms < self.disk_rests_until_ms {
            return Err(WriteError::Resting);
        }
        self.active = None;
        let bytes = self.limits.segment_bytes.max(record_bytes);
        self.make_room(bytes, log)?;
        let Some(disk) = &self.disk else { return Err(WriteError::NoDisk) };
        let number = self.next_number;
        self.next_number += 1;
        let mut salt = [0; 4];
        outside::fill(&mut salt).map_err(io::Error::other)?;
        let name = SegmentName { number, salt: u32::from_le_bytes(salt) };
        let file_name = name.file_name();
        let made = disk.create(&file_name, bytes);
        let file = match made.and_then(|file| disk.sync_dir().map(|()| file)) {
            Ok(file) => file,
            Err(error) => {
                // What it left behind counts until it is gone.
                self.segments.insert(number, Segment::new(name, bytes));
                self.remove_segment(number);
                return Err(error.into());
            }
        };
        self.segments.insert(number, Segment::new(name, bytes));
        self.active = Some(Active { number, salt: name.salt, file, used: 0, bytes });
        Ok(())
    }

    /// Gives up the oldest backlog until a segment of `wanted` bytes may be made; never live
    /// data. When somebody else has filled the file system, memory comes first, and then one
    /// segment goes for one that is made: the spool stops growing, it does not empty itself.
    fn make_room(&mut self, wanted: u64, log: &Arc<dyn CustodyLog>) -> Result<(), WriteError> {
        let mut freed = 0;
        loop {
            let Some(disk) = &self.disk else { return Err(WriteError::NoDisk) };
            let taken = self.taken(disk.free_bytes()?);
            let full = match self.limits.budget.room_for(wanted, taken) {
                Ok(()) => return Ok(()),
                Err(Full::Floor) if freed >= wanted => return Ok(()),
                Err(Full::Floor) if self.memory_has_room() => return Err(Full::Floor.into()),
                Err(full) => full,
            };
            let Some(oldest) = self.oldest_backlog_segment() else { return Err(full.into()) };
            freed += self.segments.get(&oldest).map_or(0, |segment| segment.bytes);
            let serials = self.serials_in(oldest);
            tracing::warn!(batches = serials.len(), reason = %full, "giving up the oldest backlog");
            let named = self.give_up(&serials, GivenUpReason::SpoolFull, log);
            if !named || self.segments.contains_key(&oldest) {
                // The file is still there, so no room was made.
                return Err(full.into());
            }
        }
    }

    fn memory_has_room(&self) -> bool {
        self.index.memory_bytes < self.limits.memory_bytes_max / 2
    }

    fn enter(&mut self, incoming: Incoming, (segment, offset): (u64, u64)) -> Stored {
        self.count_waiting(segment);
        self.disk_refuses = false;
        let place = Place::Disk { segment, offset };
        Stored { serial: self.index.insert(self.entry_of(incoming, place)), volatile: false }
    }

    fn count_waiting(&mut self, segment: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.waiting += 1;
        }
    }

    /// Memory takes what the disk does not; its own oldest backlog makes room.
    fn keep_in_memory(
        &mut self,
        incoming: Incoming,
        error: Option<&WriteError>,
        log: &Arc<dyn CustodyLog>,
    ) -> Result<Stored, Refused> {
        let (reason, cause) = match error {
            Some(WriteError::Io(error)) => (GivenUpReason::SpoolIo, RefusalCause::Io(error.kind())),
            Some(WriteError::Resting) => (GivenUpReason::SpoolIo, RefusalCause::Resting),
            _ => (GivenUpReason::SpoolFull, RefusalCause::Full),
        };
        let wanted = incoming.record.frame.len() as u64;
        while self.index.memory_bytes + wanted > self.limits.memory_bytes_max {
            let live_since = self.live_since_ms();
            let oldest = self.index.iter().find(|(_, entry)| {
                entry.segment().is_none() && !entry.in_hand && !entry.is_live(live_since)
            });
            let Some((oldest, _)) = oldest else {
                return Err(Refused { record: incoming.record, reason, cause });
            };
            if !self.give_up(&[oldest], reason, log) {
                // One of the two goes, and neither can be noted: the newer one is worth more.
                self.forget(oldest);
            }
        }
        self.disk_refuses = self.disk.is_some();
        let place = Place::Memory(incoming.record.frame.clone());
        Ok(Stored { serial: self.index.insert(self.entry_of(incoming, place)), volatile: true })
    }

    fn entry_of(&self, incoming: Incoming, place: Place) -> Entry {
        let header = incoming.item.header;
        Entry {
            id: header.id,
            window_ts: header.window_ts,
            points: header.points,
            frame_bytes: header.payload_bytes,
            place,
            since_ms: self.now_ms,
            recovered: false,
            gate: incoming.gate,
            in_hand: false,
            not_before_ms: i64::MIN,
            failed_reads: 0,
        }
    }
}
