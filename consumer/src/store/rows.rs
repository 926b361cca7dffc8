//! Rows of `points`: packed per (series, window), inserted as they are, merged where they exist.
//!
//! The fast path is a plain multi-row INSERT in the table's key order. Only when the server reports
//! a duplicate key are that statement's rows read, merged by time (the later arrival wins) and
//! written back, in the same transaction. So applying anything again changes nothing.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use spillway_runtime::deadline::within;
use sqlx::mysql::{MySqlArguments, MySqlConnection};
use sqlx::{Arguments as _, MySql};

use super::classify::{Verdict, of_sqlx};
use super::draft::DraftRow;
use super::statement::{Sql, get, run};
use super::values::{Summary, decode_vals, encode_vals, merge, normalize, summarize};
use super::{StoreError, Trial};

/// Rows per statement: few shapes, so that each connection prepares each of them once.
const SHAPES: [usize; 5] = [500, 100, 20, 4, 1];
/// Bytes of values in one statement, far below any `max_allowed_packet`; one row may exceed it.
pub const STATEMENT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Columns of a row, and about what one takes without its text.
const COLUMNS: usize = 9;
const ROW_BYTES: usize = 160;
/// What a partition of `points` spans; rows go in partition by partition.
const PARTITION_S: u32 = 3_600;

/// One row, ready to be bound. Its text lies in the buffer beside it.
#[derive(Clone, Debug)]
struct Row {
    series_id: u64,
    window_ts: u32,
    summary: Option<Summary>,
    vals: Range<usize>,
}

/// The rows of a transaction, and the statements they go in. Used again for the next one.
pub struct Rows {
    order: Vec<usize>,
    rows: Vec<Row>,
    text: Vec<u8>,
    samples: Vec<(i64, f64)>,
    inserts: Vec<(usize, String)>,
    upserts: Vec<(usize, String)>,
}

impl Default for Rows {
    fn default() -> Self {
        let shape = |tail: &'static str| {
            SHAPES.iter().map(|rows| (*rows, statement(*rows, tail))).collect()
        };
        Self {
            order: Vec::new(),
            rows: Vec::new(),
            text: Vec::new(),
            samples: Vec::new(),
            inserts: shape(""),
            upserts: shape(UPSERT),
        }
    }
}

const UPSERT: &str = " ON DUPLICATE KEY UPDATE cnt = VALUES(cnt), `sum` = VALUES(`sum`), \
     `min` = VALUES(`min`), `max` = VALUES(`max`), `first` = VALUES(`first`), \
     `last` = VALUES(`last`), vals = VALUES(vals)";

fn statement(rows: usize, tail: &str) -> String {
    let mut sql = String::from(
        "INSERT INTO spillway_store.points \
         (series_id, window_ts, cnt, `sum`, `min`, `max`, `first`, `last`, vals) VALUES ",
    );
    for row in 0..rows {
        let comma = if row == 0 { "" } else { "," };
        // Writing to a String can't fail.
        write!(sql, "{comma}(?,?,?,?,?,?,?,?,?)").unwrap_or_default();
    }
    sql + tail
}

