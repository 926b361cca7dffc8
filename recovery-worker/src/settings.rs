//! What an operator may choose for the recovery worker, and what makes no sense together.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spillway_proto::limits::SEALED_OBJECT_BYTES_MAX;
use spillway_publisher::{KafkaSettings, TopicsSettings};
use spillway_runtime::settings::{
    AdminSettings, Dur, LogSettings, Problem, Process, Secret, Settings, ShutdownSettings, Size,
};

/// The admin port unless told otherwise.
const ADMIN_PORT: u16 = 8483;
/// Where this machine's name stands on Linux.
const HOSTNAME_FILE: &str = "/proc/sys/kernel/hostname";
/// More requests to S3 at once than one worker has use for.
const OBJECTS_IN_FLIGHT_MAX: u32 = 1_024;

/// Settings of the recovery worker.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecoverySettings {
    /// The bucket that agents park in.
    pub s3: S3Settings,
    /// What opens objects and tells whose they are.
    pub unseal: UnsealSettings,
    /// How fast and how carefully the bucket is drained.
    pub drain: DrainSettings,
    /// Where batches go.
    pub kafka: KafkaSettings,
    /// How the topics are cut; must be what `spillway topics create` was told.
    pub topics: TopicsSettings,
    /// Health and metrics.
    pub admin: AdminSettings,
    /// Where to log what.
    pub log: LogSettings,
    /// How it stops.
    pub shutdown: ShutdownSettings,
}

/// The bucket that agents park in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct S3Settings {
    /// Address of the S3 service; empty means AWS in `region`.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket's name.
    pub bucket: String,
    /// Id of a key that may list, read, write, copy and delete in this bucket.
    pub access_key: String,
    /// The key's secret.
    pub secret_key: Secret,
    /// A file that holds the key's secret.
    pub secret_key_file: Option<PathBuf>,
    /// Whether the bucket stands in the path and not in the host name; most services beside AWS
    /// want it so.
    pub force_path_style: bool,
    /// `crc32` sends and checks additional checksums; `none` is for services that refuse them.
    pub checksum: Checksum,
    /// Time to connect.
    pub connect_timeout: Dur,
    /// Time for one attempt of a request, its body not counted.
    pub attempt_timeout: Dur,
    /// Time for a whole request with its repetitions and its body.
    pub operation_timeout: Dur,
    /// Attempts of one request; further patience is this program's own.
    pub attempts: u32,
}

/// Additional checksums on requests and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    Crc32,
    None,
}

/// What opens objects and tells whose they are.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UnsealSettings {
    /// A folder of private keys, each a file `<key id>.key` with 64 hex digits. Old keys stay
    /// until no object sealed to them can come any more.
    pub keys_dir: PathBuf,
    /// The operators' `tokens.toml`: a batch goes where its token's environment says.
    pub tokens_file: PathBuf,
    /// An object whose token or key is not known here is judged only when it is this old: the
    /// file that knows it may be on its way.
    pub patience: Dur,
}

/// How fast and how carefully the bucket is drained.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DrainSettings {
    /// How often the bucket is listed.
    pub poll_period: Dur,
    /// This worker's name in claims; empty means the machine's name. Two workers with one name
    /// do each other's work twice, which is harmless but slow.
    pub owner: String,
    /// How long a claim keeps other workers away.
    pub claim_life: Dur,
    /// How long an object stays after Kafka acknowledged all of it, whatever else is known.
    pub hold: Dur,
    /// Objects are read at most this fast, so that live traffic keeps its share.
    pub bytes_per_second: Size,
    /// Objects that are read and published at the same time. Each takes five requests to S3, one
    /// after the other, so this over the time they take is how many objects a second are drained.
    pub objects_in_flight: u32,
    /// Bytes of objects that are read and published at the same time; they are held twice, as
    /// they came and opened.
    pub bytes_in_flight: Size,
    /// Objects that are published and wait until consumers have stored them; at this number no
    /// further ones are read.
    pub objects_awaiting_max: u32,
    /// Draining stops while consumers lag behind the backlog topic by more records than this, and
    /// resumes at half of it.
    pub lag_records_max: u64,
    /// Time for publishing all of one object.
    pub publish_timeout: Dur,
    /// Time for asking Kafka how far consumers have come.
    pub progress_timeout: Dur,
}

impl Default for RecoverySettings {
    fn default() -> Self {
        Self {
            s3: S3Settings::default(),
            unseal: UnsealSettings::default(),
            drain: DrainSettings::default(),
            kafka: KafkaSettings {
                client_id: "spillway-recovery-worker".to_owned(),
                ..KafkaSettings::default()
            },
            topics: TopicsSettings::default(),
            admin: AdminSettings::on_port(ADMIN_PORT),
            log: LogSettings::default(),
            shutdown: ShutdownSettings::default(),
        }
    }
}

impl Default for S3Settings {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            region: "us-east-1".to_owned(),
            bucket: "spillway".to_owned(),
            access_key: String::new(),
            secret_key: Secret::default(),
            secret_key_file: None,
            force_path_style: true,
            checksum: Checksum::Crc32,
            connect_timeout: Dur::from_secs(2),
            attempt_timeout: Dur::from_secs(10),
            operation_timeout: Dur::from_secs(30),
            attempts: 2,
        }
    }
}

