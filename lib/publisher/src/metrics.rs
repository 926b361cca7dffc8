//! What a publisher says of itself, under the metric prefix of the program that holds it.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::outcome::Outcome;

/// Upper bounds in seconds; the HTTP deadline of ingest-api (3 s) is one of them.
const ACK_BUCKETS_S: [f64; 12] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0, 30.0, 120.0];

/// Handles, cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub joins: Counter,
    pub records_published: Counter,
    pub points_published: Counter,
    failures: Family<Failure, Counter>,
    ack: Histogram,
    pub queue_records: Gauge,
    pub queue_bytes: Gauge,
    pub queue_full: Counter,
    pub brokers_down: Gauge,
    pub brokers_up: Gauge,
    pub rebuilds: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Failure {
    outcome: &'static str,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            joins: Counter::default(),
            records_published: Counter::default(),
            points_published: Counter::default(),
            failures: Family::default(),
            ack: Histogram::new(ACK_BUCKETS_S),
            queue_records: Gauge::default(),
            queue_bytes: Gauge::default(),
            queue_full: Counter::default(),
            brokers_down: Gauge::default(),
            brokers_up: Gauge::default(),
            rebuilds: Counter::default(),
        };
        metrics.enter(registry);
        metrics
    }

    fn enter(&self, to: &mut Registry) {
        to.register(
            "joins",
            "Records that joined a copy in flight instead of being published again",
            self.joins.clone(),
        );
        to.register(
            "records_published",
            "Records that Kafka acknowledged",
            self.records_published.clone(),
        );
        to.register(
            "points_published",
            "Points of those records, as their frames' headers state",
            self.points_published.clone(),
        );
        to.register(
            "records_failed",
            "Delivery reports that were no acknowledgement",
            self.failures.clone(),
        );
        to.register("ack_seconds", "From taking a record to its delivery report", self.ack.clone());
        to.register(
            "kafka_queue_records",
            "Records in the producer's queue or in flight",
            self.queue_records.clone(),
        );
        to.register(
            "kafka_queue_bytes",
            "Bytes in the producer's queue or in flight",
            self.queue_bytes.clone(),
        );
        to.register(
            "kafka_queue_full",
            "Records refused because the producer's queue was full",
            self.queue_full.clone(),
        );
        to.register(
            "kafka_brokers_down",
            "Known brokers without a connection",
            self.brokers_down.clone(),
        );
        to.register("kafka_brokers_up", "Known brokers with a connection", self.brokers_up.clone());
        to.register(
            "kafka_producer_rebuilds",
            "Producers made anew after a fatal error",
            self.rebuilds.clone(),
        );
    }

    /// A delivery report of a record with `points`.
    pub fn landed(&self, outcome: Outcome, points: usize, after: Duration) {
        self.ack.observe(after.as_secs_f64());
        let outcome = match outcome {
            Outcome::Done { .. } => {
                self.records_published.inc();
                self.points_published.inc_by(points as u64);
                return;
            }
            Outcome::Refused(_) => "refused",
            Outcome::TryLater(_) => "try-later",
            Outcome::Unknown => "unknown",
        };
        self.failures.get_or_create(&Failure { outcome }).inc();
    }
}
