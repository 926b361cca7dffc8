//! The schema of one shard: brings the two databases to the state this build's programs expect.
//! Called by `spillway migrate` (and by tests), never by the consumer itself, which only asks
//! [`pending`] before it starts.
//!
//! - Every step is idempotent SQL, since MySQL's DDL is not transactional: after a half-finished
//!   run the same step simply runs again. A step is recorded once all of it has run.
//! - A recorded step whose text has changed is refused ([`MigrateError::Changed`]): tables change
//!   by new steps. Views are the exception; they are replaced whenever their text differs.
//! - One migration at a time, by a named lock that is waited for a bounded time.

pub mod partitions;
mod script;

use std::time::Duration;

use spillway_runtime::deadline::{DeadlineExceeded, within};
use sqlx::{Executor, MySqlConnection};
use thiserror::Error;

use crate::migrations::partitions::{AUDIT, POINTS, Partitioned, ROLLUP_1H, ROLLUP_1M};

const LOCK: &str = "spillway_migrate";
/// How long a second migration waits for the first before it gives up.
const LOCK_WAIT_S: u32 = 5;
/// One statement: the longest, 217 partitions on a slow disk, took seconds.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(120);
/// DDL that meets a long query gives up after this rather than queue every writer behind it.
const METADATA_WAIT_S: u32 = 10;

/// Versions from here on are replaced whenever their text differs.
const REPEATABLE_FROM: u32 = 1000;

const STEPS: [Step; 3] = [
    Step { version: 1, name: "store", text: include_str!("migrations/0001_store.sql") },
    Step { version: 2, name: "partitioned", text: include_str!("migrations/0002_partitioned.sql") },
    Step { version: 1000, name: "views", text: include_str!("migrations/views.sql") },
];

/// What must exist before the first step can be recorded.
const GROUND: [&str; 3] = [
    "CREATE DATABASE IF NOT EXISTS spillway_store CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE DATABASE IF NOT EXISTS spillway CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS spillway_store.schema_migrations (
       version INT UNSIGNED NOT NULL PRIMARY KEY, name VARCHAR(64) NOT NULL,
       checksum CHAR(32) CHARACTER SET ascii NOT NULL, applied_at BIGINT NOT NULL
     ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
];

/// How long a table's partitions reach back and ahead is the operator's; the steps are not.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How far back the first `points` partitions reach.
    pub raw_retention: Duration,
    /// The time by which partitions are made.
    pub now: jiff::Timestamp,
}

/// What a migration did. Empty but for `unchanged` when it had run before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Steps run now, in order.
    pub applied: Vec<&'static str>,
    /// Steps found recorded with the same text.
    pub unchanged: Vec<&'static str>,
    /// Partitions added to tables that existed already.
    pub partitions_added: usize,
}

