//! Partitions: made days ahead, dropped once all in them is too old for their table. A long query
//! holds a table's metadata lock, DDL waits for it, and every writer waits behind the DDL: so DDL
//! here waits two seconds at most, gives up, and comes again a minute later. Only when the
//! partitions ahead run low are the readers' statements ended that may be in its way.

use std::time::Duration;

use spillway_consumer::migrations::partitions::{AUDIT, POINTS, Partitioned};
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

    /// Makes what is missing ahead, then drops what is outlived.
    pub async fn keep(&self, now_s: u32) -> Result<(), ShardError> {
        let mut session = self.guarded_session().await?;
        for (table, keep) in [
            (POINTS, self.settings.ages.raw_retention),
            (AUDIT, self.settings.ages.ledger_retention),
        ] {
            let keep_s = u32::try_from(keep.get().as_secs()).unwrap_or(u32::MAX);
            self.add(&mut session, &table, now_s).await?;
            self.drop_outlived(&mut session, &table, (now_s, keep_s)).await?;
        }
        Ok(())
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
        for end in outlived.into_iter().take(DROPPED_AT_ONCE_MAX) {
            if *table == POINTS && self.waits_for_rollup(session, end).await? {
                return Ok(());
            }
            execute(session, &table.drop_ddl(end)).await?;
            info!(shard = self.shard.name, table = table.name, end, "partition dropped");
            self.metrics.partitions_dropped.get_or_create(&self.label(table)).inc();
        }
        Ok(())
    }

    async fn waits_for_rollup(&self, session: &mut Session, end: u32) -> Result<bool, ShardError> {
        if !self.settings.partitions.wait_for_rollups {
            return Ok(false);
        }
        let sql = "SELECT EXISTS(SELECT 1 FROM rollup_marks WHERE minute_ts < ?)";
        let open: i64 = answer(sqlx::query_scalar(sql).bind(end).fetch_one(&mut **session)).await?;
        Ok(open != 0)
    }

    fn label(&self, table: &Partitioned) -> OfTable {
        OfTable { table: table.name, shard: self.shard.name.clone() }
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
