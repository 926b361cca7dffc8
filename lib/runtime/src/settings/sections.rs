//! The sections that every program's settings have: `[log]`, `[admin]`, `[shutdown]`.

use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dur, Problem};

/// What to log, and in which form.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug` or `trace`; also per part: `info,librdkafka=debug`.
    pub level: String,
    /// `auto` writes text on a terminal and JSON otherwise.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Auto,
    Text,
    Json,
}

/// The address of `/livez`, `/readyz`, `/deepz` and `/metrics`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSettings {
    /// Whether to serve health and metrics at all.
    pub enabled: bool,
    /// Where to listen; keep it private, nothing here asks for a credential. Port 0: a free one.
    pub listen: SocketAddr,
}

impl AdminSettings {
    /// On the loopback address, which is where an admin page belongs unless told otherwise.
    pub fn on_port(port: u16) -> Self {
        Self { enabled: true, listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) }
    }
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self::on_port(0)
    }
}

/// How the program stops.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ShutdownSettings {
    /// How long an ordered drain may take after SIGTERM; a second signal ends it at once.
    pub drain_deadline: Dur,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        // Below the 30 s that systemd, Docker and Kubernetes give before they kill.
        Self { drain_deadline: Dur::from_secs(25) }
    }
}

/// A borrowed view of the three common sections.
#[derive(Debug, Clone, Copy)]
pub struct Process<'a> {
    pub log: &'a LogSettings,
    pub admin: &'a AdminSettings,
    pub shutdown: &'a ShutdownSettings,
}

impl Process<'_> {
    pub(crate) fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Err(error) = crate::logging::filter(&self.log.level) {
            problems.push(Problem::new("log.level", error.to_string()));
        }
        if self.shutdown.drain_deadline.is_zero() {
            let message = "must be longer than 0s, or nothing could be drained";
            problems.push(Problem::new("shutdown.drain_deadline", message));
        }
        problems
    }
}
