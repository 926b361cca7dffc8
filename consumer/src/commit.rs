//! The only place that commits: positions by compare-and-set, COMMIT, what became of a COMMIT that
//! was not answered, and afterwards the group's offsets in Kafka.
//!
//! Promises:
//! - A transaction is committed only if every partition in it stands exactly where this worker
//!   left it, under this worker's fence and the shard's epoch.
//! - A COMMIT without an answer is never guessed at: `positions` is read under lock, which waits
//!   until the old transaction has ended one way or the other.
//! - Kafka is told only of what [`Committed`] proves.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use spillway_proto::kafka_record::Lane;
use sqlx::mysql::MySqlConnection;

use crate::failpoint::{Failpoint, pass};
use crate::mutant::{Mutant, is};
use crate::store::StoreError;
use crate::store::statement::{Sql, get, run};

/// One value per lane, live first.
pub type PerLane<T> = [T; 2];

/// Where a partition stood and where the transaction takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    pub partition: u16,
    pub fence: u64,
    pub shard_epoch: u32,
    pub from: PerLane<i64>,
    pub to: PerLane<i64>,
    /// crc32c of the last record of each lane that moves.
    pub crc: PerLane<Option<u32>>,
}

/// Proof that these positions are in MySQL. Only this file makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Committed {
    advances: Vec<Advance>,
}

impl Committed {
    #[must_use]
    pub fn advances(&self) -> &[Advance] {
        &self.advances
    }

    #[cfg(feature = "mutants")]
    pub(crate) fn pretended(advances: Vec<Advance>) -> Self {
        Self { advances }
    }
}

/// Why a transaction is not known to be committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another owner, another epoch, or other offsets: nothing of it may count.
    #[error("positions moved under this worker: fenced")]
    Fenced,
    /// Surely not committed.
    #[error(transparent)]
    Failed(#[from] StoreError),
    /// COMMIT was sent and not answered well.
    #[error("COMMIT was not answered: {0}")]
    Unknown(StoreError),
}

/// What `positions` told of an unanswered COMMIT.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled {
    Applied(Committed),
    NotApplied,
    Fenced,
}

/// Moves the positions and commits the transaction that `conn` is in.
pub async fn commit(
    conn: &mut MySqlConnection,
    limit: Duration,
    advances: Vec<Advance>,
    now_ms: i64,
) -> Result<Committed, CommitError> {
    let answers = run(conn, limit, &compare_and_set(&advances, now_ms)).await;
    #[cfg(feature = "mutants")]
    let answers = match answers {
        Err(_) if is(Mutant::HalfRetry) => {
            run(conn, limit, &Sql::new("START TRANSACTION")).await?;
            run(conn, limit, &compare_and_set(&advances, now_ms)).await
        }
        answers => answers,
    };
    let answers = answers?;
    let matched: u64 = answers.iter().map(|answer| answer.affected).sum();
    if matched != advances.len() as u64 {
        return Err(CommitError::Fenced);
    }
    pass(Failpoint::BeforeCommit).await;
    run(conn, limit, &Sql::new("COMMIT")).await.map_err(CommitError::Unknown)?;
    pass(Failpoint::AfterCommit).await;
    Ok(Committed { advances })
}

/// Ends a transaction that must not count. An error here ends the connection, which does the same.
pub async fn roll_back(conn: &mut MySqlConnection, limit: Duration) -> Result<(), StoreError> {
    run(conn, limit, &Sql::new("ROLLBACK")).await.map(drop)
}

/// Commits the raised fences of a claim; without an answer the claim is made again.
pub async fn commit_claim(conn: &mut MySqlConnection, limit: Duration) -> Result<(), StoreError> {
    run(conn, limit, &Sql::new("COMMIT")).await.map(drop)
}

/// Learns on a new connection, to the same server, what became of an unanswered COMMIT.
pub async fn settle(
    conn: &mut MySqlConnection,
    limit: Duration,
    advances: Vec<Advance>,
) -> Result<Settled, StoreError> {
    let mut sql = Sql::new("START TRANSACTION");
    sql.end().words(
        "SELECT partition_id, fence, shard_epoch, live_next, backlog_next \
         FROM spillway_store.positions FORCE INDEX (PRIMARY) WHERE partition_id IN (",
    );
    sql.list(&advances, |sql, advance| {
        sql.number(advance.partition);
    });
    sql.words(") FOR UPDATE").end().words("ROLLBACK");
    let mut found = BTreeMap::new();
    for row in run(conn, limit, &sql).await?.iter().flat_map(|answer| &answer.rows) {
        let at: Standing = (get(row, 1)?, get(row, 2)?, [get(row, 3)?, get(row, 4)?]);
        found.insert(get::<u32>(row, 0)?, at);
    }
    Ok(judge(advances, &found))
}

