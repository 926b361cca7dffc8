//! A whole answer, piece by piece as it comes: lines are cut, read and packed at once, so that no
//! answer is ever held as a whole.
//!
//! What becomes of a sample by its family's type:
//!
//! | type | sample | kind |
//! |---|---|---|
//! | counter | `x` (text), `x_total` (OpenMetrics) | cumulative |
//! | histogram, summary | `x_bucket` (with `le`), `x_sum`, `x_count` | cumulative |
//! | summary | `x` (with `quantile`) | gauge |
//! | gauge, gaugehistogram, stateset, info, untyped, unknown, none | as named | gauge |
//! | counter, histogram, summary | `x_created` | left out: the time at which a counter began |

use std::borrow::Cow;

use spillway_proto::Kind;

use super::parse::{LabelBuffer, Line, Malformed, parse};
use crate::collect::tray::{Pack, Sample, Unpackable};

/// The longest line: 64 labels of the longest names and values, escaped, and some.
pub const LINE_BYTES_MAX: usize = 256 * 1024;
/// A label of the target that we give ourselves gets this before its name, as in Prometheus.
const THEIRS: &str = "exported_";

/// What one answer may hold at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub samples: usize,
    pub labels: usize,
    pub label_value_bytes: usize,
}

/// Why a whole answer is refused.
#[derive(Debug, thiserror::Error)]
pub enum BadAnswer {
    #[error("line {line} {why}")]
    Line { line: u64, why: Malformed },
    #[error("line {line} is longer than {LINE_BYTES_MAX} bytes")]
    LongLine { line: u64 },
    #[error("more than samples_max ({0}) samples; all of them are left out")]
    Samples(usize),
    #[error("line {line} has more than labels_max ({max}) labels; the whole scrape is left out")]
    Labels { line: u64, max: usize },
    #[error("line {line} has a label longer than label_value_bytes_max ({max})")]
    LongLabel { line: u64, max: usize },
    #[error("line {line}: {why}")]
    Unpackable { line: u64, why: Unpackable },
    #[error("the answer ended before its `# EOF`")]
    CutOff,
}

/// An answer under way.
pub struct Answer<'a> {
    out: &'a mut Pack,
    ts_ms: i64,
    limits: Limits,
    /// Labels that we give: theirs of the same name are renamed.
    own: &'a [&'a str],
    line: u64,
    carry: Vec<u8>,
    family: Family,
    ended: bool,
}

