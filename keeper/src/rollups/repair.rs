//! Rollups held against their points, and made again where they differ: after a fault in what made
//! them, or a hand in the database. For the console, as a library call.
//!
//! Each step holds the lock of the one keeper that makes rollups, so no row changes under it; a
//! minute whose points change meanwhile carries a mark, which is looked at last, and is left to it.
//! What differs is marked, and made again in the usual way: nothing is written here that a
//! concurrent writer could be overwritten by, dashboards go on, and an end in the middle leaves
//! marks or none, never half a table.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Instant;

use spillway_runtime::mysql::Session;

use super::list::{LENGTH_MAX, padded, places};
use super::minutes::make;
use super::rows::{Minute, Series, series_of, stored_minutes};
use super::{LOCK, MINUTE_S, floor_of};
use crate::pace::Pace;
use crate::rollups::marks::Span;
use crate::shard::{ShardError, ShardHandle, answer, lock_within, unlock};

/// In `keeper_pauses`.
pub const NAME: &str = "repair";
/// How long the keeper's own round is waited for: longer than it may take.
const LOCK_WAIT_S: u32 = 60;

/// How far it is, and what came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// Minutes to look at, after those were left out whose points are gone, and looked at.
    pub minutes: u32,
    pub minutes_done: u32,
    /// Rows that were held against their points.
    pub rows: u64,
    /// Of them, those that are wrong or missing.
    pub differ: u64,
    /// Rows without any point: told, and left, since making them again changes nothing.
    pub of_nothing: u64,
    /// Hosts' minutes marked, to be made again.
    pub marked: u64,
    /// An operator holds it still: it ended before its range did.
    pub was_paused: bool,
}

/// Looks at all minutes of all hosts that begin within `span` and, unless it is a dry run, has
/// those made again that differ. `tell` hears after every minute.
pub async fn repair(
    shard: &ShardHandle,
    pace: &Pace,
    (span, dry_run): (Range<u32>, bool),
    mut tell: impl FnMut(&Repair),
) -> Result<Repair, ShardError> {
    let mut session = shard.session().await?;
    let from =
        span.start.max(floor_of(&mut session, Span::Minute).await?).next_multiple_of(MINUTE_S);
    let minutes = span.end.saturating_sub(from).div_ceil(MINUTE_S);
    let mut state = Repair { minutes, ..Repair::default() };
    let query = sqlx::query_scalar::<_, u64>("SELECT host_id FROM hosts ORDER BY host_id");
    let hosts = answer(query.fetch_all(&mut *session)).await?;
    for minute in (from..span.end).step_by(MINUTE_S as usize) {
        for hosts in hosts.chunks(super::HOSTS_AT_ONCE) {
            if !pace.may(&mut session, NAME).await? {
                state.was_paused = true;
                session.give_back();
                return Ok(state);
            }
            let began = Instant::now();
            if !lock_within(&mut session, LOCK, LOCK_WAIT_S).await? {
                return Err(ShardError::Busy);
            }
            look(&mut session, (hosts, minute), dry_run, &mut state).await?;
            unlock(&mut session, LOCK).await?;
            pace.rest(began.elapsed()).await;
        }
        state.minutes_done += 1;
        tell(&state);
    }
    session.give_back();
    Ok(state)
}

/// One minute of some hosts, under the lock.
async fn look(
    session: &mut Session,
    (hosts, minute): (&[u64], u32),
    dry_run: bool,
    state: &mut Repair,
) -> Result<(), ShardError> {
    let mut differing: Vec<(u64, bool)> = Vec::new();
    for page in series_of(session, hosts).await?.chunks(LENGTH_MAX) {
        state.rows += compare(session, page, minute, &mut differing).await?;
    }
    if differing.is_empty() {
        return Ok(());
    }
    // Whose points changed after they were rolled up, perhaps while they were read here.
    let marked = marked(session, hosts, minute).await?;
    differing.retain(|(host, _)| !marked.contains(host));
    state.differ += differing.iter().filter(|(_, has_points)| *has_points).count() as u64;
    state.of_nothing += differing.iter().filter(|(_, has_points)| !has_points).count() as u64;
    let again: BTreeSet<u64> =
        differing.iter().filter(|(_, has_points)| *has_points).map(|(host, _)| *host).collect();
    if !dry_run {
        mark(session, &again.iter().copied().collect::<Vec<_>>(), minute).await?;
        state.marked += again.len() as u64;
    }
    Ok(())
}

/// Adds (host, whether there are points) for each row that differs. How many rows there are.
async fn compare(
    session: &mut Session,
    page: &[Series],
    minute: u32,
    differing: &mut Vec<(u64, bool)>,
) -> Result<u64, ShardError> {
    let ids: Vec<u64> = page.iter().map(|one| one.id).collect();
    let mut stored = stored_minutes(session, "rollup_1m", &ids, (minute, minute)).await?;
    let made = make(session, "rollup_1m", page, minute).await?;
    let host_of = |id: u64| page.iter().find(|one| one.id == id).map_or(0, |one| one.host_id);
    for (should, _) in &made.minutes {
        let is = stored.remove(&should.series_id).and_then(|rows| rows.first().copied());
        if !is.is_some_and(|is| same(&is, should)) {
            differing.push((host_of(should.series_id), true));
        }
    }
    differing.extend(stored.keys().map(|id| (host_of(*id), false)));
    Ok(made.minutes.len() as u64)
}

/// To the bit: both were made by the same arithmetic. (What a series that is not cumulative grows
/// by is not stored.)
fn same(is: &Minute, should: &Minute) -> bool {
    let bits = |minute: &Minute| {
        let s = minute.bucket.summary;
        let values = [s.sum, s.min, s.max, s.first, s.last, minute.increase];
        (s.cnt, values.map(|value| value.map(f64::to_bits)))
    };
    bits(is) == bits(should)
}

async fn marked(
    session: &mut Session,
    hosts: &[u64],
    minute: u32,
) -> Result<BTreeSet<u64>, ShardError> {
    let mut marked = BTreeSet::new();
    for hosts in padded(hosts) {
        let sql = format!(
            "SELECT host_id FROM rollup_marks WHERE minute_ts = ? AND host_id IN ({})",
            places("?", hosts.len())
        );
        let mut query = sqlx::query_scalar::<_, u64>(&sql).bind(minute);
        for host in hosts {
            query = query.bind(host);
        }
        marked.extend(answer(query.fetch_all(&mut **session)).await?);
    }
    Ok(marked)
}

/// As the consumer does.
pub(crate) async fn mark(
    session: &mut Session,
    hosts: &[u64],
    minute: u32,
) -> Result<(), ShardError> {
    for hosts in padded(hosts) {
        let sql = format!(
            "INSERT INTO rollup_marks (host_id, minute_ts, version) VALUES {}
             ON DUPLICATE KEY UPDATE version = GREATEST(version + 1, VALUES(version))",
            places("(?, ?, ?)", hosts.len())
        );
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let mut query = sqlx::query(&sql);
        for host in hosts {
            query = query.bind(host).bind(minute).bind(now_ms);
        }
        answer(query.execute(&mut **session)).await?;
    }
    Ok(())
}
