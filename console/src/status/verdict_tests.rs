//! What the headline says is true: delayed, quiet, down and lost are told apart.

use super::*;
use crate::status::component::Component;
use crate::status::snapshot::{Arrival, EnvironmentState, Hop, ProgramState};

fn with(change: impl FnOnce(&mut EnvironmentState)) -> Snapshot {
    let mut environment = EnvironmentState { freshest_s: Some(4), ..EnvironmentState::default() };
    change(&mut environment);
    Snapshot { environments: vec![environment], ..Snapshot::default() }
}

#[test]
fn delayed_and_lost_are_told_apart() {
    assert_eq!(with(|_| {}).headline(), "Everything arrives");
    let delayed = with(|e| e.late = 1);
    assert_eq!(delayed.verdict(), Verdict::Warning);
    assert!(delayed.headline().starts_with("Delayed"));
    let lost = with(|e| e.lost = 1);
    assert_eq!(
        (lost.verdict(), lost.headline().as_str()),
        (Verdict::Critical, "Some data is lost")
    );
}

#[test]
fn a_part_that_is_down_is_critical_and_named_and_says_that_data_is_kept() {
    let mut snapshot = with(|_| {});
    let down = Component { condition: Condition::Down, ..Component::unknown(Part::Log) };
    snapshot.components.push(down);
    assert_eq!(snapshot.verdict(), Verdict::Critical);
    assert_eq!(snapshot.headline(), "Kafka is down; data is kept and delayed");
    for part in [Part::Intake, Part::Storing] {
        let down = Component { condition: Condition::Down, ..Component::unknown(part) };
        snapshot.components.push(down);
    }
    assert!(snapshot.headline().starts_with("Kafka, Ingest API and Consumer are down;"));
}

#[test]
fn what_agents_hold_is_not_known_while_their_words_do_not_come_through() {
    let mut snapshot = with(|e| e.backlog_batches = 3);
    assert_eq!(snapshot.held_by_agents(), Some(3));
    let down = Component { condition: Condition::Down, ..Component::unknown(Part::Log) };
    snapshot.components.push(down);
    assert_eq!(snapshot.held_by_agents(), None, "Kafka is cut");
    let unseen = with(|e| e.unseen_since_ms = Some(1));
    assert_eq!(unseen.held_by_agents(), None);
    assert!(unseen.to_answer().to_json()["environments"][0]["lost"].is_null());
    assert_eq!(Snapshot::default().held_by_agents(), None);
}

#[test]
fn a_new_installation_does_not_say_that_everything_arrives() {
    let mut snapshot = Snapshot::default();
    assert_eq!(snapshot.headline(), "Nothing is known yet");
    let up = Component { condition: Condition::Up, ..Component::unknown(Part::Log) };
    snapshot.components.push(up);
    assert_eq!(snapshot.verdict(), Verdict::Ok);
    assert_eq!(snapshot.headline(), "Ready; no data has arrived yet");
}

#[test]
fn an_agent_that_is_gone_is_no_outage_of_ours() {
    let mut snapshot = with(|_| {});
    let (name, state) = ("agent".to_owned(), "down");
    snapshot.programs.push(ProgramState { name, state, answered_ms: None });
    assert_eq!(snapshot.verdict(), Verdict::Warning);
}

/// The environment sent nothing for more than three minutes, and did not say that it ends.
fn quiet() -> Snapshot {
    with(|e| (e.freshest_s, e.open_epochs) = (Some(200), Some(1)))
}

fn judge(snapshot: &mut Snapshot, part: Part, condition: Condition) {
    snapshot.components.push(Component { condition, ..Component::unknown(part) });
}

#[test]
fn an_environment_that_is_merely_quiet_is_not_delayed() {
    let mut one = quiet();
    assert_eq!((one.verdict(), one.is_delayed()), (Verdict::Ok, false));
    assert_eq!(one.headline(), "Ready; nothing new arrives");
    assert_eq!(one.arrival(&one.environments[0]), Arrival::Quiet);
    assert_eq!(one.held_by_agents(), None, "what it holds it could not tell");
    one.environments.push(with(|_| {}).environments.remove(0));
    assert_eq!((one.headline().as_str(), one.newest_s()), ("Everything arrives", Some(4)));
}

