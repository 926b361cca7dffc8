//! What everybody in a simulation sees.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::history::History;
use crate::mutant::Mutant;
use crate::oracle::Oracle;
use crate::weather::Weather;

/// The environment that all of a simulation's batches are of.
pub const ENVIRONMENT: &str = "sim";
/// The token of all its agents, and the file that knows it.
pub const TOKEN: &str = "spw_sim_secret";
pub const TOKENS_TOML: &str = r#"
[[token]]
id = "sim"
secret_sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
environment = "sim"
created = "2020-01-01T00:00:00Z"
"#;
pub const PARTITIONS: u16 = 4;
pub const PARTITION_GROUP: u16 = 2;
/// What the wall clock shows when a simulation begins: 2026-01-01, on the grid.
pub const WALL_MS: i64 = 1_767_225_600_000;

/// One world.
#[derive(Debug)]
pub struct World {
    pub history: History,
    pub weather: Weather,
    pub mutant: Option<Mutant>,
    oracle: Mutex<Oracle>,
}

impl World {
    #[must_use]
    pub fn new(mutant: Option<Mutant>) -> Arc<Self> {
        Arc::new(Self {
            history: History::default(),
            weather: Weather::default(),
            mutant,
            oracle: Mutex::default(),
        })
    }

    pub fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A promise was broken.
    pub fn violate(&self, what: String) {
        crate::note!(self.history, "VIOLATION: {what}");
        self.oracle().violations.push(what);
    }

    /// Whether a promise was broken already.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        !self.oracle().violations.is_empty()
    }
}
