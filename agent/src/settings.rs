//! What an operator may set. The doc comments are the documentation: `config sample` and
//! the reference are generated from them, so each says the effect, the unit and the reason
//! for its default. Nothing else in the agent reads files or the environment for settings.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spillway_runtime::settings;
use spillway_runtime::settings::{
    AdminSettings, Dur, LogSettings, Problem, Process, Secret, SecretFileError, ShutdownSettings,
    Size,
};

mod check;

/// Everything the agent can be told.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Who this agent is.
    pub agent: AgentSettings,
    /// What is measured on this host, and how often.
    pub collect: CollectSettings,
    /// StatsD and DogStatsD input for programs on this host.
    pub statsd: StatsdSettings,
    /// Where batches wait until somebody else has them.
    pub spool: SpoolSettings,
    /// The way to ingest-api.
    pub deliver: DeliverSettings,
    /// The way to S3, for when ingest-api can't take batches.
    pub spill: SpillSettings,
    /// Health, metrics and status of the agent itself.
    pub admin: AdminSettings,
    /// Logging.
    pub log: LogSettings,
    /// How it stops: what the spool holds is sent until the deadline, the rest is kept.
    pub shutdown: ShutdownSettings,
}

/// The admin address unless told otherwise.
pub const ADMIN_PORT: u16 = 8486;
/// Two threads: one for inputs and assembly, one so that compression never delays a StatsD read.
const WORKER_THREADS: usize = 2;

impl Default for Settings {
    fn default() -> Self {
        Self {
            agent: AgentSettings::default(),
            collect: CollectSettings::default(),
            statsd: StatsdSettings::default(),
            spool: SpoolSettings::default(),
            deliver: DeliverSettings::default(),
            spill: SpillSettings::default(),
            admin: AdminSettings::on_port(ADMIN_PORT),
            log: LogSettings::default(),
            shutdown: ShutdownSettings::default(),
        }
    }
}

impl settings::Settings for Settings {
    const PROGRAM: &'static str = "agent";
    const ABOUT: &'static str = "Measures this host, keeps what it measured, and sends it on";

    fn process(&self) -> Process<'_> {
        Process { log: &self.log, admin: &self.admin, shutdown: &self.shutdown }
    }

    fn validate(&self) -> Vec<Problem> {
        check::all(self)
    }

    fn worker_threads(&self) -> Option<usize> {
        Some(WORKER_THREADS)
    }
}

impl Settings {
    /// The settings with secrets read from their files and the host's name filled in.
    ///
    /// # Errors
    /// A secret's file can't be read.
    pub fn resolved(mut self) -> Result<Self, SecretFileError> {
        self.agent.token = self.agent.token.resolve(self.agent.token_file.as_deref())?;
        self.spill.secret_key =
            self.spill.secret_key.resolve(self.spill.secret_key_file.as_deref())?;
        if self.agent.host.is_empty() {
            self.agent.host = system_host_name();
        }
        Ok(self)
    }

    /// Where the spool's segments lie.
    #[must_use]
    pub fn spool_dir(&self) -> PathBuf {
        self.spool.dir.clone().unwrap_or_else(|| self.agent.state_dir.join("spool"))
    }
}

/// The kernel's host name; `localhost` where there is none to be read.
fn system_host_name() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = read.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// Who this agent is.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentSettings {
    /// The environment the token was made for. ingest-api refuses batches that name another.
    pub environment: String,
    /// The name of this host in every dashboard. Empty: the system's host name.
    pub host: String,
    /// The bearer token (`spw_…`). Better kept in `token_file`.
    pub token: Secret,
    /// A file holding the token, readable by the agent's user only.
    pub token_file: Option<PathBuf>,
    /// Identity and (unless told otherwise) the spool live here. Losing it costs the identity,
    /// so it belongs on a disk that survives a reboot.
    pub state_dir: PathBuf,
    /// Labels of the host itself (`region = "eu"`), shown in the `hosts` view.
    pub labels: BTreeMap<String, String>,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            environment: String::new(),
            host: String::new(),
            token: Secret::default(),
            token_file: None,
            state_dir: PathBuf::from("/var/lib/spillway-agent"),
            labels: BTreeMap::new(),
        }
    }
}

