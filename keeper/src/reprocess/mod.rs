//! Points made again from Kafka's replay window, held against what is stored, and put right where
//! the two differ: after a hand in the database, a restored backup, or a fault in what wrote them.
//! For the console, as a library call. ADR 8 says why no second table is swapped in.
//!
//! ```text
//! partition by partition, a slice of time at once:
//!   snapshot of MySQL ─► positions, audit, points      all as of one moment
//!   Kafka up to those positions ─► verify ─► draft      by the consumer's own code
//!   records that audit names as applied ─► rows         in the order they were applied
//!   rows ⇄ points                                       compared to the bit
//!   those that differ ─► written if still as compared   with their minutes marked for rollups
//! ```
//!
//! Invariants, beside a running consumer:
//! - Both sides of a comparison stand at the same offsets, so what the consumer applies meanwhile
//!   is no difference.
//! - A row is written only if it still is, under lock, what it was when it was compared; one that
//!   the consumer has changed since is left, counted, and compared anew by the next run.
//! - A row that no record brought is told and left. So is every sample of a time from which Kafka
//!   has trimmed records: the store is then the only copy there is.
//! - The consumers' group is not joined and its offsets are neither read nor written.

mod applied;
mod compare;
mod rebuild;
mod restore;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use spillway_consumer::store::StoreError;
use spillway_consumer::store::horizon::floor_ts;
use spillway_proto::kafka_record::Lane;
use spillway_proto::partition::Partitioning;
use spillway_publisher::KafkaSettings;
use spillway_publisher::reading::LogError;
use spillway_runtime::mysql::Session;
use thiserror::Error;

use self::compare::compare;
use self::rebuild::rebuild;
use self::restore::restore;
use crate::pace::Pace;
use crate::rollups::WINDOW_S;
use crate::shard::{ShardError, ShardHandle, answer, execute};

/// In `keeper_pauses`.
pub const NAME: &str = "reprocess";
/// One statement at most.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(20);
/// Differing rows that are told by name.
const NAMED_MAX: usize = 10;
/// Times a slice is tried again because a table's partitions changed under its snapshot.
const ATTEMPTS_MAX: u32 = 3;
/// The table was altered since the snapshot was taken.
const ER_TABLE_DEF_CHANGED: u16 = 1412;

/// What is to be made again.
#[derive(Clone, Debug)]
pub struct Request {
    /// Windows that begin within these seconds.
    pub span: Range<u32>,
    /// Of Kafka, all of this shard.
    pub partitions: Vec<u16>,
    /// Only this one, or all.
    pub environment: Option<String>,
    /// As the consumer has them: what was too old when it was appended was never stored.
    pub raw_retention: Duration,
    /// How far before a point's own time its record may have been appended.
    pub future_max: Duration,
    /// Only compare.
    pub dry_run: bool,
}

/// From where, to where, and how fast.
pub struct Sources<'a> {
    pub shard: &'a ShardHandle,
    pub kafka: &'a KafkaSettings,
    pub partitioning: Partitioning,
    pub pace: &'a Pace,
}

/// How far it is, and what came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reprocess {
    pub partitions: usize,
    pub partitions_done: usize,
    /// Records read, and points of applied ones that lie in the span.
    pub records: u64,
    pub points: u64,
    /// Rows made again.
    pub rows: u64,
    /// Of them: not in the store, and in the store with other content.
    pub missing: u64,
    pub different: u64,
    /// Rows in the store that no record brought: left.
    pub extra: u64,
    /// Rows in the store from before the first record that Kafka still has: left.
    pub beyond: u64,
    /// Records of the span that neither the ledger nor dead letters know: left out.
    pub not_applied: u64,
    /// Rows written.
    pub restored: u64,
    /// Rows that the consumer changed since they were compared: left to the next run.
    pub changed_meanwhile: u64,
    /// What Kafka's window no longer has.
    pub gone: Vec<Gone>,
    /// The first differences.
    pub named: Vec<Named>,
    /// An operator holds it still: it ended before its span did.
    pub was_paused: bool,
}

/// Records of a log that were trimmed, and may have held points up to this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    pub partition: u16,
    pub lane: Lane,
    /// Before this second; `None` when nothing of the log is left.
    pub before_ts: Option<u32>,
}

/// One row that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    pub what: What,
    pub series_id: u64,
    pub window_ts: u32,
}

/// How a row is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Missing,
    Different,
    Extra,
}

impl What {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Different => "different",
            Self::Extra => "extra",
        }
    }
}

/// Why it ended early. What was restored until then stays, and is right.
#[derive(Debug, Error)]
pub enum ReprocessError {
    #[error("MySQL: {0}")]
    Shard(#[from] ShardError),
    #[error("MySQL: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("partition {0} has no row in `positions`")]
    NoPosition(u16),
    /// The slice is cut in two.
    #[error("ten seconds of partition {0} hold more points than fit into memory")]
    TooMuch(u16),
}

impl ReprocessError {
    fn is_altered(&self) -> bool {
        let error = match self {
            Self::Shard(ShardError::Sql(error)) | Self::Store(StoreError::Sql(error)) => error,
            _ => return false,
        };
        let number = error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>())
            .map(sqlx::mysql::MySqlDatabaseError::number);
        number == Some(ER_TABLE_DEF_CHANGED)
    }
}

