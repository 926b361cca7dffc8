//! What a made-up batch holds, small enough to remember a hundred thousand of them: values are a
//! function of (series, ts), so whoever has the recipe has every point.

use serde::{Deserialize, Serialize};
use spillway_proto::limits::{WINDOW_MS, WINDOW_S};
use spillway_proto::{Batch, BatchId, Declaration, Kind, Point, Series};
use uuid::Uuid;

/// The series whose values are written twice: each window's first with the window, and once more,
/// with other values, by the batch of the window after it. The last writer wins.
pub const REVISED: &str = "e2e.revised";
/// Why the made-up agents say that they gave a batch up.
pub const DECLARED_REASON: &str = "spool-full";

/// One batch, as its sender made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    #[serde(with = "id_text")]
    pub id: BatchId,
    pub environment: String,
    pub host: String,
    pub window_ts: u32,
    /// Plain series: number 0 to `series` − 1.
    pub series: usize,
    /// Points per series and window.
    pub points: usize,
    /// Whether it holds [`REVISED`] as well: its own window's values and the ones before, revised.
    pub revises: bool,
    /// Seqs of its epoch that it says will not come.
    pub declares: Vec<u64>,
    pub closing: bool,
}

impl Recipe {
    /// Makes the batch; the same one each time.
    #[must_use]
    pub fn batch(&self) -> Batch {
        let mut series = series_of_window(self.window_ts, self.series, self.points);
        if self.revises {
            series.push(self.revised());
        }
        Batch {
            id: self.id,
            environment: self.environment.clone(),
            host: self.host.clone(),
            window_ts: self.window_ts,
            series,
            previous: None,
            declarations: self.declarations(),
            closing: self.closing,
            host_info: None,
        }
    }

    /// Points in the batch.
    #[must_use]
    pub fn points(&self) -> usize {
        self.points * (self.series + if self.revises { 2 } else { 0 })
    }

    /// `(agent_id, epoch, seq)`, unless the batch is named by its content.
    #[must_use]
    pub fn counted(&self) -> Option<(Uuid, Uuid, u64)> {
        match self.id {
            BatchId::Sequenced { agent_id, epoch, seq } => Some((agent_id, epoch, seq)),
            BatchId::Content { .. } => None,
        }
    }

    fn revised(&self) -> Series {
        let before = times(self.window_ts.saturating_sub(WINDOW_S), self.points)
            .map(|ts_ms| Point { ts_ms, value: revised_value(ts_ms, 1) });
        let own = times(self.window_ts, self.points)
            .map(|ts_ms| Point { ts_ms, value: revised_value(ts_ms, 0) });
        plain(REVISED.into(), before.chain(own).collect())
    }

    fn declarations(&self) -> Vec<Declaration> {
        let BatchId::Sequenced { epoch, .. } = self.id else { return vec![] };
        let of = |seq: &u64| Declaration {
            epoch,
            first_seq: *seq,
            last_seq: *seq,
            reason: DECLARED_REASON.into(),
        };
        self.declares.iter().map(of).collect()
    }
}

/// The times of one series' points in a window.
pub fn times(window_ts: u32, points: usize) -> impl Iterator<Item = i64> {
    let start = i64::from(window_ts) * 1_000;
    let step = WINDOW_MS / i64::try_from(points.max(1)).unwrap_or(WINDOW_MS);
    (0..i64::try_from(points).unwrap_or(0)).map(move |nth| start + nth * step)
}

/// The value that belongs at (series, ts): series 0 is constant 1, odd ones hold integers, even
/// ones any finite double. Made up, and recomputable by whoever doubts it.
#[must_use]
pub fn value_at(series: usize, ts_ms: i64) -> f64 {
    if series == 0 {
        return 1.0;
    }
    let mixed = mix(ts_ms.unsigned_abs() ^ (series as u64) << 48);
    if series % 2 == 1 {
        return (mixed % 1_000_003) as f64;
    }
    let random = f64::from_bits(mixed);
    if random.is_finite() { random } else { mixed as f64 }
}

/// The value of [`REVISED`] at a time: `version` 0 comes with the window, 1 ten seconds later.
#[must_use]
pub fn revised_value(ts_ms: i64, version: u64) -> f64 {
    (mix(ts_ms.unsigned_abs() ^ 0xffff << 48) % 1_000_003 + version * 2_000_000) as f64
}

/// splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The name of test series number `series`.
#[must_use]
pub fn metric_of(series: usize) -> String {
    format!("e2e.value.{series:04}")
}

/// The plain series of one window: `count` of them, `points` evenly spread in the window.
#[must_use]
pub fn series_of_window(window_ts: u32, count: usize, points: usize) -> Vec<Series> {
    let points_of = |series: usize| {
        let at = move |ts_ms: i64| Point { ts_ms, value: value_at(series, ts_ms) };
        times(window_ts, points).map(at).collect()
    };
    (0..count).map(|series| plain(metric_of(series), points_of(series))).collect()
}

fn plain(metric: String, points: Vec<Point>) -> Series {
    let labels = vec![("origin".into(), "made-up".into())];
    Series { metric, labels, kind: Kind::Gauge, unit: String::new(), points }
}

/// An id as 80 hex digits.
pub(crate) mod id_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use spillway_proto::BatchId;

    pub fn serialize<S: Serializer>(id: &BatchId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(id.to_bytes()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BatchId, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = hex::decode(&text).map_err(D::Error::custom)?;
        let id = bytes.first_chunk().and_then(BatchId::from_bytes);
        id.ok_or_else(|| D::Error::custom("not a batch id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_finite_and_differ_between_series() {
        for series in 0..50 {
            assert!(value_at(series, 1_700_000_000_123).is_finite());
        }
        assert_ne!(value_at(1, 1_000), value_at(3, 1_000));
        assert_ne!(revised_value(1_000, 0), revised_value(1_000, 1));
    }

    #[test]
    fn a_recipe_counts_the_points_it_makes() {
        let id = BatchId::Content { hash: 1 };
        let recipe = Recipe {
            id,
            environment: "demo".into(),
            host: "h".into(),
            window_ts: 1_700_000_000,
            series: 3,
            points: 10,
            revises: true,
            declares: vec![],
            closing: false,
        };
        assert_eq!(recipe.points(), 50);
        assert_eq!(recipe.batch().points(), 50);
    }
}
