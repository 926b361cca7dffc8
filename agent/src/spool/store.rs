//! The spool as a plain data structure: one thread owns it, the clock and the disk are handed in.
//!
//! How batches get in is in `write.rs`, how they get out in `take.rs`; here is what lies between:
//! opening, ageing, giving up, forgetting.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use spillway_proto::BatchId;
use uuid::Uuid;

use super::budget::{Budget, Taken};
use super::disk::{Disk, DiskFile};
use super::index::{Entry, Gate, Index, Place, Serial};
use super::record::Header;
use super::recovery::{self, Recovered};
use super::reread::DOUBT_MS_MAX;
use super::segment::{self, Active, Segment};
use super::{Found, SpoolTotals};
use crate::identity::{CustodyLog, GivenUp, GivenUpReason};
use crate::metrics::{Metrics, Reason};

/// A batch found at a start gets at least this long to be sent, whatever the clock says: a wrong
/// clock must not empty the spool.
const GRACE_AFTER_START_MS: i64 = 3_600_000;
/// The smallest segment: below it, headers and files would be most of the spool.
const SEGMENT_BYTES_MIN: u64 = 64 * 1024;
/// A spool has at least this many segments, else giving up the oldest gives up too much at once.
const SEGMENTS_MIN: u64 = 4;

/// What the operator allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub budget: Budget,
    pub segment_bytes: u64,
    /// For batches that the disk does not take.
    pub memory_bytes_max: u64,
    pub backlog_after_ms: i64,
    pub age_max_ms: i64,
}

/// The store. `disk` is `None` for the memory kind.
pub struct Store<D: Disk> {
    pub(super) disk: Option<D>,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) active: Option<Active<D::File>>,
    pub(super) next_number: u64,
    pub(super) index: Index,
    /// The spool's clock: wall clock at the start plus monotonic time since.
    pub(super) now_ms: i64,
    /// The disk failed: memory takes what comes until then.
    pub(super) disk_rests_until_ms: i64,
    /// The newest batch found no place on the disk there is.
    pub(super) disk_refuses: bool,
    backlog_batches: u64,
    /// When segments that could not be read are looked at again.
    pub(super) unread_again_at_ms: i64,
    /// While segments are unread: batches that need not be found in them.
    pub(super) known: HashSet<BatchId>,
    /// Damaged batches that may lie whole in a segment that could not be read yet.
    pub(super) doubtful: BTreeMap<BatchId, Header>,
    pub(super) doubts_until_ms: i64,
}

impl<D: Disk> Store<D> {
    /// Reads what is there. What is `elsewhere` on this host waits here no more. Fails only if the
    /// directory can't be listed.
    pub fn open(
        disk: Option<D>,
        limits: Limits,
        metrics: Metrics,
        now_ms: i64,
        elsewhere: &HashSet<BatchId>,
    ) -> io::Result<(Self, Found)> {
        let found = match &disk {
            Some(disk) => recovery::recover(disk, elsewhere)?,
            None => Recovered::default(),
        };
        let most = (limits.budget.bytes_max / SEGMENTS_MIN).max(SEGMENT_BYTES_MIN);
        let segment_bytes = limits.segment_bytes.clamp(SEGMENT_BYTES_MIN, most);
        let mut store = Self {
            disk,
            limits: Limits { segment_bytes, ..limits },
            metrics,
            segments: found.segments,
            active: None,
            next_number: found.next_number,
            index: Index::default(),
            now_ms,
            disk_rests_until_ms: i64::MIN,
            disk_refuses: false,
            backlog_batches: found.waiting.len() as u64,
            unread_again_at_ms: now_ms,
            known: found.known,
            doubtful: BTreeMap::new(),
            doubts_until_ms: now_ms.saturating_add(DOUBT_MS_MAX),
        };
        for waiting in &found.waiting {
            store.index.insert(store.recovered_entry(waiting));
        }
        store.size_unread();
        let damaged = store.sure_of(found.damaged, found.unreadable);
        // A segment with a damaged batch in it goes once the books have that one's name.
        if damaged.is_empty() {
            store.sweep();
        }
        store.metrics.spool_damaged_records.inc_by(damaged.len() as u64);
        store.metrics.spool_damaged_records.inc_by(found.damaged_unnamed);
        if found.damaged_unnamed + found.unreadable > 0 {
            tracing::error!(
                records = found.damaged_unnamed,
                segments = found.unreadable,
                "the spool is damaged beyond naming what was lost"
            );
        }
        let seen = Found { batches: store.index.len(), highest_seq: found.highest_seq, damaged };
        Ok((store, seen))
    }

