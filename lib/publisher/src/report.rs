//! librdkafka's side: delivery reports, statistics, errors and log lines, on its polling thread.
//!
//! It must stay quick and free of waiting: every record's report passes here.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Message, Statistics};
use spillway_proto::frame::points_claimed;
use tokio::time::Instant;

use crate::in_flight::{Delivery, InFlight};
use crate::log_gate::LogGate;
use crate::metrics::Metrics;
use crate::outcome;

/// What every producer of one publisher reports to, over rebuilds.
#[derive(Debug)]
pub(crate) struct Reports {
    pub in_flight: InFlight,
    pub metrics: Metrics,
    pub batch_bytes_max: usize,
    logs: LogGate,
    errors: LogGate,
    failures: LogGate,
}

impl Reports {
    pub fn new(metrics: Metrics, batch_bytes_max: usize) -> Self {
        Self {
            in_flight: InFlight::default(),
            metrics,
            batch_bytes_max,
            logs: LogGate::default(),
            errors: LogGate::default(),
            failures: LogGate::default(),
        }
    }
}

/// The number of a producer within its publisher; a rebuild raises it.
pub(crate) type Generation = u64;

/// One producer's context.
pub(crate) struct Context {
    pub reports: Arc<Reports>,
    pub generation: Generation,
    /// Says that the producer of this generation is beyond repair. A full channel has said so.
    pub fatal: SyncSender<Generation>,
}

impl Context {
    pub fn fatal(&self) {
        if self.fatal.try_send(self.generation).is_err() {
            tracing::debug!("a rebuild is on its way");
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Delivery>;

    fn delivery(&self, report: &DeliveryResult<'_>, delivery: Arc<Delivery>) {
        let reports = &self.reports;
        let (topic, bytes) = (delivery.topic, delivery.bytes);
        let outcome = outcome::of_report(report, topic, bytes, reports.batch_bytes_max);
        let now = Instant::now();
        let payload = report.as_ref().ok().and_then(Message::payload);
        let points = payload.map_or(0, points_claimed);
        let after = now.saturating_duration_since(delivery.queued_at);
        reports.metrics.landed(outcome, points, after);
        if let Err((error, _)) = report
            && !outcome.is_done()
            && let Some(held_back) = reports.failures.pass()
        {
            tracing::warn!(topic, %error, ?outcome, held_back, "a record was not acknowledged");
        }
        reports.in_flight.land(&delivery, outcome, now);
    }
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let metrics = &self.reports.metrics;
        metrics.queue_records.set(statistics.msg_cnt.try_into().unwrap_or(i64::MAX));
        metrics.queue_bytes.set(statistics.msg_size.try_into().unwrap_or(i64::MAX));
        let (up, down) = brokers(&statistics);
        metrics.brokers_up.set(up);
        metrics.brokers_down.set(down);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::Fatal)) {
            self.fatal();
        }
        if let Some(held_back) = self.reports.errors.pass() {
            tracing::error!(%error, reason, held_back, "Kafka client");
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(&self.reports.logs, level, facility, line);
    }
}

/// A client's log line, unless it is one of a flood.
pub(crate) fn log(gate: &LogGate, level: RDKafkaLogLevel, facility: &str, line: &str) {
    if matches!(level, RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info) {
        tracing::debug!(target: "librdkafka", facility, "{line}");
    } else if let Some(held_back) = gate.pass() {
        tracing::warn!(target: "librdkafka", facility, held_back, "{line}");
    }
}

/// Brokers with and without a connection. Once the cluster has said who its brokers are, the
/// addresses that were configured no longer count beside them.
fn brokers(statistics: &Statistics) -> (i64, i64) {
    let learned = statistics.brokers.values().any(|broker| broker.nodeid >= 0);
    let (mut up, mut down) = (0, 0);
    for broker in statistics.brokers.values() {
        let counts = if learned { broker.nodeid >= 0 } else { broker.source == "configured" };
        match broker.state.as_str() {
            _ if !counts => {}
            "UP" | "UPDATE" => up += 1,
            // Connections are made when they are needed: this one was not yet.
            "INIT" => {}
            _ => down += 1,
        }
    }
    (up, down)
}
