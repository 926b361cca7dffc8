//! InfluxDB's line protocol: `measurement[,tag=value…] field=value[,field=value…] [time]`.
//!
//! One reader for all who take it (the agent's listener and commands, ingest-api). Read here, not
//! by a crate: the one there is (influxdb-line-protocol) was last released in 2023 from a
//! repository that is archived, asserts on input, and does not tell on which line it failed.
//!
//! The rules are those of "Line protocol reference" (InfluxDB 1.8 and 2), and where it is silent
//! those of InfluxDB's own reader (`models/points.go`):
//! - a backslash takes the meaning of comma and space in a measurement, of comma, space and `=` in
//!   tags and names of fields, of quote and backslash in texts. Before anything else it means
//!   itself: `C:\\x` in a tag keeps both;
//! - a text may hold line breaks; a tag may not stand twice, nor be empty;
//! - a number has no leading `+`, and is finite.

use std::borrow::Cow;
use std::iter;

use crate::limits::METRIC_BYTES_MAX;
pub use crate::precision::Precision;

/// Tags, or fields, of one line.
const PARTS_MAX: usize = 1_024;
/// What a backslash may stand before, in a measurement…
const OF_MEASUREMENT: [char; 2] = [',', ' '];
/// …and in tags and names of fields.
const OF_NAME: [char; 3] = [',', ' ', '='];

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field {
    /// A float, an integer, or a boolean as 1 or 0. Finite.
    Number(f64),
    /// A text: nothing that can be stored as a point.
    Text,
}

/// A name or a value; borrowed unless a backslash stood in it.
pub type Text<'a> = Cow<'a, str>;

/// A line, taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line<'a> {
    pub measurement: Text<'a>,
    /// Sorted by their names, each of which is there once.
    pub tags: Vec<(Text<'a>, Text<'a>)>,
    pub fields: Vec<(Text<'a>, Field)>,
    /// In the unit that the request states.
    pub time: Option<i64>,
}

/// Why a line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    #[error("it is not UTF-8")]
    NotText,
    #[error("the measurement is missing")]
    Measurement,
    #[error("the measurement is longer than {METRIC_BYTES_MAX} bytes")]
    Long,
    #[error("a tag is not name=value, or stands twice")]
    Tag,
    #[error("the fields are missing")]
    Fields,
    #[error("a field is not name=value")]
    Field,
    #[error("a field's value is no float, integer, boolean or text")]
    Value,
    #[error("a text has no end")]
    Text,
    #[error("the time is no integer")]
    Time,
    #[error("it has more than {PARTS_MAX} tags or fields")]
    TooMany,
}

/// The lines of a body with their numbers, from 1; empty ones and comments are left out. A line
/// break inside a field's text does not end a line. One that is not UTF-8 is a fault of its own.
pub fn lines(body: &[u8]) -> impl Iterator<Item = (usize, Result<&str, LineFault>)> {
    let mut rest = body;
    let mut next = 1;
    let all = iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let number = next;
        let (line, after) = rest.split_at(end_of_line(rest));
        rest = after.strip_prefix(b"\n").unwrap_or(after);
        next += 1 + line.iter().filter(|byte| **byte == b'\n').count();
        Some((number, trimmed(line)))
    });
    let says = all.filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"));
    says.map(|(number, line)| (number, str::from_utf8(line).map_err(|_| LineFault::NotText)))
}

/// Without what may stand around a line.
fn trimmed(line: &[u8]) -> &[u8] {
    let says = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\r' | b'\0');
    let from = line.iter().position(says).unwrap_or(line.len());
    let to = line.iter().rposition(says).map_or(from, |last| last + 1);
    line.get(from..to).unwrap_or_default()
}

/// Where the first line of `text` ends.
fn end_of_line(text: &[u8]) -> usize {
    let (mut escaped, mut in_fields, mut in_value, mut quoted) = (false, false, false, false);
    let begin = text.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\0'));
    let comment = begin == Some(&b'#');
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'\n' if !quoted => return at,
            _ if comment => {}
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' if quoted || in_value => (quoted, in_value) = (!quoted, false),
            _ if quoted => {}
            b' ' => (in_fields, in_value) = (true, false),
            b'=' if in_fields => in_value = true,
            _ => in_value = false,
        }
    }
    text.len()
}

