//! A real MySQL 8.0.31 server: primary, or replica that follows one by GTID. Settings are those of
//! deploy/mysql (binlog and every commit synced), only the memory is small.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions, MySqlSslMode};

use crate::artifacts::run;
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
    pub port: Port,
    /// The primary's port, if this one is a replica.
    pub follows: Option<u16>,
    pub data: PathBuf,
    /// Options of mysqld after ours; they win.
    pub last_options: Vec<String>,
}

/// Run with `--initialize`: accounts made here are in every copy and in no binary log.
const INIT_SQL: &str = "\
CREATE USER 'stack'@'%' IDENTIFIED BY 'stack';
GRANT ALL ON *.* TO 'stack'@'%' WITH GRANT OPTION;
CREATE USER 'stack_replication'@'%' IDENTIFIED BY 'stack';
GRANT REPLICATION SLAVE ON *.* TO 'stack_replication'@'%';
";

/// Makes the data directory that every server starts from. Blocks for some seconds.
pub(crate) fn initialise_template(base: &Path, dir: &Path) -> Result<(), StackError> {
    let init = dir.with_extension("init.sql");
    fs::write(&init, INIT_SQL).map_err(StackError::io("writing the MySQL init file"))?;
    let mut command = Command::new(base.join("bin/mysqld"));
    command
        .args(["--no-defaults", "--initialize-insecure"])
        .arg(format!("--basedir={}", base.display()))
        .arg(format!("--datadir={}", dir.display()))
        .arg(format!("--init-file={}", init.display()))
        .args(run_as())
        .args(shared_options());
    run(&mut command)?;
    fs::remove_file(&init).map_err(StackError::io("removing the MySQL init file"))?;
    // Each copy gets a server UUID of its own.
    fs::remove_file(dir.join("auto.cnf")).map_err(StackError::io("removing auto.cnf"))
}

fn run_as() -> Vec<String> {
    if rustix::process::geteuid().is_root() { vec!["--user=root".into()] } else { Vec::new() }
}

/// What initialising and running have in common.
fn shared_options() -> [&'static str; 5] {
    [
        "--character-set-server=utf8mb4",
        "--collation-server=utf8mb4_0900_ai_ci",
        "--innodb-redo-log-capacity=128M",
        "--gtid-mode=ON",
        "--enforce-gtid-consistency=ON",
    ]
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
    pub fn spec(&self, base: &Path, log: PathBuf) -> ProcessSpec {
        let mut args: Vec<String> = vec!["--no-defaults".into()];
        args.extend(run_as());
        args.extend(shared_options().map(str::to_owned));
        args.extend([
            format!("--basedir={}", base.display()),
            format!("--datadir={}", self.data.display()),
            format!("--port={}", self.port.number()),
            format!("--server-id={}", self.server_id),
            "--bind-address=127.0.0.1".into(),
            // Relative to the data directory: a socket's full path may have 107 bytes only.
            "--socket=mysqld.sock".into(),
            "--pid-file=mysqld.pid".into(),
            "--mysqlx=OFF".into(),
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
            "--log-error-verbosity=2".into(),
        ]);
        if self.follows.is_some() {
            args.push("--read-only=ON".into());
            args.push("--super-read-only=ON".into());
        }
        // In place of ours: mysqld never forgets a --skip-name-resolve that it saw first.
        let name = |option: &str| option.split('=').next().map(str::to_owned);
        let replaced: Vec<_> = self.last_options.iter().map(|option| name(option)).collect();
        args.retain(|arg| !replaced.contains(&name(arg)));
        args.extend(self.last_options.iter().cloned());
        let program = base.join("bin/mysqld");
        let cwd = self.data.clone();
        ProcessSpec { name: self.name.clone(), program, args, env: Vec::new(), cwd, log }
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

    /// The real question: does a query come back? One connection, closed again.
    pub async fn answers(&self) -> Result<(), String> {
        let pool = self.admin_pool();
        let answer = sqlx::query("SELECT 1").execute(&pool).await;
        pool.close().await;
        answer.map(|_| ()).map_err(|e| e.to_string())
    }

    /// Starts replication if this server has never followed anyone.
    pub async fn follow(&self) -> Result<(), StackError> {
        let Some(primary) = self.follows else { return Ok(()) };
        let pool = self.admin_pool();
        let what = format!("starting replication on {}", self.name);
        let status = sqlx::raw_sql("SHOW REPLICA STATUS").fetch_all(&pool).await;
        if status.map_err(StackError::sql(&what))?.is_empty() {
            let source = format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={primary}, \
                 SOURCE_USER='{REPLICATION_USER}', SOURCE_PASSWORD='stack', SOURCE_SSL=1, \
                 SOURCE_AUTO_POSITION=1, SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=1000000"
            );
            for statement in [source.as_str(), "START REPLICA"] {
                sqlx::raw_sql(statement).execute(&pool).await.map_err(StackError::sql(&what))?;
            }
        }
        pool.close().await;
        Ok(())
    }
}
