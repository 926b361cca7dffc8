//! The books over restarts, crashes and clocks that jump.

use super::*;
use crate::durable::test_steps::{self, Fault};

fn here() -> Binding {
    Binding { environment: "demo".to_owned(), host: "web-1".to_owned() }
}

fn open_as(dir: &Path, binding: Binding) -> Identity {
    Identity::open(dir, binding, &BTreeMap::new(), Metrics::for_tests()).unwrap()
}

fn open(dir: &Path) -> Identity {
    open_as(dir, here())
}

/// Gives and notes one seq, as the assembler does.
fn emit(identity: &Identity) -> Ticket {
    let ticket = identity.ticket();
    identity.give(&ticket);
    identity.note(&ticket);
    ticket
}

fn given_up(epoch: Uuid, first_seq: u64, last_seq: u64) -> GivenUp {
    GivenUp { epoch, first_seq, last_seq, points: 7, reason: GivenUpReason::SpoolFull }
}

#[test]
fn seqs_are_counted_from_one_and_an_epoch_begins_at_every_start() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let (epoch, _) = first.position();
    assert_eq!((1..=3).map(|_| emit(&first).seq).collect::<Vec<_>>(), [1, 2, 3]);
    let agent_id = first.agent_id();
    drop(first);
    let second = open(dir.path());
    assert_eq!(second.agent_id(), agent_id);
    assert!(second.position().0 > epoch, "v7 epochs ascend");
    let ticket = emit(&second);
    assert_eq!(ticket.seq, 1);
    assert_eq!(ticket.previous, Some(PreviousEpoch { epoch, last_seq: 3 }));
}

#[test]
fn a_look_at_the_next_ticket_gives_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let identity = open(dir.path());
    assert_eq!(identity.ticket(), identity.ticket());
    assert_eq!(identity.position().1, 0);
}

#[test]
fn the_previous_epoch_is_carried_until_a_carrier_was_accepted_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let before_it = emit(&first);
    drop(first);
    let second = open(dir.path());
    assert!(emit(&second).previous.is_some());
    second.accepted(&before_it.id);
    let carrier = emit(&second);
    assert!(carrier.previous.is_some(), "an older epoch's batch carried nothing of this");
    second.accepted(&carrier.id);
    assert_eq!(emit(&second).previous, None);
    drop(second);
    let third = open(dir.path());
    let previous = emit(&third).previous.unwrap();
    assert_eq!(previous.last_seq, 3, "only the second epoch is owed now");
}

#[test]
fn restarts_without_an_accepted_batch_owe_each_epoch_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let mut epochs = Vec::new();
    for _ in 0..2 {
        let identity = open(dir.path());
        emit(&identity);
        epochs.push(identity.position().0);
    }
    // An epoch that gave no seq has nothing to tell.
    drop(open(dir.path()));
    let last = open(dir.path());
    for epoch in epochs {
        let carrier = emit(&last);
        assert_eq!(carrier.previous, Some(PreviousEpoch { epoch, last_seq: 1 }));
        last.accepted(&carrier.id);
    }
    assert_eq!(emit(&last).previous, None);
}

#[test]
fn a_seq_that_was_stored_but_not_noted_is_learned_from_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    emit(&first);
    let crashed = first.ticket();
    first.give(&crashed);
    let (epoch, _) = first.position();
    drop(first);
    let seen = BTreeMap::from([(epoch, 2)]);
    let second = Identity::open(dir.path(), here(), &seen, Metrics::for_tests()).unwrap();
    assert_eq!(second.ticket().previous, Some(PreviousEpoch { epoch, last_seq: 2 }));
}

#[test]
fn declarations_are_carried_over_restarts_until_a_carrier_was_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let (epoch, _) = first.position();
    (0..9).for_each(|_| drop(emit(&first)));
    first.given_up(&given_up(epoch, 2, 4)).unwrap();
    first.given_up(&given_up(epoch, 5, 5)).unwrap();
    first.given_up(&given_up(epoch, 3, 4)).unwrap();
    let carried = emit(&first);
    assert_eq!(carried.declarations.len(), 1, "neighbours are one range");
    let of = Reason { reason: "spool-full" };
    assert_eq!(first.metrics.batches_declared.get_or_create(&of).get(), 4);
    assert_eq!(first.metrics.points_declared.get_or_create(&of).get(), 14);
    drop(first);
    let second = open(dir.path());
    let carrier = emit(&second);
    let told = carrier.declarations.first().unwrap();
    assert_eq!((told.epoch, told.first_seq, told.last_seq), (epoch, 2, 5));
    assert_eq!(told.reason, "spool-full");
    second.given_up(&given_up(epoch, 7, 7)).unwrap();
    second.accepted(&carrier.id);
    let rest = emit(&second).declarations;
    assert_eq!(rest.len(), 1, "what came after the carrier still waits: {rest:?}");
    assert_eq!(rest[0].first_seq, 7);
}

