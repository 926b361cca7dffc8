//! What a comparison found, law by law, in bounded memory: all findings are counted, the first few
//! are kept, with the batches they belong to.

use std::collections::BTreeSet;
use std::fmt;

use spillway_proto::BatchId;

/// Findings that are kept as text, of each kind.
const TEXTS_KEPT: usize = 10;
/// Batches that are remembered by name, of each kind.
const BATCHES_KEPT: usize = 100;

/// Findings of one kind.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    count: u64,
    texts: Vec<String>,
    batches: BTreeSet<BatchId>,
}

impl Findings {
    /// Counts one; the text is made only if it is kept.
    pub fn push(&mut self, batch: Option<BatchId>, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.texts.len() < TEXTS_KEPT {
            self.texts.push(text());
        }
        if self.batches.len() < BATCHES_KEPT {
            self.batches.extend(batch);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first of them.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// The batches they are about, as far as they are kept.
    #[must_use]
    pub fn batches(&self) -> &BTreeSet<BatchId> {
        &self.batches
    }

    /// Takes in another's.
    pub fn extend(&mut self, other: Self) {
        self.count += other.count;
        let texts = TEXTS_KEPT.saturating_sub(self.texts.len());
        self.texts.extend(other.texts.into_iter().take(texts));
        let batches = BATCHES_KEPT.saturating_sub(self.batches.len());
        self.batches.extend(other.batches.into_iter().take(batches));
    }
}

/// What a comparison found; `Display` says what was checked, not only "ok".
#[derive(Debug, Default)]
pub struct Verdict {
    pub series: usize,
    pub points_expected: usize,
    pub points_found: usize,
    /// Epochs whose books were held against the ledger, and the batches in them.
    pub epochs: usize,
    pub batches: u64,
    pub duplicates: u64,
    pub missing: Findings,
    pub phantom: Findings,
    pub different: Findings,
    pub twice: Findings,
    /// Count, sum or hash of a series.
    pub unequal: Findings,
    /// The system's own count of batches and points.
    pub miscounted: Findings,
    pub gaps: Findings,
}

impl Verdict {
    /// Each kind of finding with its law.
    #[must_use]
    pub fn findings(&self) -> [(&'static str, &'static str, &Findings); 7] {
        [
            ("L1", "lost", &self.missing),
            ("L2", "made up", &self.phantom),
            ("L3", "twice", &self.twice),
            ("L3", "count, sum or hash", &self.unequal),
            ("L3", "counted wrong in the ledger", &self.miscounted),
            ("L4", "changed", &self.different),
            ("L8", "gaps that are none, or none that are", &self.gaps),
        ]
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.findings().iter().all(|(_, _, found)| found.is_empty())
    }

    /// Panics with everything found unless nothing is wrong.
    pub fn must_hold(&self) {
        assert!(self.holds(), "{self}");
        assert!(self.points_found > 0, "nothing was compared");
    }

    /// Takes in another environment's.
    pub fn extend(&mut self, other: Self) {
        self.series += other.series;
        self.points_expected += other.points_expected;
        self.points_found += other.points_found;
        self.epochs += other.epochs;
        self.batches += other.batches;
        self.duplicates += other.duplicates;
        self.missing.extend(other.missing);
        self.phantom.extend(other.phantom);
        self.different.extend(other.different);
        self.twice.extend(other.twice);
        self.unequal.extend(other.unequal);
        self.miscounted.extend(other.miscounted);
        self.gaps.extend(other.gaps);
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "compared {} series: {} points expected, {} found; {} epochs: {} batches applied, {} \
             duplicates",
            self.series,
            self.points_expected,
            self.points_found,
            self.epochs,
            self.batches,
            self.duplicates
        )?;
        for (law, what, found) in self.findings() {
            writeln!(f, "  {law} {what}: {}", found.count())?;
            for line in found.texts() {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}
