//! Folds the lines of a window into readings: one pass, bounded series, bounded memory a series.
//!
//! Counters become deltas, gauges levels, timers and histograms `.count` and `.sum` (deltas) with
//! `.min .max .p50 .p95 .p99`, sets `.distinct`. A series that was silent says nothing; what could
//! not be kept is counted and the first names are told.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;
use spillway_proto::Kind;

use super::parse::{Line, Parsed, Type, Value, parse};
use super::sketch::{Distinct, Quantiles};
use crate::collect::{Labels, Reading};
use crate::metrics::Metrics;
use crate::settings::StatsdSettings;

/// Names told of what was dropped in a window.
const NAMES_MAX: usize = 5;

/// What the last window with drops could not keep.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Dropped {
    pub series: u64,
    pub lines: u64,
    /// The first few metrics concerned.
    pub names: Vec<String>,
}

/// All series of the current window, and the gauges of earlier ones.
pub struct Aggregator {
    series: HashMap<String, Series>,
    series_max: usize,
    gauge_memory: Duration,
    metrics: Metrics,
    dropped: Dropped,
    dropped_series: Distinct,
    last_dropped: Option<Dropped>,
    /// Reused for every line.
    key: String,
}

struct Series {
    metric: String,
    labels: Labels,
    state: State,
    /// Said something in this window.
    touched: bool,
    /// When it last did, for gauges.
    seen: Instant,
}

enum State {
    Counter(f64),
    Gauge(f64),
    Values { values: Box<Quantiles>, unit: &'static str },
    Set(Box<Distinct>),
}

impl Aggregator {
    #[must_use]
    pub fn new(settings: &StatsdSettings, metrics: Metrics) -> Self {
        Self {
            series: HashMap::new(),
            series_max: settings.series_max as usize,
            gauge_memory: settings.gauge_memory.get(),
            metrics,
            dropped: Dropped::default(),
            dropped_series: Distinct::default(),
            last_dropped: None,
            key: String::new(),
        }
    }

    /// Takes a datagram: lines, separated by newlines.
    pub fn take(&mut self, datagram: &[u8], now: Instant) {
        let lines = datagram.split(|byte| *byte == b'\n');
        for line in lines.map(<[u8]>::trim_ascii_end).filter(|line| !line.is_empty()) {
            self.metrics.statsd_lines.inc();
            match parse(line) {
                Ok(Parsed::Metric(line)) => self.add(&line, now),
                Ok(Parsed::Ignored) => {
                    self.metrics.statsd_ignored.inc();
                }
                Err(_) => {
                    self.metrics.statsd_malformed.inc();
                }
            }
        }
    }

    fn add(&mut self, line: &Line<'_>, now: Instant) {
        let mut labels = Vec::new();
        line.labels(&mut labels);
        write_key(&mut self.key, line, &labels);
        if !self.series.contains_key(self.key.as_str()) {
            if self.series.len() >= self.series_max && !self.make_room() {
                return self.drop_line(line.name);
            }
            let labels = labels
                .into_iter()
                .map(|(name, value)| (Cow::Owned(name.to_owned()), value.into_owned()))
                .collect();
            let state = State::of(line.kind);
            let metric = line.name.to_owned();
            let series = Series { metric, labels, state, touched: false, seen: now };
            self.series.insert(self.key.clone(), series);
        }
        if let Some(series) = self.series.get_mut(self.key.as_str()) {
            series.touched = true;
            series.seen = now;
            for value in line.values().flatten() {
                series.state.add(value, line.rate);
            }
        }
    }

    /// Forgets gauges that are only remembered. Whether that made room.
    fn make_room(&mut self) -> bool {
        let before = self.series.len();
        self.series.retain(|_, series| series.touched);
        self.series.len() < before
    }

    fn drop_line(&mut self, name: &str) {
        self.dropped.lines += 1;
        self.metrics.statsd_lines_dropped.inc();
        self.dropped_series.add(&self.key);
        if self.dropped.names.len() < NAMES_MAX && !self.dropped.names.iter().any(|n| n == name) {
            self.dropped.names.push(name.to_owned());
        }
    }

