//! Rollups: `rollup_1m` and `rollup_1h`, recomputed from what is stored, never added to. So making
//! a minute again changes nothing, late data repairs it, and nothing depends on what came before.
//!
//! Why no crash and no concurrent writer can make one wrong for good:
//!
//! - The consumer raises a minute's mark in the transaction that changes its points. Here the mark
//!   is read first, the points later (READ COMMITTED: each statement sees all that was committed
//!   before it), and the mark is cleared last and only at the version that was read. A transaction
//!   that commits before the mark is read is in the points; one that commits later has raised the
//!   version, or meets no mark and makes one: either way the minute is made again.
//! - Rows, marked hours and cleared marks are one transaction: after a crash both are there or
//!   neither is.
//! - One keeper at a time works on a shard, by a named lock held by the very connection that does
//!   the work: a keeper that lost the lock has lost its transaction as well. Without it, one that
//!   was frozen could lay old rows over newer ones.
//! - Nothing is made of points that are gone: a minute below the first partition of `points` is
//!   left as it is. Points that wait for their rollup keep their partition (`partitions.rs`).
//! - An hour is made of its minutes, on marks that the minutes raise.

pub mod bucket;
pub mod hours;
pub mod list;
pub mod marks;
pub mod minutes;
pub mod rows;
pub mod repair;

use std::time::{Duration, Instant};

use spillway_consumer::migrations::partitions::{POINTS, Partitioned, ROLLUP_1M};
use spillway_runtime::mysql::Session;
use tracing::warn;

use self::marks::{End, Mark, Span};
use crate::duty::Duty;
use crate::metrics::{Metrics, OfShard, OfSpan};
use crate::pace::Pace;
use crate::settings::RollupSettings;
use crate::shard::{ShardError, ShardHandle, answer, lock, unlock};

pub const WINDOW_S: u32 = 10;
pub const MINUTE_S: u32 = 60;
pub const HOUR_S: u32 = 3_600;
/// How far back the last sample before a minute is looked for: two scrapes at the slowest usual
/// interval, five minutes. A longer silence has no step, or a spike would follow every outage.
pub const LOOK_BACK_S: u32 = 600;

/// The named lock of the one keeper that works.
pub const LOCK: &str = "spillway_rollups";
/// Marks read at once, from either end.
const MARKS_AT_ONCE: u32 = 400;
/// Hosts in one transaction.
const HOSTS_AT_ONCE: usize = 20;
/// No new work is begun after this long; the next round follows soon.
const ROUND_BUDGET: Duration = Duration::from_secs(20);

/// Makes one shard's rollups.
pub struct Rollups {
    shard: ShardHandle,
    settings: RollupSettings,
    pace: Pace,
    metrics: Metrics,
}

impl Rollups {
    #[must_use]
    pub fn new(
        shard: ShardHandle,
        settings: &RollupSettings,
        pace: Pace,
        metrics: &Metrics,
    ) -> Self {
        Self { shard, settings: settings.clone(), pace, metrics: metrics.clone() }
    }

    /// Makes what is marked and settled as of `now_s`, until nothing is left or the round's time
    /// is up. False when another keeper is at it.
    pub async fn roll(&self, now_s: u32) -> Result<bool, ShardError> {
        let mut session = self.shard.session().await?;
        if !lock(&mut session, LOCK).await? {
            session.give_back();
            return Ok(false);
        }
        let begun = Instant::now();
        let settle_s = u32::try_from(self.settings.settle.get().as_secs()).unwrap_or(u32::MAX);
        let settled_s = now_s.saturating_sub(settle_s);
        // Also when nothing is to be made: that it is held still should be seen at once.
        let mut found = self.pace.may(&mut session, Self::NAME).await?;
        while found && begun.elapsed() < ROUND_BUDGET {
            found = false;
            for (span, long) in [(Span::Minute, MINUTE_S), (Span::Hour, HOUR_S)] {
                for end in [End::Newest, End::Oldest] {
                    let until = settled_s.saturating_sub(long);
                    found |= self.roll_some(&mut session, (span, end), (until, begun)).await?;
                }
            }
        }
        self.tell_oldest(&mut session, now_s).await?;
        unlock(&mut session, LOCK).await?;
        session.give_back();
        Ok(true)
    }

    /// One helping of marks. Whether it may be worth to ask again at once.
    async fn roll_some(
        &self,
        session: &mut Session,
        (span, end): (Span, End),
        (until, begun): (u32, Instant),
    ) -> Result<bool, ShardError> {
        let mut marks = marks::take(session, (span, end), until, MARKS_AT_ONCE).await?;
        let is_full = marks.len() >= MARKS_AT_ONCE as usize;
        marks.sort_unstable();
        if end == End::Newest {
            marks.reverse();
        }
        let floor = floor_of(session, span).await?;
        for same in marks.chunk_by(|a, b| a.at == b.at) {
            for marks in same.chunks(HOSTS_AT_ONCE) {
                if begun.elapsed() >= ROUND_BUDGET || !self.pace.may(session, Self::NAME).await? {
                    return Ok(false);
                }
                let began = Instant::now();
                self.roll_chunk(session, span, marks, floor).await?;
                self.pace.rest(began.elapsed()).await;
            }
        }
        Ok(is_full)
    }

    async fn roll_chunk(
        &self,
        session: &mut Session,
        span: Span,
        marks: &[Mark],
        floor: u32,
    ) -> Result<(), ShardError> {
        let Some(at) = marks.first().map(|mark| mark.at) else { return Ok(()) };
        let shard = self.shard.name.clone();
        let label = OfSpan { span: span.word(), shard };
        if at < floor {
            let count = marks::clear(session, span, marks).await?;
            warn!(shard = self.shard.name, at, count, "marks of what is gone: left as it was");
            self.metrics.rollups_too_late.get_or_create(&label).inc_by(count);
            return Ok(());
        }
        let rows = match span {
            Span::Minute => minutes::roll(session, at, marks).await?,
            Span::Hour => hours::roll(session, at, marks).await?,
        };
        self.metrics.rollup_rows.get_or_create(&label).inc_by(rows);
        self.metrics.rollups_made.get_or_create(&label).inc_by(marks.len() as u64);
        Ok(())
    }

    async fn tell_oldest(&self, session: &mut Session, now_s: u32) -> Result<(), ShardError> {
        let sql = "SELECT MIN(minute_ts) FROM rollup_marks";
        let query = sqlx::query_scalar::<_, Option<u32>>(sql).fetch_one(&mut **session);
        let oldest = answer(query).await?.unwrap_or(now_s);
        let label = OfShard { shard: self.shard.name.clone() };
        let age_s = i64::from(now_s) - i64::from(oldest) - i64::from(MINUTE_S);
        self.metrics.rollup_lag.get_or_create(&label).set(age_s.max(0));
        Ok(())
    }
}

impl Duty for Rollups {
    const NAME: &'static str = "rollups";
    type Error = ShardError;

    fn interval(&self) -> Duration {
        self.settings.interval.get()
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(120)
    }

    async fn round(&mut self) -> Result<(), ShardError> {
        let now_s = u32::try_from(jiff::Timestamp::now().as_second()).unwrap_or(u32::MAX);
        self.roll(now_s).await.map(|_| ())
    }
}

/// The first second of what an hour or minute is made from.
async fn floor_of(session: &mut Session, span: Span) -> Result<u32, ShardError> {
    let source: Partitioned = match span {
        Span::Minute => POINTS,
        Span::Hour => ROLLUP_1M,
    };
    let ends = answer(source.ends(session)).await?;
    Ok(ends.first().map_or(0, |end| end.saturating_sub(source.step_s)))
}
