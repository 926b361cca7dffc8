//! What the store promises, on a disk that does as it is told.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::sync::Arc;

use bytes::Bytes;
use spillway_proto::BatchId;
use spillway_proto::kafka_record::Lane;
use spillway_proto::object_key::ObjectKey;
use uuid::Uuid;

use super::budget::Budget;
use super::disk_fake::{FakeDisk, Op};
use super::index::Gate;
use super::store::{Limits, Store};
use super::take::{Ending, TakenBatch, Wish};
use super::test_books::Books;
use super::write::{Incoming, Stored};
use super::{Found, NewRecord, RefusalCause, Refused};
use crate::identity::{CustodyLog, GivenUpReason};
use crate::metrics::Metrics;

pub const EPOCH: Uuid = Uuid::from_u128(0xe);
pub const SEGMENT: u64 = 64 * 1024;
pub const BACKLOG_AFTER: i64 = 30_000;

pub fn id(seq: u64) -> BatchId {
    BatchId::Sequenced { agent_id: Uuid::from_u128(0xa), epoch: EPOCH, seq }
}

pub fn seq_of(id: &BatchId) -> u64 {
    id.columns().2
}

pub fn frame(seq: u64, bytes: usize) -> Bytes {
    let cycle: Vec<u8> = (0..256).map(|at| (seq as usize * 31 + at) as u8).collect();
    let mut frame = cycle.repeat(bytes / cycle.len() + 1);
    frame.truncate(bytes);
    frame.into()
}

pub fn limits() -> Limits {
    Limits {
        budget: Budget { bytes_max: 8 * SEGMENT, live_reserve: 2 * SEGMENT, free_floor: 0 },
        segment_bytes: SEGMENT,
        memory_bytes_max: 40_000,
        backlog_after_ms: BACKLOG_AFTER,
        age_max_ms: 24 * 3_600_000,
    }
}

pub struct Bench {
    pub disk: FakeDisk,
    pub store: Store<FakeDisk>,
    pub found: Found,
    pub books: Arc<Books>,
    pub log: Arc<dyn CustodyLog>,
}

impl Bench {
    pub fn on(disk: FakeDisk, limits: Limits, now_ms: i64) -> Self {
        Self::try_on(disk, limits, now_ms).unwrap()
    }

    /// `None` if the directory can't be listed.
    pub fn try_on(disk: FakeDisk, limits: Limits, now_ms: i64) -> Option<Self> {
        Self::beside(disk, limits, now_ms, &HashSet::new())
    }

    /// What is `elsewhere` lies in quarantine.
    pub fn beside(
        disk: FakeDisk,
        limits: Limits,
        now_ms: i64,
        elsewhere: &HashSet<BatchId>,
    ) -> Option<Self> {
        let metrics = Metrics::for_tests();
        let (store, found) =
            Store::open(Some(disk.clone()), limits, metrics, now_ms, elsewhere).ok()?;
        let books = Arc::new(Books::beside(&disk));
        let log: Arc<dyn CustodyLog> = Arc::clone(&books) as _;
        Some(Self { disk, store, found, books, log })
    }

    pub fn new() -> Self {
        Self::on(FakeDisk::default(), limits(), 0)
    }

    pub fn append(&mut self, seq: u64, bytes: usize) -> Result<Stored, Refused> {
        let record = NewRecord { id: id(seq), window_ts: 10, points: 2, frame: frame(seq, bytes) };
        let gate = Gate::closed();
        gate.open();
        let incoming = Incoming::new(record, gate)?;
        self.store.append(vec![incoming], &self.log).pop().unwrap()
    }

    pub fn take(&mut self, lane: Lane, batches_max: usize) -> Vec<TakenBatch> {
        self.store.take(Wish { lane, bytes_max: usize::MAX, batches_max }, &self.log)
    }

    pub fn waiting(&mut self) -> Vec<u64> {
        let mut taken = self.take(Lane::Live, usize::MAX);
        taken.extend(self.take(Lane::Backlog, usize::MAX));
        for batch in &taken {
            let seq = seq_of(&batch.id);
            assert_eq!(batch.frame, frame(seq, batch.frame.len()), "bytes of {seq}");
            self.store.settle(batch.serial, Ending::Returned { after_ms: 0 });
        }
        let mut seqs: Vec<_> = taken.iter().map(|batch| seq_of(&batch.id)).collect();
        seqs.sort_unstable();
        seqs
    }

