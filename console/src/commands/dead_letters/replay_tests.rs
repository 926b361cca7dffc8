//! What is counted for the plan; publishing itself is tried on real servers.

use super::*;
use crate::cli::Letters;
use crate::commands::dead_letters::letter::tests::numbered;

fn sifted(letters: &Letters, batch: Option<BatchId>, all: &[Letter]) -> (Vec<BatchId>, Found) {
    let partitioning = Partitioning::new(64, 4).unwrap();
    let mut sieve = Sieve::new(Wanted { letters, batch }, partitioning);
    let ids = all.iter().filter_map(|letter| sieve.sift(letter)).map(|fit| fit.record.id);
    (ids.collect(), sieve.found)
}

fn all() -> Letters {
    Letters { reason: None, environment: None }
}

#[test]
fn a_batch_goes_once_however_often_it_lies_there_and_other_bytes_are_another_batch() {
    let there = [numbered(1, 1.0), numbered(2, 1.0), numbered(1, 1.0), numbered(1, 7.0)];
    let (ids, found) = sifted(&all(), None, &there);
    assert_eq!(ids.len(), 3, "{ids:?}");
    let sum = Sum { batches: 3, points: 3 };
    assert_eq!((found.chosen, found.sum, found.repeated), (4, sum, 1));
}

#[test]
fn what_can_not_go_is_counted_by_reason_with_the_place_of_the_first() {
    let rubbish = |offset| Letter { offset, value: b"rubbish"[..].into(), ..numbered(1, 1.0) };
    let forged = Letter { key: b"key"[..].into(), ..numbered(2, 1.0) };
    let (ids, found) = sifted(&all(), None, &[rubbish(3), forged, rubbish(9)]);
    assert!(ids.is_empty(), "{ids:?}");
    assert_eq!(found.unfit["undecodable-frame"], (2, "partition 0 offset 3".to_owned()));
    assert_eq!(found.unfit["key-mismatch"].0, 1);
    let mut answer = Answer::default();
    tell_found(&found, &mut answer);
    assert_eq!(
        (answer.verdict, &answer.to_json()["not_replayable"]),
        (Verdict::Warning, &3.into())
    );
}

#[test]
fn only_the_wanted_reason_environment_and_batch_are_taken() {
    let there = [numbered(1, 1.0), numbered(2, 1.0)];
    let by = |reason: Option<&str>, environment: Option<&str>| Letters {
        reason: reason.map(str::to_owned),
        environment: environment.map(str::to_owned),
    };
    let taken = |letters: &Letters, batch| sifted(letters, batch, &there).0.len();
    assert_eq!(taken(&by(Some("future-time"), Some("demo")), None), 2);
    assert_eq!(taken(&by(Some("too-many-series"), None), None), 0);
    assert_eq!(taken(&by(None, Some("acme")), None), 0);
    assert_eq!(taken(&all(), there[1].id()), 1);
}

#[test]
fn with_nothing_to_replay_nothing_is_planned() {
    let options = ReplayLetters { letters: all(), batch: None, rate: std::num::NonZeroU32::MIN };
    assert!(steps(&Found::default(), &options).is_empty());
    let (_, found) = sifted(&all(), None, &[numbered(1, 1.0), Letter::default()]);
    let steps = steps(&found, &options);
    assert!(steps[0].contains("1 batches with 1 points"), "{steps:?}");
    assert!(steps[1].contains("1 undecodable-frame"), "{steps:?}");
}
