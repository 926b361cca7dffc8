//! What an operator may set, and the only place where settings are read. Ages must stand in an
//! order, or data would be dropped while it can still be needed: that is checked here.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spillway_publisher::KafkaSettings;
use spillway_runtime::mysql::MysqlSettings;
use spillway_runtime::settings::{
    AdminSettings, Dur, LogSettings, Problem, Process, Secret, Settings, ShutdownSettings,
};

const ADMIN_PORT: u16 = 8484;

/// Settings of the keeper.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeeperSettings {
    /// The file that says which shard holds what.
    pub shards_file: PathBuf,
    /// Where to log what.
    pub log: LogSettings,
    /// Health and metrics.
    pub admin: AdminSettings,
    /// How it stops.
    pub shutdown: ShutdownSettings,
    /// Brokers.
    pub kafka: KafkaSettings,
    /// How to log in to the shards.
    pub mysql: MysqlSettings,
    /// How long things live.
    pub ages: AgeSettings,
    /// Partitions made ahead and dropped behind.
    pub partitions: PartitionSettings,
    /// Minutes and hours made of points.
    pub rollups: RollupSettings,
    /// Series that behave as they never did.
    pub anomalies: AnomalySettings,
    /// How much of a shard background work may take.
    pub pace: PaceSettings,
    /// The write buffer for last_seen.
    pub redis: RedisSettings,
    /// Statements of readers.
    pub readers: ReaderSettings,
    /// Lag, measured apart from the consumer.
    pub lag: LagSettings,
    /// Deleting from Kafka what MySQL has long applied.
    pub trim: TrimSettings,
}

/// How long things live. They must stand in this order: spool + s3 < raw_retention <=
/// ledger_retention, raw_retention <= minute_retention <= hour_retention, and replica_staleness <
/// replay_window.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AgeSettings {
    /// The longest a batch waits in an agent's spool.
    pub spool: Dur,
    /// The longest a sealed object waits in S3.
    pub s3: Dur,
    /// How long single points are kept.
    pub raw_retention: Dur,
    /// How long rollups per minute are kept.
    pub minute_retention: Dur,
    /// How long rollups per hour are kept.
    pub hour_retention: Dur,
    /// How long it is remembered which batches were applied.
    pub ledger_retention: Dur,
    /// How much of what was applied Kafka keeps, to be applied again.
    pub replay_window: Dur,
    /// How far behind a replica may be and still take over.
    pub replica_staleness: Dur,
    /// An agent that said nothing for this long, without a closing record, has an unknown tail.
    pub silent_after: Dur,
}

/// Partitions made ahead and dropped behind.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PartitionSettings {
    /// How often to look.
    pub interval: Dur,
    /// How long DDL waits for a table's lock; writers wait behind it meanwhile.
    pub lock_wait: Dur,
    /// With less than this left ahead, readers' statements that hold the table are ended.
    pub headroom_min: Dur,
}

/// Minutes and hours made of points.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RollupSettings {
    /// How often to look for minutes to be made.
    pub interval: Dur,
    /// How long after its end a minute is made for the first time: its last points are on their
    /// way. Whatever comes later has it made again.
    pub settle: Dur,
}

/// Series that behave as they never did.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AnomalySettings {
    /// How often each of them is judged.
    pub interval: Dur,
    /// The metrics that are watched, by name; none of them, and nothing is.
    pub metrics: Vec<String>,
}

/// How much of a shard background work may take.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PaceSettings {
    /// While a commit on the shard takes longer than this, background work steps back.
    pub commit_target: Dur,
    /// The longest it rests between two of its steps.
    pub rest_max: Dur,
}

/// The write buffer for last_seen.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisSettings {
    /// `redis://host:port`; without it last_seen is not folded.
    pub url: Option<String>,
    /// The password, if the address has none.
    pub password: Secret,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// How often last_seen is folded into MySQL.
    pub interval: Dur,
}

/// Statements of readers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReaderSettings {
    /// How often to look for statements over their reader's limit.
    pub interval: Dur,
}

/// Lag, measured apart from the consumer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LagSettings {
    /// How often to measure.
    pub interval: Dur,
    /// From this age of the oldest record not applied the state is WARN.
    pub warn_after: Dur,
    /// With records waiting and the position unmoved for this long, STALL.
    pub stall_after: Dur,
    /// And for this long, STOP.
    pub stop_after: Dur,
}

/// Deleting from Kafka what MySQL has long applied.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrimSettings {
    /// Whether to delete at all. Off, Kafka grows without end.
    pub enabled: bool,
    /// How often.
    pub interval: Dur,
}

impl Default for KeeperSettings {
    fn default() -> Self {
        Self {
            shards_file: PathBuf::from("/etc/spillway/shards.toml"),
            log: LogSettings::default(),
            admin: AdminSettings::on_port(ADMIN_PORT),
            shutdown: ShutdownSettings::default(),
            kafka: KafkaSettings::default(),
            mysql: MysqlSettings::default(),
            ages: AgeSettings::default(),
            partitions: PartitionSettings::default(),
            rollups: RollupSettings::default(),
            anomalies: AnomalySettings::default(),
            pace: PaceSettings::default(),
            redis: RedisSettings::default(),
            readers: ReaderSettings::default(),
            lag: LagSettings::default(),
            trim: TrimSettings::default(),
        }
    }
}

