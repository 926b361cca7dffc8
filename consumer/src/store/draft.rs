//! What a batch will write, before the ledger has decided whether it may: its rows cut at the
//! grid, its points judged by time, the names of series not seen before.
//!
//! Everything lies in a few growing vectors that are used again: nothing is allocated per point
//! or per row. Time is judged against the broker's append time; the consumer's own clock never
//! counts.

use std::ops::Range;

use spillway_proto::batch::window_of;
use spillway_proto::frame::{FrameView, SeriesView};
use spillway_proto::limits::WINDOW_MS;
use spillway_proto::series::{Canonical, SeriesIdentity, host_id};
use spillway_proto::{BatchId, Declaration, HostInfo, Kind, PreviousEpoch};

use super::series::Known;
use crate::verify::{Reason, Refused, named};

/// Which times have a place, for records appended at a given moment.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    pub raw_retention_ms: i64,
    pub future_max_ms: i64,
    /// The first window that still has a partition in MySQL.
    pub floor_ts: u32,
}

/// One batch that may be applied.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its record's place among the transaction's records.
    pub index: usize,
    pub id: BatchId,
    pub crc: u32,
    pub environment: String,
    pub host: String,
    pub host_id: u64,
    pub window_ts: u32,
    /// Points that have rows; those too old are only counted.
    pub points: u32,
    pub expired: u32,
    /// Second of the newest point that has a row; 0 without any.
    pub newest_ts: u32,
    /// Minutes whose rollups its points change.
    pub minutes: Vec<u32>,
    pub rows: Range<usize>,
    pub sightings: Range<usize>,
    pub previous: Option<PreviousEpoch>,
    pub declarations: Vec<Declaration>,
    pub closing: bool,
    pub host_info: Option<HostInfo>,
}

/// One series' points in one window of one batch.
#[derive(Clone, Debug)]
pub struct DraftRow {
    pub series_id: u64,
    pub window_ts: u32,
    pub samples: Range<usize>,
}

/// A series that this assignment has not met before.
#[derive(Clone, Debug)]
pub struct Sighting {
    pub identity: SeriesIdentity,
    pub metric: String,
    /// As `series.labels` holds them: a JSON object with sorted keys.
    pub labels: String,
    pub kind: Kind,
    pub unit: String,
}

/// The batches of one transaction.
#[derive(Default)]
pub struct Drafts {
    pub batches: Vec<Draft>,
    pub rows: Vec<DraftRow>,
    /// (ms since the window's start, value).
    pub samples: Vec<(i64, f64)>,
    pub sightings: Vec<Sighting>,
    canonical: Canonical,
}

impl Drafts {
    /// Starts over, keeping the memory.
    pub fn clear(&mut self) {
        self.batches.clear();
        self.rows.clear();
        self.samples.clear();
        self.sightings.clear();
    }

    /// Adds the batch of a verified frame. A refused one leaves nothing behind.
    pub fn add(
        &mut self,
        index: usize,
        view: &FrameView<'_>,
        (appended_ms, judge): (i64, &Judge),
        known: &Known,
    ) -> Result<(), Refused> {
        let (rows, sightings) = (self.rows.len(), self.sightings.len());
        let samples = self.samples.len();
        let mut kept = Kept::new(appended_ms, judge);
        self.canonical.set_host(view.environment, view.host);
        for series in view.series() {
            if self.add_series(&series, &mut kept, known).is_none() {
                self.rows.truncate(rows);
                self.samples.truncate(samples);
                self.sightings.truncate(sightings);
                return Err(Refused {
                    reason: Reason::FutureTime,
                    batch: Some(Box::new(named(view))),
                });
            }
        }
        self.batches.push(Draft {
            index,
            id: view.header.id,
            crc: view.header.crc,
            environment: view.environment.to_owned(),
            host: view.host.to_owned(),
            host_id: host_id(view.environment, view.host),
            window_ts: view.header.window_ts,
            points: kept.points,
            expired: kept.expired,
            newest_ts: u32::try_from(kept.newest_ms / 1_000).unwrap_or(0),
            minutes: kept.minutes,
            rows: rows..self.rows.len(),
            sightings: sightings..self.sightings.len(),
            previous: view.previous,
            declarations: view.declarations.clone(),
            closing: view.closing,
            host_info: view.host_info.clone(),
        });
        Ok(())
    }

    /// `None` when a point lies too far in the future.
    fn add_series(
        &mut self,
        series: &SeriesView<'_>,
        kept: &mut Kept,
        known: &Known,
    ) -> Option<()> {
        let identity = self.canonical.identify(series.metric, series.labels.iter());
        let rows = self.rows.len();
        // No window is open: every time is past the end of this one.
        let mut window_end_ms = i64::MIN;
        for point in series.points {
            if point.ts_ms > kept.newest_allowed_ms {
                return None;
            }
            if point.ts_ms < kept.oldest_allowed_ms {
                kept.expired += 1;
                continue;
            }
            if point.ts_ms >= window_end_ms {
                // The decoder let no time through that has no window.
                let window_ts = window_of(point.ts_ms)?;
                window_end_ms = i64::from(window_ts) * 1_000 + WINDOW_MS;
                let at = self.samples.len();
                let series_id = identity.id;
                self.rows.push(DraftRow { series_id, window_ts, samples: at..at });
                kept.minute(window_ts);
            }
            self.samples.push((point.ts_ms - (window_end_ms - WINDOW_MS), point.value));
            if let Some(row) = self.rows.last_mut() {
                row.samples.end = self.samples.len();
            }
            kept.points += 1;
            kept.newest_ms = kept.newest_ms.max(point.ts_ms);
        }
        if self.rows.len() > rows && !known.contains(identity.id) {
            self.sightings.push(sighting(identity, series));
        }
        Some(())
    }
}

/// What of one batch has a place in MySQL.
struct Kept {
    oldest_allowed_ms: i64,
    newest_allowed_ms: i64,
    points: u32,
    expired: u32,
    newest_ms: i64,
    minutes: Vec<u32>,
}

impl Kept {
    fn new(appended_ms: i64, judge: &Judge) -> Self {
        let floor_ms = i64::from(judge.floor_ts) * 1_000;
        Self {
            oldest_allowed_ms: appended_ms.saturating_sub(judge.raw_retention_ms).max(floor_ms),
            newest_allowed_ms: appended_ms.saturating_add(judge.future_max_ms),
            points: 0,
            expired: 0,
            newest_ms: 0,
            minutes: Vec::new(),
        }
    }

    fn minute(&mut self, window_ts: u32) {
        let minute = window_ts / 60 * 60;
        if self.minutes.last() != Some(&minute) && !self.minutes.contains(&minute) {
            self.minutes.push(minute);
        }
    }
}

fn sighting(identity: SeriesIdentity, series: &SeriesView<'_>) -> Sighting {
    Sighting {
        identity,
        metric: series.metric.to_owned(),
        labels: json_object(series.labels.iter()),
        kind: series.kind,
        unit: series.unit.to_owned(),
    }
}

/// Sorted pairs as the text of a JSON object.
pub fn json_object<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::from("{");
    for (place, (name, value)) in pairs.enumerate() {
        if place > 0 {
            text.push(',');
        }
        let quoted = |part: &str| serde_json::Value::from(part).to_string();
        text.push_str(&quoted(name));
        text.push(':');
        text.push_str(&quoted(value));
    }
    text.push('}');
    text
}

#[cfg(test)]
#[path = "draft_tests.rs"]
mod tests;
