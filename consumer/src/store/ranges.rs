//! A set of seqs as sorted runs that neither overlap nor touch: the ledger's arithmetic.

/// Consecutive seqs, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    pub first: u64,
    pub last: u64,
}

impl Run {
    /// How many seqs it holds.
    #[must_use]
    pub fn count(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    #[must_use]
    pub fn contains(self, seq: u64) -> bool {
        (self.first..=self.last).contains(&seq)
    }
}

/// A set of seqs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    runs: Vec<Run>,
}

impl FromIterator<Run> for Ranges {
    fn from_iter<I: IntoIterator<Item = Run>>(runs: I) -> Self {
        let mut ranges = Self::default();
        runs.into_iter().for_each(|run| ranges.insert(run));
        ranges
    }
}

impl Ranges {
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    #[must_use]
    pub fn contains(&self, seq: u64) -> bool {
        self.at_or_before(seq).is_some_and(|run| run.contains(seq))
    }

    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.runs.last().map(|run| run.last)
    }

    /// How many seqs are in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.runs.iter().fold(0, |sum, run| sum.saturating_add(run.count()))
    }

    /// Adds all seqs of `run`, joining what then touches.
    pub fn insert(&mut self, run: Run) {
        let before = run.first.saturating_sub(1);
        let after = run.last.saturating_add(1);
        // All runs that overlap or touch the new one are replaced by their union with it.
        let from = self.runs.partition_point(|old| old.last < before);
        let to = self.runs.partition_point(|old| old.first <= after);
        let touched = self.runs.get(from..to).unwrap_or_default();
        let union = touched.iter().fold(run, |union, old| Run {
            first: union.first.min(old.first),
            last: union.last.max(old.last),
        });
        self.runs.splice(from..to.max(from), [union]);
    }

    /// The seqs of `within` that are not in the set.
    #[must_use]
    pub fn missing(&self, within: Run) -> Vec<Run> {
        let mut missing = Vec::new();
        let mut next = within.first;
        let from = self.runs.partition_point(|run| run.last < within.first);
        for run in self.runs.get(from..).unwrap_or_default() {
            if run.first > within.last {
                break;
            }
            if run.first > next {
                missing.push(Run { first: next, last: run.first - 1 });
            }
            match run.last.checked_add(1) {
                Some(after) => next = after,
                None => return missing,
            }
        }
        if next <= within.last {
            missing.push(Run { first: next, last: within.last });
        }
        missing
    }

    fn at_or_before(&self, seq: u64) -> Option<Run> {
        let after = self.runs.partition_point(|run| run.first <= seq);
        self.runs.get(after.checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_runs_is_the_set_of_its_seqs(
            runs in prop::collection::vec((1_u64..60, 0_u64..6), 0..40),
        ) {
            let mut naive = BTreeSet::new();
            let mut ranges = Ranges::default();
            for (first, more) in runs {
                naive.extend(first..=first + more);
                ranges.insert(Run { first, last: first + more });
            }
            prop_assert_eq!(ranges.count(), naive.len() as u64);
            for seq in 0..80 {
                prop_assert_eq!(ranges.contains(seq), naive.contains(&seq));
            }
            let apart = |pair: &[Run]| pair[0].last + 1 < pair[1].first;
            prop_assert!(ranges.runs().windows(2).all(apart));
            let missing: Ranges = ranges.missing(Run { first: 1, last: 70 }).into_iter().collect();
            for seq in 1..=70 {
                prop_assert_eq!(missing.contains(seq), !naive.contains(&seq));
            }
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_trap() {
        let mut ranges = Ranges::default();
        ranges.insert(Run { first: u64::MAX, last: u64::MAX });
        ranges.insert(Run { first: 0, last: 1 });
        assert_eq!(ranges.runs().len(), 2);
        let middle = Run { first: 2, last: u64::MAX - 1 };
        assert_eq!(ranges.missing(Run { first: 0, last: u64::MAX }), [middle]);
        ranges.insert(middle);
        assert_eq!(ranges.runs().len(), 1);
    }
}