/// Compares all rows of the span and, unless it is a dry run, restores those that differ. `tell`
/// hears after every slice.
pub async fn reprocess(
    sources: &Sources<'_>,
    request: &Request,
    mut tell: impl FnMut(&Reprocess),
) -> Result<Reprocess, ReprocessError> {
    let mut session = sources.shard.session().await?;
    let floor = floor_ts(&mut session, STATEMENT_DEADLINE).await?;
    let from = request.span.start.max(floor).next_multiple_of(WINDOW_S);
    let to = request.span.end.next_multiple_of(WINDOW_S);
    let hosts = hosts(&mut session, sources.partitioning, request.environment.as_deref()).await?;
    let mut state = Reprocess { partitions: request.partitions.len(), ..Reprocess::default() };
    let job = Job { sources, request, hosts: &hosts };
    for partition in &request.partitions {
        // The span as a whole first; one that holds too much is halved until it does not.
        let mut slices: Vec<Range<u32>> = std::iter::once(from..to).collect();
        while let Some(slice) = slices.pop().filter(|slice| !slice.is_empty()) {
            if !sources.pace.may(&mut session, NAME).await? {
                state.was_paused = true;
                session.give_back();
                return Ok(state);
            }
            match job.slice(&mut session, *partition, slice.clone(), &mut state).await {
                Err(ReprocessError::TooMuch(_)) if slice.len() > WINDOW_S as usize => {
                    let middle = (slice.start + (slice.end - slice.start) / 2) / WINDOW_S;
                    let middle = (middle * WINDOW_S).max(slice.start + WINDOW_S);
                    slices.extend([middle..slice.end, slice.start..middle]);
                }
                done => done?,
            }
            tell(&state);
        }
        state.partitions_done += 1;
        tell(&state);
    }
    session.give_back();
    Ok(state)
}

/// The ids of the hosts whose series live in each partition.
async fn hosts(
    session: &mut Session,
    partitioning: Partitioning,
    environment: Option<&str>,
) -> Result<BTreeMap<u16, Vec<u64>>, ShardError> {
    let sql = "SELECT host_id, environment, host FROM hosts ORDER BY host_id";
    let rows = answer(sqlx::query(sql).fetch_all(&mut **session)).await?;
    let mut hosts: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for row in &rows {
        let of = spillway_runtime::mysql::text(row, 1)?;
        let host = spillway_runtime::mysql::text(row, 2)?;
        if environment.is_none_or(|environment| environment == of) {
            let id: u64 = sqlx::Row::try_get(row, 0)?;
            hosts.entry(partitioning.partition_of(&of, &host)).or_default().push(id);
        }
    }
    Ok(hosts)
}

struct Job<'a> {
    sources: &'a Sources<'a>,
    request: &'a Request,
    hosts: &'a BTreeMap<u16, Vec<u64>>,
}

impl Job<'_> {
    /// One slice of one partition: compared, and restored.
    async fn slice(
        &self,
        session: &mut Session,
        partition: u16,
        slice: Range<u32>,
        state: &mut Reprocess,
    ) -> Result<(), ReprocessError> {
        let began = Instant::now();
        let mut attempts = 1;
        let differing = loop {
            let mut trial = state.clone();
            match self.look(partition, slice.clone(), &mut trial).await {
                // Partitions are made and dropped beside us; a new snapshot sees them.
                Err(error) if error.is_altered() && attempts < ATTEMPTS_MAX => attempts += 1,
                Err(error) => return Err(error),
                Ok(differing) => {
                    *state = trial;
                    break differing;
                }
            }
        };
        self.sources.pace.rest(began.elapsed()).await;
        if self.request.dry_run {
            return Ok(());
        }
        restore(session, self.sources.pace, &differing, state).await
    }

    /// Compares under one snapshot, which ends before anything is written.
    async fn look(
        &self,
        partition: u16,
        slice: Range<u32>,
        state: &mut Reprocess,
    ) -> Result<Vec<compare::Difference>, ReprocessError> {
        let mut snapshot = self.sources.shard.session().await?;
        execute(&mut snapshot, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        execute(&mut snapshot, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        let slice = rebuild::Slice { partition, span: slice };
        let rebuilt = rebuild(&mut snapshot, (self.sources, self.request), &slice).await?;
        rebuilt.count(state);
        let hosts = self.hosts.get(&partition).map_or(&[][..], Vec::as_slice);
        let differing = compare(&mut snapshot, (hosts, &slice.span), &rebuilt, state).await?;
        execute(&mut snapshot, "ROLLBACK").await?;
        snapshot.give_back();
        Ok(differing)
    }
}
