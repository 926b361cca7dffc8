//! The page: one HTML document and its live part, from a snapshot, the history and the incidents.
//! Templates lie in console/templates; all that comes from outside is escaped by them.

use askama::Template;

use super::component::Part;
use super::component_rows::{self, ComponentRow};
use super::history::History;
use super::incidents::Incident;
use super::pipeline::{self, Drawing};
use super::snapshot::{Arrival, EnvironmentState, ProgramState, Snapshot};
use super::words;

/// Closed incidents on the page; the feed has the same.
pub const INCIDENTS_MAX: usize = 15;

/// Environments that stand open; the rest is folded away.
const ENVIRONMENTS_SHOWN: usize = 20;

/// Who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// May see names of environments, hosts, shards and programs.
    Operators,
    /// Sees nothing that tells who the customers are.
    Everybody,
}

/// Where the page stands: served and live, or a copy in a folder.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    pub title: &'a str,
    pub audience: Audience,
    /// From the page to the root, like `../../` or nothing.
    pub root: &'a str,
    /// Where the live part is fetched, and how often; a copy has none.
    pub live: Option<(&'a str, u64)>,
}

/// What there is to tell.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub snapshot: &'a Snapshot,
    pub history: &'a History,
    /// In the order of their opening.
    pub incidents: &'a [Incident],
}

#[derive(Template)]
#[template(path = "page.html")]
struct PageTemplate<'a> {
    frame: Frame<'a>,
    operators: bool,
    verdict: &'static str,
    headline: String,
    at: String,
    body: String,
}

#[derive(Template)]
#[template(path = "body.html")]
struct BodyTemplate<'a> {
    frame: Frame<'a>,
    operators: bool,
    verdict: &'static str,
    headline: String,
    subline: String,
    clock: String,
    tiles: Vec<Tile>,
    drawings: [Drawing; 2],
    environments: Vec<EnvironmentRow>,
    more_environments: Vec<EnvironmentRow>,
    components: Vec<ComponentRow>,
    open_incidents: Vec<IncidentRow>,
    past_incidents: Vec<IncidentRow>,
    programs: Vec<ProgramRow>,
    troubles: &'a [String],
}

/// One of the large numbers.
struct Tile {
    id: &'static str,
    label: &'static str,
    value: String,
    note: String,
    tone: &'static str,
    /// Points of a sparkline in a box of 100 × 24; empty without one.
    spark: String,
}

struct EnvironmentRow {
    name: String,
    href: String,
    tone: &'static str,
    state: &'static str,
    /// What an operator may look for; empty where all is said.
    hint: &'static str,
    hosts: String,
    newest: String,
    on_the_way: String,
    lost: String,
    is_lost: bool,
    given_up: String,
}

struct IncidentRow {
    title: String,
    impact: &'static str,
    is_public: bool,
    parts: String,
    updates: Vec<UpdateRow>,
}

struct UpdateRow {
    phase: &'static str,
    at: String,
    machine_at: String,
    text: String,
}

struct ProgramRow {
    name: String,
    tone: &'static str,
    state: &'static str,
    answered: String,
}

/// The whole document.
pub fn document(frame: Frame<'_>, facts: Facts<'_>) -> Result<String, askama::Error> {
    let page = PageTemplate {
        frame,
        operators: frame.audience == Audience::Operators,
        verdict: facts.snapshot.verdict().as_str(),
        headline: facts.snapshot.headline(),
        at: words::moment(facts.snapshot.at_ms),
        body: fragment(frame, facts)?,
    };
    page.render()
}

/// The part of the document that changes.
pub fn fragment(frame: Frame<'_>, facts: Facts<'_>) -> Result<String, askama::Error> {
    let Facts { snapshot, history, incidents } = facts;
    let operators = frame.audience == Audience::Operators;
    let shown = incidents.iter().rev().filter(|one| operators || one.opening.public);
    let (open, past): (Vec<_>, Vec<_>) = shown.partition(|one| one.is_open());
    let mut environments = match operators {
        true => environment_rows(snapshot, frame),
        false => Vec::new(),
    };
    let more_environments = environments.split_off(environments.len().min(ENVIRONMENTS_SHOWN));
    let body = BodyTemplate {
        frame,
        operators,
        verdict: snapshot.verdict().as_str(),
        headline: snapshot.headline(),
        subline: subline(snapshot),
        clock: words::clock(snapshot.at_ms),
        tiles: tiles(snapshot, history, operators),
        drawings: pipeline::draw(snapshot),
        environments,
        more_environments,
        components: component_rows::rows(facts, operators),
        open_incidents: open.into_iter().map(incident_row).collect(),
        past_incidents: past.into_iter().take(INCIDENTS_MAX).map(incident_row).collect(),
        programs: match operators {
            true => snapshot.programs.iter().map(program_row).collect(),
            false => Vec::new(),
        },
        troubles: if operators { &snapshot.troubles } else { &[] },
    };
    body.render()
}

