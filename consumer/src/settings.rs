//! Everything an operator can choose, and the only reader of the process's environment.
//!
//! Bounds and relations are checked here, all problems at once; what is written nowhere else as a
//! limit is a limit here.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spillway_proto::limits::FUTURE_MS_MAX;
use spillway_publisher::KafkaSettings;
use spillway_runtime::mysql::MysqlSettings;
use spillway_runtime::settings::{
    AdminSettings, Dur, LogSettings, Problem, Process, Secret, Settings, ShutdownSettings, Size,
};

/// The admin address's port unless told otherwise.
const ADMIN_PORT: u16 = 8482;

/// Settings of the consumer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConsumerSettings {
    /// The file that says which MySQL server holds which partitions.
    pub shards_file: PathBuf,
    /// Where to log what.
    pub log: LogSettings,
    /// Health and metrics.
    pub admin: AdminSettings,
    /// How it stops.
    pub shutdown: ShutdownSettings,
    /// Brokers, and the producer of dead letters.
    pub kafka: KafkaSettings,
    /// The place in the consumer group.
    pub group: GroupSettings,
    /// How to log in to the shards.
    pub mysql: MysqlSettings,
    /// How much waits in memory between Kafka and MySQL.
    pub intake: IntakeSettings,
    /// How much goes into one transaction.
    pub gather: GatherSettings,
    /// How transactions are made, and what time means.
    pub store: StoreSettings,
    /// What can never be applied.
    pub dead_letters: DeadLetterSettings,
    /// The write buffer for last_seen.
    pub redis: RedisSettings,
}

/// The place in the consumer group.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GroupSettings {
    /// This consumer's own name in the group, one per process: a restart under the same name
    /// within the session's time moves no partitions. Empty: a new member at each start.
    pub instance: String,
    /// After this long without a heartbeat its partitions go to others.
    pub session_timeout: Dur,
    /// What the Kafka client fetches ahead, all partitions together.
    pub fetch_ahead: Size,
    /// How often applied offsets are told to Kafka when there is something new.
    pub commit_interval: Dur,
}

/// How much waits in memory between Kafka and MySQL.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IntakeSettings {
    /// Live frames waiting for one worker. Fetching pauses above it and goes on below half of it.
    pub live_max: Size,
    /// Backlog frames waiting for one worker.
    pub backlog_max: Size,
}

/// How much goes into one transaction; it is closed by whichever comes first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GatherSettings {
    /// Bytes of frames.
    pub bytes_max: Size,
    /// Points.
    pub points_max: u32,
    /// Records.
    pub records_max: u32,
    /// How long the first record waits for company.
    pub linger: Dur,
    /// What backlog gets of each limit while there is live data, in percent.
    pub backlog_percent: u32,
}

/// How transactions are made, and what time means.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSettings {
    /// Workers, each with one connection, per shard.
    pub workers_per_shard: u16,
    /// How long one statement, or one COMMIT, may take before its outcome is called unknown.
    pub statement_timeout: Dur,
    /// The longest pause between two attempts on a shard that is in trouble.
    pub retry_pause_max: Dur,
    /// Points older than this at their append are counted as expired. The keeper's raw retention.
    pub raw_retention: Dur,
    /// Points further ahead of their append than this send their batch to dead letters. At least
    /// 1h: ingest-api and agents let points through that are up to 55 minutes ahead.
    pub future_max: Dur,
    /// How long the ledger remembers an epoch. The keeper's ledger retention.
    pub ledger_retention: Dur,
    /// New series one environment may bring to one partition per hour.
    pub new_series_per_hour: u32,
    /// Starts of agents that one environment may bring to one partition per hour. Batches of
    /// further ones are stored, but no gaps are known of them.
    pub new_epochs_per_hour: u32,
}

/// What can never be applied.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetterSettings {
    /// Undecodable or misplaced records per environment and minute that may go to dead letters.
    /// Beyond it the partition stops and waits for an operator: more is a fault of ours.
    pub per_minute_max: u32,
    /// How long to wait for one delivery report.
    pub delivery_timeout: Dur,
}

/// The write buffer for last_seen.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisSettings {
    /// `redis://host:port`; without it no last_seen is kept.
    pub url: Option<String>,
    /// The password, if the address has none.
    pub password: Secret,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// A series is told to Redis at most this often.
    pub per_series: Dur,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        Self {
            shards_file: PathBuf::from("/etc/spillway/shards.toml"),
            log: LogSettings::default(),
            admin: AdminSettings::on_port(ADMIN_PORT),
            shutdown: ShutdownSettings::default(),
            kafka: KafkaSettings::default(),
            group: GroupSettings::default(),
            mysql: MysqlSettings::default(),
            intake: IntakeSettings::default(),
            gather: GatherSettings::default(),
            store: StoreSettings::default(),
            dead_letters: DeadLetterSettings::default(),
            redis: RedisSettings::default(),
        }
    }
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            instance: String::new(),
            session_timeout: Dur::from_secs(30),
            fetch_ahead: Size::mib(16),
            commit_interval: Dur::from_secs(1),
        }
    }
}

