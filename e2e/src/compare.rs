//! MySQL against the ledger, through the views that dashboards read.
//!
//! L1: every accepted point is there. L2: nothing is there that was never attempted, or only
//! refused. L3: per series, count, sum of integers and Σ hash(series, ts, value) mod 2^64 agree
//! (a sum, so that two errors can't cancel). L4 falls out: each value comes back bit for bit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use sqlx::{MySqlPool, Row as _};
use tokio::time::{Instant, timeout};

use crate::ledger::{Attempted, Fate, Ledger};
use crate::sender::SenderOptions;

/// One query's limit; a million points read in a second.
const QUERY_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks while waiting for MySQL to catch up.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// First differences that a failure prints.
const DIFFERENCES_SHOWN: usize = 10;

/// A point's place: host, metric, ms since the Unix epoch.
type Place = (String, String, i64);

/// What a comparison found; `Display` says what was checked, not only "ok".
#[derive(Debug, Default)]
pub struct Verdict {
    pub series: usize,
    pub points_expected: usize,
    pub points_found: usize,
    pub missing: Vec<String>,
    pub phantom: Vec<String>,
    pub different: Vec<String>,
    pub twice: Vec<String>,
    pub gaps: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn holds(&self) -> bool {
        [&self.missing, &self.phantom, &self.different, &self.twice, &self.gaps]
            .iter()
            .all(|found| found.is_empty())
    }

