//! What is known of one epoch: which seqs are applied, and of each that is not, why.
//!
//! Invariants, for every order of arrival:
//! - a seq is applied at most once, and an arrival wins over any declaration or quarantine;
//! - `gaps` name every seq of `1..=max(highest, expected_last)` that is not applied, and no other;
//! - `highest` is the highest seq known to have been given, whatever became of it.
//!
//! Pure: rows are read and written by [`super::epochs`].

use std::collections::BTreeMap;

use super::ranges::{Ranges, Run};

/// Runs one epoch may have before further batches are named by their content instead: a sender
/// that needs more is broken or hostile.
pub const RUNS_MAX: usize = 4_096;
/// What is kept of a reason.
const REASON_BYTES_MAX: usize = 255;

/// Why a seq is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Missing,
    Declared,
    Quarantined,
}

impl Cause {
    /// As MySQL's ENUM has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Declared => "declared",
            Self::Quarantined => "quarantined",
        }
    }

    #[must_use]
    pub fn parse(word: &[u8]) -> Option<Self> {
        let all = [Self::Missing, Self::Declared, Self::Quarantined];
        all.into_iter().find(|cause| cause.word().as_bytes() == word)
    }
}

/// Seqs that are not there, all for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub run: Run,
    pub cause: Cause,
    pub reason: String,
    /// Windows of the batches around it, where known.
    pub from_ts: Option<u32>,
    pub to_ts: Option<u32>,
}

/// What a transaction adds to the counters of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub points: u64,
    pub expired: u64,
    pub duplicates: u64,
    /// Batches of a sender that does not count, so that no range holds them.
    pub uncounted: u64,
    /// Dead letters of such a sender.
    pub letters: u64,
}

/// One epoch of one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    pub applied: Ranges,
    /// The highest seq known to have been given.
    pub highest: u64,
    /// The last seq that will ever be given, once known.
    pub expected_last: Option<u64>,
    pub closed: bool,
    /// The epoch that followed, and when that was learned, in ms.
    pub successor: Option<([u8; 16], i64)>,
    pub counts: Counts,
    /// Gaps as they are stored: their causes, reasons and windows carry over.
    stored_gaps: Vec<Gap>,
    /// What is declared or quarantined and not applied; disjoint.
    notes: Vec<Gap>,
    /// Windows of the batches seen in this transaction, for the ends of gaps.
    windows: BTreeMap<u64, u32>,
}

impl Epoch {
    /// As it is stored.
    #[must_use]
    pub fn load(applied: Ranges, highest: u64, gaps: Vec<Gap>) -> Self {
        let noted = |gap: &&Gap| gap.cause != Cause::Missing;
        let notes = gaps.iter().filter(noted).cloned().collect();
        Self { applied, highest, stored_gaps: gaps, notes, ..Self::default() }
    }

    /// Applies a seq; `false` says that it was there already.
    pub fn apply(&mut self, seq: u64, window_ts: u32) -> bool {
        if self.applied.contains(seq) {
            return false;
        }
        let run = Run { first: seq, last: seq };
        self.applied.insert(run);
        self.highest = self.highest.max(seq);
        self.windows.insert(seq, window_ts);
        self.forget_notes(run);
        true
    }

    /// Whether `seq` would need one run too many.
    #[must_use]
    pub fn is_full(&self, seq: u64) -> bool {
        let touches = |run: &Run| run.first <= seq + 1 && seq <= run.last.saturating_add(1);
        self.applied.runs().len() >= RUNS_MAX && !self.applied.runs().iter().any(touches)
    }

    /// Notes why the seqs of `run` will not come; what is applied or noted already stays so.
    pub fn note(&mut self, run: Run, cause: Cause, reason: &str) {
        let mut known: Ranges = self.applied.clone();
        self.notes.iter().for_each(|note| known.insert(note.run));
        let reason = cut(reason);
        let gap = |run| Gap { run, cause, reason: reason.clone(), from_ts: None, to_ts: None };
        self.notes.extend(known.missing(run).into_iter().map(gap));
        self.highest = self.highest.max(run.last);
    }

    /// Learns the last seq of the epoch.
    pub fn expect_last(&mut self, seq: u64) {
        self.expected_last = Some(self.expected_last.map_or(seq, |known| known.max(seq)));
    }

    /// Whether every seq known to have been given is applied.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.applied.count() >= self.end()
    }

    /// Seqs with this cause that are not there.
    #[must_use]
    pub fn noted(&self, cause: Cause) -> u64 {
        let of = self.notes.iter().filter(|note| note.cause == cause);
        of.fold(0, |sum, note| sum.saturating_add(note.run.count()))
    }

    /// Everything up to the end that is not there, in order.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        if self.end() == 0 {
            return Vec::new();
        }
        let mut notes = self.notes.clone();
        notes.sort_by_key(|note| note.run);
        let mut missing = self.applied.clone();
        notes.iter().for_each(|note| missing.insert(note.run));
        let missing = missing.missing(Run { first: 1, last: self.end() });
        let unnoted = |run| {
            let reason = String::new();
            Gap { run, cause: Cause::Missing, reason, from_ts: None, to_ts: None }
        };
        let mut gaps: Vec<Gap> = missing.into_iter().map(unnoted).chain(notes).collect();
        gaps.sort_by_key(|gap| gap.run);
        gaps.iter_mut().for_each(|gap| self.date(gap));
        gaps
    }

    /// The gaps as they were loaded.
    #[must_use]
    pub fn stored_gaps(&self) -> &[Gap] {
        &self.stored_gaps
    }

    fn end(&self) -> u64 {
        self.highest.max(self.expected_last.unwrap_or(0))
    }

    /// The windows around a gap: of its neighbours if they came in this transaction, else as they
    /// were stored for the gap that it is a part of.
    fn date(&self, gap: &mut Gap) {
        let stored = |seq| self.stored_gaps.iter().find(move |old| old.run.contains(seq));
        let window = |seq: Option<u64>| seq.and_then(|seq| self.windows.get(&seq).copied());
        let before = window(gap.run.first.checked_sub(1));
        let after = window(gap.run.last.checked_add(1));
        gap.from_ts = before.or_else(|| stored(gap.run.first).and_then(|old| old.from_ts));
        gap.to_ts = after.or_else(|| stored(gap.run.last).and_then(|old| old.to_ts));
    }

    fn forget_notes(&mut self, run: Run) {
        if !self.notes.iter().any(|note| overlaps(note.run, run)) {
            return;
        }
        let applied: Ranges = [run].into_iter().collect();
        let rest = |note: Gap| {
            let left = applied.missing(note.run).into_iter();
            left.map(move |run| Gap { run, ..note.clone() })
        };
        self.notes = std::mem::take(&mut self.notes).into_iter().flat_map(rest).collect();
    }
}

fn overlaps(a: Run, b: Run) -> bool {
    a.first <= b.last && b.first <= a.last
}

fn cut(reason: &str) -> String {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
