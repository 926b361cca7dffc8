//! Numbers as people read them: ages, counts, rates and shares, in few characters.

use super::snapshot::Hop;

/// `4 s`, `3 min`, `2 h 5 min`, `3 d`.
pub fn age(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..=119 => format!("{whole} s"),
        120..=7_199 => format!("{} min", whole / 60),
        7_200..=172_799 => match whole % 3_600 / 60 {
            0 => format!("{} h", whole / 3_600),
            minutes => format!("{} h {minutes} min", whole / 3_600),
        },
        _ => format!("{} d", whole / 86_400),
    }
}

/// `950`, `12.3 k`, `4.56 M`.
pub fn count(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        small if small < 10_000.0 => return thousands(value),
        middle if middle < 1e6 => (value / 1e3, "k"),
        large if large < 1e9 => (value / 1e6, "M"),
        _ => (value / 1e9, "G"),
    };
    let digits = if scaled.abs() < 100.0 { 1 } else { 0 };
    format!("{scaled:.digits$} {unit}")
}

fn thousands(value: f64) -> String {
    let whole = value.round() as i64;
    match whole.unsigned_abs() {
        0..=999 => whole.to_string(),
        large => {
            format!("{}{},{:03}", if whole < 0 { "-" } else { "" }, large / 1_000, large % 1_000)
        }
    }
}

/// `0.4/s`, `62/s`, `1.2 k/s`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        small if small > 0.0 && small < 9.95 => format!("{small:.1}/s"),
        other => format!("{}/s", count(other)),
    }
}

/// `0.4 ms`, `12 ms`, `1.4 s`.
pub fn millis(ms: f64) -> String {
    match ms {
        tiny if tiny < 9.95 => format!("{tiny:.1} ms"),
        small if small < 999.5 => format!("{small:.0} ms"),
        large => format!("{:.1} s", large / 1e3),
    }
}

/// `0 %`, `0.02 %`, `37 %`: never rounds a failure down to nothing.
pub fn share(ratio: f64) -> String {
    let percent = ratio.clamp(0.0, 1.0) * 100.0;
    match percent {
        0.0 => "0 %".to_owned(),
        tiny if tiny < 0.01 => "< 0.01 %".to_owned(),
        small if small < 1.0 => format!("{small:.2} %"),
        large => format!("{large:.0} %"),
    }
}

/// `100 %`, `99.98 %`: never rounds up to all of it.
pub fn uptime(ratio: f64) -> String {
    let percent = ratio.clamp(0.0, 1.0) * 100.0;
    if percent >= 100.0 {
        return "100 %".to_owned();
    }
    format!("{:.2} %", (percent * 100.0).floor() / 100.0)
}

/// `1 host`, `3 hosts`.
pub fn of(number: i64, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        other => format!("{} {many}", count(other as f64)),
    }
}

/// What is not known.
pub const UNKNOWN: &str = "–";

/// The age of the newest point where there is none.
pub const NO_POINT: &str = "no point stored yet";

/// What waits on a leg.
pub fn held(hop: &Hop) -> String {
    known_or_least(hop.held, hop.held_least, count)
}

/// How old the oldest of it is.
pub fn oldest(hop: &Hop) -> String {
    known_or_least(hop.oldest_s, hop.oldest_least_s, age)
}

/// A number that may only be known in part; a part of nought tells nothing.
fn known_or_least(value: Option<f64>, least: Option<f64>, words: impl Fn(f64) -> String) -> String {
    match (value, least) {
        (Some(value), _) => words(value),
        (None, Some(least)) => format!("at least {}", words(least)),
        (None, None) => UNKNOWN.to_owned(),
    }
}

pub fn known(value: Option<f64>, words: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), words)
}

/// `2026-11-21 21:20 UTC`.
pub fn moment(at_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(at_ms).unwrap_or_default();
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// `21:20:04 UTC`.
pub fn clock(at_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(at_ms).unwrap_or_default();
    at.strftime("%H:%M:%S UTC").to_string()
}

/// RFC 3339, for machines.
pub fn rfc3339(at_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(at_ms).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_honest() {
        assert_eq!(
            [age(4.2), age(150.0), age(7_500.0), age(7_200.0)],
            ["4 s", "2 min", "2 h 5 min", "2 h"]
        );
        assert_eq!([count(0.0), count(9_999.0), count(12_345.0)], ["0", "9,999", "12.3 k"]);
        assert_eq!([rate(0.42), rate(62.0), rate(0.0)], ["0.4/s", "62/s", "0/s"]);
        assert_eq!([millis(0.44), millis(12.0), millis(1_400.0)], ["0.4 ms", "12 ms", "1.4 s"]);
        assert_eq!([share(0.0), share(0.000_001), share(0.37)], ["0 %", "< 0.01 %", "37 %"]);
        assert_eq!([uptime(1.0), uptime(0.999_999)], ["100 %", "99.99 %"]);
    }
}
