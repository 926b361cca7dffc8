//! Small answers about many values: quantiles of a timer, the size of a set.
//!
//! `Quantiles` keeps logarithmic buckets (DDSketch: Masson, Rim, Lee, VLDB 2019): any quantile is
//! within [`ACCURACY`] of a value that was there, and memory is bounded by collapsing the lowest
//! buckets, which no p50 to p99 of a sane timer lies in. `Distinct` keeps the k smallest hashes
//! (KMV: Bar-Yossef et al., 2002): exact below k members, within a few percent above.

use std::collections::BTreeSet;

/// Relative error of a quantile.
pub const ACCURACY: f64 = 0.02;
/// Ratio of two neighbouring buckets' bounds.
const GAMMA: f64 = (1.0 + ACCURACY) / (1.0 - ACCURACY);
/// Buckets of one sketch, 8 bytes each: values over five decades fit without collapsing.
const BUCKETS_MAX: usize = 320;
/// Buckets are made in such steps: most timers need few, and `Vec` would double.
const BUCKETS_STEP: usize = 16;
/// Smaller magnitudes count as zero; keeps bucket numbers small.
const MAGNITUDE_MIN: f64 = 1e-9;

/// Count, sum, extremes and quantiles of a stream of finite values.
#[derive(Clone, Debug)]
pub struct Quantiles {
    pub count: f64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    /// (bucket, weight), ascending in value. f32 is exact to 16 million events a bucket.
    buckets: Vec<(i32, f32)>,
}

impl Default for Quantiles {
    fn default() -> Self {
        Self { count: 0.0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, buckets: vec![] }
    }
}

impl Quantiles {
    /// Adds a finite `value` that stands for `weight` events.
    pub fn add(&mut self, value: f64, weight: f64) {
        self.count += weight;
        self.sum += value * weight;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let bucket = bucket_of(value);
        match self.buckets.binary_search_by_key(&bucket, |(number, _)| *number) {
            Ok(at) => {
                if let Some((_, sum)) = self.buckets.get_mut(at) {
                    *sum += weight as f32;
                }
            }
            Err(at) => {
                if self.buckets.len() == self.buckets.capacity() {
                    self.buckets.reserve_exact(BUCKETS_STEP);
                }
                self.buckets.insert(at, (bucket, weight as f32));
                if self.buckets.len() > BUCKETS_MAX {
                    self.collapse_lowest();
                }
            }
        }
    }

    fn collapse_lowest(&mut self) {
        let (_, weight) = self.buckets.remove(0);
        if let Some((_, sum)) = self.buckets.first_mut() {
            *sum += weight;
        }
    }

    /// The value below which the share `q` (0 to 1) lies; none without values.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let wanted = q * self.count;
        let mut seen = 0.0;
        let found = self.buckets.iter().find(|(_, weight)| {
            seen += f64::from(*weight);
            seen >= wanted
        });
        let (bucket, _) = found.or(self.buckets.last())?;
        Some(value_of(*bucket).clamp(self.min, self.max))
    }
}

/// Bucket numbers ascend with the value: negatives mirror positives around zero.
fn bucket_of(value: f64) -> i32 {
    let magnitude = value.abs();
    if magnitude < MAGNITUDE_MIN {
        return 0;
    }
    // Logarithms apart: the quotient of the largest values would overflow.
    let steps = ((magnitude.ln() - MAGNITUDE_MIN.ln()) / GAMMA.ln()).ceil() as i32 + 1;
    if value < 0.0 { -steps } else { steps }
}

/// The middle of a bucket, in the sense of relative error.
fn value_of(bucket: i32) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let steps = f64::from(bucket.unsigned_abs()) - 1.0;
    let magnitude = (MAGNITUDE_MIN.ln() + steps * GAMMA.ln()).exp() * 2.0 / (1.0 + GAMMA);
    if bucket < 0 { -magnitude } else { magnitude }
}

/// Hashes kept by one set: 1,024 of 8 bytes give 3 % standard error.
const HASHES_MAX: usize = 1_024;

/// How many different members a set has seen.
#[derive(Clone, Debug, Default)]
pub struct Distinct {
    smallest: BTreeSet<u64>,
}

impl Distinct {
    /// Adds a member; once or often makes no difference.
    pub fn add(&mut self, member: &str) {
        self.smallest.insert(xxhash_rust::xxh3::xxh3_64(member.as_bytes()));
        if self.smallest.len() > HASHES_MAX {
            self.smallest.pop_last();
        }
    }

    /// Exact below [`HASHES_MAX`] members, an estimate from there on.
    #[must_use]
    pub fn count(&self) -> f64 {
        let kept = self.smallest.len();
        match self.smallest.last() {
            Some(largest) if kept == HASHES_MAX => {
                ((kept - 1) as f64 / (*largest as f64 / u64::MAX as f64)).round()
            }
            _ => kept as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_quantile_is_close_to_the_exact_one(
            mut values in prop::collection::vec(0.01_f64..1e3, 1..400), q in 0.01_f64..0.99
        ) {
            let mut sketch = Quantiles::default();
            values.iter().for_each(|value| sketch.add(*value, 1.0));
            values.sort_by(f64::total_cmp);
            let rank = ((q * values.len() as f64).ceil() as usize).max(1) - 1;
            let (exact, got) = (values[rank], sketch.quantile(q).unwrap());
            prop_assert!((got - exact).abs() <= exact * (ACCURACY + 1e-9), "{got} for {exact}");
        }

        #[test]
        fn memory_is_bounded_and_quantiles_stay_between_min_and_max(
            values in prop::collection::vec(-1e300_f64..1e300, 1..800)
        ) {
            let mut sketch = Quantiles::default();
            values.iter().for_each(|value| sketch.add(*value, 1.0));
            prop_assert!(sketch.buckets.len() <= BUCKETS_MAX);
            for q in [0.0, 0.5, 0.99, 1.0] {
                let got = sketch.quantile(q).unwrap();
                prop_assert!(sketch.min <= got && got <= sketch.max);
            }
        }
    }

    #[test]
    fn a_small_set_is_counted_exactly_and_a_large_one_closely() {
        let mut set = Distinct::default();
        for round in 0..2 {
            (0..1_000).for_each(|user| set.add(&format!("user{user}")));
            assert_eq!(set.count(), 1_000.0, "round {round}");
        }
        (0..100_000).for_each(|user| set.add(&format!("user{user}")));
        assert!((set.count() - 100_000.0).abs() < 15_000.0, "{}", set.count());
        assert!(set.smallest.len() <= HASHES_MAX);
    }

    #[test]
    fn without_values_there_is_no_quantile() {
        assert_eq!(Quantiles::default().quantile(0.5), None);
    }
}
