//! One series of either version: its labels are judged and mapped, its samples taken in.

use spillway_proto::limits::{LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX};
use spillway_proto::{Kind, Point};

use super::{Written, native_histogram};
use crate::cut::{Intake, Naming};
use crate::http::foreign::Unreadable;

/// Labels of one series that are looked at; proto's limit is below, and says so.
const LABELS_MAX: usize = 128;
const METRIC: &str = "__name__";
/// These name the sender of a pair, not what is measured: without them both send the same series,
/// and a point counts once. The first is what Cortex, Mimir and Thanos agree on, the second what
/// the Prometheus operator adds.
const REPLICA: [&str; 2] = ["__replica__", "prometheus_replica"];
/// Whose value is the host: the first that is there.
const HOST: [&str; 2] = ["host", "instance"];
/// Suffixes by which a counter is known, where its sender does not say what it is.
const CUMULATIVE: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];

/// How a body is to be read, beside its own bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Unsorted labels are sorted, not refused.
    pub sorts: bool,
    /// The times of a replica's samples are rounded down to this grid.
    pub grid_ms: Option<i64>,
}

/// One series as it stands in the body.
#[derive(Debug, Default)]
pub(super) struct OneSeries<'a> {
    pub labels: Vec<(&'a str, &'a str)>,
    too_many: bool,
    too_long: bool,
    pub samples: Vec<Point>,
    pub histograms: Vec<&'a [u8]>,
    pub kind: Option<Kind>,
    pub unit: &'a str,
}

impl<'a> OneSeries<'a> {
    pub fn clear(&mut self) {
        self.labels.clear();
        self.samples.clear();
        self.histograms.clear();
        (self.too_many, self.too_long) = (false, false);
        (self.kind, self.unit) = (None, "");
    }

    pub fn label(&mut self, name: &'a str, value: &'a str) {
        // A reference of two bytes may stand for a text of megabytes: such are not even compared.
        self.too_long |= name.len() > LABEL_NAME_BYTES_MAX || value.len() > LABEL_VALUE_BYTES_MAX;
        self.too_many |= self.labels.len() == LABELS_MAX;
        if !self.too_long && !self.too_many {
            self.labels.push((name, value));
        }
    }

    /// Takes the series in, or refuses it with all that is in it.
    pub fn put(
        &mut self,
        index: usize,
        reading: Reading,
        intake: &mut Intake,
        written: &mut Written,
    ) -> Result<(), Unreadable> {
        let place = ("series", index);
        if reading.sorts {
            self.labels.sort_unstable();
        }
        if let Some(fault) = self.fault() {
            intake.refusals.add(self.samples.len() + self.histograms.len(), place, &fault);
            return Ok(());
        }
        let take = |labels: &mut Vec<(&'a str, &'a str)>, name: &str| {
            let at = labels.iter().position(|(known, _)| *known == name)?;
            Some(labels.remove(at).1)
        };
        let labels = &mut self.labels;
        let metric = take(labels, METRIC).unwrap_or_default();
        let replicas = REPLICA.iter().filter(|name| take(labels, name).is_some()).count();
        let host = HOST.iter().find_map(|name| take(labels, name));
        if let Some(grid_ms) = reading.grid_ms.filter(|_| replicas > 0) {
            let aligned = |point: &mut Point| point.ts_ms -= point.ts_ms.rem_euclid(grid_ms);
            self.samples.iter_mut().for_each(aligned);
        }
        let by_name = || match CUMULATIVE.iter().any(|suffix| metric.ends_with(suffix)) {
            true => Kind::Cumulative,
            false => Kind::Gauge,
        };
        let kind = self.kind.unwrap_or_else(by_name);
        let naming = Naming { place, host, metric, labels: &self.labels, kind, unit: self.unit };
        written.samples += intake.put(&naming, &self.samples)?;
        for histogram in &self.histograms {
            written.histograms +=
                usize::from(native_histogram::put(histogram, &naming, reading, intake)?);
        }
        Ok(())
    }

    /// The rule of the specification that the labels break.
    fn fault(&self) -> Option<&'static str> {
        let (names, values) = (self.labels.iter().map(|label| label.0), &self.labels);
        if self.too_many {
            return Some("it has too many labels, the limit is 64");
        }
        if self.too_long {
            return Some("a label is longer than allowed (name 255 bytes, value 1024)");
        }
        if names.clone().any(str::is_empty) {
            return Some("a label has no name");
        }
        if values.iter().any(|(_, value)| value.is_empty()) {
            return Some("a label has no value");
        }
        let pairs = || names.clone().zip(names.clone().skip(1));
        if pairs().any(|(a, b)| a == b) {
            return Some("a label is there twice");
        }
        if pairs().any(|(a, b)| a > b) {
            return Some("its labels are not sorted by name");
        }
        if !names.clone().any(|name| name == METRIC) {
            return Some("it has no __name__");
        }
        None
    }
}
