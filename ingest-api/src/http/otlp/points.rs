//! Data points of OTLP, whichever encoding they came in: mapped to series and taken in.
//!
//! <https://opentelemetry.io/docs/specs/otel/metrics/data-model/>.

use spillway_proto::batch::STALE_MARKER_BITS;
use spillway_proto::limits::{
    LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, METRIC_BYTES_MAX, UNIT_BYTES_MAX,
};
use spillway_proto::{Kind, Point};

use crate::cut::{Intake, Naming, TooMuch};
use crate::histogram::{self, BUCKETS_MAX, Histogram, LISTED_MAX, exponential_bound};

/// Bit of a data point's flags: there is no value, the series was seen before and is gone.
const NO_RECORDED_VALUE: u64 = 1;
/// The resource attribute that is the host.
const HOST: &str = "host.name";
/// The label for the instrumentation scope: two libraries may call different things alike.
const SCOPE: &str = "otel.scope.name";
/// Attributes of one point or resource that are looked at.
pub(super) const ATTRIBUTES_MAX: usize = 128;
/// Its quantiles would be of no population at all.
const CONTRADICTION: &str = "its count is not the sum of its buckets";
/// The exponents that OTLP's exponential histograms may have.
const SCALES: std::ops::RangeInclusive<i64> = -10..=20;

/// Name and value, as text.
pub(super) type Attributes = Vec<(String, String)>;

/// How the points of a metric relate to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    #[default]
    Gauge,
    Sum {
        monotonic: bool,
    },
    Histogram,
    Exponential,
    Summary,
}

/// What all points of a metric share.
#[derive(Debug, Default)]
pub(super) struct Metric<'a> {
    pub resource: &'a [(String, String)],
    pub scope: &'a str,
    pub name: &'a str,
    pub unit: &'a str,
    pub shape: Shape,
    /// 1 is delta, 2 cumulative.
    pub temporality: u64,
}

/// A data point of any shape; what its shape does not have is empty.
#[derive(Debug, Default)]
pub(super) struct DataPoint {
    pub attributes: Attributes,
    pub time_ns: u64,
    pub flags: u64,
    /// A gauge's or sum's.
    pub value: Option<f64>,
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub bounds: Vec<f64>,
    pub bucket_counts: Vec<u64>,
    pub scale: i64,
    pub zero_count: u64,
    pub zero_threshold: f64,
    pub positive: Buckets,
    pub negative: Buckets,
    /// A summary's: quantile and value.
    pub quantiles: Vec<(f64, f64)>,
}

/// Exponential buckets of one sign: the first one's index, and what each counts.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    pub offset: i64,
    pub counts: Vec<u64>,
}

/// Takes in one data point; `index` is its number in the body.
pub(super) fn put(
    index: usize,
    metric: &Metric<'_>,
    mut point: DataPoint,
    intake: &mut Intake,
) -> Result<(), TooMuch> {
    let place = ("data point", index);
    let Some(kind) = kind(metric) else {
        intake.refusals.add(1, place, &"its aggregation temporality is not stated");
        return Ok(());
    };
    // A body says a metric's name once, for any number of points: it is judged before it is used.
    if metric.name.len() > METRIC_BYTES_MAX {
        intake.refusals.add(1, place, &"its metric's name is longer than 512 bytes");
        return Ok(());
    }
    let own = std::mem::take(&mut point.attributes);
    let labels = labels(metric, &own);
    let host = metric.resource.iter().find(|(name, _)| name == HOST);
    let host = host.map(|(_, value)| value.as_str()).filter(|host| !host.is_empty());
    let unit = if metric.unit.len() <= UNIT_BYTES_MAX { metric.unit } else { "" };
    let naming = Naming { place, host, metric: metric.name, labels: &labels, kind, unit };
    let ts_ms = match point.time_ns {
        0 => intake.now_ms,
        time_ns => i64::try_from(time_ns / 1_000_000).unwrap_or(i64::MAX),
    };
    match metric.shape {
        Shape::Gauge | Shape::Sum { .. } => number(&naming, &point, ts_ms, intake),
        Shape::Summary => summary(&naming, &point, ts_ms, intake),
        Shape::Histogram | Shape::Exponential => {
            let unfolded = match metric.shape {
                Shape::Histogram => explicit(&point, ts_ms),
                _ => exponential(&point, ts_ms),
            };
            match unfolded {
                Ok(unfolded) => {
                    if histogram::put(&unfolded, &naming, intake)? {
                        extremes(&naming, &point, ts_ms, intake)?;
                    }
                }
                Err(fault) => intake.refusals.add(1, place, &fault),
            }
            Ok(())
        }
    }
}

