//! What a stack consists of. The defaults are the smallest one that carries a batch from end to
//! end.

use std::path::PathBuf;

use super::link::End;
use crate::database::Database;
use crate::progress::Progress;

/// The environments that exist from the start, in every stack.
pub const ENVIRONMENTS: [&str; 3] = ["demo", "acme", "globex"];

#[derive(Debug, Clone)]
pub struct StackOptions {
    /// 1, or 3 with topics replicated three times and two acknowledgements.
    pub brokers: u16,
    pub shards: u16,
    /// What the shards are.
    pub database: Database,
    /// Replicas of each shard.
    pub replicas: u16,
    /// Kafka, MySQL, Redis and S3 only: no topics, no schema, no programs.
    pub servers_only: bool,
    pub apis: u16,
    pub consumers: u16,
    pub recovery_workers: u16,
    pub keeper: bool,
    pub status_page: bool,
    /// An agent that measures this host for the environment `demo`.
    pub agent: bool,
    /// Optimised programs. Tests take the dev profile.
    pub release: bool,
    /// Everything the stack writes. `None`: a temporary folder that goes with the stack, but stays
    /// when the test panics.
    pub dir: Option<PathBuf>,
    /// Pairs of ends whose connections go through proxies that the test can switch.
    pub links: Vec<(End, End)>,
    /// Settings laid over the generated ones; see [`StackOptions::set`].
    pub overrides: Vec<Override>,
    /// Variables that programs find in their environment; see [`StackOptions::env`].
    pub env: Vec<Variable>,
    /// Options that every MySQL or MariaDB is started with, after ours: `--max-connections=9`.
    pub mysqld: Vec<String>,
    /// Lets `spill/` objects in without a signature.
    pub s3_unsigned_put: bool,
    pub progress: Progress,
}

/// TOML for one program, or for all programs of a kind.
#[derive(Debug, Clone)]
pub struct Override {
    pub program: String,
    pub toml: String,
}

/// An environment variable for one program, or for all programs of a kind.
#[derive(Debug, Clone)]
pub struct Variable {
    pub program: String,
    pub key: String,
    pub value: String,
}

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            brokers: 1,
            shards: 1,
            database: Database::Mysql,
            replicas: 0,
            servers_only: false,
            apis: 1,
            consumers: 1,
            recovery_workers: 1,
            keeper: true,
            status_page: false,
            agent: false,
            release: false,
            dir: None,
            links: Vec::new(),
            overrides: Vec::new(),
            env: Vec::new(),
            mysqld: Vec::new(),
            s3_unsigned_put: false,
            progress: Progress::silent(),
        }
    }
}

impl StackOptions {
    /// Lays `toml` over the settings of one process (`consumer-0`) or of a kind (`consumer`,
    /// `ingest-api`, `recovery-worker`, `keeper`, `console`, `agent`). Later ones win.
    #[must_use]
    pub fn set(mut self, program: &str, toml: &str) -> Self {
        self.overrides.push(Override { program: program.into(), toml: toml.into() });
        self
    }

    /// Gives one process or kind a variable; [`super::Stack::clear_env`] takes it away again.
    #[must_use]
    pub fn env(mut self, program: &str, key: &str, value: &str) -> Self {
        let (program, key, value) = (program.into(), key.into(), value.into());
        self.env.push(Variable { program, key, value });
        self
    }

    /// Starts every MySQL or MariaDB with one more option.
    #[must_use]
    pub fn mysqld(mut self, option: &str) -> Self {
        self.mysqld.push(option.into());
        self
    }

    /// Puts switchable proxies between two kinds of programs.
    #[must_use]
    pub fn link(mut self, from: End, to: End) -> Self {
        self.links.push((from, to));
        self
    }
}

/// An agent beside the stack's own.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// The process' name, and its folder's.
    pub name: String,
    pub environment: String,
    /// The host it says it is; empty: this machine's name.
    pub host: String,
    /// Its state; `None`: in the stack's folder. A folder that an earlier agent used continues it.
    pub state_dir: Option<PathBuf>,
    /// Laid over the generated settings.
    pub toml: String,
}

impl AgentOptions {
    #[must_use]
    pub fn new(name: &str, environment: &str, host: &str) -> Self {
        Self {
            name: name.into(),
            environment: environment.into(),
            host: host.into(),
            state_dir: None,
            toml: String::new(),
        }
    }
}