#[derive(Debug, Error)]
pub enum MigrateError {
    #[error("another migration holds the lock `{LOCK}` on this server; waited {LOCK_WAIT_S} s")]
    Locked,
    #[error(
        "step {version} ({name}) ran here with another text ({recorded}); this build has {ours}. \
         Run the build that matches this database, or a newer one"
    )]
    Changed { version: u32, name: &'static str, recorded: String, ours: String },
    #[error("step {step}, statement {statement}: {source}")]
    Statement { step: &'static str, statement: usize, source: sqlx::Error },
    #[error("the clock says {now}, which no window can hold")]
    Clock { now: jiff::Timestamp },
    #[error(transparent)]
    Server(#[from] sqlx::Error),
    #[error("the server: {0}")]
    Silent(#[from] DeadlineExceeded),
}

struct Step {
    version: u32,
    name: &'static str,
    text: &'static str,
}

impl Step {
    /// Over the text as written: the partitions put into it differ from hour to hour.
    fn checksum(&self) -> String {
        format!("{:032x}", xxhash_rust::xxh3::xxh3_128(script::expand(self.text).as_bytes()))
    }
}

/// Brings the shard behind `conn` up to date. On an error the connection may be in any state and
/// is best closed; running it again carries on from where it broke.
pub async fn migrate(
    conn: &mut MySqlConnection,
    options: &Options,
) -> Result<Report, MigrateError> {
    let session = format!(
        "SET NAMES utf8mb4 COLLATE utf8mb4_bin; SET SESSION lock_wait_timeout = {METADATA_WAIT_S}"
    );
    execute(conn, &session).await??;
    lock(conn).await?;
    let done = migrate_locked(conn, options).await;
    let released = execute(conn, &format!("DO RELEASE_LOCK('{LOCK}')")).await;
    let report = done?;
    released??;
    Ok(report)
}

/// The steps this build expects and the shard has not recorded (or recorded with another text).
pub async fn pending(conn: &mut MySqlConnection) -> Result<Vec<&'static str>, MigrateError> {
    let known = "SELECT COUNT(*) FROM information_schema.tables
                 WHERE table_schema = 'spillway_store' AND table_name = 'schema_migrations'";
    let known: i64 =
        within(STATEMENT_DEADLINE, sqlx::query_scalar(known).fetch_one(&mut *conn)).await??;
    let recorded = if known == 0 { Vec::new() } else { recorded(conn).await? };
    let stands = |step: &&Step| {
        recorded.iter().any(|(version, sum)| *version == step.version && *sum == step.checksum())
    };
    Ok(STEPS.iter().filter(|step| !stands(step)).map(|step| step.name).collect())
}

async fn lock(conn: &mut MySqlConnection) -> Result<(), MigrateError> {
    let query = sqlx::query_scalar::<_, Option<i64>>("SELECT GET_LOCK(?, ?)")
        .bind(LOCK)
        .bind(LOCK_WAIT_S)
        .fetch_one(conn);
    match within(STATEMENT_DEADLINE, query).await?? {
        Some(1) => Ok(()),
        Some(_) | None => Err(MigrateError::Locked),
    }
}

async fn migrate_locked(
    conn: &mut MySqlConnection,
    options: &Options,
) -> Result<Report, MigrateError> {
    for (statement, sql) in GROUND.iter().enumerate() {
        execute(conn, sql)
            .await?
            .map_err(|source| statement_failed("ground", statement, source))?;
    }
    let recorded = recorded(conn).await?;
    let now_s = u32::try_from(options.now.as_second())
        .map_err(|_| MigrateError::Clock { now: options.now })?;
    let mut report = Report::default();
    for step in &STEPS {
        let ours = step.checksum();
        match recorded.iter().find(|(version, _)| *version == step.version) {
            Some((_, sum)) if *sum == ours => report.unchanged.push(step.name),
            Some((_, sum)) if step.version < REPEATABLE_FROM => {
                return Err(MigrateError::Changed {
                    version: step.version,
                    name: step.name,
                    recorded: sum.clone(),
                    ours,
                });
            }
            Some(_) | None => {
                run(conn, step, options.raw_retention, now_s).await?;
                record(conn, step, &ours, options.now).await?;
                report.applied.push(step.name);
            }
        }
    }
    for table in [POINTS, AUDIT, ROLLUP_1M, ROLLUP_1H] {
        report.partitions_added += add_missing(conn, &table, now_s).await?;
    }
    Ok(report)
}

async fn run(
    conn: &mut MySqlConnection,
    step: &Step,
    raw_retention: Duration,
    now_s: u32,
) -> Result<(), MigrateError> {
    let retention_s = u32::try_from(raw_retention.as_secs()).unwrap_or(u32::MAX);
    let text = script::expand(step.text)
        .replace("{points_partitions}", &POINTS.first_partitions(now_s, retention_s))
        .replace("{audit_partitions}", &AUDIT.first_partitions(now_s, 0))
        .replace("{minute_partitions}", &ROLLUP_1M.first_partitions(now_s, retention_s))
        .replace("{hour_partitions}", &ROLLUP_1H.first_partitions(now_s, retention_s));
    for (statement, sql) in script::statements(&text).enumerate() {
        execute(conn, &sql).await?.map_err(|e| statement_failed(step.name, statement, e))?;
    }
    Ok(())
}

async fn add_missing(
    conn: &mut MySqlConnection,
    table: &Partitioned,
    now_s: u32,
) -> Result<usize, MigrateError> {
    let ends = within(STATEMENT_DEADLINE, table.ends(conn)).await??;
    let missing = table.missing(&ends, now_s);
    if let Some(ddl) = table.add_ddl(&missing) {
        execute(conn, &ddl).await?.map_err(|e| statement_failed(table.name, 0, e))?;
    }
    Ok(missing.len())
}

async fn recorded(conn: &mut MySqlConnection) -> Result<Vec<(u32, String)>, MigrateError> {
    let query = sqlx::query_as("SELECT version, checksum FROM spillway_store.schema_migrations")
        .fetch_all(conn);
    Ok(within(STATEMENT_DEADLINE, query).await??)
}

async fn record(
    conn: &mut MySqlConnection,
    step: &Step,
    checksum: &str,
    now: jiff::Timestamp,
) -> Result<(), MigrateError> {
    let sql = "REPLACE INTO spillway_store.schema_migrations VALUES (?, ?, ?, ?)";
    let query = sqlx::query(sql)
        .bind(step.version)
        .bind(step.name)
        .bind(checksum)
        .bind(now.as_millisecond())
        .execute(conn);
    within(STATEMENT_DEADLINE, query).await??;
    Ok(())
}

async fn execute(
    conn: &mut MySqlConnection,
    sql: &str,
) -> Result<Result<(), sqlx::Error>, DeadlineExceeded> {
    // The executor's own method, whose future is boxed: the other form's is not provably Send.
    let done = within(STATEMENT_DEADLINE, Executor::execute(conn, sqlx::raw_sql(sql))).await?;
    Ok(done.map(|_| ()))
}

fn statement_failed(step: &'static str, index: usize, source: sqlx::Error) -> MigrateError {
    MigrateError::Statement { step, statement: index + 1, source }
}
