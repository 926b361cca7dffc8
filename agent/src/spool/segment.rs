//! A segment: a preallocated file of records, written once from front to back.
//!
//! Its name holds its number (the order of segments) and a random salt, so that no damage inside
//! the file can cost more than the records it hits.

use std::io;

use super::disk::{Disk, DiskFile};
use super::record;
use crate::mutant::{Mutant, is};

const PREFIX: &str = "segment-";
const SUFFIX: &str = ".spool";

/// What the file name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentName {
    pub number: u64,
    pub salt: u32,
}

impl SegmentName {
    pub fn file_name(self) -> String {
        format!("{PREFIX}{:016x}-{:08x}{SUFFIX}", self.number, self.salt)
    }

    /// Accepts exactly what [`Self::file_name`] makes.
    pub fn parse(name: &str) -> Option<Self> {
        let (number, salt) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('-')?;
        let parsed = Self {
            number: u64::from_str_radix(number, 16).ok()?,
            salt: u32::from_str_radix(salt, 16).ok()?,
        };
        (parsed.file_name() == name).then_some(parsed)
    }
}

/// A segment as the store knows it.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub name: SegmentName,
    /// What it takes on disk.
    pub bytes: u64,
    /// Batches in it that nobody else has yet. At 0 the file may go.
    pub waiting: u64,
    /// Nobody knows what is in it: it takes its space and stays, for a start that can read it.
    pub unread: bool,
    /// A damaged batch in it is not in the books yet: a start after a crash must find it again.
    pub owes: bool,
}

impl Segment {
    /// One whose every batch is known.
    pub fn new(name: SegmentName, bytes: u64) -> Self {
        Self { name, bytes, waiting: 0, unread: false, owes: false }
    }

    /// Whether the file may go.
    pub fn is_spent(&self) -> bool {
        self.waiting == 0 && !self.unread && !self.owes
    }
}

/// The segment that is being written.
pub struct Active<F> {
    pub number: u64,
    pub salt: u32,
    pub file: F,
    pub used: u64,
    pub bytes: u64,
}

impl<F: DiskFile> Active<F> {
    /// Whether a record of this size still fits.
    pub fn has_room_for(&self, record_bytes: usize) -> bool {
        self.used + record_bytes as u64 <= self.bytes
    }

    /// Writes `records` behind the last ones and syncs. After an error this segment must never
    /// be written or synced again: the kernel has already forgotten which pages failed, and a
    /// second sync would lie.
    pub fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.file.write_all_at(records, self.used)?;
        let synced = self.file.sync_data();
        if synced.is_err() && is(Mutant::FsyncRetry) {
            self.file.sync_data()?;
        } else {
            synced?;
        }
        self.used += records.len() as u64;
        Ok(())
    }
}

/// Notes in place that the batch at `offset` is somewhere else now. Not synced.
pub fn mark_done<F: DiskFile>(file: &F, offset: u64) -> io::Result<()> {
    let (at, mark) = record::done_mark(offset);
    file.write_all_at(&mark, at)
}

/// Reads `count` bytes of a segment, fewer if it ends earlier.
pub fn read<D: Disk>(disk: &D, name: SegmentName, at: u64, count: usize) -> io::Result<Vec<u8>> {
    let file = disk.open(&name.file_name())?;
    let mut bytes = vec![0; count];
    let filled = file.read_full_at(&mut bytes, at)?;
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_would_name_is_a_segment() {
        let name = SegmentName { number: 0x1f, salt: 0xab };
        assert_eq!(name.file_name(), "segment-000000000000001f-000000ab.spool");
        assert_eq!(SegmentName::parse(&name.file_name()), Some(name));
        for bad in ["lock", "segment-1f-ab.spool", "segment-000000000000001F-000000ab.spool"] {
            assert_eq!(SegmentName::parse(bad), None, "{bad}");
        }
    }
}
