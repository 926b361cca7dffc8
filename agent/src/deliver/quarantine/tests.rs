//! The quarantine keeps what was refused, within bounds, and declares what it lets go.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use spillway_proto::Batch;
use spillway_proto::frame::Encoder;
use uuid::Uuid;

use super::*;
use crate::durable::test_steps::{self, Fault};
use crate::folder::RealFolder;
use crate::identity::GivenUpReason;
use crate::spool::test_books::Books;

const HOUR_MS: i64 = 3_600_000;

fn batch(seq: u64, bytes: usize) -> RefusedBatch {
    RefusedBatch {
        id: BatchId::Sequenced { agent_id: Uuid::from_u128(1), epoch: Uuid::from_u128(2), seq },
        points: 3,
        frame: vec![7; bytes].into(),
        refusal: Refusal::InvalidContent,
        error: "labels are not sorted".to_owned(),
    }
}

fn open(dir: &tempfile::TempDir) -> (Quarantine, Arc<Books>) {
    let books = Arc::new(Books::default());
    let folder = Arc::new(RealFolder::new(&dir.path().join("q")));
    (Quarantine::open(folder, Arc::clone(&books) as _, Metrics::for_tests()), books)
}

#[test]
fn a_refused_batch_is_due_once_more_after_its_time_over_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let (mut quarantine, _) = open(&dir);
    quarantine.put(batch(5, 100), 1_000).unwrap();
    let (mut quarantine, _) = open(&dir);
    assert_eq!(quarantine.due(1_000 + HOUR_MS - 1, HOUR_MS), None);
    let due = quarantine.due(1_000 + HOUR_MS, HOUR_MS).unwrap();
    assert_eq!((due.id(), due.points), (batch(5, 0).id, 3));
    assert_eq!(quarantine.frame(&due).unwrap(), vec![7; 100]);
    assert!(quarantine.due(0, HOUR_MS).is_some(), "under a clock that went back");
}

#[test]
fn what_is_refused_twice_is_declared_and_kept_as_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let (mut quarantine, books) = open(&dir);
    quarantine.put(batch(5, 100), 0).unwrap();
    let waiting =
        |of: &Quarantine| (of.metrics.quarantine_batches.get(), of.metrics.quarantine_points.get());
    assert_eq!(waiting(&quarantine), (1, 3));
    let restarted = open(&dir).0;
    assert_eq!(waiting(&restarted), (1, 3), "after a restart too");
    assert_eq!(restarted.metrics.points_found.get(), 3);
    let due = quarantine.due(HOUR_MS, HOUR_MS).unwrap();
    quarantine.declare(&due);
    assert_eq!(waiting(&quarantine), (0, 0));
    assert_eq!((books.seqs(), books.reasons()), (vec![5], vec![GivenUpReason::Refused]));
    let (mut quarantine, _) = open(&dir);
    assert_eq!(quarantine.due(9 * HOUR_MS, HOUR_MS), None);
    assert!(quarantine.frame(&due).is_ok());
}

#[test]
fn what_is_taken_after_all_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut quarantine, books) = open(&dir);
    quarantine.put(batch(5, 100), 0).unwrap();
    let due = quarantine.due(HOUR_MS, HOUR_MS).unwrap();
    quarantine.accepted(&due);
    assert_eq!(std::fs::read_dir(dir.path().join("q")).unwrap().count(), 0);
    assert!(books.seqs().is_empty());
}

#[test]
fn it_stays_within_its_bounds_and_declares_what_it_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let (mut quarantine, books) = open(&dir);
    for seq in 1..=20 {
        quarantine.put(batch(seq, 1024 * 1024), seq as i64).unwrap();
    }
    assert_eq!(books.seqs(), [1, 2, 3, 4]);
    let files = std::fs::read_dir(dir.path().join("q")).unwrap().count();
    assert_eq!(files, 2 * 16);
}