impl Rows {
    /// How many rows the last transaction had.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Writes the points of all batches to apply; returns how many rows were merged.
    pub async fn write(
        &mut self,
        conn: &mut MySqlConnection,
        limit: Duration,
        trial: &Trial<'_>,
    ) -> Result<u64, StoreError> {
        self.pack(trial);
        let mut merges = 0;
        let mut next = 0;
        while next < self.rows.len() {
            let chunk = next..next + self.shape_at(next);
            next = chunk.end;
            match self.insert(conn, limit, chunk.clone(), false).await {
                Ok(()) => {}
                Err(StoreError::Sql(error)) if of_sqlx(&error) == Verdict::Duplicate => {
                    merges += self.merge(conn, limit, chunk.clone()).await?;
                    self.insert(conn, limit, chunk, true).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(merges)
    }

    /// Lays out one row per (series, window), whichever batches its samples came in.
    fn pack(&mut self, trial: &Trial<'_>) {
        self.order.clear();
        self.rows.clear();
        self.text.clear();
        self.order.extend(trial.to_apply().flat_map(|batch| batch.rows.clone()));
        let drafts = trial.work.drafts;
        let row = |at: &usize| drafts.rows.get(*at);
        // Stable: of one row's pieces, the later arrival stays behind the earlier one.
        self.order.sort_by_key(|at| {
            row(at).map(|row| (row.window_ts / PARTITION_S, row.series_id, row.window_ts))
        });
        let mut rest = self.order.as_slice();
        while let Some(first) = rest.first().and_then(row) {
            let same = |at: &&usize| row(at).is_some_and(|row| key(row) == key(first));
            let pieces = rest.iter().take_while(same).count();
            let (own, after) = rest.split_at(pieces);
            rest = after;
            let samples = |at: &usize| {
                row(at).and_then(|row| drafts.samples.get(row.samples.clone())).unwrap_or_default()
            };
            let vals = match own {
                [one] => samples(one),
                several => {
                    self.samples.clear();
                    several.iter().for_each(|at| self.samples.extend_from_slice(samples(at)));
                    normalize(&mut self.samples);
                    &self.samples
                }
            };
            let from = self.text.len();
            encode_vals(&mut self.text, vals);
            self.rows.push(Row {
                series_id: first.series_id,
                window_ts: first.window_ts,
                summary: summarize(vals),
                vals: from..self.text.len(),
            });
        }
    }

    /// Rows of the statement that begins at `next`.
    fn shape_at(&self, next: usize) -> usize {
        let left = self.rows.len() - next;
        let bytes = |shape: usize| {
            let rows = self.rows.get(next..next + shape).unwrap_or_default();
            rows.iter().map(|row| row.vals.len()).sum::<usize>()
        };
        let fits = |shape: &&usize| **shape <= left && bytes(**shape) <= STATEMENT_BYTES_MAX;
        SHAPES.iter().find(fits).copied().unwrap_or(1)
    }

    async fn insert(
        &self,
        conn: &mut MySqlConnection,
        limit: Duration,
        chunk: Range<usize>,
        over: bool,
    ) -> Result<(), StoreError> {
        let statements = if over { &self.upserts } else { &self.inserts };
        let Some((_, sql)) = statements.iter().find(|(rows, _)| *rows == chunk.len()) else {
            return Err(StoreError::Shape("no statement for so many rows"));
        };
        let mut values = MySqlArguments::default();
        values.reserve(chunk.len() * COLUMNS, chunk.len() * ROW_BYTES);
        for row in self.rows.get(chunk).unwrap_or_default() {
            self.bind(&mut values, row).map_err(sqlx::Error::Encode)?;
        }
        let query = sqlx::query_with::<MySql, _>(sql, values);
        within(limit, query.execute(conn)).await??;
        Ok(())
    }

    fn bind(&self, values: &mut MySqlArguments, row: &Row) -> Result<(), sqlx::error::BoxDynError> {
        values.add(row.series_id)?;
        values.add(row.window_ts)?;
        let summary = row.summary;
        values.add(summary.map(|summary| summary.cnt))?;
        values.add(summary.and_then(|summary| summary.sum))?;
        values.add(summary.and_then(|summary| summary.min))?;
        values.add(summary.and_then(|summary| summary.max))?;
        values.add(summary.and_then(|summary| summary.first))?;
        values.add(summary.and_then(|summary| summary.last))?;
        values.add(self.text.get(row.vals.clone()).unwrap_or_default())
    }

    /// Lays the rows of `chunk` over those that exist; the result stands in their place.
    async fn merge(
        &mut self,
        conn: &mut MySqlConnection,
        limit: Duration,
        chunk: Range<usize>,
    ) -> Result<u64, StoreError> {
        let stored = self.stored(conn, limit, chunk.clone()).await?;
        let mut merges = 0;
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for row in self.rows.get_mut(chunk).unwrap_or_default() {
            let Some(text) = stored.get(&(row.series_id, row.window_ts)) else { continue };
            old.clear();
            new.clear();
            decode_vals(text, &mut old)?;
            decode_vals(self.text.get(row.vals.clone()).unwrap_or_default(), &mut new)?;
            let both = merge(&old, &new);
            let from = self.text.len();
            encode_vals(&mut self.text, &both);
            row.vals = from..self.text.len();
            row.summary = summarize(&both);
            merges += 1;
        }
        Ok(merges)
    }

    async fn stored(
        &self,
        conn: &mut MySqlConnection,
        limit: Duration,
        chunk: Range<usize>,
    ) -> Result<HashMap<(u64, u32), Vec<u8>>, StoreError> {
        let rows = self.rows.get(chunk).unwrap_or_default();
        let windows = || rows.iter().map(|row| row.window_ts);
        let (first, last) = (windows().min().unwrap_or(0), windows().max().unwrap_or(0));
        // The range prunes partitions, which a list of pairs does not.
        let mut sql = Sql::new(
            "SELECT series_id, window_ts, vals FROM spillway_store.points WHERE window_ts BETWEEN ",
        );
        sql.number(first).words(" AND ").number(last).words(" AND (series_id, window_ts) IN (");
        sql.rows(rows, |sql, row| {
            sql.number(row.series_id).comma().number(row.window_ts);
        });
        sql.words(")");
        let mut stored = HashMap::new();
        for row in run(conn, limit, &sql).await?.iter().flat_map(|answer| &answer.rows) {
            let vals: &[u8] = get(row, 2)?;
            stored.insert((get(row, 0)?, get(row, 1)?), vals.to_vec());
        }
        Ok(stored)
    }
}

fn key(row: &DraftRow) -> (u64, u32) {
    (row.series_id, row.window_ts)
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
