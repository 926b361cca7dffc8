//! What the keeper tells of itself; names without the prefix `spillway_keeper_`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use spillway_runtime::admin::Metrics as Handle;

/// One duty of one shard.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfDuty {
    pub duty: &'static str,
    pub shard: String,
}

/// One partitioned table of one shard.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfTable {
    pub table: &'static str,
    pub shard: String,
}

/// Rollups per minute or hour of one shard.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfSpan {
    pub span: &'static str,
    pub shard: String,
}

/// One topic's partitions of one shard.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfTopic {
    pub topic: &'static str,
    pub shard: String,
}

/// One shard.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfShard {
    pub shard: String,
}

/// A gauge with fractions.
type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;

/// Handles on all metrics; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub duty_runs: Family<OfDuty, Counter>,
    pub duty_errors: Family<OfDuty, Counter>,
    pub duty_succeeded_at: Family<OfDuty, Gauge>,
    pub partitions_added: Family<OfTable, Counter>,
    pub partitions_dropped: Family<OfTable, Counter>,
    pub partitions_waiting: Family<OfTable, Gauge>,
    pub headroom: Family<OfTable, Gauge>,
    pub rollups_made: Family<OfSpan, Counter>,
    pub rollup_rows: Family<OfSpan, Counter>,
    pub rollups_too_late: Family<OfSpan, Counter>,
    pub rollup_lag: Family<OfShard, Gauge>,
    pub series_judged: Family<OfShard, Counter>,
    pub anomalies: Family<OfShard, Counter>,
    pub commit_seconds: Family<OfShard, Seconds>,
    pub rest_seconds: Family<OfShard, Seconds>,
    pub duty_paused: Family<OfDuty, Gauge>,
    pub statements_ended: Family<OfShard, Counter>,
    pub last_seen_folded: Family<OfShard, Counter>,
    pub ledger_epochs_dropped: Family<OfShard, Counter>,
    pub lag_records: Family<OfTopic, Gauge>,
    pub lag_seconds: Family<OfTopic, Seconds>,
    pub partitions_stopped: Family<OfTopic, Gauge>,
    pub partitions_unknown: Family<OfTopic, Gauge>,
    pub kafka_trimmed: Family<OfTopic, Counter>,
}

impl Metrics {
    #[must_use]
    pub fn register(handle: &Handle) -> Self {
        let metrics = Self::default();
        handle.register(|registry| metrics.add_to(registry));
        metrics
    }

    fn add_to(&self, r: &mut Registry) {
        r.register("duty_runs", "Rounds of a duty begun", self.duty_runs.clone());
        r.register("duty_errors", "Rounds of a duty that failed", self.duty_errors.clone());
        r.register(
            "duty_succeeded_timestamp_seconds",
            "When a duty last did its round",
            self.duty_succeeded_at.clone(),
        );
        r.register("partitions_added", "Partitions made ahead", self.partitions_added.clone());
        r.register("partitions_dropped", "Partitions dropped", self.partitions_dropped.clone());
        r.register(
            "partition_headroom_seconds",
            "How far ahead of now there are partitions",
            self.headroom.clone(),
        );
        r.register(
            "partitions_waiting",
            "Partitions old enough to go that wait for their rollups",
            self.partitions_waiting.clone(),
        );
        self.add_background_to(r);
        r.register(
            "reader_statements_ended",
            "Statements of readers ended: over their limit, or in the way of partitions",
            self.statements_ended.clone(),
        );
        r.register(
            "last_seen_folded",
            "last_seen entries brought from Redis to MySQL",
            self.last_seen_folded.clone(),
        );
        r.register(
            "ledger_epochs_dropped",
            "Ledger epochs dropped for their age",
            self.ledger_epochs_dropped.clone(),
        );
        self.add_lag_to(r);
        r.register(
            "kafka_records_trimmed",
            "Records deleted from Kafka after their replay window",
            self.kafka_trimmed.clone(),
        );
    }

    fn add_lag_to(&self, r: &mut Registry) {
        r.register(
            "lag_records",
            "Records not applied yet, all partitions of the topic on the shard",
            self.lag_records.clone(),
        );
        r.register(
            "lag_seconds",
            "Age of the oldest record not applied yet",
            self.lag_seconds.clone(),
        );
        r.register(
            "lag_partitions_unmoved",
            "Partitions in state STALL or STOP",
            self.partitions_stopped.clone(),
        );
        r.register(
            "lag_partitions_unknown",
            "Partitions that MySQL has no position of: consumers hold them",
            self.partitions_unknown.clone(),
        );
    }

    fn add_background_to(&self, r: &mut Registry) {
        r.register("rollups_made", "Minutes and hours of hosts made", self.rollups_made.clone());
        r.register("rollup_rows", "Rows of rollups written", self.rollup_rows.clone());
        r.register(
            "rollups_too_late",
            "Marks cleared because what they would be made from is gone",
            self.rollups_too_late.clone(),
        );
        r.register(
            "rollup_lag_seconds",
            "Age of the oldest minute that waits to be made",
            self.rollup_lag.clone(),
        );
        r.register(
            "series_judged",
            "Series held against their own history",
            self.series_judged.clone(),
        );
        r.register("anomalies", "Events of anomalies opened", self.anomalies.clone());
        r.register(
            "shard_commit_seconds",
            "How long the last small commit took: what background work is paced by",
            self.commit_seconds.clone(),
        );
        r.register(
            "background_rest_seconds",
            "How long background work rests at least between two steps",
            self.rest_seconds.clone(),
        );
        r.register(
            "duty_paused",
            "1 while an operator holds the duty still (table keeper_pauses)",
            self.duty_paused.clone(),
        );
    }
}
