//! Inputs: each turns a part of this host, or what programs on it say, into readings.
//!
//! First hop of a batch: `sample` reads the host inputs side by side, each under its own
//! deadline and with its own error count; `statsd` listens; sources with a pace of their own
//! (`paced`: scrapes, servers, commands) leave what they read in the `tray`; `rounds` gives what
//! they say its time. None knows batches: those are made by `assemble`.

use std::borrow::Cow;

use spillway_proto::Kind;

pub mod host;

pub mod statsd;

pub mod sample;

pub mod tray;

pub mod paced;

pub mod scrape;

pub mod line_protocol;

pub mod exec;

pub mod mysql;

pub mod influx;

pub mod sources;

pub mod rounds;

/// Labels of one reading: names unique and sorted.
pub type Labels = Vec<(Cow<'static, str>, String)>;

/// One value of one series, not yet placed in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub metric: Cow<'static, str>,
    pub labels: Labels,
    pub kind: Kind,
    /// UCUM-like (`bytes`, `seconds`, `%`, `1`), or empty.
    pub unit: &'static str,
    pub value: f64,
}

/// What one input said.
#[derive(Debug, Default)]
pub struct Readings {
    list: Vec<Reading>,
}

impl Readings {
    /// A level.
    pub fn gauge(&mut self, metric: &'static str, unit: &'static str, value: f64) {
        self.labelled(metric, unit, Kind::Gauge, &[], value);
    }

    /// A counter since some start.
    pub fn counter(&mut self, metric: &'static str, unit: &'static str, value: f64) {
        self.labelled(metric, unit, Kind::Cumulative, &[], value);
    }

    /// A value with labels, in any order.
    pub fn labelled(
        &mut self,
        metric: &'static str,
        unit: &'static str,
        kind: Kind,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        let mut labels: Labels = labels
            .iter()
            .map(|(name, value)| (Cow::Borrowed(*name), (*value).to_owned()))
            .collect();
        labels.sort();
        self.push(Reading { metric: Cow::Borrowed(metric), labels, kind, unit, value });
    }

    /// A reading as it is.
    pub fn push(&mut self, reading: Reading) {
        self.list.push(reading);
    }

    #[must_use]
    pub fn into_list(self) -> Vec<Reading> {
        self.list
    }
}

/// Why an input could not be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("{0}")]
    Proc(#[from] procfs::ProcError),
    #[error("{what}: {cause}")]
    Io { what: &'static str, cause: std::io::Error },
}

/// A part of the host that is read on every sample. `read` blocks; it runs on a thread of its own.
pub trait Input: Send + 'static {
    /// Its name in settings, logs and metrics.
    fn name(&self) -> &'static str;

    /// Adds what it sees now.
    ///
    /// # Errors
    /// What it reads is not there or not readable; what it added before stays.
    fn read(&mut self, out: &mut Readings) -> Result<(), InputError>;
}