fn subline(snapshot: &Snapshot) -> String {
    match (snapshot.newest_s(), snapshot.is_delayed() || snapshot.is_cut()) {
        (None, _) if snapshot.is_unseen() => "MySQL can’t be asked what it has. What senders \
            bring is kept by agents, in S3 or in Kafka, and arrives by itself."
            .to_owned(),
        (None, _) if snapshot.environments.is_empty() => "No data has arrived yet.".to_owned(),
        (None, false) => "Of all that arrived no point is stored yet.".to_owned(),
        (Some(newest), false) => {
            let missing = match snapshot.given_up() {
                0 => "nothing is missing".to_owned(),
                given_up => {
                    format!("but agents gave up {}", words::of(given_up, "batch", "batches"))
                }
            };
            let waits = match snapshot.hears_all() {
                true => "Nothing waits",
                false => "Nothing is known to wait",
            };
            format!("The newest data is {} old. {waits}, {missing}.", words::age(newest as f64))
        }
        (_, true) => "What is delayed is kept by agents, in S3 or in Kafka, and counted; \
            it arrives by itself."
            .to_owned(),
    }
}

fn tiles(snapshot: &Snapshot, history: &History, operators: bool) -> Vec<Tile> {
    let delayed = snapshot.environments.iter().filter(|e| snapshot.delays(e));
    let count = delayed.clone().count();
    let on_the_way: i64 = snapshot.environments.iter().map(EnvironmentState::on_the_way).sum();
    let endless = snapshot.environments.iter().any(|e| e.unknown_tail > 0);
    let age = delayed.filter_map(|e| e.freshest_s).max().map(|age| age as f64);
    let is_delayed = snapshot.is_delayed();
    let parked = snapshot.hop("drained").and_then(|hop| hop.oldest_s).filter(|_| is_delayed);
    let ages = [age, snapshot.lag_s(), parked].into_iter().flatten();
    let age = ages.reduce(f64::max).unwrap_or(0.0);
    let is_empty = snapshot.environments.is_empty();
    let applied = snapshot.hop("applied");
    let slots = &history.slots;
    let rates: Vec<_> = slots.iter().map(|slot| slot.points_per_s.get()).collect();
    let lags: Vec<_> = slots.iter().map(|slot| slot.lag_s).collect();
    let of = match operators && count > 0 {
        true => format!(" in {}", words::of(count as i64, "environment", "environments")),
        false => String::new(),
    };
    vec![
        Tile {
            id: "delayed",
            label: "Delayed",
            value: match is_delayed {
                true => words::age(age),
                false if is_empty => words::UNKNOWN.to_owned(),
                false => "nothing".to_owned(),
            },
            note: match (is_delayed, on_the_way) {
                _ if is_empty && snapshot.is_unseen() => NOT_ASKED.to_owned(),
                _ if is_empty => "no data has arrived yet".to_owned(),
                // Data is late only after a while, but it waits from the first moment on.
                (false, _) if snapshot.is_cut() => "so far; what comes now waits".to_owned(),
                (true, 0) if count > 0 => "agents tell how much when they are heard again".into(),
                (true, 0) => "kept by agents, in S3 or in Kafka".to_owned(),
                (true, _) => {
                    let batches = words::of(on_the_way, "batch", "batches");
                    format!("{}{batches} on the way{of}", if endless { "at least " } else { "" })
                }
                (false, _) if !snapshot.hears_all() => "nothing is known to wait".to_owned(),
                (false, _) => "all that was measured is here".to_owned(),
            },
            tone: if is_delayed { "degraded" } else { "up" },
            spark: String::new(),
        },
        lost_tile(snapshot),
        Tile {
            id: "rate",
            label: "Points stored",
            value: words::known(applied.and_then(|hop| hop.per_second), words::rate),
            note: "last 24 hours".to_owned(),
            tone: "plain",
            spark: component_rows::spark(&rates),
        },
        Tile {
            id: "lag",
            label: "Waiting in Kafka",
            value: applied.map_or_else(|| words::UNKNOWN.to_owned(), words::oldest),
            note: match applied.map(words::held) {
                Some(held) if held != words::UNKNOWN => format!("{held} records"),
                _ if snapshot.is_unseen() => NOT_ASKED.to_owned(),
                _ => format!("{} records", words::UNKNOWN),
            },
            tone: "plain",
            spark: component_rows::spark(&lags),
        },
    ]
}