impl Default for AgeSettings {
    fn default() -> Self {
        Self {
            spool: Dur::from_hours(24),
            s3: Dur::from_hours(72),
            raw_retention: Dur::from_days(7),
            minute_retention: Dur::from_days(90),
            hour_retention: Dur::from_days(3 * 365),
            ledger_retention: Dur::from_days(14),
            replay_window: Dur::from_hours(48),
            replica_staleness: Dur::from_hours(12),
            silent_after: Dur::from_mins(15),
        }
    }
}

impl Default for PartitionSettings {
    fn default() -> Self {
        Self {
            interval: Dur::from_secs(60),
            lock_wait: Dur::from_secs(2),
            headroom_min: Dur::from_hours(12),
        }
    }
}

impl Default for RollupSettings {
    fn default() -> Self {
        Self { interval: Dur::from_secs(2), settle: Dur::from_secs(10) }
    }
}

impl Default for AnomalySettings {
    fn default() -> Self {
        let metrics = ["cpu.usage", "load.5m", "mem.usage", "net.recv_bytes", "net.sent_bytes"];
        Self { interval: Dur::from_mins(5), metrics: metrics.map(str::to_owned).to_vec() }
    }
}

impl Default for PaceSettings {
    fn default() -> Self {
        Self { commit_target: Dur::from_millis(100), rest_max: Dur::from_secs(5) }
    }
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: None,
            password: Secret::default(),
            password_file: None,
            interval: Dur::from_secs(30),
        }
    }
}

impl Default for ReaderSettings {
    fn default() -> Self {
        Self { interval: Dur::from_secs(5) }
    }
}

impl Default for LagSettings {
    fn default() -> Self {
        Self {
            interval: Dur::from_secs(2),
            warn_after: Dur::from_secs(10),
            stall_after: Dur::from_secs(20),
            stop_after: Dur::from_secs(120),
        }
    }
}

impl Default for TrimSettings {
    fn default() -> Self {
        Self { enabled: false, interval: Dur::from_mins(10) }
    }
}

impl AgeSettings {
    /// The longest a batch may be on its way and still arrive.
    #[must_use]
    pub fn longest_life(&self) -> Duration {
        self.spool.get().saturating_add(self.s3.get())
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.longest_life() >= self.raw_retention.get() {
            let message = "must be longer than spool + s3: a batch that still arrives would find \
                           no partition";
            problems.push(Problem::new("ages.raw_retention", message));
        }
        if self.ledger_retention < self.raw_retention {
            let message = "must not be shorter than raw_retention: an old batch that comes again \
                           would count as new";
            problems.push(Problem::new("ages.ledger_retention", message));
        }
        if self.minute_retention < self.raw_retention {
            let message = "must not be shorter than raw_retention: a late point would change a \
                           minute that is gone";
            problems.push(Problem::new("ages.minute_retention", message));
        }
        if self.hour_retention < self.minute_retention {
            let message = "must not be shorter than minute_retention: a minute would change an \
                           hour that is gone";
            problems.push(Problem::new("ages.hour_retention", message));
        }
        if self.replica_staleness >= self.replay_window {
            let message = "must be longer than replica_staleness: after a failover Kafka would no \
                           longer have what the replica lacks";
            problems.push(Problem::new("ages.replay_window", message));
        }
        problems
    }
}

impl Settings for KeeperSettings {
    const PROGRAM: &'static str = "keeper";
    const ABOUT: &'static str =
        "Keeps each shard in order: partitions, retention, last_seen, lag, readers' limits";

    fn process(&self) -> Process<'_> {
        Process { log: &self.log, admin: &self.admin, shutdown: &self.shutdown }
    }

    fn validate(&self) -> Vec<Problem> {
        let mut problems = self.kafka.validate("kafka");
        problems.extend(self.ages.problems());
        for (path, interval) in [
            ("partitions.interval", self.partitions.interval),
            ("rollups.interval", self.rollups.interval),
            ("anomalies.interval", self.anomalies.interval),
            ("redis.interval", self.redis.interval),
            ("readers.interval", self.readers.interval),
            ("lag.interval", self.lag.interval),
            ("trim.interval", self.trim.interval),
        ] {
            if !(1..=3600).contains(&interval.get().as_secs()) {
                problems.push(Problem::new(path, "must be between 1s and 1h"));
            }
        }
        if !(1..=30).contains(&self.partitions.lock_wait.get().as_secs()) {
            problems.push(Problem::new("partitions.lock_wait", "must be between 1s and 30s"));
        }
        if self.lag.stall_after > self.lag.stop_after {
            problems.push(Problem::new("lag.stop_after", "must not be shorter than stall_after"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use spillway_runtime::settings::load_from;

    use super::*;

    fn problems(toml: &str) -> Vec<String> {
        let error = load_from::<KeeperSettings>(toml, []).expect_err("these ages are wrong");
        error.problems().iter().map(|problem| problem.path.clone()).collect()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(KeeperSettings::default().validate(), []);
    }

    #[test]
    fn ages_out_of_order_are_refused_all_at_once() {
        let toml = "[ages]\nspool = '5d'\nledger_retention = '6d'\nreplay_window = '10h'\n\
                    minute_retention = '6d'\nhour_retention = '5d'";
        let wrong = ["raw_retention", "ledger_retention", "minute_retention", "hour_retention"];
        let wrong = wrong.into_iter().chain(["replay_window"]).map(|age| format!("ages.{age}"));
        assert_eq!(problems(toml), wrong.collect::<Vec<_>>());
        assert_eq!(problems("[ages]\nraw_retention = '96h'"), ["ages.raw_retention"]);
    }
}