/// `None` when the metric needs a temporality and states none.
fn kind(metric: &Metric<'_>) -> Option<Kind> {
    match (metric.shape, metric.temporality) {
        (Shape::Gauge, _) => Some(Kind::Gauge),
        (Shape::Summary, _) => Some(Kind::Cumulative),
        (_, 1) => Some(Kind::Delta),
        // Goes up and down: a level, whatever it is a sum of.
        (Shape::Sum { monotonic: false }, 2) => Some(Kind::Gauge),
        (_, 2) => Some(Kind::Cumulative),
        _ => None,
    }
}

/// Sorted and unique: a point's own attribute goes before its resource's of the same name.
fn labels<'a>(metric: &Metric<'a>, own: &'a [(String, String)]) -> Vec<(&'a str, &'a str)> {
    let texts = |(name, value): &'a (String, String)| (name.as_str(), value.as_str());
    let mut labels: Vec<(&str, &str)> = own.iter().map(texts).collect();
    if !metric.scope.is_empty() {
        labels.push((SCOPE, metric.scope));
    }
    // A resource describes a process and may say much (its command line): no point is refused
    // for the length of that.
    let short = |(name, value): &(&str, &str)| {
        name.len() <= LABEL_NAME_BYTES_MAX && value.len() <= LABEL_VALUE_BYTES_MAX
    };
    let resource = metric.resource.iter().map(texts).filter(|(name, _)| *name != HOST);
    labels.extend(resource.filter(short));
    labels.sort_by_key(|(name, _)| *name);
    labels.dedup_by_key(|(name, _)| *name);
    labels
}

fn number(
    naming: &Naming<'_>,
    point: &DataPoint,
    ts_ms: i64,
    intake: &mut Intake,
) -> Result<(), TooMuch> {
    let gone = (point.flags & NO_RECORDED_VALUE != 0).then(|| f64::from_bits(STALE_MARKER_BITS));
    match gone.or(point.value) {
        Some(value) => intake.put(naming, &[Point { ts_ms, value }]).map(drop),
        None => {
            intake.refusals.add(1, naming.place, &"it has no value");
            Ok(())
        }
    }
}

fn summary(
    naming: &Naming<'_>,
    point: &DataPoint,
    ts_ms: i64,
    intake: &mut Intake,
) -> Result<(), TooMuch> {
    let gone = point.flags & NO_RECORDED_VALUE != 0;
    let value = |value| if gone { f64::from_bits(STALE_MARKER_BITS) } else { value };
    if point.quantiles.len() > BUCKETS_MAX {
        intake.refusals.add(1, naming.place, &"it has more than 1000 quantiles");
        return Ok(());
    }
    let name = format!("{}_count", naming.metric);
    let count = Naming { metric: &name, unit: "", ..*naming };
    let counted = Point { ts_ms, value: value(point.count as f64) };
    if intake.put(&count, &[counted])? == 0 {
        return Ok(());
    }
    let name = format!("{}_sum", naming.metric);
    let sum = Point { ts_ms, value: value(point.sum.unwrap_or_default()) };
    intake.put(&Naming { metric: &name, ..*naming }, &[sum])?;
    for (quantile, quantile_value) in &point.quantiles {
        let quantile = quantile.to_string();
        let mut labels = naming.labels.to_vec();
        let at = labels.partition_point(|(name, _)| *name < "quantile");
        labels.insert(at, ("quantile", &quantile));
        let naming = Naming { labels: &labels, kind: Kind::Gauge, ..*naming };
        intake.put(&naming, &[Point { ts_ms, value: value(*quantile_value) }])?;
    }
    Ok(())
}

