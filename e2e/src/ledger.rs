//! What was sent and what the system said of it, kept outside the system under test.
//!
//! Values are a function of (series, ts), so the ledger keeps batches and recomputes points.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use spillway_proto::{Batch, BatchId, Kind, Point, Series};

/// What is known of a batch that was attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A 2xx said the system has it.
    Ok,
    /// A typed refusal said it will never have it.
    Fail,
    /// No answer, or one that does not say: it may be there or not.
    Info,
}

/// One attempted batch.
#[derive(Clone, Debug)]
pub struct Attempted {
    pub batch: Arc<Batch>,
    pub fate: Fate,
    /// Requests that carried it.
    pub attempts: u32,
}

/// All batches that were attempted, by id. Clones share it.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<BatchId, Attempted>>>);

impl Ledger {
    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<BatchId, Attempted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an attempt before it is made: until more is known its fate is open.
    pub fn attempt(&self, batch: &Arc<Batch>) {
        let mut entries = self.entries();
        let entry = entries.entry(batch.id).or_insert_with(|| Attempted {
            batch: Arc::clone(batch),
            fate: Fate::Info,
            attempts: 0,
        });
        entry.attempts += 1;
    }

    /// Notes an answer. What was once accepted stays accepted.
    pub fn answered(&self, id: &BatchId, fate: Fate) {
        if let Some(entry) = self.entries().get_mut(id)
            && entry.fate != Fate::Ok
        {
            entry.fate = fate;
        }
    }

    /// Batches with this fate.
    #[must_use]
    pub fn batches(&self, fate: Fate) -> Vec<Attempted> {
        self.entries().values().filter(|entry| entry.fate == fate).cloned().collect()
    }

    /// Points in batches with this fate.
    #[must_use]
    pub fn points(&self, fate: Fate) -> usize {
        self.batches(fate).iter().map(|entry| entry.batch.points()).sum()
    }

    /// Requests beyond the first one of each batch.
    #[must_use]
    pub fn repeats(&self) -> u32 {
        self.entries().values().map(|entry| entry.attempts.saturating_sub(1)).sum()
    }

    /// One line for a test's output.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} batches ok ({} points), {} refused, {} open, {} repeats",
            self.batches(Fate::Ok).len(),
            self.points(Fate::Ok),
            self.batches(Fate::Fail).len(),
            self.batches(Fate::Info).len(),
            self.repeats(),
        )
    }
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

/// The series of one window: `count` of them, `points` evenly spread in the window.
#[must_use]
pub fn series_of_window(window_ts: u32, count: usize, points: usize) -> Vec<Series> {
    let start = i64::from(window_ts) * 1_000;
    let step = spillway_proto::limits::WINDOW_MS / points as i64;
    let of = |series: usize| Series {
        metric: metric_of(series),
        labels: vec![("origin".into(), "made-up".into())],
        kind: Kind::Gauge,
        unit: String::new(),
        points: (0..points as i64)
            .map(|nth| start + nth * step)
            .map(|ts_ms| Point { ts_ms, value: value_at(series, ts_ms) })
            .collect(),
    };
    (0..count).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_once_accepted_stays_accepted() {
        let ledger = Ledger::default();
        let batch = Arc::new(Batch {
            id: BatchId::Content { hash: 1 },
            environment: "demo".into(),
            host: "h".into(),
            window_ts: 0,
            series: series_of_window(0, 3, 10),
            previous: None,
            declarations: vec![],
            closing: false,
            host_info: None,
        });
        ledger.attempt(&batch);
        assert_eq!(ledger.points(Fate::Info), 30);
        ledger.answered(&batch.id, Fate::Ok);
        ledger.answered(&batch.id, Fate::Info);
        assert_eq!(ledger.points(Fate::Ok), 30);
    }

    #[test]
    fn values_are_finite_and_differ_between_series() {
        for series in 0..50 {
            assert!(value_at(series, 1_700_000_000_123).is_finite());
        }
        assert_ne!(value_at(1, 1_000), value_at(3, 1_000));
    }
}