#[test]
fn junk_in_the_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("q")).unwrap();
    std::fs::write(dir.path().join("q/x.json"), b"{\"not\":\"a note\"}").unwrap();
    let (quarantine, _) = open(&dir);
    assert_eq!(quarantine.due(i64::MAX, 0), None);
    assert!(dir.path().join("q/x.json").exists());
}

/// One batch refused, refused again or taken after all, with a fault at the nth step. Whether
/// the fault came.
fn refused_once(nth: u64, fault: Fault, taken: bool) -> bool {
    let dir = test_steps::quick_dir();
    let (mut quarantine, mut books) = open(&dir);
    let mut named = Vec::new();
    // Until quarantine has it, the spool does; a restart finds it there.
    let mut in_spool = true;
    test_steps::strike(nth, fault);
    for restart in [false, true, false] {
        if restart || test_steps::is_killed() {
            test_steps::heal();
            named.extend(books.seqs());
            (quarantine, books) = open(&dir);
        }
        if in_spool {
            in_spool = quarantine.put(batch(5, 100), 0).is_err() || test_steps::is_killed();
        }
    }
    test_steps::heal();
    if !in_spool {
        let due = quarantine.due(HOUR_MS, HOUR_MS).expect("it is due once more");
        assert_eq!(quarantine.frame(&due).unwrap(), vec![7; 100], "whole, at step {nth}");
        if taken {
            quarantine.accepted(&due);
        } else {
            quarantine.declare(&due);
            assert_eq!(books.seqs(), [5]);
        }
    }
    assert!(named.is_empty(), "declared although it was kept, at step {nth}");
    test_steps::is_struck()
}

#[test]
fn whichever_step_into_quarantine_fails_or_is_the_last_the_batch_is_whole_or_in_the_spool() {
    for (fault, taken) in [(Fault::Error, true), (Fault::Kill, true), (Fault::Kill, false)] {
        let untouched = (1..100).find(|nth| !refused_once(*nth, fault, taken)).unwrap();
        assert!(untouched > 10, "{untouched}: folder, frame and note take more steps");
    }
}

/// A folder whose disk gives nothing, or takes nothing away, for a while.
struct Moody {
    folder: RealFolder,
    unreadable: AtomicBool,
    unremovable: AtomicBool,
}

impl Moody {
    fn on(dir: &tempfile::TempDir) -> Arc<Self> {
        let folder = RealFolder::new(&dir.path().join("q"));
        let (unreadable, unremovable) = (AtomicBool::default(), AtomicBool::default());
        Arc::new(Self { folder, unreadable, unremovable })
    }

    fn unless(&self, broken: &AtomicBool) -> io::Result<&RealFolder> {
        if broken.load(Ordering::Relaxed) { Err(io::Error::other("EIO")) } else { Ok(&self.folder) }
    }
}

impl Folder for Moody {
    fn names(&self) -> io::Result<Vec<String>> {
        self.folder.names()
    }

    fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.unless(&self.unreadable)?.read(name, bytes_max)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.folder.replace(name, bytes)
    }

    fn overwrite(&self, name: &str, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.folder.overwrite(name, bytes, offset)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.unless(&self.unremovable)?.remove(name)
    }
}

fn open_on(folder: &Arc<Moody>) -> (Quarantine, Arc<Books>) {
    let books = Arc::new(Books::default());
    (
        Quarantine::open(Arc::clone(folder) as _, Arc::clone(&books) as _, Metrics::for_tests()),
        books,
    )
}

#[test]
fn a_note_that_the_disk_refuses_is_read_again_within_the_same_life() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Moody::on(&dir);
    open_on(&folder).0.put(batch(5, 100), 0).unwrap();
    folder.unreadable.store(true, Ordering::Relaxed);
    let (mut quarantine, books) = open_on(&folder);
    quarantine.look();
    assert_eq!(quarantine.due(HOUR_MS, HOUR_MS), None);
    folder.unreadable.store(false, Ordering::Relaxed);
    quarantine.look();
    assert_eq!(quarantine.due(HOUR_MS, HOUR_MS).unwrap().id(), batch(5, 0).id);
    assert!(books.seqs().is_empty());
}

