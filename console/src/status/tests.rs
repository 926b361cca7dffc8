//! What nobody can tell is never nought, on the page, in JSON and in metrics alike; what is given
//! up is told beside what is lost.

use serde_json::Value as Json;

use super::component::{Component, Condition, Part};
use super::history::History;
use super::page::Facts;
use super::rendered::Rendered;
use super::snapshot::{EnvironmentState, Hop, ShardState, Snapshot};

fn shard(name: &str, reachable: bool) -> ShardState {
    let measured = if reachable { Some(3) } else { None };
    ShardState {
        shard: name.to_owned(),
        reachable,
        lag_records: measured.map(|_| 0),
        lag_s: measured.map(|_| 0.0),
        measured_s: measured,
        ..ShardState::default()
    }
}

fn environment(name: &str) -> EnvironmentState {
    EnvironmentState {
        environment: name.to_owned(),
        hosts: 3,
        freshest_s: Some(4),
        stalest_s: Some(7),
        ..EnvironmentState::default()
    }
}

fn seen(environments: Vec<EnvironmentState>) -> Snapshot {
    Snapshot { environments, shards: vec![shard("s0", true)], ..Snapshot::default() }
}

/// The primary of one of two shards is dead.
fn half_dead() -> Snapshot {
    let unseen = EnvironmentState { unseen_since_ms: Some(1), ..environment("globex") };
    let storage = Component {
        condition: Condition::Degraded,
        why: Some("s1 can't be asked".to_owned()),
        ..Component::unknown(Part::Storage)
    };
    Snapshot {
        components: vec![storage],
        shards: vec![shard("s0", true), shard("s1", false)],
        environments: vec![environment("acme"), unseen],
        ..Snapshot::default()
    }
}

fn served(snapshot: &Snapshot, path: &str) -> String {
    let history = History::default();
    let facts = Facts { snapshot, history: &history, incidents: &[] };
    let rendered = Rendered::new("Spillway", 1, facts).unwrap();
    String::from_utf8(rendered.find(path).unwrap().1.to_vec()).unwrap()
}

fn json(snapshot: &Snapshot, path: &str) -> Json {
    serde_json::from_str(&served(snapshot, path)).unwrap()
}

/// One tile's markup.
fn tile(snapshot: &Snapshot, id: &str) -> String {
    let page = served(snapshot, "public/fragment");
    let (_, rest) = page.split_once(&format!("id=\"tile-{id}\"")).unwrap();
    rest.split_once("</div>").unwrap().0.to_owned()
}

#[test]
fn json_has_null_where_the_page_says_unknown() {
    let told = json(&half_dead(), "status.json");
    let (acme, globex) = (&told["environments"][0], &told["environments"][1]);
    let counts = ["late", "unknown_tail", "quarantined", "declared", "lost", "backlog_batches"];
    for key in counts {
        assert_eq!((&acme[key], &globex[key]), (&Json::from(0), &Json::Null), "{key}");
    }
    assert!(globex["freshest_s"].is_null() && globex["stalest_s"].is_null(), "{globex}");
    assert_eq!((&globex["hosts"], &globex["unseen_since_ms"]), (&3.into(), &1.into()));
}

#[test]
fn what_agents_hold_is_null_while_a_part_between_them_and_mysql_is_down() {
    let mut snapshot = seen(vec![environment("acme")]);
    let down = Component { condition: Condition::Down, ..Component::unknown(Part::Log) };
    snapshot.components.push(down);
    let acme = &json(&snapshot, "status.json")["environments"][0];
    assert_eq!((&acme["backlog_batches"], &acme["lost"]), (&Json::Null, &0.into()));
}

#[test]
fn the_public_json_does_not_deny_a_loss_that_nobody_can_see() {
    let lost = |snapshot: &Snapshot| json(snapshot, "public/status.json")["lost"].clone();
    assert_eq!(lost(&half_dead()), Json::Null);
    assert_eq!(lost(&Snapshot::default()), Json::Null, "nobody looked yet");
    assert_eq!(lost(&seen(vec![environment("acme")])), Json::from(false));
    let mut known = half_dead();
    known.environments[0].lost = 2;
    assert_eq!(lost(&known), Json::from(true));
}

#[test]
fn an_old_measurement_of_a_shards_lag_is_not_told_as_todays() {
    let mut snapshot = seen(vec![environment("acme")]);
    assert_eq!(json(&snapshot, "status.json")["shards"][0]["lag_s"], 0.0);
    snapshot.shards[0].measured_s = Some(645);
    let told = &json(&snapshot, "status.json")["shards"][0];
    assert!(told["lag_s"].is_null() && told["lag_records"].is_null(), "{told}");
    assert_eq!(told["measured_s"], 645);
}

