//! The page: one HTML document and its live part, from a snapshot, the history and the incidents.
//! Templates lie in console/templates; all that comes from outside is escaped by them.

use askama::Template;

use super::component::{Component, Condition, Part};
use super::history::{Day, History, Tally};
use super::incidents::Incident;
use super::pipeline::{self, Drawing};
use super::snapshot::{EnvironmentState, ProgramState, Snapshot};
use super::words;

/// Closed incidents on the page; the feed has the same.
pub const INCIDENTS_MAX: usize = 15;
/// Less than this of a day is no mark on it.
const MARKS_A_DAY_S: f64 = 30.0;

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
    hosts: String,
    newest: String,
    on_the_way: String,
    lost: String,
    is_lost: bool,
    given_up: String,
}

struct ComponentRow {
    id: &'static str,
    title: &'static str,
    about: &'static str,
    tone: &'static str,
    state: &'static str,
    why: String,
    response: String,
    errors: String,
    uptime: String,
    spark: String,
    bars: Vec<Bar>,
}

/// One day.
struct Bar {
    x: usize,
    tone: &'static str,
    words: String,
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
    let body = BodyTemplate {
        frame,
        operators,
        verdict: snapshot.verdict().as_str(),
        headline: snapshot.headline(),
        subline: subline(snapshot),
        clock: words::clock(snapshot.at_ms),
        tiles: tiles(snapshot, history, operators),
        drawings: pipeline::draw(snapshot),
        environments: match operators {
            true => snapshot.environments.iter().map(|e| environment_row(e, frame)).collect(),
            false => Vec::new(),
        },
        components: component_rows(facts, operators),
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
    let newest = snapshot.environments.iter().map(|e| e.freshest_s).max();
    match (newest, snapshot.is_delayed()) {
        (None, _) => "No data has arrived yet.".to_owned(),
        (Some(newest), false) => {
            format!(
                "The newest data is {} old. Nothing waits, nothing is missing.",
                words::age(newest as f64)
            )
        }
        (Some(_), true) => "What is delayed is kept by agents, in S3 or in Kafka, and counted; \
            it arrives by itself."
            .to_owned(),
    }
}

fn tiles(snapshot: &Snapshot, history: &History, operators: bool) -> Vec<Tile> {
    let delayed = snapshot.environments.iter().filter(|e| e.is_delayed());
    let count = delayed.clone().count();
    let on_the_way: i64 = snapshot.environments.iter().map(EnvironmentState::on_the_way).sum();
    let age = delayed.map(|e| e.freshest_s as f64).reduce(f64::max);
    let is_delayed = snapshot.is_delayed();
    let parked = snapshot.hop("drained").and_then(|hop| hop.oldest_s).filter(|_| is_delayed);
    let ages = [age, snapshot.lag_s(), parked].into_iter().flatten();
    let age = ages.reduce(f64::max).unwrap_or(0.0);
    let lost = snapshot.lost();
    let applied = snapshot.hop("applied");
    let slots = &history.slots;
    let rates: Vec<_> = slots.iter().map(|slot| slot.points_per_s.get()).collect();
    let lags: Vec<_> = slots.iter().map(|slot| Some(slot.lag_s)).collect();
    let of = match operators && count > 0 {
        true => format!(" in {}", words::of(count as i64, "environment", "environments")),
        false => String::new(),
    };
    vec![
        Tile {
            id: "delayed",
            label: "Delayed",
            value: if is_delayed { words::age(age) } else { "nothing".to_owned() },
            note: match (is_delayed, on_the_way) {
                (true, 0) => "agents tell how much when they are heard again".to_owned(),
                (true, _) => {
                    format!("{} on the way{of}", words::of(on_the_way, "batch", "batches"))
                }
                (false, _) => "all that was measured is here".to_owned(),
            },
            tone: if is_delayed { "degraded" } else { "up" },
            spark: String::new(),
        },
        Tile {
            id: "lost",
            label: "Lost",
            value: if lost > 0 { words::count(lost as f64) } else { "nothing".to_owned() },
            note: match lost {
                0 => "no gap will stay open".to_owned(),
                _ => "gaps that will not close, known by name".to_owned(),
            },
            tone: if lost > 0 { "down" } else { "up" },
            spark: String::new(),
        },
        Tile {
            id: "rate",
            label: "Points stored",
            value: words::known(applied.and_then(|hop| hop.per_second), words::rate),
            note: "last 24 hours".to_owned(),
            tone: "plain",
            spark: spark(&rates),
        },
        Tile {
            id: "lag",
            label: "Waiting in Kafka",
            value: words::known(applied.and_then(|hop| hop.oldest_s), words::age),
            note: format!("{} records", words::known(applied.and_then(|h| h.held), words::count)),
            tone: "plain",
            spark: spark(&lags),
        },
    ]
}

fn environment_row(e: &EnvironmentState, frame: Frame<'_>) -> EnvironmentRow {
    let (tone, state) = match (e.lost > 0, e.is_delayed()) {
        (true, _) => ("down", "lost data"),
        (false, true) => ("degraded", "delayed"),
        (false, false) => ("up", "complete"),
    };
    let given_up = e.declared + e.quarantined;
    EnvironmentRow {
        name: e.environment.clone(),
        href: format!("{}environments/{}", frame.root, super::address::encode(&e.environment)),
        tone,
        state,
        hosts: words::count(e.hosts as f64),
        newest: words::age(e.freshest_s as f64),
        on_the_way: match (e.is_silent(), e.on_the_way()) {
            (true, 0) => "not told".to_owned(),
            (_, batches) => words::count(batches as f64),
        },
        lost: words::count(e.lost as f64),
        is_lost: e.lost > 0,
        given_up: words::count(given_up as f64),
    }
}

fn component_rows(facts: Facts<'_>, operators: bool) -> Vec<ComponentRow> {
    let calendar = facts.history.calendar(facts.snapshot.at_ms);
    let mut rows = vec![arrival_row(facts, &calendar)];
    rows.extend(facts.snapshot.components.iter().map(|one| component_row(one, facts, &calendar)));
    if !operators {
        rows.iter_mut().for_each(|row| row.why.clear());
    }
    rows
}

type Calendar<'a> = [(String, Option<&'a Day>)];

