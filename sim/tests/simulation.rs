//! A bounded number of schedules, the proof that a seed decides all of one, and the proof that
//! this would find something: `cargo xtask drill simulate` runs thousands.

#![expect(clippy::expect_used, reason = "a mutant that survives fails its test")]

use spillway_sim::command::finds;
use spillway_sim::mutant::Mutant;
use spillway_sim::run::run;

/// Some ten seconds of two cores in a dev build.
const SEEDS: u64 = 120;
/// Seeds within which each mutant must be found; most are by the first few.
const SEEDS_UNTIL_FOUND: u64 = 60;

#[test]
fn no_schedule_breaks_a_promise() {
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                for seed in (0..SEEDS).filter(|seed| seed % 2 == half) {
                    let outcome = run(seed, None);
                    let (broken, tail) = (&outcome.violations, outcome.tail.join("\n"));
                    assert!(broken.is_empty(), "{tail}\nseed {seed}: {broken:#?}");
                }
            });
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in [3, 8, 13] {
        let (first, second) = (run(seed, None), run(seed, None));
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first.digest, run(seed + 1, None).digest, "another seed is another history");
    }
}

fn is_found(mutant: Mutant) -> String {
    let found = finds(mutant, 0..SEEDS_UNTIL_FOUND);
    found.expect("the mutant survived").violations.concat()
}

#[test]
fn an_acknowledgement_before_the_delivery_report_is_found() {
    assert!(is_found(Mutant::AckBeforeReport).contains("before its acknowledgement"));
}

#[test]
fn a_seq_that_comes_again_with_other_content_is_found() {
    assert!(is_found(Mutant::EpochAgain).contains("has two contents"));
}

#[test]
fn an_object_that_is_deleted_before_consumers_have_it_is_found() {
    assert!(is_found(Mutant::ProgressAhead).contains("was deleted before"));
}

#[test]
fn a_lost_answer_that_is_taken_for_a_yes_is_found() {
    assert!(is_found(Mutant::LostAnswerAccepted).contains("neither applied nor declared"));
}

#[test]
fn a_sync_that_does_nothing_is_found() {
    is_found(Mutant::SyncLies);
}

#[test]
fn a_batch_that_is_applied_twice_is_found() {
    assert!(is_found(Mutant::AppliesTwice).contains("was applied as"));
}

#[test]
fn a_loss_that_is_not_declared_by_name_is_found() {
    assert!(is_found(Mutant::Undeclared).contains("neither applied nor declared"));
}
