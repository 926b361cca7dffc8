//! The quarantine keeps what was refused, within bounds, and declares what it lets go.

use super::*;
use crate::durable::test_steps::{self, Fault};
use crate::folder::RealFolder;
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
    (Quarantine::open(folder, Arc::clone(&books) as _), books)
}

#[test]
fn a_refused_batch_is_due_once_more_after_its_time_over_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let (mut quarantine, _) = open(&dir);
    quarantine.put(batch(5, 100), 1_000).unwrap();
    let (quarantine, _) = open(&dir);
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
    let due = quarantine.due(HOUR_MS, HOUR_MS).unwrap();
    quarantine.declare(&due);
    assert_eq!((books.seqs(), books.reasons()), (vec![5], vec![GivenUpReason::Refused]));
    let (quarantine, _) = open(&dir);
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