/// Takes `text` apart into `line`, whose room is used again.
///
/// # Errors
/// [`LineFault`]; `line` is then half full.
pub fn parse<'a>(text: &'a str, line: &mut Line<'a>) -> Result<(), LineFault> {
    line.tags.clear();
    line.fields.clear();
    let mut rest = text;
    line.measurement = take_name(&mut rest, &[',', ' '], &OF_MEASUREMENT);
    if line.measurement.is_empty() {
        return Err(LineFault::Measurement);
    }
    // Each field's metric begins with it.
    if line.measurement.len() > METRIC_BYTES_MAX {
        return Err(LineFault::Long);
    }
    take_tags(&mut rest, &mut line.tags)?;
    rest = rest.trim_start_matches(' ');
    if rest.is_empty() {
        return Err(LineFault::Fields);
    }
    loop {
        let name = take_name(&mut rest, &['=', ',', ' '], &OF_NAME);
        rest = rest.strip_prefix('=').ok_or(LineFault::Field)?;
        if name.is_empty() {
            return Err(LineFault::Field);
        }
        let value = take_value(&mut rest)?;
        push(&mut line.fields, (name, value))?;
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => break,
        }
    }
    let time = rest.trim_matches(' ');
    line.time = match time {
        "" => None,
        time => Some(integer(time).ok_or(LineFault::Time)?),
    };
    Ok(())
}

fn take_tags<'a>(
    rest: &mut &'a str,
    tags: &mut Vec<(Text<'a>, Text<'a>)>,
) -> Result<(), LineFault> {
    while let Some(after) = rest.strip_prefix(',') {
        *rest = after;
        let name = take_name(rest, &['=', ',', ' '], &OF_NAME);
        *rest = rest.strip_prefix('=').ok_or(LineFault::Tag)?;
        let value = take_name(rest, &[',', ' ', '='], &OF_NAME);
        if name.is_empty() || value.is_empty() || rest.starts_with('=') {
            return Err(LineFault::Tag);
        }
        push(tags, (name, value))?;
    }
    tags.sort_unstable();
    let twice = tags.windows(2).any(|two| matches!(two, [one, other] if one.0 == other.0));
    if twice { Err(LineFault::Tag) } else { Ok(()) }
}

fn push<T>(to: &mut Vec<T>, part: T) -> Result<(), LineFault> {
    if to.len() == PARTS_MAX {
        return Err(LineFault::TooMany);
    }
    to.push(part);
    Ok(())
}

/// Everything up to the first of `ends` that no backslash takes the meaning of.
fn take_name<'a>(rest: &mut &'a str, ends: &[char], escapable: &[char]) -> Text<'a> {
    let mut end = rest.len();
    let mut meant: Option<String> = None;
    let mut characters = rest.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if ends.contains(&character) {
            end = at;
            break;
        }
        match characters.next_if(|next| character == '\\' && escapable.contains(&next.1)) {
            Some((_, escaped)) => {
                let before = || rest.get(..at).unwrap_or_default().to_owned();
                meant.get_or_insert_with(before).push(escaped);
            }
            None => {
                if let Some(meant) = &mut meant {
                    meant.push(character);
                }
            }
        }
    }
    let (name, after) = rest.split_at(end);
    *rest = after;
    meant.map_or(Cow::Borrowed(name), Cow::Owned)
}

fn take_value(rest: &mut &str) -> Result<Field, LineFault> {
    if let Some(text) = rest.strip_prefix('"') {
        let mut escaped = false;
        let end = text.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        *rest = text.get(end.ok_or(LineFault::Text)? + 1..).unwrap_or_default();
        return match rest.chars().next() {
            None | Some(',' | ' ') => Ok(Field::Text),
            Some(_) => Err(LineFault::Value),
        };
    }
    let (value, after) = rest.split_at(rest.find([',', ' ']).unwrap_or(rest.len()));
    *rest = after;
    number(value).map(Field::Number).ok_or(LineFault::Value)
}

fn number(text: &str) -> Option<f64> {
    match text {
        "t" | "T" | "true" | "True" | "TRUE" => return Some(1.0),
        "f" | "F" | "false" | "False" | "FALSE" => return Some(0.0),
        _ => {}
    }
    if let Some(digits) = text.strip_suffix('i') {
        return integer(digits).map(|number| number as f64);
    }
    if let Some(digits) = text.strip_suffix('u') {
        let unsigned = digits.bytes().all(|byte| byte.is_ascii_digit());
        return digits.parse::<u64>().ok().filter(|_| unsigned).map(|number| number as f64);
    }
    // Rust reads `inf` and `nan` too; line protocol has neither.
    let plain =
        |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E');
    let well = !text.starts_with('+') && text.bytes().all(plain);
    text.parse::<f64>().ok().filter(|number| well && number.is_finite())
}

/// Digits, perhaps with a minus before them.
fn integer(text: &str) -> Option<i64> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

#[cfg(test)]
mod tests;