impl Default for UnsealSettings {
    fn default() -> Self {
        Self {
            keys_dir: PathBuf::from("/etc/spillway/keys"),
            tokens_file: PathBuf::from("/etc/spillway/tokens.toml"),
            patience: Dur::from_secs(60),
        }
    }
}

impl Default for DrainSettings {
    fn default() -> Self {
        Self {
            poll_period: Dur::from_secs(5),
            owner: String::new(),
            claim_life: Dur::from_mins(5),
            hold: Dur::from_secs(60),
            bytes_per_second: Size::mib(16),
            objects_in_flight: 64,
            bytes_in_flight: Size::mib(64),
            objects_awaiting_max: 10_000,
            lag_records_max: 20_000,
            publish_timeout: Dur::from_secs(60),
            progress_timeout: Dur::from_secs(10),
        }
    }
}

impl Settings for RecoverySettings {
    const PROGRAM: &'static str = "recovery-worker";
    const ABOUT: &'static str = "Drains what agents parked in S3 into Kafka, below live traffic";

    fn process(&self) -> Process<'_> {
        Process { log: &self.log, admin: &self.admin, shutdown: &self.shutdown }
    }

    fn validate(&self) -> Vec<Problem> {
        let mut problems = self.kafka.validate("kafka");
        self.s3.validate(&mut problems);
        self.drain.validate(&mut problems);
        problems.extend(self.topics.validate("topics"));
        problems
    }
}

impl S3Settings {
    fn validate(&self, problems: &mut Vec<Problem>) {
        let mut wrong = |field: &str, message: &str| {
            problems.push(Problem::new(format!("s3.{field}"), message));
        };
        let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
        if !self.endpoint.is_empty() && !is_url(&self.endpoint) {
            wrong("endpoint", "must start with http:// or https://, or be empty for AWS");
        }
        if self.bucket.is_empty() {
            wrong("bucket", "must be set");
        }
        if self.access_key.is_empty() {
            wrong("access_key", "must be set: a key that may list, read, write and delete");
        }
        if !self.secret_key.is_set() && self.secret_key_file.is_none() {
            wrong("secret_key_file", "must be set (or secret_key)");
        }
        if !(1..=3).contains(&self.attempts) {
            wrong("attempts", "must be 1, 2 or 3: the worker comes back by itself");
        }
        if self.attempt_timeout > self.operation_timeout {
            wrong("attempt_timeout", "must not be longer than operation_timeout");
        }
    }
}

impl DrainSettings {
    fn validate(&self, problems: &mut Vec<Problem>) {
        let mut wrong = |field: &str, message: &str| {
            problems.push(Problem::new(format!("drain.{field}"), message));
        };
        if !(Dur::from_millis(100)..=Dur::from_mins(10)).contains(&self.poll_period) {
            wrong("poll_period", "must be between 100ms and 10m");
        }
        if self.claim_life < Dur::from_secs(10) {
            wrong("claim_life", "must be at least 10s");
        }
        if self.claim_life.get() < self.publish_timeout.get() {
            wrong("claim_life", "must not be shorter than publish_timeout");
        }
        if self.hold > Dur::from_hours(24) {
            wrong("hold", "must be at most 24h");
        }
        if self.bytes_per_second < Size::kib(64) {
            wrong("bytes_per_second", "must be at least 64 KiB");
        }
        if !(1..=OBJECTS_IN_FLIGHT_MAX).contains(&self.objects_in_flight) {
            wrong("objects_in_flight", "must be between 1 and 1024");
        }
        if self.bytes_in_flight.get() < SEALED_OBJECT_BYTES_MAX as u64 {
            wrong("bytes_in_flight", "must be at least 16 MiB, the largest object");
        }
        if self.objects_awaiting_max == 0 {
            wrong("objects_awaiting_max", "must be at least 1");
        }
        if self.lag_records_max == 0 {
            wrong("lag_records_max", "must be at least 1");
        }
    }

    /// The name under which this worker claims objects.
    #[must_use]
    pub fn owner_or_hostname(&self) -> String {
        if !self.owner.is_empty() {
            return self.owner.clone();
        }
        let name = std::fs::read_to_string(HOSTNAME_FILE).unwrap_or_default();
        if name.trim().is_empty() { "recovery-worker".to_owned() } else { name.trim().to_owned() }
    }
}

/// Where a test wants this program to die.
#[cfg(feature = "failpoints")]
#[must_use]
pub fn failpoint() -> Option<String> {
    std::env::var("SPILLWAY_FAILPOINT").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_told_at_once() {
        let settings = RecoverySettings {
            s3: S3Settings { endpoint: "ftp://x".to_owned(), attempts: 9, ..S3Settings::default() },
            drain: DrainSettings { objects_in_flight: 0, ..DrainSettings::default() },
            topics: TopicsSettings { partitions: 64, group: 5 },
            ..RecoverySettings::default()
        };
        let paths: Vec<String> = settings.validate().into_iter().map(|p| p.path).collect();
        assert_eq!(
            paths,
            [
                "s3.endpoint",
                "s3.access_key",
                "s3.secret_key_file",
                "s3.attempts",
                "drain.objects_in_flight",
                "topics"
            ]
        );
    }

    #[test]
    fn defaults_lack_nothing_but_the_credential() {
        let paths: Vec<String> =
            RecoverySettings::default().validate().into_iter().map(|p| p.path).collect();
        assert_eq!(paths, ["s3.access_key", "s3.secret_key_file"]);
    }
}
