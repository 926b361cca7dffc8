//! The two kinds of server that a shard may be, and all in which they differ: where they come from,
//! how an empty one is made, the options that only one of them knows, and how one follows another.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use crate::artifacts::{part, run, run_fed};
use crate::debian;
use crate::error::StackError;
use crate::mysql::REPLICATION_USER;
use crate::progress::Progress;

/// Chooses the server of those tests that are held on both; `cargo xtask test` runs them twice.
pub const TESTS_VARIABLE: &str = "SPILLWAY_TEST_DATABASE";

/// Which server the shards of a stack are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Database {
    /// 8.0.31
    #[default]
    Mysql,
    /// 10.11
    Mariadb,
}

impl Database {
    pub const ALL: [Self; 2] = [Self::Mysql, Self::Mariadb];

    /// As commands and `SPILLWAY_TEST_DATABASE` name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
        }
    }

    /// What `SPILLWAY_TEST_DATABASE` names, else MySQL.
    ///
    /// # Panics
    /// If it names anything else: a test must not pass on another server than it was asked for.
    #[must_use]
    pub fn of_tests() -> Self {
        match std::env::var(TESTS_VARIABLE) {
            Ok(name) => name.parse().unwrap_or_else(|e| panic!("{TESTS_VARIABLE}: {e}")),
            Err(_) => Self::default(),
        }
    }

    /// Initialising and running have these in common.
    fn format_options(self) -> &'static [&'static str] {
        match self {
            Self::Mysql => &[
                "--character-set-server=utf8mb4",
                "--collation-server=utf8mb4_0900_ai_ci",
                "--innodb-redo-log-capacity=128M",
                "--gtid-mode=ON",
                "--enforce-gtid-consistency=ON",
            ],
            Self::Mariadb => &["--character-set-server=utf8mb4", "--innodb-log-file-size=128M"],
        }
    }

    /// Options that the other kind does not know, or has otherwise.
    pub(crate) fn own_options(self, is_replica: bool) -> impl Iterator<Item = String> {
        let (always, replica): (&[&str], &[&str]) = match self {
            Self::Mysql => (
                &["--mysqlx=OFF", "--log-error-verbosity=2"],
                &["--read-only=ON", "--super-read-only=ON"],
            ),
            // MySQL does so without being told.
            Self::Mariadb => {
                (&["--log-slave-updates=ON", "--gtid-strict-mode=ON"], &["--read-only=ON"])
            }
        };
        let replica = if is_replica { replica } else { &[] };
        always.iter().chain(replica).map(|option| (*option).to_owned())
    }

    /// Makes a server that has never followed anyone follow the primary at this port.
    pub(crate) fn source(self, primary: u16) -> String {
        match self {
            Self::Mysql => format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={primary}, \
                 SOURCE_USER='{REPLICATION_USER}', SOURCE_PASSWORD='stack', SOURCE_SSL=1, \
                 SOURCE_AUTO_POSITION=1, SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=1000000"
            ),
            Self::Mariadb => format!(
                "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={primary}, \
                 MASTER_USER='{REPLICATION_USER}', MASTER_PASSWORD='stack', \
                 MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1"
            ),
        }
    }
}

