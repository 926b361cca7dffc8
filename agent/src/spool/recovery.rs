//! What a start finds in the segments: every record that is whole, and the names of those that
//! are not.
//!
//! Promise: it always comes to an end with an answer, whatever the bytes are. Damage costs the
//! records it hits and none beside them: after a header that can't be trusted the reader searches
//! for the next one that can.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

use spillway_proto::BatchId;
use uuid::Uuid;

use super::disk::{Disk, DiskFile};
use super::record::{self, Header, Kind, ParkedNote};
use super::segment::{Segment, SegmentName};
use crate::identity::{GivenUp, GivenUpReason};
use crate::mutant::{Mutant, is};

/// What one segment's bytes hold.
#[derive(Debug, Default)]
pub struct Scan {
    /// Whole batches with their offsets, and whether they are done.
    pub batches: Vec<(u64, Header, bool)>,
    pub parked: Vec<ParkedNote>,
    /// Batches whose header is sound and whose payload is not.
    pub damaged: Vec<Header>,
    /// Runs of bytes that were something once.
    pub unnamed: u64,
    /// Behind the last sound record.
    pub end: u64,
}

/// Reads a whole segment.
pub fn scan(salt: u32, bytes: &[u8]) -> Scan {
    let mut found = Scan::default();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some((header, done)) = Header::read(salt, rest) else {
            let next = next_header(salt, bytes, at + 1);
            let skipped = bytes.get(at..next).unwrap_or_default();
            found.unnamed += u64::from(skipped.iter().any(|byte| *byte != 0));
            at = next;
            continue;
        };
        match (header.payload(rest), header.kind) {
            (Some(_), Kind::Batch) => found.batches.push((at as u64, header, done)),
            (Some(payload), Kind::Parked) => found.parked.extend(ParkedNote::parse(payload)),
            (None, Kind::Batch) if !done => found.damaged.push(header),
            // A batch that somebody else has, or a note: forgetting it means sending again.
            (None, _) => {}
        }
        at = at.saturating_add(header.record_bytes());
        found.end = at.min(bytes.len()) as u64;
    }
    found
}

fn next_header(salt: u32, bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(candidate) = record::find_magic(bytes, at) {
        if bytes.get(candidate..).is_some_and(|rest| Header::read(salt, rest).is_some()) {
            return candidate;
        }
        at = candidate + 1;
    }
    bytes.len()
}

/// A batch that still waits.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub segment: u64,
    pub offset: u64,
    pub header: Header,
}

/// Everything a start finds.
#[derive(Debug, Default)]
pub struct Recovered {
    pub segments: BTreeMap<u64, Segment>,
    /// In the order they were spooled.
    pub waiting: Vec<Waiting>,
    /// The highest seq of each epoch that any record names, done and damaged ones included.
    pub highest_seq: BTreeMap<Uuid, u64>,
    /// Damaged batches that can be named, and their segments.
    pub damaged: Vec<(u64, Header)>,
    /// Every batch that was seen whole, parked, or that somebody else has. Kept only if a segment
    /// could not be read: what is in there need not be told by it once more.
    pub known: HashSet<BatchId>,
    /// Damage that hit a name.
    pub damaged_unnamed: u64,
    /// Segments that can't be read at all.
    pub unreadable: u64,
    /// The next free segment number.
    pub next_number: u64,
}

/// Reads all segments of `disk`, one at a time. What is `elsewhere` waits here no more. Fails only
/// if the directory can't be listed.
pub fn recover<D: Disk>(disk: &D, elsewhere: &HashSet<BatchId>) -> io::Result<Recovered> {
    let mut names: Vec<_> =
        disk.list()?.iter().filter_map(|name| SegmentName::parse(name)).collect();
    names.sort_by_key(|name| name.number);
    let mut found = Recovered::default();
    let mut gone = elsewhere.clone();
    let mut damaged = Vec::new();
    let mut newest: HashMap<BatchId, Option<Waiting>> = HashMap::new();
    for name in names {
        found.next_number = found.next_number.max(name.number.saturating_add(1));
        let (scan, bytes) = match read_segment(disk, name) {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(segment = name.file_name(), %error, "segment can't be read");
                found.unreadable += 1;
                let bytes = disk.open(&name.file_name()).and_then(|file| file.bytes()).unwrap_or(0);
                let unread = Segment { unread: true, ..Segment::new(name, bytes) };
                found.segments.insert(name.number, unread);
                continue;
            }
        };
        found.damaged_unnamed += scan.unnamed;
        found.segments.insert(name.number, Segment::new(name, bytes));
        gone.extend(scan.parked.into_iter().flat_map(|note| note.ids));
        for (offset, header, done) in scan.batches {
            note_seq(&mut found.highest_seq, &header.id);
            // A batch that was written twice (after a failed sync) counts once, where it is newer.
            let waiting = Waiting { segment: name.number, offset, header };
            newest.insert(header.id, (!done).then_some(waiting));
        }
        damaged.extend(scan.damaged.into_iter().map(|header| (name.number, header)));
    }
    for (_, header) in &damaged {
        note_seq(&mut found.highest_seq, &header.id);
    }
    damaged.retain(|(_, lost)| !newest.contains_key(&lost.id) && !gone.contains(&lost.id));
    if is(Mutant::SkipDamagedRecord) {
        damaged.clear();
    }
    found.damaged = damaged;
    if found.unreadable > 0 {
        found.known = newest.keys().chain(&gone).copied().collect();
    }
    let still = |waiting: &Waiting| !gone.contains(&waiting.header.id);
    found.waiting = newest.into_values().flatten().filter(still).collect();
    found.waiting.sort_by_key(|waiting| (waiting.segment, waiting.offset));
    for waiting in &found.waiting {
        if let Some(segment) = found.segments.get_mut(&waiting.segment) {
            segment.waiting += 1;
        }
    }
    Ok(found)
}

/// Scans a segment and gives back the preallocated space behind its last record: recovered
/// segments are never written again.
pub fn read_segment<D: Disk>(disk: &D, name: SegmentName) -> io::Result<(Scan, u64)> {
    let file = disk.open(&name.file_name())?;
    let size = file.bytes()?;
    let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    let filled = file.read_full_at(&mut bytes, 0)?;
    bytes.truncate(filled);
    let scan = scan(name.salt, &bytes);
    if scan.end < size {
        match file.shrink(scan.end) {
            Ok(()) => {
                let bytes = scan.end;
                return Ok((scan, bytes));
            }
            Err(error) => tracing::warn!(%error, "a segment's unused space stays taken"),
        }
    }
    Ok((scan, size))
}

fn note_seq(highest: &mut BTreeMap<Uuid, u64>, id: &BatchId) {
    if let BatchId::Sequenced { epoch, seq, .. } = id {
        let known = highest.entry(*epoch).or_default();
        *known = (*known).max(*seq);
    }
}

pub fn damaged_record(header: &Header) -> Option<GivenUp> {
    let BatchId::Sequenced { epoch, seq, .. } = header.id else { return None };
    Some(GivenUp {
        epoch,
        first_seq: seq,
        last_seq: seq,
        points: u64::from(header.points),
        reason: GivenUpReason::SpoolDamaged,
    })
}
