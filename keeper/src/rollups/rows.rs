//! What the rollups read and write: rows of `points`, of `rollup_1m` and `rollup_1h`.

use std::collections::BTreeMap;

use spillway_consumer::store::values::{Summary, decode_vals};
use spillway_runtime::mysql::Session;
use sqlx::Row as _;
use sqlx::mysql::MySqlRow;

use super::bucket::Bucket;
use super::list::{padded, places};
use super::{MINUTE_S, WINDOW_S};
use crate::shard::{ShardError, answer};

/// A series of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    pub host_id: u64,
    pub id: u64,
    pub is_cumulative: bool,
}

/// As `series.kind` holds it.
const CUMULATIVE: i8 = spillway_proto::Kind::Cumulative as i8;

/// A minute of a series as it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Minute {
    pub series_id: u64,
    pub at: u32,
    pub bucket: Bucket,
    /// None for series that are not cumulative, and without any sample.
    pub increase: Option<f64>,
}

/// All series of these hosts.
pub async fn series_of(session: &mut Session, hosts: &[u64]) -> Result<Vec<Series>, ShardError> {
    let mut series = Vec::new();
    for hosts in padded(hosts) {
        let sql = format!(
            "SELECT h.host_id, s.series_id, s.kind FROM hosts h
             STRAIGHT_JOIN series s ON s.environment = h.environment AND s.host = h.host
             WHERE h.host_id IN ({})",
            places("?", hosts.len())
        );
        let mut query = sqlx::query_as::<_, (u64, u64, i8)>(&sql);
        for host in hosts {
            query = query.bind(host);
        }
        let one = |(host_id, id, kind)| Series { host_id, id, is_cumulative: kind == CUMULATIVE };
        series.extend(answer(query.fetch_all(&mut **session)).await?.into_iter().map(one));
    }
    Ok(series)
}

/// The minute's windows of these series, joined. Samples themselves are read where nothing else
/// tells: a row of one sample has no summary, and a rise has its steps.
pub async fn minutes_of_points(
    session: &mut Session,
    series: &[Series],
    minute: u32,
) -> Result<BTreeMap<u64, Bucket>, ShardError> {
    let mut found = BTreeMap::new();
    for is_cumulative in [false, true] {
        let ids = series.iter().filter(|one| one.is_cumulative == is_cumulative);
        let ids: Vec<u64> = ids.map(|one| one.id).collect();
        let vals = if is_cumulative { "vals" } else { "IF(cnt IS NULL, vals, NULL)" };
        for ids in padded(&ids) {
            let sql = format!(
                "SELECT series_id, window_ts, cnt, `sum`, `min`, `max`, `first`, `last`, {vals}
                 FROM points WHERE series_id IN ({}) AND window_ts BETWEEN ? AND ?
                 ORDER BY series_id, window_ts",
                places("?", ids.len())
            );
            let mut query = sqlx::query(&sql);
            for id in ids {
                query = query.bind(id);
            }
            let query = query.bind(minute).bind(minute + MINUTE_S - WINDOW_S);
            for row in answer(query.fetch_all(&mut **session)).await? {
                let (id, window) = window(&row)?;
                found.entry(id).or_insert_with(Bucket::default).join(&window);
            }
        }
    }
    Ok(found)
}

fn window(row: &MySqlRow) -> Result<(u64, Bucket), ShardError> {
    let vals: Option<Vec<u8>> = row.try_get_unchecked(8)?;
    let mut samples = Vec::new();
    if let Some(vals) = vals {
        // Only the consumer writes here; should another one have, its row counts for nothing and
        // the rest of the minute is made all the same.
        if decode_vals(&vals, &mut samples).is_err() {
            samples.clear();
        }
    }
    let mut bucket = Bucket::of_samples(&samples);
    if let Some(cnt) = row.try_get::<Option<u32>, _>(2)? {
        bucket.summary = summary(row, cnt, 3)?;
    }
    Ok((row.try_get(0)?, bucket))
}

/// `sum`, `min`, `max`, `first`, `last`, from this column on.
fn summary(row: &MySqlRow, cnt: u32, from: usize) -> Result<Summary, ShardError> {
    Ok(Summary {
        cnt,
        sum: row.try_get(from)?,
        min: row.try_get(from + 1)?,
        max: row.try_get(from + 2)?,
        first: row.try_get(from + 3)?,
        last: row.try_get(from + 4)?,
    })
}

