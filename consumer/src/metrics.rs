//! What the consumer tells of itself; names without the prefix `spillway_consumer_`.
//!
//! Conservation can be computed from these alone ([`crate::books`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use spillway_proto::kafka_record::Lane;

use crate::books::Books;

/// A label that says why, from a fixed list of words.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    pub reason: &'static str,
}

/// What became of a COMMIT that was not answered.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    pub outcome: &'static str,
}

/// Which way a record came.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfLane {
    pub lane: &'static str,
}

/// One partition of one topic.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Place {
    pub topic: &'static str,
    pub partition: u16,
}

/// A shard and a class of errors.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ShardError {
    pub shard: String,
    pub class: &'static str,
}

/// Handles on all metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub books: Arc<Books>,
    pub batches_applied: Counter,
    pub points_applied: Counter,
    pub batches_duplicate: Counter,
    pub points_duplicate: Counter,
    pub points_expired: Counter,
    pub batches_quarantined: Family<Reason, Counter>,
    pub points_quarantined: Family<Reason, Counter>,
    pub batches_cloned: Counter,
    pub rows: Counter,
    pub merges: Counter,
    pub series_created: Counter,
    pub transactions: Counter,
    pub transaction_points: Histogram,
    pub transaction_seconds: Histogram,
    pub commit_seconds: Histogram,
    pub unknown_commits: Family<Outcome, Counter>,
    pub fenced: Counter,
    pub went_back: Counter,
    pub offset_jumps: Counter,
    pub reads_stalled: Counter,
    pub errors: Family<ShardError, Counter>,
    pub partitions_assigned: Gauge,
    pub partitions_claimed: Gauge,
    pub partitions_held: Family<Reason, Gauge>,
    pub lanes_paused: Gauge,
    pub intake_bytes: Family<OfLane, Gauge>,
    pub applied_offset: Family<Place, Gauge>,
    pub append_age_seconds: Gauge<f64, AtomicU64>,
    pub group_commits_failed: Counter,
    pub last_seen_sent: Counter,
    pub last_seen_dropped: Counter,
    /// Shared by the parts that no request hits often.
    pub rebalances: Counter,
    pub rejoins: Counter,
}

