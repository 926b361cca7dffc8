//! Makes an empty stack a working one, the way an operator would: MySQL users, shards.toml, then
//! the console's own commands for schema, topics, tokens, seal keys and readers.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use super::dir::StackDir;
use super::link::{End, Links};
use super::options::{ENVIRONMENTS, StackOptions};
use super::programs::{PARTITION_GROUP, PARTITIONS, admission_toml, console_config};
use super::servers::{BUCKET, Servers};
use super::{StatusPages, blocking, settings_file};
use crate::errand;
use crate::error::StackError;
use crate::mysql::{MysqlServer, REPLICATION_PASSWORD, REPLICATION_USER};
use crate::ports::Port;
use crate::progress::Progress;

/// The programs' MySQL users and their rights, as operators make them.
const USERS_SQL: &str = include_str!("../../../../deploy/mysql/users.sql");
const USERS: [&str; 4] =
    ["spillway_migrate", "spillway_consumer", "spillway_keeper", "spillway_console"];

/// What the console made.
#[derive(Debug, Clone, Default)]
pub struct Seeds {
    /// By environment.
    pub tokens: BTreeMap<String, String>,
    pub key_id: String,
    pub public_key: String,
    /// By environment; a reader of its own shard.
    pub readers: BTreeMap<String, String>,
    /// By shard; sees all environments there.
    pub all_readers: BTreeMap<String, String>,
    /// Environment to shard.
    pub shard_of: BTreeMap<String, String>,
}

/// Runs the console's commands against one stack.
pub(crate) struct Seeding<'a> {
    pub options: &'a StackOptions,
    pub dir: &'a StackDir,
    pub servers: &'a Servers,
    pub links: &'a Links,
    pub console: PathBuf,
    pub apis: &'a [Arc<Port>],
    pub pages: Option<&'a StatusPages>,
    pub progress: &'a Progress,
}

