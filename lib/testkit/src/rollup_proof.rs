//! Rollups against what they are made of: every minute and hour is computed once more from single
//! points, as a dashboard reads them, by arithmetic that shares nothing with the keeper's.

use std::collections::BTreeMap;

use sqlx::{MySqlPool, Row as _};

/// The look-back that docs/dashboards.md promises for `increase`.
const LOOK_BACK_S: i64 = 600;
/// Sums of the same numbers in another order may differ in their last digits.
const SUM_TOLERANCE: f64 = 1e-9;
/// Differences told by name; the others are counted.
const TOLD_MAX: usize = 10;

/// What came out.
#[derive(Debug, Default)]
pub struct Proof {
    pub minutes: usize,
    pub hours: usize,
    /// Rows that are wrong, missing, or of nothing.
    pub wrong: usize,
    pub told: Vec<String>,
}

impl Proof {
    /// Panics with the first differences.
    pub fn must_hold(&self) {
        assert_eq!(
            self.wrong, 0,
            "{} minutes, {} hours: {:#?}",
            self.minutes, self.hours, self.told
        );
    }

    fn differs(&mut self, text: String) {
        self.wrong += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(text);
        }
    }
}

/// Series and the second its minute or hour begins.
type Key = (u64, i64);

#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    cnt: i64,
    /// Sum and the sum of magnitudes, by which its error is judged.
    sum: (f64, f64),
    min: Option<f64>,
    max: Option<f64>,
    first: Option<f64>,
    last: Option<f64>,
    increase: Option<f64>,
}

/// Compares all minutes and whole hours that begin within `from_s..until_s`; `pool` logs in as a
/// reader of every environment.
///
/// # Errors
/// The server did not answer.
pub async fn prove(pool: &MySqlPool, from_s: i64, until_s: i64) -> Result<Proof, sqlx::Error> {
    let minutes = of_points(pool, from_s, until_s).await?;
    let mut hours: BTreeMap<Key, Row> = BTreeMap::new();
    for ((series, minute), row) in &minutes {
        let hour = minute.div_euclid(3_600) * 3_600;
        if hour >= from_s && hour + 3_600 <= until_s {
            add(hours.entry((*series, hour)).or_default(), row);
        }
    }
    let mut proof = Proof { minutes: minutes.len(), hours: hours.len(), ..Proof::default() };
    for (view, expected) in [("metrics_1m", minutes), ("metrics_1h", hours)] {
        let step = if view == "metrics_1m" { 60 } else { 3_600 };
        let stored = stored(pool, view, (from_s, until_s - step)).await?;
        compare(view, &expected, &stored, &mut proof);
    }
    Ok(proof)
}

async fn of_points(
    pool: &MySqlPool,
    from_s: i64,
    until_s: i64,
) -> Result<BTreeMap<Key, Row>, sqlx::Error> {
    let sql = "SELECT m.series_id, CAST(FLOOR(m.ts) AS SIGNED), m.value, s.kind = 'cumulative'
               FROM spillway.metrics m JOIN spillway.series s ON s.series_id = m.series_id
               WHERE m.window_ts >= ? AND m.window_ts < ? ORDER BY m.series_id, m.ts";
    let query = sqlx::query(sql).bind(from_s - 2 * LOOK_BACK_S).bind(until_s);
    let mut minutes: BTreeMap<Key, Row> = BTreeMap::new();
    let mut before: Option<(u64, i64, f64)> = None;
    for point in query.fetch_all(pool).await? {
        let (series, second): (u64, i64) = (point.try_get(0)?, point.try_get(1)?);
        let minute = second.div_euclid(60) * 60;
        let row = minutes.entry((series, minute)).or_default();
        let Some(value) = point.try_get::<Option<f64>, _>(2)? else { continue };
        row.cnt += 1;
        row.sum = (row.sum.0 + value, row.sum.1 + value.abs());
        row.min = Some(row.min.map_or(value, |min| min.min(value)));
        row.max = Some(row.max.map_or(value, |max| max.max(value)));
        row.first = row.first.or(Some(value));
        row.last = Some(value);
        if point.try_get::<bool, _>(3)? {
            let near = before.filter(|(of, at, _)| *of == series && minute - at <= LOOK_BACK_S);
            let step =
                near.map_or(0.0, |(_, _, from)| if value >= from { value - from } else { value });
            row.increase = Some(row.increase.unwrap_or(0.0) + step);
            before = Some((series, minute, value));
        }
    }
    minutes.retain(|(_, minute), _| *minute >= from_s);
    Ok(minutes)
}