impl Metrics {
    /// Makes all metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::new();
        metrics.register_flow(registry);
        metrics.register_store(registry);
        metrics.register_partitions(registry);
        metrics
    }

    fn new() -> Self {
        Self {
            books: Arc::default(),
            batches_applied: Counter::default(),
            points_applied: Counter::default(),
            batches_duplicate: Counter::default(),
            points_duplicate: Counter::default(),
            points_expired: Counter::default(),
            batches_quarantined: Family::default(),
            points_quarantined: Family::default(),
            batches_cloned: Counter::default(),
            rows: Counter::default(),
            merges: Counter::default(),
            series_created: Counter::default(),
            transactions: Counter::default(),
            transaction_points: Histogram::new([
                1.0, 100.0, 1e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6,
            ]),
            transaction_seconds: Histogram::new(seconds()),
            commit_seconds: Histogram::new(seconds()),
            unknown_commits: Family::default(),
            fenced: Counter::default(),
            went_back: Counter::default(),
            offset_jumps: Counter::default(),
            reads_stalled: Counter::default(),
            errors: Family::default(),
            partitions_assigned: Gauge::default(),
            partitions_claimed: Gauge::default(),
            partitions_held: Family::default(),
            lanes_paused: Gauge::default(),
            intake_bytes: Family::default(),
            applied_offset: Family::default(),
            append_age_seconds: Gauge::default(),
            group_commits_failed: Counter::default(),
            last_seen_sent: Counter::default(),
            last_seen_dropped: Counter::default(),
            rebalances: Counter::default(),
            rejoins: Counter::default(),
        }
    }

    fn register_flow(&self, r: &mut Registry) {
        self.books.register(r);
        let help = "Batches whose points are committed";
        r.register("batches_applied", help, self.batches_applied.clone());
        r.register("points_applied", "Points committed", self.points_applied.clone());
        let help = "Batches that the ledger held already";
        r.register("batches_duplicate", help, self.batches_duplicate.clone());
        r.register("points_duplicate", "Points of those batches", self.points_duplicate.clone());
        let help = "Points older than raw retention, applied as nothing";
        r.register("points_expired", help, self.points_expired.clone());
        let help = "Records sent to dead letters";
        r.register("batches_quarantined", help, self.batches_quarantined.clone());
        let help = "Points of those records, as their headers state";
        r.register("points_quarantined", help, self.points_quarantined.clone());
        let help = "Batches whose id was used for other content, applied under a content id";
        r.register("batches_cloned", help, self.batches_cloned.clone());
        let help = "Bytes waiting between Kafka and the workers";
        r.register("intake_bytes", help, self.intake_bytes.clone());
        let help = "Series updates handed to Redis";
        r.register("last_seen_sent", help, self.last_seen_sent.clone());
        let help = "Series updates dropped because Redis was away";
        r.register("last_seen_dropped", help, self.last_seen_dropped.clone());
        let help = "Age of the newest record of the last transaction, since its append";
        r.register("append_age_seconds", help, self.append_age_seconds.clone());
    }

    fn register_store(&self, r: &mut Registry) {
        r.register("rows", "Rows of points written", self.rows.clone());
        let help = "Rows that existed and were merged with new samples";
        r.register("merges", help, self.merges.clone());
        r.register("series_created", "Series seen for the first time", self.series_created.clone());
        r.register("transactions", "Transactions committed", self.transactions.clone());
        let help = "Points in one transaction";
        r.register("transaction_points", help, self.transaction_points.clone());
        let help = "Time from BEGIN to the end of COMMIT";
        r.register("transaction_seconds", help, self.transaction_seconds.clone());
        r.register("commit_seconds", "Time of COMMIT alone", self.commit_seconds.clone());
        let help = "COMMITs without an answer, by what positions told";
        r.register("unknown_commits", help, self.unknown_commits.clone());
        let help = "Transactions refused by a fence, an epoch or foreign offsets";
        r.register("fenced", help, self.fenced.clone());
        let help = "Partitions whose stored offsets were lower than what was applied";
        r.register("went_back", help, self.went_back.clone());
        r.register("errors", "Errors of a shard, by class", self.errors.clone());
    }

    fn register_partitions(&self, r: &mut Registry) {
        let help = "Partitions that the group gave to this consumer";
        r.register("partitions_assigned", help, self.partitions_assigned.clone());
        let help = "Partitions claimed in MySQL and being read";
        r.register("partitions_claimed", help, self.partitions_claimed.clone());
        let help = "Partitions assigned and not read, by reason";
        r.register("partitions_held", help, self.partitions_held.clone());
        let help = "Lanes of workers whose fetching is paused because memory is full";
        r.register("lanes_paused", help, self.lanes_paused.clone());
        let help = "Next offset to apply, as committed in MySQL";
        r.register("applied_offset", help, self.applied_offset.clone());
        let help = "Offsets missing from a partition's log";
        r.register("offset_jumps", help, self.offset_jumps.clone());
        let help = "Lanes that stood still at a look, though their log went on";
        r.register("reads_stalled", help, self.reads_stalled.clone());
        let help = "Group offsets that Kafka did not take";
        r.register("group_commits_failed", help, self.group_commits_failed.clone());
        r.register("rebalances", "Assignments received", self.rebalances.clone());
        let help = "Times the group refused this member for good, so that it joined anew";
        r.register("rejoins", help, self.rejoins.clone());
    }

    /// Counts one refused statement or connection.
    pub fn error(&self, shard: &str, class: &'static str) {
        let labels = ShardError { shard: shard.to_owned(), class };
        self.errors.get_or_create(&labels).inc();
    }

    /// Notes where a partition stands after a COMMIT.
    pub fn applied(&self, lane: Lane, partition: u16, next: i64) {
        let place = Place { topic: lane.topic(), partition };
        self.applied_offset.get_or_create(&place).set(next);
    }

    /// For tests: nothing is registered.
    #[must_use]
    pub fn for_test() -> Self {
        Self::new()
    }
}

/// Time since `began` in seconds, as histograms take it.
#[must_use]
pub fn since(began: tokio::time::Instant) -> f64 {
    Duration::as_secs_f64(&began.elapsed())
}

/// Adds to a gauge that several workers share, without reading it.
pub fn add(gauge: &Gauge, delta: i64) {
    gauge.inner().fetch_add(delta, Ordering::Relaxed);
}

fn seconds() -> impl Iterator<Item = f64> {
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0].into_iter()
}