#[test]
fn what_can_not_be_removed_is_removed_later_and_is_no_batch_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Moody::on(&dir);
    let (mut quarantine, _) = open_on(&folder);
    quarantine.put(batch(5, 100), 0).unwrap();
    let due = quarantine.due(HOUR_MS, HOUR_MS).unwrap();
    folder.unremovable.store(true, Ordering::Relaxed);
    quarantine.accepted(&due);
    assert_eq!(quarantine.due(9 * HOUR_MS, HOUR_MS), None);
    folder.unremovable.store(false, Ordering::Relaxed);
    quarantine.look();
    assert_eq!(folder.names().unwrap(), Vec::<String>::new());
}

#[test]
fn a_start_finds_each_batch_in_one_place_and_files_without_a_note_are_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Moody::on(&dir);
    let (mut quarantine, _) = open_on(&folder);
    quarantine.put(batch(5, 100), 0).unwrap();
    quarantine.put(batch(6, 100), 0).unwrap();
    let names = [5, 6].map(|seq| Name { epoch: Uuid::from_u128(2), seq });
    // Killed between frame and note: the spool still has that one.
    folder.remove(&names[1].note()).unwrap();
    folder.replace(&format!("{}.new", names[1].frame()), b"half").unwrap();
    assert_eq!(ids_in(&*folder), HashSet::from([batch(5, 0).id]));
    let (quarantine, books) = open_on(&folder);
    let mut left = folder.names().unwrap();
    left.sort_unstable();
    assert_eq!(left, [names[0].frame(), names[0].note()]);
    assert_eq!((quarantine.notes.len(), books.seqs()), (1, vec![]));
}

#[test]
fn what_is_on_its_way_to_the_api_is_not_declared_to_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let (mut quarantine, books) = open(&dir);
    quarantine.put(batch(1, 1024 * 1024), 0).unwrap();
    let due = quarantine.due(HOUR_MS, HOUR_MS).unwrap();
    let _sent = quarantine.frame(&due).unwrap();
    for seq in 2..=20 {
        quarantine.put(batch(seq, 1024 * 1024), seq as i64).unwrap();
    }
    assert_eq!(books.seqs(), [2, 3, 4, 5]);
    quarantine.accepted(&due);
    assert_eq!(quarantine.notes.len(), 15);
}

#[test]
fn a_damaged_note_is_made_anew_from_its_frame_and_what_is_damaged_whole_is_declared() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Moody::on(&dir);
    let whole = batch(5, 0);
    let content = Batch {
        id: whole.id,
        environment: "demo".to_owned(),
        host: "web-1".to_owned(),
        window_ts: 10,
        series: Vec::new(),
        previous: None,
        declarations: Vec::new(),
        closing: true,
        host_info: None,
    };
    let frame = Encoder::new().encode(&content).unwrap();
    let (mut quarantine, _) = open_on(&folder);
    quarantine.put(RefusedBatch { frame: frame.clone(), ..whole }, 0).unwrap();
    quarantine.put(batch(6, 100), 0).unwrap();
    for seq in [5, 6] {
        let name = Name { epoch: Uuid::from_u128(2), seq };
        folder.replace(&name.note(), b"\0\0\0").unwrap();
    }
    let (mut quarantine, books) = open_on(&folder);
    assert_eq!((books.seqs(), books.reasons()), (vec![6], vec![GivenUpReason::Refused]));
    let due = quarantine.due(HOUR_MS, HOUR_MS).unwrap();
    assert_eq!((due.id(), quarantine.frame(&due).unwrap()), (batch(5, 0).id, frame));
    quarantine.look();
    assert_eq!(ids_in(&*folder).len(), 1, "its note is on disk again");
    assert_eq!(folder.names().unwrap().len(), 2);
}
