//! Programs that are wrong on purpose, so that the oracle is seen to catch them (`cargo xtask drill
//! mutants`). Without a program's feature `mutants` every question is answered `false` while
//! compiling, and nothing of it is in the binary.

use std::sync::OnceLock;

/// Names the mutant that is armed.
const VARIABLE: &str = "SPILLWAY_MUTANT";

/// The mutant that is armed, if any.
#[must_use]
pub fn armed() -> Option<&'static str> {
    static ARMED: OnceLock<Option<String>> = OnceLock::new();
    ARMED.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref()
}

/// Declares a program's wrong behaviours, `enum Mutant`, and `is`, which tells whether one of them
/// is armed. Each stands with the name by which it is armed.
#[macro_export]
macro_rules! mutants {
    ($($(#[$about:meta])+ $mutant:ident = $name:literal,)+) => {
        /// A wrong behaviour, in travel order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[$about])+ $mutant,)+
        }

        /// Whether this one is armed.
        #[cfg(not(feature = "mutants"))]
        #[must_use]
        pub const fn is(_: Mutant) -> bool {
            false
        }

        /// Whether this one is armed.
        #[cfg(feature = "mutants")]
        #[must_use]
        pub fn is(mutant: Mutant) -> bool {
            let name = match mutant {
                $(Mutant::$mutant => $name,)+
            };
            $crate::mutants::armed() == Some(name)
        }
    };
}
