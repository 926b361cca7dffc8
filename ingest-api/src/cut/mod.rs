//! What a stranger sent becomes batches, by fixed rules.
//!
//! Foreign senders do not count, so a batch of theirs is named by its content. For a body that is
//! sent again to give the same names, how it is cut depends on the body alone: never on what else
//! is going on, or on what is refused for a reason that may pass. What is refused here is refused
//! for the body's own words. A clock has two says, both before the cut: it gives the times that the
//! sender left out, and refuses those too far ahead. Once such a time has come near, the same body
//! is cut otherwise, as if it were regrouped.
//!
//! One batch is of one host. A host's series go into batches in the order of the body, each filled
//! up to a fixed size. A sender that regroups its samples gets other names for the same points:
//! those are caught where they are stored, by (series, ts).

mod intake;

use bytes::Bytes;
use spillway_proto::batch::window_of;
use spillway_proto::frame::Encoder;
use spillway_proto::{Batch, BatchId, Point, Series};

pub use intake::{Intake, Naming, Refusals, TooMuch};

use intake::Entry;

/// Points of one batch. Far below proto's limit: a batch that is retried or lost is lost whole.
const BATCH_POINTS_MAX: usize = 20_000;
/// Series of one batch.
const BATCH_SERIES_MAX: usize = 5_000;
/// What a batch may be before compression, by [`cost`], which never says too little: it fits a
/// frame even if nothing of it can be compressed.
const BATCH_RAW_BYTES_MAX: usize = 512 * 1024;
/// A point in a frame: eight bytes of value, a varint of time.
const POINT_BYTES_MAX: usize = 18;
/// A text in a frame's table, beside its own bytes: tag, length and reference.
const TEXT_BYTES_MAX: usize = 10;
/// A series in a frame, beside its texts and points: the counts and its kind.
const SERIES_BYTES_MAX: usize = 24;

/// Cuts what was taken in into frames of `environment`. The number beside them is of points that
/// do not fit a frame: none, as far as [`Intake`] and the frame agree on what is allowed.
#[must_use]
pub fn frames(environment: &str, intake: Intake) -> (Vec<Bytes>, usize) {
    let mut encoder = Encoder::new();
    let (mut frames, mut misfits) = (Vec::new(), 0);
    for mut batch in batches(environment, intake.into_entries()) {
        let points = batch.points();
        match encoder.encode_by_content(&mut batch) {
            Ok(frame) => frames.push(frame),
            Err(error) => {
                tracing::error!(%error, points, "a batch of a foreign body fits no frame");
                misfits += points;
            }
        }
    }
    (frames, misfits)
}

/// The batches of `entries`, in a fixed order.
fn batches(environment: &str, mut entries: Vec<Entry>) -> Vec<Batch> {
    // Stable: within a host the order of the body stays.
    entries.sort_by(|a, b| a.host.cmp(&b.host));
    let mut batches: Vec<Batch> = Vec::new();
    let mut filled = Filled::default();
    for entry in entries {
        let Entry { host, metric, labels, kind, unit, points } = entry;
        if batches.last().is_none_or(|batch| batch.host != host) {
            batches.push(empty(environment, &host));
            filled = Filled::default();
        }
        let mut rest = in_order(points);
        while !rest.is_empty() {
            let named = cost(&metric, &unit, &labels);
            if !filled.holds(named) {
                batches.push(empty(environment, &host));
                filled = Filled::default();
            }
            let after = rest.split_off(filled.room(named).min(rest.len()));
            filled.add(named, rest.len());
            let (metric, labels, unit) = (metric.clone(), labels.clone(), unit.clone());
            let series = Series { metric, labels, kind, unit, points: rest };
            if let Some(batch) = batches.last_mut() {
                batch.series.push(series);
            }
            rest = after;
        }
    }
    batches.iter_mut().for_each(date);
    batches.retain(|batch| !batch.series.is_empty());
    batches
}

/// Ascending in time. Of points with the same time the last one of the body stays: the later word
/// wins, as it does between bodies.
fn in_order(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by_key(|point| point.ts_ms);
    points.reverse();
    points.dedup_by_key(|point| point.ts_ms);
    points.reverse();
    points
}

fn empty(environment: &str, host: &str) -> Batch {
    Batch {
        id: BatchId::Content { hash: 0 },
        environment: environment.to_owned(),
        host: host.to_owned(),
        window_ts: 0,
        series: Vec::new(),
        previous: None,
        declarations: Vec::new(),
        closing: false,
        host_info: None,
    }
}

/// A batch is dated by its earliest point.
fn date(batch: &mut Batch) {
    let earliest = batch.series.iter().filter_map(|series| series.points.first());
    let earliest = earliest.map(|point| point.ts_ms).min().and_then(window_of);
    batch.window_ts = earliest.unwrap_or_default();
}

fn cost(metric: &str, unit: &str, labels: &[(String, String)]) -> usize {
    let text = |text: &str| text.len() + TEXT_BYTES_MAX;
    let labels = labels.iter().map(|(name, value)| text(name) + text(value));
    SERIES_BYTES_MAX + text(metric) + text(unit) + labels.sum::<usize>()
}

/// How full a batch is.
#[derive(Default)]
struct Filled {
    series: usize,
    points: usize,
    bytes: usize,
}

impl Filled {
    /// Points of a series with this cost that still fit.
    fn room(&self, named: usize) -> usize {
        let bytes = BATCH_RAW_BYTES_MAX.saturating_sub(self.bytes + named) / POINT_BYTES_MAX;
        bytes.min(BATCH_POINTS_MAX - self.points)
    }

    fn holds(&self, named: usize) -> bool {
        self.series < BATCH_SERIES_MAX && self.room(named) > 0
    }

    fn add(&mut self, named: usize, points: usize) {
        self.series += 1;
        self.points += points;
        self.bytes += named + points * POINT_BYTES_MAX;
    }
}

#[cfg(test)]
mod tests;
