//! InfluxDB's line protocol, read in place: `measurement,tag=value field=1,other=2i time`. Never
//! panics, whatever the bytes. Source: "Line protocol reference" of InfluxDB 1.8 and 2.
//!
//! Each numeric or boolean field becomes a gauge `measurement_field` with the line's tags as
//! labels; a field that is text is no metric and left out. Line protocol tells no kinds: what
//! counts up is a gauge here as well.

use std::borrow::Cow;

pub use spillway_proto::precision::Precision;
use spillway_proto::{Kind, limits};

use super::tray::{Pack, Sample, Unpackable};

/// Why a body is refused, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLines {
    #[error("line {line} {why}")]
    Line { line: u64, why: Malformed },
    #[error("line {line}: {why}")]
    Unpackable { line: u64, why: Unpackable },
}

/// Why a line is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("is not UTF-8")]
    NotText,
    #[error("has no measurement")]
    Measurement,
    #[error("has a tag without a name or a value")]
    Tag,
    #[error("has no field, or one that is no value")]
    Field,
    #[error("has no time where one should be, or one that is out of range")]
    Time,
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
    let mut metric = String::new();
    for (line, bytes) in (1_u64..).zip(bytes.split(|byte| *byte == b'\n')) {
        let bad = |why| BadLines::Line { line, why };
        let text = std::str::from_utf8(bytes).map_err(|_| bad(Malformed::NotText))?;
        let text = text.trim_matches([' ', '\t', '\r']);
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let parsed = Parsed::of(text, precision).map_err(bad)?;
        let ts_ms = parsed.ts_ms.unwrap_or(now_ms);
        for (field, value) in &parsed.fields {
            metric.clear();
            metric.push_str(&parsed.measurement);
            // Telegraf's own custom for what has one field only, and Prometheus' in turn.
            if field != "value" {
                metric.push('_');
                metric.push_str(field);
            }
            let (labels, kind, unit) = (parsed.tags.as_slice(), Kind::Gauge, "");
            let sample = Sample { metric: &metric, labels, kind, unit, ts_ms, value: *value };
            out.push(&sample).map_err(|why| BadLines::Unpackable { line, why })?;
        }
    }
    Ok(out.len() - before)
}

struct Parsed<'a> {
    measurement: Cow<'a, str>,
    tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    fields: Vec<(Cow<'a, str>, f64)>,
    ts_ms: Option<i64>,
}

impl<'a> Parsed<'a> {
    fn of(line: &'a str, precision: Precision) -> Result<Self, Malformed> {
        let (head, rest) = split(line, ' ', false).ok_or(Malformed::Field)?;
        let (measurement, mut tags_text) = split(head, ',', false).unwrap_or((head, ""));
        if measurement.is_empty() {
            return Err(Malformed::Measurement);
        }
        let mut tags = Vec::new();
        while !tags_text.is_empty() {
            let (tag, more) = split(tags_text, ',', false).unwrap_or((tags_text, ""));
            let (name, value) = split(tag, '=', false).ok_or(Malformed::Tag)?;
            if name.is_empty() || value.is_empty() || tags.len() >= limits::LABELS_MAX {
                return Err(Malformed::Tag);
            }
            tags.push((plain(name), plain(value)));
            tags_text = more;
        }
        let rest = rest.trim_start_matches(' ');
        let (fields_text, time) = split(rest, ' ', true).unwrap_or((rest, ""));
        let fields = fields(fields_text)?;
        let time = time.trim_matches(' ');
        let ts_ms = match time.is_empty() {
            true => None,
            false => {
                let time = time.parse().map_err(|_| Malformed::Time)?;
                let in_range = |ts: &i64| (0..=limits::TS_MS_MAX).contains(ts);
                Some(Some(precision.to_ms(time)).filter(in_range).ok_or(Malformed::Time)?)
            }
        };
        Ok(Self { measurement: plain(measurement), tags, fields, ts_ms })
    }
}

fn fields(mut text: &str) -> Result<Vec<(Cow<'_, str>, f64)>, Malformed> {
    if text.is_empty() {
        return Err(Malformed::Field);
    }
    let mut fields = Vec::new();
    while !text.is_empty() {
        let (field, more) = split(text, ',', true).unwrap_or((text, ""));
        let (name, value) = split(field, '=', false).ok_or(Malformed::Field)?;
        if name.is_empty() {
            return Err(Malformed::Field);
        }
        if let Some(value) = value_of(value)? {
            fields.push((plain(name), value));
        }
        text = more;
    }
    Ok(fields)
}

/// A number or a boolean; none for text.
fn value_of(text: &str) -> Result<Option<f64>, Malformed> {
    let number = match text {
        "t" | "T" | "true" | "True" | "TRUE" => 1.0,
        "f" | "F" | "false" | "False" | "FALSE" => 0.0,
        text if text.starts_with('"') => {
            let closed = text.len() >= 2 && text.ends_with('"');
            return if closed { Ok(None) } else { Err(Malformed::Field) };
        }
        text => {
            if let Some(integer) = text.strip_suffix('i') {
                integer.parse::<i64>().map_err(|_| Malformed::Field)? as f64
            } else if let Some(integer) = text.strip_suffix('u') {
                integer.parse::<u64>().map_err(|_| Malformed::Field)? as f64
            } else {
                text.parse::<f64>().map_err(|_| Malformed::Field)?
            }
        }
    };
    if number.is_finite() { Ok(Some(number)) } else { Err(Malformed::Field) }
}

/// Splits at the first `at` that is neither escaped nor (if `quotes`) inside quotes.
fn split(text: &str, at: char, quotes: bool) -> Option<(&str, &str)> {
    let (mut escaped, mut quoted) = (false, false);
    for (place, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' if quotes => quoted = !quoted,
            c if c == at && !quoted => {
                let (before, rest) = text.split_at(place);
                return Some((before, rest.split_at(at.len_utf8()).1));
            }
            _ => {}
        }
    }
    None
}

/// Without the escapes of names and tags.
fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(next @ (',' | '=' | ' ' | '\\'))) => {
                out.push(*next);
                chars.next();
            }
            (c, _) => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
#[path = "line_protocol_tests.rs"]
mod tests;
