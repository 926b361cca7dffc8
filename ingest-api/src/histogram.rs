//! A histogram in one message becomes what a classic histogram is: `_count`, `_sum`, and
//! `_bucket` with the upper bound in `le`, each counting everything up to it.
//!
//! So all histograms, whoever sends them, are read alike. Of exponential ones, which have hundreds
//! of possible buckets, those are stored that count something, and `+Inf` always.

use spillway_proto::Point;
use spillway_proto::batch::STALE_MARKER_BITS;

use crate::cut::{Intake, Naming, TooMuch};

/// Buckets of one histogram that count something. Prometheus makes 160 by default, OpenTelemetry
/// too.
pub const BUCKETS_MAX: usize = 1_000;
/// Buckets that a histogram lists, those that count nothing too: an exponential one lists all
/// between its least and its greatest. Beyond it, it is not read.
pub const LISTED_MAX: usize = 16_384;
const BOUND: &str = "le";

/// A histogram at one time.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    pub ts_ms: i64,
    pub count: f64,
    pub sum: Option<f64>,
    /// Upper bound and own count, ascending; what lies above the last is in `count` alone.
    pub buckets: Vec<(f64, f64)>,
    pub stale: bool,
}

/// Takes in a histogram that is called `naming`, and is of its kind; `false` when it was refused.
///
/// # Errors
/// [`TooMuch`].
pub fn put(
    histogram: &Histogram,
    naming: &Naming<'_>,
    intake: &mut Intake,
) -> Result<bool, TooMuch> {
    let ts_ms = histogram.ts_ms;
    let mut one = |suffix: &str, bound: Option<&str>, value: f64| -> Result<bool, TooMuch> {
        let mut labels = naming.labels.to_vec();
        if let Some(bound) = bound {
            let at = labels.partition_point(|(name, _)| *name < BOUND);
            labels.insert(at, (BOUND, bound));
        }
        let metric = format!("{}{suffix}", naming.metric);
        // Sums and counts of parts are numbers without the whole's unit, but for the sum itself.
        let unit = if suffix == "_sum" { naming.unit } else { "" };
        let naming = Naming { metric: &metric, labels: &labels, unit, ..*naming };
        Ok(intake.put(&naming, &[Point { ts_ms, value }])? == 1)
    };
    let value = |value| if histogram.stale { f64::from_bits(STALE_MARKER_BITS) } else { value };
    // The longest name first: what it passes, all others do.
    if !one("_bucket", Some("+Inf"), value(histogram.count))? {
        return Ok(false);
    }
    let mut up_to = 0.0;
    for (bound, count) in histogram.buckets.iter().take(BUCKETS_MAX) {
        up_to += count;
        one("_bucket", Some(&bound.to_string()), value(up_to))?;
    }
    one("_count", None, value(histogram.count))?;
    if let Some(sum) = histogram.sum {
        one("_sum", None, value(sum))?;
    }
    Ok(true)
}

/// The upper bound of an exponential bucket: `2^(index × 2^-scale)`.
#[must_use]
pub fn exponential_bound(scale: i32, index: i64) -> f64 {
    (index as f64 * (-f64::from(scale)).exp2()).exp2()
}
