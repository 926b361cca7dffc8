//! Segments that a start could not read are looked at again while the agent runs: what a disk
//! refuses for seconds must not wait for the next start, which may be weeks away.

use std::sync::Arc;

use super::disk::Disk;
use super::recovery::{self, Scan, Waiting};
use super::segment::SegmentName;
use super::store::Store;
use crate::identity::CustodyLog;

/// Between looks.
const LOOK_AGAIN_EVERY_MS: i64 = 30_000;

impl<D: Disk> Store<D> {
    /// Reads what could not be read before, if it is time.
    pub(super) fn read_unread(&mut self, log: &Arc<dyn CustodyLog>) {
        if self.now_ms < self.unread_again_at_ms {
            return;
        }
        self.unread_again_at_ms = self.now_ms + LOOK_AGAIN_EVERY_MS;
        let unread = self.segments.iter().filter(|(_, segment)| segment.unread);
        let unread: Vec<_> = unread.map(|(number, segment)| (*number, segment.name)).collect();
        for (number, name) in unread {
            let Some(disk) = &self.disk else { return };
            match recovery::read_segment(disk, name) {
                Ok((scan, bytes)) => self.take_in(number, (name, bytes), &scan, log),
                Err(error) => {
                    tracing::warn!(segment = name.file_name(), %error, "still can't be read");
                }
            }
        }
    }

    fn take_in(
        &mut self,
        number: u64,
        (name, bytes): (SegmentName, u64),
        scan: &Scan,
        log: &Arc<dyn CustodyLog>,
    ) {
        let lost = scan.damaged.iter().filter_map(recovery::damaged_record);
        let named = lost.map(|lost| log.given_up(&lost).is_ok()).fold(true, |all, one| all & one);
        if !named {
            // It stays as it is, and is read again.
            return;
        }
        let mut waiting = 0;
        for (offset, header, done) in &scan.batches {
            // Written twice, after a failed sync: the other place is as good. And what S3 has by
            // a note elsewhere goes once more, which is harmless.
            let known = self.index.iter().any(|(_, entry)| entry.id == header.id);
            if !*done && !known {
                let found = Waiting { segment: number, offset: *offset, header: *header };
                let entry = self.recovered_entry(&found);
                self.index.insert(entry);
                waiting += 1;
            }
        }
        tracing::info!(segment = name.file_name(), waiting, "a segment can be read again");
        self.metrics.spool_late_batches.inc_by(waiting);
        if let Some(segment) = self.segments.get_mut(&number) {
            (segment.bytes, segment.waiting, segment.unread) = (bytes, waiting, false);
        }
    }
}
