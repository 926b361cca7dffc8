//! The three forms of Datadog's series, mapped to one.

use serde::Deserialize;
use spillway_proto::limits::{LABELS_MAX, UNIT_BYTES_MAX};
use spillway_proto::{Kind, Point};

use crate::cut::{Intake, Naming};
use crate::http::foreign::Unreadable;
use crate::json::{self, Double, Few, Integer};
use crate::wire::{Fields, Malformed};

/// Tags of one series; one label may take many of them.
const TAGS_MAX: usize = 4 * LABELS_MAX;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    V1,
    V2,
    V2Protobuf,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Payload<T> {
    series: Few<T>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SeriesV1 {
    metric: String,
    points: Few<(Double, Option<Double>)>,
    #[serde(rename = "type")]
    kind: Option<String>,
    host: Option<String>,
    device: Option<String>,
    tags: Few<String>,
    unit: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SeriesV2 {
    metric: String,
    #[serde(rename = "type")]
    kind: Integer,
    points: Few<PointV2>,
    resources: Few<Resource>,
    tags: Few<String>,
    unit: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PointV2 {
    timestamp: Integer,
    value: Double,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Resource {
    #[serde(rename = "type")]
    kind: String,
    name: String,
}

/// One series of any form.
#[derive(Default)]
struct OneSeries<'a> {
    metric: &'a str,
    host: Option<&'a str>,
    device: Option<&'a str>,
    kind: Option<Kind>,
    unit: &'a str,
    tags: Vec<&'a str>,
    points: Vec<Point>,
}

/// Reads a body.
///
/// # Errors
/// [`Unreadable`].
pub fn read(body: &[u8], form: Form, intake: &mut Intake) -> Result<(), Unreadable> {
    match form {
        Form::V1 => {
            let payload: Payload<SeriesV1> = json::read(body)?;
            payload.series.0.iter().enumerate().try_for_each(|(at, one)| one.put(at, intake))
        }
        Form::V2 => {
            let payload: Payload<SeriesV2> = json::read(body)?;
            payload.series.0.iter().enumerate().try_for_each(|(at, one)| one.put(at, intake))
        }
        Form::V2Protobuf => {
            let mut index = 0;
            for field in Fields(body) {
                let (1, series) = field? else { continue };
                from_protobuf(series.message()?)?.put(index, intake)?;
                index += 1;
            }
            Ok(())
        }
    }
}

impl SeriesV1 {
    fn put(&self, index: usize, intake: &mut Intake) -> Result<(), Unreadable> {
        let point = |(time, value): &(Double, Option<Double>)| {
            let value = value.map_or(f64::NAN, |value| value.0);
            Point { ts_ms: (time.0 * 1_000.0).round() as i64, value }
        };
        let kind = match self.kind.as_deref() {
            Some("count") => Kind::Delta,
            _ => Kind::Gauge,
        };
        let series = OneSeries {
            metric: &self.metric,
            host: self.host.as_deref(),
            device: self.device.as_deref(),
            kind: Some(kind),
            unit: self.unit.as_deref().unwrap_or_default(),
            tags: tags(&self.tags),
            points: self.points.0.iter().map(point).collect(),
        };
        series.put(index, intake)
    }
}

impl SeriesV2 {
    fn put(&self, index: usize, intake: &mut Intake) -> Result<(), Unreadable> {
        let point = |point: &PointV2| Point {
            ts_ms: point.timestamp.0.saturating_mul(1_000),
            value: point.value.0,
        };
        let resource = |kind: &str| {
            let found = self.resources.0.iter().find(|resource| resource.kind == kind);
            found.map(|resource| resource.name.as_str())
        };
        let series = OneSeries {
            metric: &self.metric,
            host: resource("host"),
            device: resource("device"),
            kind: kind_of(self.kind.unsigned()),
            unit: self.unit.as_deref().unwrap_or_default(),
            tags: tags(&self.tags),
            points: self.points.0.iter().map(point).collect(),
        };
        series.put(index, intake)
    }
}

/// One more than may be, if there are more.
fn tags(all: &Few<String>) -> Vec<&str> {
    all.0.iter().map(String::as_str).take(TAGS_MAX + 1).collect()
}

/// Counts are of the time since the last one; rates are levels.
fn kind_of(number: u64) -> Option<Kind> {
    match number {
        1 => Some(Kind::Delta),
        0 | 2 | 3 => Some(Kind::Gauge),
        _ => None,
    }
}

fn from_protobuf(fields: Fields<'_>) -> Result<OneSeries<'_>, Malformed> {
    let mut series = OneSeries { kind: Some(Kind::Gauge), ..OneSeries::default() };
    for field in fields {
        match field? {
            (1, resource) => {
                let (mut kind, mut name) = ("", "");
                for field in resource.message()? {
                    match field? {
                        (1, value) => kind = value.text()?,
                        (2, value) => name = value.text()?,
                        _ => {}
                    }
                }
                match kind {
                    "host" => series.host = Some(name),
                    "device" => series.device = Some(name),
                    _ => {}
                }
            }
            (2, metric) => series.metric = metric.text()?,
            (3, tag) => {
                let tag = tag.text()?;
                if series.tags.len() <= TAGS_MAX {
                    series.tags.push(tag);
                }
            }
            (4, point) => {
                let mut one = Point { ts_ms: 0, value: 0.0 };
                for field in point.message()? {
                    match field? {
                        (1, value) => one.value = value.double()?,
                        (2, time) => one.ts_ms = time.int()?.saturating_mul(1_000),
                        _ => {}
                    }
                }
                series.points.push(one);
            }
            (5, kind) => series.kind = kind_of(kind.uint()?),
            (6, unit) => series.unit = unit.text()?,
            _ => {}
        }
    }
    Ok(series)
}

impl OneSeries<'_> {
    fn put(&self, index: usize, intake: &mut Intake) -> Result<(), Unreadable> {
        let place = ("series", index);
        let Some(kind) = self.kind else {
            intake.refusals.add(self.points.len(), place, &"its type is unknown");
            return Ok(());
        };
        if self.tags.len() > TAGS_MAX {
            intake.refusals.add(self.points.len(), place, &"it has more than 256 tags");
            return Ok(());
        }
        let tagged = |tag: &&str| tag.strip_prefix("host:").map(str::to_owned);
        let host = self.host.filter(|host| !host.is_empty()).map(str::to_owned);
        let host = host.or_else(|| self.tags.iter().find_map(tagged));
        let labels = self.labels();
        let labels: Vec<(&str, &str)> =
            labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let unit = if self.unit.len() <= UNIT_BYTES_MAX { self.unit } else { "" };
        let (metric, labels, host) = (self.metric, labels.as_slice(), host.as_deref());
        let naming = Naming { place, host, metric, labels, kind, unit };
        intake.put(&naming, &self.points)?;
        Ok(())
    }

    /// Tags as labels: one without a colon has an empty value, and values of one name stand in one
    /// label, in order.
    fn labels(&self) -> Vec<(&str, String)> {
        let mut tags: Vec<(&str, &str)> = self
            .tags
            .iter()
            .map(|tag| tag.split_once(':').unwrap_or((tag, "")))
            .filter(|(name, _)| *name != "host")
            .chain(self.device.map(|device| ("device", device)))
            .collect();
        tags.sort_unstable();
        tags.dedup();
        let mut labels: Vec<(&str, String)> = Vec::new();
        for (name, value) in tags {
            match labels.last_mut() {
                Some((last, values)) if *last == name => {
                    values.push(',');
                    values.push_str(value);
                }
                _ => labels.push((name, value.to_owned())),
            }
        }
        labels
    }
}
