//! Line protocol as readings: `measurement,tag=value field=1,other=2i time`. How a line is read is
//! one matter for all programs ([`spillway_proto::line_protocol`]).
//!
//! Each numeric or boolean field becomes a gauge `measurement_field` with the line's tags as
//! labels; a field that is text is no metric and left out. Line protocol tells no kinds: what
//! counts up is a gauge here as well.

pub use spillway_proto::line_protocol::Precision;
use spillway_proto::line_protocol::{Field, Line, LineFault, lines, parse};
use spillway_proto::{Kind, limits};

use super::tray::{Pack, Sample, Unpackable};

/// Why a body is refused, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLines {
    #[error("line {line}: {why}")]
    Line { line: usize, why: LineFault },
    #[error("line {line}: the time is out of range; is the precision right?")]
    Time { line: usize },
    #[error("line {line}: {why}")]
    Unpackable { line: usize, why: Unpackable },
}

/// Reads all lines into `out`; lines without a time get `now_ms`. How many readings there were.
///
/// # Errors
/// One line is none, or finds no room. `out` may hold a part then, which is to be left out.
pub fn read(
    bytes: &[u8],
    precision: Precision,
    now_ms: i64,
    out: &mut Pack,
) -> Result<usize, BadLines> {
    let before = out.len();
    let (mut parsed, mut metric) = (Line::default(), String::new());
    for (line, text) in lines(bytes) {
        text.and_then(|text| parse(text, &mut parsed))
            .map_err(|why| BadLines::Line { line, why })?;
        let ts_ms = parsed.time.map_or(now_ms, |time| precision.to_ms(time));
        if !(0..=limits::TS_MS_MAX).contains(&ts_ms) {
            return Err(BadLines::Time { line });
        }
        for (field, value) in &parsed.fields {
            let Field::Number(value) = *value else { continue };
            metric.clear();
            metric.push_str(&parsed.measurement);
            // Telegraf's own custom for what has one field only, and Prometheus' in turn.
            if field != "value" {
                metric.push('_');
                metric.push_str(field);
            }
            let (labels, kind, unit) = (parsed.tags.as_slice(), Kind::Gauge, "");
            let sample = Sample { metric: &metric, labels, kind, unit, ts_ms, value };
            out.push(&sample).map_err(|why| BadLines::Unpackable { line, why })?;
        }
    }
    Ok(out.len() - before)
}

#[cfg(test)]
#[path = "line_protocol_tests.rs"]
mod tests;
