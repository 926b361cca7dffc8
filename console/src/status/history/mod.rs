//! How it was: each part's state, response time and errors by five minutes for a day, and by day
//! for ninety. What nobody watched is neither up nor down.

mod file;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::component::{Component, Condition, Part};
use super::snapshot::Snapshot;

pub use file::{HistoryError, HistoryFile};

/// Days that are kept, this one included.
pub const DAYS_MAX: usize = 90;
/// A slot's length.
pub const SLOT_S: i64 = 300;
/// One day of slots.
pub const SLOTS_MAX: usize = 288;
/// A look stands for the time since the one before; beyond this nobody watched.
const LOOK_STANDS_FOR_MAX_S: f64 = 60.0;

/// Days and slots, oldest first. Bounded by construction: some 300 KiB as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    pub days: Vec<Day>,
    pub slots: Vec<Slot>,
    /// Unix ms of the last look.
    last_ms: Option<i64>,
    /// What was lost at the last look, so that each loss counts on its own day.
    #[serde(default)]
    lost_before: Option<i64>,
}

/// One UTC day.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Day {
    /// `2026-11-21`
    pub day: String,
    pub parts: BTreeMap<Part, Tally>,
    /// For how long some data was on its way that should have been here.
    pub delayed_s: f64,
    /// Runs of batches that became lost.
    pub lost: i64,
}

/// Five minutes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Unix seconds of its begin.
    pub at: i64,
    pub parts: BTreeMap<Part, Tally>,
    pub points_per_s: Mean,
    /// The most that records waited in Kafka, if that was known.
    #[serde(default)]
    pub lag_s: Option<f64>,
}

/// Seconds by condition, and means over looks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    pub up_s: f64,
    pub degraded_s: f64,
    pub down_s: f64,
    pub response_ms: Mean,
    pub error_ratio: Mean,
}

/// A mean that can go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    sum: f64,
    n: u64,
}

impl Mean {
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.n += 1;
    }

    pub fn get(self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }
}

impl Tally {
    fn add(&mut self, component: &Component, seconds: f64) {
        match component.condition {
            Condition::Unknown => return,
            Condition::Up => self.up_s += seconds,
            Condition::Degraded => self.degraded_s += seconds,
            Condition::Down => self.down_s += seconds,
        }
        if let Some(ms) = component.response_ms {
            self.response_ms.add(ms);
        }
        if let Some(ratio) = component.error_ratio {
            self.error_ratio.add(ratio);
        }
    }

    pub fn watched_s(&self) -> f64 {
        self.up_s + self.degraded_s + self.down_s
    }

    /// Share of the watched time in which it was not down.
    pub fn uptime(&self) -> Option<f64> {
        let watched = self.watched_s();
        (watched > 0.0).then(|| 1.0 - self.down_s / watched)
    }
}

impl History {
    /// Adds one look; it stands for the time since the one before.
    pub fn note(&mut self, snapshot: &Snapshot) {
        let since = self.last_ms.map_or(0, |last| snapshot.at_ms - last);
        let seconds = (since as f64 / 1e3).clamp(0.0, LOOK_STANDS_FOR_MAX_S);
        self.last_ms = Some(snapshot.at_ms);
        self.open(snapshot.at_ms);
        let newly_lost = self.lost_before.map_or(0, |before| (snapshot.lost() - before).max(0));
        // A shard that can't be asked tells of no loss; that is no reason to count it anew later.
        if snapshot.shards.iter().all(|shard| shard.reachable) {
            self.lost_before = Some(snapshot.lost());
        }
        let (Some(day), Some(slot)) = (self.days.last_mut(), self.slots.last_mut()) else { return };
        for component in &snapshot.components {
            day.parts.entry(component.part).or_default().add(component, seconds);
            slot.parts.entry(component.part).or_default().add(component, seconds);
        }
        day.lost += newly_lost;
        if snapshot.is_delayed() {
            day.delayed_s += seconds;
        }
        if let Some(rate) = snapshot.hop("applied").and_then(|hop| hop.per_second) {
            slot.points_per_s.add(rate);
        }
        slot.lag_s = slot.lag_s.into_iter().chain(snapshot.lag_s()).reduce(f64::max);
    }

