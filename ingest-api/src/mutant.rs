//! Wrong on purpose: behaviours that the oracle must catch, each in one run (`cargo xtask drill
//! mutants`). Without the feature `mutants` there is nothing here at all: every question is
//! answered `false` while compiling.
//!
//! `SPILLWAY_MUTANT=name` arms one of them.

/// A wrong behaviour, in travel order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The answer waits for no delivery report.
    AnswerBeforeReport,
    /// A retry that joins a delivery under way is answered at once.
    JoinWithoutWaiting,
    /// The leader of a partition alone acknowledges.
    AcksOne,
    /// A host goes to the partition beside its own.
    WrongPartition,
}

#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn is(_: Mutant) -> bool {
    false
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

#[cfg(feature = "mutants")]
pub use armed::is;

#[cfg(feature = "mutants")]
mod armed {
    use std::sync::OnceLock;

    use super::Mutant;

    /// Whether this one is armed.
    #[must_use]
    pub fn is(mutant: Mutant) -> bool {
        static ARMED: OnceLock<Option<String>> = OnceLock::new();
        let armed = ARMED.get_or_init(crate::settings::mutant);
        armed.as_deref() == Some(name_of(mutant))
    }

    fn name_of(mutant: Mutant) -> &'static str {
        match mutant {
            Mutant::AnswerBeforeReport => "answer-before-report",
            Mutant::JoinWithoutWaiting => "join-without-waiting",
            Mutant::AcksOne => "acks-one",
            Mutant::WrongPartition => "wrong-partition",
        }
    }
}
