//! The legs of a batch's way: a counter each, and where its waiting things are counted.

use super::Flow;
use crate::status::snapshot::{Hop, ShardState, Snapshot};

struct Leg {
    key: &'static str,
    name: &'static str,
    unit: &'static str,
    counter: &'static str,
    held: Option<&'static str>,
    oldest: Option<&'static str>,
}

const LEGS: [Leg; 6] = [
    Leg {
        key: "measured",
        name: "measured by agents",
        unit: "points",
        counter: "spillway_agent_points_emitted_total",
        held: Some("spillway_agent_spool_batches"),
        oldest: Some("spillway_agent_oldest_in_spool_seconds"),
    },
    Leg {
        key: "direct",
        name: "agent → API",
        unit: "points",
        counter: "spillway_agent_points_acked_total",
        held: None,
        oldest: None,
    },
    Leg {
        key: "parked",
        name: "agent → S3",
        unit: "points",
        counter: "spillway_agent_points_parked_total",
        held: None,
        oldest: None,
    },
    Leg {
        key: "accepted",
        name: "API → Kafka",
        unit: "points",
        counter: "spillway_ingest_points_accepted_total",
        held: None,
        oldest: None,
    },
    Leg {
        key: "drained",
        name: "S3 → Kafka",
        unit: "points",
        counter: "spillway_recovery_points_drained_total",
        held: Some("spillway_recovery_objects_pending"),
        oldest: Some("spillway_recovery_oldest_object_seconds"),
    },
    Leg {
        key: "applied",
        name: "Kafka → MySQL",
        unit: "points",
        counter: "spillway_consumer_points_applied_total",
        held: None,
        oldest: None,
    },
];

pub fn hops(flow: &Flow<'_>, snapshot: &Snapshot) -> Vec<Hop> {
    let mut hops: Vec<Hop> = LEGS.iter().map(|leg| hop(flow, leg)).collect();
    if let Some(last) = hops.last_mut() {
        (last.held, last.oldest_s) = waiting_in_kafka(flow, snapshot);
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
        oldest_s: leg.oldest.and_then(|name| flow.peak(name)),
    }
}

/// An older measurement says nothing of now.
const MEASURED_S_MAX: i64 = 60;

/// What Kafka holds is known to the keeper, which measures it apart from the consumer: in MySQL,
/// and by its own metrics while a shard can't be asked.
fn waiting_in_kafka(flow: &Flow<'_>, snapshot: &Snapshot) -> (Option<f64>, Option<f64>) {
    let is_new = |shard: &ShardState| shard.measured_s.is_some_and(|age| age <= MEASURED_S_MAX);
    if snapshot.shards.iter().all(|shard| shard.reachable && is_new(shard)) {
        let records: i64 = snapshot.shards.iter().filter_map(|shard| shard.lag_records).sum();
        let oldest = snapshot.shards.iter().filter_map(|shard| shard.lag_s).reduce(f64::max);
        return (Some(records as f64), oldest);
    }
    if snapshot.shards.iter().all(|shard| shard.reachable) {
        return (None, None);
    }
    (flow.sum("spillway_keeper_lag_records"), flow.peak("spillway_keeper_lag_seconds"))
}