impl FromStr for Database {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.name() == name);
        found.ok_or_else(|| format!("{name} is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// One kind of server on this machine.
#[derive(Debug, Clone)]
pub struct DatabaseFiles {
    database: Database,
    pub base: PathBuf,
    /// Libraries that came with the server, for its own process only.
    libraries: Option<PathBuf>,
    /// A freshly initialised data directory, to be copied.
    pub template: PathBuf,
}

/// Accounts made with the template are in every copy and in no binary log.
const ACCOUNTS_SQL: &str = "\
CREATE USER 'stack'@'%' IDENTIFIED BY 'stack';
GRANT ALL ON *.* TO 'stack'@'%' WITH GRANT OPTION;
CREATE USER 'stack_replication'@'%' IDENTIFIED BY 'stack';
GRANT REPLICATION SLAVE ON *.* TO 'stack_replication'@'%';
";

const MARIADB: &str = "mariadb-10.11";
/// MariaDB's server, and those of its libraries that a Debian 12 may lack.
const MARIADB_PACKAGES: [&str; 5] =
    ["mariadb-server-core", "liburing2", "libaio1", "libnuma1", "libssl3"];
/// What `mariadb-install-db` feeds the server as well, without the anonymous users and its database
/// `test`. It is a script around tools of the client's packages.
const MARIADB_SYSTEM_SQL: [&str; 5] = [
    "mysql_system_tables.sql",
    "mysql_performance_tables.sql",
    "mysql_system_tables_data.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "mysql_sys_schema.sql",
];

impl DatabaseFiles {
    /// MySQL from what Maven brought.
    pub(crate) fn mysql(
        cache: &Path,
        unpacked: &Path,
        progress: &Progress,
    ) -> Result<Self, StackError> {
        let (database, base) = (Database::Mysql, unpacked.join("mysql"));
        let template = cache.join("mysql-8.0.31-data-1");
        let files = Self { database, base, libraries: None, template };
        part(cache, "mysql-8.0.31-data-1", |dir| {
            progress.tell("initialising a MySQL data directory (once)");
            files.initialise_mysql(dir)
        })?;
        Ok(files)
    }

    /// MariaDB from Debian's packages.
    pub(crate) fn mariadb(cache: &Path, progress: &Progress) -> Result<Self, StackError> {
        let unpacked = debian::unpacked_into(cache, MARIADB, &MARIADB_PACKAGES, progress)?;
        let (database, base) = (Database::Mariadb, unpacked.join("usr"));
        let libraries = Some(base.join("lib/x86_64-linux-gnu"));
        let template = cache.join("mariadb-10.11-data-1");
        let files = Self { database, base, libraries, template };
        part(cache, "mariadb-10.11-data-1", |dir| {
            progress.tell("initialising a MariaDB data directory (once)");
            files.initialise_mariadb(dir)
        })?;
        Ok(files)
    }

    #[must_use]
    pub fn program(&self) -> PathBuf {
        match self.database {
            Database::Mysql => self.base.join("bin/mysqld"),
            Database::Mariadb => self.base.join("sbin/mariadbd"),
        }
    }

    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        let own = |dir: &PathBuf| ("LD_LIBRARY_PATH".to_owned(), dir.display().to_string());
        self.libraries.iter().map(own).collect()
    }

    /// What comes first on every command line: where things are, and the data's format.
    #[must_use]
    pub fn first_args(&self, data: &Path) -> Vec<String> {
        let mut args = vec!["--no-defaults".to_owned()];
        if rustix::process::geteuid().is_root() {
            args.push("--user=root".to_owned());
        }
        args.push(format!("--basedir={}", self.base.display()));
        args.push(format!("--datadir={}", data.display()));
        args.extend(self.database.format_options().iter().map(|option| (*option).to_owned()));
        args
    }

    fn command(&self, data: &Path) -> Command {
        let mut command = Command::new(self.program());
        command.args(self.first_args(data)).envs(self.env());
        command
    }

    fn initialise_mysql(&self, dir: &Path) -> Result<(), StackError> {
        let init = dir.with_extension("init.sql");
        fs::write(&init, ACCOUNTS_SQL).map_err(StackError::io("writing the MySQL init file"))?;
        let file = format!("--init-file={}", init.display());
        run(self.command(dir).args(["--initialize-insecure", &file]))?;
        fs::remove_file(&init).map_err(StackError::io("removing the MySQL init file"))?;
        // Each copy gets a server UUID of its own.
        fs::remove_file(dir.join("auto.cnf")).map_err(StackError::io("removing auto.cnf"))
    }

    fn initialise_mariadb(&self, dir: &Path) -> Result<(), StackError> {
        self.must_be_mariadb_10_11()?;
        let io = || StackError::io("writing MariaDB's first statements");
        let work = tempfile::tempdir().map_err(io())?;
        let path = work.path().join("first.sql");
        let mut sql = File::create(&path).map_err(io())?;
        // A bootstrapping server reads a statement per line, and knows no users before it is told.
        sql.write_all(b"CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n")
            .map_err(io())?;
        for name in MARIADB_SYSTEM_SQL {
            let text = fs::read(self.base.join("share/mysql").join(name)).map_err(io())?;
            sql.write_all(&text).map_err(io())?;
        }
        let accounts = format!("\nFLUSH PRIVILEGES;\n{ACCOUNTS_SQL}");
        sql.write_all(accounts.as_bytes()).map_err(io())?;
        let first = File::open(&path).map_err(io())?;
        run_fed(self.command(dir).args(["--bootstrap", "--log-warnings=0"]), first.into())
    }

    /// Another Debian has another MariaDB under the same name.
    fn must_be_mariadb_10_11(&self) -> Result<(), StackError> {
        let mut command = self.command(Path::new("/"));
        let said = crate::errand::output(command.arg("--version"));
        let said = said.map_err(StackError::io("asking mariadbd for its version"))?;
        let told = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        if told.contains("Ver 10.11.") {
            return Ok(());
        }
        let what = format!("MariaDB 10.11 is that of Debian 12, and this is none: {}", told.trim());
        Err(StackError::Refused { what })
    }
}
