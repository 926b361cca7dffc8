//! What must lie in MySQL for one host, series by series, computed from the ledger alone.

use std::collections::{BTreeMap, BTreeSet};

use spillway_proto::BatchId;
use spillway_proto::limits::WINDOW_S;

use crate::ledger::{Attempted, Fate};
use crate::recipe::{REVISED, metric_of, revised_value, times, value_at};

/// What one time of one series may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    pub ts_ms: i64,
    /// What must be there, if anything must.
    pub must: Option<f64>,
    /// What may be there instead: from a batch of which nothing was heard.
    pub may: Option<f64>,
    /// Who wrote it last.
    pub by: BatchId,
}

/// One batch that may have written a window.
#[derive(Clone, Debug)]
struct Writer {
    order: (u128, u64),
    by: BatchId,
    must: bool,
    version: u64,
    series: usize,
    points: usize,
}

/// One host's windows, with who wrote them.
#[derive(Clone, Debug, Default)]
pub struct Host {
    plain: BTreeMap<u32, Vec<Writer>>,
    revised: BTreeMap<u32, Vec<Writer>>,
}

impl Host {
    /// Takes in what the ledger says of one of the host's batches.
    pub fn add(&mut self, entry: &Attempted) {
        let must = match entry.fate {
            Fate::Ok => true,
            Fate::Info => false,
            Fate::Fail | Fate::Declared | Fate::Withheld => return,
        };
        let recipe = &entry.recipe;
        let order = recipe.counted().map_or((0, 0), |(_, epoch, seq)| (epoch.as_u128(), seq));
        let (series, points) = (recipe.series, recipe.points);
        let writer = |version| Writer { order, by: recipe.id, must, version, series, points };
        self.plain.entry(recipe.window_ts).or_default().push(writer(0));
        if recipe.revises {
            let before = recipe.window_ts.saturating_sub(WINDOW_S);
            self.revised.entry(recipe.window_ts).or_default().push(writer(0));
            self.revised.entry(before).or_default().push(writer(1));
        }
    }

    /// Every series that anything was sent of.
    #[must_use]
    pub fn metrics(&self) -> BTreeSet<String> {
        let series = self.plain.values().flatten().map(|writer| writer.series).max();
        let mut metrics: BTreeSet<String> = (0..series.unwrap_or(0)).map(metric_of).collect();
        if !self.revised.is_empty() {
            metrics.insert(REVISED.into());
        }
        metrics
    }

    /// The points of one series, in order of time.
    #[must_use]
    pub fn points_of(&self, metric: &str) -> Vec<Expected> {
        if metric == REVISED {
            return expected(&self.revised, |_| true, revised_value);
        }
        let number = metric.rsplit('.').next().and_then(|number| number.parse::<usize>().ok());
        let Some(number) = number.filter(|number| metric_of(*number) == metric) else {
            return vec![];
        };
        expected(&self.plain, |writer| number < writer.series, |ts, _| value_at(number, ts))
    }
}

/// The last writer wins: of those that must have written, the last; of those that may have, any
/// that came after it.
fn expected(
    windows: &BTreeMap<u32, Vec<Writer>>,
    holds: impl Fn(&Writer) -> bool,
    value: impl Fn(i64, u64) -> f64,
) -> Vec<Expected> {
    let mut all = Vec::new();
    for (window_ts, writers) in windows {
        let mut writers: Vec<&Writer> = writers.iter().filter(|writer| holds(writer)).collect();
        writers.sort_by_key(|writer| writer.order);
        let Some(newest) = writers.last() else { continue };
        let must = writers.iter().rev().find(|writer| writer.must);
        let may = writers.iter().rev().find(|writer| !writer.must);
        let may = may.filter(|may| must.is_none_or(|must| must.order < may.order));
        all.extend(times(*window_ts, newest.points).map(|ts_ms| Expected {
            ts_ms,
            must: must.map(|writer| value(ts_ms, writer.version)),
            may: may.map(|writer| value(ts_ms, writer.version)),
            by: must.map_or(newest.by, |writer| writer.by),
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::recipe::Recipe;

    fn entry(seq: u64, fate: Fate) -> Attempted {
        let id = BatchId::Sequenced { agent_id: Uuid::max(), epoch: Uuid::from_u128(7), seq };
        let recipe = Recipe {
            id,
            environment: "demo".into(),
            host: "h".into(),
            window_ts: 1_000 + 10 * seq as u32,
            series: 2,
            points: 1,
            revises: true,
            declares: vec![],
            closing: false,
        };
        Attempted { recipe: Arc::new(recipe), fate, attempts: 1, puts: 0 }
    }

    #[test]
    fn the_last_that_was_accepted_wins_and_an_open_one_after_it_may() {
        let mut host = Host::default();
        for (seq, fate) in [(1, Fate::Ok), (2, Fate::Ok), (3, Fate::Info), (4, Fate::Fail)] {
            host.add(&entry(seq, fate));
        }
        let revised = host.points_of(REVISED);
        let at = |window: i64, must: Option<u64>, may: Option<u64>| {
            let ts_ms = window * 1_000;
            let found = revised.iter().find(|expected| expected.ts_ms == ts_ms).unwrap();
            assert_eq!(found.must, must.map(|version| revised_value(ts_ms, version)), "{window}");
            assert_eq!(found.may, may.map(|version| revised_value(ts_ms, version)), "{window}");
        };
        at(1_000, Some(1), None);
        at(1_010, Some(1), None);
        at(1_020, Some(0), Some(1));
        at(1_030, None, Some(0));
        assert_eq!(revised.len(), 4);
        assert_eq!(host.points_of("e2e.value.0001").len(), 3);
        assert!(host.points_of("e2e.value.0002").is_empty());
        assert_eq!(host.metrics().len(), 3);
    }
}