fn add(hour: &mut Row, minute: &Row) {
    let least = |a: Option<f64>, b: Option<f64>| a.map_or(b, |a| Some(b.map_or(a, |b| a.min(b))));
    let most = |a: Option<f64>, b: Option<f64>| a.map_or(b, |a| Some(b.map_or(a, |b| a.max(b))));
    hour.cnt += minute.cnt;
    hour.sum = (hour.sum.0 + minute.sum.0, hour.sum.1 + minute.sum.1);
    hour.min = least(hour.min, minute.min);
    hour.max = most(hour.max, minute.max);
    hour.first = hour.first.or(minute.first);
    hour.last = minute.last.or(hour.last);
    if let Some(increase) = minute.increase {
        hour.increase = Some(hour.increase.unwrap_or(0.0) + increase);
    }
}

async fn stored(
    pool: &MySqlPool,
    view: &str,
    (from_s, to_s): (i64, i64),
) -> Result<BTreeMap<Key, Row>, sqlx::Error> {
    let sql = format!(
        "SELECT series_id, CAST(ts AS SIGNED), cnt, `sum`, `min`, `max`, `first`, `last`, increase
         FROM spillway.{view} WHERE ts >= ? AND ts <= ?"
    );
    let mut rows = BTreeMap::new();
    for row in sqlx::query(&sql).bind(from_s).bind(to_s).fetch_all(pool).await? {
        let sum = row.try_get::<Option<f64>, _>(3)?.unwrap_or(0.0);
        let stored = Row {
            cnt: row.try_get(2)?,
            sum: (sum, 0.0),
            min: row.try_get(4)?,
            max: row.try_get(5)?,
            first: row.try_get(6)?,
            last: row.try_get(7)?,
            increase: row.try_get(8)?,
        };
        rows.insert((row.try_get(0)?, row.try_get(1)?), stored);
    }
    Ok(rows)
}

fn compare(
    view: &str,
    expected: &BTreeMap<Key, Row>,
    stored: &BTreeMap<Key, Row>,
    proof: &mut Proof,
) {
    for (key, row) in expected {
        match stored.get(key) {
            None => proof.differs(format!("{view}: {key:?} is missing: {row:?}")),
            Some(found) if !agree(row, found) => {
                proof.differs(format!("{view}: {key:?} is {found:?}, should be {row:?}"));
            }
            Some(_) => {}
        }
    }
    for (key, row) in stored.iter().filter(|(key, _)| !expected.contains_key(key)) {
        proof.differs(format!("{view}: {key:?} is there and of nothing: {row:?}"));
    }
}

fn agree(expected: &Row, found: &Row) -> bool {
    let bits = |value: Option<f64>| value.map(f64::to_bits);
    let exact = |row: &Row| (row.cnt, [row.min, row.max, row.first, row.last].map(bits));
    let slack = expected.sum.1 * SUM_TOLERANCE;
    let near = |a: f64, b: f64| (a - b).abs() <= slack.max(a.abs() * SUM_TOLERANCE);
    let increases = match (expected.increase, found.increase) {
        (Some(a), Some(b)) => near(a, b),
        (None, None) => true,
        _ => false,
    };
    exact(expected) == exact(found) && near(expected.sum.0, found.sum.0) && increases
}
