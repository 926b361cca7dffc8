//! Settings of ingest-api; nothing else reads its file or its environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spillway_proto::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX};
use spillway_publisher::{KafkaSettings, TopicsSettings};
use spillway_runtime::settings::{
    AdminSettings, Dur, LogSettings, Problem, Process, Settings, ShutdownSettings, Size,
};

/// Settings of ingest-api.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IngestSettings {
    /// Where to log what.
    pub log: LogSettings,
    /// Health and metrics.
    pub admin: AdminSettings,
    /// How it stops.
    pub shutdown: ShutdownSettings,
    /// Where senders connect, and the bounds of a request.
    pub http: HttpSettings,
    /// TLS of the senders' side; off unless both files are named.
    pub tls: TlsSettings,
    /// Who may send.
    pub tokens: TokensSettings,
    /// How much is taken at a time.
    pub admission: AdmissionSettings,
    /// How the topics are cut; must be what `spillway topics create` was told.
    pub topics: TopicsSettings,
    /// Kafka.
    pub kafka: KafkaSettings,
}

/// Where senders connect, and the bounds of a request.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// The address senders connect to.
    pub listen: SocketAddr,
    /// Every request is answered within this time, beside what its body took to arrive.
    pub answer_within: Dur,
    /// The longest body; a longer one is answered 413.
    pub body_bytes_max: Size,
    /// The longest time a body may take to arrive.
    pub body_within: Dur,
    /// What a body must bring per second, after a grace of two seconds.
    pub body_bytes_per_second_min: Size,
    /// How long a new connection may stay silent.
    pub first_byte_within: Dur,
    /// How long a request's head may take, and how long a kept connection may idle.
    pub head_within: Dur,
    /// Open connections. One more makes the one leave that is here longest without having shown a
    /// token; if all have, it is closed at once. Open files must suffice for it: the program
    /// raises its own limit as far as the system lets it.
    pub connections_max: u32,
    /// Open connections of one address (of one /64 of IPv6); further ones are closed at once,
    /// before TLS. Everything behind one NAT is one address.
    pub connections_per_address_max: u32,
    /// TLS handshakes under way; for a further one the one that has lasted longest makes room. One
    /// address gets a quarter of them.
    pub handshakes_max: u32,
    /// Addresses of your load balancers: what comes from there is not bounded per address. The
    /// PROXY protocol and X-Forwarded-For are not read, so limit addresses there instead.
    pub proxies: Vec<IpAddr>,
    /// Requests on one connection, after which it is closed so that senders spread.
    pub connection_requests_max: u32,
    /// The age at which a connection is closed after its request.
    pub connection_age_max: Dur,
    /// How long new connections are still taken after SIGTERM, so that load balancers see
    /// `/readyz` say "draining".
    pub drain_grace: Dur,
    /// Answers remote write that is over its token's limit with 429 instead of 503. Prometheus
    /// drops what is answered 429, unless its `retry_on_http_429` is set.
    pub remote_write_429: bool,
    /// The status page's address, told in error bodies.
    pub status_page: Option<String>,
}

/// TLS of the senders' side.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// PEM file with the certificate and its chain. All three files are looked at every second: a
    /// renewed certificate counts for new connections, without a restart.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the private key.
    pub key_file: Option<PathBuf>,
    /// PEM file with the authority of senders' certificates. With it, whoever has none from there
    /// can't connect; a token is needed all the same.
    pub client_ca_file: Option<PathBuf>,
}

/// Who may send.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokensSettings {
    /// tokens.toml, written by `spillway token`; read again when it changes.
    pub file: PathBuf,
}

/// How much is taken at a time.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionSettings {
    /// admission.toml: `share = 0.25` (agents admitted, by hash of their id) and
    /// `paused = ["environment"]`; read again when it changes. Absent: all are admitted.
    pub file: Option<PathBuf>,
    /// Bytes of requests in work at most, while Kafka acknowledges quickly.
    pub bytes_max: Size,
    /// Bytes of requests in work at least, however slowly Kafka acknowledges.
    pub bytes_min: Size,
    /// Requests that unfold to much, opened at once: so many of our own agents' (16 MiB each at
    /// worst) and so many of foreign senders' (112 MiB each at worst). One environment gets all
    /// but one of them, and never a place for each processor.
    pub large_at_once: u32,
    /// What one environment may hold of `bytes_max`, as a part of 1.
    pub environment_share: f64,
    /// Acknowledgements slower than this shrink what is taken at a time; faster ones let it grow.
    pub ack_target: Dur,
    /// Requests that wait for room; further ones are answered 503 at once.
    pub waiting_max: u32,
    /// How long a request waits for room before it is answered 503.
    pub wait_max: Dur,
}

/// What opening a large request of ours holds: the decoder's buffers.
const OPENED_BYTES_MAX: u64 = 16 << 20;
/// What a foreign body in work holds: 16 MiB of plain bytes, 48 MiB of names and points
/// (`cut::intake`), its frames; JSON is built to 96 MiB and cut from there.
const FOREIGN_BYTES_MAX: u64 = 112 << 20;
/// What a connection holds: its read buffer (`http`), TLS records, the task.
const CONNECTION_BYTES_MAX: u64 = 64 << 10;

/// ingest-api's port of the senders' side.
const HTTP_PORT: u16 = 8480;
/// ingest-api's port for health and metrics.
const ADMIN_PORT: u16 = 8481;