    /// Ends the window: its readings, and what it had to drop.
    pub fn flush(&mut self, now: Instant) -> Vec<Reading> {
        let (mut out, memory) = (Vec::new(), self.gauge_memory);
        // One pass: a timer's buckets go before the next one's readings come.
        self.series.retain(|_, series| {
            if std::mem::take(&mut series.touched) {
                series.tell(&mut out);
            }
            matches!(series.state, State::Gauge(_)) && now.duration_since(series.seen) <= memory
        });
        if self.dropped.lines > 0 {
            let mut dropped = std::mem::take(&mut self.dropped);
            dropped.series = std::mem::take(&mut self.dropped_series).count() as u64;
            self.metrics.statsd_series_dropped.inc_by(dropped.series);
            tracing::warn!(
                series = dropped.series,
                lines = dropped.lines,
                metrics = ?dropped.names,
                "StatsD sent more series than statsd.series_max; these were not kept"
            );
            self.last_dropped = Some(dropped);
        }
        out
    }

    /// What the last window with drops could not keep.
    #[must_use]
    pub fn last_dropped(&self) -> Option<Dropped> {
        self.last_dropped.clone()
    }
}

impl State {
    fn of(kind: Type) -> Self {
        let values = |unit| Self::Values { values: Box::default(), unit };
        match kind {
            Type::Counter => Self::Counter(0.0),
            Type::Gauge => Self::Gauge(0.0),
            Type::Timer => values("ms"),
            Type::Histogram => values(""),
            Type::Set => Self::Set(Box::default()),
        }
    }

