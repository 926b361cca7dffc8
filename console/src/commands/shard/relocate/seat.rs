//! Where the moved partitions stand on a server, and the few statements by which one shard gives
//! them up and the other takes them over.
//!
//! A row of `positions` at [`MOVED_AWAY`] can be claimed by nobody, whatever epoch comes. So the
//! partition is served by the source until its row is there, by nobody while rows are copied, and
//! by the target from the transaction on that writes its row there and raises the shard's epoch.

use std::collections::BTreeMap;

use spillway_runtime::mysql::text;
use spillway_runtime::shards::{MOVED_AWAY, Shard};
use sqlx::Row;

use crate::failure::Failure;
use crate::reach::mysql::{MysqlFault, Server};

use super::RelocateFault;
use super::slice::{Value, change, marks};

/// One row of `positions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    pub fence: u64,
    pub next: [i64; 2],
    pub crc: [Option<u32>; 2],
    pub epoch: u32,
}

/// What a server says of itself and of the partitions.
#[derive(Clone, Debug)]
pub struct Standing {
    pub shard: String,
    pub epoch: u32,
    cluster: String,
    read_only: bool,
    pub seats: BTreeMap<u16, Seat>,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The target has not taken the partitions over.
    Copy,
    /// It has, and nobody has written there: only epochs and shards.toml are missing.
    Finish,
}

pub async fn standing(server: &mut Server, partitions: &[u16]) -> Result<Standing, Failure> {
    let name = server.shard.name.clone();
    let found = server.ask(async |conn| {
        let meta = "SELECT shard, epoch, kafka_cluster_id, @@global.read_only
                    FROM spillway_store.shard_meta WHERE id = 1";
        let Some(meta) = sqlx::query(meta).fetch_optional(&mut *conn).await? else {
            return Ok(None);
        };
        let rows = "SELECT partition_id, fence, live_next, backlog_next, live_crc, backlog_crc,
                    shard_epoch FROM spillway_store.positions";
        let mut seats = BTreeMap::new();
        for row in sqlx::query(rows).fetch_all(conn).await? {
            let Ok(partition) = u16::try_from(row.try_get::<u32, _>(0)?) else { continue };
            let seat = Seat {
                fence: row.try_get(1)?,
                next: [row.try_get(2)?, row.try_get(3)?],
                crc: [row.try_get(4)?, row.try_get(5)?],
                epoch: row.try_get(6)?,
            };
            seats.insert(partition, seat);
        }
        seats.retain(|partition, _| partitions.contains(partition));
        let read_only = meta.try_get_unchecked::<i64, _>(3)? != 0;
        let (shard, cluster) = (text(&meta, 0)?, text(&meta, 2)?);
        Ok(Some(Standing { shard, epoch: meta.try_get(1)?, cluster, read_only, seats }))
    });
    match found.await? {
        Some(found) if found.shard == name => Ok(found),
        other => {
            let found = other.map(|other| other.shard).unwrap_or_default();
            Err(RelocateFault::OtherShard { expected: name, found }.into())
        }
    }
}

/// What there is to do, as the servers say; refuses what can't be a move from here to there.
pub fn stage(
    (source, target): (&Standing, &Standing),
    (from, to): (&Shard, &Shard),
    partitions: &[u16],
) -> Result<Stage, RelocateFault> {
    for standing in [source, target] {
        if standing.read_only {
            return Err(RelocateFault::ReadOnly(standing.shard.clone()));
        }
    }
    if source.cluster != target.cluster {
        return Err(RelocateFault::Clusters);
    }
    if let Some(partition) = partitions.iter().find(|at| !source.seats.contains_key(at)) {
        return Err(RelocateFault::NoPosition { shard: from.name.clone(), partition: *partition });
    }
    if is_vacant(target) {
        // A source that rose already while the target has nothing: the target was failed over, in
        // the middle of a move, to a replica that had not heard of it.
        let is_left = source.seats.values().all(|seat| seat.epoch == MOVED_AWAY);
        for (standing, shard) in [(source, from), (target, to)] {
            let rose = shard.name == from.name && is_left && standing.epoch == shard.epoch + 1;
            if standing.epoch != shard.epoch && !rose {
                let (name, found) = (shard.name.clone(), standing.epoch);
                return Err(RelocateFault::Epoch { shard: name, expected: shard.epoch, found });
            }
        }
        return Ok(Stage::Copy);
    }
    let untouched = |partition: &u16| {
        let seats = source.seats.get(partition).zip(target.seats.get(partition));
        seats.is_some_and(|(source, target)| {
            source.epoch == MOVED_AWAY && *target == taken(source, to.epoch + 1)
        })
    };
    let raised =
        target.epoch == to.epoch + 1 && (from.epoch..=from.epoch + 1).contains(&source.epoch);
    match raised && partitions.iter().all(untouched) {
        true => Ok(Stage::Finish),
        false => Err(RelocateFault::Served(to.name.clone())),
    }
}

