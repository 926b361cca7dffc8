//! What one transaction writes, apart from the positions that make it count ([`crate::commit`]).
//!
//! The order within it: the ledger is read and decides what is new ([`decide`]), series get their
//! rows, points theirs ([`rows`]), then everything small goes out in one packet ([`facts`],
//! [`epochs`]). Nothing here is cached that the ledger decides by: it is read, and locked, in the
//! same transaction, for all epochs in one statement. That costs less than a hundredth of the
//! transaction, and no doubt about a cache can ever count a batch twice.

pub mod values;

pub mod classify;
pub mod statement;

pub mod draft;
pub mod horizon;

pub mod ranges;
pub mod ledger;
pub mod epochs;
pub mod decide;

pub mod series;
pub mod rows;
pub mod facts;

use std::collections::BTreeMap;
use std::time::Duration;

use spillway_runtime::deadline::DeadlineExceeded;
use sqlx::mysql::MySqlConnection;

use crate::failpoint::{Failpoint, pass};
use crate::quarantine::Quarantined;
use crate::receive::Record;
use crate::verify::Reason;

use self::decide::{Fate, Verdicts};
use self::draft::{Draft, Drafts};
use self::statement::Sql;

/// Why a transaction could not be written. Whatever it is, the transaction must be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    Late(#[from] DeadlineExceeded),
    /// A batch turned out to be impossible to apply.
    #[error("the batch of record {index} is refused: {reason}")]
    Refused { index: usize, reason: Reason },
    /// The server answered something else than was asked for.
    #[error("MySQL's answer has {0}")]
    Shape(&'static str),
    /// Somebody else wrote to `points`.
    #[error("a stored row can't be merged with: {0}")]
    Vals(#[from] values::DecodeError),
}

impl StoreError {
    pub(crate) fn refused(batch: &Draft, reason: Reason) -> Self {
        Self::Refused { index: batch.index, reason }
    }
}

/// All that is to be stored together. `quarantined` are in dead letters already.
pub struct Work<'a> {
    pub records: &'a [Record],
    pub drafts: &'a Drafts,
    pub quarantined: &'a [Quarantined],
    /// The consumer's clock, for the columns that say when something was applied.
    pub now_ms: i64,
    pub ledger_retention: Duration,
    /// What an environment may still bring to a partition in the running hour.
    pub left: &'a (dyn Fn(u16, &str) -> Fresh + Send + Sync),
}

/// What was seen for the first time, or may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    pub series: u64,
    pub epochs: u64,
}

/// By partition and environment.
pub type FreshBy = BTreeMap<(u16, String), Fresh>;

/// Work whose fate is decided.
pub struct Trial<'a> {
    pub work: &'a Work<'a>,
    pub fates: &'a [Fate],
}

impl<'a> Trial<'a> {
    /// The batches that are new.
    pub fn to_apply(&self) -> impl Iterator<Item = &'a Draft> + use<'a> {
        let batches = self.work.drafts.batches.iter().zip(self.fates);
        batches.filter(|(_, fate)| fate.applies()).map(|(batch, _)| batch)
    }

    #[must_use]
    pub fn now_ts(&self) -> u32 {
        u32::try_from(self.work.now_ms / 1_000).unwrap_or(0)
    }
}

/// What a transaction holds, for the books once it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub batches: u64,
    pub points: u64,
    pub duplicates: u64,
    pub duplicate_points: u64,
    pub expired: u64,
    pub cloned: u64,
    pub rows: u64,
    pub merges: u64,
    pub fresh: FreshBy,
    /// One per draft.
    pub fates: Vec<Fate>,
}

/// Begins a transaction and writes everything but the positions.
pub async fn write(
    conn: &mut MySqlConnection,
    limit: Duration,
    work: &Work<'_>,
    rows: &mut rows::Rows,
) -> Result<Written, StoreError> {
    let Verdicts { fates, book, events, mut fresh } = decide::decide(conn, limit, work).await?;
    let trial = Trial { work, fates: &fates };
    series::ensure(conn, limit, &trial, &mut fresh).await?;
    let merges = rows.write(conn, limit, &trial).await?;
    pass(Failpoint::AfterRows).await;
    let mut packets = Packets::default();
    epochs::write(&book, work.now_ms, &mut packets);
    facts::write(&trial, &events, &mut packets);
    packets.send(conn, limit).await?;
    let mut written = Written { merges, rows: rows.count(), fresh, ..Written::default() };
    for (batch, fate) in work.drafts.batches.iter().zip(&fates) {
        match fate {
            Fate::Duplicate => {
                written.duplicates += 1;
                written.duplicate_points += u64::from(batch.points) + u64::from(batch.expired);
            }
            Fate::Apply { cloned, .. } => {
                written.batches += 1;
                written.cloned += u64::from(*cloned);
                written.points += u64::from(batch.points);
                written.expired += u64::from(batch.expired);
            }
        }
    }
    written.fates = fates;
    Ok(written)
}

/// Bytes of statements that travel in one packet; far below any `max_allowed_packet`.
const PACKET_BYTES: usize = 512 * 1024;

/// Statements on their way, several in one packet.
#[derive(Debug, Default)]
pub struct Packets {
    full: Vec<Sql>,
    open: Sql,
}

impl Packets {
    /// Adds one statement.
    pub fn add(&mut self, statement: &Sql) {
        self.open.append(statement).end();
        if self.open.as_str().len() >= PACKET_BYTES {
            self.full.push(std::mem::take(&mut self.open));
        }
    }

    async fn send(mut self, conn: &mut MySqlConnection, limit: Duration) -> Result<(), StoreError> {
        if !self.open.is_empty() {
            self.full.push(self.open);
        }
        for packet in &self.full {
            statement::run(conn, limit, packet).await?;
        }
        Ok(())
    }
}