    fn add(&mut self, value: Value<'_>, rate: f64) {
        match (self, value) {
            (Self::Counter(sum), Value::Number(number)) => *sum += number / rate,
            (Self::Gauge(level), Value::Number(number)) => *level = number,
            (Self::Gauge(level), Value::Change(change)) => *level += change,
            (Self::Values { values, .. }, Value::Number(number)) => {
                values.add(number, 1.0 / rate);
            }
            (Self::Set(set), Value::Member(member)) => set.add(member),
            // `parse` checks each value against the line's type, and the type is in the key.
            _ => {}
        }
    }
}

impl Series {
    fn tell(&mut self, out: &mut Vec<Reading>) {
        let mut say = |suffix: &str, kind, unit, value| {
            let metric = Cow::Owned(format!("{}{suffix}", self.metric));
            out.push(Reading { metric, labels: self.labels.clone(), kind, unit, value });
        };
        match &self.state {
            State::Counter(sum) => say("", Kind::Delta, "", *sum),
            State::Gauge(level) => say("", Kind::Gauge, "", *level),
            State::Set(set) => say(".distinct", Kind::Gauge, "1", set.count()),
            State::Values { values, unit } => {
                say(".count", Kind::Delta, "1", values.count);
                say(".sum", Kind::Delta, unit, values.sum);
                say(".min", Kind::Gauge, unit, values.min);
                say(".max", Kind::Gauge, unit, values.max);
                for (suffix, q) in [(".p50", 0.5), (".p95", 0.95), (".p99", 0.99)] {
                    if let Some(value) = values.quantile(q) {
                        say(suffix, Kind::Gauge, unit, value);
                    }
                }
            }
        }
    }
}

/// Type, name and labels, apart by a control character that no line can hold.
fn write_key(key: &mut String, line: &Line<'_>, labels: &[(&str, Cow<'_, str>)]) {
    key.clear();
    let written = write!(key, "{:?}\u{1f}{}", line.kind, line.name).and_then(|()| {
        labels.iter().try_for_each(|(name, value)| write!(key, "\u{1f}{name}\u{1e}{value}"))
    });
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn aggregator(series_max: u32) -> Aggregator {
        let settings = StatsdSettings { series_max, ..StatsdSettings::default() };
        Aggregator::new(&settings, Metrics::for_tests())
    }

    fn said(aggregator: &mut Aggregator) -> BTreeMap<String, f64> {
        let tell = |reading: Reading| {
            let labels: Vec<_> = reading.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
            (format!("{}{{{}}}", reading.metric, labels.join(",")), reading.value)
        };
        aggregator.flush(Instant::now()).into_iter().map(tell).collect()
    }

    #[test]
    fn a_counter_is_what_happened_in_the_window_with_sampling_undone() {
        let mut all = aggregator(10);
        all.take(b"hits:1|c|#b:2,a:1\nhits:2|c|@0.5|#a:1,b:2\n\nother:1:2:3|c", Instant::now());
        let got = said(&mut all);
        assert_eq!(got.get("hits{a=1,b=2}"), Some(&5.0));
        assert_eq!(got.get("other{}"), Some(&6.0));
        assert!(said(&mut all).is_empty(), "a window without lines says nothing");
    }

    #[test]
    fn a_gauge_is_remembered_for_its_changes_alone() {
        let mut all = aggregator(10);
        all.take(b"level:10|g\nlevel:-3|g", Instant::now());
        assert_eq!(said(&mut all).get("level{}"), Some(&7.0));
        assert!(said(&mut all).is_empty());
        all.take(b"level:+5|g", Instant::now());
        assert_eq!(said(&mut all).get("level{}"), Some(&12.0));
    }

    #[test]
    fn a_gauge_is_forgotten_after_its_memory_ends() {
        let mut all = aggregator(10);
        let start = Instant::now();
        all.take(b"level:10|g", start);
        all.flush(start);
        all.flush(start + all.gauge_memory + Duration::from_secs(1));
        assert!(all.series.is_empty());
    }

    #[test]
    fn a_timer_tells_count_sum_extremes_and_quantiles() {
        let mut all = aggregator(10);
        for ms in 1..=100 {
            all.take(format!("t:{ms}|ms").as_bytes(), Instant::now());
        }
        let got = said(&mut all);
        assert_eq!((got["t.count{}"], got["t.sum{}"]), (100.0, 5_050.0));
        assert_eq!((got["t.min{}"], got["t.max{}"]), (1.0, 100.0));
        assert!((got["t.p95{}"] - 95.0).abs() < 2.0, "{got:?}");
    }

    #[test]
    fn a_set_counts_members_once() {
        let mut all = aggregator(10);
        all.take(b"u:a|s\nu:b|s\nu:a|s", Instant::now());
        assert_eq!(said(&mut all).get("u.distinct{}"), Some(&2.0));
    }

    #[test]
    fn series_over_the_limit_are_counted_and_named() {
        let mut all = aggregator(2);
        all.take(b"a:1|c\nb:1|c\nc:1|c|#x:1\nc:1|c|#x:2\nc:1|c|#x:2\na:1|c", Instant::now());
        let got = said(&mut all);
        assert_eq!((got.len(), got["a{}"]), (2, 2.0));
        let dropped = all.last_dropped().unwrap();
        assert_eq!((dropped.series, dropped.lines), (2, 3));
        assert_eq!(dropped.names, ["c"]);
        assert_eq!(all.metrics.statsd_lines_dropped.get(), 3);
        all.take(b"c:1|c", Instant::now());
        assert_eq!(said(&mut all).len(), 1, "the next window has room again");
    }

    #[test]
    fn a_remembered_gauge_gives_way_to_a_series_that_speaks() {
        let mut all = aggregator(1);
        all.take(b"old:1|g", Instant::now());
        assert_eq!(said(&mut all).len(), 1);
        all.take(b"new:1|g", Instant::now());
        assert_eq!(said(&mut all).get("new{}"), Some(&1.0));
        assert_eq!(all.metrics.statsd_lines_dropped.get(), 0);
    }

    #[test]
    fn malformed_lines_are_counted_and_their_neighbours_kept() {
        let mut all = aggregator(10);
        all.take(b"a:1|c\nnonsense\n\xff\xfe\n_sc|db|0\nb:2|c\r\n", Instant::now());
        assert_eq!(said(&mut all).len(), 2);
        assert_eq!(all.metrics.statsd_lines.get(), 5);
        assert_eq!(all.metrics.statsd_malformed.get(), 2);
        assert_eq!(all.metrics.statsd_ignored.get(), 1);
    }
}
