//! `[deliver]` and `[spill]`: the two ways out.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spillway_runtime::settings::{Dur, Secret, Size};

/// The way to ingest-api.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeliverSettings {
    /// Base URLs of ingest-api (`https://ingest.example.com`). The first that works is used.
    pub endpoints: Vec<String>,
    /// A PEM file with the certificate authorities to trust. Empty: the system's.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with this agent's own certificate, where ingest-api asks senders for one.
    pub client_certificate_file: Option<PathBuf>,
    /// A PEM file with its key.
    pub client_key_file: Option<PathBuf>,
    /// An HTTP proxy (`http://proxy:3128`) for the way to ingest-api. Empty: none.
    pub proxy: Option<String>,
    /// How long a connection may take, TLS included.
    pub connect_timeout: Dur,
    /// How long one request may take. ingest-api answers within about 3 s whatever happens.
    pub request_timeout: Dur,
    /// Bytes of frames in one request.
    pub request_bytes_max: Size,
    /// Live requests under way at once.
    pub live_in_flight: u32,
    /// Batches a second of backlog, so that catching up never displaces live data.
    pub backlog_rate: f64,
    /// A batch counts as backlog once it has waited this long.
    pub backlog_after: Dur,
    /// The API must have failed this long before batches go to S3.
    pub park_after: Dur,
    /// …or the spool must be this full (0 to 1).
    pub park_fill: f64,
    /// While parking: the time between attempts to reach the API, at first (it doubles).
    pub probe_interval: Dur,
    /// While parking: the longest time between attempts to reach the API.
    pub probe_interval_max: Dur,
    /// The first pause after a failed request (jittered, doubling).
    pub retry_min: Dur,
    /// The longest pause after a failed request, unless the server asks for a longer one.
    pub retry_max: Dur,
    /// How often one real batch goes over S3 as well, so that the way is known to work before
    /// it is needed.
    pub warm_every: Dur,
    /// When the token is refused (401, 403), at most this much is parked; then the spool holds.
    pub auth_park_bytes_max: Size,
    /// A batch whose content was refused is tried once more after this time, then declared.
    pub quarantine_retry: Dur,
}

impl Default for DeliverSettings {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:8480".to_owned()],
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            proxy: None,
            connect_timeout: Dur::from_secs(3),
            request_timeout: Dur::from_secs(10),
            request_bytes_max: Size::mib(1),
            live_in_flight: 2,
            backlog_rate: 20.0,
            backlog_after: Dur::from_secs(30),
            park_after: Dur::from_secs(60),
            park_fill: 0.5,
            probe_interval: Dur::from_secs(5),
            probe_interval_max: Dur::from_secs(60),
            retry_min: Dur::from_millis(500),
            retry_max: Dur::from_secs(30),
            warm_every: Dur::from_hours(6),
            auth_park_bytes_max: Size::mib(64),
            quarantine_retry: Dur::from_hours(1),
        }
    }
}

/// The way to S3. It shares nothing with the way to ingest-api.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpillSettings {
    /// Whether batches may go to S3 at all.
    pub enabled: bool,
    /// Base URL of the S3 service (path style).
    pub endpoint: String,
    /// The bucket. Objects go under `spill/`, whatever the agent measures.
    pub bucket: String,
    /// Region for the signature.
    pub region: String,
    /// A key that may PUT under `spill/` and nothing else.
    pub access_key: String,
    /// Its secret. Better kept in `secret_key_file`.
    pub secret_key: Secret,
    /// A file holding the secret key.
    pub secret_key_file: Option<PathBuf>,
    /// PUT without a signature, where the bucket allows it.
    pub unsigned: bool,
    /// The recovery worker's public key (64 hex digits): only it can open what is parked.
    pub public_key: String,
    /// The name of that key, so that keys can be changed one after the other.
    pub key_id: String,
    /// A PEM file with the certificate authorities to trust. Empty: the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a connection may take, TLS included.
    pub connect_timeout: Dur,
    /// How long one PUT may take.
    pub request_timeout: Dur,
    /// Bytes of frames in one object.
    pub object_bytes_max: Size,
}

impl Default for SpillSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            endpoint: String::new(),
            bucket: "spillway".to_owned(),
            region: "us-east-1".to_owned(),
            access_key: String::new(),
            secret_key: Secret::default(),
            secret_key_file: None,
            unsigned: false,
            public_key: String::new(),
            key_id: String::new(),
            ca_file: None,
            connect_timeout: Dur::from_secs(3),
            request_timeout: Dur::from_secs(30),
            object_bytes_max: Size::mib(1),
        }
    }
}
