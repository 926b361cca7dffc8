//! What was measured in one window, series by series, before it has an id.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Instant;

use spillway_proto::limits;
use spillway_proto::{Point, Series};

use crate::collect::{Labels, Reading};
use crate::metrics::{Metrics, Reason};

/// Series one window may hold: all inputs are bounded far below it, together.
const SERIES_MAX: usize = 4 * limits::BATCH_SERIES_MAX;

/// One window's series. `add` what was read, `end` it, and `assemble` makes batches of it.
#[derive(Debug, Default)]
pub struct Window {
    series: BTreeMap<(Cow<'static, str>, Labels), Series>,
    ended: Option<Ended>,
}

/// When a window ended, by every clock.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Time of its last points.
    pub ts_ms: i64,
    pub wall_ms: i64,
    pub boot_ms: i64,
    pub at: Instant,
}

impl Window {
    /// Adds a reading of `ts_ms`. What no batch could carry is counted and dropped here, so that
    /// one bad name never costs a batch.
    pub fn add(&mut self, ts_ms: i64, reading: Reading, metrics: &Metrics) {
        if let Err(reason) = self.try_add(ts_ms, reading) {
            metrics.points_dropped.get_or_create(&Reason { reason }).inc();
        }
    }

    fn try_add(&mut self, ts_ms: i64, reading: Reading) -> Result<(), &'static str> {
        if !fits(&reading) {
            return Err("name-too-long");
        }
        if !(0..=limits::TS_MS_MAX).contains(&ts_ms) {
            return Err("clock-out-of-range");
        }
        let point = Point { ts_ms, value: reading.value };
        let full = self.series.len() >= SERIES_MAX;
        match self.series.entry((reading.metric, reading.labels)) {
            std::collections::btree_map::Entry::Occupied(mut known) => {
                let series = known.get_mut();
                if series.kind != reading.kind {
                    return Err("two-kinds");
                }
                // The clock stepped back, or two inputs say the same name.
                if series.points.last().is_some_and(|last| last.ts_ms >= ts_ms) {
                    return Err("same-time");
                }
                series.points.push(point);
            }
            std::collections::btree_map::Entry::Vacant(new) if !full => {
                let (metric, labels) = new.key();
                let own =
                    |(name, value): &(Cow<'_, str>, String)| (name.to_string(), value.clone());
                let series = Series {
                    metric: metric.to_string(),
                    labels: labels.iter().map(own).collect(),
                    kind: reading.kind,
                    unit: reading.unit.to_owned(),
                    points: vec![point],
                };
                new.insert(series);
            }
            std::collections::btree_map::Entry::Vacant(_) => return Err("too-many-series"),
        }
        Ok(())
    }

    /// Says when it ended.
    pub fn end(&mut self, ts_ms: i64, wall_ms: i64, boot_ms: i64, at: Instant) {
        self.ended = Some(Ended { ts_ms, wall_ms, boot_ms, at });
    }

    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    #[must_use]
    pub fn points(&self) -> usize {
        self.series.values().map(|series| series.points.len()).sum()
    }

    /// Its series, in the order of their names.
    #[must_use]
    pub fn into_series(self) -> Vec<Series> {
        self.series.into_values().collect()
    }
}

fn fits(reading: &Reading) -> bool {
    let label_fits = |(name, value): &(Cow<'_, str>, String)| {
        !name.is_empty()
            && name.len() <= limits::LABEL_NAME_BYTES_MAX
            && value.len() <= limits::LABEL_VALUE_BYTES_MAX
    };
    let bytes: usize = reading.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    !reading.metric.is_empty()
        && reading.metric.len() <= limits::METRIC_BYTES_MAX
        && reading.labels.len() <= limits::LABELS_MAX
        && bytes <= limits::LABELS_BYTES_MAX
        && reading.labels.iter().all(label_fits)
}
