//! `io.prometheus.write.v2.Request`: texts stand in one table, series refer to them.

use spillway_proto::Kind;
use spillway_proto::limits::UNIT_BYTES_MAX;

use super::Written;
use super::series::{OneSeries, Reading};
use super::v1::sample_of;
use crate::cut::{Intake, TooMuch};
use crate::http::foreign::Unreadable;
use crate::wire::{Fields, Malformed, Value};

/// Texts of one request.
const SYMBOLS_MAX: usize = 500_000;
/// References of one series: two for each label, far above proto's limit.
const REFS_MAX: usize = 4_096;

/// Reads a body.
///
/// # Errors
/// [`Unreadable`], also for a reference to a text that is not there.
pub fn read(body: &[u8], reading: Reading, intake: &mut Intake) -> Result<Written, Unreadable> {
    let symbols = symbols(body)?;
    let (mut written, mut series) = (Written::default(), OneSeries::default());
    let mut refs = Vec::new();
    let mut index = 0;
    for field in Fields(body) {
        let (5, value) = field? else { continue };
        series.clear();
        refs.clear();
        for field in value.message()? {
            match field? {
                (1, value) => {
                    value.push_varints(&mut refs, REFS_MAX)?;
                    if refs.len() > REFS_MAX {
                        return Err(Malformed("a series has more than 2048 labels").into());
                    }
                }
                (2, sample) => series.samples.push(sample_of(sample.message()?)?),
                (3, histogram) => series.histograms.push(histogram.bytes()?),
                (5, metadata) => describe(&mut series, metadata, &symbols)?,
                _ => {}
            }
        }
        for pair in refs.chunks(2) {
            let [name, value] = pair else {
                return Err(Malformed("labels_refs has an odd length").into());
            };
            series.label(text(&symbols, *name)?, text(&symbols, *value)?);
        }
        series.put(index, reading, intake, &mut written)?;
        index += 1;
    }
    Ok(written)
}

fn symbols(body: &[u8]) -> Result<Vec<&str>, Unreadable> {
    let mut symbols = Vec::new();
    for field in Fields(body) {
        let (4, symbol) = field? else { continue };
        symbols.push(symbol.text()?);
        if symbols.len() > SYMBOLS_MAX {
            return Err(TooMuch { what: "symbols", max: SYMBOLS_MAX }.into());
        }
    }
    match symbols.first() {
        None | Some(&"") => Ok(symbols),
        Some(_) => Err(Malformed("the first symbol is not empty").into()),
    }
}

fn text<'a>(symbols: &[&'a str], at: u64) -> Result<&'a str, Malformed> {
    let symbol = usize::try_from(at).ok().and_then(|at| symbols.get(at));
    symbol.copied().ok_or(Malformed("a reference to a symbol that is not there"))
}

/// Kind and unit, of which 2.0 tells with each series.
fn describe<'a>(
    series: &mut OneSeries<'a>,
    metadata: Value<'a>,
    symbols: &[&'a str],
) -> Result<(), Malformed> {
    for field in metadata.message()? {
        match field? {
            // Histogram and summary are several series: their names tell.
            (1, kind) => {
                series.kind = match kind.uint()? {
                    1 => Some(Kind::Cumulative),
                    2 | 4 | 6 | 7 => Some(Kind::Gauge),
                    _ => None,
                }
            }
            (4, unit) => {
                let unit = text(symbols, unit.uint()?)?;
                series.unit = if unit.len() <= UNIT_BYTES_MAX { unit } else { "" };
            }
            _ => {}
        }
    }
    Ok(())
}