/// What is measured on this host, and how often.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectSettings {
    /// How often the host is read: 1s, 2s, 5s or a multiple of 10s. Batches are cut every 10 s
    /// whatever this says; 1s puts ten points into each.
    pub interval: Dur,
    /// How long one input may take, and never more than 8/10 of the interval. A slower one
    /// (a hung NFS mount) misses this sample alone.
    pub deadline: Dur,
    /// Inputs that are switched off: cpu, load, memory, swap, disk_space, disk_io, network,
    /// pressure, processes, uptime, agent.
    pub off: Vec<String>,
    /// Also one CPU series set per core. Off, because 128 cores make 1,400 series.
    pub cpu_per_core: bool,
    /// File system types that are not disks.
    pub ignore_filesystems: Vec<String>,
    /// Network interfaces and block devices that are left out; a `*` at the end stands for
    /// any rest.
    pub ignore_devices: Vec<String>,
    /// Batches of different agents are spread over this much time, so that a fleet does not
    /// send in the same millisecond. Each agent keeps its own place in it.
    pub spread: Dur,
}

impl Default for CollectSettings {
    fn default() -> Self {
        let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Self {
            interval: Dur::from_secs(10),
            deadline: Dur::from_secs(2),
            off: Vec::new(),
            cpu_per_core: false,
            ignore_filesystems: strings(&[
                "autofs",
                "binfmt_misc",
                "bpf",
                "cgroup",
                "cgroup2",
                "configfs",
                "debugfs",
                "devpts",
                "devtmpfs",
                "efivarfs",
                "fusectl",
                "fuse.lxcfs",
                "hugetlbfs",
                "mqueue",
                "nsfs",
                "overlay",
                "proc",
                "pstore",
                "ramfs",
                "rpc_pipefs",
                "securityfs",
                "squashfs",
                "sysfs",
                "tmpfs",
                "tracefs",
            ]),
            ignore_devices: strings(&["lo", "loop*", "ram*", "veth*", "zram*"]),
            spread: Dur::from_secs(1),
        }
    }
}

impl CollectSettings {
    /// How long one input may take, so that the next sample is never late for it.
    #[must_use]
    pub fn input_deadline(&self) -> Duration {
        self.deadline.get().min(self.interval.get() * 8 / 10)
    }

    /// Whether a network interface or block device is left out.
    #[must_use]
    pub fn ignores_device(&self, name: &str) -> bool {
        self.ignore_devices.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        })
    }
}

/// StatsD and DogStatsD input.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatsdSettings {
    /// Whether to listen at all.
    pub enabled: bool,
    /// UDP address. Loopback, because StatsD has no credential. Empty: no UDP.
    pub listen: String,
    /// Path of a unix datagram socket. Empty: none.
    pub socket: Option<PathBuf>,
    /// Series kept per 10 s window. More are dropped, counted, and the first of them named in
    /// the log and in `status`: one bad tag must not fill the agent's memory.
    pub series_max: u32,
    /// How long a gauge's value is remembered for `+` and `-` changes after its last line.
    pub gauge_memory: Dur,
}

impl Default for StatsdSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: "127.0.0.1:8125".to_owned(),
            socket: None,
            series_max: 2_000,
            gauge_memory: Dur::from_hours(1),
        }
    }
}

/// Where the spool keeps its batches.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SpoolKind {
    /// On disk: survives a crash of agent and host.
    #[default]
    Disk,
    /// In memory, for hosts whose disk must not be touched: a restart loses what waits (the
    /// loss is counted and named).
    Memory,
}

/// Where batches wait until somebody else has them.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolSettings {
    /// `disk` or `memory`.
    pub kind: SpoolKind,
    /// Where the segments lie. Empty: `spool` in the state directory.
    pub dir: Option<PathBuf>,
    /// The spool never takes more than this, at most 1 GiB. For `memory`, 64 MiB at most is used.
    pub bytes_max: Size,
    /// The spool also stops growing while the file system has less than this left, so that
    /// a customer's disk is never filled.
    pub free_space_floor: Size,
    /// Part of `bytes_max` that backlog may not use: room for live data is always there.
    pub live_reserve: Size,
    /// Size of one preallocated segment; also the least the spool takes.
    pub segment_bytes: Size,
    /// A batch that waited longer than this is given up and declared.
    pub age_max: Dur,
}

impl Default for SpoolSettings {
    fn default() -> Self {
        Self {
            kind: SpoolKind::Disk,
            dir: None,
            bytes_max: Size::mib(512),
            free_space_floor: Size::mib(512),
            live_reserve: Size::mib(64),
            segment_bytes: Size::mib(8),
            age_max: Dur::from_hours(24),
        }
    }
}

/// The way to ingest-api.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeliverSettings {
    /// Base URLs of ingest-api (`https://ingest.example.com`). The first that works is used.
    pub endpoints: Vec<String>,
    /// A PEM file with the certificate authorities to trust. Empty: the system's.
    pub ca_file: Option<PathBuf>,
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

#[cfg(test)]
#[path = "settings/tests.rs"]
mod tests;
