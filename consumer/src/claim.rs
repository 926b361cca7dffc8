//! Taking partitions in MySQL: the fence is raised, the offsets are read, and everything that could
//! make an offset a guess is checked before the first record is fetched.
//!
//! What is wrong here is wrong for one partition and waits for an operator; nothing is ever seeded,
//! skipped or reset.

use std::collections::BTreeMap;
use std::time::Duration;

use spillway_proto::kafka_record::Lane;
use spillway_runtime::shards::MOVED_AWAY;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use crate::commit::{PerLane, commit_claim};
use crate::log_ends::{Ends, LogEnds, LogEndsError};
use crate::store::StoreError;
use crate::store::statement::{Sql, get, run};

/// A partition that is ours until somebody raises its fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub partition: u16,
    pub fence: u64,
    pub shard_epoch: u32,
    pub next: PerLane<i64>,
    /// crc32c of the record before `next`, where it is known and can still be read.
    pub crc: PerLane<Option<u32>>,
}

/// Why a partition may not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    #[error("it has no row in `positions`: only `spillway topics create` may make one")]
    NoPosition,
    #[error("this server is no shard of ours: shard_meta is empty or names another shard")]
    WrongShard,
    #[error("its Kafka cluster is another one than the shard was filled from")]
    WrongCluster,
    #[error(
        "the shard's epoch is {stored}, shards.toml says {expected}: finish the failover, or \
         update shards.toml"
    )]
    WrongEpoch { stored: u32, expected: u32 },
    #[error(
        "it is being moved to another shard, or was: `spillway shard move` goes on with it, and \
         shards.toml must be the new one everywhere"
    )]
    MovedAway,
    #[error(
        "the next offset of {} is {next}, but its log holds {low}..{high}: the topic was recreated \
         or trimmed below what is applied. Do not reset offsets; see the runbook", .lane.topic()
    )]
    OutsideLog { lane: Lane, next: i64, low: i64, high: i64 },
    #[error(
        "the record before offset {next} of {} is not the one that was applied: the topic was \
         recreated or lost records. Do not reset offsets; see the runbook", .lane.topic()
    )]
    OtherRecord { lane: Lane, next: i64 },
    #[error("its records carry senders' times: set message.timestamp.type=LogAppendTime")]
    NoAppendTime,
    #[error("too many of its records are poison: look into dead letters, then restart")]
    DeadLetterFlood,
    #[error("Kafka refuses a dead letter: compare max.message.bytes of the topics")]
    DeadLetterRefused,
}

impl Obstacle {
    /// The word for metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoPosition => "no-position",
            Self::WrongShard => "wrong-shard",
            Self::WrongCluster => "wrong-cluster",
            Self::WrongEpoch { .. } => "wrong-epoch",
            Self::MovedAway => "moved-away",
            Self::OutsideLog { .. } => "outside-log",
            Self::OtherRecord { .. } => "other-record",
            Self::NoAppendTime => "no-append-time",
            Self::DeadLetterFlood => "dead-letter-flood",
            Self::DeadLetterRefused => "dead-letter-refused",
        }
    }

    /// Whether looking again may find it mended. The others stay until the program is restarted.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::DeadLetterFlood | Self::DeadLetterRefused)
    }
}

/// What a claim must find.
#[derive(Clone, Debug)]
pub struct Expected {
    pub shard: String,
    pub epoch: u32,
}

/// Why nothing was claimed at all.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Kafka(#[from] LogEndsError),
}

/// Takes `partitions`, each or not. An error says that none is taken: fences may have risen, which
/// harms nobody.
pub async fn claim(
    conn: &mut MySqlConnection,
    limit: Duration,
    partitions: &[u16],
    expected: &Expected,
    log_ends: &LogEnds,
) -> Result<Vec<Result<Claimed, (u16, Obstacle)>>, ClaimError> {
    let answers = run(conn, limit, &raise_fences(partitions, expected)).await?;
    commit_claim(conn, limit).await?;
    let [_, _, meta, positions] = answers.as_slice() else {
        return Err(StoreError::Shape("not as many answers as questions").into());
    };
    let all = |obstacle: &Obstacle| {
        partitions.iter().map(|partition| Err((*partition, obstacle.clone()))).collect()
    };
    let meta = meta.rows.first().map(read_meta).transpose()?;
    let Some(meta) = meta.filter(|meta| meta.shard == expected.shard) else {
        return Ok(all(&Obstacle::WrongShard));
    };
    if meta.epoch != expected.epoch {
        let (stored, expected) = (meta.epoch, expected.epoch);
        return Ok(all(&Obstacle::WrongEpoch { stored, expected }));
    }
    let ends = log_ends.of(partitions.to_vec()).await?;
    if ends.cluster_id.as_ref().is_some_and(|id| meta.cluster.as_ref().is_some_and(|c| c != id)) {
        return Ok(all(&Obstacle::WrongCluster));
    }
    let mut rows = BTreeMap::new();
    for row in &positions.rows {
        let claimed = read_position(row)?;
        rows.insert(claimed.partition, claimed);
    }
    let checked = |partition: &u16| match rows.remove(partition) {
        None => Err((*partition, Obstacle::NoPosition)),
        Some(claimed) => check(claimed, expected.epoch, &ends).map_err(|why| (*partition, why)),
    };
    Ok(partitions.iter().map(checked).collect())
}