    /// The damaged batches that are lost for sure. While a segment can't be read, none is: it may
    /// lie there whole.
    fn sure_of(&mut self, damaged: Vec<(u64, Header)>, unreadable: u64) -> Vec<GivenUp> {
        if unreadable == 0 {
            let lost = damaged.iter().filter_map(|(_, header)| recovery::damaged_record(header));
            return lost.collect();
        }
        for (number, header) in damaged {
            self.doubtful.insert(header.id, header);
            self.segments.entry(number).and_modify(|segment| segment.owes = true);
        }
        Vec::new()
    }

    pub(super) fn recovered_entry(&self, found: &recovery::Waiting) -> Entry {
        let oldest = self.now_ms - (self.limits.age_max_ms - GRACE_AFTER_START_MS).max(0);
        let gate = Gate::closed();
        gate.open();
        Entry {
            id: found.header.id,
            window_ts: found.header.window_ts,
            points: found.header.points,
            frame_bytes: found.header.payload_bytes,
            place: Place::Disk { segment: found.segment, offset: found.offset },
            since_ms: found.header.spooled_at_ms.clamp(oldest, self.now_ms),
            recovered: true,
            gate,
            in_hand: false,
            not_before_ms: i64::MIN,
            failed_reads: 0,
        }
    }

    /// What came before this is backlog.
    pub(super) fn live_since_ms(&self) -> i64 {
        self.now_ms.saturating_sub(self.limits.backlog_after_ms)
    }

    /// Sets the clock and does what is due: gives up what is too old, moves to disk what waits in
    /// memory, removes what is empty. Once a second is enough.
    pub fn tick(&mut self, now_ms: i64, log: Option<&Arc<dyn CustodyLog>>) {
        self.now_ms = now_ms;
        if let Some(log) = log {
            let oldest = now_ms.saturating_sub(self.limits.age_max_ms);
            let too_old: Vec<_> = self
                .index
                .iter()
                .filter(|(_, entry)| entry.since_ms < oldest && !entry.in_hand)
                .map(|(serial, _)| serial)
                .collect();
            // What stays because its name can't be noted is as old at the next tick.
            let _all_gone = self.give_up(&too_old, GivenUpReason::SpoolTooOld, log);
            self.move_memory_to_disk(log);
            self.read_unread(log);
            self.sweep();
        }
        let live_since = self.live_since_ms();
        let backlog = self.index.iter().filter(|(_, entry)| !entry.is_live(live_since));
        self.backlog_batches = backlog.count() as u64;
    }

    /// Gives up these batches: their names first, then their bytes. Those whose name can't be
    /// noted stay, and `false` says so.
    pub(super) fn give_up(
        &mut self,
        serials: &[Serial],
        reason: GivenUpReason,
        log: &Arc<dyn CustodyLog>,
    ) -> bool {
        let lost = serials.iter().filter_map(|serial| Some((*serial, self.index.get(*serial)?)));
        let lost = lost.map(|(serial, entry)| (serial, entry.id, u64::from(entry.points)));
        let mut noted = true;
        for (range, serials) in as_ranges(lost, reason) {
            if log.given_up(&range).is_ok() {
                serials.into_iter().for_each(|serial| self.forget(serial));
            } else {
                noted = false;
            }
        }
        noted
    }

    /// What finds no place on disk now is taken along by this process, so it is named. What
    /// arrived all the same, because its answer was lost, wins over that.
    pub(super) fn give_up_memory(&mut self, log: &Arc<dyn CustodyLog>) {
        self.move_memory_to_disk(log);
        let in_memory = self.index.iter().filter(|(_, entry)| entry.segment().is_none());
        let serials: Vec<Serial> = in_memory.map(|(serial, _)| serial).collect();
        self.give_up(&serials, GivenUpReason::Volatile, log);
    }

    /// The batch is somewhere else now, or given up.
    pub(super) fn forget(&mut self, serial: Serial) {
        let Some(entry) = self.index.remove(serial) else { return };
        let Place::Disk { segment, offset } = entry.place else { return };
        let Some(known) = self.segments.get_mut(&segment) else { return };
        known.waiting = known.waiting.saturating_sub(1);
        let empty = known.is_spent();
        let (name, active) = (known.name, self.active.as_ref().filter(|a| a.number == segment));
        match (active, &self.disk) {
            (None, _) if empty => self.remove_segment(segment),
            // A mark that fails or gets lost means sending again, which is harmless.
            (Some(active), _) => {
                let _unmarked = segment::mark_done(&active.file, offset).is_err();
            }
            (None, Some(disk)) => {
                let marked = disk.open(&name.file_name());
                let _unmarked = marked.and_then(|file| segment::mark_done(&file, offset)).is_err();
            }
            (None, None) => {}
        }
    }

    /// A segment that does not even tell its size counts as a whole one.
    fn size_unread(&mut self) {
        for segment in self.segments.values_mut().filter(|segment| segment.unread) {
            if segment.bytes == 0 {
                segment.bytes = self.limits.segment_bytes;
            }
        }
    }

