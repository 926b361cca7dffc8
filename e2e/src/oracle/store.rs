//! What the shards say of each record: audit rows, positions, what was quarantined.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spillway_proto::BatchId;
use spillway_proto::batch_id::BATCH_ID_BYTES;
use spillway_proto::kafka_record::Lane;
use sqlx::mysql::MySqlRow;
use sqlx::{MySqlPool, Row as _};
use tokio::time::timeout;

use super::log::{Partition, Place};
use super::site::Site;
use crate::verdict::Findings;

const QUERY_DEADLINE: Duration = Duration::from_secs(60);

/// An audit row: what was applied, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub id: BatchId,
    pub crc: u32,
    pub points: u64,
    pub place: Place,
    pub shard: String,
}

/// Where a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub next: i64,
    pub crc: Option<u32>,
}

/// All shards together.
#[derive(Debug, Default)]
pub struct Store {
    pub applied: Vec<Applied>,
    /// The standing of whichever shard owns the partition.
    pub positions: BTreeMap<Partition, Standing>,
    pub quarantined: BTreeMap<Place, String>,
    /// Environment and host of every series of every shard.
    pub hosts: BTreeSet<(String, String)>,
}

impl Store {
    /// Reads every shard.
    ///
    /// # Errors
    /// A shard does not answer, or its tables are others.
    pub async fn read(site: &Site) -> Result<Self, sqlx::Error> {
        let mut store = Self::default();
        for (shard, mysql) in site.shards() {
            store.read_shard(shard, &mysql).await?;
            mysql.close().await;
        }
        Ok(store)
    }

    async fn read_shard(&mut self, shard: &str, mysql: &MySqlPool) -> Result<(), sqlx::Error> {
        let audit = "SELECT agent_id, epoch, seq, crc, points, topic, partition_id, record_offset \
                     FROM spillway_store.audit";
        for row in rows(mysql, audit).await? {
            let topic: u8 = row.try_get(5)?;
            let lane = if topic == 0 { Lane::Live } else { Lane::Backlog };
            self.applied.push(Applied {
                id: id_of(&row)?,
                crc: row.try_get(3)?,
                points: u64::from(row.try_get::<u32, _>(4)?),
                place: (lane, partition(&row, 6)?, row.try_get(7)?),
                shard: shard.to_owned(),
            });
        }
        for (partition, standing) in positions(mysql).await? {
            // A shard has rows for its own partitions only.
            self.positions.insert(partition, standing);
        }
        let quarantined = "SELECT topic, partition_id, record_offset, reason \
                           FROM spillway_store.quarantined";
        for row in rows(mysql, quarantined).await? {
            let Some(lane) = Lane::of_topic(&row.try_get_unchecked::<String, _>(0)?) else {
                continue;
            };
            let place = (lane, partition(&row, 1)?, row.try_get(2)?);
            self.quarantined.insert(place, row.try_get_unchecked(3)?);
        }
        let hosts = "SELECT DISTINCT environment, host FROM spillway_store.series";
        for row in rows(mysql, hosts).await? {
            self.hosts.insert((row.try_get_unchecked(0)?, row.try_get_unchecked(1)?));
        }
        Ok(())
    }

    /// L2 where nobody looks for a name: series of a host, or under an environment, of which
    /// nothing was sent.
    #[must_use]
    pub fn strangers(&self, known: &BTreeSet<(String, String)>) -> Findings {
        let mut found = Findings::default();
        for (environment, host) in self.hosts.difference(known) {
            found.push(None, || format!("series of {host} in {environment}: nobody sent any"));
        }
        found
    }
}

/// One shard's positions.
///
/// # Errors
/// It does not answer.
pub async fn positions(mysql: &MySqlPool) -> Result<BTreeMap<Partition, Standing>, sqlx::Error> {
    let sql = "SELECT partition_id, live_next, live_crc, backlog_next, backlog_crc \
               FROM spillway_store.positions";
    let mut positions = BTreeMap::new();
    for row in rows(mysql, sql).await? {
        let number = partition(&row, 0)?;
        let live = Standing { next: row.try_get(1)?, crc: row.try_get(2)? };
        let backlog = Standing { next: row.try_get(3)?, crc: row.try_get(4)? };
        positions.insert((Lane::Live, number), live);
        positions.insert((Lane::Backlog, number), backlog);
    }
    Ok(positions)
}

async fn rows(mysql: &MySqlPool, sql: &str) -> Result<Vec<MySqlRow>, sqlx::Error> {
    let read = timeout(QUERY_DEADLINE, sqlx::query(sql).fetch_all(mysql)).await;
    read.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

fn partition(row: &MySqlRow, at: usize) -> Result<u16, sqlx::Error> {
    Ok(u16::try_from(row.try_get::<u32, _>(at)?).unwrap_or(u16::MAX))
}

fn id_of(row: &MySqlRow) -> Result<BatchId, sqlx::Error> {
    let (agent, epoch): (Vec<u8>, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
    let seq: u64 = row.try_get(2)?;
    let bytes = [agent, epoch, seq.to_le_bytes().to_vec()].concat();
    let id = <[u8; BATCH_ID_BYTES]>::try_from(bytes).ok().and_then(|b| BatchId::from_bytes(&b));
    id.ok_or_else(|| sqlx::Error::Decode("audit names no id".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_under_another_environment_is_a_stranger() {
        let of = |environment: &str| (environment.to_owned(), "oracle-demo-0".to_owned());
        let store = Store { hosts: [of("demo"), of("acme")].into(), ..Store::default() };
        assert_eq!(store.strangers(&[of("demo")].into()).count(), 1);
        assert_eq!(store.strangers(&[of("demo"), of("acme")].into()).count(), 0);
    }
}