    pub fn reopened(&self) -> Self {
        self.try_reopened().unwrap()
    }

    pub fn try_reopened(&self) -> Option<Self> {
        Self::try_on(self.disk.clone(), limits(), self.store.now_ms)
    }
}

#[test]
fn what_was_stored_is_there_after_a_power_cut() {
    let mut bench = Bench::new();
    for seq in 1..=20 {
        assert!(!bench.append(seq, 5_000).unwrap().volatile);
    }
    bench.disk.crash(7);
    let mut bench = bench.reopened();
    assert_eq!(bench.waiting(), (1..=20).collect::<Vec<_>>());
    assert_eq!(bench.found.highest_seq.get(&EPOCH), Some(&20));
    assert_eq!(bench.found.batches, 20);
}

#[test]
fn short_writes_are_no_harm() {
    let mut bench = Bench::new();
    bench.disk.short_writes();
    bench.append(1, 5_000).unwrap();
    bench.disk.crash(1);
    assert_eq!(bench.reopened().waiting(), [1]);
}

#[test]
fn after_a_failed_sync_the_batch_is_durable_in_another_segment() {
    let mut bench = Bench::new();
    bench.append(1, 100).unwrap();
    bench.disk.fail_once(Op::SyncData, 0, ErrorKind::Other);
    assert!(!bench.append(2, 100).unwrap().volatile);
    assert_eq!(bench.disk.file_count(), 2);
    bench.disk.crash(3);
    assert_eq!(bench.reopened().waiting(), [1, 2]);
}

#[test]
fn each_operation_may_fail_once_at_any_call_without_losing_what_was_stored() {
    for op in Op::ALL {
        for calls in 0..12 {
            let mut bench = Bench::new();
            bench.disk.fail_once(op, calls, ErrorKind::StorageFull);
            for seq in 1..=30 {
                assert!(!bench.append(seq, 6_000).unwrap().volatile, "{op:?} {calls}");
            }
            bench.disk.crash(calls);
            assert_eq!(bench.reopened().waiting(), (1..=30).collect::<Vec<_>>(), "{op:?}");
        }
    }
}

