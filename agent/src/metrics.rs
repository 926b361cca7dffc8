//! What the agent counts of itself. Conservation can be computed from these alone:
//! emitted + found = acked + parked + declared + in the spool + in quarantine, in batches and in
//! points. What is in flight is in the spool as well.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::identity::GivenUpReason;

/// Why something was given up, dropped or failed.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Reason {
    pub reason: &'static str,
}

/// Which input.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Input {
    pub input: &'static str,
}

/// What became of a request, and to whom it went (`api`, `s3`).
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct RequestOutcome {
    pub target: &'static str,
    pub outcome: &'static str,
}

/// To whom bytes went (`api`, `s3`).
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Target {
    pub target: &'static str,
}

/// Seconds as a gauge: ages are fractions, and prometheus-client's default gauge is an integer.
pub type Seconds = Gauge<f64, AtomicU64>;

/// Handles on every metric; cheap to clone, all clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    // collect
    pub inputs_failed: Family<Input, Counter>,
    pub inputs_late: Family<Input, Counter>,
    pub statsd_lines: Counter,
    pub statsd_malformed: Counter,
    pub statsd_ignored: Counter,
    pub statsd_series_dropped: Counter,
    pub statsd_lines_dropped: Counter,
    // assemble and identity
    pub batches_emitted: Counter,
    pub points_emitted: Counter,
    pub batches_found: Counter,
    pub points_found: Counter,
    pub windows_late: Counter,
    pub points_dropped: Family<Reason, Counter>,
    pub epochs: Family<Reason, Counter>,
    pub state_errors: Counter,
    pub batches_declared: Family<Reason, Counter>,
    pub points_declared: Family<Reason, Counter>,
    // spool and deliver
    pub batches_acked: Counter,
    pub points_acked: Counter,
    pub batches_parked: Counter,
    pub points_parked: Counter,
    pub batches_warmed: Counter,
    pub batches_quarantined: Counter,
    pub points_quarantined: Counter,
    pub quarantine_batches: Gauge,
    pub quarantine_points: Gauge,
    pub batches_in_flight: Gauge,
    pub points_in_flight: Gauge,
    pub spool_batches: Gauge,
    pub spool_points: Gauge,
    pub spool_bytes: Gauge,
    pub spool_bytes_max: Gauge,
    pub spool_backlog_batches: Gauge,
    pub spool_errors: Family<Reason, Counter>,
    pub spool_damaged_records: Counter,
    pub spool_late_batches: Counter,
    pub oldest_in_spool_seconds: Seconds,
    pub route: Gauge,
    pub requests: Family<RequestOutcome, Counter>,
    pub bytes_sent: Family<Target, Counter>,
    pub clock_skew_ms: Gauge,
}

