//! Rows written as they should be, each only if it still is what it was when it was compared.
//!
//! The locks are taken in the consumer's own order (rows of `points`, then marks) and are held for
//! one small transaction, so that it waits for no longer than for any other row of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use spillway_runtime::mysql::Session;
use sqlx::Row as _;
use sqlx::mysql::MySqlDatabaseError;

use super::compare::{COLUMNS, Content, Difference};
use super::{NAME, Reprocess, ReprocessError};
use crate::pace::Pace;
use crate::rollups::MINUTE_S;
use crate::rollups::list::places;
use crate::rollups::repair::mark;
use crate::shard::{ShardError, answer, execute};

/// Rows in one transaction.
const ROWS_AT_ONCE: usize = 100;
/// Times a transaction is tried that met the consumer's.
const ATTEMPTS_MAX: u32 = 5;
/// A row came meanwhile; somebody holds a lock; a deadlock was ended at our cost.
const MET: [u16; 3] = [1062, 1205, 1213];

/// Writes all of them, at the pace of background work.
pub async fn restore(
    session: &mut Session,
    pace: &Pace,
    differing: &[Difference],
    state: &mut Reprocess,
) -> Result<(), ReprocessError> {
    for rows in differing.chunks(ROWS_AT_ONCE) {
        if !pace.may(session, NAME).await? {
            state.was_paused = true;
            return Ok(());
        }
        let began = Instant::now();
        let written = write_again(session, rows).await?;
        state.restored += written as u64;
        state.changed_meanwhile += (rows.len() - written) as u64;
        pace.rest(began.elapsed()).await;
    }
    Ok(())
}

async fn write_again(session: &mut Session, rows: &[Difference]) -> Result<usize, ShardError> {
    let mut attempt = 1;
    loop {
        match write(session, rows).await {
            Err(error) if has_met(&error) && attempt < ATTEMPTS_MAX => {
                execute(session, "ROLLBACK").await?;
                attempt += 1;
            }
            done => return done,
        }
    }
}

fn has_met(error: &ShardError) -> bool {
    let ShardError::Sql(error) = error else { return false };
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>())
        .is_some_and(|error| MET.contains(&error.number()))
}

/// One transaction: how many rows were written. A failure on the way is rolled back, or ends the
/// connection and with it the transaction.
async fn write(session: &mut Session, rows: &[Difference]) -> Result<usize, ShardError> {
    execute(session, "START TRANSACTION").await?;
    let now = locked(session, rows).await?;
    let as_compared =
        |row: &&Difference| match (&row.stored, now.get(&(row.series_id, row.window_ts))) {
            (None, None) => true,
            (Some(stored), Some(now)) => stored.same(now),
            _ => false,
        };
    let rows: Vec<&Difference> = rows.iter().filter(as_compared).collect();
    let (new, old): (Vec<&Difference>, Vec<&Difference>) =
        rows.iter().partition(|row| row.stored.is_none());
    // A plain INSERT: a row that came meanwhile must be seen.
    put(session, &new, "INSERT").await?;
    put(session, &old, "REPLACE").await?;
    let mut minutes: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for row in &rows {
        let minute = row.window_ts / MINUTE_S * MINUTE_S;
        minutes.entry(minute).or_default().insert(row.host_id);
    }
    for (minute, hosts) in minutes {
        mark(session, &hosts.into_iter().collect::<Vec<_>>(), minute).await?;
    }
    execute(session, "COMMIT").await?;
    Ok(rows.len())
}

/// These rows as they are now, under lock.
async fn locked(
    session: &mut Session,
    rows: &[Difference],
) -> Result<BTreeMap<(u64, u32), Content>, ShardError> {
    let windows = || rows.iter().map(|row| row.window_ts);
    let (first, last) = (windows().min().unwrap_or(0), windows().max().unwrap_or(0));
    // The range prunes partitions, which a list of pairs does not.
    let sql = format!(
        "SELECT series_id, window_ts, {COLUMNS} FROM points
         WHERE window_ts BETWEEN ? AND ? AND (series_id, window_ts) IN ({}) FOR UPDATE",
        places("(?, ?)", rows.len())
    );
    let mut query = sqlx::query(&sql).persistent(false).bind(first).bind(last);
    for row in rows {
        query = query.bind(row.series_id).bind(row.window_ts);
    }
    let mut now = BTreeMap::new();
    for row in answer(query.fetch_all(&mut **session)).await? {
        now.insert((row.try_get(0)?, row.try_get(1)?), Content::read(&row, 2)?);
    }
    Ok(now)
}

async fn put(
    session: &mut Session,
    rows: &[&Difference],
    verb: &'static str,
) -> Result<(), ShardError> {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "{verb} INTO points (series_id, window_ts, {COLUMNS}) VALUES {}",
        places("(?, ?, ?, ?, ?, ?, ?, ?, ?)", rows.len())
    );
    let mut query = sqlx::query(&sql).persistent(false);
    for row in rows {
        query = query.bind(row.series_id).bind(row.window_ts).bind(row.should.cnt);
        for value in row.should.values {
            query = query.bind(value);
        }
        query = query.bind(&row.should.vals);
    }
    answer(query.execute(&mut **session)).await.map(|_| ())
}
