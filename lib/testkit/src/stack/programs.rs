//! Our own programs in a stack: where each listens, what its settings file says, how it starts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::dir::StackDir;
use super::link::{End, Links};
use super::options::{AgentOptions, StackOptions};
use super::ready::Ready;
use super::seed::Seeds;
use super::servers::{BUCKET, Plan, Servers};
use super::stop::Wave;
use super::{StatusPages, settings_file};
use crate::binaries;
use crate::error::StackError;
use crate::ports::Port;
use crate::process::ProcessSpec;

/// The shape of the topics; what production starts with, too.
pub const PARTITIONS: u16 = 64;
pub const PARTITION_GROUP: u16 = 4;

/// The packages that a stack runs, each with its binary, in travel order.
pub const PACKAGES: [(&str, &str); 6] = [
    ("spillway-agent", "spillway-agent"),
    ("spillway-ingest-api", "spillway-ingest-api"),
    ("spillway-consumer", "spillway-consumer"),
    ("spillway-recovery-worker", "spillway-recovery-worker"),
    ("spillway-keeper", "spillway-keeper"),
    ("spillway-console", "spillway"),
];

/// Everything that settings are made of.
pub(crate) struct Site<'a> {
    pub options: &'a StackOptions,
    pub dir: &'a StackDir,
    pub servers: &'a Servers,
    pub links: &'a Links,
    pub apis: &'a [Arc<Port>],
    pub seeds: &'a Seeds,
    pub pages: Option<&'a StatusPages>,
}

/// A program of one kind that is about to be started.
struct Program<'a> {
    name: String,
    kind: &'a str,
    binary: &'a str,
    /// Before `--config FILE`.
    command: &'a [&'a str],
    settings: Value,
    ready: Ready,
}

