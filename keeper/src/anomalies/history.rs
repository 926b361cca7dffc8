//! What is known of a page of series: minutes of the last hours, and the same hour of earlier days
//! and weeks.

use std::collections::HashMap;

use spillway_runtime::mysql::{Session, text};
use sqlx::Row as _;

use super::detect::{HISTORY, Known, PRESENT, Reach};
use crate::rollups::list::{padded, places};
use crate::rollups::{HOUR_S, MINUTE_S};
use crate::shard::{ShardError, answer};

/// Series read at once, three hours of minutes each.
const SERIES_A_PAGE: u32 = 100;
const DAY_S: u32 = 86_400;
/// Days back whose same hour is looked at: a week of days, then the same day of the week.
const DAYS_BACK: [u32; 10] = [1, 2, 3, 4, 5, 6, 7, 14, 21, 28];
/// Of the minutes that are judged, so many may be missing or late.
const LATE_MAX: u32 = 2;

/// A series that is watched.
pub struct Watched {
    pub id: u64,
    pub environment: String,
    pub host: String,
    pub metric: String,
    pub labels: String,
    kind: i8,
}

impl Watched {
    /// What of a rollup row over `seconds` is its value; None where there is none.
    fn value(&self, cnt: u32, sum: Option<f64>, rate: Option<f64>) -> Option<f64> {
        match self.kind {
            2 => sum,
            3 => rate,
            _ => sum.filter(|_| cnt > 0).map(|sum| sum / f64::from(cnt)),
        }
    }
}

/// The next page of series of these metrics, in the order of their ids.
pub async fn watched(
    session: &mut Session,
    metrics: &[String],
    after: u64,
) -> Result<Vec<Watched>, ShardError> {
    if metrics.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT environment, host, metric, labels, series_id, kind FROM series
         WHERE series_id > ? AND metric IN ({}) ORDER BY series_id LIMIT ?",
        places("?", metrics.len())
    );
    let mut query = sqlx::query(&sql).bind(after);
    for metric in metrics {
        query = query.bind(metric);
    }
    let rows = answer(query.bind(SERIES_A_PAGE).fetch_all(&mut **session)).await?;
    let one = |row: &sqlx::mysql::MySqlRow| {
        Ok::<_, sqlx::Error>(Watched {
            environment: text(row, 0)?,
            host: text(row, 1)?,
            metric: text(row, 2)?,
            labels: text(row, 3)?,
            id: row.try_get(4)?,
            kind: row.try_get(5)?,
        })
    };
    Ok(rows.iter().map(one).collect::<Result<_, _>>()?)
}

/// What is known of those that have all of their last minutes before `until`.
pub async fn known(
    session: &mut Session,
    page: &[Watched],
    until: u32,
) -> Result<HashMap<u64, Known>, ShardError> {
    let span = u32::try_from(HISTORY + PRESENT).unwrap_or(0) * MINUTE_S;
    let hour = until / HOUR_S * HOUR_S;
    let hours = DAYS_BACK.map(|days| hour.saturating_sub(days * DAY_S));
    let by_id: HashMap<u64, &Watched> = page.iter().map(|series| (series.id, series)).collect();
    let ids: Vec<u64> = page.iter().map(|series| series.id).collect();
    let mut known: HashMap<u64, Known> = HashMap::new();
    let mut recent: HashMap<u64, usize> = HashMap::new();
    let judged_from =
        until.saturating_sub((u32::try_from(PRESENT).unwrap_or(0) + LATE_MAX) * MINUTE_S);
    for (id, at, row) in minutes(session, &ids, (until.saturating_sub(span), until)).await? {
        let value = by_id.get(&id).and_then(|s| s.value(row.cnt, row.sum, row.per_second));
        let Some(value) = value else { continue };
        known.entry(id).or_default().minutes.push(value);
        *recent.entry(id).or_default() += usize::from(at >= judged_from);
    }
    known.retain(|id, _| recent.get(id).is_some_and(|minutes| *minutes >= PRESENT));
    for (id, row) in same_hours(session, &ids, &hours).await? {
        let (Some(series), Some(known)) = (by_id.get(&id), known.get_mut(&id)) else { continue };
        let Some(value) = series.value(row.cnt, row.sum, row.per_second) else { continue };
        known.same_hour.push(match (series.kind, row.reach) {
            (1, Some(reach)) => reach,
            // A sum per hour is told per minute here.
            (2, _) => Reach { min: value / 60.0, max: value / 60.0 },
            _ => Reach { min: value, max: value },
        });
    }
    Ok(known)
}

/// Of a rollup row, what a value is made of.
struct Row {
    cnt: u32,
    sum: Option<f64>,
    per_second: Option<f64>,
    reach: Option<Reach>,
}

async fn minutes(
    session: &mut Session,
    ids: &[u64],
    (from, until): (u32, u32),
) -> Result<Vec<(u64, u32, Row)>, ShardError> {
    let mut found = Vec::new();
    for ids in padded(ids) {
        let sql = format!(
            "SELECT series_id, minute_ts, cnt, `sum`, increase / 60 FROM rollup_1m
             WHERE series_id IN ({}) AND minute_ts >= ? AND minute_ts < ?
             ORDER BY series_id, minute_ts",
            places("?", ids.len())
        );
        let mut query = sqlx::query(&sql);
        for id in ids {
            query = query.bind(id);
        }
        for row in answer(query.bind(from).bind(until).fetch_all(&mut **session)).await? {
            let (cnt, sum, per_second) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
            let read = Row { cnt, sum, per_second, reach: None };
            found.push((row.try_get(0)?, row.try_get(1)?, read));
        }
    }
    Ok(found)
}

async fn same_hours(
    session: &mut Session,
    ids: &[u64],
    hours: &[u32],
) -> Result<Vec<(u64, Row)>, ShardError> {
    let mut found = Vec::new();
    for ids in padded(ids) {
        let sql = format!(
            "SELECT series_id, cnt, `sum`, increase / 3600, `min`, `max` FROM rollup_1h
             WHERE series_id IN ({}) AND hour_ts IN ({})",
            places("?", ids.len()),
            places("?", hours.len())
        );
        let mut query = sqlx::query(&sql);
        for id in ids {
            query = query.bind(id);
        }
        for hour in hours {
            query = query.bind(hour);
        }
        for row in answer(query.fetch_all(&mut **session)).await? {
            let (min, max): (Option<f64>, Option<f64>) = (row.try_get(4)?, row.try_get(5)?);
            let reach = min.zip(max).map(|(min, max)| Reach { min, max });
            let (cnt, sum, per_second) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            found.push((row.try_get(0)?, Row { cnt, sum, per_second, reach }));
        }
    }
    Ok(found)
}
