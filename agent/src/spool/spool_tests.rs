//! The handle: group commit, gates, custody, on a real directory.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use spillway_proto::kafka_record::Lane;
use spillway_proto::object_key::ObjectKey;
use spillway_runtime::settings::Size;
use tokio::task::JoinHandle;

use super::disk_fake::{FakeDisk, Op};
use super::store_tests::{frame, id, seq_of};
use super::test_books::Books;
use super::{APPEND_DEADLINE, Held, InHand, NewRecord, OpenError, Opened, RefusalCause, Refused};
use super::{Spool, Wish, limits_of};
use crate::identity::{CustodyLog, GivenUpReason};
use crate::metrics::Metrics;
use crate::settings::{Settings, SpoolKind};

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.spool.free_space_floor = Size::bytes(0);
    settings.spool.bytes_max = Size::mib(8);
    settings.spool.live_reserve = Size::mib(2);
    settings.spool.segment_bytes = Size::mib(2);
    settings
}

fn books() -> Arc<dyn CustodyLog> {
    Arc::new(Books::default())
}

fn open(dir: &tempfile::TempDir) -> Spool {
    Spool::open(&settings(), dir.path(), &Metrics::for_tests(), &HashSet::new()).unwrap().spool
}

fn record(seq: u64) -> NewRecord {
    NewRecord { id: id(seq), window_ts: 10, points: 3, frame: frame(seq, 1_000) }
}

const LIVE: Wish = Wish { lane: Lane::Live, bytes_max: 1 << 20, batches_max: 100 };
const BACKLOG: Wish = Wish { lane: Lane::Backlog, ..LIVE };

fn seqs(lot: &[InHand]) -> Vec<u64> {
    lot.iter().map(|batch| seq_of(&batch.id())).collect()
}

#[tokio::test]
async fn a_batch_is_seen_by_deliver_only_after_its_release() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, log) = (open(&dir), books());
    let held = spool.append(record(1), &log).await.unwrap();
    assert!(!held.volatile());
    assert!(spool.take(LIVE, &log).await.is_empty());
    held.release();
    let lot = spool.take(LIVE, &log).await;
    assert_eq!(seqs(&lot), [1]);
    lot.into_iter().for_each(InHand::acked);
}

#[tokio::test]
async fn many_tasks_append_at_once_and_everything_is_there_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, log) = (open(&dir), books());
    let mut tasks = tokio::task::JoinSet::new();
    for seq in 1..=200 {
        let (spool, log) = (spool.clone(), Arc::clone(&log));
        tasks.spawn(async move { spool.append(record(seq), &log).await.unwrap().release() });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!((spool.totals().batches, spool.totals().points), (200, 600));
    spool.close(&log).await;
    let Opened { spool, found } =
        Spool::open(&settings(), dir.path(), &Metrics::for_tests(), &HashSet::new()).unwrap();
    assert_eq!(found.batches, 200);
    let mut all = Vec::new();
    loop {
        let lot = spool.take(BACKLOG, &log).await;
        if lot.is_empty() {
            break;
        }
        all.extend(seqs(&lot));
        lot.into_iter().for_each(InHand::acked);
    }
    all.sort_unstable();
    assert_eq!(all, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_only_memory_holds_at_a_stop_is_given_up_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.spool.kind = SpoolKind::Memory;
    let spool =
        Spool::open(&settings, dir.path(), &Metrics::for_tests(), &HashSet::new()).unwrap().spool;
    let books = Arc::new(Books::default());
    let log: Arc<dyn CustodyLog> = books.clone();
    for seq in 1..=3 {
        spool.append(record(seq), &log).await.unwrap().release();
    }
    let lot = spool.take(Wish { batches_max: 1, ..LIVE }, &log).await;
    assert_eq!(seqs(&lot), [3]);
    lot.into_iter().for_each(InHand::acked);
    spool.close(&log).await;
    assert_eq!(books.seqs(), [1, 2]);
    assert_eq!(books.reasons(), [GivenUpReason::Volatile]);
}

#[tokio::test]
async fn a_second_agent_on_the_same_directory_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir);
    let second = Spool::open(&settings(), dir.path(), &Metrics::for_tests(), &HashSet::new());
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    spool.close(&books()).await;
    open(&dir).close(&books()).await;
}

#[tokio::test]
async fn what_is_returned_can_be_taken_again_and_what_is_acked_can_not() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, log) = (open(&dir), books());
    for seq in 1..=2 {
        spool.append(record(seq), &log).await.unwrap().release();
    }
    let mut lot = spool.take(LIVE, &log).await;
    assert_eq!(seqs(&lot), [2, 1], "newest first");
    lot.pop().unwrap().acked();
    lot.pop().unwrap().returned();
    let again = spool.take(LIVE, &log).await;
    assert_eq!(seqs(&again), [2]);
    again.into_iter().for_each(|batch| batch.returned_for(Duration::from_secs(3_600)));
    assert!(spool.take(LIVE, &log).await.is_empty());
}

#[tokio::test]
async fn a_lot_that_is_parked_is_forgotten_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::for_tests();
    let spool = Spool::open(&settings(), dir.path(), &metrics, &HashSet::new()).unwrap().spool;
    let log = books();
    spool.append(record(1), &log).await.unwrap().release();
    let lot = spool.take(LIVE, &log).await;
    assert!(spool.parked(&ObjectKey::from_random(3), lot, &log).await.is_ok());
    assert_eq!((metrics.batches_parked.get(), metrics.points_parked.get()), (1, 3));
    spool.close(&log).await;
    let found = Spool::open(&settings(), dir.path(), &metrics, &HashSet::new()).unwrap().found;
    assert_eq!(found.batches, 0);
}