    /// Begins a new day or slot when it is time; a clock that went back goes on in the last ones.
    fn open(&mut self, at_ms: i64) {
        let today = day_of(at_ms);
        if self.days.last().is_none_or(|last| last.day < today) {
            self.days.push(Day { day: today, ..Day::default() });
        }
        let at = at_ms.div_euclid(1_000).div_euclid(SLOT_S) * SLOT_S;
        if self.slots.last().is_none_or(|last| last.at < at) {
            self.slots.push(Slot { at, ..Slot::default() });
        }
        let too_many = self.days.len().saturating_sub(DAYS_MAX);
        self.days.drain(..too_many);
        let too_many = self.slots.len().saturating_sub(SLOTS_MAX);
        self.slots.drain(..too_many);
    }

    /// The last [`DAYS_MAX`] calendar days up to `at_ms`; `None` where nobody watched.
    pub fn calendar(&self, at_ms: i64) -> Vec<(String, Option<&Day>)> {
        const DAY_MS: i64 = 86_400_000;
        let back = (0..DAYS_MAX as i64).rev();
        let names = back.map(|days| day_of(at_ms - days * DAY_MS));
        names.map(|name| (name.clone(), self.days.iter().find(|day| day.day == name))).collect()
    }

    /// One part over all days.
    pub fn total(&self, part: Part) -> Tally {
        let mut total = Tally::default();
        for tally in self.days.iter().filter_map(|day| day.parts.get(&part)) {
            total.up_s += tally.up_s;
            total.degraded_s += tally.degraded_s;
            total.down_s += tally.down_s;
        }
        total
    }
}

fn day_of(at_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(at_ms).unwrap_or_default();
    at.strftime("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::snapshot::{EnvironmentState, ShardState};

    const NOON_MS: i64 = 1_795_348_800_000;

    fn look(at_ms: i64, condition: Condition, lost: i64) -> Snapshot {
        let component = Component { condition, ..Component::unknown(Part::Log) };
        let environment = EnvironmentState { lost, ..EnvironmentState::default() };
        let shard = ShardState { reachable: true, ..ShardState::default() };
        Snapshot {
            at_ms,
            components: vec![component],
            environments: vec![environment],
            shards: vec![shard],
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_look_stands_for_the_time_since_the_one_before_and_a_pause_is_nobodys() {
        let mut history = History::default();
        history.note(&look(NOON_MS, Condition::Up, 0));
        history.note(&look(NOON_MS + 30_000, Condition::Up, 0));
        history.note(&look(NOON_MS + 40_000, Condition::Down, 0));
        history.note(&look(NOON_MS + 7_200_000, Condition::Up, 0));
        let total = history.total(Part::Log);
        assert_eq!((total.up_s, total.down_s), (30.0 + LOOK_STANDS_FOR_MAX_S, 10.0));
        assert_eq!(total.uptime(), Some(0.9));
        assert_eq!((history.days.len(), history.slots.len()), (1, 2));
    }

    #[test]
    fn it_never_grows_beyond_its_days_and_slots() {
        let mut history = History::default();
        for hours in 0..(24 * 100) {
            history.note(&look(NOON_MS + hours * 3_600_000, Condition::Up, 0));
        }
        assert_eq!((history.days.len(), history.slots.len()), (DAYS_MAX, SLOTS_MAX));
        assert!(serde_json::to_string(&history).unwrap().len() < 300 << 10);
        let calendar = history.calendar(NOON_MS + 2_400 * 3_600_000);
        assert_eq!(calendar.len(), DAYS_MAX);
        assert!(calendar.first().unwrap().1.is_some());
    }

    #[test]
    fn a_loss_counts_once_on_the_day_it_became_known() {
        let mut history = History::default();
        for (at, lost) in [(0, 2), (1, 2), (2, 5), (3, 5)] {
            history.note(&look(NOON_MS + at * 1_000, Condition::Up, lost));
        }
        assert_eq!(history.days.last().unwrap().lost, 3, "what was there before is not today's");
    }
}
