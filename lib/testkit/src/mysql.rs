//! A real MySQL 8.0.31 or MariaDB 10.11: primary, or replica that follows one by GTID. Settings are
//! those of deploy/mysql (binlog and every commit synced), only the memory is small; sql_mode is
//! each server's own default there, and so it is here. Where the two differ: `database.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions, MySqlSslMode};

use crate::artifacts::run;
use crate::database::{Database, DatabaseFiles};
use crate::error::StackError;
use crate::ports::Port;
use crate::process::ProcessSpec;

/// May do everything on every server of a stack. The servers listen on 127.0.0.1 only and hold test
/// data, so this password guards nothing.
pub const ADMIN_USER: &str = "stack";
pub const ADMIN_PASSWORD: &str = "stack";
pub(crate) const REPLICATION_USER: &str = "stack_replication";
pub(crate) const REPLICATION_PASSWORD: &str = "stack";
const POOL_ACQUIRE: Duration = Duration::from_secs(10);

/// One server: where it lies and what it is.
#[derive(Debug)]
pub struct MysqlServer {
    pub name: String,
    pub shard: String,
    pub server_id: u32,
    pub database: Database,
    pub port: Port,
    /// The primary's port, if this one is a replica.
    pub follows: Option<u16>,
    pub data: PathBuf,
    /// Options of the server after ours; they win.
    pub last_options: Vec<String>,
}

impl MysqlServer {
    /// Copies the template unless the data is there already.
    pub fn prepare(&self, template: &Path) -> Result<(), StackError> {
        if self.data.is_dir() {
            return Ok(());
        }
        let half = self.data.with_extension("copying");
        run(Command::new("cp").arg("-r").arg(template).arg(&half))?;
        fs::rename(&half, &self.data).map_err(StackError::io("placing a MySQL data directory"))
    }

    #[must_use]
    pub fn spec(&self, files: &DatabaseFiles, log: PathBuf) -> ProcessSpec {
        let mut args = files.first_args(&self.data);
        args.extend([
            format!("--port={}", self.port.number()),
            format!("--server-id={}", self.server_id),
            "--bind-address=127.0.0.1".into(),
            // Relative to the data directory: a socket's full path may have 107 bytes only.
            "--socket=mysqld.sock".into(),
            "--pid-file=mysqld.pid".into(),
            "--skip-name-resolve".into(),
            "--default-time-zone=+00:00".into(),
            "--log-bin=binlog".into(),
            "--relay-log=relay".into(),
            "--relay-log-recovery=ON".into(),
            "--binlog-format=ROW".into(),
            "--binlog-row-image=MINIMAL".into(),
            "--sync-binlog=1".into(),
            "--innodb-flush-log-at-trx-commit=1".into(),
            "--innodb-buffer-pool-size=256M".into(),
            "--innodb-flush-method=O_DIRECT".into(),
            "--max-connections=300".into(),
            "--max-allowed-packet=64M".into(),
            "--event-scheduler=OFF".into(),
            "--local-infile=OFF".into(),
        ]);
        args.extend(self.database.own_options(self.follows.is_some()));
        // In place of ours: mysqld never forgets a --skip-name-resolve that it saw first.
        let name = |option: &str| option.split('=').next().map(str::to_owned);
        let replaced: Vec<_> = self.last_options.iter().map(|option| name(option)).collect();
        args.retain(|arg| !replaced.contains(&name(arg)));
        args.extend(self.last_options.iter().cloned());
        let (program, env, cwd) = (files.program(), files.env(), self.data.clone());
        ProcessSpec { name: self.name.clone(), program, args, env, cwd, log }
    }

    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("mysql://{ADMIN_USER}:{ADMIN_PASSWORD}@{}", self.port.address())
    }

    /// A pool with every privilege; connects when first used.
    #[must_use]
    pub fn admin_pool(&self) -> MySqlPool {
        let options = MySqlConnectOptions::new()
            .host("127.0.0.1")
            .port(self.port.number())
            .username(ADMIN_USER)
            .password(ADMIN_PASSWORD)
            .ssl_mode(MySqlSslMode::Preferred);
        MySqlPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(POOL_ACQUIRE)
            .connect_lazy_with(options)
    }

    /// The real question: does a query come back, and from the kind of server that was asked for?
    /// One connection, closed again.
    pub async fn answers(&self) -> Result<(), String> {
        let pool = self.admin_pool();
        let answer = sqlx::query_scalar::<_, String>("SELECT VERSION()").fetch_one(&pool).await;
        pool.close().await;
        let version = answer.map_err(|e| e.to_string())?;
        match version.contains("MariaDB") == (self.database == Database::Mariadb) {
            true => Ok(()),
            false => Err(format!("it is {version}")),
        }
    }

    /// Starts replication if this server has never followed anyone.
    pub async fn follow(&self) -> Result<(), StackError> {
        let Some(primary) = self.follows else { return Ok(()) };
        let pool = self.admin_pool();
        let what = format!("starting replication on {}", self.name);
        let status = sqlx::raw_sql("SHOW REPLICA STATUS").fetch_all(&pool).await;
        if status.map_err(StackError::sql(&what))?.is_empty() {
            let source = self.database.source(primary);
            for statement in [source.as_str(), "START REPLICA"] {
                sqlx::raw_sql(statement).execute(&pool).await.map_err(StackError::sql(&what))?;
            }
        }
        pool.close().await;
        Ok(())
    }
}
