//! Everything an operator's machine can be told: spillway.toml, and the console's only reader of
//! the process's environment.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spillway_publisher::KafkaSettings;
use spillway_recovery_worker::settings::S3Settings;
use spillway_runtime::mysql::MysqlSettings;
use spillway_runtime::settings::{
    AdminSettings, Dur, LogSettings, Problem, Process, Secret, Settings, ShutdownSettings, Size,
};

/// The admin port of `status serve` unless told otherwise.
const ADMIN_PORT: u16 = 8487;

/// The console's settings.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConsoleSettings {
    /// Which MySQL server holds which partitions.
    pub shards_file: PathBuf,
    /// Who may send; written by `spillway token`.
    pub tokens_file: PathBuf,
    /// Whom the API servers admit; written by `spillway ingest`, read by ingest-api's
    /// `admission.file`.
    pub admission_file: PathBuf,
    /// The lock of `spillway maintenance`: one change at a time.
    pub maintenance_file: PathBuf,
    /// The recovery worker's private keys, `<key id>.key`; written by `spillway keys create`.
    pub keys_dir: PathBuf,
    /// What was changed with this console, one JSON object a line; written before anything else.
    pub journal_file: PathBuf,
    /// How far back the first partitions of `points` reach; the keeper's raw retention.
    pub raw_retention: Dur,
    /// The longest wait for any one remote answer.
    pub remote_deadline: Dur,
    /// Where Kafka is.
    pub kafka: KafkaSettings,
    /// The operators' MySQL user, who seeds positions, makes readers and looks at tables.
    pub mysql: MysqlSettings,
    /// The MySQL user who owns the schema, for `spillway migrate`; without one, `[mysql]`'s.
    pub migrate: MysqlSettings,
    /// As whom a replica follows its primary, for `spillway shard`: user and password alone.
    pub replication: MysqlSettings,
    /// The bucket that agents park in, with the recovery worker's key.
    pub s3: S3Settings,
    /// The API that agents send to.
    pub api: ApiSettings,
    /// The page of `spillway status serve`.
    pub status: StatusSettings,
    /// Health and metrics of `spillway status serve`.
    pub admin: AdminSettings,
    /// What to log, and how; commands log warnings only unless this is changed.
    pub log: LogSettings,
    /// How `spillway status serve` stops.
    pub shutdown: ShutdownSettings,
}

/// The API that agents send to.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApiSettings {
    /// Base URLs as agents have them.
    pub endpoints: Vec<String>,
    /// The token with which `spillway check` sends its canary; its environment shows a host
    /// `spillway-check`.
    pub token: Secret,
    /// A file that holds this token.
    pub token_file: Option<PathBuf>,
}

/// The page of `spillway status serve`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StatusSettings {
    /// Where the page listens.
    pub listen: std::net::SocketAddr,
    /// Where the page for everybody listens, which names no customer; it is also at /public of
    /// `listen`. Without an address there is no such door.
    pub public_listen: Option<std::net::SocketAddr>,
    /// The page's heading.
    pub title: String,
    /// Ninety days of uptime and response times: one small file that `status serve` keeps.
    pub history_file: PathBuf,
    /// What `spillway incident` tells, one JSON object a line.
    pub incidents_file: PathBuf,
    /// How often everything is looked at anew.
    pub refresh: Dur,
    /// How often `spillway check` is run, with its canary if `[api]` has a token: its stages become
    /// metrics for alerts. 0s never does.
    pub check_every: Dur,
    /// Size of the disk under each shard's MySQL, which MySQL itself can't tell: for the alert
    /// before it is full. 0 is not known.
    pub mysql_disk: Size,
    /// The programs whose metrics are read.
    pub programs: Vec<ProgramSettings>,
}

/// One program whose metrics are read.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProgramSettings {
    /// As the page calls it.
    pub name: String,
    /// Base URL of its admin address, `http://127.0.0.1:8481`.
    pub admin: String,
}

impl Default for ConsoleSettings {
    fn default() -> Self {
        Self {
            shards_file: PathBuf::from("/etc/spillway/shards.toml"),
            tokens_file: PathBuf::from("/etc/spillway/tokens.toml"),
            admission_file: PathBuf::from("/etc/spillway/admission.toml"),
            maintenance_file: PathBuf::from("/var/lib/spillway/maintenance.json"),
            keys_dir: PathBuf::from("/etc/spillway/keys"),
            journal_file: PathBuf::from("/var/lib/spillway/journal.jsonl"),
            raw_retention: Dur::from_days(7),
            remote_deadline: Dur::from_secs(10),
            kafka: KafkaSettings {
                client_id: "spillway-console".to_owned(),
                ..KafkaSettings::default()
            },
            mysql: MysqlSettings::default(),
            migrate: MysqlSettings::default(),
            replication: MysqlSettings::default(),
            s3: S3Settings::default(),
            api: ApiSettings::default(),
            status: StatusSettings::default(),
            admin: AdminSettings::on_port(ADMIN_PORT),
            log: LogSettings { level: "warn".to_owned(), ..LogSettings::default() },
            shutdown: ShutdownSettings::default(),
        }
    }
}

/// Whether the user asked every program for no colours (https://no-color.org).
pub fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:8480".to_owned()],
            token: Secret::default(),
            token_file: None,
        }
    }
}

impl Default for StatusSettings {
    fn default() -> Self {
        Self {
            listen: std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 8485)),
            public_listen: None,
            title: "Spillway".to_owned(),
            history_file: PathBuf::from("/var/lib/spillway/status-history.json"),
            incidents_file: PathBuf::from("/var/lib/spillway/incidents.jsonl"),
            refresh: Dur::from_secs(2),
            check_every: Dur::from_secs(300),
            mysql_disk: Size::bytes(0),
            programs: Vec::new(),
        }
    }
}

impl Settings for ConsoleSettings {
    const PROGRAM: &'static str = "console";
    const ABOUT: &'static str = "Operates Spillway: topics, schema, tokens, readers, lag, gaps";

    fn process(&self) -> Process<'_> {
        Process { log: &self.log, admin: &self.admin, shutdown: &self.shutdown }
    }

    fn validate(&self) -> Vec<Problem> {
        let mut problems = self.kafka.validate("kafka");
        let mut wrong = |path: &str, message: &str| problems.push(Problem::new(path, message));
        if self.remote_deadline.is_zero() {
            wrong("remote_deadline", "must be longer than 0s");
        }
        if self.status.refresh < Dur::from_millis(500) {
            wrong("status.refresh", "must be at least 500ms");
        }
        let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
        if !self.api.endpoints.iter().all(|url| is_url(url)) {
            wrong("api.endpoints", "each must start with http:// or https://");
        }
        for (i, program) in self.status.programs.iter().enumerate() {
            if program.name.is_empty() || !is_url(&program.admin) {
                let path = format!("status.programs[{i}]");
                wrong(&path, "needs a name, and an admin address like http://127.0.0.1:8481");
            }
        }
        problems
    }
}