/// Whether no consumer can claim any of the partitions there.
pub fn is_vacant(standing: &Standing) -> bool {
    standing.seats.values().all(|seat| seat.epoch == MOVED_AWAY)
}

/// The target's row for what the source gave up. Its fence tells whether anybody claimed it there.
fn taken(source: &Seat, epoch: u32) -> Seat {
    Seat { fence: source.fence + 1, epoch, ..source.clone() }
}

/// From here on nobody commits for these partitions at the source, and nobody can claim them.
pub async fn give_up(server: &mut Server, partitions: &[u16]) -> Result<(), MysqlFault> {
    let sql = format!(
        "UPDATE spillway_store.positions SET fence = fence + 1, shard_epoch = {MOVED_AWAY}
         WHERE shard_epoch <> {MOVED_AWAY} AND partition_id IN ({})",
        marks(partitions.len())
    );
    change(server, &sql, &numbers(partitions)).await.map(drop)
}

/// The shard may serve them again; nobody else took them over.
pub async fn take_back(server: &mut Server, partitions: &[u16]) -> Result<(), MysqlFault> {
    let sql = format!(
        "UPDATE spillway_store.positions SET fence = fence + 1,
         shard_epoch = (SELECT epoch FROM spillway_store.shard_meta WHERE id = 1)
         WHERE shard_epoch = {MOVED_AWAY} AND partition_id IN ({})",
        marks(partitions.len())
    );
    change(server, &sql, &numbers(partitions)).await.map(drop)
}

/// The target's rows and its next epoch, in one transaction.
pub async fn take_over(server: &mut Server, source: &Standing, epoch: u32) -> Result<(), Failure> {
    let now = jiff::Timestamp::now().as_millisecond();
    let raced = RelocateFault::Raced(server.shard.name.clone());
    let is_done = server.ask(async |conn| {
        sqlx::raw_sql("START TRANSACTION").execute(&mut *conn).await?;
        let raise = "UPDATE spillway_store.shard_meta SET epoch = epoch + 1
                     WHERE id = 1 AND epoch = ?";
        let raised = sqlx::query(raise).bind(epoch).execute(&mut *conn).await?;
        for (partition, seat) in &source.seats {
            let delete = "DELETE FROM spillway_store.positions
                          WHERE partition_id = ? AND shard_epoch = ?";
            let delete = sqlx::query(delete).bind(partition).bind(MOVED_AWAY);
            delete.execute(&mut *conn).await?;
            let seat = taken(seat, epoch + 1);
            // A row that somebody serves is still there, and ends this.
            let insert = "INSERT INTO spillway_store.positions (partition_id, fence, live_next,
                          backlog_next, live_crc, backlog_crc, shard_epoch, updated_at)
                          VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
            let [live, backlog] = seat.next;
            let [live_crc, backlog_crc] = seat.crc;
            let insert = sqlx::query(insert).bind(partition).bind(seat.fence).bind(live);
            let insert = insert.bind(backlog).bind(live_crc).bind(backlog_crc);
            insert.bind(seat.epoch).bind(now).execute(&mut *conn).await?;
        }
        let is_done = raised.rows_affected() == 1;
        let end = if is_done { "COMMIT" } else { "ROLLBACK" };
        sqlx::raw_sql(end).execute(conn).await?;
        Ok(is_done)
    });
    if is_done.await? { Ok(()) } else { Err(raced.into()) }
}

