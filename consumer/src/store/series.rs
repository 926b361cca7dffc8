//! Series at first sight: their names enter MySQL in the transaction that brings their first rows,
//! and the stored identity is held against the new one, so that two names that share a 64-bit id
//! are found and never merged.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use sqlx::mysql::MySqlConnection;

use super::draft::{Draft, Sighting};
use super::statement::{Sql, get, get_id, run};
use super::{FreshBy, StoreError, Trial};
use crate::verify::Reason;

/// Series one partition's cache may hold; at the limit it starts over, at a look-up each.
const KNOWN_MAX: usize = 250_000;
/// Series looked up, or inserted, by one statement.
const SERIES_PER_STATEMENT: usize = 500;

/// Ids are hashes already.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

/// Series that are surely in this server, and when each was last told to Redis. Belongs to one
/// claim of one partition; filled only after COMMIT, dropped with the claim.
#[derive(Default)]
pub struct Known {
    told: HashMap<u64, u32, BuildHasherDefault<IdHasher>>,
}

impl Known {
    #[must_use]
    pub fn contains(&self, series_id: u64) -> bool {
        self.told.contains_key(&series_id)
    }

    /// Notes a committed series; `true` when it is `every_s` or longer since it was last told.
    pub fn seen(&mut self, series_id: u64, now_ts: u32, every_s: u32) -> bool {
        if self.told.len() >= KNOWN_MAX && !self.told.contains_key(&series_id) {
            self.told.clear();
        }
        let told = self.told.entry(series_id).or_insert(0);
        let due = now_ts.saturating_sub(*told) >= every_s;
        if due {
            *told = now_ts;
        }
        due
    }
}

/// One new name and the first batch that brought it.
struct New<'a> {
    sighting: &'a Sighting,
    batch: &'a Draft,
}

/// Makes sure that every series of the batches to apply has its row, and counts the new ones.
pub async fn ensure(
    conn: &mut MySqlConnection,
    limit: Duration,
    trial: &Trial<'_>,
    fresh: &mut FreshBy,
) -> Result<(), StoreError> {
    let mut unknown: BTreeMap<u64, New<'_>> = BTreeMap::new();
    for batch in trial.to_apply() {
        let sightings =
            trial.work.drafts.sightings.get(batch.sightings.clone()).unwrap_or_default();
        for sighting in sightings {
            let first = unknown.entry(sighting.identity.id);
            let first = first.or_insert(New { sighting, batch });
            if first.sighting.identity != sighting.identity {
                return Err(StoreError::refused(batch, Reason::SeriesCollision));
            }
        }
    }
    let ids: Vec<u64> = unknown.keys().copied().collect();
    for ids in ids.chunks(SERIES_PER_STATEMENT) {
        for (id, identity) in stored(conn, limit, ids).await? {
            let Some(new) = unknown.remove(&id) else { continue };
            if new.sighting.identity.identity.to_be_bytes() != identity {
                return Err(StoreError::refused(new.batch, Reason::SeriesCollision));
            }
        }
    }
    let new: Vec<New<'_>> = unknown.into_values().collect();
    count(trial, &new, fresh)?;
    for new in new.chunks(SERIES_PER_STATEMENT) {
        insert(conn, limit, trial, new).await?;
    }
    Ok(())
}

/// Counts new series, and refuses the batch that brings one too many.
fn count(trial: &Trial<'_>, new: &[New<'_>], fresh: &mut FreshBy) -> Result<(), StoreError> {
    for New { batch, .. } in new {
        let partition = trial.work.records.get(batch.index).map_or(0, |record| record.partition);
        let left = (trial.work.left)(partition, &batch.environment).series;
        let count = fresh.entry((partition, batch.environment.clone())).or_default();
        count.series += 1;
        if count.series > left {
            return Err(StoreError::refused(batch, Reason::TooManySeries));
        }
    }
    Ok(())
}

async fn stored(
    conn: &mut MySqlConnection,
    limit: Duration,
    ids: &[u64],
) -> Result<Vec<(u64, [u8; 16])>, StoreError> {
    let mut sql =
        Sql::new("SELECT series_id, identity FROM spillway_store.series WHERE series_id IN (");
    sql.list(ids, |sql, id| {
        sql.number(*id);
    })
    .words(")");
    let answers = run(conn, limit, &sql).await?;
    let rows = answers.iter().flat_map(|answer| &answer.rows);
    rows.map(|row| Ok((get(row, 0)?, get_id(row, 1)?))).collect()
}

/// A plain INSERT: no one else writes these rows, and what INSERT IGNORE would swallow besides a
/// duplicate (a name cut short) must not be swallowed.
async fn insert(
    conn: &mut MySqlConnection,
    limit: Duration,
    trial: &Trial<'_>,
    new: &[New<'_>],
) -> Result<(), StoreError> {
    let mut sql = Sql::new(
        "INSERT INTO spillway_store.series (series_id, environment, host, metric, labels, kind, \
         unit, identity, first_seen_ts, last_seen_ts) VALUES ",
    );
    let now_ts = trial.now_ts();
    sql.rows(new, |sql, New { sighting, batch }| {
        sql.number(sighting.identity.id).comma().text(&batch.environment).comma();
        sql.text(&batch.host).comma().text(&sighting.metric).comma().text(&sighting.labels);
        sql.comma().number(sighting.kind as u8).comma().text(&sighting.unit).comma();
        sql.bytes(&sighting.identity.identity.to_be_bytes()).comma();
        sql.number(now_ts).comma().number(now_ts);
    });
    run(conn, limit, &sql).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_told_once_in_a_while_and_known_from_then_on() {
        let mut known = Known::default();
        assert!(!known.contains(7));
        assert!(known.seen(7, 1_000, 60));
        assert!(known.contains(7));
        assert!(!known.seen(7, 1_059, 60));
        assert!(known.seen(7, 1_060, 60));
    }
}
