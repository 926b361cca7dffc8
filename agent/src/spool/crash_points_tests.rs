//! Every call that the spool makes of its disk, each in turn the one that fails or during which
//! the power goes, until a whole life passes untouched. The life touches everything: append, read,
//! park, forget, remove, make room, grow old, move to memory and back, recover.

use std::io::ErrorKind;

use super::disk_fake::Strike;
use super::model_tests::{Action, Model};
use super::store_tests::BACKLOG_AFTER;

/// More calls than any life has: beyond this the test itself is wrong.
const CALLS_MAX: u64 = 5_000;
/// What survives a power cut is chance: so many chances for each call.
const SEEDS: u64 = 2;

const GONE: u8 = 0;
const RETURNED: u8 = 1;
const PARKED: u8 = 2;

fn append(count: usize, bytes: usize) -> Vec<Action> {
    vec![Action::Append { bytes }; count]
}

fn deliver(live: bool, batches: usize, ending: u8) -> Vec<Action> {
    vec![Action::Deliver { live, batches, ending }]
}

fn pass(ms: i64) -> Vec<Action> {
    vec![Action::Pass { ms }]
}

/// Live data comes and goes, some is parked, and what is left becomes backlog.
fn outage() -> Vec<Action> {
    [
        append(4, 30_000),
        deliver(true, 2, GONE),
        append(3, 10_000),
        deliver(true, 2, PARKED),
        pass(BACKLOG_AFTER + 1),
        append(2, 20_000),
        deliver(false, 2, RETURNED),
        deliver(false, 2, GONE),
        pass(1_000),
    ]
    .concat()
}

/// The spool fills up until the oldest is given up, the agent dies, and what is left grows old.
fn full() -> Vec<Action> {
    let fill = || [append(5, 25_000), pass(BACKLOG_AFTER / 2)].concat();
    [
        fill(),
        fill(),
        fill(),
        fill(),
        fill(),
        deliver(false, 3, GONE),
        vec![Action::Kill],
        append(2, 20_000),
        deliver(true, 1, PARKED),
        fill(),
        fill(),
        deliver(false, 3, GONE),
        pass(25 * 3_600_000),
        append(1, 5_000),
        vec![Action::Kill],
        pass(1_000),
    ]
    .concat()
}

/// Lives through `script`; whether the strike came.
fn live(script: &[Action], nth: u64, strike: Strike, seed: u64) -> bool {
    let mut model = Model::new();
    let disk = model.bench.disk.clone();
    disk.strike(nth, strike);
    for action in script {
        model.act(action);
        if disk.is_dark() {
            model.act(&Action::Crash { seed });
        }
    }
    let struck = disk.is_struck();
    disk.spare();
    // `kill -9`, then a power cut: what is there must be there after both.
    model.act(&Action::Kill);
    model.act(&Action::Crash { seed: seed + 1 });
    struck
}

fn every_call(script: &[Action], strike: Strike, seed: u64) -> u64 {
    let untouched = (1..CALLS_MAX).find(|nth| !live(script, *nth, strike, seed));
    untouched.expect("a life ends") - 1
}

#[test]
fn whichever_call_of_the_disk_fails_nothing_durable_is_lost_in_silence() {
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        let calls = [outage(), full()].map(|script| every_call(&script, Strike::Error(kind), 1));
        eprintln!("{kind:?}: each of {calls:?} calls");
        assert!(calls.iter().all(|calls| *calls > 50), "{calls:?} are not what a life takes");
    }
}

#[test]
fn at_whichever_call_the_power_goes_nothing_durable_is_lost_in_silence() {
    for seed in 0..SEEDS {
        for script in [outage(), full()] {
            every_call(&script, Strike::PowerCut, seed * 1_000 + 7);
        }
    }
}
