//! What this program can be made to do wrong, so that the oracle is seen to catch it.

spillway_runtime::mutants! {
    /// The answer waits for no delivery report.
    AnswerBeforeReport = "answer-before-report",
    /// A retry that joins a delivery under way is answered at once.
    JoinWithoutWaiting = "join-without-waiting",
    /// The leader of a partition alone acknowledges.
    AcksOne = "acks-one",
    /// A host goes to the partition beside its own.
    WrongPartition = "wrong-partition",
}

/// The settings with which the leader alone acknowledges, if that is armed.
#[cfg(feature = "mutants")]
#[must_use]
pub fn spoiled(mut settings: crate::settings::IngestSettings) -> crate::settings::IngestSettings {
    if is(Mutant::AcksOne) {
        settings.kafka.options.push("acks=1".to_owned());
    }
    settings
}
