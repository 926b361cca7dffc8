//! What is not partitioned and grows old: ledger epochs nobody can add to any more, old
//! declarations and quarantine notes. Small statements, a bounded number a round, so that the
//! consumer's rows are never locked for long. (Rollup marks have no age: they hold their points'
//! partition until the rollups are made.)

use std::time::Duration;

use spillway_runtime::mysql::Session;

use crate::duty::Duty;
use crate::metrics::{Metrics, OfShard};
use crate::settings::KeeperSettings;
use crate::shard::{ShardError, ShardHandle, answer, execute};

/// Rows one DELETE takes at most.
const ROWS_AT_ONCE_MAX: usize = 2_000;
/// DELETEs per table and round at most; the next round goes on.
const DELETES_A_ROUND_MAX: usize = 20;
/// Epochs a round at most, each with its ranges and gaps.
const EPOCHS_A_ROUND_MAX: u32 = 500;

/// Keeps one shard's ages.
pub struct Retention {
    shard: ShardHandle,
    settings: KeeperSettings,
    metrics: Metrics,
}

impl Retention {
    #[must_use]
    pub fn new(shard: ShardHandle, settings: &KeeperSettings, metrics: &Metrics) -> Self {
        Self { shard, settings: settings.clone(), metrics: metrics.clone() }
    }

    /// One round, as of `now_ms`.
    pub async fn keep(&self, now_ms: i64) -> Result<(), ShardError> {
        let ages = &self.settings.ages;
        let before = |age: Duration| now_ms - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let mut session = self.shard.session().await?;
        let life_s = ages.longest_life().as_secs();
        let silent_s = ages.silent_after.get().as_secs();
        let gap_ages = format!(
            "INSERT INTO gap_ages (id, longest_life_s, silent_after_s)
             VALUES (1, {life_s}, {silent_s})
             ON DUPLICATE KEY UPDATE longest_life_s = {life_s}, silent_after_s = {silent_s}"
        );
        execute(&mut session, &gap_ages).await?;
        let oldest_ms = before(ages.ledger_retention.get());
        delete_old(&mut session, "declarations", "declared_at", oldest_ms).await?;
        delete_old(&mut session, "quarantined", "quarantined_at", oldest_ms).await?;
        // Other events are history; these are as many as series are odd.
        let oldest_ms_of_minutes = before(ages.minute_retention.get());
        delete_old(&mut session, "events", "kind = 'anomaly' AND time_at", oldest_ms_of_minutes)
            .await?;
        let dropped = drop_epochs(&mut session, oldest_ms).await?;
        session.give_back();
        let label = OfShard { shard: self.shard.name.clone() };
        self.metrics.ledger_epochs_dropped.get_or_create(&label).inc_by(dropped);
        Ok(())
    }
}

impl Duty for Retention {
    const NAME: &'static str = "retention";
    type Error = ShardError;

    fn interval(&self) -> Duration {
        self.settings.partitions.interval.get()
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(300)
    }

    async fn round(&mut self) -> Result<(), ShardError> {
        self.keep(jiff::Timestamp::now().as_millisecond()).await
    }
}

/// Table and column, with what goes before it, are our own constants.
async fn delete_old(
    session: &mut Session,
    table: &str,
    column: &str,
    before: i64,
) -> Result<(), ShardError> {
    let sql = format!("DELETE FROM {table} WHERE {column} < {before} LIMIT {ROWS_AT_ONCE_MAX}");
    for _ in 0..DELETES_A_ROUND_MAX {
        if execute(session, &sql).await? < ROWS_AT_ONCE_MAX as u64 {
            break;
        }
    }
    Ok(())
}

/// Drops epochs that nobody added to since `before_ms`. The last condition is looked at again in
/// the DELETE itself, so that an epoch that wakes up at this moment stays whole.
async fn drop_epochs(session: &mut Session, before_ms: i64) -> Result<u64, ShardError> {
    let sql = "SELECT agent_id, epoch FROM ledger_epochs WHERE last_applied_at < ? LIMIT ?";
    let query = sqlx::query_as(sql).bind(before_ms).bind(EPOCHS_A_ROUND_MAX);
    let old: Vec<(Vec<u8>, Vec<u8>)> = answer(query.fetch_all(&mut **session)).await?;
    let mut dropped = 0;
    for (agent_id, epoch) in &old {
        let sql = "DELETE e, r, g FROM ledger_epochs e
                   LEFT JOIN ledger_ranges r ON r.agent_id = e.agent_id AND r.epoch = e.epoch
                   LEFT JOIN ledger_gaps g ON g.agent_id = e.agent_id AND g.epoch = e.epoch
                   WHERE e.agent_id = ? AND e.epoch = ? AND e.last_applied_at < ?";
        let query = sqlx::query(sql).bind(agent_id).bind(epoch).bind(before_ms);
        let done = answer(query.execute(&mut **session)).await?;
        dropped += u64::from(done.rows_affected() > 0);
    }
    Ok(dropped)
}
