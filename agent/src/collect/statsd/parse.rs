//! One line of StatsD or DogStatsD, read in place. Never panics, whatever the bytes.
//!
//! `name:value[:value…]|type[|@rate][|#tag:value,…][|c:…][|T…]`. Types: `c` counter, `g` gauge,
//! `ms` `h` `d` timer, histogram, distribution, `s` set. Source of the format: the StatsD README
//! and "DogStatsD datagram reference" (protocol 1.3). Unknown fields are left out, as the
//! protocol asks; events (`_e{`) and service checks (`_sc|`) are not metrics.

use spillway_proto::limits;

/// A line's kind.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Type {
    Counter,
    Gauge,
    /// In milliseconds.
    Timer,
    /// Histogram or distribution, in whatever unit.
    Histogram,
    Set,
}

/// A line that says a metric. Borrowed from the datagram.
#[derive(Debug, PartialEq)]
pub struct Line<'a> {
    pub name: &'a str,
    pub kind: Type,
    /// Colon-separated, each already checked for this kind by [`parse`].
    pub values: &'a str,
    /// In `(0, 1]`: one line stands for `1 / rate` events.
    pub rate: f64,
    /// Comma-separated, unsorted, as sent.
    pub tags: &'a str,
}

/// What a line is.
#[derive(Debug, PartialEq)]
pub enum Parsed<'a> {
    Metric(Line<'a>),
    /// Well known, but not a metric.
    Ignored,
}

/// Why a line can't be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    #[error("not UTF-8, or with control characters")]
    NotText,
    #[error("no name, or one that is too long")]
    Name,
    #[error("no type that is known")]
    Type,
    #[error("no value that fits the type")]
    Value,
    #[error("a rate that is not above 0 and at most 1")]
    Rate,
}

/// Lower rates would let one line stand for more events than any window holds.
const RATE_MIN: f64 = 1e-6;

/// Reads one line, without its line end.
///
/// # Errors
/// The line says nothing that could be counted.
pub fn parse(line: &[u8]) -> Result<Parsed<'_>, Malformed> {
    let line = std::str::from_utf8(line).map_err(|_| Malformed::NotText)?;
    if line.starts_with("_e{") || line.starts_with("_sc|") {
        return Ok(Parsed::Ignored);
    }
    if line.chars().any(char::is_control) {
        return Err(Malformed::NotText);
    }
    let mut fields = line.split('|');
    let head = fields.next().unwrap_or_default();
    let (name, values) = head.split_once(':').ok_or(Malformed::Value)?;
    if name.is_empty() || name.len() > limits::METRIC_BYTES_MAX {
        return Err(Malformed::Name);
    }
    let kind = match fields.next() {
        Some("c") => Type::Counter,
        Some("g") => Type::Gauge,
        Some("ms") => Type::Timer,
        Some("h" | "d") => Type::Histogram,
        Some("s") => Type::Set,
        _ => return Err(Malformed::Type),
    };
    let (mut rate, mut tags) = (1.0, "");
    for field in fields {
        if let Some(text) = field.strip_prefix('@') {
            rate = text.parse().map_err(|_| Malformed::Rate)?;
            if !(RATE_MIN..=1.0).contains(&rate) {
                return Err(Malformed::Rate);
            }
        } else if let Some(text) = field.strip_prefix('#') {
            tags = text;
        }
    }
    let line = Line { name, kind, values, rate, tags };
    if line.values().all(|value| value.is_ok()) {
        Ok(Parsed::Metric(line))
    } else {
        Err(Malformed::Value)
    }
}

/// One value of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Number(f64),
    /// A gauge with a sign: a change, not a level.
    Change(f64),
    /// A member of a set.
    Member(&'a str),
}

impl<'a> Line<'a> {
    /// Its values, one by one.
    pub fn values(&self) -> impl Iterator<Item = Result<Value<'a>, Malformed>> + use<'a> {
        let kind = self.kind;
        // A set's member may hold colons; it is one value.
        let pieces = if kind == Type::Set { 1 } else { usize::MAX };
        self.values.splitn(pieces, ':').map(move |text| value(kind, text))
    }

    /// Its tags as labels, sorted and unique: a tag without a value is "true", one that is
    /// sent several times keeps its values, joined. Reuses `labels`.
    pub fn labels(&self, labels: &mut Vec<(&'a str, std::borrow::Cow<'a, str>)>) {
        labels.clear();
        let tags = self.tags.split(',').filter(|tag| !tag.is_empty());
        for tag in tags.take(limits::LABELS_MAX) {
            let (name, value) = tag.split_once(':').unwrap_or((tag, "true"));
            let fits = !name.is_empty()
                && name.len() <= limits::LABEL_NAME_BYTES_MAX
                && value.len() <= limits::LABEL_VALUE_BYTES_MAX;
            if fits {
                labels.push((name, value.into()));
            }
        }
        labels.sort_unstable();
        labels.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            let joined = kept.1.len() + 1 + later.1.len();
            if same && later.1 != kept.1 && joined <= limits::LABEL_VALUE_BYTES_MAX {
                kept.1 = format!("{},{}", kept.1, later.1).into();
            }
            same
        });
    }
}

