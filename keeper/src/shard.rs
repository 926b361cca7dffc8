//! A shard as the keeper's duties see it: a name, its partitions, and connections with a deadline.

use std::time::Duration;

use spillway_runtime::deadline::{DeadlineExceeded, within};
use spillway_runtime::mysql::{
    CheckoutError, MysqlSettings, Session, checkout, connect_options, options_for, pool,
};
use spillway_runtime::settings::SecretFileError;
use spillway_runtime::shards::{Shard, ShardMap};
use sqlx::Executor;
use sqlx::mysql::{MySqlDatabaseError, MySqlPool};
use thiserror::Error;

/// How long to wait for a connection, and for the answer to one statement that is not DDL.
const CHECKOUT_DEADLINE: Duration = Duration::from_secs(4);
const STATEMENT_DEADLINE: Duration = Duration::from_secs(20);

/// At least so many connections a shard: rollups, anomalies and partitions keep one each for long,
/// and what measures lag must not wait for them.
const CONNECTIONS_MIN: u32 = 8;

/// A lock was not had in time: someone else's statement is in the way.
const ER_LOCK_WAIT_TIMEOUT: u16 = 1205;

/// One shard's primary.
#[derive(Clone, Debug)]
pub struct ShardHandle {
    pub name: String,
    /// The Kafka partitions whose rows live here.
    pub partitions: Vec<u16>,
    /// The servers that follow it, named by their addresses: any of them may take over.
    pub replicas: Vec<ShardHandle>,
    pool: MySqlPool,
}

/// Why a shard did not do what was asked.
#[derive(Debug, Error)]
pub enum ShardError {
    #[error(transparent)]
    NoConnection(#[from] CheckoutError),
    #[error("the server: {0}")]
    Silent(#[from] DeadlineExceeded),
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error("another keeper is at it and does not end")]
    Busy,
}

impl ShardError {
    /// Whether a statement gave up waiting for a lock.
    #[must_use]
    pub fn is_lock_wait(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>())
            .is_some_and(|error| error.number() == ER_LOCK_WAIT_TIMEOUT)
    }
}

impl ShardHandle {
    /// All shards of the map; nothing is connected yet.
    pub fn all(map: &ShardMap, mysql: &MysqlSettings) -> Result<Vec<Self>, SecretFileError> {
        let connections_max = mysql.connections_max.max(CONNECTIONS_MIN);
        let mysql = MysqlSettings { connections_max, ..mysql.clone() };
        let handle = |shard: &Shard| {
            let partitions = map.partitions_of(shard);
            let primary = connect_options(&mysql, shard)?;
            let pool_of = |options| pool(&mysql, options, Some("spillway_store"));
            let mut replicas = Vec::new();
            for replica in &shard.replicas {
                let file = shard.primary_password_file.as_deref();
                let pool = pool_of(options_for(&mysql, &replica.url, file)?);
                let address = format!("{}:{}", replica.url.host, replica.url.port);
                replicas.push(Self::new(&address, partitions.clone(), pool));
            }
            Ok(Self { replicas, ..Self::new(&shard.name, partitions, pool_of(primary)) })
        };
        map.shards.iter().map(handle).collect()
    }

    /// A handle on a server given by its pool.
    #[must_use]
    pub fn new(name: &str, partitions: Vec<u16>, pool: MySqlPool) -> Self {
        Self { name: name.to_owned(), partitions, replicas: Vec::new(), pool }
    }

    /// A connection that is closed unless given back.
    pub async fn session(&self) -> Result<Session, ShardError> {
        Ok(checkout(&self.pool, CHECKOUT_DEADLINE).await?)
    }
}

/// Runs statements without a result.
pub async fn execute(session: &mut Session, sql: &str) -> Result<u64, ShardError> {
    // The executor's own method, whose future is boxed: the other form's is not provably Send.
    let work = Executor::execute(&mut **session, sqlx::raw_sql(sql));
    Ok(within(STATEMENT_DEADLINE, work).await??.rows_affected())
}

/// Awaits one prepared statement's answer.
pub async fn answer<T>(
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, ShardError> {
    Ok(within(STATEMENT_DEADLINE, work).await??)
}

/// Takes a named lock of the server unless another connection has it. It ends with the connection,
/// and so does whatever the connection has not committed.
pub async fn lock(session: &mut Session, name: &str) -> Result<bool, ShardError> {
    lock_within(session, name, 0).await
}

/// As [`lock`], after a wait for the other one.
pub async fn lock_within(
    session: &mut Session,
    name: &str,
    wait_s: u32,
) -> Result<bool, ShardError> {
    let query = sqlx::query_scalar::<_, Option<i64>>("SELECT GET_LOCK(?, ?)");
    let query = query.bind(name).bind(wait_s).fetch_one(&mut **session);
    let limit = STATEMENT_DEADLINE + Duration::from_secs(wait_s.into());
    Ok(within(limit, query).await?? == Some(1))
}

/// Gives the lock to others.
pub async fn unlock(session: &mut Session, name: &str) -> Result<(), ShardError> {
    let query = sqlx::query("DO RELEASE_LOCK(?)").bind(name);
    answer(query.execute(&mut **session)).await.map(|_| ())
}
