//! How programs reach Kafka, and how the producer is bounded: the `[kafka]` section that every
//! program with a Kafka client has.

use std::path::PathBuf;

use rdkafka::ClientConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spillway_proto::limits::{
    DEAD_LETTER_BYTES_MAX, KAFKA_MESSAGE_BYTES_MAX, PARTITION_GROUP_DEFAULT, PARTITIONS_DEFAULT,
};
use spillway_proto::partition::Partitioning;
use spillway_runtime::settings::{Dur, Problem, Secret, SecretFileError, Size};

/// Kafka: where it is, and what the producer may hold.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSettings {
    /// Addresses of some brokers, `host:port`; the others are learned from them.
    pub brokers: Vec<String>,
    /// The name under which the brokers' logs and quotas know this program.
    pub client_id: String,
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`; the `ssl` ones need a build with the
    /// feature `kafka-tls`.
    pub security_protocol: String,
    /// The SASL mechanism, as librdkafka spells it (`PLAIN`, `SCRAM-SHA-512`).
    pub sasl_mechanism: Option<String>,
    /// The SASL user.
    pub sasl_username: Option<String>,
    /// The SASL password.
    pub sasl_password: Secret,
    /// A file that holds the SASL password.
    pub sasl_password_file: Option<PathBuf>,
    /// The producer's bounds and times.
    pub producer: ProducerSettings,
    /// Further librdkafka properties, each `name=value`. What Spillway's promises rest on can't
    /// be set here.
    pub options: Vec<String>,
}

/// How the topics are cut, fixed for life at `spillway topics create`: the `[topics]` section of
/// every program that publishes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TopicsSettings {
    /// Partitions of each topic.
    pub partitions: u16,
    /// Partitions of one group; an environment's hosts spread over one group.
    pub group: u16,
}

impl Default for TopicsSettings {
    fn default() -> Self {
        Self { partitions: PARTITIONS_DEFAULT, group: PARTITION_GROUP_DEFAULT }
    }
}

impl TopicsSettings {
    /// `None` when the numbers make no partitioning; [`TopicsSettings::validate`] says so.
    #[must_use]
    pub fn partitioning(&self) -> Option<Partitioning> {
        Partitioning::new(self.partitions, self.group)
    }

    /// What is wrong with the section.
    #[must_use]
    pub fn validate(&self, section: &str) -> Option<Problem> {
        let message = "group must divide partitions, and partitions must be 1..=4096";
        self.partitioning().is_none().then(|| Problem::new(section, message))
    }
}

/// What the producer may hold, and for how long.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProducerSettings {
    /// How long a record waits for company before it is sent.
    pub linger: Dur,
    /// How long a record is tried before its outcome is called unknown. Much longer than the
    /// HTTP deadline, so that a sender's retry finds its first attempt still on the way.
    pub message_timeout: Dur,
    /// Bytes in the producer's queue and in flight.
    pub queue_bytes_max: Size,
    /// Records in the producer's queue and in flight.
    pub queue_records_max: u32,
    /// Records that go to one partition in one request together have at most these bytes.
    pub batch_bytes_max: Size,
    /// How often librdkafka's statistics become metrics.
    pub statistics_interval: Dur,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: vec!["127.0.0.1:9092".to_owned()],
            client_id: "spillway".to_owned(),
            security_protocol: "plaintext".to_owned(),
            sasl_mechanism: None,
            sasl_username: None,
            sasl_password: Secret::default(),
            sasl_password_file: None,
            producer: ProducerSettings::default(),
            options: Vec::new(),
        }
    }
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self {
            linger: Dur::from_millis(5),
            message_timeout: Dur::from_secs(120),
            queue_bytes_max: Size::mib(128),
            queue_records_max: 50_000,
            batch_bytes_max: Size::bytes(1_000_000),
            statistics_interval: Dur::from_secs(5),
        }
    }
}

const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];

/// Properties that Spillway's promises rest on, or that have a setting of their own.
const RESERVED: [&str; 22] = [
    "acks",
    "auto.offset.reset",
    "batch.size",
    "bootstrap.servers",
    "client.id",
    "compression.type",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "group.id",
    "group.instance.id",
    "linger.ms",
    "message.max.bytes",
    "message.timeout.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "request.required.acks",
    "sasl.password",
    "statistics.interval.ms",
    "transactional.id",
];

impl KafkaSettings {
    /// What is wrong, with `section` (usually `kafka`) before each path.
    #[must_use]
    pub fn validate(&self, section: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |field: &str, message: &str| {
            problems.push(Problem::new(format!("{section}.{field}"), message));
        };
        if self.brokers.is_empty() || self.brokers.iter().any(|address| !is_address(address)) {
            wrong("brokers", "must be a list of host:port, with at least one entry");
        }
        if !PROTOCOLS.contains(&self.security_protocol.as_str()) {
            wrong("security_protocol", "must be plaintext, ssl, sasl_plaintext or sasl_ssl");
        } else if self.security_protocol.ends_with("ssl") && !cfg!(feature = "kafka-tls") {
            wrong("security_protocol", "this build has no TLS for Kafka: build with kafka-tls");
        }
        for option in &self.options {
            match option.split_once('=') {
                None => wrong("options", "each entry must be name=value"),
                Some((name, _)) if RESERVED.contains(&name.trim()) => {
                    wrong("options", &format!("{} can't be set here", name.trim()));
                }
                Some(_) => {}
            }
        }
        self.producer.validate(&mut |field, message| wrong(&format!("producer.{field}"), message));
        problems
    }

    /// What every Kafka client of a program shares: a consumer or an admin client adds its own.
    ///
    /// # Errors
    /// When the password's file can't be read.
    pub fn client_config(&self) -> Result<ClientConfig, SecretFileError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.brokers.join(","))
            .set("client.id", &self.client_id)
            .set("security.protocol", &self.security_protocol)
            .set("socket.keepalive.enable", "true")
            // The defaults (100 ms to 10 s) leave a healed broker unused for up to ten seconds.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("allow.auto.create.topics", "false");
        let given =
            [("sasl.mechanism", &self.sasl_mechanism), ("sasl.username", &self.sasl_username)];
        for (name, value) in given {
            if let Some(value) = value {
                config.set(name, value);
            }
        }
        let password = self.sasl_password.resolve(self.sasl_password_file.as_deref())?;
        if password.is_set() {
            config.set("sasl.password", password.reveal());
        }
        for (name, value) in self.options.iter().filter_map(|option| option.split_once('=')) {
            config.set(name.trim(), value.trim());
        }
        Ok(config)
    }

    /// [`Self::client_config`] with all that a producer's acknowledgement rests on.
    ///
    /// # Errors
    /// When the password's file can't be read.
    pub fn producer_config(&self) -> Result<ClientConfig, SecretFileError> {
        let producer = &self.producer;
        let millis = |duration: Dur| duration.get().as_millis().to_string();
        let mut config = self.client_config()?;
        config
            // All in-sync replicas, no reordering, no repetition by the client's own retries.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Frames are zstd already.
            .set("compression.type", "none")
            .set("linger.ms", millis(producer.linger))
            .set("batch.size", producer.batch_bytes_max.get().to_string())
            .set("message.timeout.ms", millis(producer.message_timeout))
            // Each topic's own limit is the broker's to hold.
            .set("message.max.bytes", DEAD_LETTER_BYTES_MAX.to_string())
            .set("queue.buffering.max.kbytes", (producer.queue_bytes_max.get() / 1024).to_string())
            .set("queue.buffering.max.messages", producer.queue_records_max.to_string())
            .set("statistics.interval.ms", millis(producer.statistics_interval));
        #[cfg(feature = "mutants")]
        if self.options.iter().any(|option| option == "acks=1") {
            config.set("enable.idempotence", "false").set("acks", "1");
        }
        Ok(config)
    }
}

impl ProducerSettings {
    fn validate(&self, wrong: &mut dyn FnMut(&str, &str)) {
        let millis = |duration: Dur| duration.get().as_millis();
        if millis(self.linger) > 1_000 {
            wrong("linger", "must be at most 1s: senders wait for it");
        }
        if !(10_000..=900_000).contains(&millis(self.message_timeout)) {
            wrong("message_timeout", "must be between 10s and 15m");
        }
        if self.queue_bytes_max < Size::mib(2) || self.queue_bytes_max > Size::gib(2) {
            wrong("queue_bytes_max", "must be between 2 MiB and 2 GiB");
        }
        if !(100..=10_000_000).contains(&self.queue_records_max) {
            wrong("queue_records_max", "must be between 100 and 10000000");
        }
        let batch_bytes = self.batch_bytes_max.get();
        if !(1_024..=KAFKA_MESSAGE_BYTES_MAX as u64).contains(&batch_bytes) {
            wrong(
                "batch_bytes_max",
                "must be between 1 KiB and Kafka's message.max.bytes (1048588)",
            );
        }
        if !(100..=60_000).contains(&millis(self.statistics_interval)) {
            wrong("statistics_interval", "must be between 100ms and 1m");
        }
    }
}

fn is_address(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_wait_for_all_replicas() {
        let settings = KafkaSettings::default();
        assert!(settings.validate("kafka").is_empty());
        let config = settings.producer_config().unwrap();
        assert_eq!(config.get("acks"), Some("all"));
        assert_eq!(config.get("enable.idempotence"), Some("true"));
        assert_eq!(config.get("message.timeout.ms"), Some("120000"));
    }

    #[test]
    fn what_the_promise_rests_on_can_not_be_overridden() {
        for name in RESERVED {
            let settings =
                KafkaSettings { options: vec![format!("{name}=1")], ..KafkaSettings::default() };
            assert_eq!(settings.validate("kafka").len(), 1, "{name}");
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let settings = KafkaSettings {
            brokers: vec!["nowhere".to_owned()],
            security_protocol: "tls".to_owned(),
            options: vec!["x".to_owned()],
            producer: ProducerSettings { linger: Dur::from_secs(2), ..Default::default() },
            ..KafkaSettings::default()
        };
        assert_eq!(settings.validate("kafka").len(), 4);
    }
}