#[test]
fn what_an_epoch_of_another_environment_owes_is_told_there_alone() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    emit(&first);
    let (epoch, _) = first.position();
    first.given_up(&given_up(epoch, 1, 1)).unwrap();
    drop(first);
    let elsewhere = Binding { environment: "acme".to_owned(), host: "web-1".to_owned() };
    let second = open_as(dir.path(), elsewhere);
    let ticket = emit(&second);
    assert_eq!((ticket.previous, ticket.declarations.len()), (None, 0));
    drop(second);
    let back = emit(&open(dir.path()));
    assert_eq!(back.previous, Some(PreviousEpoch { epoch, last_seq: 1 }));
    assert_eq!(back.declarations.len(), 1);
}

#[test]
fn clocks_that_part_ways_begin_an_epoch_and_drift_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let identity = open(dir.path());
    emit(&identity);
    let (epoch, _) = identity.position();
    assert!(!identity.look_at_clocks(1_000_000, 50_000));
    for look in 1..=100 {
        let drift = look * (CLOCKS_APART_MS_MAX - 1);
        assert!(!identity.look_at_clocks(1_000_000 + drift, 50_000), "slow drift is no step");
    }
    // An hour passed for both: the host slept.
    let wall = 1_000_000 + 100 * (CLOCKS_APART_MS_MAX - 1) + 3_600_000;
    assert!(!identity.look_at_clocks(wall, 50_000 + 3_600_000));
    for step in [3_600_000, -3_600_000] {
        assert!(identity.look_at_clocks(wall + step, 50_000 + 3_600_000));
        assert!(identity.look_at_clocks(wall, 50_000 + 3_600_000));
    }
    let ticket = emit(&identity);
    assert_eq!(ticket.seq, 1);
    assert_eq!(ticket.previous, Some(PreviousEpoch { epoch, last_seq: 1 }));
}

#[test]
fn two_agents_never_share_a_state_directory() {
    let dir = tempfile::tempdir().unwrap();
    let held = open(dir.path());
    let second = Identity::open(dir.path(), here(), &BTreeMap::new(), Metrics::for_tests());
    assert!(matches!(second, Err(IdentityError::Locked { .. })));
    drop(held);
    open(dir.path());
}

#[test]
fn a_lost_or_damaged_state_never_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    emit(&first);
    let agent_id = first.agent_id();
    drop(first);
    std::fs::write(dir.path().join("books"), b"{ torn").unwrap();
    let second = open(dir.path());
    assert_eq!((second.agent_id(), second.ticket().previous), (agent_id, None));
    emit(&second);
    drop(second);
    std::fs::remove_file(dir.path().join("agent_id")).unwrap();
    let third = open(dir.path());
    assert_ne!(third.agent_id(), agent_id);
    assert_eq!(third.ticket().previous, None, "another agent's epochs are not its own");
}

#[test]
fn what_can_not_be_named_is_neither_owed_nor_counted() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::for_tests();
    let identity = Identity::open(dir.path(), here(), &BTreeMap::new(), metrics.clone()).unwrap();
    emit(&identity);
    let (epoch, _) = identity.position();
    let counted = || {
        let label = Reason { reason: GivenUpReason::SpoolFull.as_str() };
        metrics.batches_declared.get_or_create(&label).get()
    };
    test_steps::strike(1, Fault::Kill);
    identity.given_up(&given_up(epoch, 1, 1)).unwrap_err();
    test_steps::heal();
    assert_eq!((counted(), identity.ticket().declarations.len()), (0, 0));
    identity.given_up(&given_up(epoch, 1, 1)).unwrap();
    assert_eq!((counted(), identity.ticket().declarations.len()), (1, 1));
}

#[test]
fn what_is_gone_is_owed_even_where_nothing_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let identity = open(dir.path());
    emit(&identity);
    let (epoch, _) = identity.position();
    test_steps::strike(1, Fault::Kill);
    identity.gone(&given_up(epoch, 1, 1));
    test_steps::heal();
    let told = identity.ticket().declarations;
    assert_eq!(told.len(), 1);
    emit(&identity);
    drop(identity);
    assert_eq!(open(dir.path()).ticket().declarations, told, "saved with the next batch");
}

#[test]
fn a_state_directory_that_can_not_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let opened = Identity::open(&file, here(), &BTreeMap::new(), Metrics::for_tests());
    let text = opened.err().unwrap().to_string();
    assert!(text.contains(&file.display().to_string()), "{text}");
}