impl Seeding<'_> {
    pub async fn run(&self) -> Result<Seeds, StackError> {
        self.write_secrets()?;
        self.write_shards()?;
        self.write_console_settings(&[])?;
        for shard in self.servers.shards() {
            if let Some(primary) = self.servers.primary(shard) {
                create_users(primary, self.dir).await?;
            }
        }
        self.progress.tell("making schema and topics");
        // The schema's owner is a user of its own, whose password operators keep apart.
        let owner = self.dir.secret("spillway_migrate").display().to_string();
        let owner = [
            ("SPILLWAY__MYSQL__USER", "spillway_migrate"),
            ("SPILLWAY__MYSQL__PASSWORD_FILE", &owner),
        ];
        self.console_as(&["migrate"], &owner).await?;
        self.console(&["topics", "create"]).await?;
        self.progress.tell("making tokens, keys and readers");
        let key = self.console(&["keys", "create"]).await?;
        let mut seeds = Seeds {
            key_id: text(&key, "key_id")?,
            public_key: text(&key, "public_key")?,
            ..Seeds::default()
        };
        for environment in ENVIRONMENTS {
            self.seed_environment(environment, &mut seeds).await?;
        }
        self.seed_all_reader(&mut seeds).await?;
        Ok(seeds)
    }

    async fn seed_environment(
        &self,
        environment: &str,
        seeds: &mut Seeds,
    ) -> Result<(), StackError> {
        let token = self.console(&["token", "create", "--environment", environment]).await?;
        let token = text(&token, "token")?;
        write_secret(&self.dir.secret(&format!("token-{environment}")), &token)?;
        let reader = self.console(&["reader", "create", "--environment", environment]).await?;
        let place = self.console(&["where", environment]).await?;
        seeds.tokens.insert(environment.into(), token);
        let dsn = reader.pointer("/readers/0").unwrap_or(&Value::Null);
        seeds.readers.insert(environment.into(), text(dsn, "dsn")?);
        seeds.shard_of.insert(environment.into(), text(&place, "shard")?);
        Ok(())
    }

    fn write_secrets(&self) -> Result<(), StackError> {
        let s3 = &self.servers.s3;
        write_secret(&self.dir.secret("s3-main"), &s3.secret_key)?;
        write_secret(&self.dir.secret("s3-agent"), &s3.agent_secret_key)?;
        for user in USERS {
            write_secret(&self.dir.secret(user), &crate::random_hex()?)?;
        }
        Ok(())
    }

    /// One shard map for all, and one of its own for each kind that reaches MySQL through proxies.
    fn write_shards(&self) -> Result<(), StackError> {
        let own = self.options.links.iter().filter(|(_, to)| *to == End::Mysql);
        for from in own.map(|(from, _)| Some(*from)).chain([None]) {
            let file = super::programs::shards_file(self.dir.root(), from);
            settings_file::write(&file, self.shard_map(from), &[])?;
        }
        Ok(())
    }

    fn shard_map(&self, from: Option<End>) -> Value {
        let url = |server: &MysqlServer| {
            let address = server.port.socket();
            let address = from.map_or(address, |from| self.links.route(from, End::Mysql, address));
            format!("mysql://{address}")
        };
        let groups = usize::from(PARTITIONS / PARTITION_GROUP);
        let names: Vec<&str> = self.servers.shards().collect();
        let shard = |(number, name): (usize, &&str)| {
            let first = number * groups / names.len();
            let last = (number + 1) * groups / names.len() - 1;
            let replicas = self.servers.replicas(name);
            let replicas: Vec<_> = replicas.iter().map(|r| json!({ "url": url(r) })).collect();
            json!({
                "name": name,
                "primary": self.servers.primary(name).map(|p| url(p)),
                "replicas": replicas,
                "groups": format!("{first}-{last}"),
                "epoch": 1,
            })
        };
        let shards: Vec<_> = names.iter().enumerate().map(shard).collect();
        json!({ "partitions": PARTITIONS, "group": PARTITION_GROUP, "shard": shards })
    }

    /// `programs`: name and admin port of each whose metrics the status page reads.
    pub fn write_console_settings(&self, programs: &[(String, String)]) -> Result<(), StackError> {
        let admin = |(name, address): &(String, String)| json!({ "name": name, "admin": address });
        let apis: Vec<_> =
            self.apis.iter().map(|port| format!("http://{}", port.address())).collect();
        let settings = json!({
            "shards_file": super::programs::shards_file(self.dir.root(), None),
            "tokens_file": self.dir.tokens_toml(),
            "keys_dir": self.dir.keys(),
            "journal_file": self.dir.data("journal.jsonl"),
            "maintenance_file": self.dir.data("maintenance.json"),
            "admission_file": admission_toml(self.dir.root()),
            // Servers that were started a moment ago, on a machine that has much else to do.
            "remote_deadline": "1m",
            "kafka": { "brokers": self.servers.bootstrap().split(',').collect::<Vec<_>>() },
            "mysql": {
                "user": "spillway_console",
                "password_file": self.dir.secret("spillway_console"),
            },
            "replication": { "user": REPLICATION_USER, "password": REPLICATION_PASSWORD },
            "s3": {
                "endpoint": format!("http://{}", self.servers.s3_port.address()),
                "bucket": BUCKET,
                "access_key": self.servers.s3.access_key,
                "secret_key_file": self.dir.secret("s3-main"),
            },
            "api": {
                "endpoints": apis,
                "token_file": self.dir.secret(&format!("token-{}", ENVIRONMENTS[0])),
            },
            "status": {
                "listen": self.pages.map(|pages| pages.page.address()),
                "history_file": self.dir.data("status-history.json"),
                "incidents_file": self.dir.data("incidents.jsonl"),
                "programs": programs.iter().map(admin).collect::<Vec<_>>(),
            },
            "admin": { "listen": self.pages.map(|pages| pages.admin.address()) },
        });
        let of_console = self.options.overrides.iter().filter(|o| o.program == "console");
        let laid_over: Vec<&str> = of_console.map(|o| o.toml.as_str()).collect();
        settings_file::write(&console_config(self.dir), settings, &laid_over)
    }

    async fn seed_all_reader(&self, seeds: &mut Seeds) -> Result<(), StackError> {
        let reader = self.console(&["reader", "create", "--all"]).await?;
        let rows = reader.get("readers").and_then(Value::as_array);
        for row in rows.into_iter().flatten() {
            seeds.all_readers.insert(text(row, "shard")?, text(row, "dsn")?);
        }
        Ok(())
    }

    async fn console(&self, command: &[&str]) -> Result<Value, StackError> {
        self.console_as(command, &[]).await
    }

    /// Runs one console command; its answer is one JSON object.
    async fn console_as(
        &self,
        command: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Value, StackError> {
        let mut run = Command::new(&self.console);
        run.arg("--config").arg(console_config(self.dir)).args(command);
        run.args(["--yes", "--output", "json"]).envs(env.iter().copied());
        let what = format!("spillway {}", command.join(" "));
        blocking(move || run_console(&what, &mut run)).await
    }
}

fn run_console(what: &str, command: &mut Command) -> Result<Value, StackError> {
    let done = errand::output(command).map_err(StackError::io(format!("running {what}")))?;
    if !done.status.success() {
        let output = [done.stdout, done.stderr].concat();
        let output = String::from_utf8_lossy(&output).into_owned();
        return Err(StackError::Command { what: what.into(), status: done.status, output });
    }
    serde_json::from_slice(&done.stdout).map_err(|e| StackError::Refused {
        what: format!("{what} answered no JSON ({e}): {}", String::from_utf8_lossy(&done.stdout)),
    })
}

fn text(answer: &Value, key: &str) -> Result<String, StackError> {
    answer.get(key).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| StackError::Refused {
        what: format!("the console's answer has no text \"{key}\": {answer}"),
    })
}

/// Readable by us alone.
fn write_secret(file: &Path, secret: &str) -> Result<(), StackError> {
    use std::io::Write;
    let options =
        fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).clone();
    let written = options.open(file).and_then(|mut file| file.write_all(secret.as_bytes()));
    written.map_err(StackError::io(format!("writing {}", file.display())))
}

/// Makes the users with this stack's passwords. Replicas get the users by replication.
async fn create_users(server: &MysqlServer, dir: &StackDir) -> Result<(), StackError> {
    let what = format!("making the programs' users on {}", server.name);
    let mut sql = USERS_SQL.to_owned();
    for user in USERS {
        let file = dir.secret(user);
        let password = fs::read_to_string(&file).map_err(StackError::io(&what))?;
        sql = sql.replace(&format!("${{{user}_password}}"), &password);
    }
    let pool = server.admin_pool();
    let done = sqlx::raw_sql(&sql).execute(&pool).await;
    pool.close().await;
    done.map(|_| ()).map_err(StackError::sql(&what))
}