impl Default for IntakeSettings {
    fn default() -> Self {
        Self { live_max: Size::mib(32), backlog_max: Size::mib(16) }
    }
}

impl Default for GatherSettings {
    fn default() -> Self {
        Self {
            bytes_max: Size::mib(4),
            points_max: 100_000,
            records_max: 1_000,
            linger: Dur::from_millis(200),
            backlog_percent: 20,
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            workers_per_shard: 2,
            statement_timeout: Dur::from_secs(15),
            retry_pause_max: Dur::from_secs(5),
            raw_retention: Dur::from_days(7),
            future_max: Dur::from_hours(1),
            ledger_retention: Dur::from_days(14),
            new_series_per_hour: 1_000_000,
            new_epochs_per_hour: 100_000,
        }
    }
}

impl Default for DeadLetterSettings {
    fn default() -> Self {
        Self { per_minute_max: 60, delivery_timeout: Dur::from_secs(30) }
    }
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: None,
            password: Secret::default(),
            password_file: None,
            per_series: Dur::from_secs(60),
        }
    }
}

impl Settings for ConsumerSettings {
    const PROGRAM: &'static str = "consumer";
    const ABOUT: &'static str = "Applies what Kafka holds to the MySQL shards, exactly once";

    fn process(&self) -> Process<'_> {
        Process { log: &self.log, admin: &self.admin, shutdown: &self.shutdown }
    }

    fn validate(&self) -> Vec<Problem> {
        let mut problems = self.kafka.validate("kafka");
        let mut check = |fine: bool, path: &str, message: &str| {
            if !fine {
                problems.push(Problem::new(path, message));
            }
        };
        let millis = |duration: Dur| duration.get().as_millis();
        let (group, gather, store) = (&self.group, &self.gather, &self.store);
        let session = millis(group.session_timeout);
        check(
            (6_000..=300_000).contains(&session),
            "group.session_timeout",
            "must be between 6s and 5m: brokers refuse others unless told",
        );
        check(
            (100..=60_000).contains(&millis(group.commit_interval)),
            "group.commit_interval",
            "must be between 100ms and 1m",
        );
        let sizes = [
            (group.fetch_ahead, "group.fetch_ahead"),
            (self.intake.live_max, "intake.live_max"),
            (self.intake.backlog_max, "intake.backlog_max"),
            (gather.bytes_max, "gather.bytes_max"),
        ];
        for (size, path) in sizes {
            let fine = (Size::mib(1)..=Size::gib(1)).contains(&size);
            check(fine, path, "must be between 1 MiB and 1 GiB");
        }
        let between = "must be between 1 and 1000000";
        check((1..=1_000_000).contains(&gather.points_max), "gather.points_max", between);
        check((1..=5_000).contains(&gather.records_max), "gather.records_max", "must be 1 to 5000");
        check(millis(gather.linger) <= 10_000, "gather.linger", "must be at most 10s");
        check(
            (1..=90).contains(&gather.backlog_percent),
            "gather.backlog_percent",
            "must be 1 to 90: backlog may neither starve nor starve live data",
        );
        let workers = (1..=64).contains(&store.workers_per_shard);
        check(workers, "store.workers_per_shard", "must be 1 to 64");
        check(
            (1_000..=600_000).contains(&millis(store.statement_timeout)),
            "store.statement_timeout",
            "must be between 1s and 10m",
        );
        check(
            store.statement_timeout > self.mysql.lock_wait_timeout,
            "store.statement_timeout",
            "must be longer than mysql.lock_wait_timeout, or every lock wait ends a connection",
        );
        check(
            (100..=300_000).contains(&millis(store.retry_pause_max)),
            "store.retry_pause_max",
            "must be between 100ms and 5m",
        );
        check(
            store.raw_retention <= store.ledger_retention,
            "store.ledger_retention",
            "must be at least store.raw_retention, or a late batch could count twice",
        );
        check(
            (FUTURE_MS_MAX as u128..=86_400_000).contains(&millis(store.future_max)),
            "store.future_max",
            "must be between 1h (senders are held to less) and 1d (partitions reach days ahead)",
        );
        problems
    }
}

/// The crash point to arm, for builds made for tests: `NAME=ACTION[@N]`.
#[cfg(feature = "failpoints")]
#[must_use]
pub fn failpoint() -> Option<String> {
    std::env::var("SPILLWAY_FAILPOINT").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(ConsumerSettings::default().validate(), vec![]);
    }

    #[test]
    fn a_future_shorter_than_what_the_edge_lets_through_is_refused() {
        let mut settings = ConsumerSettings::default();
        for minutes in [59, 24 * 60 + 1] {
            settings.store.future_max = Dur::from_secs(minutes * 60);
            let problems = settings.validate();
            assert_eq!(problems.len(), 1);
            assert_eq!(problems[0].path, "store.future_max");
        }
    }

    #[test]
    fn a_ledger_that_forgets_before_raw_data_expires_is_refused() {
        let mut settings = ConsumerSettings::default();
        settings.store.ledger_retention = Dur::from_days(3);
        let problems = settings.validate();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].path, "store.ledger_retention");
    }
}
