//! What this program can be made to do wrong, so that the oracle is seen to catch it.

spillway_runtime::mutants! {
    /// After a restart the epoch goes on, and seqs begin at 1 again.
    ReuseSeq = "reuse-seq",
    /// A failed fsync is simply tried once more.
    FsyncRetry = "fsync-retry",
    /// A damaged record is passed over and not declared.
    SkipDamagedRecord = "skip-damaged-record",
}
