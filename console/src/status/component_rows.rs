//! Components as rows: state, response time, errors, uptime, and a bar for each of ninety days.

use super::component::{Component, Condition};
use super::history::{Day, Tally};
use super::page::Facts;
use super::words;

/// Less than this of a day is no mark on it.
const MARKS_A_DAY_S: f64 = 30.0;

pub struct ComponentRow {
    pub id: &'static str,
    pub title: &'static str,
    pub about: &'static str,
    pub tone: &'static str,
    pub state: &'static str,
    pub why: String,
    pub response: String,
    pub errors: String,
    pub uptime: String,
    pub spark: String,
    pub bars: Vec<Bar>,
}

/// One day.
pub struct Bar {
    pub x: usize,
    pub tone: &'static str,
    pub words: String,
}

/// The first row is the data itself.
pub fn rows(facts: Facts<'_>, operators: bool) -> Vec<ComponentRow> {
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
        _ if snapshot.is_unseen() && !snapshot.is_delayed() => ("unknown", "not all is known"),
        _ if snapshot.environments.is_empty() => ("unknown", "no data yet"),
        (false, true) => ("degraded", "delayed"),
        (false, false) => ("up", "complete"),
    };
    let bar = |(x, (name, day)): (usize, &(String, Option<&Day>))| {
        let (tone, words) = match day {
            None => ("unknown", "not watched".to_owned()),
            Some(day) if day.lost > 0 => {
                ("down", format!("lost: {}", words::of(day.lost, "batch", "batches")))
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
pub fn spark(values: &[Option<f64>]) -> String {
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
