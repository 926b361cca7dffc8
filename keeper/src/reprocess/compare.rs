//! What is stored against what should be, to the bit, page by page under one snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use spillway_consumer::store::values::{decode_vals, encode_vals, merge, summarize};
use spillway_runtime::mysql::Session;
use sqlx::Row as _;
use sqlx::mysql::MySqlRow;

use super::rebuild::Rebuilt;
use super::{NAMED_MAX, Named, Reprocess, ReprocessError, What};
use crate::rollups::WINDOW_S;
use crate::rollups::list::{LENGTH_MAX, padded, places};
use crate::rollups::rows::series_of;
use crate::shard::{ShardError, answer};

/// Stored rows in memory at once.
const PAGE_ROWS_MAX: usize = 50_000;

/// A row of `points` without its key.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub cnt: Option<u32>,
    /// sum, min, max, first, last
    pub values: [Option<f64>; 5],
    pub vals: Vec<u8>,
}

impl Content {
    /// As the consumer writes it.
    #[must_use]
    pub fn of(samples: &[(i64, f64)]) -> Self {
        let mut vals = Vec::new();
        encode_vals(&mut vals, samples);
        let Some(s) = summarize(samples) else {
            return Self { vals, ..Self::default() };
        };
        Self { cnt: Some(s.cnt), values: [s.sum, s.min, s.max, s.first, s.last], vals }
    }

    /// From `cnt` at this column on, as [`COLUMNS`] names them.
    pub fn read(row: &MySqlRow, from: usize) -> Result<Self, sqlx::Error> {
        let mut values = [None; 5];
        for (place, value) in values.iter_mut().enumerate() {
            *value = row.try_get(from + 1 + place)?;
        }
        let vals = row.try_get_unchecked::<Vec<u8>, _>(from + 6)?;
        Ok(Self { cnt: row.try_get(from)?, values, vals })
    }

    /// To the bit.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        let bits = |row: &Self| row.values.map(|value| value.map(f64::to_bits));
        (self.cnt, bits(self)) == (other.cnt, bits(other)) && self.vals == other.vals
    }

    /// These samples laid over this row's: for times of which Kafka no longer has everything.
    fn overlaid(&self, samples: &[(i64, f64)]) -> Self {
        let mut stored = Vec::new();
        match decode_vals(&self.vals, &mut stored) {
            Ok(()) => Self::of(&merge(&stored, samples)),
            // No consumer wrote that.
            Err(_) => Self::of(samples),
        }
    }
}

/// The columns of a row that [`Content`] reads.
pub const COLUMNS: &str = "cnt, `sum`, `min`, `max`, `first`, `last`, vals";

/// A row that is to be written.
#[derive(Clone, Debug)]
pub struct Difference {
    pub series_id: u64,
    pub window_ts: u32,
    pub host_id: u64,
    /// As it was when it was compared.
    pub stored: Option<Content>,
    pub should: Content,
}

/// Holds all rows of these hosts against what was rebuilt; returns what is to be written.
pub async fn compare(
    session: &mut Session,
    (hosts, span): (&[u64], &Range<u32>),
    rebuilt: &Rebuilt,
    state: &mut Reprocess,
) -> Result<Vec<Difference>, ReprocessError> {
    let stored = series_of(session, hosts).await?;
    let ids: BTreeSet<u64> =
        stored.iter().map(|one| one.id).chain(rebuilt.host_of.keys().copied()).collect();
    let ids: Vec<u64> = ids.into_iter().collect();
    let windows = (span.len() / WINDOW_S as usize).max(1);
    let mut differing = Vec::new();
    for page in ids.chunks((PAGE_ROWS_MAX / windows).clamp(1, LENGTH_MAX)) {
        let mut stored = stored_rows(session, page, span).await?;
        for id in page {
            for ((series_id, window_ts), samples) in rebuilt.rows.range((*id, 0)..=(*id, u32::MAX))
            {
                let stored = stored.remove(&(*series_id, *window_ts));
                let should = match &stored {
                    Some(stored) if !rebuilt.covers(*window_ts) => stored.overlaid(samples),
                    _ => Content::of(samples),
                };
                let what = match &stored {
                    Some(stored) if stored.same(&should) => continue,
                    Some(_) => What::Different,
                    None => What::Missing,
                };
                let (series_id, window_ts) = (*series_id, *window_ts);
                note(state, Named { what, series_id, window_ts });
                let host_id = rebuilt.host_of.get(id).copied().unwrap_or_default();
                differing.push(Difference { series_id, window_ts, host_id, stored, should });
            }
        }
        for (series_id, window_ts) in stored.into_keys() {
            match rebuilt.covers(window_ts) {
                true => note(state, Named { what: What::Extra, series_id, window_ts }),
                false => state.beyond += 1,
            }
        }
    }
    Ok(differing)
}

fn note(state: &mut Reprocess, named: Named) {
    match named.what {
        What::Missing => state.missing += 1,
        What::Different => state.different += 1,
        What::Extra => state.extra += 1,
    }
    if state.named.len() < NAMED_MAX {
        state.named.push(named);
    }
}

async fn stored_rows(
    session: &mut Session,
    ids: &[u64],
    span: &Range<u32>,
) -> Result<BTreeMap<(u64, u32), Content>, ShardError> {
    let mut stored = BTreeMap::new();
    for ids in padded(ids) {
        let sql = format!(
            "SELECT series_id, window_ts, {COLUMNS} FROM points
             WHERE series_id IN ({}) AND window_ts >= ? AND window_ts < ?",
            places("?", ids.len())
        );
        let mut query = sqlx::query(&sql);
        for id in ids {
            query = query.bind(id);
        }
        let query = query.bind(span.start).bind(span.end);
        for row in answer(query.fetch_all(&mut **session)).await? {
            stored.insert((row.try_get(0)?, row.try_get(1)?), Content::read(&row, 2)?);
        }
    }
    Ok(stored)
}
