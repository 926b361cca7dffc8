//! `prometheus.WriteRequest`.

use spillway_proto::Point;

use super::Written;
use super::series::{OneSeries, Reading};
use crate::cut::Intake;
use crate::http::foreign::Unreadable;
use crate::wire::{Fields, Malformed};

/// Reads a body; its metadata (help texts, kinds) comes in requests of its own and is left aside.
///
/// # Errors
/// [`Unreadable`].
pub fn read(body: &[u8], reading: Reading, intake: &mut Intake) -> Result<Written, Unreadable> {
    let (mut written, mut series) = (Written::default(), OneSeries::default());
    let mut index = 0;
    for field in Fields(body) {
        let (1, value) = field? else { continue };
        series.clear();
        for field in value.message()? {
            match field? {
                (1, label) => {
                    let (name, value) = label_of(label.message()?)?;
                    series.label(name, value);
                }
                (2, sample) => series.samples.push(sample_of(sample.message()?)?),
                (4, histogram) => series.histograms.push(histogram.bytes()?),
                _ => {}
            }
        }
        series.put(index, reading, intake, &mut written)?;
        index += 1;
    }
    Ok(written)
}

fn label_of(fields: Fields<'_>) -> Result<(&str, &str), Malformed> {
    let mut label = ("", "");
    for field in fields {
        match field? {
            (1, name) => label.0 = name.text()?,
            (2, value) => label.1 = value.text()?,
            _ => {}
        }
    }
    Ok(label)
}

/// A sample of either version: their first two fields are the same.
pub(super) fn sample_of(fields: Fields<'_>) -> Result<Point, Malformed> {
    let mut point = Point { ts_ms: 0, value: 0.0 };
    for field in fields {
        match field? {
            (1, value) => point.value = value.double()?,
            (2, ts_ms) => point.ts_ms = ts_ms.int()?,
            _ => {}
        }
    }
    Ok(point)
}
