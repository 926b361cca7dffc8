//! Wrong on purpose: behaviours that the oracle must catch, each in one run (`cargo xtask drill
//! mutants`). Without the feature `mutants` there is nothing here at all: every question is
//! answered `false` while compiling.
//!
//! `SPILLWAY_MUTANT=name` arms one of them.

/// A wrong behaviour, in travel order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The leader alone acknowledges.
    AcksOne,
}

#[cfg(not(feature = "mutants"))]
#[must_use]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub(crate) use armed::is;

#[cfg(feature = "mutants")]
mod armed {
    use std::sync::OnceLock;

    use super::Mutant;

    /// Whether this one is armed.
    #[must_use]
    pub(crate) fn is(mutant: Mutant) -> bool {
        static ARMED: OnceLock<Option<String>> = OnceLock::new();
        let armed = ARMED.get_or_init(crate::settings::mutant);
        armed.as_deref() == Some(name_of(mutant))
    }

    fn name_of(mutant: Mutant) -> &'static str {
        match mutant {
            Mutant::AcksOne => "acks-one",
        }
    }
}