/// Fence, shard epoch, next offsets.
type Standing = (u64, u32, PerLane<i64>);

/// All at their new places, all at their old ones, or else somebody else moved them.
fn judge(advances: Vec<Advance>, found: &BTreeMap<u32, Standing>) -> Settled {
    let stands = |advance: &Advance, at: PerLane<i64>| {
        found.get(&u32::from(advance.partition)) == Some(&(advance.fence, advance.shard_epoch, at))
    };
    if advances.iter().all(|advance| stands(advance, advance.to)) {
        return Settled::Applied(Committed { advances });
    }
    if advances.iter().all(|advance| stands(advance, advance.from)) {
        return Settled::NotApplied;
    }
    Settled::Fenced
}

/// One UPDATE for all partitions of the transaction; it matches a row only where nothing moved.
fn compare_and_set(advances: &[Advance], now_ms: i64) -> Sql {
    let mut sql = Sql::new("UPDATE spillway_store.positions FORCE INDEX (PRIMARY) SET ");
    let columns: [(&'static str, Value); 4] = [
        ("live_next", |advance| advance.to.first().copied()),
        ("backlog_next", |advance| advance.to.last().copied()),
        ("live_crc", |advance| advance.crc.first().copied().flatten().map(i64::from)),
        ("backlog_crc", |advance| advance.crc.last().copied().flatten().map(i64::from)),
    ];
    for (column, value) in columns {
        sql.words(column).words(" = CASE partition_id");
        for advance in advances {
            if let Some(value) = value(advance) {
                sql.words(" WHEN ").number(advance.partition).words(" THEN ").number(value);
            }
        }
        // A CASE needs a branch even when nothing of its column moves.
        sql.words(" WHEN -1 THEN 0 ELSE ").words(column).words(" END, ");
    }
    sql.words("updated_at = ").number(now_ms).words(" WHERE partition_id IN (");
    sql.list(advances, |sql, advance| {
        sql.number(advance.partition);
    });
    if is(Mutant::SkipFence) {
        sql.words(")");
        return sql;
    }
    sql.words(") AND (partition_id, fence, shard_epoch, live_next, backlog_next) IN (");
    sql.rows(advances, |sql, advance| {
        let [live, backlog] = advance.from;
        sql.number(advance.partition).comma().number(advance.fence).comma();
        sql.number(advance.shard_epoch).comma().number(live).comma().number(backlog);
    });
    sql.words(") AND shard_epoch = (SELECT epoch FROM spillway_store.shard_meta WHERE id = 1)");
    sql
}

type Value = fn(&Advance) -> Option<i64>;

/// The group's offsets: a hint for lag tools, and what allows an S3 object to be retired. The
/// consumer never reads them back.
#[derive(Debug, Default)]
pub struct GroupOffsets {
    offsets: Mutex<BTreeMap<u16, Known>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    next: PerLane<i64>,
    told: bool,
}

impl GroupOffsets {
    /// Notes what a COMMIT proved.
    pub fn note(&self, committed: &Committed) {
        for advance in committed.advances() {
            self.note_stored(advance.partition, advance.to);
        }
    }

    /// Notes what a claim read: lower than before after going back.
    pub fn note_stored(&self, partition: u16, next: PerLane<i64>) {
        self.lock().insert(partition, Known { next, told: false });
    }

    /// Forgets a partition that is no longer ours to speak for.
    pub fn forget(&self, partition: u16) {
        self.lock().remove(&partition);
    }

    /// Tells Kafka what is new, or everything. Nothing to tell is no error.
    pub fn tell<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        everything: bool,
        mode: CommitMode,
    ) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        let mut offsets = self.lock();
        for (partition, known) in offsets.iter_mut().filter(|(_, known)| everything || !known.told)
        {
            for (lane, next) in Lane::ALL.into_iter().zip(known.next) {
                let place = (lane.topic(), i32::from(*partition));
                list.add_partition_offset(place.0, place.1, Offset::Offset(next))?;
            }
            known.told = true;
        }
        drop(offsets);
        if list.count() == 0 { Ok(()) } else { consumer.commit(&list, mode) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, Known>> {
        self.offsets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