/// Stored minutes of these series within `from..=to`, in the order of time.
pub async fn stored_minutes(
    session: &mut Session,
    table: &str,
    ids: &[u64],
    (from, to): (u32, u32),
) -> Result<BTreeMap<u64, Vec<Minute>>, ShardError> {
    let mut found: BTreeMap<u64, Vec<Minute>> = BTreeMap::new();
    for ids in padded(ids) {
        let sql = format!(
            "SELECT series_id, minute_ts, cnt, `sum`, `min`, `max`, `first`, `last`, growth,
               increase
             FROM {table} WHERE series_id IN ({}) AND minute_ts BETWEEN ? AND ?
             ORDER BY series_id, minute_ts",
            places("?", ids.len())
        );
        let mut query = sqlx::query(&sql);
        for id in ids {
            query = query.bind(id);
        }
        for row in answer(query.bind(from).bind(to).fetch_all(&mut **session)).await? {
            let summary = summary(&row, row.try_get(2)?, 3)?;
            let growth = row.try_get::<Option<f64>, _>(8)?.unwrap_or(0.0);
            let (series_id, at) = (row.try_get(0)?, row.try_get(1)?);
            let bucket = Bucket { summary, growth };
            let minute = Minute { series_id, at, bucket, increase: row.try_get(9)? };
            found.entry(series_id).or_default().push(minute);
        }
    }
    Ok(found)
}

/// Writes minutes over whatever stands there. `table` is `rollup_1m` or one shaped like it.
pub async fn write_minutes(
    session: &mut Session,
    table: &str,
    minutes: &[(Minute, bool)],
) -> Result<(), ShardError> {
    for minutes in padded(minutes) {
        let sql = format!(
            "INSERT INTO {table} (series_id, minute_ts, cnt, `sum`, `min`, `max`, `first`, `last`,
               growth, increase) VALUES {}
             ON DUPLICATE KEY UPDATE cnt = VALUES(cnt), `sum` = VALUES(`sum`),
               `min` = VALUES(`min`), `max` = VALUES(`max`), `first` = VALUES(`first`),
               `last` = VALUES(`last`), growth = VALUES(growth), increase = VALUES(increase)",
            places("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", minutes.len())
        );
        let mut query = sqlx::query(&sql);
        for (minute, is_cumulative) in minutes {
            let Minute { series_id, at, bucket: Bucket { summary, growth }, increase } = minute;
            query = query.bind(series_id).bind(at).bind(summary.cnt).bind(summary.sum);
            query = query.bind(summary.min).bind(summary.max).bind(summary.first);
            query = query.bind(summary.last).bind(is_cumulative.then_some(growth)).bind(increase);
        }
        answer(query.execute(&mut **session)).await?;
    }
    Ok(())
}

/// Writes the increases of minutes that are there: the step into them has become another one.
pub async fn write_increases(
    session: &mut Session,
    table: &str,
    minutes: &[Minute],
) -> Result<(), ShardError> {
    for minutes in padded(minutes) {
        let sql = format!(
            "INSERT INTO {table} (series_id, minute_ts, cnt, increase) VALUES {}
             ON DUPLICATE KEY UPDATE increase = VALUES(increase)",
            places("(?, ?, ?, ?)", minutes.len())
        );
        let mut query = sqlx::query(&sql);
        for minute in minutes {
            let cnt = minute.bucket.summary.cnt;
            query = query.bind(minute.series_id).bind(minute.at).bind(cnt).bind(minute.increase);
        }
        answer(query.execute(&mut **session)).await?;
    }
    Ok(())
}

/// Writes an hour's rows over whatever stands there.
pub async fn write_hours(
    session: &mut Session,
    hour: u32,
    rows: &[(u64, Summary, Option<f64>)],
) -> Result<(), ShardError> {
    for rows in padded(rows) {
        let sql = format!(
            "INSERT INTO rollup_1h (series_id, hour_ts, cnt, `sum`, `min`, `max`, `first`, `last`,
               increase) VALUES {}
             ON DUPLICATE KEY UPDATE cnt = VALUES(cnt), `sum` = VALUES(`sum`),
               `min` = VALUES(`min`), `max` = VALUES(`max`), `first` = VALUES(`first`),
               `last` = VALUES(`last`), increase = VALUES(increase)",
            places("(?, ?, ?, ?, ?, ?, ?, ?, ?)", rows.len())
        );
        let mut query = sqlx::query(&sql);
        for (series_id, summary, increase) in rows {
            query = query.bind(series_id).bind(hour).bind(summary.cnt).bind(summary.sum);
            query = query.bind(summary.min).bind(summary.max).bind(summary.first);
            query = query.bind(summary.last).bind(increase);
        }
        answer(query.execute(&mut **session)).await?;
    }
    Ok(())
}