    /// Panics with everything found unless nothing is wrong.
    pub fn must_hold(&self) {
        assert!(self.holds(), "{self}");
        assert!(self.points_found > 0, "nothing was compared");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "compared {} series: {} points expected, {} found",
            self.series, self.points_expected, self.points_found
        )?;
        let findings = [
            ("L1 lost", &self.missing),
            ("L2 made up", &self.phantom),
            ("L3 twice", &self.twice),
            ("L4 changed", &self.different),
            ("L8 gaps that are none", &self.gaps),
        ];
        for (law, found) in findings {
            writeln!(f, "  {law}: {}", found.len())?;
            for line in found.iter().take(DIFFERENCES_SHOWN) {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}

/// Waits until MySQL has applied all that the ledger holds as accepted.
///
/// Panics after `limit` with how far it came: then [`compare`] would only say the same at length.
pub async fn settled(mysql: &MySqlPool, ledger: &Ledger, options: &SenderOptions, limit: Duration) {
    let until = Instant::now() + limit;
    let expected = ledger.batches(Fate::Ok).len() as u64;
    let mut last = String::new();
    while Instant::now() < until {
        match applied_batches(mysql, options).await {
            Ok(applied) if applied >= expected => return,
            Ok(applied) => last = format!("{applied} of {expected} batches applied"),
            Err(error) => last = error,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    panic!("MySQL did not catch up within {limit:?}: {last}");
}

async fn applied_batches(mysql: &MySqlPool, options: &SenderOptions) -> Result<u64, String> {
    let query = sqlx::query(
        "SELECT CAST(COALESCE(SUM(applied_batches), 0) AS UNSIGNED) FROM spillway.ledger_totals \
         WHERE environment = ? AND host LIKE ?",
    )
    .bind(&options.environment)
    .bind(format!("{}-%", options.name));
    let row = timeout(QUERY_DEADLINE, query.fetch_one(mysql))
        .await
        .map_err(|_| "MySQL does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    row.try_get(0).map_err(|error| error.to_string())
}

/// Holds every point that MySQL has of this load against the ledger.
pub async fn compare(mysql: &MySqlPool, ledger: &Ledger, options: &SenderOptions) -> Verdict {
    let mut verdict = Verdict::default();
    let accepted = places(&ledger.batches(Fate::Ok));
    let open = places(&ledger.batches(Fate::Info));
    let mut seen = BTreeSet::new();
    let mut sums: BTreeMap<String, Sums> = BTreeMap::new();
    for (place, value) in stored(mysql, options).await {
        verdict.points_found += 1;
        let wanted = accepted.get(&place).or_else(|| open.get(&place));
        match wanted {
            None => verdict.phantom.push(format!("{place:?} = {value}")),
            Some(wanted) if wanted.to_bits() != value.to_bits() => {
                verdict.different.push(format!("{place:?}: sent {wanted}, stored {value}"));
            }
            Some(_) => sums.entry(place.1.clone()).or_default().add(&place, value),
        }
        if !seen.insert(place.clone()) {
            verdict.twice.push(format!("{place:?}"));
        }
    }
    verdict.points_expected = accepted.len();
    let lost = accepted.keys().filter(|place| !seen.contains(*place));
    verdict.missing = lost.map(|place| format!("{place:?}")).collect();
    if open.is_empty() {
        verdict.twice.extend(unequal_sums(&accepted, &sums));
    }
    verdict.series = sums.len();
    verdict.gaps = gaps(mysql, options).await;
    verdict
}

/// Count, sum, and the sum of hashes of one metric's points: the law L3 in three numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    count: u64,
    sum: i128,
    hashes: u64,
}

impl Sums {
    fn add(&mut self, place: &Place, value: f64) {
        self.count += 1;
        if value.fract() == 0.0 && value.abs() < 9e15 {
            self.sum += value as i128;
        }
        let (host, metric, ts_ms) = place;
        let text = format!("{host}\0{metric}\0{ts_ms}\0{}", value.to_bits());
        let hash = spillway_proto::series::host_id(&text, "");
        self.hashes = self.hashes.wrapping_add(hash);
    }
}

fn unequal_sums(accepted: &BTreeMap<Place, f64>, found: &BTreeMap<String, Sums>) -> Vec<String> {
    let mut wanted: BTreeMap<String, Sums> = BTreeMap::new();
    for (place, value) in accepted {
        wanted.entry(place.1.clone()).or_default().add(place, *value);
    }
    wanted
        .iter()
        .filter(|(metric, sums)| found.get(*metric) != Some(*sums))
        .map(|(metric, sums)| format!("{metric}: sent {sums:?}, stored {:?}", found.get(metric)))
        .collect()
}

fn places(attempted: &[Attempted]) -> BTreeMap<Place, f64> {
    let mut places = BTreeMap::new();
    for entry in attempted {
        for series in &entry.batch.series {
            for point in &series.points {
                let place = (entry.batch.host.clone(), series.metric.clone(), point.ts_ms);
                places.insert(place, point.value);
            }
        }
    }
    places
}

async fn stored(mysql: &MySqlPool, options: &SenderOptions) -> Vec<(Place, f64)> {
    let last_window_ts = options.first_window_ts + options.windows as u32 * 10;
    let query = sqlx::query(
        "SELECT host, metric, CAST(ROUND(ts * 1000) AS SIGNED) AS ts_ms, value \
         FROM spillway.metrics WHERE window_ts BETWEEN ? AND ? AND environment = ? \
         AND host LIKE ?",
    )
    .bind(options.first_window_ts)
    .bind(last_window_ts)
    .bind(&options.environment)
    .bind(format!("{}-%", options.name));
    let rows = timeout(QUERY_DEADLINE, query.fetch_all(mysql))
        .await
        .expect("the comparison reads within its deadline")
        .expect("the view `metrics` is readable");
    let read = |row: &sqlx::mysql::MySqlRow| -> Result<(Place, f64), sqlx::Error> {
        // sqlx takes texts compared as bytes for VARBINARY, and would refuse a String.
        let text = |at: usize| row.try_get_unchecked::<String, _>(at);
        Ok(((text(0)?, text(1)?, row.try_get(2)?), row.try_get(3)?))
    };
    rows.iter().map(|row| read(row).expect("columns are as the contract says")).collect()
}

async fn gaps(mysql: &MySqlPool, options: &SenderOptions) -> Vec<String> {
    let query = sqlx::query(
        "SELECT CONCAT_WS(' ', host, state, CAST(first_seq AS CHAR), CAST(last_seq AS CHAR)) \
         FROM spillway.gaps WHERE environment = ? AND host LIKE ?",
    )
    .bind(&options.environment)
    .bind(format!("{}-%", options.name));
    let rows = timeout(QUERY_DEADLINE, query.fetch_all(mysql))
        .await
        .expect("the comparison reads within its deadline")
        .expect("the view `gaps` is readable");
    rows.iter()
        .map(|row| row.try_get_unchecked(0).unwrap_or_else(|error| error.to_string()))
        .collect()
}
