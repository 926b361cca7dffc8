//! Ways in which the surroundings can be made to lie, each the twin of a bug that a program could
//! have. A simulation that finds nothing in any of them would prove nothing.

/// One lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A record is acknowledged when it is handed over, not when it is stored.
    AckBeforeReport,
    /// A restart gives the same epoch again, so seqs come again with other content.
    EpochAgain,
    /// Consumers are said to have stored whatever is in the log: objects go early.
    ProgressAhead,
    /// A lost answer counts as accepted.
    LostAnswerAccepted,
    /// A sync says "done" and does nothing.
    SyncLies,
    /// A repetition is applied once more.
    AppliesTwice,
    /// What the agent gave up is not declared by name.
    Undeclared,
}

impl Mutant {
    pub const ALL: [Self; 7] = [
        Self::AckBeforeReport,
        Self::EpochAgain,
        Self::ProgressAhead,
        Self::LostAnswerAccepted,
        Self::SyncLies,
        Self::AppliesTwice,
        Self::Undeclared,
    ];
}