/// A shard is down: what lies there was true when it was last asked, and is not known now.
const NOT_ASKED: &str = "not known: a shard can’t be asked";

fn lost_tile(snapshot: &Snapshot) -> Tile {
    let (lost, is_empty) = (snapshot.lost(), snapshot.environments.is_empty());
    let is_unseen = snapshot.is_unseen();
    let given_up = match snapshot.given_up() {
        0 => String::new(),
        batches => {
            let least = if is_unseen { "at least " } else { "" };
            format!("; given up: {least}{}", words::of(batches, "batch", "batches"))
        }
    };
    Tile {
        id: "lost",
        label: "Lost",
        value: match lost {
            0 if is_empty || is_unseen => words::UNKNOWN.to_owned(),
            0 => "nothing".to_owned(),
            _ if is_unseen => format!("at least {}", words::count(lost as f64)),
            _ => words::count(lost as f64),
        },
        note: match (lost, given_up.is_empty()) {
            (0, _) if is_unseen => format!("{NOT_ASKED}{given_up}"),
            (0, _) if is_empty => "no data has arrived yet".to_owned(),
            (0, true) => "no gap will stay open".to_owned(),
            (0, false) => format!("but gaps stay open{given_up}"),
            _ => format!("batches that will not come, known by name{given_up}"),
        },
        tone: match lost {
            0 if is_unseen || !given_up.is_empty() => "plain",
            0 => "up",
            _ => "down",
        },
        spark: String::new(),
    }
}

/// Those in trouble first: of two hundred nobody looks at all.
fn environment_rows(snapshot: &Snapshot, frame: Frame<'_>) -> Vec<EnvironmentRow> {
    let mut all: Vec<_> = snapshot.environments.iter().collect();
    let is_quiet = |e: &EnvironmentState| snapshot.arrival(e) == Arrival::Quiet;
    all.sort_by_key(|e| (e.lost == 0, !snapshot.delays(e), !is_quiet(e)));
    all.into_iter().map(|e| environment_row(snapshot, e, frame)).collect()
}

fn environment_row(snapshot: &Snapshot, e: &EnvironmentState, frame: Frame<'_>) -> EnvironmentRow {
    let is_unseen = e.unseen_since_ms.is_some();
    let arrival = snapshot.arrival(e);
    let newest = e.freshest_s.map(|age| words::age(age as f64));
    // Of an unseen shard the last numbers are told where they are none to be glad of.
    let count = |n: i64, is_known: bool| match (is_known, n) {
        (true, n) => words::count(n as f64),
        (false, 0) => "unknown".to_owned(),
        (false, n) => format!("at least {}", words::count(n as f64)),
    };
    EnvironmentRow {
        name: e.environment.clone(),
        href: format!("{}environments/{}", frame.root, super::address::encode(&e.environment)),
        tone: arrival.tone(),
        state: arrival.words(),
        hint: match arrival {
            Arrival::Quiet => "are its agents alive?",
            Arrival::Ended => "its agents were stopped in order",
            _ => "",
        },
        hosts: words::count(e.hosts as f64),
        newest: match (e.unseen_since_ms, newest) {
            (Some(since), _) => format!("unknown since {}", words::clock(since)),
            (None, None) => words::NO_POINT.to_owned(),
            (None, Some(age)) if arrival == Arrival::Quiet => format!("nothing new for {age}"),
            (None, Some(age)) => age,
        },
        on_the_way: count(e.on_the_way(), snapshot.hears(e) && e.unknown_tail == 0),
        lost: count(e.lost, !is_unseen),
        is_lost: e.lost > 0,
        given_up: count(e.given_up(), !is_unseen),
    }
}

fn incident_row(incident: &Incident) -> IncidentRow {
    let titles: Vec<_> = incident.opening.parts.iter().map(|part: &Part| part.title()).collect();
    let update = |update: &super::incidents::Update| UpdateRow {
        phase: update.phase.words(),
        at: words::moment(update.at.as_millisecond()),
        machine_at: words::rfc3339(update.at.as_millisecond()),
        text: update.text.clone(),
    };
    IncidentRow {
        title: incident.opening.title.clone(),
        impact: incident.opening.impact.words(),
        is_public: incident.opening.public,
        parts: titles.join(", "),
        updates: incident.updates.iter().rev().map(update).collect(),
    }
}

fn program_row(program: &ProgramState) -> ProgramRow {
    let tone = match program.state {
        "ready" => "up",
        "down" => "down",
        _ => "degraded",
    };
    let answered = words::known(program.answered_ms, words::millis);
    ProgramRow { name: program.name.clone(), tone, state: program.state, answered }
}
