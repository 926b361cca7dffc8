//! Segments that a start could not read are looked at again while the agent runs: what a disk
//! refuses for seconds must not wait for the next start, which may be weeks away.
//!
//! A batch may lie in two segments: after a failed sync it was written once more. So a damaged one
//! is named only once nothing is left unread in which it may lie whole, or when that has taken too
//! long: a name that was told can't be taken back.

use std::sync::Arc;

use super::disk::Disk;
use super::index::Serial;
use super::recovery::{self, Scan, Waiting};
use super::segment::SegmentName;
use super::store::Store;
use crate::identity::CustodyLog;

/// Between looks.
const LOOK_AGAIN_EVERY_MS: i64 = 30_000;
/// How long a damaged batch may be in doubt after a start.
pub const DOUBT_MS_MAX: i64 = 600_000;

/// A segment that can be read after all.
struct Read {
    name: SegmentName,
    bytes: u64,
    scan: Scan,
}

impl<D: Disk> Store<D> {
    /// Reads what could not be read before, if it is time.
    pub(super) fn read_unread(&mut self, log: &Arc<dyn CustodyLog>) {
        if self.now_ms < self.unread_again_at_ms {
            return;
        }
        self.unread_again_at_ms = self.now_ms + LOOK_AGAIN_EVERY_MS;
        let Some(disk) = &self.disk else { return };
        let mut all_read = Vec::new();
        for segment in self.segments.values().filter(|segment| segment.unread) {
            let name = segment.name;
            match recovery::read_segment(disk, name) {
                Ok((scan, bytes)) => all_read.push(Read { name, bytes, scan }),
                Err(error) => {
                    tracing::warn!(segment = name.file_name(), %error, "still can't be read");
                }
            }
        }
        self.take_in(all_read);
        self.settle_doubts(log);
    }

    fn take_in(&mut self, all_read: Vec<Read>) {
        let mut waiting = Vec::new();
        // Backwards: where a batch lies twice, the newer place tells what became of it.
        for Read { name, scan, .. } in all_read.iter().rev() {
            self.known.extend(scan.parked.iter().flat_map(|note| &note.ids));
            for (offset, header, done) in scan.batches.iter().rev() {
                if self.known.insert(header.id) && !done {
                    let (segment, offset, header) = (name.number, *offset, *header);
                    waiting.push(Waiting { segment, offset, header });
                }
            }
        }
        for Read { name, bytes, scan } in all_read {
            tracing::info!(segment = name.file_name(), "a segment can be read again");
            if let Some(segment) = self.segments.get_mut(&name.number) {
                (segment.bytes, segment.unread) = (bytes, false);
                segment.owes = !scan.damaged.is_empty();
            }
            self.doubtful.extend(scan.damaged.into_iter().map(|header| (header.id, header)));
        }
        self.metrics.spool_late_batches.inc_by(waiting.len() as u64);
        for found in waiting.iter().rev() {
            self.metrics.found(1, found.header.points.into());
            let entry = self.recovered_entry(found);
            let _serial: Serial = self.index.insert(entry);
            if let Some(segment) = self.segments.get_mut(&found.segment) {
                segment.waiting += 1;
            }
        }
    }

    /// Names damaged batches that lie whole nowhere.
    fn settle_doubts(&mut self, log: &Arc<dyn CustodyLog>) {
        let unread = self.segments.values().any(|segment| segment.unread);
        if unread && self.now_ms < self.doubts_until_ms {
            return;
        }
        let (known, metrics) = (&self.known, &self.metrics);
        self.doubtful.retain(|id, header| {
            let lost = recovery::damaged_record(header).filter(|_| !known.contains(id));
            let Some(lost) = lost else { return false };
            let named = log.given_up(&lost).is_ok();
            metrics.spool_damaged_records.inc_by(u64::from(named));
            metrics.spool_late_batches.inc_by(u64::from(named));
            if named {
                metrics.found(1, lost.points);
            }
            !named
        });
        if self.doubtful.is_empty() {
            self.segments.values_mut().for_each(|segment| segment.owes = false);
        }
        if !unread {
            self.known.clear();
        }
    }
}