impl Default for IngestSettings {
    fn default() -> Self {
        Self {
            log: LogSettings::default(),
            admin: AdminSettings::on_port(ADMIN_PORT),
            shutdown: ShutdownSettings::default(),
            http: HttpSettings::default(),
            tls: TlsSettings::default(),
            tokens: TokensSettings::default(),
            admission: AdmissionSettings::default(),
            topics: TopicsSettings::default(),
            kafka: KafkaSettings::default(),
        }
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP_PORT)),
            answer_within: Dur::from_secs(3),
            body_bytes_max: Size::bytes(BODY_BYTES_MAX as u64),
            body_within: Dur::from_secs(30),
            body_bytes_per_second_min: Size::kib(16),
            first_byte_within: Dur::from_secs(10),
            head_within: Dur::from_secs(30),
            connections_max: 4_096,
            connections_per_address_max: 1_024,
            handshakes_max: 512,
            proxies: Vec::new(),
            connection_requests_max: 10_000,
            connection_age_max: Dur::from_mins(10),
            drain_grace: Dur::from_millis(500),
            remote_write_429: false,
            status_page: None,
        }
    }
}

impl Default for TokensSettings {
    fn default() -> Self {
        Self { file: PathBuf::from("/etc/spillway/tokens.toml") }
    }
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        Self {
            file: None,
            bytes_max: Size::mib(64),
            bytes_min: Size::mib(16),
            large_at_once: 4,
            environment_share: 0.5,
            ack_target: Dur::from_secs(1),
            waiting_max: 256,
            wait_max: Dur::from_secs(1),
        }
    }
}

impl Settings for IngestSettings {
    const PROGRAM: &'static str = "ingest-api";
    const ABOUT: &'static str = "Takes batches over HTTP and answers 2xx once Kafka has them";

    fn process(&self) -> Process<'_> {
        Process { log: &self.log, admin: &self.admin, shutdown: &self.shutdown }
    }

    fn validate(&self) -> Vec<Problem> {
        let mut problems = self.kafka.validate("kafka");
        problems.extend(self.topics.validate("topics"));
        let mut must = |holds: bool, path: &str, message: &str| {
            if !holds {
                problems.push(Problem::new(path, message));
            }
        };
        self.http.validate(&mut must);
        self.admission.validate(self.http.body_bytes_max, &mut must);
        must(
            self.tls.certificate_file.is_some() == self.tls.key_file.is_some(),
            "tls",
            "certificate_file and key_file go together: name both or neither",
        );
        must(
            self.kafka.producer.message_timeout > self.http.answer_within,
            "kafka.producer.message_timeout",
            "must be longer than http.answer_within, or no retry finds its first attempt",
        );
        problems
    }
}

impl IngestSettings {
    /// What requests and connections may hold of memory at most, as these settings allow it:
    /// bodies, what large ones unfold to, and the buffers of connections. The program itself, with
    /// Kafka's client, comes on top; its queue is bounded by `kafka.producer`.
    #[must_use]
    pub fn memory_bytes_max(&self) -> u64 {
        let large = u64::from(self.admission.large_at_once);
        let connections = u64::from(self.http.connections_max);
        self.admission.bytes_max.get()
            + large * (OPENED_BYTES_MAX + FOREIGN_BYTES_MAX)
            + connections * CONNECTION_BYTES_MAX
    }
}

type Must<'a> = &'a mut dyn FnMut(bool, &str, &str);

impl HttpSettings {
    fn validate(&self, must: Must<'_>) {
        let seconds = |duration: Dur| duration.get().as_secs_f64();
        must(
            (0.5..=60.0).contains(&seconds(self.answer_within)),
            "http.answer_within",
            "must be between 500ms and 1m",
        );
        must(
            (FRAME_BYTES_MAX..=64 << 20).contains(&self.body_bytes_max.as_usize()),
            "http.body_bytes_max",
            "must be between one frame (960 KiB) and 64 MiB",
        );
        for (name, duration) in [
            ("http.body_within", self.body_within),
            ("http.first_byte_within", self.first_byte_within),
            ("http.head_within", self.head_within),
        ] {
            let bounded = (0.1..=600.0).contains(&seconds(duration));
            must(bounded, name, "must be between 100ms and 10m");
        }
        for (name, number) in [
            ("http.connections_max", self.connections_max),
            ("http.connections_per_address_max", self.connections_per_address_max),
            ("http.handshakes_max", self.handshakes_max),
        ] {
            must(number > 0, name, "must be at least 1");
        }
        must(
            self.connection_requests_max > 0,
            "http.connection_requests_max",
            "must be at least 1",
        );
        must(
            seconds(self.connection_age_max) >= 1.0,
            "http.connection_age_max",
            "must be at least 1s",
        );
    }
}

impl AdmissionSettings {
    fn validate(&self, body_bytes_max: Size, must: Must<'_>) {
        must(
            self.bytes_min >= body_bytes_max,
            "admission.bytes_min",
            "must be at least http.body_bytes_max, or the longest body never finds room",
        );
        must(
            self.bytes_max >= self.bytes_min,
            "admission.bytes_max",
            "must be at least admission.bytes_min",
        );
        must(
            self.environment_share > 0.0 && self.environment_share <= 1.0,
            "admission.environment_share",
            "must be above 0 and at most 1",
        );
        must(
            (1..=1_024).contains(&self.large_at_once),
            "admission.large_at_once",
            "must be between 1 and 1024",
        );
        must(self.waiting_max <= 100_000, "admission.waiting_max", "must be at most 100000");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(IngestSettings::default().validate().len(), 0);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let mut settings = IngestSettings::default();
        settings.topics.group = 5;
        settings.tls.key_file = Some(PathBuf::from("key.pem"));
        settings.admission.bytes_min = Size::mib(1);
        settings.http.connections_max = 0;
        assert_eq!(settings.validate().len(), 4);
    }
}