/// The row that matters most: did the data come?
fn arrival_row(facts: Facts<'_>, calendar: &Calendar<'_>) -> ComponentRow {
    let snapshot = facts.snapshot;
    let (tone, state) = match (snapshot.lost() > 0, snapshot.is_delayed()) {
        (true, _) => ("down", "lost data"),
        (false, true) => ("degraded", "delayed"),
        (false, false) => ("up", "complete"),
    };
    let bar = |(x, (name, day)): (usize, &(String, Option<&Day>))| {
        let (tone, words) = match day {
            None => ("unknown", "not watched".to_owned()),
            Some(day) if day.lost > 0 => {
                ("down", format!("lost: {}", words::of(day.lost, "gap", "gaps")))
            }
            Some(day) if day.delayed_s > MARKS_A_DAY_S => {
                ("degraded", format!("delayed for {}, nothing lost", words::age(day.delayed_s)))
            }
            Some(_) => ("up", "complete and in time".to_owned()),
        };
        Bar { x: x * BAR_STEP, tone, words: format!("{name}: {words}") }
    };
    let days = facts.history.days.iter();
    let (delayed, watched) = days.fold((0.0, 0.0), |(delayed, watched), day| {
        let longest = day.parts.values().map(Tally::watched_s).fold(0.0, f64::max);
        (delayed + day.delayed_s.min(longest), watched + longest)
    });
    let in_time = (watched > 0.0).then(|| 1.0 - delayed / watched);
    ComponentRow {
        id: "arrival",
        title: "Data",
        about: "in time and complete",
        tone,
        state,
        why: String::new(),
        response: String::new(),
        errors: String::new(),
        uptime: words::known(in_time, words::uptime),
        spark: String::new(),
        bars: calendar.iter().enumerate().map(bar).collect(),
    }
}

/// Width of a day in the bars' box, its gap included.
const BAR_STEP: usize = 4;

fn component_row(one: &Component, facts: Facts<'_>, calendar: &Calendar<'_>) -> ComponentRow {
    let tally = |day: &Option<&Day>| day.and_then(|day| day.parts.get(&one.part).cloned());
    let bar = |(x, (name, day)): (usize, &(String, Option<&Day>))| {
        let (tone, words) = day_of(tally(day));
        Bar { x: x * BAR_STEP, tone, words: format!("{name}: {words}") }
    };
    let slots = facts.history.slots.iter();
    let response: Vec<_> =
        slots.map(|slot| slot.parts.get(&one.part).and_then(|t| t.response_ms.get())).collect();
    ComponentRow {
        id: one.part.key(),
        title: one.part.title(),
        about: one.part.about(),
        tone: one.condition.key(),
        state: one.condition.words(),
        why: one.why.clone().filter(|_| one.condition > Condition::Up).unwrap_or_default(),
        response: words::known(one.response_ms, words::millis),
        errors: words::known(one.error_ratio, words::share),
        uptime: words::known(facts.history.total(one.part).uptime(), words::uptime),
        spark: spark(&response),
        bars: calendar.iter().enumerate().map(bar).collect(),
    }
}

fn day_of(tally: Option<Tally>) -> (&'static str, String) {
    let Some(tally) = tally.filter(|tally| tally.watched_s() > 0.0) else {
        return ("unknown", "not watched".to_owned());
    };
    match (tally.down_s, tally.degraded_s) {
        (down, _) if down > MARKS_A_DAY_S => ("down", format!("down for {}", words::age(down))),
        (_, slow) if slow > MARKS_A_DAY_S => {
            ("degraded", format!("impaired for {}", words::age(slow)))
        }
        _ => ("up", "no trouble".to_owned()),
    }
}

/// Less is a line between two points, which tells nothing.
const SPARK_POINTS_MIN: usize = 6;

/// Points of a polyline in a box of 100 × 24, the highest value at the top.
fn spark(values: &[Option<f64>]) -> String {
    const WIDTH: f64 = 100.0;
    const HEIGHT: f64 = 24.0;
    let top = values.iter().flatten().copied().fold(0.0, f64::max);
    let known = values.iter().flatten().count();
    if known < SPARK_POINTS_MIN || top <= 0.0 {
        return String::new();
    }
    let step = WIDTH / (values.len() - 1) as f64;
    let points = values.iter().enumerate().filter_map(|(i, value)| {
        let y = HEIGHT - 1.0 - value.as_ref()? / top * (HEIGHT - 2.0);
        Some(format!("{:.1},{y:.1}", i as f64 * step))
    });
    points.collect::<Vec<_>>().join(" ")
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