#[test]
fn what_agents_gave_up_is_told_beside_what_is_lost() {
    let given_up = EnvironmentState { declared: 4, quarantined: 2, ..environment("acme") };
    let snapshot = seen(vec![given_up]);
    let told = tile(&snapshot, "lost");
    assert!(told.contains("given up: 6 batches") && told.contains("nothing"), "{told}");
    assert!(!told.contains("no gap will stay open"), "{told}");
    assert!(!served(&snapshot, "public/fragment").contains("nothing is missing"));
    let lost = EnvironmentState { declared: 1, lost: 2, ..environment("acme") };
    let told = tile(&seen(vec![lost]), "lost");
    assert!(told.contains("batches that will not come"), "{told}");
    assert!(told.contains("given up: 1 batch<"), "{told}");
    assert!(tile(&seen(vec![environment("acme")]), "lost").contains("no gap will stay open"));
}

#[test]
fn a_tail_without_an_end_is_at_least_one_batch() {
    let tail = EnvironmentState { late: 3, unknown_tail: 1, ..environment("acme") };
    let snapshot = seen(vec![tail]);
    let told = tile(&snapshot, "delayed");
    assert!(told.contains("at least 4 batches on the way"), "{told}");
    assert!(served(&snapshot, "fragment").contains(">at least 4<"));
    let late = EnvironmentState { late: 4, ..environment("acme") };
    assert!(!tile(&seen(vec![late]), "delayed").contains("at least"));
}

#[test]
fn a_quiet_environment_is_told_at_its_row_and_the_public_page_says_nothing_of_delay() {
    let silent = |name, open| EnvironmentState {
        freshest_s: Some(200),
        open_epochs: Some(open),
        ..environment(name)
    };
    let snapshot = seen(vec![silent("globex", 1), silent("initech", 0), environment("acme")]);
    let page = served(&snapshot, "fragment");
    assert!(page.contains("nothing new for 3 min") && page.contains("are its agents alive?"));
    assert!(page.contains(">ended<") && page.contains(">complete<"), "{page}");
    assert!(!page.contains("degraded"), "{page}");
    let public = served(&snapshot, "public/fragment");
    assert!(public.contains("Everything arrives") && !public.contains("quiet"), "{public}");
    assert!(public.contains("Nothing is known to wait"), "what it holds it could not tell");
    let told = json(&snapshot, "public/status.json");
    let facts = (&told["verdict"], &told["delayed"], &told["newest_s"]);
    assert_eq!(facts, (&"ok".into(), &false.into(), &4.into()));
    let told = json(&snapshot, "status.json");
    let states = [0, 1, 2].map(|i| told["environments"][i]["state"].clone());
    assert_eq!(states, ["quiet", "ended", "complete"].map(Json::from));
}

#[test]
fn an_environment_without_a_stored_point_has_no_age_anywhere() {
    let none = EnvironmentState { freshest_s: None, stalest_s: None, ..environment("acme") };
    let snapshot = seen(vec![none]);
    let acme = &json(&snapshot, "status.json")["environments"][0];
    assert!(acme["freshest_s"].is_null() && acme["stalest_s"].is_null(), "{acme}");
    assert!(json(&snapshot, "public/status.json")["newest_s"].is_null());
    let page = served(&snapshot, "fragment");
    assert!(page.contains("no point stored yet") && page.contains("no point is stored yet"));
    assert!(!page.contains("0 s<") && !page.contains(" d<"), "{page}");
}

#[test]
fn what_delays_no_data_is_no_outage_on_the_public_page() {
    for (part, means) in [
        (Part::Keeping, "rollups and the measurement of lag stand still"),
        (Part::Detour, "agents keep it should the API fail"),
    ] {
        let mut snapshot = seen(vec![environment("acme")]);
        let down = Component { condition: Condition::Down, ..Component::unknown(part) };
        snapshot.components.push(down);
        let told = json(&snapshot, "public/status.json");
        assert_eq!((&told["verdict"], &told["delayed"]), (&"warning".into(), &false.into()));
        let headline = told["headline"].to_string();
        assert!(headline.contains("data arrives") && headline.contains(means), "{headline}");
        assert!(tile(&snapshot, "delayed").contains("nothing is known to wait"));
    }
}

#[test]
fn the_headline_names_mysql_while_one_of_two_shards_is_dead() {
    let mut snapshot = half_dead();
    let sentence = "MySQL is partly down; data for that part is kept and delayed";
    assert_eq!(snapshot.headline(), sentence);
    let down = Component { condition: Condition::Down, ..Component::unknown(Part::Log) };
    snapshot.components.insert(0, down);
    assert_eq!(snapshot.headline(), "Kafka is down, MySQL partly; data is kept and delayed");
}

#[test]
fn what_is_held_has_a_unit_of_its_own() {
    let hop = |key, name| Hop { key, name, unit: "points", ..Hop::default() };
    let hops = vec![hop("drained", "S3 → Kafka"), hop("applied", "Kafka → MySQL")];
    let told = Snapshot { hops, ..Snapshot::default() }.to_answer().to_json();
    assert!(told["hops"][0].as_object().unwrap().contains_key("held_unit"), "{told}");
}
