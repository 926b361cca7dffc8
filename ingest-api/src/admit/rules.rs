//! Whom the operators' admission.toml lets in.

use spillway_proto::BatchId;
pub use spillway_runtime::admission::{Rules, RulesError};
use xxhash_rust::xxh3::xxh3_64;

/// Whether the sender of this batch is in the admitted share: agents by their id, senders without
/// one by their batch's.
#[must_use]
pub fn admits(rules: &Rules, id: &BatchId) -> bool {
    if rules.share >= 1.0 {
        return true;
    }
    let (sender, _, _) = id.columns();
    // The upper 53 bits are exact in a double, and spread evenly over 0..1.
    let place = (xxh3_64(&sender) >> 11) as f64 / (1_u64 << 53) as f64;
    place < rules.share
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
        assert!(admits(&rules, &agent(1)) && !rules.is_paused("acme"));
    }

    #[test]
    fn a_growing_share_keeps_those_it_had() {
        let rules: Vec<Rules> = ["share = 0", "share = 0.25", "share = 0.5", "share = 1"]
            .iter()
            .map(|text| Rules::parse(text).unwrap())
            .collect();
        let admitted = |rules: &Rules| -> Vec<u128> {
            (0..4_000).filter(|number| admits(rules, &agent(*number))).collect()
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