/// One transaction, left open. A row of a later epoch is not touched.
fn raise_fences(partitions: &[u16], expected: &Expected) -> Sql {
    let list = |sql: &mut Sql| {
        sql.list(partitions, |sql, partition| {
            sql.number(*partition);
        });
    };
    let mut sql = Sql::new("START TRANSACTION");
    sql.end()
        .words("UPDATE spillway_store.positions FORCE INDEX (PRIMARY) SET fence = fence + 1, ");
    sql.words("shard_epoch = ").number(expected.epoch).words(" WHERE partition_id IN (");
    list(&mut sql);
    sql.words(") AND shard_epoch <= ").number(expected.epoch);
    sql.words(" AND ").number(expected.epoch);
    sql.words(" = (SELECT epoch FROM spillway_store.shard_meta WHERE id = 1)").end();
    sql.words("SELECT shard, epoch, kafka_cluster_id FROM spillway_store.shard_meta WHERE id = 1");
    sql.end().words(
        "SELECT partition_id, fence, shard_epoch, live_next, backlog_next, live_crc, backlog_crc \
         FROM spillway_store.positions FORCE INDEX (PRIMARY) WHERE partition_id IN (",
    );
    list(&mut sql);
    sql.words(")");
    sql
}

/// What a server says it is.
struct Meta {
    shard: String,
    epoch: u32,
    /// `None` where it was not noted.
    cluster: Option<String>,
}

fn read_meta(row: &MySqlRow) -> Result<Meta, StoreError> {
    let text = |column| -> Result<String, StoreError> {
        let bytes: &[u8] = get(row, column)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    };
    let cluster = Some(text(2)?).filter(|cluster| !cluster.is_empty());
    Ok(Meta { shard: text(0)?, epoch: get(row, 1)?, cluster })
}

fn read_position(row: &MySqlRow) -> Result<Claimed, StoreError> {
    let partition: u32 = get(row, 0)?;
    Ok(Claimed {
        partition: u16::try_from(partition).map_err(|_| StoreError::Shape("a huge partition"))?,
        fence: get(row, 1)?,
        shard_epoch: get(row, 2)?,
        next: [get(row, 3)?, get(row, 4)?],
        crc: [get(row, 5)?, get(row, 6)?],
    })
}

/// Whether the stored offsets lie in the log. The record before the first kept one can't be read
/// again, so its crc is not asked for.
fn check(mut claimed: Claimed, epoch: u32, ends: &Ends) -> Result<Claimed, Obstacle> {
    if claimed.shard_epoch == MOVED_AWAY {
        return Err(Obstacle::MovedAway);
    }
    if claimed.shard_epoch != epoch {
        return Err(Obstacle::WrongEpoch { stored: claimed.shard_epoch, expected: epoch });
    }
    let crcs = claimed.crc.iter_mut();
    for ((lane, next), crc) in Lane::ALL.into_iter().zip(claimed.next).zip(crcs) {
        let of_lane = ends.logs.get(&(lane, claimed.partition));
        let (low, high) = of_lane.copied().unwrap_or((0, -1));
        if !(low..=high).contains(&next) {
            return Err(Obstacle::OutsideLog { lane, next, low, high });
        }
        if next == low {
            *crc = None;
        }
    }
    Ok(claimed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(next: PerLane<i64>) -> Claimed {
        Claimed { partition: 3, fence: 1, shard_epoch: 2, next, crc: [Some(1), Some(2)] }
    }

    fn ends(live: (i64, i64), backlog: (i64, i64)) -> Ends {
        let logs = BTreeMap::from([((Lane::Live, 3), live), ((Lane::Backlog, 3), backlog)]);
        Ends { logs, cluster_id: None }
    }

    #[test]
    fn an_offset_outside_the_log_is_a_page_on_either_side() {
        let ends = ends((10, 20), (0, 5));
        assert!(check(claimed([15, 5]), 2, &ends).is_ok());
        assert!(check(claimed([20, 0]), 2, &ends).is_ok());
        for next in [[9, 0], [21, 0], [15, 6], [15, -1]] {
            let wrong = check(claimed(next), 2, &ends);
            assert!(matches!(wrong, Err(Obstacle::OutsideLog { .. })), "{next:?}");
        }
    }

    #[test]
    fn a_crc_is_checked_only_where_its_record_is_still_there() {
        let checked = check(claimed([10, 3]), 2, &ends((10, 20), (0, 5))).unwrap();
        assert_eq!(checked.crc, [None, Some(2)]);
    }

    #[test]
    fn another_epoch_is_a_page() {
        let wrong = check(claimed([10, 3]), 1, &ends((10, 20), (0, 5)));
        assert_eq!(wrong, Err(Obstacle::WrongEpoch { stored: 2, expected: 1 }));
    }

    #[test]
    fn what_was_moved_away_is_read_by_nobody_here() {
        let moved = Claimed { shard_epoch: MOVED_AWAY, ..claimed([10, 3]) };
        let wrong = check(moved, 2, &ends((10, 20), (0, 5)));
        assert_eq!(wrong, Err(Obstacle::MovedAway));
    }

    #[test]
    fn a_partition_that_kafka_does_not_know_is_outside_its_log() {
        let none = Ends { logs: BTreeMap::new(), cluster_id: None };
        assert!(matches!(check(claimed([0, 0]), 2, &none), Err(Obstacle::OutsideLog { .. })));
    }
}
