//! What ingest-api says of itself; names begin with `spillway_ingest_`.
//!
//! Conservation, in batches and in points ([`crate::books`]): received = accepted + rejected + not
//! taken + in flight. Accepted is what senders were told is in Kafka, a repetition that joined
//! included; the publisher's `records_published` counts records in Kafka.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::books::Books;

/// Upper bounds in seconds, around the usual few milliseconds and the deadline of 3 s.
const REQUEST_BUCKETS_S: [f64; 11] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.5, 10.0];

/// Handles, cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub books: Books,
    pub texts_left_out: Counter,
    requests: Family<Request, Counter>,
    pub request_seconds: Histogram,
    pub body_bytes: Counter,
    problems: Family<Reason, Counter>,
    pub in_flight_bytes: Gauge,
    pub admission_limit_bytes: Gauge,
    pub admission_waiting: Gauge,
    pub connections: Gauge,
    connections_refused: Family<Reason, Counter>,
    pub connections_shed: Counter,
    pub connections_malformed: Counter,
    pub certificate_expires: Gauge,
    pub panics: Counter,
}

/// Why, from a fixed list of words.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    pub reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    route: &'static str,
    status: u16,
}

impl Metrics {
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            books: Books::default(),
            texts_left_out: Counter::default(),
            requests: Family::default(),
            request_seconds: Histogram::new(REQUEST_BUCKETS_S),
            body_bytes: Counter::default(),
            problems: Family::default(),
            in_flight_bytes: Gauge::default(),
            admission_limit_bytes: Gauge::default(),
            admission_waiting: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
            connections_shed: Counter::default(),
            connections_malformed: Counter::default(),
            certificate_expires: Gauge::default(),
            panics: Counter::default(),
        };
        metrics.enter(registry);
        metrics
    }

    fn enter(&self, to: &mut Registry) {
        self.books.register(to);
        to.register(
            "texts_left_out",
            "Text fields of line protocol, which are no points",
            self.texts_left_out.clone(),
        );
        to.register("requests", "Answered requests", self.requests.clone());
        to.register(
            "request_seconds",
            "From a request's head to its answer",
            self.request_seconds.clone(),
        );
        to.register("body_bytes", "Bytes of request bodies", self.body_bytes.clone());
        to.register("problems", "Requests that were not taken, by reason", self.problems.clone());
        to.register("in_flight_bytes", "Bytes of requests in work", self.in_flight_bytes.clone());
        to.register(
            "admission_limit_bytes",
            "Bytes of requests that may be in work now",
            self.admission_limit_bytes.clone(),
        );
        to.register(
            "admission_waiting",
            "Requests that wait for room",
            self.admission_waiting.clone(),
        );
        to.register("connections", "Open connections", self.connections.clone());
        to.register(
            "connections_refused",
            "Connections closed as they came, by the bound that they met",
            self.connections_refused.clone(),
        );
        to.register(
            "connections_shed",
            "Connections that had shown no token and made room for another",
            self.connections_shed.clone(),
        );
        to.register(
            "connections_malformed",
            "Connections ended because what came was no HTTP/1.1 request",
            self.connections_malformed.clone(),
        );
        to.register(
            "certificate_expires_timestamp_seconds",
            "When the certificate in force expires, in seconds since the Unix epoch; 0 without TLS",
            self.certificate_expires.clone(),
        );
        to.register("panics", "Requests whose handler panicked", self.panics.clone());
    }

    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&Reason { reason }).inc();
    }

    pub fn problem(&self, reason: &'static str) {
        self.problems.get_or_create(&Reason { reason }).inc();
    }

    pub fn answered(&self, route: &'static str, status: u16) {
        self.requests.get_or_create(&Request { route, status }).inc();
    }
}
