//! The legs of a batch's way: a counter each, and where its waiting things are counted.

use super::Flow;
use crate::status::snapshot::{Hop, ShardState, Snapshot};

struct Leg {
    key: &'static str,
    name: &'static str,
    unit: &'static str,
    counter: &'static str,
    held: Option<&'static str>,
    held_unit: Option<&'static str>,
    oldest: Option<&'static str>,
}

const LEGS: [Leg; 6] = [
    Leg {
        key: "measured",
        name: "measured by agents",
        unit: "points",
        counter: "spillway_agent_points_emitted_total",
        held: Some("spillway_agent_spool_batches"),
        held_unit: Some("batches"),
        oldest: Some("spillway_agent_oldest_in_spool_seconds"),
    },
    Leg {
        key: "direct",
        name: "agent → API",
        unit: "points",
        counter: "spillway_agent_points_acked_total",
        held: None,
        held_unit: None,
        oldest: None,
    },
    Leg {
        key: "parked",
        name: "agent → S3",
        unit: "points",
        counter: "spillway_agent_points_parked_total",
        held: None,
        held_unit: None,
        oldest: None,
    },
    Leg {
        key: "accepted",
        name: "API → Kafka",
        unit: "points",
        counter: "spillway_ingest_points_accepted_total",
        held: None,
        held_unit: None,
        oldest: None,
    },
    Leg {
        key: "drained",
        name: "S3 → Kafka",
        unit: "points",
        counter: "spillway_recovery_points_drained_total",
        held: Some("spillway_recovery_objects_pending"),
        held_unit: Some("objects"),
        oldest: Some("spillway_recovery_oldest_object_seconds"),
    },
    Leg {
        key: "applied",
        name: "Kafka → MySQL",
        unit: "points",
        counter: "spillway_consumer_points_applied_total",
        held: None,
        held_unit: Some("records"),
        oldest: None,
    },
];

pub fn hops(flow: &Flow<'_>, snapshot: &Snapshot) -> Vec<Hop> {
    let mut hops: Vec<Hop> = LEGS.iter().map(|leg| hop(flow, leg)).collect();
    if let Some(drained) = hops.iter_mut().find(|hop| hop.key == "drained") {
        let awaiting = flow.sum("spillway_recovery_objects_awaiting").unwrap_or(0.0);
        drained.unsent = drained.held.map(|held| (held - awaiting).max(0.0));
    }
    if let Some(last) = hops.last_mut() {
        waiting_in_kafka(last, &snapshot.shards);
    }
    hops
}

fn hop(flow: &Flow<'_>, leg: &Leg) -> Hop {
    Hop {
        key: leg.key,
        name: leg.name,
        unit: leg.unit,
        total: flow.sum(leg.counter),
        per_second: flow.rate(leg.counter),
        held: leg.held.and_then(|name| flow.sum(name)),
        held_unit: leg.held_unit,
        oldest_s: leg.oldest.and_then(|name| flow.peak(name)),
        ..Hop::default()
    }
}

/// What Kafka holds is known to the keeper, which measures it apart from the consumer. Where one
/// shard's lag is not known the sum is not; it is at least what waits for the others.
fn waiting_in_kafka(hop: &mut Hop, shards: &[ShardState]) {
    let lags = shards.iter().filter_map(ShardState::lag);
    let records: i64 = lags.clone().map(|(records, _)| records).sum();
    let oldest = lags.clone().map(|(_, seconds)| seconds).reduce(f64::max);
    if !shards.is_empty() && lags.count() == shards.len() {
        (hop.held, hop.oldest_s) = (Some(records as f64), oldest);
    } else if records > 0 {
        (hop.held_least, hop.oldest_least_s) = (Some(records as f64), oldest);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::status::metrics_text::Readings;

    fn shard(reachable: bool, records: i64, seconds: f64) -> ShardState {
        match reachable {
            false => ShardState::default(),
            true => ShardState {
                reachable,
                lag_records: Some(records),
                lag_s: Some(seconds),
                measured_s: Some(2),
                ..ShardState::default()
            },
        }
    }

    /// The last hop, while the keeper's gauge still says what it measured before.
    fn applied(shards: Vec<ShardState>) -> Hop {
        let text = "spillway_keeper_lag_records{shard=\"s1\"} 0\n\
                    spillway_keeper_lag_seconds{shard=\"s1\"} 0\n";
        let now = BTreeMap::from([("keeper".to_owned(), Readings::parse(text))]);
        let flow = Flow { now: &now, before: None, seconds: 1.0 };
        let snapshot = Snapshot { shards, ..Snapshot::default() };
        hops(&flow, &snapshot).pop().unwrap()
    }

    #[test]
    fn what_waits_for_a_shard_that_is_dead_is_not_known_and_so_the_sum_is_not() {
        let hop = applied(vec![shard(true, 0, 0.0), shard(false, 0, 0.0)]);
        assert_eq!((hop.held, hop.oldest_s), (None, None));
        assert_eq!((hop.held_least, hop.oldest_least_s), (None, None), "no least of nought");
        let hop = applied(vec![shard(true, 40, 7.0), shard(false, 0, 0.0)]);
        assert_eq!((hop.held, hop.oldest_s), (None, None));
        assert_eq!((hop.held_least, hop.oldest_least_s), (Some(40.0), Some(7.0)));
        let hop = applied(vec![shard(true, 40, 7.0), shard(true, 2, 9.0)]);
        assert_eq!((hop.held, hop.oldest_s), (Some(42.0), Some(9.0)));
        assert_eq!(hop.held_unit, Some("records"));
        let old = ShardState { measured_s: Some(645), ..shard(true, 0, 0.0) };
        assert_eq!(applied(vec![old]).held, None);
        assert_eq!(applied(Vec::new()).held, None, "no shard is known");
    }

    #[test]
    fn an_object_that_kafka_has_waits_to_be_deleted_and_is_not_on_its_way() {
        let unsent = |text: &str| {
            let now = BTreeMap::from([("recovery-worker-0".to_owned(), Readings::parse(text))]);
            let flow = Flow { now: &now, before: None, seconds: 1.0 };
            hops(&flow, &Snapshot::default()).into_iter().find(|h| h.key == "drained").unwrap()
        };
        let drained = unsent(
            "spillway_recovery_objects_pending 5\nspillway_recovery_objects_awaiting 3\n\
             spillway_recovery_oldest_object_seconds 70\n",
        );
        assert_eq!((drained.held, drained.unsent), (Some(5.0), Some(2.0)));
        assert_eq!(unsent("").unsent, None, "nobody tells");
    }
}
