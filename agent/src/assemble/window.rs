//! What was measured in one window, series by series, before it has an id.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

use spillway_proto::limits;
use spillway_proto::{Point, Series};
use xxhash_rust::xxh3::Xxh3;

use crate::collect::Reading;
use crate::collect::tray::Pack;
use crate::metrics::{Metrics, Reason};

/// Series one window may hold: all inputs are bounded far below it, together.
const SERIES_MAX: usize = 4 * limits::BATCH_SERIES_MAX;

/// One window's series. `add` what was read, `end` it, and `assemble` makes batches of it.
#[derive(Debug, Default)]
pub struct Window {
    series: HashMap<u128, Series>,
    /// What was read at other paces. Unpacked a lot at a time: all of it at once would be several
    /// times as large.
    packs: Vec<Pack>,
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

    /// As [`Self::add`], at any time: whoever sends points with times of their own sends them in
    /// any order, and of two at one time the later one counts.
    pub fn place(&mut self, ts_ms: i64, reading: Reading, metrics: &Metrics) {
        let name = name_of(&reading);
        let same = |series: &&mut Series| series.kind == reading.kind;
        if let Some(series) = self.series.get_mut(&name).filter(same)
            && series.points.last().is_some_and(|last| last.ts_ms >= ts_ms)
        {
            let value = reading.value;
            match series.points.binary_search_by_key(&ts_ms, |point| point.ts_ms) {
                Ok(at) => {
                    if let Some(point) = series.points.get_mut(at) {
                        point.value = value;
                    }
                    let reason = Reason { reason: "same-time" };
                    metrics.points_dropped.get_or_create(&reason).inc();
                }
                Err(_) if ts_ms < 0 => {
                    let reason = Reason { reason: "clock-out-of-range" };
                    metrics.points_dropped.get_or_create(&reason).inc();
                }
                Err(at) => series.points.insert(at, Point { ts_ms, value }),
            }
            return;
        }
        self.add(ts_ms, reading, metrics);
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
        match self.series.entry(name_of(&reading)) {
            Entry::Occupied(mut known) => {
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
            Entry::Vacant(new) if !full => {
                let labels = reading.labels.into_iter();
                new.insert(Series {
                    metric: reading.metric.into_owned(),
                    labels: labels.map(|(name, value)| (name.into_owned(), value)).collect(),
                    kind: reading.kind,
                    unit: reading.unit.to_owned(),
                    points: vec![point],
                });
            }
            Entry::Vacant(_) => return Err("too-many-series"),
        }
        Ok(())
    }

    /// Takes what lay in the tray along.
    pub fn carry(&mut self, packs: Vec<Pack>) {
        self.packs.extend(packs);
    }

    /// What it carries, to be unpacked.
    #[must_use]
    pub fn take_packs(&mut self) -> Vec<Pack> {
        std::mem::take(&mut self.packs)
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
        let series: usize = self.series.values().map(|series| series.points.len()).sum();
        series + self.packs.iter().map(Pack::len).sum::<usize>()
    }

    /// Series in it, those it carries left out.
    #[must_use]
    pub fn series(&self) -> usize {
        self.series.len()
    }

    /// Its series, in the order of their names.
    #[must_use]
    pub fn into_series(self) -> Vec<Series> {
        let mut series: Vec<_> = self.series.into_values().collect();
        series.sort_unstable_by(|a, b| (&a.metric, &a.labels).cmp(&(&b.metric, &b.labels)));
        series
    }
}

/// Stands for a series within one window: the name itself, twice, would be most of a window's
/// memory.
fn name_of(reading: &Reading) -> u128 {
    let mut hasher = Xxh3::new();
    let mut part = |text: &str| {
        hasher.update(&text.len().to_le_bytes());
        hasher.update(text.as_bytes());
    };
    part(&reading.metric);
    for (name, value) in &reading.labels {
        part(name);
        part(value);
    }
    hasher.digest128()
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