/// The source's next epoch, unless it has it; and nothing of these partitions is measured there.
pub async fn leave(server: &mut Server, epoch: u32, partitions: &[u16]) -> Result<(), MysqlFault> {
    let raise = "UPDATE spillway_store.shard_meta SET epoch = epoch + 1 WHERE id = 1 AND epoch = ?";
    change(server, raise, &[Value::Number(epoch.into())]).await?;
    let sql = format!(
        "DELETE FROM spillway_store.lag_measurements WHERE partition_id IN ({})",
        marks(partitions.len())
    );
    change(server, &sql, &numbers(partitions)).await.map(drop)
}

fn numbers(partitions: &[u16]) -> Vec<Value> {
    partitions.iter().map(|at| Value::Number(u64::from(*at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(name: &str, epoch: u32) -> Shard {
        let text = format!(
            "partitions = 4\ngroup = 4\n[[shard]]\nname = \"{name}\"\nprimary = \"mysql://db\"\n\
             groups = \"0\"\nepoch = {epoch}\n"
        );
        let map = spillway_runtime::shards::ShardMap::parse(&text).unwrap();
        map.shards.into_iter().next().unwrap()
    }

    fn at(name: &str, epoch: u32, seat: Option<(u64, u32)>) -> Standing {
        let seat = seat.map(|(fence, epoch)| Seat { fence, next: [7, 1], crc: [None; 2], epoch });
        let (shard, cluster) = (name.to_owned(), "k".to_owned());
        let seats = seat.into_iter().map(|seat| (3, seat)).collect();
        Standing { shard, epoch, cluster, read_only: false, seats }
    }

    fn judge(source: &Standing, target: &Standing) -> Result<Stage, RelocateFault> {
        stage((source, target), (&shard("s0", 2), &shard("s1", 5)), &[3])
    }

    #[test]
    fn a_move_goes_on_from_wherever_it_was_broken_off() {
        let served = at("s0", 2, Some((8, 2)));
        let given_up = at("s0", 2, Some((9, MOVED_AWAY)));
        let target = at("s1", 5, None);
        assert_eq!(judge(&served, &target).unwrap(), Stage::Copy);
        assert_eq!(judge(&given_up, &target).unwrap(), Stage::Copy);
        let once_here = at("s1", 5, Some((70, MOVED_AWAY)));
        assert_eq!(judge(&given_up, &once_here).unwrap(), Stage::Copy);
        let taken = at("s1", 6, Some((10, 6)));
        assert_eq!(judge(&given_up, &taken).unwrap(), Stage::Finish);
        let left = at("s0", 3, Some((9, MOVED_AWAY)));
        assert_eq!(judge(&left, &target).unwrap(), Stage::Copy, "a replica took over there");
        assert_eq!(judge(&left, &taken).unwrap(), Stage::Finish);
    }

    #[test]
    fn what_the_target_serves_is_never_written_over() {
        let given_up = at("s0", 2, Some((9, MOVED_AWAY)));
        for (epoch, seat) in [(6, (11, 6)), (5, (10, 6)), (7, (10, 7)), (6, (10, 5))] {
            let claimed = at("s1", epoch, Some(seat));
            assert!(
                matches!(judge(&given_up, &claimed), Err(RelocateFault::Served(_))),
                "{seat:?}"
            );
        }
        // The source was failed over to a replica that never heard of the move.
        let served = at("s0", 2, Some((9, 2)));
        let taken = at("s1", 6, Some((10, 6)));
        assert!(matches!(judge(&served, &taken), Err(RelocateFault::Served(_))));
    }

    #[test]
    fn an_old_shards_toml_moves_nothing() {
        let (source, mut target) = (at("s0", 3, Some((9, 3))), at("s1", 5, None));
        assert!(matches!(judge(&source, &target), Err(RelocateFault::Epoch { .. })));
        let none = at("s0", 2, None);
        assert!(matches!(judge(&none, &target), Err(RelocateFault::NoPosition { .. })));
        target.epoch = 6;
        let served = at("s0", 2, Some((9, 2)));
        assert!(matches!(judge(&served, &target), Err(RelocateFault::Epoch { .. })));
    }
}
