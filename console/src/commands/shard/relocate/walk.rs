//! Everything that belongs to moved groups, slice by slice: host by host what goes by environment,
//! series, host and epoch; then what goes by partition.
//!
//! Of each host the rollups' marks come first. A mark that is gone at the source when it is looked
//! at has its rollup there already, and that is looked at later: so whatever the source's keeper
//! does meanwhile, the target has the rollup, or the mark by which it makes it. The first pass
//! leaves marks out: the target's keeper must not make a rollup of points that are on their way.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use spillway_proto::partition::Partitioning;
use spillway_runtime::mysql::text;
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::answer::duration;
use crate::failure::Failure;
use crate::reach::mysql::MysqlFault;

use super::super::promote::progress;
use super::slice::{Act, Pair, Slice, Value, marks, rows};

/// Series at once, and periods of a table in one slice: 36 000 rows at most.
const SERIES_AT_ONCE: usize = 100;
const PERIODS_AT_ONCE: u64 = 360;
/// Batches of the audit that one slice should have; agents' ids and contents' hashes are random, so
/// their first two bytes cut them evenly.
const AUDIT_AT_ONCE: u64 = 20_000;
const AUDIT_SLICES_MAX: u64 = 65_536;
/// Between two lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// By series and time: table, time column, seconds of a period.
const TIMED: [(&str, &str, u64); 3] =
    [("rollup_1m", "minute_ts", 60), ("rollup_1h", "hour_ts", 3_600), ("points", "window_ts", 10)];

/// What is moved.
#[derive(Clone, Debug)]
pub struct Scope {
    pub partitioning: Partitioning,
    pub groups: Vec<u16>,
    pub partitions: Vec<u16>,
}

impl Scope {
    /// Environments of these groups of which a server has rows.
    pub async fn environments(
        &self,
        pair: &mut Pair,
        act: Act,
    ) -> Result<BTreeSet<String>, Failure> {
        // DISTINCT lets the server skip along the index.
        let sql = "SELECT DISTINCT environment FROM spillway_store.hosts
                   UNION SELECT DISTINCT environment FROM spillway_store.series
                   UNION SELECT DISTINCT environment FROM spillway_store.ledger_epochs
                   UNION SELECT DISTINCT environment FROM spillway_store.events
                   WHERE environment IS NOT NULL";
        let mut all = distinct(pair, act, (sql, &[]), first_text).await?;
        all.retain(|name| self.groups.contains(&self.partitioning.group_of(name)));
        Ok(all)
    }

    fn filter(&self) -> (String, Vec<Value>) {
        let numbers = self.partitions.iter().map(|at| Value::Number(u64::from(*at)));
        (format!("partition_id IN ({})", marks(self.partitions.len())), numbers.collect())
    }
}

/// Goes through everything once.
pub async fn walk(pair: &mut Pair, scope: &Scope, act: Act) -> Result<(), Failure> {
    let (began, mut told) = (Instant::now(), Instant::now());
    let environments = scope.environments(pair, act).await?;
    let mut hosts = Vec::new();
    for environment in &environments {
        let sql = "SELECT host FROM spillway_store.hosts WHERE environment = ?
                   UNION SELECT host FROM spillway_store.ledger_epochs WHERE environment = ?
                   UNION SELECT DISTINCT host FROM spillway_store.series WHERE environment = ?";
        let named = vec![Value::Text(environment.clone()); 3];
        for host in distinct(pair, act, (sql, &named), first_text).await? {
            hosts.push((environment.clone(), host));
        }
    }
    for (done, (environment, name)) in hosts.iter().enumerate() {
        host(pair, act, environment, name).await?;
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            let (done, all) = (done + 1, hosts.len());
            let left = began.elapsed().as_secs_f64() / done as f64 * (all - done) as f64;
            let changed = pair.changed;
            let left = duration(left);
            progress(&format!("{done} of {all} hosts, {changed} rows changed, about {left} left"));
        }
    }
    for environment in environments {
        let values = vec![Value::Text(environment)];
        let slice = Slice { table: "events", filter: "environment = ?".to_owned(), values };
        pair.apply(&slice, act).await?;
    }
    by_partition(pair, scope, act).await
}

