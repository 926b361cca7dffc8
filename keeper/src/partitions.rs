//! Partitions: made days ahead, dropped once all in them is too old for their table. A long query
//! holds a table's metadata lock, DDL waits for it, and every writer waits behind the DDL: so DDL
//! here waits two seconds at most, gives up, and comes again a minute later. Only when the
//! partitions ahead run low are the readers' statements ended that may be in its way.
//!
//! What a rollup waits to be made from is never dropped. That is looked at under the lock under
//! which the partition goes, so that no writer can add a late point in between.

use std::time::Duration;

use spillway_consumer::migrations::partitions::{AUDIT, POINTS, Partitioned, ROLLUP_1H, ROLLUP_1M};
use spillway_runtime::mysql::Session;
use tracing::{info, warn};

use crate::duty::Duty;
use crate::metrics::{Metrics, OfShard, OfTable};
use crate::readers;
use crate::settings::KeeperSettings;
use crate::shard::{ShardError, ShardHandle, answer, execute};

/// One round drops at most this many partitions a table: each one locks the table for a moment.
const DROPPED_AT_ONCE_MAX: usize = 48;

/// Keeps one shard's partitions.
pub struct Partitions {
    shard: ShardHandle,
    settings: KeeperSettings,
    metrics: Metrics,
}

impl Partitions {
    #[must_use]
    pub fn new(shard: ShardHandle, settings: &KeeperSettings, metrics: &Metrics) -> Self {
        Self { shard, settings: settings.clone(), metrics: metrics.clone() }
    }

    /// Makes what is missing ahead, then drops what is outlived; of every table, whatever became
    /// of the one before.
    pub async fn keep(&self, now_s: u32) -> Result<(), ShardError> {
        let ages = &self.settings.ages;
        let mut done = Ok(());
        for (table, keep) in [
            (POINTS, ages.raw_retention),
            (AUDIT, ages.ledger_retention),
            (ROLLUP_1M, ages.minute_retention),
            (ROLLUP_1H, ages.hour_retention),
        ] {
            let keep_s = u32::try_from(keep.get().as_secs()).unwrap_or(u32::MAX);
            done = done.and(self.keep_table(&table, (now_s, keep_s)).await);
        }
        done
    }

    async fn keep_table(
        &self,
        table: &Partitioned,
        (now_s, keep_s): (u32, u32),
    ) -> Result<(), ShardError> {
        let mut session = self.guarded_session().await?;
        self.add(&mut session, table, now_s).await?;
        self.drop_outlived(&mut session, table, (now_s, keep_s)).await
    }

    /// Not given back: its lock_wait_timeout is for DDL alone.
    async fn guarded_session(&self) -> Result<Session, ShardError> {
        let mut session = self.shard.session().await?;
        let wait_s = self.settings.partitions.lock_wait.get().as_secs();
        execute(&mut session, &format!("SET SESSION lock_wait_timeout = {wait_s}")).await?;
        Ok(session)
    }

    async fn add(
        &self,
        session: &mut Session,
        table: &Partitioned,
        now_s: u32,
    ) -> Result<(), ShardError> {
        let label = self.label(table);
        let mut ends = answer(table.ends(session)).await?;
        let missing = table.missing(&ends, now_s);
        let mut failed = None;
        if let Some(ddl) = table.add_ddl(&missing) {
            match execute(session, &ddl).await {
                Ok(_) => {
                    self.metrics
                        .partitions_added
                        .get_or_create(&label)
                        .inc_by(missing.len() as u64);
                    ends.extend(missing);
                }
                Err(error) => failed = Some(error),
            }
        }
        let newest = ends.iter().copied().max().unwrap_or(0);
        let headroom_s = i64::from(newest) - i64::from(now_s);
        self.metrics.headroom.get_or_create(&label).set(headroom_s);
        let Some(error) = failed else { return Ok(()) };
        let low = headroom_s < self.settings.partitions.headroom_min.get().as_secs().cast_signed();
        if error.is_lock_wait() && low {
            self.clear_the_way(table, headroom_s).await?;
        }
        Err(error)
    }

    async fn clear_the_way(&self, table: &Partitioned, headroom_s: i64) -> Result<(), ShardError> {
        let mut session = self.shard.session().await?;
        let ended = readers::end_holders(&mut session).await?;
        session.give_back();
        let shard = self.shard.name.clone();
        warn!(shard, table = table.name, headroom_s, ended, "readers ended: partitions run low");
        self.metrics.statements_ended.get_or_create(&OfShard { shard }).inc_by(ended);
        Ok(())
    }

    async fn drop_outlived(
        &self,
        session: &mut Session,
        table: &Partitioned,
        (now_s, keep_s): (u32, u32),
    ) -> Result<(), ShardError> {
        let ends = answer(table.ends(session)).await?;
        let outlived = table.outlived(&ends, now_s, keep_s);
        let mut waiting = outlived.len();
        for end in outlived.into_iter().take(DROPPED_AT_ONCE_MAX) {
            if !drop_unless_marked(session, table, end).await? {
                break;
            }
            info!(shard = self.shard.name, table = table.name, end, "partition dropped");
            self.metrics.partitions_dropped.get_or_create(&self.label(table)).inc();
            waiting -= 1;
        }
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.metrics.partitions_waiting.get_or_create(&self.label(table)).set(waiting);
        Ok(())
    }

    fn label(&self, table: &Partitioned) -> OfTable {
        OfTable { table: table.name, shard: self.shard.name.clone() }
    }
}

/// Drops the partition, or says that a rollup is still to be made from it. After an error the
/// session must not be used again: closing it ends its locks.
async fn drop_unless_marked(
    session: &mut Session,
    table: &Partitioned,
    end: u32,
) -> Result<bool, ShardError> {
    let Some((marks, column)) = marks_of(table) else {
        return execute(session, &table.drop_ddl(end)).await.map(|_| true);
    };
    let name = table.name;
    execute(session, &format!("LOCK TABLES {name} WRITE, {marks} READ")).await?;
    let sql = format!("SELECT EXISTS(SELECT 1 FROM {marks} WHERE {column} < ?)");
    let open: i64 = answer(sqlx::query_scalar(&sql).bind(end).fetch_one(&mut **session)).await?;
    if open == 0 {
        execute(session, &table.drop_ddl(end)).await?;
    }
    execute(session, "UNLOCK TABLES").await?;
    Ok(open == 0)
}

/// Where it is noted what is still to be made from this table.
fn marks_of(table: &Partitioned) -> Option<(&'static str, &'static str)> {
    if *table == POINTS {
        Some(("rollup_marks", "minute_ts"))
    } else if *table == ROLLUP_1M {
        Some(("rollup_hour_marks", "hour_ts"))
    } else {
        None
    }
}

impl Duty for Partitions {
    const NAME: &'static str = "partitions";
    type Error = ShardError;

    fn interval(&self) -> Duration {
        self.settings.partitions.interval.get()
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(300)
    }

    async fn round(&mut self) -> Result<(), ShardError> {
        let now_s = u32::try_from(jiff::Timestamp::now().as_second()).unwrap_or(u32::MAX);
        self.keep(now_s).await
    }
}
