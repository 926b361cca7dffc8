//! What this program can be made to do wrong, so that the oracle is seen to catch it.

use std::sync::atomic::{AtomicU64, Ordering};

spillway_runtime::mutants! {
    /// One record is passed over.
    DropOneBatch = "drop-one-batch",
    /// A record that the ledger knows is applied once more.
    ApplyOneTwice = "apply-one-twice",
    /// One record is passed over, another one applied twice.
    LoseOneDoubleAnother = "lose-one-double-another",
    /// Two values of one batch change places.
    SwapTwoValues = "swap-two-values",
    /// A damaged frame is passed over in silence.
    SkipBadCrc = "skip-bad-crc",
    /// A partition starts where the group says, not MySQL.
    GroupOffsetOnStart = "group-offset-on-start",
    /// All agents count in one epoch.
    ShareLedger = "share-ledger",
    /// What an agent says it gave up is not noted.
    ForgetDeclaration = "forget-declaration",
    /// Positions are committed before the rows they stand for.
    OffsetsBeforeRows = "offsets-before-rows",
    /// After a deadlock only the statement that met it is tried again.
    HalfRetry = "half-retry",
    /// Positions are set without comparing what they were.
    SkipFence = "skip-fence",
    /// An unanswered COMMIT counts as done.
    SettleAsApplied = "settle-as-applied",
    /// Series count as known before their COMMIT was answered.
    TrustCacheAfterUnknown = "trust-cache-after-unknown",
}

/// Whether it is armed and this is the passage at which it acts, the first being 1.
#[must_use]
pub fn turn(mutant: Mutant, passage: u64) -> bool {
    static PASSAGES: AtomicU64 = AtomicU64::new(0);
    is(mutant) && PASSAGES.fetch_add(1, Ordering::AcqRel) + 1 == passage
}