#[test]
fn a_broken_disk_means_bounded_memory_and_back_to_disk_when_it_heals() {
    let mut bench = Bench::new();
    bench.append(1, 10_000).unwrap();
    bench.disk.fail_for_ever(Op::Write, ErrorKind::StorageFull);
    for seq in 2..=5 {
        assert!(bench.append(seq, 10_000).unwrap().volatile);
    }
    let refused = bench.append(6, 10_000).unwrap_err();
    assert_eq!((refused.record.id, refused.reason), (id(6), GivenUpReason::SpoolIo));
    assert_eq!(bench.waiting(), [1, 2, 3, 4, 5]);
    assert!(bench.store.totals().disk_refuses);
    bench.disk.heal();
    bench.store.tick(60_000, Some(&Arc::clone(&bench.log)));
    let totals = bench.store.totals();
    assert_eq!((totals.volatile_batches, totals.disk_refuses), (0, false));
    bench.disk.crash(9);
    assert_eq!(bench.reopened().waiting(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_full_spool_gives_up_its_oldest_backlog_by_name_and_never_live_data() {
    let mut bench = Bench::new();
    let mut seq = 0;
    while bench.books.seqs().is_empty() {
        seq += 1;
        assert!(seq < 100, "nothing was given up, or nobody was told");
        bench.append(seq, 20_000).unwrap();
        assert!(bench.disk.bytes() <= limits().budget.bytes_max);
        bench.store.now_ms += 10_000;
    }
    assert_eq!(bench.books.seqs(), [1, 2, 3], "one whole segment, the oldest");
    assert_eq!(bench.books.ranges(), 1, "as one range");
    assert_eq!(bench.waiting(), (4..=seq).collect::<Vec<_>>());
}

#[test]
fn backlog_leaves_its_reserve_to_live_data() {
    let mut bench = Bench::new();
    for seq in 1..=100 {
        bench.append(seq, 20_000).unwrap();
        bench.store.now_ms += BACKLOG_AFTER + 1;
        let backlog = bench.store.taken(0).backlog;
        assert!(backlog <= 7 * SEGMENT, "{backlog}");
    }
    assert!(!bench.books.seqs().is_empty());
    assert!(bench.disk.bytes() <= 7 * SEGMENT);
}

#[test]
fn a_spool_full_of_live_data_refuses_and_returns_the_batch() {
    let mut bench = Bench::new();
    let refused = (1..).find_map(|seq| bench.append(seq, 20_000).err()).unwrap();
    assert_eq!(refused.cause, RefusalCause::Full);
    assert_eq!(refused.record.frame, frame(seq_of(&refused.record.id), 20_000));
    assert!(bench.books.seqs().is_empty());
}

#[test]
fn below_the_free_space_floor_the_spool_does_not_grow() {
    let mut limits = limits();
    limits.budget.free_floor = 1_000_000;
    let mut bench = Bench::on(FakeDisk::default(), limits, 0);
    bench.append(1, 60_000).unwrap();
    bench.disk.set_free_bytes(1_000_000);
    let before = bench.disk.bytes();
    assert!(bench.append(2, 30_000).unwrap().volatile, "memory first");
    bench.store.now_ms += BACKLOG_AFTER + 1;
    assert!(!bench.append(3, 30_000).unwrap().volatile, "then one segment for another");
    assert_eq!(bench.books.seqs(), [1]);
    assert_eq!(bench.disk.bytes(), before);
}

#[test]
fn what_is_done_is_forgotten_and_its_segment_goes_when_all_is_done() {
    let mut bench = Bench::new();
    for seq in 1..=9 {
        bench.append(seq, 20_000).unwrap();
    }
    assert_eq!(bench.disk.file_count(), 3);
    for batch in bench.take(Lane::Live, 100) {
        if seq_of(&batch.id) != 5 {
            bench.store.settle(batch.serial, Ending::Gone);
        }
    }
    assert_eq!(bench.disk.file_count(), 2, "the active one and the one with 5 in it");
    // A kill, not a power cut: the page cache survives.
    assert_eq!(bench.reopened().waiting(), [5]);
}

#[test]
fn what_was_noted_as_parked_does_not_come_back() {
    let mut bench = Bench::new();
    for seq in 1..=3 {
        bench.append(seq, 100).unwrap();
    }
    let taken = bench.take(Lane::Live, 2);
    let serials: Vec<_> = taken.iter().map(|batch| batch.serial).collect();
    let log = Arc::clone(&bench.log);
    bench.store.note_parked(&ObjectKey::from_random(1), &serials, &log).unwrap();
    bench.disk.crash(5);
    assert_eq!(bench.reopened().waiting(), [1]);
}

#[test]
fn a_note_that_can_not_be_written_is_an_error_and_everything_stays() {
    let mut bench = Bench::new();
    bench.append(1, 100).unwrap();
    let taken = bench.take(Lane::Live, 1);
    bench.disk.fail_for_ever(Op::SyncData, ErrorKind::Other);
    let log = Arc::clone(&bench.log);
    let noted = bench.store.note_parked(&ObjectKey::from_random(1), &[taken[0].serial], &log);
    assert!(noted.is_err());
    bench.store.settle(taken[0].serial, Ending::Returned { after_ms: 0 });
    assert_eq!(bench.waiting(), [1]);
}

#[test]
fn a_batch_that_waited_too_long_is_given_up_unless_it_is_in_hand() {
    let mut bench = Bench::new();
    bench.append(1, 100).unwrap();
    bench.append(2, 100).unwrap();
    let in_hand = bench.take(Lane::Live, 1);
    assert_eq!(seq_of(&in_hand[0].id), 2);
    let log = Arc::clone(&bench.log);
    bench.store.tick(24 * 3_600_000 + 1, Some(&log));
    assert_eq!(bench.books.seqs(), [1]);
    assert_eq!(bench.books.reasons(), [GivenUpReason::SpoolTooOld]);
}

#[test]
fn a_wrong_clock_does_not_empty_the_spool_at_a_start() {
    let mut bench = Bench::new();
    bench.append(1, 100).unwrap();
    let far_future = i64::from(u32::MAX) * 1_000;
    let mut bench = Bench::on(bench.disk.clone(), limits(), far_future);
    let log = Arc::clone(&bench.log);
    bench.store.tick(far_future + 60_000, Some(&log));
    assert_eq!(bench.waiting(), [1]);
}

#[test]
fn a_record_that_can_not_be_read_waits_until_it_can_be_or_is_too_old() {
    let mut bench = Bench::new();
    bench.append(1, 100).unwrap();
    bench.disk.fail_for_ever(Op::Read, ErrorKind::Other);
    for _ in 0..20 {
        assert!(bench.take(Lane::Live, 1).is_empty());
        bench.store.now_ms += 60_000;
    }
    assert_eq!(bench.books.ranges(), 0, "the disk says nothing of the record");
    bench.disk.heal();
    bench.store.now_ms += 60_000;
    assert_eq!(bench.take(Lane::Backlog, 1).len(), 1);
}

#[test]
fn a_record_that_can_not_be_read_is_not_tried_again_at_once() {
    let mut bench = Bench::new();
    bench.append(1, 100).unwrap();
    bench.disk.fail_once(Op::Read, 0, ErrorKind::Other);
    assert!(bench.take(Lane::Live, 1).is_empty());
    assert!(bench.take(Lane::Live, 1).is_empty());
    bench.store.now_ms += 1_000;
    assert_eq!(bench.take(Lane::Live, 1).len(), 1);
}

#[test]
fn a_crash_loop_takes_no_more_space_than_its_batches() {
    let mut bench = Bench::new();
    for seq in 1..=50 {
        bench.append(seq, 1_000).unwrap();
        bench = bench.reopened();
    }
    assert_eq!(bench.waiting(), (1..=50).collect::<Vec<_>>());
    assert!(bench.disk.bytes() < 60_000, "{}", bench.disk.bytes());
}

#[test]
fn memory_alone_keeps_its_cap_and_names_what_it_gives_up() {
    let (metrics, none) = (Metrics::for_tests(), HashSet::new());
    let open = Store::<FakeDisk>::open(None, limits(), metrics, 0, &none).unwrap();
    let mut bench = Bench { store: open.0, ..Bench::new() };
    for seq in 1..=6 {
        assert!(bench.append(seq, 10_000).unwrap().volatile);
        bench.store.now_ms += BACKLOG_AFTER + 1;
    }
    assert_eq!(bench.books.seqs(), [1, 2]);
    assert_eq!(bench.waiting(), [3, 4, 5, 6]);
}

#[test]
fn one_byte_too_many_is_refused_at_the_door() {
    let mut bench = Bench::new();
    let most = spillway_proto::limits::FRAME_BYTES_MAX;
    assert_eq!(bench.append(1, most + 1).unwrap_err().cause, RefusalCause::TooLarge);
    let mut limits = limits();
    limits.budget.bytes_max = 4_000_000;
    let mut bench = Bench::on(FakeDisk::default(), limits, 0);
    assert!(!bench.append(1, most).unwrap().volatile);
    assert_eq!(bench.waiting(), [1]);
}

#[test]
fn a_damaged_batch_is_named_at_every_start_until_the_books_have_it() {
    let mut bench = Bench::new();
    bench.append(1, 100).unwrap();
    let mut contents = bench.disk.contents();
    for bytes in contents.values_mut() {
        bytes[super::record::HEADER_BYTES + 5] ^= 1;
    }
    let mut bench = Bench::on(FakeDisk::with_contents(contents), limits(), 0);
    // Killed twice before its name was written down.
    for _ in 0..2 {
        assert_eq!(bench.found.damaged.len(), 1);
        bench.store.tick(1_000, None);
        bench = bench.reopened();
    }
    let log = Arc::clone(&bench.log);
    bench.store.tick(2_000, Some(&log));
    assert_eq!(bench.disk.file_count(), 0, "now its segment may go");
}

#[test]
fn what_can_not_be_named_is_not_given_up() {
    let mut bench = Bench::new();
    assert!(!bench.append(1, 5_000).unwrap().volatile);
    bench.books.broken.store(true, std::sync::atomic::Ordering::Relaxed);
    bench.disk.fail_for_ever(Op::Read, ErrorKind::Other);
    for _ in 0..10 {
        assert!(bench.take(Lane::Live, 1).is_empty());
        bench.store.now_ms += 1_000;
    }
    // Too old as well, and no room for others: its bytes stay all the same.
    let log = Arc::clone(&bench.log);
    bench.store.tick(25 * 3_600_000, Some(&log));
    for seq in 2..=200 {
        let _kept_or_refused = bench.append(seq, 20_000).is_ok();
    }
    bench.disk.heal();
    let mut bench = bench.reopened();
    assert!(bench.waiting().contains(&1));
}

#[test]
fn a_segment_that_a_start_can_not_read_is_read_as_soon_as_it_can_be() {
    let mut bench = Bench::new();
    bench.append(1, 100).unwrap();
    bench.append(2, 100).unwrap();
    bench.disk.fail_for_ever(Op::Read, ErrorKind::Other);
    let mut bench = bench.reopened();
    assert_eq!(bench.found.batches, 0);
    let log = Arc::clone(&bench.log);
    bench.store.tick(1_000, Some(&log));
    bench.disk.heal();
    bench.store.tick(60_000, Some(&log));
    assert_eq!(bench.waiting(), [1, 2]);
    assert_eq!(bench.books.seqs(), Vec::<u64>::new());
}

#[test]
fn what_lies_in_quarantine_waits_in_the_spool_no_more_after_a_power_cut() {
    let mut bench = Bench::new();
    bench.append(1, 100).unwrap();
    bench.append(2, 100).unwrap();
    let taken = bench.take(Lane::Live, 1).remove(0);
    // It moves; that it went is not synced, so a power cut may forget it.
    bench.store.settle(taken.serial, Ending::Gone);
    bench.disk.crash(3);
    let elsewhere = HashSet::from([taken.id]);
    let mut bench = Bench::beside(bench.disk.clone(), limits(), 0, &elsewhere).unwrap();
    assert_eq!((bench.found.batches, bench.waiting()), (1, vec![1]));
    assert_eq!(bench.found.highest_seq.get(&EPOCH), Some(&2), "its seq stays given");
}

#[test]
fn a_damaged_copy_is_not_declared_as_long_as_the_whole_one_may_be_read() {
    let mut bench = Bench::new();
    bench.disk.fail_once(Op::SyncData, 0, ErrorKind::Other);
    bench.append(1, 100).unwrap();
    let mut contents = bench.disk.contents();
    assert_eq!(contents.len(), 2, "after the failed sync it was written once more");
    let at = super::record::HEADER_BYTES + 5;
    contents.first_entry().unwrap().get_mut()[at] ^= 1;
    for whole in [true, false] {
        if !whole {
            contents.values_mut().for_each(|bytes| bytes[at] = 0);
        }
        let disk = FakeDisk::with_contents(contents.clone());
        disk.fail_for_ever(Op::Read, ErrorKind::Other);
        let mut bench = Bench::on(disk, limits(), 0);
        assert!(bench.found.damaged.is_empty());
        let log = Arc::clone(&bench.log);
        bench.store.tick(1_000, Some(&log));
        bench.disk.heal();
        bench.store.tick(60_000, Some(&log));
        let (waiting, named) = if whole { (vec![1], vec![]) } else { (vec![], vec![1]) };
        assert_eq!((bench.waiting(), bench.books.seqs()), (waiting, named), "whole: {whole}");
        assert_eq!(bench.store.metrics.spool_late_batches.get(), 1);
    }
}

#[test]
fn a_batch_that_the_disk_refuses_to_read_waits_for_it_while_others_go() {
    let mut bench = Bench::new();
    bench.append(1, 100).unwrap();
    bench.append(2, 100).unwrap();
    bench.disk.fail_once(Op::Read, 0, ErrorKind::Other);
    let taken: Vec<_> = bench.take(Lane::Live, 2).iter().map(|batch| seq_of(&batch.id)).collect();
    assert_eq!(taken, [1], "the newest could not be read, the other goes");
    bench.disk.fail_for_ever(Op::Read, ErrorKind::Other);
    let log = Arc::clone(&bench.log);
    for minute in 1..60 {
        bench.store.tick(minute * 60_000, Some(&log));
        assert!(bench.take(Lane::Backlog, 2).is_empty());
    }
    assert_eq!(bench.books.seqs(), Vec::<u64>::new(), "an hour of errors says nothing of it");
    bench.disk.heal();
    bench.store.tick(61 * 60_000, Some(&log));
    assert_eq!(seq_of(&bench.take(Lane::Backlog, 2)[0].id), 2);
}