fn value(kind: Type, text: &str) -> Result<Value<'_>, Malformed> {
    if kind == Type::Set {
        return if text.is_empty() { Err(Malformed::Value) } else { Ok(Value::Member(text)) };
    }
    let number: f64 = text.parse().map_err(|_| Malformed::Value)?;
    if !number.is_finite() {
        return Err(Malformed::Value);
    }
    let change = kind == Type::Gauge && text.starts_with(['+', '-']);
    Ok(if change { Value::Change(number) } else { Value::Number(number) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> Line<'_> {
        match parse(text.as_bytes()) {
            Ok(Parsed::Metric(line)) => line,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    fn labels<'a>(line: &Line<'a>) -> Vec<(&'a str, String)> {
        let mut labels = Vec::new();
        line.labels(&mut labels);
        labels.into_iter().map(|(name, value)| (name, value.into_owned())).collect()
    }

    #[test]
    fn the_documented_examples_are_read() {
        let got = line("users.online:1|c|@0.5|#country:china,environment:production");
        assert_eq!((got.name, got.kind, got.rate), ("users.online", Type::Counter, 0.5));
        assert_eq!(
            labels(&got),
            [("country", "china".to_owned()), ("environment", "production".to_owned())]
        );
        let got = line("song.length:240:234|h|@0.5");
        let values: Vec<_> = got.values().map(Result::unwrap).collect();
        assert_eq!(values, [Value::Number(240.0), Value::Number(234.0)]);
        assert_eq!(
            line("page.views:1|g|#env:dev|c:83c0a99c0a54c0c187f461c7980e9b57f3f6a8b0").rate,
            1.0
        );
        assert_eq!(line("page.views:15|c|#env:dev|T1656581400").kind, Type::Counter);
        assert_eq!(parse(b"_e{5,4}:title|text"), Ok(Parsed::Ignored));
        assert_eq!(parse(b"_sc|Redis connection|2"), Ok(Parsed::Ignored));
    }

    #[test]
    fn a_gauge_with_a_sign_is_a_change() {
        let values = |text| line(text).values().map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(values("a:3|g"), [Value::Number(3.0)]);
        assert_eq!(values("a:+3|g"), [Value::Change(3.0)]);
        assert_eq!(values("a:-3|g"), [Value::Change(-3.0)]);
        assert_eq!(values("a:-3|c"), [Value::Number(-3.0)]);
    }

    #[test]
    fn a_member_of_a_set_may_be_any_text() {
        let got = line("visitors:user:42|s");
        assert_eq!(got.values().collect::<Vec<_>>(), [Ok(Value::Member("user:42"))]);
    }

    #[test]
    fn tags_become_unique_sorted_labels() {
        let got = labels(&line("a:1|c|#z:1,flag,team:b,team:a,,:x"));
        assert_eq!(
            got,
            [("flag", "true".to_owned()), ("team", "a,b".to_owned()), ("z", "1".to_owned())]
        );
    }

    #[test]
    fn what_says_nothing_is_malformed() {
        let cases: [(&[u8], Malformed); 12] = [
            (b"", Malformed::Value),
            (b"a", Malformed::Value),
            (b"a:1", Malformed::Type),
            (b":1|c", Malformed::Name),
            (b"a:|c", Malformed::Value),
            (b"a:x|c", Malformed::Value),
            (b"a:NaN|g", Malformed::Value),
            (b"a:1e999|g", Malformed::Value),
            (b"a:1|q", Malformed::Type),
            (b"a:1|c|@0", Malformed::Rate),
            (b"a\0b:1|c", Malformed::NotText),
            (b"\xff:1|c", Malformed::NotText),
        ];
        for (bytes, why) in cases {
            assert_eq!(parse(bytes), Err(why), "{:?}", String::from_utf8_lossy(bytes));
        }
        let long = format!("{}:1|c", "n".repeat(limits::METRIC_BYTES_MAX + 1));
        assert_eq!(parse(long.as_bytes()), Err(Malformed::Name));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Parsed::Metric(line)) = parse(&bytes) {
                prop_assert!(line.values().all(|value| value.is_ok()));
                line.labels(&mut Vec::new());
            }
        }

        #[test]
        fn nearly_right_lines_never_panic_and_labels_stay_sorted(
            head in "[a-z.]{0,4}:?[-+0-9.:eE]{0,8}\\|?(c|g|ms|h|d|s|x)?",
            rest in "(\\|@[0-9.]{1,4})?(\\|#[a-c:,]{0,20})?"
        ) {
            let text = head + &rest;
            if let Ok(Parsed::Metric(line)) = parse(text.as_bytes()) {
                let labels = labels(&line);
                prop_assert!(labels.is_sorted_by(|a, b| a.0 < b.0));
            }
        }

        #[test]
        fn what_a_client_writes_is_read_back(
            name in "[a-zA-Z][a-zA-Z0-9_.]{0,30}", value in -1e12_f64..1e12, rate in 0.001_f64..=1.0
        ) {
            let text = format!("{name}:{value}|h|@{rate}|#k:v");
            let got = line(&text);
            prop_assert_eq!(got.name, name.as_str());
            prop_assert_eq!(got.rate, rate);
            let values: Vec<_> = got.values().map(Result::unwrap).collect();
            prop_assert_eq!(values, vec![Value::Number(value)]);
        }
    }
}
