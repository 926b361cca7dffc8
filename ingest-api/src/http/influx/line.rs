//! One line of line protocol: `measurement[,tag=value…] field=value[,field=value…] [time]`.
//!
//! Read here, not by a crate: the one there is (influxdb-line-protocol) was last released in 2023
//! from a repository that is archived, asserts on input, and does not tell on which line it failed,
//! which our answer must say. The rules, by InfluxDB's own reader: a backslash escapes comma, space
//! and `=` in names and tags, and quote and backslash in texts; a text may hold line breaks.

use std::iter;

use spillway_proto::limits::METRIC_BYTES_MAX;

/// Tags, or fields, of one line.
const PARTS_MAX: usize = 1_024;

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field {
    /// A float, an integer, or a boolean as 1 or 0.
    Number(f64),
    /// A text: nothing that can be stored as a point.
    Text,
}

/// A line, taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    pub measurement: String,
    pub tags: Vec<(String, String)>,
    pub fields: Vec<(String, Field)>,
    /// In the unit that the request states.
    pub time: Option<i64>,
}

/// Why a line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    #[error("the measurement is missing")]
    Measurement,
    #[error("the measurement is longer than {METRIC_BYTES_MAX} bytes")]
    Long,
    #[error("a tag is not name=value")]
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
/// break inside a field's text does not end a line.
pub fn lines(body: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = body;
    let mut next = 1;
    let all = iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let number = next;
        let (line, after) = rest.split_at(end_of_line(rest));
        rest = after.strip_prefix('\n').unwrap_or(after);
        next += 1 + line.bytes().filter(|byte| *byte == b'\n').count();
        Some((number, line.trim_matches([' ', '\t', '\r', '\0'])))
    });
    all.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Where the first line of `text` ends.
fn end_of_line(text: &str) -> usize {
    let (mut escaped, mut in_fields, mut in_value, mut quoted) = (false, false, false, false);
    let comment = text.trim_start_matches([' ', '\t']).starts_with('#');
    for (at, byte) in text.bytes().enumerate() {
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
pub fn parse(text: &str, line: &mut Line) -> Result<(), LineFault> {
    line.tags.clear();
    line.fields.clear();
    let mut rest = text;
    line.measurement = take_name(&mut rest, &[',', ' ']);
    if line.measurement.is_empty() {
        return Err(LineFault::Measurement);
    }
    // Each field's metric begins with it.
    if line.measurement.len() > METRIC_BYTES_MAX {
        return Err(LineFault::Long);
    }
    while let Some(after) = rest.strip_prefix(',') {
        rest = after;
        let name = take_name(&mut rest, &['=', ',', ' ']);
        rest = rest.strip_prefix('=').ok_or(LineFault::Tag)?;
        let value = take_name(&mut rest, &[',', ' ', '=']);
        if name.is_empty() || value.is_empty() || rest.starts_with('=') {
            return Err(LineFault::Tag);
        }
        push(&mut line.tags, (name, value))?;
    }
    rest = rest.trim_start_matches(' ');
    if rest.is_empty() {
        return Err(LineFault::Fields);
    }
    loop {
        let name = take_name(&mut rest, &['=', ',', ' ']);
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
    let parsed = || time.parse().map_err(|_| LineFault::Time);
    line.time = if time.is_empty() { None } else { Some(parsed()?) };
    Ok(())
}

fn push<T>(to: &mut Vec<T>, part: T) -> Result<(), LineFault> {
    if to.len() == PARTS_MAX {
        return Err(LineFault::TooMany);
    }
    to.push(part);
    Ok(())
}

/// Everything up to the first of `ends` that no backslash escapes. A backslash before anything
/// else means itself.
fn take_name(rest: &mut &str, ends: &[char]) -> String {
    let mut name = String::new();
    let mut characters = rest.char_indices().peekable();
    let mut end = rest.len();
    while let Some((at, character)) = characters.next() {
        if ends.contains(&character) {
            end = at;
            break;
        }
        let escaped = |next: &(usize, char)| matches!(next.1, ',' | ' ' | '=' | '\\');
        match characters.next_if(|next| character == '\\' && escaped(next)) {
            Some((_, meant)) => name.push(meant),
            None => name.push(character),
        }
    }
    *rest = rest.get(end..).unwrap_or_default();
    name
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
    if let Some(integer) = text.strip_suffix('i') {
        return integer.parse::<i64>().ok().map(|number| number as f64);
    }
    if let Some(integer) = text.strip_suffix('u') {
        return integer.parse::<u64>().ok().map(|number| number as f64);
    }
    // Rust reads `inf` and `nan` too; line protocol has neither.
    let plain =
        |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E');
    text.bytes().all(plain).then(|| text.parse().ok()).flatten()
}
