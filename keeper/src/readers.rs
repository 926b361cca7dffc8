//! Readers' statements: ended when they run over their own limit, and when one of them may hold a
//! table whose partitions run low. Only users in `readers` are ever touched.

use std::time::Duration;

use spillway_runtime::mysql::Session;
use sqlx::mysql::MySqlDatabaseError;
use tracing::info;

use crate::duty::Duty;
use crate::metrics::{Metrics, OfShard};
use crate::settings::ReaderSettings;
use crate::shard::{ShardError, ShardHandle, answer, execute};

/// The thread is gone already: what was wanted.
const ER_NO_SUCH_THREAD: u16 = 1094;

/// Statements at work longer than their reader's limit.
const OVER_LIMIT: &str = "SELECT p.id FROM information_schema.processlist p
    JOIN readers r ON r.name = p.user
    WHERE p.command IN ('Query', 'Execute') AND p.time > r.statement_limit_s";

/// Readers at work, or idle inside a transaction, which keeps its tables' metadata locked too.
const HOLDERS: &str = "SELECT p.id FROM information_schema.processlist p
    JOIN readers r ON r.name = p.user
    LEFT JOIN information_schema.innodb_trx t ON t.trx_mysql_thread_id = p.id
    WHERE p.command IN ('Query', 'Execute') OR t.trx_mysql_thread_id IS NOT NULL";

/// Holds one shard's readers to their limits.
pub struct Readers {
    shard: ShardHandle,
    settings: ReaderSettings,
    metrics: Metrics,
}

impl Readers {
    #[must_use]
    pub fn new(shard: ShardHandle, settings: &ReaderSettings, metrics: &Metrics) -> Self {
        Self { shard, settings: settings.clone(), metrics: metrics.clone() }
    }
}

impl Duty for Readers {
    const NAME: &'static str = "readers";
    type Error = ShardError;

    fn interval(&self) -> Duration {
        self.settings.interval.get()
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn round(&mut self) -> Result<(), ShardError> {
        let mut session = self.shard.session().await?;
        let ended = end(&mut session, OVER_LIMIT, "KILL QUERY").await?;
        session.give_back();
        if ended > 0 {
            let shard = self.shard.name.clone();
            info!(shard, ended, "readers' statements ended: over their limit");
            self.metrics.statements_ended.get_or_create(&OfShard { shard }).inc_by(ended);
        }
        Ok(())
    }
}

/// Ends the connections of readers that may hold a table. How many there were.
pub async fn end_holders(session: &mut Session) -> Result<u64, ShardError> {
    end(session, HOLDERS, "KILL").await
}

async fn end(session: &mut Session, which: &str, kill: &str) -> Result<u64, ShardError> {
    let rows = answer(sqlx::query(which).fetch_all(&mut **session)).await?;
    let mut ended = 0;
    for row in rows {
        // BIGINT UNSIGNED on MySQL, BIGINT on MariaDB.
        let id: u64 = sqlx::Row::try_get_unchecked(&row, 0)?;
        match execute(session, &format!("{kill} {id}")).await {
            Ok(_) => ended += 1,
            Err(ShardError::Sql(error)) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}

fn is_gone(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>())
        .is_some_and(|error| error.number() == ER_NO_SUCH_THREAD)
}
