//! A broker that a simulation decides over: it stands where librdkafka stands, below everything
//! that this crate promises (joining, outcomes, withdrawal), which runs as it is.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

use prometheus_client::registry::Registry;
use rdkafka::ClientConfig;
use rdkafka::types::RDKafkaErrorCode;
use tokio::time::Instant;

use crate::in_flight::{Delivery, InFlight, Pending};
use crate::metrics::Metrics;
use crate::outcome::{self, Place};
use crate::publisher::{Inner, Publisher};
use crate::record::{PublishError, Record};
use crate::report::Reports;
use crate::settings::KafkaSettings;

/// What a producer hands its records to.
pub trait Broker: Send + Sync + 'static {
    /// Takes a record into the queue, or refuses it on the spot. The report may be given at any
    /// later time, or never.
    ///
    /// # Errors
    /// What librdkafka's `produce` would say.
    fn produce(&self, record: &Record, report: Report) -> Result<(), RDKafkaErrorCode>;
}

/// A delivery report to be given.
pub struct Report {
    reports: Arc<Reports>,
    delivery: Arc<Delivery>,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report").field("delivery", &self.delivery).finish_non_exhaustive()
    }
}

impl Report {
    /// All in-sync replicas have it. Without an offset: Kafka recognised a repetition.
    pub fn stored(self, partition: u16, offset: Option<i64>) {
        let repeated = offset.is_none().then_some(RDKafkaErrorCode::DuplicateSequenceNumber);
        let place = Place { partition: i32::from(partition), offset: offset.unwrap_or(-1) };
        self.land(repeated, place);
    }

    /// The report of a failure, whatever became of the record.
    pub fn failed(self, code: RDKafkaErrorCode) {
        self.land(Some(code), Place { partition: -1, offset: -1 });
    }

    fn land(self, code: Option<RDKafkaErrorCode>, place: Place) {
        let (topic, bytes) = (self.delivery.topic, self.delivery.bytes);
        let most = self.reports.batch_bytes_max;
        let outcome = outcome::of_code(code, topic, place, (bytes, most));
        self.reports.in_flight.land(&self.delivery, outcome, Instant::now());
    }
}

impl Publisher {
    /// A publisher whose records go to `broker`.
    #[must_use]
    pub fn simulated(broker: Arc<dyn Broker>, registry: &mut Registry) -> Self {
        let settings = KafkaSettings::default();
        let batch_bytes_max = settings.producer.batch_bytes_max.as_usize();
        let inner = Inner {
            reports: Arc::new(Reports::new(Metrics::register(registry), batch_bytes_max)),
            settings,
            config: ClientConfig::new(),
            producer: RwLock::new(None),
            closed: AtomicBool::new(false),
            broker: Some(broker),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    pub(crate) fn send_simulated(
        &self,
        broker: &dyn Broker,
        record: Record,
        delivery: Arc<Delivery>,
    ) -> Result<Pending, PublishError> {
        let report = Report { reports: Arc::clone(&self.reports), delivery: Arc::clone(&delivery) };
        match broker.produce(&record, report) {
            Ok(()) => Ok(InFlight::pending(delivery)),
            Err(code) => {
                self.reports.in_flight.withdraw(&delivery, Instant::now());
                Err(self.refusal(code, record))
            }
        }
    }
}
