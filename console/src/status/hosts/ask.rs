//! The questions to the views. Every one has a limit, and names its hours.

use spillway_runtime::mysql::{text, text_or_null};
use sqlx::Row;

use super::Range;
use crate::reach::mysql::{MysqlFault, Server};
use crate::status::snapshot::GAP_BATCHES;

/// Hosts on an environment's page.
pub const HOSTS_MAX: u32 = 500;

/// One host, as the views know it.
#[derive(Debug)]
pub struct HostFacts {
    pub host: String,
    /// Of its newest point; NULL while none is stored.
    pub age_s: Option<i64>,
    /// NULL if its agent never said.
    pub backlog: Option<i64>,
    pub version: String,
}

#[derive(Debug, Clone)]
pub struct KnownMetric {
    pub metric: String,
    pub kind: String,
    pub unit: String,
}

/// Whose curve.
#[derive(Debug, Clone, Copy)]
pub struct Of<'a> {
    pub environment: &'a str,
    pub host: &'a str,
    pub metric: &'a str,
}

/// One series in one step.
#[derive(Debug)]
pub struct Sample {
    pub labels: String,
    pub kind: String,
    pub at: i64,
    pub mean: Option<f64>,
    pub sum: Option<f64>,
    pub last: Option<f64>,
    /// How far a counter rose, as the keeper computed it, and the seconds it took; windows of 10 s
    /// have none.
    pub rise: Option<(f64, i64)>,
}

pub async fn hosts(server: &mut Server, environment: &str) -> Result<Vec<HostFacts>, MysqlFault> {
    server
        .ask(async |conn| {
            let sql = "SELECT host, CAST(age_s AS SIGNED), CAST(backlog_batches AS SIGNED)
                       FROM spillway.freshness WHERE environment = ?
                       ORDER BY age_s IS NULL DESC, age_s DESC, host LIMIT ?";
            let rows = sqlx::query(sql).bind(environment).bind(HOSTS_MAX).fetch_all(conn).await?;
            let facts = rows.iter().map(|row| {
                Ok(HostFacts {
                    host: text(row, 0)?,
                    age_s: row.try_get(1)?,
                    backlog: row.try_get(2)?,
                    version: String::new(),
                })
            });
            facts.collect()
        })
        .await
}

pub async fn host(
    server: &mut Server,
    environment: &str,
    host: &str,
) -> Result<Option<HostFacts>, MysqlFault> {
    server
        .ask(async |conn| {
            let sql = "SELECT h.host, CAST(f.age_s AS SIGNED), CAST(f.backlog_batches AS SIGNED),
                       h.version FROM spillway.hosts h JOIN spillway.freshness f
                       ON f.environment = h.environment AND f.host = h.host
                       WHERE h.environment = ? AND h.host = ? LIMIT 1";
            let row = sqlx::query(sql).bind(environment).bind(host).fetch_optional(conn).await?;
            let facts = row.map(|row| {
                Ok(HostFacts {
                    host: text(&row, 0)?,
                    age_s: row.try_get(1)?,
                    backlog: row.try_get(2)?,
                    version: text_or_null(&row, 3)?.unwrap_or_default(),
                })
            });
            facts.transpose()
        })
        .await
}

/// Shaded in a chart; more would be one grey wall.
const GAP_MARKS_MAX: u32 = 200;

/// From, to and state of what is missing since then.
pub async fn gap_marks(
    server: &mut Server,
    environment: &str,
    host: &str,
    since: i64,
) -> Result<Vec<(i64, i64, String)>, MysqlFault> {
    server
        .ask(async |conn| {
            let sql = "SELECT CAST(from_ts AS SIGNED), CAST(to_ts AS SIGNED), state
                       FROM spillway.gaps
                       WHERE environment = ? AND host = ? AND to_ts >= ?
                       AND from_ts IS NOT NULL AND to_ts IS NOT NULL
                       ORDER BY from_ts DESC LIMIT ?";
            let asked = sqlx::query(sql).bind(environment).bind(host).bind(since);
            let rows = asked.bind(GAP_MARKS_MAX).fetch_all(conn).await?;
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, text(row, 2)?))).collect()
        })
        .await
}

