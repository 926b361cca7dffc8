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

mod check_inputs;

mod inputs;

mod spool;

mod deliver;

pub use deliver::{DeliverSettings, SpillSettings};
pub use inputs::{ExecFormat, ExecSettings, InfluxSettings, MysqlInputSettings, ScrapeSettings};
pub use spool::{SpoolKind, SpoolSettings};

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
    /// InfluxDB line protocol input for programs on this host.
    pub influx: InfluxSettings,
    /// Prometheus targets that are scraped. May be given several times.
    pub scrape: Vec<ScrapeSettings>,
    /// MySQL and MariaDB servers that are measured. May be given several times.
    pub mysql: Vec<MysqlInputSettings>,
    /// Commands that are run for what they write. May be given several times.
    pub exec: Vec<ExecSettings>,
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
            influx: InfluxSettings::default(),
            scrape: Vec::new(),
            mysql: Vec::new(),
            exec: Vec::new(),
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
    /// A file holding the token, readable by the agent's user only. It is looked at every second:
    /// a new token counts without a restart.
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
    /// What scrapes, servers, commands and line protocol may hold in memory until it is handed on
    /// (a window, plus what the disk takes). About 120 bytes a sample; a read that finds no room
    /// fails, whole.
    pub tray_bytes_max: Size,
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
            tray_bytes_max: Size::mib(16),
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
    /// Series kept per 10 s window (a timer is one, and becomes seven). More are dropped,
    /// counted, and the first of them named in the log and in `status`: one bad tag must not
    /// fill the agent's memory.
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
            series_max: 1_000,
            gauge_memory: Dur::from_hours(1),
        }
    }
}

#[cfg(test)]
#[path = "settings/tests.rs"]
mod tests;
