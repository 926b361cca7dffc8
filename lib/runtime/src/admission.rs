//! admission.toml: whom operators let in, for re-admission by steps after an outage. The console
//! writes it, ingest-api reads it.
//!
//! ```toml
//! share = 0.25          # agents admitted, by hash of their id: always the same ones
//! paused = ["acme"]     # environments that are not admitted at all
//! ```

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// One version of the file. The default admits everyone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Of all agents, 0 to 1.
    pub share: f64,
    pub paused: BTreeSet<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { share: 1.0, paused: BTreeSet::new() }
    }
}

/// Why the file is refused; the last good one stays in force.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    #[error("it is no admission file: {0}")]
    NotToml(#[from] toml::de::Error),
    #[error("share must be between 0 and 1")]
    Share,
}

impl Rules {
    /// # Errors
    /// [`RulesError`].
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let rules: Self = toml::from_str(text)?;
        if (0.0..=1.0).contains(&rules.share) { Ok(rules) } else { Err(RulesError::Share) }
    }

    #[must_use]
    pub fn is_paused(&self, environment: &str) -> bool {
        self.paused.contains(environment)
    }
}
