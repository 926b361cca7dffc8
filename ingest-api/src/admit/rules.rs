//! admission.toml: whom operators let in, for re-admission by steps after an outage.
//!
//! ```toml
//! share = 0.25          # agents admitted, by hash of their id: always the same ones
//! paused = ["acme"]     # environments that are not admitted at all
//! ```

use std::collections::BTreeSet;

use serde::Deserialize;
use spillway_proto::BatchId;
use xxhash_rust::xxh3::xxh3_64;

/// One version of the file. The default admits everyone.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    share: f64,
    paused: BTreeSet<String>,
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

    /// Whether the sender of this batch is in the admitted share: agents by their id, senders
    /// without one by their batch's.
    #[must_use]
    pub fn admits(&self, id: &BatchId) -> bool {
        if self.share >= 1.0 {
            return true;
        }
        let (sender, _, _) = id.columns();
        // The upper 53 bits are exact in a double, and spread evenly over 0..1.
        let place = (xxh3_64(&sender) >> 11) as f64 / (1_u64 << 53) as f64;
        place < self.share
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn agent(number: u128) -> BatchId {
        BatchId::Sequenced { agent_id: Uuid::from_u128(number), epoch: Uuid::from_u128(1), seq: 1 }
    }

    #[test]
    fn an_absent_or_empty_file_admits_everyone() {
        let rules = Rules::parse("").unwrap();
        assert_eq!(rules, Rules::default());
        assert!(rules.admits(&agent(1)) && !rules.is_paused("acme"));
    }

    #[test]
    fn a_growing_share_keeps_those_it_had() {
        let rules: Vec<Rules> = ["share = 0", "share = 0.25", "share = 0.5", "share = 1"]
            .iter()
            .map(|text| Rules::parse(text).unwrap())
            .collect();
        let admitted = |rules: &Rules| -> Vec<u128> {
            (0..4_000).filter(|number| rules.admits(&agent(*number))).collect()
        };
        let sets: Vec<Vec<u128>> = rules.iter().map(admitted).collect();
        assert_eq!(sets[0].len(), 0);
        assert_eq!(sets[3].len(), 4_000);
        assert!((800..1_200).contains(&sets[1].len()), "{}", sets[1].len());
        assert!(sets[1].iter().all(|number| sets[2].contains(number)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["share = 2", "share = nan", "share = \"all\"", "pause = [\"acme\"]"] {
            assert!(Rules::parse(text).is_err(), "{text}");
        }
    }
}
