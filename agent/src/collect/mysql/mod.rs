//! A MySQL or MariaDB server, as something to be measured: one connection, read-only, every
//! statement bounded by the server itself and by our deadline. Nothing else of the agent knows
//! MySQL; the pipeline's own servers are none of its business.
//!
//! One read asks, in this order: global status, global variables, InnoDB's counters that status
//! lacks, replication, top statements. Whatever of these the user may not see is named once, in
//! `status` and the log, with the GRANT that is missing; the rest is said all the same.

use std::time::Duration;

use async_trait::async_trait;
use spillway_proto::Kind;
use spillway_runtime::deadline::within;
use spillway_runtime::settings::{Secret, SecretFileError};
use sqlx::mysql::{MySqlConnectOptions, MySqlRow};
use sqlx::{ConnectOptions as _, Executor as _, MySqlConnection, Row as _};

use self::statements::Statements;
use super::Labels;
use super::paced::{Done, Pace, ReadError, Source};
use super::tray::{Pack, Sample, Unpackable};
use crate::settings::MysqlInputSettings;

mod status;

mod replication;

mod statements;

mod remedy;

pub use self::remedy::remedy;

/// What no account that is denied something can be told otherwise (`ER_SPECIFIC_ACCESS_DENIED`,
/// `ER_TABLEACCESS_DENIED`, `ER_ACCESS_DENIED`, `ER_DBACCESS_DENIED`).
const DENIED: [u16; 4] = [1227, 1142, 1045, 1044];
/// Kept of the deadline for statements: the login comes first.
const STATEMENTS_SHARE: f64 = 0.8;

/// One server.
pub struct Server {
    settings: MysqlInputSettings,
    link: Option<Link>,
    statements: Statements,
    /// GRANTs that the user lacks, as of the last read.
    denied: Vec<&'static str>,
}

/// A connection and what is at its other end.
struct Link {
    conn: MySqlConnection,
    mariadb: bool,
}

/// A time's readings of one server.
struct Readings<'a> {
    out: &'a mut Pack,
    ts_ms: i64,
}

impl Readings<'_> {
    fn push(
        &mut self,
        metric: &str,
        kind: Kind,
        unit: &'static str,
        value: f64,
    ) -> Result<(), Unpackable> {
        let ts_ms = self.ts_ms;
        self.out.push(&Sample { metric, labels: &[], kind, unit, ts_ms, value })
    }
}

impl Server {
    #[must_use]
    pub fn new(settings: &MysqlInputSettings) -> Self {
        let statements = Statements::new(settings.statements, settings.statement_chars_max);
        Self { settings: settings.clone(), link: None, statements, denied: Vec::new() }
    }

    async fn connect(&self) -> Result<Link, ReadError> {
        let mut conn = options(&self.settings)?.connect().await?;
        let version = "SELECT VERSION()";
        let row = conn.fetch_one(sqlx::raw_sql(version)).await?;
        let mariadb = text(&row, 0).is_some_and(|version| version.contains("MariaDB"));
        let seconds = self.settings.timeout.get().as_secs_f64() * STATEMENTS_SHARE;
        // No sort that spills, no statement that stays: what measures must not be the load.
        let bounds = match mariadb {
            true => format!("SET SESSION max_statement_time = {seconds:.3}"),
            false => format!("SET SESSION max_execution_time = {:.0}", seconds * 1_000.0),
        };
        conn.execute(sqlx::raw_sql(&bounds)).await?;
        conn.execute(sqlx::raw_sql("SET SESSION TRANSACTION READ ONLY")).await?;
        Ok(Link { conn, mariadb })
    }

    async fn ask(&mut self, link: &mut Link, into: &mut Readings<'_>) -> Result<(), ReadError> {
        self.denied.clear();
        status::read(link, into).await?;
        let innodb = status::innodb(link, into).await;
        self.may("PROCESS ON *.*", innodb)?;
        if self.settings.replication {
            let replication = replication::read(link, into).await;
            let grant = match link.mariadb {
                true => "REPLICA MONITOR ON *.*",
                false => "REPLICATION CLIENT ON *.*",
            };
            self.may(grant, replication)?;
        }
        if self.settings.statements > 0 {
            let said = self.statements.read(link, into).await;
            self.may("SELECT ON performance_schema.*", said)?;
        }
        Ok(())
    }

