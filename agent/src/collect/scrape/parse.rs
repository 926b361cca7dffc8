//! One line of what a target answers: Prometheus' text format 0.0.4 and OpenMetrics 1.0 text, read
//! in place. Never panics, whatever the bytes.
//!
//! Sources: "Exposition formats" of the Prometheus documentation, the OpenMetrics 1.0 ABNF, and for
//! names in quotes (`{"http.server.duration", …}`) Prometheus' UTF-8 proposal. Our own rather than
//! a crate: those that are there build the whole answer as a tree of owned strings (megabytes for a
//! large target, where we keep lines only), and stop at what real exporters write.

use std::borrow::Cow;

/// What one line says.
#[derive(Debug, PartialEq)]
pub enum Line<'a> {
    Sample(Sample<'a>),
    Type {
        family: &'a str,
        name: &'a str,
    },
    Unit {
        family: &'a str,
        unit: &'a str,
    },
    /// OpenMetrics' last line.
    End,
    /// Help, a comment, or nothing.
    Nothing,
}

/// A sample; its labels are in the buffer that [`parse`] was given.
#[derive(Debug, PartialEq)]
pub struct Sample<'a> {
    pub metric: Cow<'a, str>,
    pub value: f64,
}

/// Why a line is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("is not UTF-8")]
    NotText,
    #[error("has no metric's name")]
    Name,
    #[error("has labels that can't be read")]
    Labels,
    #[error("has no number for a value")]
    Value,
    #[error("has something behind its value that is no timestamp")]
    Timestamp,
}

/// Labels of a line, in its order.
pub type LabelBuffer<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// Reads one line, without its line end.
///
/// # Errors
/// [`Malformed`]; Prometheus refuses the whole scrape then, and so do we.
pub fn parse<'a>(line: &'a [u8], labels: &mut LabelBuffer<'a>) -> Result<Line<'a>, Malformed> {
    labels.clear();
    let line = std::str::from_utf8(line).map_err(|_| Malformed::NotText)?;
    let line = line.trim_matches([' ', '\t', '\r']);
    if let Some(comment) = line.strip_prefix('#') {
        return Ok(comment_of(comment));
    }
    if line.is_empty() {
        return Ok(Line::Nothing);
    }
    let bare = line.find(|c: char| c == '{' || c.is_ascii_whitespace()).unwrap_or(line.len());
    let (name, rest) = line.split_at(bare);
    if !(name.is_empty() || is_name(name)) {
        return Err(Malformed::Name);
    }
    let mut metric = Cow::Borrowed(name);
    let rest = rest.trim_start_matches([' ', '\t']);
    let rest = match rest.strip_prefix('{') {
        Some(inside) => braces(inside, &mut metric, labels)?,
        None => rest,
    };
    if metric.is_empty() {
        return Err(Malformed::Name);
    }
    let value = value_of(rest)?;
    Ok(Line::Sample(Sample { metric, value }))
}

fn is_name(text: &str) -> bool {
    let letter = |c: u8| c.is_ascii_alphabetic() || c == b'_' || c == b':';
    text.bytes().enumerate().all(|(at, c)| letter(c) || (at > 0 && c.is_ascii_digit()))
}

fn comment_of(comment: &str) -> Line<'_> {
    let (word, rest) = word(comment);
    let (family, about) = match quoted_plainly(rest.trim_start()) {
        Some(found) => found,
        None => self::word(rest),
    };
    match word {
        "TYPE" => Line::Type { family, name: about.trim() },
        "UNIT" => Line::Unit { family, unit: about.trim() },
        "EOF" if rest.trim().is_empty() => Line::End,
        _ => Line::Nothing,
    }
}

/// A family's name in quotes, if it has no escapes; with escapes its type stays unknown.
fn quoted_plainly(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.strip_prefix('"')?.split_once('"')?;
    (!name.contains('\\')).then_some((name, rest))
}

/// The first word, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches([' ', '\t']);
    text.split_once([' ', '\t']).unwrap_or((text, ""))
}

/// What stands between braces; the rest of the line behind them.
fn braces<'a>(
    mut text: &'a str,
    metric: &mut Cow<'a, str>,
    labels: &mut LabelBuffer<'a>,
) -> Result<&'a str, Malformed> {
    loop {
        text = text.trim_start_matches([' ', '\t']);
        if let Some(rest) = text.strip_prefix('}') {
            return Ok(rest);
        }
        let (name, rest) = match text.strip_prefix('"') {
            Some(inside) => quoted(inside)?,
            None => {
                let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "_:.".contains(c)));
                let (name, rest) = text.split_at(end.ok_or(Malformed::Labels)?);
                (Cow::Borrowed(name), rest)
            }
        };
        let rest = rest.trim_start_matches([' ', '\t']);
        text = match rest.strip_prefix('=') {
            Some(rest) => {
                let inside = rest.trim_start_matches([' ', '\t']).strip_prefix('"');
                let (value, rest) = quoted(inside.ok_or(Malformed::Labels)?)?;
                if name.is_empty() || labels.iter().any(|(known, _)| *known == name) {
                    return Err(Malformed::Labels);
                }
                labels.push((name, value));
                rest
            }
            // A name alone is the metric's, first and once.
            None if metric.is_empty() && labels.is_empty() && text.starts_with('"') => {
                *metric = name;
                rest
            }
            None => return Err(Malformed::Labels),
        };
        text = text.trim_start_matches([' ', '\t']);
        text = match (text.strip_prefix(','), text.starts_with('}')) {
            (Some(rest), _) => rest,
            (None, true) => text,
            (None, false) => return Err(Malformed::Labels),
        };
    }
}

/// Text up to the closing quote, and what follows that. Allocates where there is an escape only.
fn quoted(text: &str) -> Result<(Cow<'_, str>, &str), Malformed> {
    let end = text.find(['"', '\\']).ok_or(Malformed::Labels)?;
    let (plain, rest) = text.split_at(end);
    if let Some(rest) = rest.strip_prefix('"') {
        return Ok((Cow::Borrowed(plain), rest));
    }
    let mut value = plain.to_owned();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Cow::Owned(value), rest.split_at(at + 1).1)),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                // Not an escape of the format: kept as it is, as Prometheus does.
                Some((_, other)) => value.extend(['\\', other]),
                None => return Err(Malformed::Labels),
            },
            c => value.push(c),
        }
    }
    Err(Malformed::Labels)
}

/// The value; what may stand behind it is a timestamp and, behind `#`, an exemplar. Neither is
/// kept: see docs/inputs.md.
fn value_of(text: &str) -> Result<f64, Malformed> {
    let text = text.split_once(" # ").map_or(text, |(before, _)| before);
    let mut words = text.split_ascii_whitespace();
    let value = words.next().ok_or(Malformed::Value)?;
    let value: f64 = value.parse().map_err(|_| Malformed::Value)?;
    match (words.next(), words.next()) {
        (None, _) => Ok(value),
        (Some(time), None) if time.parse::<f64>().is_ok() => Ok(value),
        _ => Err(Malformed::Timestamp),
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
