//! The gauges that all workers share: each moves them by what changed of its own.

use std::collections::{BTreeMap, BTreeSet};

use spillway_proto::kafka_record::Lane;

use super::Worker;
use crate::metrics::{OfLane, Reason as ReasonLabel, add};

/// What of the gauges that all workers share is this one's.
#[derive(Default)]
pub(super) struct Reported {
    claimed: i64,
    held: BTreeMap<&'static str, i64>,
    bytes: BTreeMap<Lane, i64>,
}

impl Worker {
    /// Moves the gauges that all workers share by what changed here.
    pub(super) fn report(&mut self) {
        let metrics = &self.shared.metrics;
        let claimed = i64::try_from(self.partitions.held().len()).unwrap_or(i64::MAX);
        add(&metrics.partitions_claimed, claimed - self.reported.claimed);
        self.reported.claimed = claimed;
        let now = self.partitions.not_read();
        let before = std::mem::replace(&mut self.reported.held, now.clone());
        let reasons: BTreeSet<&'static str> = before.keys().chain(now.keys()).copied().collect();
        for reason in reasons {
            let of = |counts: &BTreeMap<_, i64>| counts.get(reason).copied().unwrap_or(0);
            let gauge = metrics.partitions_held.get_or_create(&ReasonLabel { reason });
            add(&gauge, of(&now) - of(&before));
        }
        for lane in Lane::ALL {
            let bytes = i64::try_from(self.intake.bytes(lane)).unwrap_or(i64::MAX);
            let before = self.reported.bytes.insert(lane, bytes).unwrap_or(0);
            let gauge = metrics.intake_bytes.get_or_create(&OfLane { lane: lane.as_str() });
            add(&gauge, bytes - before);
        }
    }
}