    /// What is denied is remembered by the GRANT that is missing; anything else is a failure.
    fn may(&mut self, grant: &'static str, asked: Result<(), AskError>) -> Result<(), ReadError> {
        match asked {
            Err(cause) if cause.is_denial() => self.denied.push(grant),
            other => other?,
        }
        Ok(())
    }
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    Unpackable(#[from] Unpackable),
}

impl AskError {
    fn is_denial(&self) -> bool {
        let Self::Sql(sqlx::Error::Database(cause)) = self else { return false };
        let known = cause.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>();
        known.is_some_and(|cause| DENIED.contains(&cause.number()))
    }
}

fn options(settings: &MysqlInputSettings) -> Result<MySqlConnectOptions, SecretFileError> {
    let password = Secret::default().resolve(settings.password_file.as_deref())?;
    let mut options = MySqlConnectOptions::new()
        .username(&settings.user)
        .charset("utf8mb4")
        .ssl_mode(settings.tls.into())
        .statement_cache_capacity(0)
        .disable_statement_logging();
    if password.is_set() {
        options = options.password(password.reveal());
    }
    if let Some(ca) = &settings.ca_file {
        options = options.ssl_ca(ca);
    }
    Ok(match (&settings.socket, settings.host_and_port()) {
        (Some(socket), _) => options.socket(socket),
        (None, Some((host, port))) => options.host(host).port(port),
        (None, None) => options,
    })
}

/// A column as text, whatever its type; the text protocol sends all as such.
fn text(row: &MySqlRow, column: usize) -> Option<String> {
    row.try_get_unchecked::<Option<String>, _>(column).ok().flatten()
}

/// A column as a number.
fn number(row: &MySqlRow, column: usize) -> Option<f64> {
    text(row, column)?.parse().ok().filter(|value: &f64| value.is_finite())
}

#[async_trait]
impl Source for Server {
    fn name(&self) -> String {
        format!("mysql {}", self.settings.shown())
    }

    fn input(&self) -> &'static str {
        "mysql"
    }

    fn pace(&self) -> Pace {
        Pace { interval: self.settings.interval.get(), deadline: self.settings.timeout.get() }
    }

    fn labels(&self) -> Labels {
        vec![("server".into(), self.settings.shown())]
    }

    async fn read(&mut self, ts_ms: i64, out: &mut Pack) -> Result<(), ReadError> {
        let deadline = self.pace().deadline;
        let began = tokio::time::Instant::now();
        // Taken out: whatever a timeout leaves of a conversation is closed with it.
        let mut link = match self.link.take() {
            Some(link) => link,
            None => within(deadline, self.connect()).await??,
        };
        let left = deadline.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
        let mut readings = Readings { out, ts_ms };
        within(left, self.ask(&mut link, &mut readings)).await??;
        self.link = Some(link);
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let user = &self.settings.user;
        let grants = self.denied.iter().map(|grant| format!("GRANT {grant} TO {user}"));
        let grants = grants.collect::<Vec<_>>().join("; ");
        (!grants.is_empty()).then(|| format!("a part of it is closed to us: {grants}"))
    }

    fn after(&mut self, done: Done, out: &mut Pack) {
        let mut readings = Readings { out, ts_ms: done.ts_ms };
        let up = f64::from(u8::from(done.ok));
        let took = done.took.as_secs_f64();
        let said = readings
            .push("mysql.up", Kind::Gauge, "1", up)
            .and_then(|()| readings.push("mysql.read_seconds", Kind::Gauge, "seconds", took));
        if let Err(cause) = said {
            tracing::debug!(%cause, "no room to say how a server was read");
        }
    }
}
