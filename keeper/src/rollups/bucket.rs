//! The arithmetic of rollups, apart from any server. Pieces are joined in the order of time; each
//! is what a row of `points` or `rollup_1m` says.
//!
//! The increase of a cumulative series over a span is the sum of its steps: from one sample to the
//! next one by how much it rose, and where it fell, which only a restart from zero does, the new
//! value. The step from the last sample before the span to the first in it belongs to the span.
//! That is `increase` of Prometheus (`promql/functions.go`, extrapolatedRate) without the
//! extrapolation to the span's edges, so that increases of neighbouring spans add up.

use spillway_consumer::store::values::{Summary, summarize};

/// One piece of a series, or several joined.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bucket {
    pub summary: Summary,
    /// How far it rose between its own samples; what that means only for cumulative series.
    pub growth: f64,
}

impl Bucket {
    /// Of samples in the order of time; what is no number counts for nothing.
    #[must_use]
    pub fn of_samples(samples: &[(i64, f64)]) -> Self {
        let summary = summarize(samples).unwrap_or_else(|| of_one(samples.first()));
        let mut values = samples.iter().map(|(_, value)| *value).filter(|v| v.is_finite());
        let mut growth = 0.0;
        if let Some(mut before) = values.next() {
            for value in values {
                growth = held(growth + step(before, value));
                before = value;
            }
        }
        Self { summary, growth }
    }

    /// Adds what comes after it in time.
    pub fn join(&mut self, later: &Self) {
        let between = match (self.summary.last, later.summary.first) {
            (Some(last), Some(first)) => step(last, first),
            _ => 0.0,
        };
        self.growth = held(self.growth + between + later.growth);
        self.summary = joined(self.summary, later.summary);
    }

    /// The whole increase, given the last sample before it. None without any sample.
    #[must_use]
    pub fn increase(&self, before: Option<f64>) -> Option<f64> {
        let first = self.summary.first?;
        Some(held(self.growth + before.map_or(0.0, |before| step(before, first))))
    }
}

/// From one sample of a cumulative series to the next. Never negative.
#[must_use]
pub fn step(from: f64, to: f64) -> f64 {
    if to >= from { held(to - from) } else { to.max(0.0) }
}

/// DOUBLE has no infinities.
#[must_use]
pub fn held(value: f64) -> f64 {
    value.clamp(f64::MIN, f64::MAX)
}

fn of_one(sample: Option<&(i64, f64)>) -> Summary {
    let value = sample.map(|(_, value)| *value).filter(|value| value.is_finite());
    let cnt = u32::from(value.is_some());
    Summary { cnt, sum: value, min: value, max: value, first: value, last: value }
}

fn joined(earlier: Summary, later: Summary) -> Summary {
    let both = |a: Option<f64>, b: Option<f64>, of: fn(f64, f64) -> f64| match (a, b) {
        (Some(a), Some(b)) => Some(of(a, b)),
        (one, other) => one.or(other),
    };
    Summary {
        cnt: earlier.cnt.saturating_add(later.cnt),
        sum: both(earlier.sum, later.sum, |a, b| held(a + b)),
        min: both(earlier.min, later.min, f64::min),
        max: both(earlier.max, later.max, f64::max),
        first: earlier.first.or(later.first),
        last: later.last.or(earlier.last),
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "small integers are exact")]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Bucket {
        let samples: Vec<(i64, f64)> = (0..).zip(values.iter().copied()).collect();
        Bucket::of_samples(&samples)
    }

    #[test]
    fn an_increase_is_the_sum_of_its_steps_and_a_fall_is_a_restart_from_zero() {
        assert_eq!(of(&[10.0, 12.0, 3.0, 4.0]).increase(None), Some(6.0));
        assert_eq!(of(&[10.0, 12.0, 3.0, 4.0]).increase(Some(7.0)), Some(9.0));
        assert_eq!(of(&[10.0]).increase(Some(25.0)), Some(10.0));
        assert_eq!(of(&[10.0]).increase(None), Some(0.0), "nothing is known of what was before");
        assert_eq!(of(&[f64::NAN]).increase(Some(1.0)), None);
    }

    #[test]
    fn however_samples_are_cut_the_joined_pieces_say_the_same() {
        let values = [5.0, 9.0, f64::NAN, 2.0, 2.0, 8.0, 1.0];
        let whole = of(&values);
        for cut in 0..=values.len() {
            let (head, tail) = values.split_at(cut);
            let mut joined = of(head);
            joined.join(&of(tail));
            assert_eq!(joined, whole, "cut at {cut}");
        }
    }

    #[test]
    fn sums_beyond_what_a_column_holds_stay_at_its_edge() {
        let mut huge = of(&[f64::MAX, f64::MAX]);
        huge.join(&of(&[f64::MAX]));
        assert_eq!(huge.summary.sum, Some(f64::MAX));
        assert_eq!(step(f64::MIN, f64::MAX), f64::MAX);
    }
}