impl<'a> Answer<'a> {
    #[must_use]
    pub fn new(out: &'a mut Pack, ts_ms: i64, limits: Limits, own: &'a [&'a str]) -> Self {
        let family = Family::default();
        Self { out, ts_ms, limits, own, line: 0, carry: Vec::new(), family, ended: false }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The answer is refused as a whole.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), BadAnswer> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            if self.carry.is_empty() {
                self.take(line)?;
            } else {
                let mut whole = std::mem::take(&mut self.carry);
                whole.extend_from_slice(line);
                self.take(&whole)?;
                whole.clear();
                self.carry = whole;
            }
        }
        if self.carry.len() + bytes.len() > LINE_BYTES_MAX {
            return Err(BadAnswer::LongLine { line: self.line + 1 });
        }
        self.carry.extend_from_slice(bytes);
        Ok(())
    }

    /// There are no more bytes. How many samples there were.
    ///
    /// # Errors
    /// The last line is none, or `must_end` and there was no `# EOF`.
    pub fn finish(mut self, must_end: bool) -> Result<usize, BadAnswer> {
        let last = std::mem::take(&mut self.carry);
        self.take(&last)?;
        match must_end && !self.ended {
            true => Err(BadAnswer::CutOff),
            false => Ok(self.out.len()),
        }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), BadAnswer> {
        self.line += 1;
        let number = self.line;
        let mut labels = LabelBuffer::new();
        let parsed = parse(line, &mut labels);
        match parsed.map_err(|why| BadAnswer::Line { line: number, why })? {
            Line::Type { family, name } => self.family = Family::new(family, name),
            Line::Unit { family, unit } => self.family.note_unit(family, unit),
            Line::End => self.ended = true,
            Line::Nothing => {}
            Line::Sample(sample) => {
                let Some((kind, unit)) = self.family.says(&sample.metric) else { return Ok(()) };
                self.check(&labels)?;
                for (name, _) in &mut labels {
                    if self.own.contains(&name.as_ref()) {
                        *name = Cow::Owned(format!("{THEIRS}{name}"));
                    }
                }
                let (metric, ts_ms, value) = (sample.metric.as_ref(), self.ts_ms, sample.value);
                let sample = Sample { metric, labels: &labels, kind, unit, ts_ms, value };
                let pushed = self.out.push(&sample);
                pushed.map_err(|why| BadAnswer::Unpackable { line: number, why })?;
            }
        }
        Ok(())
    }

    fn check(&self, labels: &LabelBuffer<'_>) -> Result<(), BadAnswer> {
        let (line, limits) = (self.line, self.limits);
        if self.out.len() >= limits.samples {
            return Err(BadAnswer::Samples(limits.samples));
        }
        if labels.len() + self.own.len() > limits.labels {
            return Err(BadAnswer::Labels { line, max: limits.labels });
        }
        let max = limits.label_value_bytes;
        match labels.iter().any(|(_, value)| value.len() > max) {
            true => Err(BadAnswer::LongLabel { line, max }),
            false => Ok(()),
        }
    }
}

/// The family whose samples follow.
#[derive(Debug, Default)]
struct Family {
    name: String,
    of: Type,
    unit: &'static str,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Type {
    Counter,
    Histogram,
    Summary,
    /// Everything whose last value is the truth.
    #[default]
    Level,
}

/// Units that a name may end in (`_seconds`), and those that OpenMetrics may name.
const UNITS: [&str; 12] = [
    "seconds", "bytes", "ratio", "percent", "celsius", "meters", "volts", "amperes", "joules",
    "grams", "watts", "hertz",
];

impl Family {
    fn new(name: &str, of: &str) -> Self {
        let of = match of {
            "counter" => Type::Counter,
            "histogram" => Type::Histogram,
            "summary" => Type::Summary,
            _ => Type::Level,
        };
        Self { name: name.to_owned(), of, unit: unit_of(name) }
    }

    fn note_unit(&mut self, family: &str, unit: &str) {
        if self.name != family {
            *self = Self { name: family.to_owned(), ..Self::default() };
        }
        self.unit = UNITS.into_iter().find(|known| *known == unit).unwrap_or(self.unit);
    }

    /// Kind and unit of a sample. None: it is left out.
    fn says(&self, metric: &str) -> Option<(Kind, &'static str)> {
        let Some(suffix) =
            metric.strip_prefix(self.name.as_str()).filter(|_| !self.name.is_empty())
        else {
            return Some((Kind::Gauge, unit_of(metric)));
        };
        match (self.of, suffix) {
            (Type::Counter | Type::Histogram | Type::Summary, "_created") => None,
            (Type::Counter, "" | "_total") => Some((Kind::Cumulative, self.unit)),
            (Type::Histogram, "_bucket") | (Type::Histogram | Type::Summary, "_count") => {
                Some((Kind::Cumulative, ""))
            }
            (Type::Histogram | Type::Summary, "_sum") => Some((Kind::Cumulative, self.unit)),
            (_, "") => Some((Kind::Gauge, self.unit)),
            _ => Some((Kind::Gauge, unit_of(metric))),
        }
    }
}

fn unit_of(metric: &str) -> &'static str {
    let metric = metric.strip_suffix("_total").unwrap_or(metric);
    let ends = |unit: &&str| metric.strip_suffix(*unit).is_some_and(|rest| rest.ends_with('_'));
    UNITS.into_iter().find(ends).unwrap_or_default()
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
