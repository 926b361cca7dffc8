//! Where the consumer goes on, partition by partition: seeded here and nowhere else.
//!
//! A row is only ever made where nothing can be skipped by it: both lanes' partitions are empty,
//! or the operator asks for the very beginning. A row that exists is never touched.

use serde_json::Value as Json;
use spillway_proto::kafka_record::Lane;
use spillway_runtime::mysql::text;
use spillway_runtime::shards::{Shard, ShardMap};
use sqlx::Row;

use crate::reach::kafka::{AllEnds, Ends};
use crate::reach::mysql::{MysqlFault, Server};

/// What a shard's server knows of itself and its partitions.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// name and Kafka cluster id, once `migrate` ran and topics were made.
    pub meta: Option<(String, String)>,
    pub rows: Vec<Position>,
}

/// One row of `positions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub partition: u16,
    pub live_next: i64,
    pub backlog_next: i64,
    pub updated_at: i64,
}

impl Position {
    pub fn next(&self, lane: Lane) -> i64 {
        match lane {
            Lane::Live => self.live_next,
            Lane::Backlog => self.backlog_next,
        }
    }
}

/// Why a shard's positions do not fit Kafka.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error("the server in shards.toml as {expected} says it is {found}; correct the address")]
    OtherShard { expected: String, found: String },
    #[error(
        "shard {shard} belongs to Kafka cluster {expected}, and this one is {found}; correct \
         kafka.brokers or the shard's address"
    )]
    OtherCluster { shard: String, expected: String, found: String },
    #[error(
        "{topic} holds records already, but shard {shard} has no position for {}; if nothing of \
         it was ever applied, pass --from-beginning", named(.partitions)
    )]
    Unseeded { topic: &'static str, shard: String, partitions: Vec<u16> },
    #[error(
        "shard {shard} has applied {topic} partition {partition} up to {next}, but the topic ends \
         at {high}: it was recreated or cut; do not start consumers before that is understood"
    )]
    Ahead { topic: &'static str, shard: String, partition: u16, next: i64, high: i64 },
}

/// `3, 4, 5 and 61 others`
fn named(list: &[u16]) -> String {
    const NAMED_MAX: usize = 8;
    let named: Vec<String> = list.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let named = named.join(", ");
    let word = if list.len() == 1 { "partition" } else { "partitions" };
    match list.len().saturating_sub(NAMED_MAX) {
        0 => format!("{word} {named}"),
        others => format!("{word} {named} and {others} others"),
    }
}

/// The rows to make for one shard: partition, live_next, backlog_next.
pub type Seeds = Vec<(u16, i64, i64)>;

