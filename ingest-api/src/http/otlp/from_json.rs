//! `ExportMetricsServiceRequest` in JSON: lowerCamelCase, 64-bit integers as text or number,
//! unknown fields ignored (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).

use serde::Deserialize;
use serde_json::Value;

use super::points::{ATTRIBUTES_MAX, Attributes, Buckets, DataPoint, Metric, Shape, put};
use crate::cut::Intake;
use crate::http::foreign::Unreadable;
use crate::json::{self, Double, Few, Integer};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RequestJson {
    resource_metrics: Few<ResourceMetricsJson>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ResourceMetricsJson {
    #[serde(deserialize_with = "json::or_default")]
    resource: ResourceJson,
    scope_metrics: Few<ScopeMetricsJson>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResourceJson {
    attributes: Few<PairJson>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ScopeMetricsJson {
    #[serde(deserialize_with = "json::or_default")]
    scope: ScopeJson,
    metrics: Few<MetricJson>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ScopeJson {
    #[serde(deserialize_with = "json::or_default")]
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct MetricJson {
    #[serde(deserialize_with = "json::or_default")]
    name: String,
    #[serde(deserialize_with = "json::or_default")]
    unit: String,
    gauge: Option<DataJson>,
    sum: Option<DataJson>,
    histogram: Option<DataJson>,
    exponential_histogram: Option<DataJson>,
    summary: Option<DataJson>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct DataJson {
    data_points: Few<PointJson>,
    #[serde(deserialize_with = "json::or_default")]
    aggregation_temporality: Integer,
    #[serde(deserialize_with = "json::or_default")]
    is_monotonic: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PointJson {
    attributes: Few<PairJson>,
    #[serde(deserialize_with = "json::or_default")]
    time_unix_nano: Integer,
    #[serde(deserialize_with = "json::or_default")]
    flags: Integer,
    as_double: Option<Double>,
    as_int: Option<Integer>,
    #[serde(deserialize_with = "json::or_default")]
    count: Integer,
    sum: Option<Double>,
    min: Option<Double>,
    max: Option<Double>,
    bucket_counts: Few<Integer>,
    explicit_bounds: Few<Double>,
    #[serde(deserialize_with = "json::or_default")]
    scale: Integer,
    #[serde(deserialize_with = "json::or_default")]
    zero_count: Integer,
    #[serde(deserialize_with = "json::or_default")]
    zero_threshold: Double,
    #[serde(deserialize_with = "json::or_default")]
    positive: Box<BucketsJson>,
    #[serde(deserialize_with = "json::or_default")]
    negative: Box<BucketsJson>,
    quantile_values: Few<QuantileJson>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct BucketsJson {
    #[serde(deserialize_with = "json::or_default")]
    offset: Integer,
    bucket_counts: Few<Integer>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct QuantileJson {
    #[serde(deserialize_with = "json::or_default")]
    quantile: Double,
    #[serde(deserialize_with = "json::or_default")]
    value: Double,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PairJson {
    #[serde(deserialize_with = "json::or_default")]
    key: String,
    #[serde(deserialize_with = "json::or_default")]
    value: AnyJson,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AnyJson {
    string_value: Option<String>,
    bool_value: Option<bool>,
    int_value: Option<Integer>,
    double_value: Option<Double>,
    array_value: Option<Box<ListJson>>,
    kvlist_value: Option<Box<MapJson>>,
    bytes_value: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ListJson {
    values: Few<AnyJson>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct MapJson {
    values: Few<PairJson>,
}

/// Reads a body.
///
/// # Errors
/// [`Unreadable`].
pub fn read(body: &[u8], intake: &mut Intake) -> Result<(), Unreadable> {
    let request: RequestJson = json::read(body)?;
    let mut index = 0;
    for resource_metrics in request.resource_metrics.0 {
        let resource = attributes(resource_metrics.resource.attributes);
        for scope_metrics in resource_metrics.scope_metrics.0 {
            for metric in scope_metrics.metrics.0 {
                let shapes = [
                    (metric.gauge, Shape::Gauge),
                    (metric.sum, Shape::Sum { monotonic: false }),
                    (metric.histogram, Shape::Histogram),
                    (metric.exponential_histogram, Shape::Exponential),
                    (metric.summary, Shape::Summary),
                ];
                for (data, shape) in shapes {
                    let Some(data) = data else { continue };
                    let shape = match shape {
                        Shape::Sum { .. } => Shape::Sum { monotonic: data.is_monotonic },
                        other => other,
                    };
                    let shared = Metric {
                        resource: &resource,
                        scope: &scope_metrics.scope.name,
                        name: &metric.name,
                        unit: &metric.unit,
                        shape,
                        temporality: data.aggregation_temporality.unsigned(),
                    };
                    for point in data.data_points.0 {
                        put(index, &shared, point.into(), intake)?;
                        index += 1;
                    }
                }
            }
        }
    }
    Ok(())
}

impl From<PointJson> for DataPoint {
    fn from(point: PointJson) -> Self {
        let number = point.as_int.map(|number| number.0 as f64);
        let double = |number: Option<Double>| number.map(|number| number.0);
        let doubles = |numbers: Few<Double>| numbers.0.into_iter().map(|one| one.0).collect();
        let quantiles = point.quantile_values.0.into_iter();
        Self {
            attributes: attributes(point.attributes),
            time_ns: point.time_unix_nano.unsigned(),
            flags: point.flags.unsigned(),
            value: double(point.as_double).or(number),
            count: point.count.unsigned(),
            sum: double(point.sum),
            min: double(point.min),
            max: double(point.max),
            bounds: doubles(point.explicit_bounds),
            bucket_counts: counts(point.bucket_counts),
            scale: point.scale.0,
            zero_count: point.zero_count.unsigned(),
            zero_threshold: point.zero_threshold.0,
            positive: (*point.positive).into(),
            negative: (*point.negative).into(),
            quantiles: quantiles.map(|one| (one.quantile.0, one.value.0)).collect(),
        }
    }
}

impl From<BucketsJson> for Buckets {
    fn from(buckets: BucketsJson) -> Self {
        Self { offset: buckets.offset.0, counts: counts(buckets.bucket_counts) }
    }
}

fn counts(numbers: Few<Integer>) -> Vec<u64> {
    numbers.0.into_iter().map(Integer::unsigned).collect()
}

fn attributes(pairs: Few<PairJson>) -> Attributes {
    let pairs = pairs.0.into_iter().take(ATTRIBUTES_MAX);
    pairs.map(|pair| (pair.key, text(&plain(pair.value)))).collect()
}

/// The value that an `AnyValue` holds.
fn plain(any: AnyJson) -> Value {
    let text = any.string_value.or(any.bytes_value).map(Value::String);
    let number = any.int_value.map(|number| Value::from(number.0));
    let scalar = text.or(any.bool_value.map(Value::Bool)).or(number);
    let scalar = scalar.or(any.double_value.map(|number| Value::from(number.0)));
    if let Some(list) = any.array_value {
        return list.values.0.into_iter().map(plain).collect();
    }
    if let Some(map) = any.kvlist_value {
        let pairs = map.values.0.into_iter().map(|pair| (pair.key, plain(pair.value)));
        return Value::Object(pairs.collect());
    }
    scalar.unwrap_or_default()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