/// The least and the greatest value, which no bucket tells.
fn extremes(
    naming: &Naming<'_>,
    point: &DataPoint,
    ts_ms: i64,
    intake: &mut Intake,
) -> Result<(), TooMuch> {
    for (suffix, value) in [("_min", point.min), ("_max", point.max)] {
        let Some(value) = value else { continue };
        let name = format!("{}{suffix}", naming.metric);
        let naming = Naming { metric: &name, kind: Kind::Gauge, ..*naming };
        intake.put(&naming, &[Point { ts_ms, value }])?;
    }
    Ok(())
}

fn whole(point: &DataPoint, ts_ms: i64) -> Histogram {
    let stale = point.flags & NO_RECORDED_VALUE != 0;
    let (count, sum) = (point.count as f64, point.sum);
    Histogram { ts_ms, count, sum, buckets: Vec::new(), stale }
}

/// Whether the parts are the whole, as the protocol wants it; a point without a value has neither.
fn adds_up<'a>(point: &DataPoint, parts: impl Iterator<Item = &'a u64>) -> bool {
    let total: u128 = parts.map(|count| u128::from(*count)).sum();
    point.flags & NO_RECORDED_VALUE != 0 || total == u128::from(point.count)
}

fn explicit(point: &DataPoint, ts_ms: i64) -> Result<Histogram, &'static str> {
    let (bounds, counts) = (&point.bounds, &point.bucket_counts);
    if bounds.len() > BUCKETS_MAX {
        return Err("it has more than 1000 buckets");
    }
    let without = counts.is_empty() && bounds.is_empty();
    if !without && counts.len() != bounds.len() + 1 {
        return Err("its bounds and its bucket counts do not fit each other");
    }
    if !bounds.is_sorted_by(|a, b| a < b) {
        return Err("its bounds do not ascend");
    }
    if !without && !adds_up(point, counts.iter()) {
        return Err(CONTRADICTION);
    }
    let buckets = bounds.iter().zip(counts).map(|(bound, count)| (*bound, *count as f64));
    Ok(Histogram { buckets: buckets.collect(), ..whole(point, ts_ms) })
}

fn exponential(point: &DataPoint, ts_ms: i64) -> Result<Histogram, &'static str> {
    if !SCALES.contains(&point.scale) {
        return Err("its scale is outside -10..20");
    }
    if point.positive.counts.len().max(point.negative.counts.len()) > LISTED_MAX {
        return Err("it lists more than 16384 buckets");
    }
    let listed = point.positive.counts.iter().chain(&point.negative.counts);
    if !adds_up(point, listed.chain([&point.zero_count])) {
        return Err(CONTRADICTION);
    }
    let scale = point.scale as i32;
    let filled = |buckets: &Buckets| -> Vec<(i64, f64)> {
        let counts = buckets.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let index = |at: usize| buckets.offset.saturating_add(at as i64);
        counts.map(|(at, count)| (index(at), *count as f64)).collect()
    };
    // A bucket's index is of its bound that is nearer to zero.
    let below = filled(&point.negative).into_iter().rev();
    let below = below.map(|(index, count)| (-exponential_bound(scale, index), count));
    let zero = (point.zero_count > 0).then_some((point.zero_threshold, point.zero_count as f64));
    let above = filled(&point.positive).into_iter();
    let above =
        above.map(|(index, count)| (exponential_bound(scale, index.saturating_add(1)), count));
    let buckets: Vec<_> = below.chain(zero).chain(above).collect();
    if buckets.len() > BUCKETS_MAX {
        return Err("it has more than 1000 buckets");
    }
    Ok(Histogram { buckets, ..whole(point, ts_ms) })
}
