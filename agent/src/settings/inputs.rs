//! `[[scrape]]`, `[[mysql]]`, `[[exec]]`, `[influx]`: inputs beside the host and StatsD.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spillway_runtime::mysql::Tls;
use spillway_runtime::settings::{Dur, Size};

use crate::deliver::http_client::BuildError;

/// Prometheus targets.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScrapeSettings {
    /// The label `job` of everything these targets say.
    pub job: String,
    /// What to ask: URLs (`https://web-1:9443/metrics`) or `HOST:PORT`, which means
    /// `http://HOST:PORT` and `path`.
    pub targets: Vec<String>,
    /// The path of targets that are no URL.
    pub path: String,
    /// How often each target is asked. Each keeps its own place within the interval.
    pub interval: Dur,
    /// How long an answer may take as a whole; never more than the interval.
    pub timeout: Dur,
    /// More labels for everything these targets say (`team = "web"`). A label of the same name
    /// that a target gives itself becomes `exported_…`.
    pub labels: BTreeMap<String, String>,
    /// A file with a bearer token, read at every scrape.
    pub bearer_token_file: Option<PathBuf>,
    /// The user for basic authentication.
    pub user: String,
    /// A file with the password for basic authentication, read at every scrape.
    pub password_file: Option<PathBuf>,
    /// A PEM file with the certificate authorities to trust. Empty: the system's.
    pub ca_file: Option<PathBuf>,
    /// An answer may have this many bytes. Over any of these limits the whole answer is left out,
    /// `up` is 0, and `status` says why.
    pub body_bytes_max: Size,
    /// …this many samples,
    pub samples_max: u32,
    /// …this many labels on a sample, ours included,
    pub labels_max: u32,
    /// …and this many bytes in the value of a label.
    pub label_value_bytes_max: u32,
}

impl Default for ScrapeSettings {
    fn default() -> Self {
        Self {
            job: String::new(),
            targets: Vec::new(),
            path: "/metrics".to_owned(),
            interval: Dur::from_secs(15),
            timeout: Dur::from_secs(10),
            labels: BTreeMap::new(),
            bearer_token_file: None,
            user: String::new(),
            password_file: None,
            ca_file: None,
            body_bytes_max: Size::mib(10),
            samples_max: 10_000,
            labels_max: 32,
            label_value_bytes_max: 1_024,
        }
    }
}

impl ScrapeSettings {
    /// The targets as URLs.
    ///
    /// # Errors
    /// One is none.
    pub fn uris(&self) -> Result<Vec<Uri>, BuildError> {
        self.targets.iter().map(|target| self.uri(target)).collect()
    }

    pub(super) fn uri(&self, target: &str) -> Result<Uri, BuildError> {
        let full = match target.contains("://") {
            true => target.to_owned(),
            false => format!("http://{target}{}", self.path),
        };
        let uri = full.parse::<Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                // A password in a URL would stand in every log line that names the target.
                && !uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
        });
        uri.ok_or(BuildError::Url { url: full })
    }

    /// How long one read may take.
    #[must_use]
    pub fn read_timeout(&self) -> Duration {
        self.timeout.get().min(self.interval.get())
    }
}

/// A MySQL or MariaDB server whose state is measured.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MysqlInputSettings {
    /// The label `server` of everything it says. Empty: the address.
    pub name: String,
    /// `HOST:PORT`; unused when `socket` is set.
    pub address: String,
    /// Path of the server's unix socket.
    pub socket: Option<PathBuf>,
    /// A user that may read and nothing else; docs/inputs.md has its GRANTs.
    pub user: String,
    /// A file with its password.
    pub password_file: Option<PathBuf>,
    /// Whether to encrypt, and what to check.
    pub tls: Tls,
    /// Certificates to trust (PEM), for `verify-ca` and `verify-identity`.
    pub ca_file: Option<PathBuf>,
    /// How often it is asked.
    pub interval: Dur,
    /// How long all questions of one read may take together. The server itself ends a statement
    /// that takes longer.
    pub timeout: Dur,
    /// Also the replication state.
    pub replication: bool,
    /// The statements that took the most time in an interval, this many of them; 0: none.
    pub statements: u32,
    /// Characters of a statement's text. It holds no literals: the server replaces them.
    pub statement_chars_max: u32,
}

impl Default for MysqlInputSettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            address: "127.0.0.1:3306".to_owned(),
            socket: None,
            user: "spillway".to_owned(),
            password_file: None,
            tls: Tls::Preferred,
            ca_file: None,
            interval: Dur::from_secs(10),
            timeout: Dur::from_secs(3),
            replication: true,
            statements: 20,
            statement_chars_max: 200,
        }
    }
}

impl MysqlInputSettings {
    /// The server's name in labels and messages.
    #[must_use]
    pub fn shown(&self) -> String {
        match (&self.socket, self.name.is_empty()) {
            (_, false) => self.name.clone(),
            (Some(socket), true) => socket.display().to_string(),
            (None, true) => self.address.clone(),
        }
    }

    /// Host and port.
    #[must_use]
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        let (host, port) = self.address.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some((host, port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
    }
}

/// A command whose output is metrics.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecSettings {
    /// The label `command` of what is said of its runs. Empty: the program's name.
    pub name: String,
    /// The program and its arguments. There is no shell, so nothing is expanded.
    pub command: Vec<String>,
    /// How it writes: `influx` (line protocol), `prometheus` (text) or `statsd`.
    pub format: ExecFormat,
    /// How often it is run.
    pub interval: Dur,
    /// How long a run may take; then it and all its children are killed.
    pub timeout: Dur,
    /// How much it may write. Beyond that it is killed, and what it wrote is left out.
    pub output_bytes_max: Size,
    /// Labels for everything it says.
    pub labels: BTreeMap<String, String>,
}

/// What a command writes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecFormat {
    #[default]
    Influx,
    Prometheus,
    Statsd,
}

impl Default for ExecSettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            command: Vec::new(),
            format: ExecFormat::Influx,
            interval: Dur::from_secs(60),
            timeout: Dur::from_secs(10),
            output_bytes_max: Size::mib(1),
            labels: BTreeMap::new(),
        }
    }
}

impl ExecSettings {
    /// Its name in labels and messages.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.name.is_empty() {
            false => self.name.clone(),
            true => {
                let program = self.command.first().map_or("", String::as_str);
                program.rsplit('/').next().unwrap_or(program).to_owned()
            }
        }
    }
}

/// InfluxDB's write route for programs on this host.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct InfluxSettings {
    /// Whether to listen at all.
    pub enabled: bool,
    /// TCP address for HTTP (`POST /write`, `POST /api/v2/write`). Loopback, because there is no
    /// credential. Empty: no HTTP.
    pub listen: String,
    /// UDP address, one or more lines a datagram; times in ns. Empty: no UDP.
    pub udp: String,
    /// The largest body of a request; larger ones are answered with 413.
    pub body_bytes_max: Size,
    /// Connections at once; more wait in the kernel.
    pub connections_max: u32,
}

impl Default for InfluxSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: "127.0.0.1:8186".to_owned(),
            udp: String::new(),
            body_bytes_max: Size::mib(1),
            connections_max: 16,
        }
    }
}