async fn host(pair: &mut Pair, act: Act, environment: &str, host: &str) -> Result<(), Failure> {
    let named = vec![Value::Text(environment.to_owned()), Value::Text(host.to_owned())];
    let of_host = |table| Slice {
        table,
        filter: "environment = ? AND host = ?".to_owned(),
        values: named.clone(),
    };
    let sql = "SELECT host_id FROM spillway_store.hosts WHERE environment = ? AND host = ?";
    let ids = if pair.marks {
        distinct(pair, act, (sql, &named), first_number).await?
    } else {
        BTreeSet::new()
    };
    for id in ids {
        for table in ["rollup_marks", "rollup_hour_marks"] {
            let filter = "host_id = ?".to_owned();
            pair.apply(&Slice { table, filter, values: vec![Value::Number(id)] }, act).await?;
        }
    }
    let mut after = None;
    loop {
        let page = page(pair, act, &named, after).await?;
        let last = page.last().copied();
        series(pair, act, &named, (after, last, &page)).await?;
        match last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    epochs(pair, act, &named).await?;
    for table in ["ledger_epochs", "hosts"] {
        pair.apply(&of_host(table), act).await?;
    }
    Ok(())
}

/// The next series of a host, in the order of their ids.
async fn page(
    pair: &mut Pair,
    act: Act,
    named: &[Value],
    after: Option<u64>,
) -> Result<Vec<u64>, Failure> {
    let sql = format!(
        "SELECT series_id FROM spillway_store.series WHERE environment = ? AND host = ?
         AND series_id >= ? ORDER BY series_id LIMIT {SERIES_AT_ONCE}"
    );
    let Some(from) = after.map_or(Some(0), |after| after.checked_add(1)) else {
        return Ok(Vec::new());
    };
    let values = [named, &[Value::Number(from)]].concat();
    let all = distinct(pair, act, (&sql, &values), first_number).await?;
    Ok(all.into_iter().take(SERIES_AT_ONCE).collect())
}

/// Rows of a page of series, and the series themselves: those after `after`, up to `last`.
async fn series(
    pair: &mut Pair,
    act: Act,
    named: &[Value],
    (after, last, page): (Option<u64>, Option<u64>, &[u64]),
) -> Result<(), Failure> {
    let Some(last) = last else { return Ok(()) };
    let ids: Vec<Value> = page.iter().copied().map(Value::Number).collect();
    let among = format!("series_id IN ({})", marks(ids.len()));
    for (table, time, period) in TIMED {
        let sql = format!(
            "SELECT CAST(MIN({time}) AS UNSIGNED), CAST(MAX({time}) AS UNSIGNED)
             FROM spillway_store.{table} WHERE {among}"
        );
        let Some((first, newest)) = span(pair, act, &sql, &ids).await? else { continue };
        let step = period * PERIODS_AT_ONCE;
        let mut from = first;
        while from <= newest {
            let filter = format!("{among} AND {time} >= ? AND {time} < ?");
            let bounds = [Value::Number(from), Value::Number(from + step)];
            let values = [ids.as_slice(), &bounds].concat();
            pair.apply(&Slice { table, filter, values }, act).await?;
            from += step;
        }
    }
    let filter = "environment = ? AND host = ? AND series_id >= ? AND series_id <= ?".to_owned();
    let from = after.map_or(0, |after| after.saturating_add(1));
    let values = [named, &[Value::Number(from), Value::Number(last)]].concat();
    pair.apply(&Slice { table: "series", filter, values }, act).await
}

async fn epochs(pair: &mut Pair, act: Act, named: &[Value]) -> Result<(), Failure> {
    let sql = "SELECT agent_id, epoch FROM spillway_store.ledger_epochs
               WHERE environment = ? AND host = ?";
    let mut epochs = BTreeSet::new();
    for server in pair.servers(act) {
        for row in rows(server, sql, named).await? {
            let id = |at| row.try_get_unchecked::<Vec<u8>, _>(at);
            let id = id(0).and_then(|agent| Ok((agent, id(1)?)));
            epochs.insert(id.map_err(|error| server.fault(error.into()))?);
        }
    }
    for (agent, epoch) in epochs {
        for table in ["ledger_ranges", "ledger_gaps", "declarations"] {
            let filter = "agent_id = ? AND epoch = ?".to_owned();
            let values = vec![Value::Bytes(agent.clone()), Value::Bytes(epoch.clone())];
            pair.apply(&Slice { table, filter, values }, act).await?;
        }
    }
    Ok(())
}

async fn by_partition(pair: &mut Pair, scope: &Scope, act: Act) -> Result<(), Failure> {
    let (filter, partitions) = scope.filter();
    for partition in &partitions {
        let filter = "partition_id = ?".to_owned();
        let slice = Slice { table: "quarantined", filter, values: vec![partition.clone()] };
        pair.apply(&slice, act).await?;
    }
    // An estimate is enough: it only decides how many slices there are.
    let sql = "SELECT CAST(COALESCE(SUM(table_rows), 0) AS UNSIGNED)
               FROM information_schema.tables
               WHERE table_schema = 'spillway_store' AND table_name = 'audit'";
    let estimate =
        distinct(pair, act, (sql, &[]), first_number).await?.into_iter().max().unwrap_or(0);
    let slices = (estimate / AUDIT_AT_ONCE).clamp(1, AUDIT_SLICES_MAX);
    for slice in 0..slices {
        let mut values = partitions.clone();
        let mut filter = filter.clone();
        values.extend(cut(slice, slices).map(Value::Bytes));
        filter.push_str(" AND agent_id >= ?");
        if let Some(end) = cut(slice + 1, slices) {
            filter.push_str(" AND agent_id < ?");
            values.push(Value::Bytes(end));
        }
        pair.apply(&Slice { table: "audit", filter, values }, act).await?;
    }
    Ok(())
}

/// Where the slice `at` of `slices` begins among 16-byte ids; `None` behind the last.
fn cut(at: u64, slices: u64) -> Option<Vec<u8>> {
    let first = u16::try_from(at * AUDIT_SLICES_MAX / slices).ok()?;
    Some([&first.to_be_bytes()[..], &[0; 14]].concat())
}

/// The values of the first column, on either server.
async fn distinct<T: Ord>(
    pair: &mut Pair,
    act: Act,
    (sql, values): (&str, &[Value]),
    read: impl Fn(&MySqlRow) -> Result<T, sqlx::Error>,
) -> Result<BTreeSet<T>, MysqlFault> {
    let mut all = BTreeSet::new();
    for server in pair.servers(act) {
        for row in rows(server, sql, values).await? {
            all.insert(read(&row).map_err(|error| server.fault(error.into()))?);
        }
    }
    Ok(all)
}

fn first_text(row: &MySqlRow) -> Result<String, sqlx::Error> {
    text(row, 0)
}

fn first_number(row: &MySqlRow) -> Result<u64, sqlx::Error> {
    row.try_get(0)
}

/// Smallest and largest, on either server.
async fn span(
    pair: &mut Pair,
    act: Act,
    sql: &str,
    values: &[Value],
) -> Result<Option<(u64, u64)>, MysqlFault> {
    let mut found: Option<(u64, u64)> = None;
    for server in pair.servers(act) {
        for row in rows(server, sql, values).await? {
            let bound = |at| row.try_get::<Option<u64>, _>(at);
            let bounds = bound(0).and_then(|first| Ok(first.zip(bound(1)?)));
            let bounds = bounds.map_err(|error| server.fault(error.into()))?;
            let Some((first, last)) = bounds else { continue };
            found = Some(found.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_the_audit_begin_at_zero_and_leave_nothing_out() {
        for slices in [1, 3, 4_096, AUDIT_SLICES_MAX] {
            let cuts: Vec<_> = (0..=slices).map(|at| cut(at, slices)).collect();
            assert_eq!(cuts.first(), Some(&Some(vec![0; 16])));
            assert_eq!(cuts.last(), Some(&None), "the last has no end");
            let begins: Vec<_> = cuts.iter().flatten().collect();
            assert!(begins.windows(2).all(|pair| pair[0] < pair[1]), "{slices}");
        }
    }
}
