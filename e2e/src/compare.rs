//! MySQL against the ledger, through the views that dashboards read; one series in memory at a
//! time, however long the run was.
//!
//! L1: every accepted point is there. L2: nothing is there that was never attempted, or only
//! refused. L3: per series, count, sum of integers and Σ hash(series, ts, value) mod 2^64 agree
//! (a sum, so that two errors can't cancel), and the system's own books count each batch once.
//! L4: each value comes back bit for bit, and of two the last. L8: gaps are what was given up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::{MySqlPool, Row as _};
use tokio::time::{Instant, timeout};

use crate::books;
use crate::expect::{Expected, Host};
use crate::ledger::{Fate, Ledger};
use crate::sender::SenderOptions;
use crate::verdict::Verdict;

/// One query's limit; a million points read in a second.
pub const QUERY_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks while waiting for MySQL to catch up.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Whose points are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub environment: String,
    /// What the hosts' names begin with.
    pub hosts: String,
    /// First and last window; `None` is all there are.
    pub windows: Option<(u32, u32)>,
}

impl Scope {
    /// What a load sent.
    #[must_use]
    pub fn of(options: &SenderOptions) -> Self {
        let first = options.first_window_ts;
        Self {
            environment: options.environment.clone(),
            hosts: format!("{}-", options.name),
            windows: Some((first.saturating_sub(10), first + options.windows as u32 * 10)),
        }
    }

    /// A pattern for SQL's LIKE.
    #[must_use]
    pub fn pattern(&self) -> String {
        format!("{}%", self.hosts.replace('%', "\\%").replace('_', "\\_"))
    }
}

/// Waits until MySQL has applied all that the ledger holds as accepted.
///
/// Panics after `limit` with how far it came: then [`compare`] would only say the same at length.
pub async fn settled(mysql: &MySqlPool, ledger: &Ledger, options: &SenderOptions, limit: Duration) {
    if let Err(last) = caught_up(mysql, ledger, &Scope::of(options), limit).await {
        panic!("MySQL did not catch up within {limit:?}: {last}");
    }
}

