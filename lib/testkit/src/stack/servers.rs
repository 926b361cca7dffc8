//! The foreign programs of a stack: Kafka, MySQL, Redis and S3, laid out, prepared and started.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::dir::StackDir;
use super::link::End;
use super::options::StackOptions;
use super::ready::Ready;
use super::stop::Wave;
use crate::artifacts::Artifacts;
use crate::error::StackError;
use crate::kafka::{self, Broker, Door};
use crate::mysql::MysqlServer;
use crate::ports::Port;
use crate::process::ProcessSpec;
use crate::random_hex;
use crate::redis;
use crate::s3_server::{self, S3Config};

pub const BUCKET: &str = "spillway";

/// Where everything listens. Ports stay taken for the life of the stack.
#[derive(Debug)]
pub struct Servers {
    pub brokers: Vec<Arc<Broker>>,
    pub mysql: Vec<Arc<MysqlServer>>,
    pub redis: Arc<Port>,
    pub s3_port: Arc<Port>,
    pub s3: S3Config,
}

/// One process with the question that tells whether it is ready.
#[derive(Debug)]
pub struct Plan {
    pub spec: ProcessSpec,
    pub ready: Ready,
    pub wave: Wave,
}

impl Plan {
    /// Name and base URL of the admin address, if it has one.
    #[must_use]
    pub fn admin_url(&self) -> Option<(String, String)> {
        let port = self.ready.admin()?;
        Some((self.spec.name.clone(), format!("http://{}", port.address())))
    }
}

impl Servers {
    pub fn lay_out(options: &StackOptions, dir: &StackDir) -> Result<Self, StackError> {
        let mut brokers = Vec::new();
        for id in 0..options.brokers {
            let name = format!("kafka-{id}");
            brokers.push(Arc::new(Broker {
                dir: dir.data(&name),
                name,
                node_id: id,
                port: Port::take()?,
                controller: Port::take()?,
                doors: doors(options)?,
            }));
        }
        let s3_port = Arc::new(Port::take()?);
        let s3 = S3Config {
            listen: s3_port.socket(),
            root: dir.data("s3"),
            bucket: BUCKET.into(),
            access_key: "spillway".into(),
            secret_key: random_hex()?,
            agent_access_key: "agent".into(),
            agent_secret_key: random_hex()?,
            unsigned_put: options.s3_unsigned_put,
        };
        let mysql = lay_out_mysql(options, dir)?;
        Ok(Self { brokers, mysql, redis: Arc::new(Port::take()?), s3_port, s3 })
    }

    /// `host:port,host:port`
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<_> = self.brokers.iter().map(|b| b.port.address()).collect();
        addresses.join(",")
    }

    /// Formats, copies and writes what the servers need before they can start.
    pub async fn prepare(&self, artifacts: &Artifacts, dir: &StackDir) -> Result<(), StackError> {
        let mut work = JoinSet::new();
        let cluster_id = kafka::new_id();
        let quorum: Vec<_> =
            self.brokers.iter().map(|b| (b.node_id, b.controller.number())).collect();
        for broker in &self.brokers {
            let broker = Arc::clone(broker);
            let (artifacts, id, quorum) = (artifacts.clone(), cluster_id.clone(), quorum.clone());
            work.spawn_blocking(move || broker.prepare(&artifacts, &id, &quorum));
        }
        for server in &self.mysql {
            let server = Arc::clone(server);
            let template = artifacts.database.template.clone();
            work.spawn_blocking(move || server.prepare(&template));
        }
        fs::create_dir_all(dir.data("redis")).map_err(StackError::io("preparing redis"))?;
        fs::create_dir_all(&self.s3.root).map_err(StackError::io("preparing s3"))?;
        let config = serde_json::to_string_pretty(&self.s3).unwrap_or_default();
        super::dir::write_atomically(&self.s3_config(dir), &config)?;
        while let Some(done) = work.join_next().await {
            done.map_err(|e| StackError::Refused { what: format!("preparing servers: {e}") })??;
        }
        Ok(())
    }

    fn s3_config(&self, dir: &StackDir) -> PathBuf {
        dir.config("s3.json")
    }

    /// In starting order.
    #[must_use]
    pub fn plans(&self, artifacts: &Artifacts, dir: &StackDir, xtask: &Path) -> Vec<Plan> {
        let mut plans = Vec::new();
        for broker in &self.brokers {
            let spec = broker.spec(artifacts, dir.log(&broker.name));
            plans.push(Plan { spec, ready: Ready::Kafka(Arc::clone(broker)), wave: Wave::Servers });
        }
        for server in &self.mysql {
            let spec = server.spec(&artifacts.database, dir.log(&server.name));
            plans.push(Plan { spec, ready: Ready::Mysql(Arc::clone(server)), wave: Wave::Servers });
        }
        let (binary, cwd) = (&artifacts.redis_server, dir.data("redis"));
        let spec = redis::spec(binary, &self.redis, cwd, dir.log("redis"));
        plans.push(Plan {
            spec,
            ready: Ready::Redis(Arc::clone(&self.redis)),
            wave: Wave::Servers,
        });
        let (config, cwd) = (self.s3_config(dir), dir.data("s3"));
        let spec = s3_server::spec(xtask, &config, cwd, dir.log("s3"));
        plans.push(Plan { spec, ready: Ready::S3(Arc::clone(&self.s3_port)), wave: Wave::Servers });
        plans
    }

    #[must_use]
    pub fn primary(&self, shard: &str) -> Option<&Arc<MysqlServer>> {
        self.mysql.iter().find(|s| s.shard == shard && s.follows.is_none())
    }

    #[must_use]
    pub fn replicas(&self, shard: &str) -> Vec<&Arc<MysqlServer>> {
        self.mysql.iter().filter(|s| s.shard == shard && s.follows.is_some()).collect()
    }

    /// `s0`, `s1`, …
    pub fn shards(&self) -> impl Iterator<Item = &str> {
        self.mysql.iter().filter(|s| s.follows.is_none()).map(|s| s.shard.as_str())
    }
}

/// A door for every kind of program that reaches Kafka through a proxy.
fn doors(options: &StackOptions) -> Result<Vec<Door>, StackError> {
    let through = options.links.iter().filter(|(_, to)| *to == End::Kafka);
    let door = |&(from, _): &(End, End)| {
        let (port, advertised) = (Port::take()?, Arc::new(Port::take()?));
        Ok(Door { listener: from.listener(), port, advertised })
    };
    through.map(door).collect()
}

fn lay_out_mysql(
    options: &StackOptions,
    dir: &StackDir,
) -> Result<Vec<Arc<MysqlServer>>, StackError> {
    let mut servers = Vec::new();
    let mut server_id = 0;
    for number in 0..options.shards {
        let shard = format!("s{number}");
        let mut follows = None;
        for member in 0..=options.replicas {
            let name = match member {
                0 => format!("mysql-{shard}"),
                _ => format!("mysql-{shard}-replica-{}", member - 1),
            };
            let (shard, data, port) = (shard.clone(), dir.data(&name), Port::take()?);
            let number = port.number();
            server_id += 1;
            servers.push(Arc::new(MysqlServer {
                name,
                shard,
                server_id,
                database: options.database,
                port,
                follows,
                data,
                last_options: options.mysqld.clone(),
            }));
            follows = follows.or(Some(number));
        }
    }
    Ok(servers)
}
