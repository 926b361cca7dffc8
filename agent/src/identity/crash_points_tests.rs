//! Every system call by which the books change, each in turn the one that fails or the last one
//! of the process, until a whole life passes untouched.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::durable::test_steps::{self, Fault};

/// More steps than any life has: beyond this the test itself is wrong.
const STEPS_MAX: u64 = 1_000;
/// Batches that a last life may need to tell all that is owed.
const CARRIERS_MAX: usize = 20;

#[derive(Clone, Copy, Debug)]
enum Action {
    Emit,
    Accept,
    GiveUp { seq: u64 },
    ClockJump,
    Start,
}

/// What an agent goes through between two updates.
const LIFE: [Action; 23] = [
    Action::Start,
    Action::Emit,
    Action::Emit,
    Action::Emit,
    Action::GiveUp { seq: 1 },
    Action::Emit,
    Action::Start,
    Action::Emit,
    Action::Accept,
    Action::Emit,
    Action::ClockJump,
    Action::Emit,
    Action::Emit,
    Action::GiveUp { seq: 2 },
    Action::Emit,
    Action::Start,
    Action::ClockJump,
    Action::Emit,
    Action::Accept,
    Action::GiveUp { seq: 1 },
    Action::Emit,
    Action::Start,
    Action::Emit,
];

struct World {
    dir: tempfile::TempDir,
    identity: Option<Identity>,
    /// What the spool holds: the highest seq of each epoch.
    stored: BTreeMap<Uuid, u64>,
    ids: BTreeSet<BatchId>,
    last: Option<Ticket>,
    /// The books took it.
    given_up: BTreeSet<(Uuid, u64)>,
    told_ends: BTreeMap<Uuid, u64>,
    told_losses: BTreeSet<(Uuid, u64)>,
    boot_ms: i64,
}

impl World {
    fn new() -> Self {
        Self {
            dir: test_steps::quick_dir(),
            identity: None,
            stored: BTreeMap::new(),
            ids: BTreeSet::new(),
            last: None,
            given_up: BTreeSet::new(),
            told_ends: BTreeMap::new(),
            told_losses: BTreeSet::new(),
            boot_ms: 0,
        }
    }

    fn start(&mut self) {
        self.identity = None;
        let binding = Binding { environment: "demo".to_owned(), host: "web-1".to_owned() };
        let dir = self.dir.path().join("state");
        let open = || Identity::open(&dir, binding.clone(), &self.stored, Metrics::for_tests());
        let opened = open().or_else(|_| {
            // A start that fails is tried again by whoever supervises the agent.
            if test_steps::is_killed() {
                test_steps::heal();
            }
            open()
        });
        self.identity = Some(opened.unwrap());
    }

    fn act(&mut self, action: Action) {
        if matches!(action, Action::Start) || self.identity.is_none() {
            self.start();
        }
        let identity = self.identity.as_ref().unwrap();
        let (epoch, _) = identity.position();
        match action {
            Action::Start => {}
            Action::Emit => {
                let ticket = identity.ticket();
                identity.give(&ticket);
                assert!(self.ids.insert(ticket.id), "{:?} was given twice", ticket.id);
                self.stored.insert(epoch, ticket.seq);
                identity.note(&ticket);
                self.last = Some(ticket);
            }
            Action::Accept => self.accept(),
            Action::GiveUp { seq } => {
                let reason = GivenUpReason::SpoolFull;
                let given_up = GivenUp { epoch, first_seq: seq, last_seq: seq, points: 1, reason };
                // What could not be named keeps its bytes.
                let named = identity.given_up(&given_up).is_ok();
                if named && !test_steps::is_killed() {
                    self.given_up.insert((epoch, seq));
                }
            }
            Action::ClockJump => {
                identity.look_at_clocks(self.boot_ms, self.boot_ms);
                self.boot_ms += 1;
                identity.look_at_clocks(self.boot_ms + 7_200_000, self.boot_ms);
            }
        }
    }

    /// The API has the last batch, and what it carried, before the books hear of it.
    fn accept(&mut self) {
        let (Some(identity), Some(ticket)) = (&self.identity, &self.last) else { return };
        self.told_ends.extend(ticket.previous.map(|previous| (previous.epoch, previous.last_seq)));
        for told in &ticket.declarations {
            let seqs = told.first_seq..=told.last_seq;
            self.told_losses.extend(seqs.map(|seq| (told.epoch, seq)));
        }
        identity.accepted(&ticket.id);
    }

    /// Lives on until nothing is owed, and holds what was told against what happened.
    fn settle(mut self, what: &str) {
        self.act(Action::Start);
        for _ in 0..CARRIERS_MAX {
            self.act(Action::Emit);
            self.act(Action::Accept);
        }
        let (current, _) = self.identity.as_ref().unwrap().position();
        for (epoch, last_seq) in self.stored.iter().filter(|(epoch, _)| **epoch != current) {
            assert_eq!(self.told_ends.get(epoch), Some(last_seq), "{what}: the end of an epoch");
        }
        assert!(self.given_up.is_subset(&self.told_losses), "{what}: a loss is not told");
    }
}

/// Lives with a fault at the nth step; whether it came.
fn live(nth: u64, fault: Fault) -> bool {
    let mut world = World::new();
    test_steps::strike(nth, fault);
    for action in LIFE {
        world.act(action);
        if test_steps::is_killed() {
            test_steps::heal();
            world.identity = None;
        }
    }
    test_steps::heal();
    world.settle(&format!("step {nth}, {fault:?}"));
    test_steps::is_struck()
}

#[test]
fn whichever_step_of_the_books_fails_every_seq_is_accounted_for() {
    let untouched = (1..STEPS_MAX).find(|nth| !live(*nth, Fault::Error)).unwrap();
    assert!(untouched > 50, "{untouched} steps are not what a life takes");
}

#[test]
fn at_whichever_step_of_the_books_the_agent_is_killed_every_seq_is_accounted_for() {
    let untouched = (1..STEPS_MAX).find(|nth| !live(*nth, Fault::Kill)).unwrap();
    assert!(untouched > 50, "{untouched} steps are not what a life takes");
}

#[test]
fn an_agent_that_starts_over_and_over_still_tells_what_it_owes() {
    let mut world = World::new();
    world.act(Action::Emit);
    world.act(Action::Emit);
    (0..200).for_each(|_| world.act(Action::Start));
    world.settle("200 starts");
}