#[tokio::test]
async fn a_batch_dropped_in_hand_is_a_bug_and_goes_back_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::for_tests();
    let spool = Spool::open(&settings(), dir.path(), &metrics, &HashSet::new()).unwrap().spool;
    let log = books();
    spool.append(record(1), &log).await.unwrap().release();
    let lot = spool.take(LIVE, &log).await;
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || drop(lot)));
    assert_eq!(dropped.is_err(), cfg!(debug_assertions));
    let again = spool.take(LIVE, &log).await;
    assert_eq!(seqs(&again), [1]);
    again.into_iter().for_each(InHand::returned);
}

#[tokio::test]
async fn changes_are_told_when_a_batch_becomes_visible() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, log) = (open(&dir), books());
    let held = spool.append(record(1), &log).await.unwrap();
    let mut changes = spool.changes();
    changes.mark_unchanged();
    held.release();
    changes.changed().await;
    let lot = spool.take(LIVE, &log).await;
    assert_eq!(seqs(&lot), [1]);
    lot.into_iter().for_each(InHand::acked);
}

#[tokio::test]
async fn the_memory_kind_touches_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.spool.kind = SpoolKind::Memory;
    let path = dir.path().join("spool");
    let spool =
        Spool::open(&settings, &path, &Metrics::for_tests(), &HashSet::new()).unwrap().spool;
    let log = books();
    let held = spool.append(record(1), &log).await.unwrap();
    assert!(held.volatile());
    held.release();
    let lot = spool.take(LIVE, &log).await;
    assert_eq!(seqs(&lot), [1]);
    lot.into_iter().for_each(InHand::acked);
    assert!(!path.exists());
}

#[tokio::test]
async fn asking_an_empty_spool_wakes_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, log) = (open(&dir), books());
    let mut changes = spool.changes();
    // A tick of the spool's own may fall between; it passes once a second, not a hundred times.
    let mut woken = 0;
    for _ in 0..100 {
        changes.mark_unchanged();
        assert!(spool.take(LIVE, &log).await.is_empty());
        assert!(spool.take(BACKLOG, &log).await.is_empty());
        spool.settled_totals().await;
        woken += u32::from(changes.has_changed());
    }
    assert!(woken < 50, "two lanes that find nothing would wake each other for ever: {woken}");
}

type Appended = JoinHandle<Result<Held, Refused>>;

/// A spool whose disk hangs in the sync of batch 1, with batch 2 still in its inbox, until both
/// have waited longer than they may.
async fn hung(
    disk: &FakeDisk,
    memory_bytes_max: u64,
    log: &Arc<dyn CustodyLog>,
) -> (Spool, Held, Result<Held, Refused>) {
    let dir = tempfile::tempdir().unwrap();
    let limits = super::Limits { memory_bytes_max, ..limits_of(&settings()) };
    let place = Some((disk.clone(), super::lock(dir.path()).unwrap()));
    let nothing = HashSet::new();
    let opened = Spool::start(place, limits, &Metrics::for_tests(), dir.path(), &nothing);
    let spool = opened.unwrap().spool;
    disk.hang(true);
    let append = |seq| -> Appended {
        let (spool, log) = (spool.clone(), Arc::clone(log));
        tokio::spawn(async move { spool.append(record(seq), &log).await })
    };
    let begun = append(1);
    tokio::task::yield_now().await;
    let waits = disk.clone();
    tokio::task::spawn_blocking(move || waits.until_hanging()).await.unwrap();
    let not_begun = append(2);
    tokio::task::yield_now().await;
    tokio::time::pause();
    tokio::time::advance(APPEND_DEADLINE).await;
    let (begun, not_begun) = (begun.await.unwrap(), not_begun.await.unwrap());
    tokio::time::resume();
    (spool, begun.unwrap(), not_begun)
}

#[tokio::test]
async fn a_batch_the_disk_answers_for_too_late_is_sent_and_not_declared_and_another_neither_sent() {
    let (disk, books) = (FakeDisk::default(), Arc::new(Books::default()));
    let log: Arc<dyn CustodyLog> = books.clone();
    let (spool, begun, not_begun) = hung(&disk, 1 << 20, &log).await;
    assert!(begun.volatile(), "a crash may lose it");
    assert_eq!(not_begun.err().unwrap().cause, RefusalCause::NoAnswer);
    disk.hang(false);
    assert_eq!(spool.settled_totals().await.batches, 1, "what was refused came too late");
    assert!(spool.take(LIVE, &log).await.is_empty(), "its seq is not noted yet");
    begun.release();
    let lot = spool.take(LIVE, &log).await;
    assert_eq!(seqs(&lot), [1]);
    lot.into_iter().for_each(InHand::acked);
    assert_eq!(spool.settled_totals().await.batches, 0);
    assert!(books.seqs().is_empty(), "{:?} is declared and was sent", books.seqs());
    spool.close(&log).await;
}

#[tokio::test]
async fn a_batch_that_the_disk_refuses_too_late_is_declared_by_the_one_who_knows() {
    let (disk, books) = (FakeDisk::default(), Arc::new(Books::default()));
    let log: Arc<dyn CustodyLog> = books.clone();
    let (spool, begun, _not_begun) = hung(&disk, 0, &log).await;
    assert!(books.seqs().is_empty(), "nobody knows yet");
    disk.fail_for_ever(Op::SyncData, std::io::ErrorKind::Other);
    disk.hang(false);
    assert_eq!(spool.settled_totals().await.batches, 0);
    begun.release();
    assert!(spool.take(LIVE, &log).await.is_empty());
    assert_eq!((books.seqs(), books.reasons()), (vec![1], vec![GivenUpReason::SpoolIo]));
    spool.close(&log).await;
}
