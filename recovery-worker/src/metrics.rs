//! The worker's own numbers. With the other programs' they make the books balance: what was
//! parked is pending, drained or in quarantine.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::bucket_error::Operation;

/// Why, in one stable word.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    pub reason: &'static str,
}

/// Which request to S3.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    pub operation: &'static str,
}

/// Handles on all of them; clones share the numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub objects_pending: Gauge,
    pub pending_bytes: Gauge,
    pub objects_foreign: Gauge,
    pub objects_awaiting: Gauge,
    pub oldest_object_seconds: Gauge<f64, AtomicU64>,
    pub objects_drained: Counter,
    pub batches_drained: Counter,
    pub points_drained: Counter,
    pub bytes_fetched: Counter,
    pub objects_quarantined: Family<Reason, Counter>,
    pub batches_quarantined: Counter,
    pub points_quarantined: Counter,
    pub objects_republished: Counter,
    pub objects_postponed: Family<Reason, Counter>,
    pub s3_errors: Family<Request, Counter>,
    pub backlog_lag_records: Gauge,
    pub paused: Gauge,
}

impl Metrics {
    /// Makes the numbers and puts them where `/metrics` finds them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.register_objects(registry);
        metrics.register_rest(registry);
        metrics
    }

    fn register_objects(&self, registry: &mut Registry) {
        let pending = self.objects_pending.clone();
        let help = "Objects in the bucket, drained ones included until they are deleted";
        registry.register("objects_pending", help, pending);
        let bytes = self.pending_bytes.clone();
        registry.register("pending_bytes", "Bytes of the objects in the bucket", bytes);
        let foreign = self.objects_foreign.clone();
        let help = "Keys under the prefix that no agent makes; left alone";
        registry.register("objects_foreign", help, foreign);
        let awaiting = self.objects_awaiting.clone();
        let help = "Objects that are in Kafka and wait until consumers have stored them";
        registry.register("objects_awaiting", help, awaiting);
        let oldest = self.oldest_object_seconds.clone();
        let help = "Age of the oldest object in the bucket";
        registry.register("oldest_object_seconds", help, oldest);
        let drained = self.objects_drained.clone();
        let help = "Objects deleted after all of them was stored";
        registry.register("objects_drained", help, drained);
        let quarantined = self.objects_quarantined.clone();
        registry.register("objects_quarantined", "Objects set aside, by reason", quarantined);
        let republished = self.objects_republished.clone();
        let help = "Objects published once more because Kafka lost them";
        registry.register("objects_republished", help, republished);
        let postponed = self.objects_postponed.clone();
        let help = "Attempts at an object that ended without a result, by reason";
        registry.register("objects_postponed", help, postponed);
    }

    fn register_rest(&self, registry: &mut Registry) {
        let batches = self.batches_drained.clone();
        let help = "Batches that Kafka acknowledged, repetitions included";
        registry.register("batches_drained", help, batches);
        let points = self.points_drained.clone();
        let help = "Points of the batches that Kafka acknowledged";
        registry.register("points_drained", help, points);
        let quarantined = self.batches_quarantined.clone();
        let help = "Batches in quarantined objects, as far as those could be opened";
        registry.register("batches_quarantined", help, quarantined);
        let quarantined = self.points_quarantined.clone();
        registry.register("points_quarantined", "Points of those batches", quarantined);
        let fetched = self.bytes_fetched.clone();
        registry.register_with_unit("fetched", "Bytes of objects read", Unit::Bytes, fetched);
        let errors = self.s3_errors.clone();
        registry.register("s3_errors", "Requests to S3 that failed, by operation", errors);
        let lag = self.backlog_lag_records.clone();
        let help = "Records of the backlog topic that consumers have not stored";
        registry.register("backlog_lag_records", help, lag);
        let paused = self.paused.clone();
        let help = "1 while nothing is drained: lag, Kafka, tokens, or too much awaiting";
        registry.register("paused", help, paused);
    }

    pub fn s3_failed(&self, operation: Operation) {
        self.s3_errors.get_or_create(&Request { operation: operation.as_str() }).inc();
    }

    pub fn postponed(&self, reason: &'static str) {
        self.objects_postponed.get_or_create(&Reason { reason }).inc();
    }

    pub fn quarantined(&self, reason: &'static str) {
        self.objects_quarantined.get_or_create(&Reason { reason }).inc();
    }
}
