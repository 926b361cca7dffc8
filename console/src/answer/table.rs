//! Tables as people read them: numbers to the right, times and sizes in words, states in colour
//! where there is a terminal that wants it. JSON keeps the bare numbers; a column's unit is the end
//! of its name (`_s`, `_ms`, `_per_s`, `bytes`).

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets};
use serde_json::Value as Json;

use super::Section;

/// For whom a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A file, a pipe, or somebody who set NO_COLOR.
    Plain,
    Coloured,
}

/// Columns whose words have colours.
const STATES: [&str; 3] = ["state", "verdict", "trend"];
/// Between columns.
const GAP: u16 = 2;

/// One section with its heading, or one line if it is empty.
pub fn of(section: &Section, style: Style) -> String {
    if section.rows.is_empty() {
        return format!("{}: none\n", section.name);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    match style {
        Style::Plain => table.force_no_tty(),
        Style::Coloured => table.enforce_styling(),
    };
    let head = |(index, name): (usize, &&str)| {
        let cell = Cell::new(name.to_uppercase()).add_attribute(Attribute::Bold);
        cell.set_alignment(alignment(section, index))
    };
    table.set_header(section.columns.iter().enumerate().map(head));
    for row in &section.rows {
        let cells = section.columns.iter().zip(row).enumerate();
        table.add_row(cells.map(|(index, (name, value))| {
            let shown = Cell::new(cell(name, value)).set_alignment(alignment(section, index));
            match colour(name, value) {
                Some(colour) => shown.fg(colour),
                None => shown,
            }
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    let lines = table.to_string();
    let lines: Vec<&str> = lines.lines().map(str::trim_end).collect();
    format!("{}\n", lines.join("\n"))
}

/// A column of numbers stands right, also where some of them are not known.
fn alignment(section: &Section, column: usize) -> CellAlignment {
    let mut values = section.rows.iter().filter_map(|row| row.get(column));
    let number = |value: &Json| value.is_number() || value.is_null();
    let any = section.rows.iter().any(|row| row.get(column).is_some_and(Json::is_number));
    if any && values.all(number) { CellAlignment::Right } else { CellAlignment::Left }
}

fn colour(column: &str, value: &Json) -> Option<Color> {
    if !STATES.contains(&column) {
        return None;
    }
    match value.as_str()?.to_lowercase().as_str() {
        "ok" | "ready" | "applied" | "falling" | "running" | "fine" => Some(Color::Green),
        "warn" | "warning" | "late" | "unknown_tail" | "quarantined" | "rising" | "skipped"
        | "unknown" | "waiting" => Some(Color::Yellow),
        "stall" | "stop" | "rewind" | "failed" | "wrong" | "lost" | "critical" | "down"
        | "revoked" | "expired" => Some(Color::Red),
        _ => None,
    }
}

/// A value under its column's name.
pub fn cell(name: &str, value: &Json) -> String {
    match value {
        Json::Null => "-".to_owned(),
        Json::Bool(value) => if *value { "yes" } else { "no" }.to_owned(),
        Json::String(text) => text.clone(),
        Json::Array(list) if list.is_empty() => "none".to_owned(),
        Json::Array(list) => list.iter().map(|one| cell(name, one)).collect::<Vec<_>>().join(", "),
        Json::Number(number) => match number.as_f64() {
            Some(value) => quantity(name, value).unwrap_or_else(|| match number.is_f64() {
                true => short(value),
                false => number.to_string(),
            }),
            None => number.to_string(),
        },
        Json::Object(_) => value.to_string(),
    }
}

fn quantity(name: &str, value: f64) -> Option<String> {
    if name.ends_with("_per_s") || name == "per_second" {
        return Some(format!("{value:.1}"));
    }
    if name.ends_with("_ms") {
        return Some(short((value * 10.0).round() / 10.0));
    }
    if name.ends_with("bytes") {
        return Some(size(value));
    }
    name.ends_with("_s").then(|| duration(value))
}

/// Two digits behind the point at most, and none of them idle: `0.25`, `3.8`, `606`.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`, `4 d 3 h`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as i64;
    let two = |a: i64, unit: &str, b: i64, sub: &str| format!("{a} {unit} {b:02} {sub}");
    match whole {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        ..100 => format!("{whole} s"),
        100..7_200 => two(whole / 60, "min", whole % 60, "s"),
        7_200..172_800 => two(whole / 3_600, "h", whole % 3_600 / 60, "min"),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

fn size(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = UNITS[0];
    for next in UNITS.into_iter().skip(1) {
        if value < 1_024.0 {
            break;
        }
        (value, unit) = (value / 1_024.0, next);
    }
    if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> Section {
        Section {
            name: "shards",
            columns: vec!["shard", "state", "lag_s", "bytes"],
            rows: vec![
                vec!["s0".into(), "STOP".into(), 7_800.into(), 1_536.into()],
                vec!["s1".into(), "OK".into(), 0.25.into(), Json::Null],
            ],
        }
    }

    #[test]
    fn a_plain_table_lines_up_and_says_times_and_sizes_in_words() {
        assert_eq!(
            of(&section(), Style::Plain),
            "SHARD  STATE       LAG_S    BYTES\n\
             s0     STOP   2 h 10 min  1.5 KiB\n\
             s1     OK          0.2 s        -\n"
        );
    }

    #[test]
    fn colours_are_there_only_where_they_are_wanted() {
        assert!(!of(&section(), Style::Plain).contains('\x1b'));
        let coloured = of(&section(), Style::Coloured);
        assert!(
            coloured.contains("\x1b[38;5;9m") && coloured.contains("\x1b[38;5;10m"),
            "{coloured:?}"
        );
    }

    #[test]
    fn a_number_shows_no_more_digits_than_anybody_reads() {
        let shown = |name: &str, value: f64| cell(name, &value.into());
        assert_eq!(shown("answered_ms", 6.367_999), "6.4");
        assert_eq!(shown("per_second", 49.940_128), "49.9");
        assert_eq!([shown("total", 606.0), shown("share", 0.25)], ["606", "0.25"]);
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let shown: Vec<String> =
            [0.04, 9.6, 12.0, 185.0, 7_800.0, 356_400.0].into_iter().map(duration).collect();
        assert_eq!(shown, ["0.0 s", "9.6 s", "12 s", "3 min 05 s", "2 h 10 min", "4 d 3 h"]);
    }
}