/// The same; an error says how far it came.
pub async fn caught_up(
    mysql: &MySqlPool,
    ledger: &Ledger,
    scope: &Scope,
    limit: Duration,
) -> Result<(), String> {
    let until = Instant::now() + limit;
    // By epoch: an agent whose host is named like these hosts must not be counted for them.
    let mut expected: BTreeMap<books::Key, u64> = BTreeMap::new();
    for entry in ledger.batches(Fate::Ok) {
        if entry.recipe.environment == scope.environment {
            let counted = entry.recipe.counted().map(|(agent_id, epoch, _)| (agent_id, epoch));
            *expected.entry(counted.unwrap_or_default()).or_default() += 1;
        }
    }
    let mut last = String::new();
    while Instant::now() < until {
        match books::applied_batches(mysql, scope).await {
            Ok(applied) => {
                let missing = expected.iter().map(|(key, expected)| {
                    expected.saturating_sub(applied.get(key).copied().unwrap_or(0))
                });
                match missing.sum::<u64>() {
                    0 => return Ok(()),
                    missing => last = format!("{missing} batches are not applied"),
                }
            }
            Err(error) => last = error,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(last)
}

/// Holds every point that MySQL has of this load against the ledger.
pub async fn compare(mysql: &MySqlPool, ledger: &Ledger, options: &SenderOptions) -> Verdict {
    judge(mysql, ledger, &Scope::of(options)).await
}

/// Holds every point that MySQL has of these hosts against the ledger.
pub async fn judge(mysql: &MySqlPool, ledger: &Ledger, scope: &Scope) -> Verdict {
    let mut verdict = Verdict::default();
    let mut hosts: BTreeMap<String, Host> = BTreeMap::new();
    let entries = ledger.all();
    for entry in entries.iter().filter(|entry| entry.recipe.environment == scope.environment) {
        hosts.entry(entry.recipe.host.clone()).or_default().add(entry);
    }
    let mut stored = stored_series(mysql, scope).await;
    for host in hosts.keys() {
        stored.entry(host.clone()).or_default();
    }
    let nothing = Host::default();
    for (host, series) in stored {
        let sent = hosts.get(&host).unwrap_or(&nothing);
        let metrics: BTreeSet<String> =
            sent.metrics().into_iter().chain(series.keys().cloned()).collect();
        for metric in metrics {
            let found = match series.get(&metric) {
                Some(id) => stored_points(mysql, scope, *id).await,
                None => vec![],
            };
            let name = format!("{host} {metric}");
            compare_series(&name, &sent.points_of(&metric), found, &mut verdict);
        }
    }
    books::judge(mysql, &entries, scope, &mut verdict).await;
    verdict
}

/// Merges two lists in order of time.
fn compare_series(
    name: &str,
    expected: &[Expected],
    mut found: Vec<(i64, f64)>,
    verdict: &mut Verdict,
) {
    found.sort_by_key(|(ts_ms, _)| *ts_ms);
    let (mut wanted, mut stored) = (Sums::default(), Sums::default());
    let mut open = false;
    let mut found = found.into_iter().peekable();
    for place in expected {
        while let Some((ts_ms, value)) = found.next_if(|(ts_ms, _)| *ts_ms < place.ts_ms) {
            verdict.phantom.push(None, || format!("{name} at {ts_ms} = {value}"));
            stored.add(name, ts_ms, value);
        }
        verdict.points_expected += usize::from(place.must.is_some());
        open |= place.may.is_some();
        if let Some(value) = place.must {
            wanted.add(name, place.ts_ms, value);
        }
        let mut times = 0;
        while let Some((ts_ms, value)) = found.next_if(|(ts_ms, _)| *ts_ms == place.ts_ms) {
            times += 1;
            verdict.points_found += 1;
            stored.add(name, ts_ms, value);
            let is = |wanted: Option<f64>| wanted.is_some_and(|w| w.to_bits() == value.to_bits());
            if !is(place.must) && !is(place.may) {
                let wanted = place.must.or(place.may).unwrap_or(f64::NAN);
                let text = || format!("{name} at {ts_ms}: sent {wanted}, stored {value}");
                verdict.different.push(Some(place.by), text);
            }
        }
        if times == 0 && place.must.is_some() {
            verdict.missing.push(Some(place.by), || format!("{name} at {}", place.ts_ms));
        }
        if times > 1 {
            let text = || format!("{name} at {}: {times} times", place.ts_ms);
            verdict.twice.push(Some(place.by), text);
        }
    }
    for (ts_ms, value) in found {
        verdict.points_found += 1;
        verdict.phantom.push(None, || format!("{name} at {ts_ms} = {value}"));
        stored.add(name, ts_ms, value);
    }
    verdict.series += usize::from(stored.count > 0);
    if !open && wanted != stored {
        let text =
            || format!("{name}: sums of what was sent {wanted:?}, of what is stored {stored:?}");
        verdict.unequal.push(None, text);
    }
}

/// Count, sum, and the sum of hashes of one series: the law L3 in three numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    count: u64,
    sum: i128,
    hashes: u64,
}

impl Sums {
    fn add(&mut self, name: &str, ts_ms: i64, value: f64) {
        self.count += 1;
        if value.fract() == 0.0 && value.abs() < 9e15 {
            self.sum += value as i128;
        }
        let text = format!("{name}\0{ts_ms}\0{}", value.to_bits());
        let hash = spillway_proto::series::host_id(&text, "");
        self.hashes = self.hashes.wrapping_add(hash);
    }
}

/// Ids of all series, by host and metric.
async fn stored_series(
    mysql: &MySqlPool,
    scope: &Scope,
) -> BTreeMap<String, BTreeMap<String, u64>> {
    let query = sqlx::query(
        "SELECT host, metric, series_id FROM spillway.series WHERE environment = ? AND host LIKE ?",
    );
    let query = query.bind(&scope.environment).bind(scope.pattern());
    let rows = timeout(QUERY_DEADLINE, query.fetch_all(mysql))
        .await
        .expect("the comparison reads within its deadline")
        .expect("the view `series` is readable");
    let mut series: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for row in rows {
        // sqlx takes texts compared as bytes for VARBINARY, and would refuse a String.
        let text = |at: usize| row.try_get_unchecked::<String, _>(at).expect("a text");
        let id = row.try_get(2).expect("an id");
        series.entry(text(0)).or_default().insert(text(1), id);
    }
    series
}

async fn stored_points(mysql: &MySqlPool, scope: &Scope, series_id: u64) -> Vec<(i64, f64)> {
    let (first, last) = scope.windows.unwrap_or((0, u32::MAX));
    let query = sqlx::query(
        "SELECT CAST(ROUND(ts * 1000) AS SIGNED), value FROM spillway.metrics \
         WHERE series_id = ? AND window_ts BETWEEN ? AND ?",
    );
    let query = query.bind(series_id).bind(first).bind(last);
    let rows = timeout(QUERY_DEADLINE, query.fetch_all(mysql))
        .await
        .expect("the comparison reads within its deadline")
        .expect("the view `metrics` is readable");
    let read = |row: &sqlx::mysql::MySqlRow| -> Result<(i64, f64), sqlx::Error> {
        // A stored null is none of the values that were sent.
        Ok((row.try_get(0)?, row.try_get::<Option<f64>, _>(1)?.unwrap_or(f64::NAN)))
    };
    rows.iter().map(|row| read(row).expect("columns are as the contract says")).collect()
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