/// Batches by state: `none`, or `2 late, 1 lost`.
pub async fn gaps(
    server: &mut Server,
    environment: &str,
    host: &str,
) -> Result<String, MysqlFault> {
    let counts: Vec<(String, i64)> = server
        .ask(async |conn| {
            let sql = format!(
                "SELECT state, {GAP_BATCHES} FROM spillway.gaps
                 WHERE environment = ? AND host = ? GROUP BY state ORDER BY state"
            );
            let rows = sqlx::query(&sql).bind(environment).bind(host).fetch_all(conn).await?;
            rows.iter().map(|row| Ok((text(row, 0)?, row.try_get(1)?))).collect()
        })
        .await?;
    let told: Vec<String> = counts
        .iter()
        .map(|(state, count)| format!("{count} {}", state.replace('_', " ")))
        .collect();
    Ok(if told.is_empty() { "none".to_owned() } else { told.join(", ") })
}

pub async fn metrics(
    server: &mut Server,
    environment: &str,
    host: &str,
) -> Result<Vec<KnownMetric>, MysqlFault> {
    server
        .ask(async |conn| {
            let sql = "SELECT metric, MIN(kind), MIN(unit) FROM spillway.series
                       WHERE environment = ? AND host = ?
                       GROUP BY metric ORDER BY metric LIMIT 1000";
            let rows = sqlx::query(sql).bind(environment).bind(host).fetch_all(conn).await?;
            let known = rows.iter().map(|row| {
                Ok(KnownMetric {
                    metric: text(row, 0)?,
                    kind: text_or_null(row, 1)?.unwrap_or_default(),
                    unit: text_or_null(row, 2)?.unwrap_or_default(),
                })
            });
            known.collect()
        })
        .await
}

/// The server gives up by itself as well, should this side be gone. VIEW and RISE are ours.
const SAMPLES_SQL: &str = "SELECT /*+ MAX_EXECUTION_TIME(5000) */
    m.labels, s.kind, CAST(m.ts DIV ? * ? AS SIGNED) AS at, SUM(m.`sum`) / SUM(m.cnt),
    SUM(m.`sum`), MAX(m.`last`), RISE
    FROM spillway.VIEW m JOIN spillway.series s ON s.series_id = m.series_id
    WHERE m.environment = ? AND m.host = ? AND m.metric = ? AND m.ts >= ? AND m.ts < ?
    GROUP BY m.series_id, m.labels, s.kind, at ORDER BY m.series_id, at LIMIT 50000";

/// Windows have no `increase`, rollups have.
fn samples_sql(range: Range) -> String {
    let (view, rise) = match range.row_s() {
        10 => ("metrics_10s", "NULL, 0"),
        60 => ("metrics_1m", "SUM(m.increase), COUNT(m.increase)"),
        _ => ("metrics_1h", "SUM(m.increase), COUNT(m.increase)"),
    };
    SAMPLES_SQL.replace("VIEW", view).replace("RISE", rise)
}

pub async fn samples(
    server: &mut Server,
    of: Of<'_>,
    range: Range,
    to: i64,
) -> Result<Vec<Sample>, MysqlFault> {
    let from = to - i64::from(range.seconds);
    server
        .ask(async |conn| {
            let sql = samples_sql(range);
            let rows = sqlx::query(&sql)
                .bind(range.step)
                .bind(range.step)
                .bind(of.environment)
                .bind(of.host)
                .bind(of.metric)
                .bind(from)
                .bind(to)
                .fetch_all(conn)
                .await?;
            let samples = rows.iter().map(|row| {
                // A NULL in every row has no type of its own.
                let rise: Option<f64> = row.try_get_unchecked(6)?;
                let rows: i64 = row.try_get(7)?;
                Ok(Sample {
                    labels: text(row, 0)?,
                    kind: text_or_null(row, 1)?.unwrap_or_default(),
                    at: row.try_get(2)?,
                    mean: row.try_get(3)?,
                    sum: row.try_get(4)?,
                    last: row.try_get(5)?,
                    rise: rise.map(|rise| (rise, rows * i64::from(range.row_s()))),
                })
            });
            samples.collect()
        })
        .await
}
