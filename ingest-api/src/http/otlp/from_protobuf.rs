//! `ExportMetricsServiceRequest` in protobuf (opentelemetry-proto, `metrics/v1/metrics.proto`).

use super::points::{ATTRIBUTES_MAX, Attributes, Buckets, DataPoint, Metric, Shape, put};
use crate::cut::Intake;
use crate::histogram::LISTED_MAX;
use crate::http::foreign::Unreadable;
use crate::wire::{Fields, Malformed, Value};

/// How deep lists and maps in attributes are followed; they become JSON.
const DEPTH_MAX: usize = 8;

/// Reads a body.
///
/// # Errors
/// [`Unreadable`].
pub fn read(body: &[u8], intake: &mut Intake) -> Result<(), Unreadable> {
    let mut index = 0;
    for field in Fields(body) {
        let (1, resource_metrics) = field? else { continue };
        let fields = resource_metrics.message()?;
        let resource = match only(fields, 1)? {
            Some(resource) => attributes(resource.message()?, 1)?,
            None => Attributes::new(),
        };
        for field in fields {
            let (2, scope_metrics) = field? else { continue };
            let fields = scope_metrics.message()?;
            let scope = match only(fields, 1)? {
                Some(scope) => only(scope.message()?, 1)?.map_or(Ok(""), Value::text)?,
                None => "",
            };
            for field in fields {
                let (2, metric) = field? else { continue };
                let shared = Metric { resource: &resource, scope, ..Metric::default() };
                read_metric(metric.message()?, shared, &mut index, intake)?;
            }
        }
    }
    Ok(())
}

/// The last field of this number: later ones overrule.
fn only<'a>(fields: Fields<'a>, wanted: u32) -> Result<Option<Value<'a>>, Malformed> {
    let mut found = None;
    for field in fields {
        let (tag, value) = field?;
        if tag == wanted {
            found = Some(value);
        }
    }
    Ok(found)
}

fn read_metric<'a>(
    fields: Fields<'a>,
    mut metric: Metric<'a>,
    index: &mut usize,
    intake: &mut Intake,
) -> Result<(), Unreadable> {
    let mut data = None;
    for field in fields {
        let (tag, value) = field?;
        let shape = match tag {
            1 => {
                metric.name = value.text()?;
                continue;
            }
            3 => {
                metric.unit = value.text()?;
                continue;
            }
            5 => Shape::Gauge,
            7 => Shape::Sum { monotonic: false },
            9 => Shape::Histogram,
            10 => Shape::Exponential,
            11 => Shape::Summary,
            _ => continue,
        };
        (metric.shape, data) = (shape, Some(value.message()?));
    }
    let Some(data) = data else { return Ok(()) };
    for field in data {
        match field? {
            (2, temporality) => metric.temporality = temporality.uint()?,
            (3, monotonic) => {
                let monotonic = monotonic.uint()? != 0;
                metric.shape = Shape::Sum { monotonic };
            }
            _ => {}
        }
    }
    for field in data {
        let (1, point) = field? else { continue };
        let point = point.message()?;
        let point = match metric.shape {
            Shape::Gauge | Shape::Sum { .. } => number(point)?,
            Shape::Histogram => explicit(point)?,
            Shape::Exponential => exponential(point)?,
            Shape::Summary => summary(point)?,
        };
        put(*index, &metric, point, intake)?;
        *index += 1;
    }
    Ok(())
}

fn number(fields: Fields<'_>) -> Result<DataPoint, Malformed> {
    let mut point = DataPoint { attributes: attributes(fields, 7)?, ..DataPoint::default() };
    for field in fields {
        match field? {
            (3, value) => point.time_ns = value.fixed()?,
            (4, value) => point.value = Some(value.double()?),
            (6, value) => point.value = Some(value.fixed()?.cast_signed() as f64),
            (8, value) => point.flags = value.flags()?,
            _ => {}
        }
    }
    Ok(point)
}

fn explicit(fields: Fields<'_>) -> Result<DataPoint, Malformed> {
    let mut point = DataPoint { attributes: attributes(fields, 9)?, ..DataPoint::default() };
    let mut bounds = Vec::new();
    for field in fields {
        match field? {
            (3, value) => point.time_ns = value.fixed()?,
            (4, value) => point.count = value.fixed()?,
            (5, value) => point.sum = Some(value.double()?),
            (6, value) => value.push_fixed(&mut point.bucket_counts, LISTED_MAX)?,
            (7, value) => value.push_fixed(&mut bounds, LISTED_MAX)?,
            (10, value) => point.flags = value.flags()?,
            (11, value) => point.min = Some(value.double()?),
            (12, value) => point.max = Some(value.double()?),
            _ => {}
        }
    }
    point.bounds = bounds.into_iter().map(f64::from_bits).collect();
    Ok(point)
}

