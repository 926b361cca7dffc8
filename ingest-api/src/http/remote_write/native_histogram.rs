//! Prometheus' native histograms, of integers or floats, with exponential or custom buckets.
//!
//! `prompb/types.proto`, message Histogram; the same in both versions.

use spillway_proto::Kind;
use spillway_proto::batch::STALE_MARKER_BITS;

use super::series::Reading;
use crate::cut::{Intake, Naming};
use crate::histogram::{self, BUCKETS_MAX, Histogram, LISTED_MAX, exponential_bound};
use crate::http::foreign::Unreadable;
use crate::wire::{Fields, Malformed, unzigzag};

/// What goes up and down, so that no fall of it is a reset (`Histogram.ResetHint`).
const GAUGE: u64 = 3;
/// Buckets have stated bounds.
const SCHEMA_CUSTOM: i64 = -53;
/// Schemas with exponential buckets.
const SCHEMAS: std::ops::RangeInclusive<i64> = -4..=8;

#[derive(Debug, Default)]
struct Native {
    count: f64,
    /// Counts are floats, and so are all parts of it.
    is_float: bool,
    /// Count and zero bucket of one of integers, to the last digit.
    whole: (u64, u64),
    sum: f64,
    schema: i64,
    zero_threshold: f64,
    zero_count: f64,
    positive: Side,
    negative: Side,
    custom: Vec<u64>,
    is_gauge: bool,
    too_long: bool,
    ts_ms: i64,
}

/// Buckets of one sign: runs of them, and what each counts.
#[derive(Debug, Default)]
struct Side {
    /// How many are left out before a run, and how many are in it.
    spans: Vec<(i64, u64)>,
    /// Each as the difference to the one before.
    deltas: Vec<u64>,
    /// Each by itself, as the bits of a double.
    counts: Vec<u64>,
}

/// Takes in a native histogram of the series `naming`; `false` when it was refused.
pub(super) fn put(
    bytes: &[u8],
    naming: &Naming<'_>,
    reading: Reading,
    intake: &mut Intake,
) -> Result<bool, Unreadable> {
    let native = read(bytes)?;
    let grid = reading.grid_ms.map_or(0, |grid_ms| native.ts_ms.rem_euclid(grid_ms));
    match native.unfold() {
        Ok(mut histogram) => {
            histogram.ts_ms -= grid;
            let kind = if native.is_gauge { Kind::Gauge } else { Kind::Cumulative };
            Ok(histogram::put(&histogram, &Naming { kind, ..*naming }, intake)?)
        }
        Err(fault) => {
            intake.refusals.add(1, naming.place, &fault);
            Ok(false)
        }
    }
}

fn read(bytes: &[u8]) -> Result<Native, Malformed> {
    let mut native = Native::default();
    for field in Fields(bytes) {
        let (tag, value) = field?;
        match tag {
            1 => (native.whole.0, native.is_float) = (value.uint()?, false),
            2 => (native.count, native.is_float) = (value.double()?, true),
            3 => native.sum = value.double()?,
            4 => native.schema = value.zigzag()?,
            5 => native.zero_threshold = value.double()?,
            6 => native.whole.1 = value.uint()?,
            7 => native.zero_count = value.double()?,
            8 => native.negative.push_span(value.message()?)?,
            9 => value.push_varints(&mut native.negative.deltas, LISTED_MAX)?,
            10 => value.push_fixed(&mut native.negative.counts, LISTED_MAX)?,
            11 => native.positive.push_span(value.message()?)?,
            12 => value.push_varints(&mut native.positive.deltas, LISTED_MAX)?,
            13 => value.push_fixed(&mut native.positive.counts, LISTED_MAX)?,
            14 => native.is_gauge = value.uint()? == GAUGE,
            15 => native.ts_ms = value.int()?,
            16 => value.push_fixed(&mut native.custom, LISTED_MAX)?,
            _ => {}
        }
    }
    let is_long =
        |side: &Side| side.spans.len().max(side.deltas.len()).max(side.counts.len()) > LISTED_MAX;
    let (negative, positive) = (is_long(&native.negative), is_long(&native.positive));
    native.too_long = negative || positive || native.custom.len() > LISTED_MAX;
    if !native.is_float {
        (native.count, native.zero_count) = (native.whole.0 as f64, native.whole.1 as f64);
    }
    Ok(native)
}