    pub(super) fn remove_segment(&mut self, number: u64) {
        let (Some(disk), Some(segment)) = (&self.disk, self.segments.get(&number)) else { return };
        match disk.remove(&segment.name.file_name()) {
            Ok(()) => {
                self.segments.remove(&number);
            }
            // It goes on counting against the budget, and `sweep` tries again.
            Err(error) => {
                tracing::warn!(%error, "an empty segment can't be removed");
                self.count_error("remove");
            }
        }
    }

    /// Removes segments in which nothing waits.
    fn sweep(&mut self) {
        let active = self.active.as_ref().map(|active| active.number);
        let empty = self.segments.iter().filter(|(_, segment)| segment.is_spent());
        let numbers: Vec<_> =
            empty.map(|(number, _)| *number).filter(|number| Some(*number) != active).collect();
        for number in numbers {
            self.remove_segment(number);
        }
    }

    /// The oldest segment in which everything is backlog and nothing is in hand.
    pub(super) fn oldest_backlog_segment(&self) -> Option<u64> {
        let busy = self.segments_with(|entry, live| entry.is_live(live) || entry.in_hand);
        let active = self.active.as_ref().map(|active| active.number);
        let mut old = self.segments.iter().filter(|(number, segment)| {
            segment.waiting > 0 && Some(**number) != active && !busy.contains(number)
        });
        old.next().map(|(number, _)| *number)
    }

    pub(super) fn taken(&self, free: u64) -> Taken {
        let live = self.segments_with(|entry, live| entry.is_live(live));
        let bytes = |segment: &Segment| segment.bytes;
        Taken {
            all: self.segments.values().map(bytes).sum(),
            backlog: self
                .segments
                .iter()
                .filter(|(number, _)| !live.contains(number))
                .map(|(_, segment)| segment.bytes)
                .sum(),
            free,
        }
    }

    fn segments_with(&self, is_such: impl Fn(&Entry, i64) -> bool) -> BTreeSet<u64> {
        let live_since = self.live_since_ms();
        let such = self.index.iter().filter(|(_, entry)| is_such(entry, live_since));
        such.filter_map(|(_, entry)| entry.segment()).collect()
    }

    pub(super) fn serials_in(&self, segment: u64) -> Vec<Serial> {
        let inside = self.index.iter().filter(|(_, entry)| entry.segment() == Some(segment));
        inside.map(|(serial, _)| serial).collect()
    }

    pub(super) fn count_error(&self, reason: &'static str) {
        self.metrics.spool_errors.get_or_create(&Reason { reason }).inc();
    }

    /// What is in it.
    pub fn totals(&self) -> SpoolTotals {
        let oldest = self.index.iter().next().map(|(_, entry)| entry);
        let bytes: u64 = self.segments.values().map(|segment| segment.bytes).sum();
        let bytes_max = match self.disk {
            Some(_) => self.limits.budget.bytes_max,
            None => self.limits.memory_bytes_max,
        };
        SpoolTotals {
            batches: self.index.len(),
            points: self.index.points,
            bytes: bytes + self.index.memory_bytes,
            bytes_max,
            backlog_batches: self.backlog_batches,
            oldest_window_ts: oldest.map(|entry| i64::from(entry.window_ts)),
            volatile_batches: self.index.memory_batches,
            disk_refuses: self.disk_refuses,
            oldest_age_ms: oldest.map_or(0, |entry| self.now_ms.saturating_sub(entry.since_ms)),
        }
    }

    /// Puts what was noted in place where it survives a power cut as well, at a clean end.
    pub fn close(self) {
        if let Some(active) = self.active {
            let _unsynced_marks = active.file.sync_data().is_err();
        }
    }
}

/// Puts neighbouring seqs together: a day of outage is one declaration, not thousands.
fn as_ranges(
    lost: impl Iterator<Item = (Serial, BatchId, u64)>,
    reason: GivenUpReason,
) -> Vec<(GivenUp, Vec<Serial>)> {
    let mut seqs: Vec<(Uuid, u64, u64, Serial)> = lost
        .filter_map(|(serial, id, points)| match id {
            BatchId::Sequenced { epoch, seq, .. } => Some((epoch, seq, points, serial)),
            BatchId::Content { .. } => None,
        })
        .collect();
    seqs.sort_unstable();
    let mut ranges: Vec<(GivenUp, Vec<Serial>)> = Vec::new();
    for (epoch, seq, points, serial) in seqs {
        match ranges.last_mut() {
            Some((last, serials)) if last.epoch == epoch && last.last_seq + 1 == seq => {
                last.last_seq = seq;
                last.points += points;
                serials.push(serial);
            }
            _ => {
                let range = GivenUp { epoch, first_seq: seq, last_seq: seq, points, reason };
                ranges.push((range, vec![serial]));
            }
        }
    }
    ranges
}