impl Metrics {
    /// Makes them and enters them in the registry.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.register_inputs(registry);
        metrics.register_batches(registry);
        metrics.register_delivery(registry);
        // A rate over a series that appears with its first event would miss that event.
        for reason in GivenUpReason::ALL.map(GivenUpReason::as_str) {
            drop(metrics.batches_declared.get_or_create(&Reason { reason }));
            drop(metrics.points_declared.get_or_create(&Reason { reason }));
        }
        metrics
    }

    /// What an earlier life left here.
    pub fn found(&self, batches: u64, points: u64) {
        self.batches_found.inc_by(batches);
        self.points_found.inc_by(points);
    }

    /// Handles that nobody scrapes.
    #[must_use]
    pub fn for_tests() -> Self {
        Self::default()
    }

    fn register_inputs(&self, registry: &mut Registry) {
        let r = registry;
        r.register("inputs_failed", "Reads of an input that failed", self.inputs_failed.clone());
        r.register(
            "inputs_late",
            "Reads of an input that missed their deadline",
            self.inputs_late.clone(),
        );
        r.register("statsd_lines", "StatsD lines taken", self.statsd_lines.clone());
        r.register(
            "statsd_malformed",
            "StatsD lines that could not be read",
            self.statsd_malformed.clone(),
        );
        r.register(
            "statsd_ignored",
            "DogStatsD events and service checks, which are not metrics",
            self.statsd_ignored.clone(),
        );
        r.register(
            "statsd_series_dropped",
            "New StatsD series over statsd.series_max",
            self.statsd_series_dropped.clone(),
        );
        r.register(
            "statsd_lines_dropped",
            "StatsD lines of series over statsd.series_max",
            self.statsd_lines_dropped.clone(),
        );
    }

    fn register_batches(&self, registry: &mut Registry) {
        let r = registry;
        r.register("batches_emitted", "Batches given a seq", self.batches_emitted.clone());
        r.register("points_emitted", "Points in batches given a seq", self.points_emitted.clone());
        r.register(
            "batches_found",
            "Batches of an earlier life, found in the spool or in quarantine",
            self.batches_found.clone(),
        );
        r.register("points_found", "Points of those", self.points_found.clone());
        r.register(
            "windows_late",
            "Windows cut later than they should have been (the host slept or was overloaded)",
            self.windows_late.clone(),
        );
        r.register(
            "points_dropped",
            "Points that no batch could take",
            self.points_dropped.clone(),
        );
        r.register("epochs", "Epochs begun", self.epochs.clone());
        r.register(
            "state_errors",
            "Writes to the state directory that failed",
            self.state_errors.clone(),
        );
        r.register("batches_declared", "Batches given up", self.batches_declared.clone());
        r.register("points_declared", "Points given up", self.points_declared.clone());
    }

    fn register_delivery(&self, registry: &mut Registry) {
        let r = registry;
        r.register("batches_acked", "Batches that ingest-api took", self.batches_acked.clone());
        r.register("points_acked", "Points that ingest-api took", self.points_acked.clone());
        r.register("batches_parked", "Batches that S3 took", self.batches_parked.clone());
        r.register("points_parked", "Points that S3 took", self.points_parked.clone());
        r.register(
            "batches_warmed",
            "Batches sent to S3 as well, to keep the way warm",
            self.batches_warmed.clone(),
        );
        r.register(
            "batches_quarantined",
            "Batches whose content was refused",
            self.batches_quarantined.clone(),
        );
        r.register("points_quarantined", "Points of those", self.points_quarantined.clone());
        r.register(
            "quarantine_batches",
            "Refused batches that wait for one more try",
            self.quarantine_batches.clone(),
        );
        r.register("quarantine_points", "Points of those", self.quarantine_points.clone());
        r.register("batches_in_flight", "Batches being sent", self.batches_in_flight.clone());
        r.register("points_in_flight", "Points being sent", self.points_in_flight.clone());
        r.register("spool_batches", "Batches in the spool", self.spool_batches.clone());
        r.register("spool_points", "Points in the spool", self.spool_points.clone());
        r.register("spool_bytes", "Bytes the spool takes", self.spool_bytes.clone());
        r.register("spool_bytes_max", "Bytes it may take", self.spool_bytes_max.clone());
        r.register(
            "spool_backlog_batches",
            "Batches in the spool's backlog lane",
            self.spool_backlog_batches.clone(),
        );
        r.register("spool_errors", "Failed file operations", self.spool_errors.clone());
        r.register(
            "spool_damaged_records",
            "Records that were damaged on disk",
            self.spool_damaged_records.clone(),
        );
        r.register(
            "spool_late_batches",
            "Batches that the start could not read and that were read, or found damaged, later",
            self.spool_late_batches.clone(),
        );
        r.register(
            "oldest_in_spool_seconds",
            "Age of the oldest batch in the spool",
            self.oldest_in_spool_seconds.clone(),
        );
        r.register("route", "0 direct, 1 park, 2 probe", self.route.clone());
        r.register("requests", "Requests by target and outcome", self.requests.clone());
        r.register("bytes_sent", "Bytes of bodies sent", self.bytes_sent.clone());
        r.register(
            "clock_skew_ms",
            "This clock minus the server's, in ms",
            self.clock_skew_ms.clone(),
        );
    }
}
