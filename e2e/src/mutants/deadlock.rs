//! A deadlock on purpose: a transaction of ours holds the positions and then wants the epochs that
//! the consumer's holds. Ours has changed more rows, so the server ends the consumer's.

use std::time::Duration;

use spillway_testkit::StackError;
use spillway_testkit::stack::Stack;
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection as _, Executor as _, Row as _};
use tokio::time::Instant;

use crate::oracle::trial::Trial;

/// Rows that make our transaction the heavier one.
const WEIGHT_ROWS: usize = 20_000;
const ROUNDS: usize = 3;
const ROUND_LIMIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Provokes it until the consumer was hit a few times.
pub async fn provoke(stack: &Stack, trial: &Trial) -> Result<(), StackError> {
    let url = stack.file().mysql.first().map(|shard| shard.primary.clone()).unwrap_or_default();
    let refused = |error: sqlx::Error| StackError::Refused { what: error.to_string() };
    let before = deadlocks(&url).await.map_err(refused)?;
    for round in 0..ROUNDS {
        trial.reached(15 + 20 * round).await;
        meet(&url).await.map_err(refused)?;
    }
    // By the server's own count: a consumer that retries half a transaction may count nothing. Had
    // ours been the victim, it would have failed.
    if deadlocks(&url).await.map_err(refused)? == before {
        return Err(StackError::Refused { what: "no deadlock hit the consumer".into() });
    }
    Ok(())
}

async fn deadlocks(url: &str) -> Result<i64, sqlx::Error> {
    let sql = "SELECT `count` FROM information_schema.INNODB_METRICS WHERE name = 'lock_deadlocks'";
    MySqlConnection::connect(url).await?.fetch_one(sql).await?.try_get(0)
}

async fn meet(url: &str) -> Result<(), sqlx::Error> {
    let mut conn = MySqlConnection::connect(url).await?;
    let mut eye = MySqlConnection::connect(url).await?;
    conn.execute("CREATE DATABASE IF NOT EXISTS oracle").await?;
    conn.execute("CREATE TABLE IF NOT EXISTS oracle.weight (n INT NOT NULL)").await?;
    conn.execute("SET SESSION innodb_lock_wait_timeout = 30").await?;
    conn.execute("START TRANSACTION").await?;
    let rows = vec!["(1)"; 1_000].join(",");
    for _ in 0..WEIGHT_ROWS / 1_000 {
        conn.execute(format!("INSERT INTO oracle.weight VALUES {rows}").as_str()).await?;
    }
    conn.execute("SELECT partition_id FROM spillway_store.positions FOR UPDATE").await?;
    let waits = "SELECT COUNT(*) FROM performance_schema.data_lock_waits";
    let until = Instant::now() + ROUND_LIMIT;
    loop {
        let waiting: i64 = eye.fetch_one(waits).await?.try_get(0)?;
        if waiting > 0 || Instant::now() > until {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    conn.execute("SELECT agent_id FROM spillway_store.ledger_epochs FOR UPDATE").await?;
    conn.execute("ROLLBACK").await?;
    Ok(())
}