#[test]
fn an_environment_all_of_whose_epochs_are_closed_is_ended_however_long_ago() {
    let mut ended = quiet();
    ended.environments[0].open_epochs = Some(0);
    ended.environments[0].freshest_s = Some(20 * 86_400);
    assert_eq!(ended.arrival(&ended.environments[0]), Arrival::Ended);
    judge(&mut ended, Part::Log, Condition::Down);
    assert!(!ended.delays(&ended.environments[0]), "it waits for nothing");
    ended.environments[0].late = 1;
    assert_eq!(ended.arrival(&ended.environments[0]), Arrival::Delayed);
}

#[test]
fn silence_is_delay_where_something_is_known_to_wait_or_stands_in_the_way() {
    let delayed = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = quiet();
        change(&mut snapshot);
        snapshot.is_delayed()
    };
    assert!(delayed(&|s| s.environments[0].unknown_tail = 1), "silent without an end");
    assert!(delayed(&|s| s.environments[0].backlog_batches = 1));
    assert!(delayed(&|s| s.environments[0].awaited = true), "cut off until a moment ago");
    for part in [Part::Intake, Part::Log, Part::Storing] {
        assert!(delayed(&|s| judge(s, part, Condition::Degraded)), "{part:?}");
    }
    for part in [Part::Detour, Part::Keeping] {
        assert!(!delayed(&|s| judge(s, part, Condition::Down)), "{part:?}");
    }
    let hop =
        |key, oldest_s, unsent| Hop { key, oldest_s: Some(oldest_s), unsent, ..Hop::default() };
    assert!(delayed(&|s| s.hops = vec![hop("applied", 61.0, None)]), "lag");
    assert!(delayed(&|s| s.hops = vec![hop("measured", 61.0, None)]), "spools");
    assert!(delayed(&|s| s.hops = vec![hop("drained", 121.0, Some(1.0))]), "S3");
    assert!(!delayed(&|s| s.hops = vec![hop("drained", 3_600.0, Some(0.0))]), "in Kafka");
}

#[test]
fn what_is_down_beside_the_way_says_what_stands_still_and_is_no_outage() {
    let down = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = with(|_| {});
        change(&mut snapshot);
        (snapshot.verdict(), snapshot.headline())
    };
    let warns = |sentence: &str| (Verdict::Warning, sentence.to_owned());
    let keeper = "Keeper is down; data arrives, rollups and the measurement of lag stand still";
    assert_eq!(down(&|s| judge(s, Part::Keeping, Condition::Down)), warns(keeper));
    let bucket = "S3 detour is down; data arrives, agents keep it should the API fail";
    assert_eq!(down(&|s| judge(s, Part::Detour, Condition::Down)), warns(bucket));
    let worker = |s: &mut Snapshot| {
        let (name, state) = ("recovery-worker-0".to_owned(), "down");
        s.programs.push(ProgramState { name, state, answered_ms: None });
        judge(s, Part::Detour, Condition::Down);
    };
    let sentence = "Recovery worker is down; data arrives, what is parked in S3 waits";
    assert_eq!(down(&worker), warns(sentence));
    let redis = "Redis is down; data arrives, last_seen stands still";
    assert_eq!(down(&|s| s.redis_down = true), warns(redis));
    let late = |s: &mut Snapshot| {
        worker(s);
        s.environments[0].late = 1;
    };
    let sentence = "Delayed: some data is still on its way; Recovery worker is down";
    assert_eq!(down(&late), warns(sentence));
}

#[test]
fn an_environment_without_a_stored_point_says_so() {
    let none = with(|e| e.freshest_s = None);
    assert_eq!(none.headline(), "Ready; no point is stored yet");
    assert_eq!((none.newest_s(), none.is_delayed()), (None, false));
    assert_eq!(none.arrival(&none.environments[0]), Arrival::NoPoint);
    assert!(none.to_answer().to_json()["environments"][0]["freshest_s"].is_null());
}