fn span(fields: Fields<'_>) -> Result<(i64, u64), Malformed> {
    let mut span = (0, 0);
    for field in fields {
        match field? {
            (1, offset) => span.0 = offset.zigzag()?,
            (2, length) => span.1 = length.uint()?,
            _ => {}
        }
    }
    Ok(span)
}

impl Native {
    /// With each bucket's upper bound, ascending over all signs.
    fn unfold(&self) -> Result<Histogram, &'static str> {
        let stale = self.sum.to_bits() == STALE_MARKER_BITS;
        let (ts_ms, count, sum) = (self.ts_ms, self.count, Some(self.sum));
        let histogram = Histogram { ts_ms, count, sum, buckets: Vec::new(), stale };
        if stale {
            return Ok(histogram);
        }
        if self.too_long {
            return Err("its histogram lists more than 16384 buckets");
        }
        if !self.adds_up() {
            return Err("its histogram's count is not the sum of its buckets");
        }
        if self.schema == SCHEMA_CUSTOM {
            let buckets = self.positive.buckets(self.is_float)?;
            let bound = |index: i64| {
                let at = usize::try_from(index).ok()?;
                self.custom.get(at).map(|bits| f64::from_bits(*bits))
            };
            let bounded = |(index, count)| Some((bound(index)?, count));
            let buckets: Vec<_> = buckets.into_iter().filter_map(bounded).collect();
            return few(Histogram { buckets, ..histogram });
        }
        if !SCHEMAS.contains(&self.schema) {
            return Err("its histogram has an unknown schema");
        }
        let scale = self.schema as i32;
        // A bucket's index is of its bound that is further from zero.
        let below = self.negative.buckets(self.is_float)?.into_iter().rev();
        let below = below.map(|(index, count)| (-exponential_bound(scale, index - 1), count));
        let zero = (self.zero_count != 0.0).then_some((self.zero_threshold, self.zero_count));
        let above = self.positive.buckets(self.is_float)?.into_iter();
        let above = above.map(|(index, count)| (exponential_bound(scale, index), count));
        few(Histogram { buckets: below.chain(zero).chain(above).collect(), ..histogram })
    }

    /// As Prometheus has it (`model/histogram`, `Histogram.Validate`): the parts are the count, or
    /// no more than it where NaN was observed, which is in no bucket. Floats are not added up.
    fn adds_up(&self) -> bool {
        let (count, zero) = (i128::from(self.whole.0), i128::from(self.whole.1));
        let total = zero + self.positive.total() + self.negative.total();
        self.is_float || total == count || (self.sum.is_nan() && total < count)
    }
}

fn few(histogram: Histogram) -> Result<Histogram, &'static str> {
    if histogram.buckets.len() > BUCKETS_MAX {
        return Err("its histogram has more than 1000 buckets");
    }
    Ok(histogram)
}

impl Side {
    fn push_span(&mut self, fields: Fields<'_>) -> Result<(), Malformed> {
        let span = span(fields)?;
        if self.spans.len() <= LISTED_MAX {
            self.spans.push(span);
        }
        Ok(())
    }

    /// What each bucket of integers counts.
    fn whole(&self) -> impl Iterator<Item = i64> {
        let each = self.deltas.iter().map(|delta| unzigzag(*delta));
        each.scan(0_i64, |before, delta| {
            *before = before.wrapping_add(delta);
            Some(*before)
        })
    }

    /// What all buckets of integers count.
    fn total(&self) -> i128 {
        self.whole().map(i128::from).sum()
    }

    /// Index and count of each bucket that counts something, ascending.
    fn buckets(&self, is_float: bool) -> Result<Vec<(i64, f64)>, &'static str> {
        let counts: Vec<f64> = match is_float {
            true => self.counts.iter().map(|bits| f64::from_bits(*bits)).collect(),
            false => self.whole().map(|count| count as f64).collect(),
        };
        if counts.iter().any(|count| *count < 0.0) {
            return Err("a bucket of its histogram counts less than nothing");
        }
        let mut counts = counts.into_iter();
        let (mut buckets, mut index) = (Vec::new(), 0_i64);
        for (offset, length) in &self.spans {
            index = index.saturating_add(*offset);
            for _ in 0..*length {
                let count = counts.next().ok_or("its histogram has fewer counts than buckets")?;
                if count != 0.0 {
                    buckets.push((index, count));
                }
                index = index.saturating_add(1);
            }
        }
        match counts.next() {
            None => Ok(buckets),
            Some(_) => Err("its histogram has more counts than buckets"),
        }
    }
}