impl Site<'_> {
    /// In starting order: who takes before who gives.
    pub fn plans(&self) -> Result<Vec<Plan>, StackError> {
        let mut plans = Vec::new();
        for number in 0..self.options.consumers {
            plans.push(self.consumer(number)?);
        }
        for number in 0..self.options.recovery_workers {
            plans.push(self.recovery_worker(number)?);
        }
        if self.options.keeper {
            plans.push(self.keeper()?);
        }
        for (number, port) in self.apis.iter().enumerate() {
            plans.push(self.ingest_api(number, port)?);
        }
        if let Some(pages) = self.pages {
            plans.push(self.status_page_server(&pages.page)?);
        }
        Ok(plans)
    }

    fn ingest_api(&self, number: usize, port: &Arc<Port>) -> Result<Plan, StackError> {
        let admin = Arc::new(Port::take()?);
        let status_page = self.pages.map(|pages| format!("http://{}", pages.page.address()));
        let settings = json!({
            "http": { "listen": port.address(), "status_page": status_page },
            "admin": { "listen": admin.address() },
            "tokens": { "file": self.dir.tokens_toml() },
            "admission": { "file": admission_toml(self.dir.root()) },
            "topics": { "partitions": PARTITIONS, "group": PARTITION_GROUP },
            "kafka": { "brokers": self.links.bootstrap(End::IngestApi, self.servers) },
        });
        self.plan(Program {
            name: format!("ingest-api-{number}"),
            kind: "ingest-api",
            binary: "spillway-ingest-api",
            command: &[],
            settings,
            ready: Ready::Admin(admin),
        })
    }

    fn consumer(&self, number: u16) -> Result<Plan, StackError> {
        let admin = Arc::new(Port::take()?);
        let name = format!("consumer-{number}");
        let redis = self.links.route(End::Consumer, End::Redis, self.servers.redis.socket());
        let settings = json!({
            "shards_file": self.shards_file(End::Consumer),
            "admin": { "listen": admin.address() },
            "kafka": { "brokers": self.links.bootstrap(End::Consumer, self.servers) },
            "group": { "instance": name },
            "mysql": self.mysql_user("spillway_consumer"),
            "redis": { "url": format!("redis://{redis}") },
        });
        let binary = "spillway-consumer";
        let (kind, ready) = ("consumer", Ready::Admin(admin));
        self.plan(Program { name, kind, binary, command: &[], settings, ready })
    }

    fn recovery_worker(&self, number: u16) -> Result<Plan, StackError> {
        let admin = Arc::new(Port::take()?);
        let name = format!("recovery-worker-{number}");
        let s3 = self.links.route(End::RecoveryWorker, End::S3, self.servers.s3_port.socket());
        let settings = json!({
            "s3": {
                "endpoint": format!("http://{s3}"),
                "bucket": BUCKET,
                "access_key": self.servers.s3.access_key,
                "secret_key_file": self.dir.secret("s3-main"),
            },
            "unseal": { "keys_dir": self.dir.keys(), "tokens_file": self.dir.tokens_toml() },
            "drain": { "owner": name },
            "kafka": { "brokers": self.links.bootstrap(End::RecoveryWorker, self.servers) },
            "topics": { "partitions": PARTITIONS, "group": PARTITION_GROUP },
            "admin": { "listen": admin.address() },
        });
        let (kind, binary) = ("recovery-worker", "spillway-recovery-worker");
        self.plan(Program {
            name,
            kind,
            binary,
            command: &[],
            settings,
            ready: Ready::Admin(admin),
        })
    }

    fn keeper(&self) -> Result<Plan, StackError> {
        let admin = Arc::new(Port::take()?);
        let redis = self.links.route(End::Keeper, End::Redis, self.servers.redis.socket());
        let settings = json!({
            "shards_file": self.shards_file(End::Keeper),
            "admin": { "listen": admin.address() },
            "kafka": { "brokers": self.links.bootstrap(End::Keeper, self.servers) },
            "mysql": self.mysql_user("spillway_keeper"),
            "redis": { "url": format!("redis://{redis}") },
        });
        let (name, kind, binary) = ("keeper".to_owned(), "keeper", "spillway-keeper");
        self.plan(Program {
            name,
            kind,
            binary,
            command: &[],
            settings,
            ready: Ready::Admin(admin),
        })
    }

    fn status_page_server(&self, port: &Arc<Port>) -> Result<Plan, StackError> {
        let spec = ProcessSpec {
            name: "status-page".into(),
            program: binaries::program("spillway", self.options.release),
            args: vec![
                "--config".into(),
                console_config(self.dir).display().to_string(),
                "status".into(),
                "serve".into(),
            ],
            env: Vec::new(),
            cwd: self.dir.root().to_owned(),
            log: self.dir.log("status-page"),
        };
        Ok(Plan { spec, ready: Ready::Http(Arc::clone(port)), wave: Wave::Doors })
    }

    /// An agent with a state of its own, at the stack's API and S3.
    pub fn agent(&self, agent: &AgentOptions) -> Result<Plan, StackError> {
        let admin = Arc::new(Port::take()?);
        let endpoints: Vec<_> = self
            .apis
            .iter()
            .map(|port| self.links.route(End::Agent, End::IngestApi, port.socket()))
            .map(|address| format!("http://{address}"))
            .collect();
        let s3 = self.links.route(End::Agent, End::S3, self.servers.s3_port.socket());
        let state = agent.state_dir.clone().unwrap_or_else(|| self.dir.data(&agent.name));
        let settings = json!({
            "agent": {
                "environment": agent.environment,
                "host": agent.host,
                "token_file": self.dir.secret(&format!("token-{}", agent.environment)),
                "state_dir": state,
            },
            // UDP beside the admin page's TCP: one port is held for both.
            "statsd": { "listen": admin.address() },
            "deliver": { "endpoints": endpoints },
            "spill": {
                "enabled": true,
                "endpoint": format!("http://{s3}"),
                "bucket": BUCKET,
                "access_key": self.servers.s3.agent_access_key,
                "secret_key_file": self.dir.secret("s3-agent"),
                "public_key": self.seeds.public_key,
                "key_id": self.seeds.key_id,
            },
            "admin": { "listen": admin.address() },
        });
        let program = Program {
            name: agent.name.clone(),
            kind: "agent",
            binary: "spillway-agent",
            command: &["run"],
            settings,
            ready: Ready::Admin(admin),
        };
        self.plan_with(program, &agent.toml)
    }

    fn shards_file(&self, end: End) -> PathBuf {
        let own = self.links.find(end, End::Mysql).map(|_| end);
        shards_file(self.dir.root(), own)
    }

    fn mysql_user(&self, user: &str) -> Value {
        json!({ "user": user, "password_file": self.dir.secret(user) })
    }

    fn plan(&self, program: Program<'_>) -> Result<Plan, StackError> {
        self.plan_with(program, "")
    }

    fn plan_with(&self, program: Program<'_>, last: &str) -> Result<Plan, StackError> {
        let Program { name, kind, binary, command, settings, ready } = program;
        let config = self.dir.config(&format!("{name}.toml"));
        let mut laid_over: Vec<&str> = Vec::new();
        for o in &self.options.overrides {
            if o.program == name || o.program == kind {
                laid_over.push(&o.toml);
            }
        }
        laid_over.push(last);
        settings_file::write(&config, settings, &laid_over)?;
        let mut args: Vec<String> = command.iter().map(ToString::to_string).collect();
        args.extend(["--config".into(), config.display().to_string()]);
        let env = self.options.env.iter().filter(|v| v.program == name || v.program == kind);
        let spec = ProcessSpec {
            program: binaries::program(binary, self.options.release),
            args,
            env: env.map(|v| (v.key.clone(), v.value.clone())).collect(),
            cwd: self.dir.root().to_owned(),
            log: self.dir.log(&name),
            name,
        };
        let wave = match kind {
            "agent" => Wave::Agents,
            "consumer" => Wave::Consumers,
            _ => Wave::Doors,
        };
        Ok(Plan { spec, ready, wave })
    }
}

/// Where operators' commands find their settings.
pub(crate) fn console_config(dir: &StackDir) -> PathBuf {
    dir.config("console.toml")
}

/// Whom the API servers admit; absent until an operator writes it.
pub(crate) fn admission_toml(root: &Path) -> PathBuf {
    root.join("config").join("admission.toml")
}

/// The folder's file for one shard map: its own where MySQL is reached through proxies.
pub(crate) fn shards_file(root: &Path, own: Option<End>) -> PathBuf {
    match own {
        Some(from) => root.join("config").join(format!("shards-{from:?}.toml").to_lowercase()),
        None => root.join("shards.toml"),
    }
}