/// Which rows are missing and may be made; `ends` is empty for topics that are yet to be created.
pub fn seeds(
    map: &ShardMap,
    shard: &Shard,
    (known, ends): (&Known, &AllEnds),
    from_beginning: bool,
) -> Result<Seeds, Misfit> {
    let mut seeds = Seeds::new();
    let mut refused: Option<(&'static str, Vec<u16>)> = None;
    for partition in map.partitions_of(shard) {
        let end = |lane| ends.get(&(lane, partition)).copied().unwrap_or_default();
        let row = known.rows.iter().find(|row| row.partition == partition);
        if let Some(row) = row {
            check_row(shard, row, &end)?;
            continue;
        }
        let (live, backlog): (Ends, Ends) = (end(Lane::Live), end(Lane::Backlog));
        if from_beginning || (live.high == 0 && backlog.high == 0) {
            seeds.push((partition, live.low, backlog.low));
        } else {
            let lane = if live.high > 0 { Lane::Live } else { Lane::Backlog };
            refused.get_or_insert((lane.topic(), Vec::new())).1.push(partition);
        }
    }
    match refused {
        None => Ok(seeds),
        Some((topic, partitions)) => {
            Err(Misfit::Unseeded { topic, shard: shard.name.clone(), partitions })
        }
    }
}

fn check_row(shard: &Shard, row: &Position, end: &impl Fn(Lane) -> Ends) -> Result<(), Misfit> {
    for lane in Lane::ALL {
        let (next, high) = (row.next(lane), end(lane).high);
        if next > high {
            let (topic, shard) = (lane.topic(), shard.name.clone());
            return Err(Misfit::Ahead { topic, shard, partition: row.partition, next, high });
        }
    }
    Ok(())
}

/// Whether the server is the shard that shards.toml says, and follows this Kafka cluster.
pub fn check_meta(shard: &Shard, known: &Known, cluster: &str) -> Result<(), Misfit> {
    let Some((name, recorded)) = &known.meta else { return Ok(()) };
    if *name != shard.name {
        return Err(Misfit::OtherShard { expected: shard.name.clone(), found: name.clone() });
    }
    if !recorded.is_empty() && recorded != cluster {
        return Err(Misfit::OtherCluster {
            shard: shard.name.clone(),
            expected: recorded.clone(),
            found: cluster.to_owned(),
        });
    }
    Ok(())
}

/// Reads what a shard's server knows.
pub async fn read(server: &mut Server) -> Result<Known, MysqlFault> {
    server
        .ask(async |conn| {
            let meta = "SELECT shard, kafka_cluster_id FROM spillway_store.shard_meta WHERE id = 1";
            let meta = sqlx::query(meta).fetch_optional(&mut *conn).await?;
            let meta = meta.map(|row| Ok::<_, sqlx::Error>((text(&row, 0)?, text(&row, 1)?)));
            let meta = meta.transpose()?;
            let rows = "SELECT partition_id, live_next, backlog_next, updated_at
                        FROM spillway_store.positions ORDER BY partition_id";
            let rows = sqlx::query(rows).fetch_all(&mut *conn).await?;
            let rows = rows.iter().map(|row| {
                let partition: u32 = row.try_get(0)?;
                Ok(Position {
                    partition: u16::try_from(partition).unwrap_or(u16::MAX),
                    live_next: row.try_get(1)?,
                    backlog_next: row.try_get(2)?,
                    updated_at: row.try_get(3)?,
                })
            });
            let rows = rows.collect::<Result<_, sqlx::Error>>()?;
            Ok(Known { meta, rows })
        })
        .await
}

/// Makes the rows, and notes which shard of which Kafka cluster this is.
pub async fn write(server: &mut Server, seeds: &Seeds, cluster: &str) -> Result<(), MysqlFault> {
    let (name, epoch) = (server.shard.name.clone(), server.shard.epoch);
    let now = jiff::Timestamp::now().as_millisecond();
    server
        .ask(async |conn| {
            let meta = "INSERT INTO spillway_store.shard_meta (id, shard, epoch, kafka_cluster_id)
                        VALUES (1, ?, ?, ?)
                        ON DUPLICATE KEY UPDATE kafka_cluster_id = VALUES(kafka_cluster_id)";
            sqlx::query(meta).bind(&name).bind(epoch).bind(cluster).execute(&mut *conn).await?;
            super::views::admit_self(conn, now).await?;
            if seeds.is_empty() {
                return Ok(());
            }
            let values = vec!["(?, ?, ?, ?, ?)"; seeds.len()].join(", ");
            let sql = format!(
                "INSERT INTO spillway_store.positions
                 (partition_id, live_next, backlog_next, shard_epoch, updated_at) VALUES {values}"
            );
            let mut insert = sqlx::query(&sql);
            for (partition, live, backlog) in seeds {
                insert = insert.bind(partition).bind(live).bind(backlog).bind(epoch).bind(now);
            }
            insert.execute(&mut *conn).await.map(drop)
        })
        .await
}

/// A row for tables and JSON.
pub fn row_of(shard: &Shard, seeds: &Seeds) -> Vec<Json> {
    vec![shard.name.clone().into(), seeds.len().into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> ShardMap {
        let text = "partitions = 4\ngroup = 2\n[[shard]]\nname = \"s0\"\n\
                    primary = \"mysql://a\"\ngroups = \"0-1\"\n";
        ShardMap::parse(text).unwrap()
    }

    fn seeds_for(
        rows: &[Position],
        ends: &[(Lane, u16, i64, i64)],
        all: bool,
    ) -> Result<Seeds, Misfit> {
        let map = map();
        let ends =
            ends.iter().map(|(lane, p, low, high)| ((*lane, *p), Ends { low: *low, high: *high }));
        let known = Known { meta: None, rows: rows.to_vec() };
        seeds(&map, &map.shards[0], (&known, &ends.collect()), all)
    }

    fn row(partition: u16, live_next: i64) -> Position {
        Position { partition, live_next, backlog_next: 0, updated_at: 0 }
    }

    #[test]
    fn new_and_empty_partitions_are_seeded_at_zero() {
        let expected: Seeds = (0..4).map(|p| (p, 0, 0)).collect();
        assert_eq!(seeds_for(&[], &[], false).unwrap(), expected);
        assert_eq!(seeds_for(&[], &[(Lane::Live, 2, 0, 0)], false).unwrap(), expected);
    }

    #[test]
    fn a_partition_with_records_and_no_position_is_refused_unless_from_the_beginning() {
        let ends = [(Lane::Live, 2, 7, 9), (Lane::Backlog, 3, 0, 1)];
        let refused = seeds_for(&[], &ends, false).unwrap_err().to_string();
        assert!(
            refused.contains("partitions 2, 3") && refused.contains("--from-beginning"),
            "{refused}"
        );
        let seeds = seeds_for(&[], &ends, true).unwrap();
        assert_eq!(seeds, [(0, 0, 0), (1, 0, 0), (2, 7, 0), (3, 0, 0)]);
    }

    #[test]
    fn an_existing_position_is_left_alone() {
        let ends = [(Lane::Live, 1, 0, 50)];
        let seeds = seeds_for(&[row(1, 50)], &ends, false).unwrap();
        assert_eq!(seeds, [(0, 0, 0), (2, 0, 0), (3, 0, 0)]);
    }

    #[test]
    fn a_position_past_the_topics_end_is_an_alarm_even_from_the_beginning() {
        let error = seeds_for(&[row(1, 51)], &[(Lane::Live, 1, 0, 50)], true).unwrap_err();
        assert!(error.to_string().contains("recreated or cut"), "{error}");
    }

    #[test]
    fn a_server_that_is_another_shard_or_follows_another_cluster_is_refused() {
        let map = map();
        let known = |name: &str, id: &str| Known {
            meta: Some((name.to_owned(), id.to_owned())),
            rows: Vec::new(),
        };
        let check = |known| check_meta(&map.shards[0], &known, "abc");
        assert!(check(known("s0", "")).is_ok() && check(known("s0", "abc")).is_ok());
        assert!(matches!(check(known("s1", "abc")), Err(Misfit::OtherShard { .. })));
        assert!(matches!(check(known("s0", "xyz")), Err(Misfit::OtherCluster { .. })));
    }
}