fn exponential(fields: Fields<'_>) -> Result<DataPoint, Malformed> {
    let mut point = DataPoint { attributes: attributes(fields, 1)?, ..DataPoint::default() };
    for field in fields {
        match field? {
            (3, value) => point.time_ns = value.fixed()?,
            (4, value) => point.count = value.fixed()?,
            (5, value) => point.sum = Some(value.double()?),
            (6, value) => point.scale = value.zigzag()?,
            (7, value) => point.zero_count = value.fixed()?,
            (8, value) => point.positive = buckets(value.message()?)?,
            (9, value) => point.negative = buckets(value.message()?)?,
            (10, value) => point.flags = value.flags()?,
            (12, value) => point.min = Some(value.double()?),
            (13, value) => point.max = Some(value.double()?),
            (14, value) => point.zero_threshold = value.double()?,
            _ => {}
        }
    }
    Ok(point)
}

fn buckets(fields: Fields<'_>) -> Result<Buckets, Malformed> {
    let mut buckets = Buckets::default();
    for field in fields {
        match field? {
            (1, value) => buckets.offset = value.zigzag()?,
            (2, value) => value.push_varints(&mut buckets.counts, LISTED_MAX)?,
            _ => {}
        }
    }
    Ok(buckets)
}

fn summary(fields: Fields<'_>) -> Result<DataPoint, Malformed> {
    let mut point = DataPoint { attributes: attributes(fields, 7)?, ..DataPoint::default() };
    for field in fields {
        match field? {
            (3, value) => point.time_ns = value.fixed()?,
            (4, value) => point.count = value.fixed()?,
            (5, value) => point.sum = Some(value.double()?),
            (6, value) => {
                let mut pair = (0.0, 0.0);
                for field in value.message()? {
                    match field? {
                        (1, quantile) => pair.0 = quantile.double()?,
                        (2, value) => pair.1 = value.double()?,
                        _ => {}
                    }
                }
                if point.quantiles.len() <= LISTED_MAX {
                    point.quantiles.push(pair);
                }
            }
            (8, value) => point.flags = value.flags()?,
            _ => {}
        }
    }
    Ok(point)
}

/// The key-value pairs in the fields of this number.
fn attributes(fields: Fields<'_>, wanted: u32) -> Result<Attributes, Malformed> {
    let mut attributes = Attributes::new();
    for field in fields {
        let (tag, pair) = field?;
        if tag != wanted {
            continue;
        }
        // More than a series may have labels: its points are refused for that, by name.
        if attributes.len() == ATTRIBUTES_MAX {
            break;
        }
        let (name, value) = pair_of(pair.message()?, DEPTH_MAX)?;
        let text = match value {
            serde_json::Value::String(text) => text,
            serde_json::Value::Null => String::new(),
            other => other.to_string(),
        };
        attributes.push((name.to_owned(), text));
    }
    Ok(attributes)
}

fn pair_of(fields: Fields<'_>, depth: usize) -> Result<(&str, serde_json::Value), Malformed> {
    let mut pair = ("", serde_json::Value::Null);
    for field in fields {
        match field? {
            (1, name) => pair.0 = name.text()?,
            (2, value) => pair.1 = any(value.message()?, depth)?,
            _ => {}
        }
    }
    Ok(pair)
}

/// An `AnyValue`.
fn any(fields: Fields<'_>, depth: usize) -> Result<serde_json::Value, Malformed> {
    let mut any = serde_json::Value::Null;
    let deeper = depth.checked_sub(1).ok_or(Malformed("an attribute is nested too deeply"))?;
    for field in fields {
        any = match field? {
            (1, value) => value.text()?.into(),
            (2, value) => (value.uint()? != 0).into(),
            (3, value) => value.int()?.into(),
            (4, value) => value.double()?.into(),
            (5, list) => {
                let mut values = Vec::new();
                for field in list.message()? {
                    let (1, value) = field? else { continue };
                    values.push(any_within(value, deeper, values.len())?);
                }
                values.into()
            }
            (6, map) => {
                let mut values = serde_json::Map::new();
                for field in map.message()? {
                    let (1, pair) = field? else { continue };
                    let (name, value) = pair_of(pair.message()?, deeper)?;
                    values.insert(name.to_owned(), value);
                    if values.len() > ATTRIBUTES_MAX {
                        return Err(Malformed("an attribute has too many parts"));
                    }
                }
                values.into()
            }
            (7, bytes) => hexadecimal(bytes.bytes()?).into(),
            _ => continue,
        };
    }
    Ok(any)
}

fn any_within(value: Value<'_>, depth: usize, at: usize) -> Result<serde_json::Value, Malformed> {
    if at >= ATTRIBUTES_MAX {
        return Err(Malformed("an attribute has too many parts"));
    }
    any(value.message()?, depth)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
