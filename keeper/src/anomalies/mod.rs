//! Anomalies: each series of the metrics that are watched is held against its own recent minutes
//! and the same hour of earlier days and weeks, all from rollups; what is odd becomes an event, and
//! the event ends when the series is as ever again. Pages of series, at the pace of background
//! work; one keeper at a time.

pub mod detect;
mod history;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use spillway_runtime::mysql::Session;
use tracing::warn;

use self::detect::{Finding, Oddity, judge};
use self::history::{Watched, known, watched};
use crate::duty::Duty;
use crate::metrics::{Metrics, OfShard};
use crate::pace::Pace;
use crate::rollups::MINUTE_S;
use crate::settings::AnomalySettings;
use crate::shard::{ShardError, ShardHandle, answer, lock, unlock};

/// The named lock of the one keeper that works.
pub const LOCK: &str = "spillway_anomalies";
/// Events opened in a round at most: beyond that something else is wrong, and many lines say less.
const OPENED_MAX: usize = 50;
/// Open events are looked for this far back when the keeper starts.
const REMEMBERED_MS: i64 = 24 * 3_600_000;
/// Rollups of the last minutes may still be made.
const SETTLED_AFTER_S: u32 = 120;

/// Watches one shard's series.
pub struct Anomalies {
    shard: ShardHandle,
    settings: AnomalySettings,
    pace: Pace,
    metrics: Metrics,
    /// Open events by series; None until they were read.
    open: Option<HashMap<u64, u64>>,
}

impl Anomalies {
    #[must_use]
    pub fn new(
        shard: ShardHandle,
        settings: &AnomalySettings,
        pace: Pace,
        metrics: &Metrics,
    ) -> Self {
        Self { shard, settings: settings.clone(), pace, metrics: metrics.clone(), open: None }
    }

    /// Judges every watched series as of `now_s`. How many events were opened.
    pub async fn look(&mut self, now_s: u32) -> Result<usize, ShardError> {
        let mut session = self.shard.session().await?;
        if !lock(&mut session, LOCK).await? {
            // What the other one opens is read again once it is gone.
            self.open = None;
            session.give_back();
            return Ok(0);
        }
        if self.open.is_none() {
            self.open = Some(open_events(&mut session, i64::from(now_s) * 1_000).await?);
        }
        let until = now_s.saturating_sub(SETTLED_AFTER_S) / MINUTE_S * MINUTE_S;
        let (mut after, mut opened) = (0, 0);
        while self.pace.may(&mut session, Self::NAME).await? {
            let began = Instant::now();
            let page = watched(&mut session, &self.settings.metrics, after).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            opened += self.judge_page(&mut session, &page, until, opened).await?;
            self.pace.rest(began.elapsed()).await;
        }
        unlock(&mut session, LOCK).await?;
        session.give_back();
        Ok(opened)
    }

    async fn judge_page(
        &mut self,
        session: &mut Session,
        page: &[Watched],
        until: u32,
        opened: usize,
    ) -> Result<usize, ShardError> {
        let known = known(session, page, until).await?;
        let at_ms = i64::from(until) * 1_000;
        let mut more = 0;
        for series in page {
            // Silence is no anomaly: freshness and gaps tell of it.
            let Some(known) = known.get(&series.id) else { continue };
            let event = self.open.as_ref().and_then(|open| open.get(&series.id).copied());
            match (judge(known), event) {
                (Finding::Anomaly(odd), None) if opened + more < OPENED_MAX => {
                    let id = insert(session, series, &odd, at_ms).await?;
                    self.open.get_or_insert_default().insert(series.id, id);
                    more += 1;
                }
                (Finding::Anomaly(_), None) => {
                    warn!(shard = self.shard.name, series = series.id, "more odd than is told");
                }
                (Finding::Calm, Some(id)) => {
                    end(session, id, at_ms).await?;
                    self.open.get_or_insert_default().remove(&series.id);
                }
                (Finding::Anomaly(_) | Finding::Uneasy, _) | (Finding::Calm, None) => {}
            }
        }
        let label = OfShard { shard: self.shard.name.clone() };
        self.metrics.series_judged.get_or_create(&label).inc_by(known.len() as u64);
        self.metrics.anomalies.get_or_create(&label).inc_by(more as u64);
        Ok(more)
    }
}

impl Duty for Anomalies {
    const NAME: &'static str = "anomalies";
    type Error = ShardError;

    fn interval(&self) -> Duration {
        self.settings.interval.get()
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(3_600)
    }

    async fn round(&mut self) -> Result<(), ShardError> {
        let now_s = u32::try_from(jiff::Timestamp::now().as_second()).unwrap_or(u32::MAX);
        self.look(now_s).await.map(|_| ())
    }
}

async fn open_events(session: &mut Session, now_ms: i64) -> Result<HashMap<u64, u64>, ShardError> {
    let sql = "SELECT CAST(SUBSTRING_INDEX(tags, 'series:', -1) AS UNSIGNED), id FROM events
               WHERE kind = 'anomaly' AND timeend_at IS NULL AND time_at >= ?";
    let query = sqlx::query_as::<_, (u64, u64)>(sql).bind(now_ms - REMEMBERED_MS);
    Ok(answer(query.fetch_all(&mut **session)).await?.into_iter().collect())
}

async fn insert(
    session: &mut Session,
    series: &Watched,
    odd: &Oddity,
    at_ms: i64,
) -> Result<u64, ShardError> {
    let Watched { id, environment, host, metric, labels, .. } = series;
    let Oddity { value, usual, z } = odd;
    let labels = if labels == "{}" { "" } else { labels.as_str() };
    let text = format!("{metric}{labels} is {value:.4}, usually {usual:.4} ({z:+.0} deviations)");
    let sql = "INSERT INTO events (time_at, environment, host, kind, text, tags)
               VALUES (?, ?, ?, 'anomaly', ?, ?)";
    let query = sqlx::query(sql).bind(at_ms).bind(environment).bind(host).bind(text);
    let query = query.bind(format!("anomaly,{metric},series:{id}"));
    Ok(answer(query.execute(&mut **session)).await?.last_insert_id())
}

async fn end(session: &mut Session, event: u64, at_ms: i64) -> Result<(), ShardError> {
    let query = sqlx::query("UPDATE events SET timeend_at = ? WHERE id = ?");
    answer(query.bind(at_ms).bind(event).execute(&mut **session)).await.map(|_| ())
}
