//! Wrong on purpose: behaviours that the oracle must catch, each in one run (`cargo xtask drill
//! mutants`). Without the feature `mutants` there is nothing here at all: every question is
//! answered `false` while compiling.
//!
//! `SPILLWAY_MUTANT=name` arms one of them.

/// A wrong behaviour, in travel order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// One record is passed over.
    DropOneBatch,
    /// A record that the ledger knows is applied once more.
    ApplyOneTwice,
    /// One record is passed over, another one applied twice.
    LoseOneDoubleAnother,
    /// Two values of one batch change places.
    SwapTwoValues,
    /// A damaged frame is passed over in silence.
    SkipBadCrc,
    /// A partition starts where the group says, not MySQL.
    GroupOffsetOnStart,
    /// All agents count in one epoch.
    ShareLedger,
    /// What an agent says it gave up is not noted.
    ForgetDeclaration,
    /// Positions are committed before the rows they stand for.
    OffsetsBeforeRows,
    /// After a deadlock only the statement that met it is tried again.
    HalfRetry,
    /// Positions are set without comparing what they were.
    SkipFence,
    /// An unanswered COMMIT counts as done.
    SettleAsApplied,
    /// Series count as known before their COMMIT was answered.
    TrustCacheAfterUnknown,
}

#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn is(_: Mutant) -> bool {
    false
}

#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn turn(_: Mutant, _passage: u64) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use armed::{is, turn};

#[cfg(feature = "mutants")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Mutant;

    /// Whether this one is armed.
    #[must_use]
    pub fn is(mutant: Mutant) -> bool {
        static ARMED: OnceLock<Option<String>> = OnceLock::new();
        let armed = ARMED.get_or_init(crate::settings::mutant);
        armed.as_deref() == Some(name_of(mutant))
    }

    /// Whether it is armed and this is the passage at which it acts, the first being 1.
    #[must_use]
    pub fn turn(mutant: Mutant, passage: u64) -> bool {
        static PASSAGES: AtomicU64 = AtomicU64::new(0);
        is(mutant) && PASSAGES.fetch_add(1, Ordering::AcqRel) + 1 == passage
    }

    fn name_of(mutant: Mutant) -> &'static str {
        match mutant {
            Mutant::DropOneBatch => "drop-one-batch",
            Mutant::ApplyOneTwice => "apply-one-twice",
            Mutant::LoseOneDoubleAnother => "lose-one-double-another",
            Mutant::SwapTwoValues => "swap-two-values",
            Mutant::SkipBadCrc => "skip-bad-crc",
            Mutant::GroupOffsetOnStart => "group-offset-on-start",
            Mutant::ShareLedger => "share-ledger",
            Mutant::ForgetDeclaration => "forget-declaration",
            Mutant::OffsetsBeforeRows => "offsets-before-rows",
            Mutant::HalfRetry => "half-retry",
            Mutant::SkipFence => "skip-fence",
            Mutant::SettleAsApplied => "settle-as-applied",
            Mutant::TrustCacheAfterUnknown => "trust-cache-after-unknown",
        }
    }
}
