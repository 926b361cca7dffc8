//! Durations and sizes as people write them: `"10s"`, `"1m30s"`, `"7d"`, `"64 MiB"`.
//!
//! Both print what they parse, so that `config show` and the samples can be loaded again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A duration in settings; a plain number is refused, since it would not say its unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Dur(Duration);

impl Dur {
    pub const fn from_millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }
    pub const fn from_secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
    pub const fn from_mins(n: u64) -> Self {
        Self::from_secs(n * 60)
    }
    pub const fn from_hours(n: u64) -> Self {
        Self::from_secs(n * 3_600)
    }
    pub const fn from_days(n: u64) -> Self {
        Self::from_secs(n * 86_400)
    }
    pub const fn get(self) -> Duration {
        self.0
    }
    pub const fn as_secs(self) -> u64 {
        self.0.as_secs()
    }
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for Dur {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Dur> for Duration {
    fn from(dur: Dur) -> Self {
        dur.0
    }
}

/// Why a text is no duration.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no duration; write it like \"500ms\", \"10s\", \"1m30s\", \"24h\" or \"7d\"")]
pub struct NotADuration(String);

impl FromStr for Dur {
    type Err = NotADuration;

    fn from_str(text: &str) -> Result<Self, NotADuration> {
        let refuse = || NotADuration(text.to_owned());
        let span: jiff::Span = text.trim().parse().map_err(|_| refuse())?;
        let days = jiff::SpanRelativeTo::days_are_24_hours();
        let signed = span.to_duration(days).map_err(|_| refuse())?;
        Duration::try_from(signed).map(Self).map_err(|_| refuse())
    }
}

impl fmt::Display for Dur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 7] = [
            (86_400_000_000_000, "d"),
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
            (1, "ns"),
        ];
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, name) in UNITS {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Dur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Dur {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Dur {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DurVisitor;
        impl Visitor<'_> for DurVisitor {
            type Value = Dur;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit, like \"10s\" or \"1m30s\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Dur, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(DurVisitor)
    }
}

impl JsonSchema for Dur {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration", "examples": ["10s"] })
    }
}

/// A number of bytes in settings: `"64 MiB"`, `"10 MB"`, or a plain number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(u64);

impl Size {
    pub const fn bytes(n: u64) -> Self {
        Self(n)
    }
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
    pub const fn get(self) -> u64 {
        self.0
    }
    /// Saturates on a machine whose `usize` is smaller.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Why a text is no size.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no size; write it like \"64 MiB\", \"10 MB\" or \"4096\"")]
pub struct NotASize(String);

impl FromStr for Size {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let size: Result<bytesize::ByteSize, _> = text.trim().parse();
        size.map(|size| Self(size.as_u64())).map_err(|_| NotASize(text.to_owned()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, name) in UNITS {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{} {name}", self.0 >> shift);
            }
        }
        for (unit, name) in [(1_000_000_000, "GB"), (1_000_000, "MB")] {
            if self.0 != 0 && self.0.is_multiple_of(unit) {
                return write!(f, "{} {name}", self.0 / unit);
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size, like \"64 MiB\", or a number of bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Size, E> {
                Ok(Size(n))
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Size, E> {
                u64::try_from(n).map(Size).map_err(|_| E::custom("a size cannot be negative"))
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "format": "size", "examples": ["64 MiB"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_what_they_parse() {
        for text in ["0s", "500ms", "10s", "1m30s", "24h", "7d", "1d12h", "250us"] {
            let dur: Dur = text.parse().unwrap();
            assert_eq!(dur.to_string().parse::<Dur>().unwrap(), dur, "{text}");
        }
        assert_eq!("1m30s".parse::<Dur>().unwrap(), Dur::from_secs(90));
        assert_eq!("7d".parse::<Dur>().unwrap(), Dur::from_days(7));
        assert_eq!(Dur::from_secs(90).to_string(), "1m30s");
    }

    #[test]
    fn a_duration_without_unit_or_below_zero_is_refused_with_an_example() {
        for text in ["10", "", "soon", "-5s"] {
            let error = text.parse::<Dur>().unwrap_err().to_string();
            assert!(error.contains("1m30s"), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_print_what_they_parse() {
        for size in [0, 1, 1023, 1024, 64 << 20, (64 << 20) + 1, 3 << 40, 3_000_000, 5_000_000_000]
        {
            let size = Size::bytes(size);
            assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
        }
        assert_eq!("64 MiB".parse::<Size>().unwrap(), Size::mib(64));
        assert_eq!("10MB".parse::<Size>().unwrap(), Size::bytes(10_000_000));
        assert!("ten".parse::<Size>().is_err());
    }
}
