//! What a shard has noted of one batch: audit row, its epoch's ledger, its gap, its dead letter.

use jiff::Timestamp;
use spillway_proto::BatchId;
use spillway_proto::kafka_record::Lane;
use spillway_runtime::mysql::text;
use spillway_runtime::shards::Shard;
use sqlx::{MySqlConnection, Row};
use uuid::Uuid;

use super::Hop;
use crate::desk::Desk;
use crate::reach::mysql::{MysqlFault, Server};

/// The transaction's own note: kept for as long as the ledger's age.
#[derive(Debug, Clone)]
pub struct Audit {
    pub applied_at: i64,
    pub crc: u32,
    pub points: u32,
    pub window_ts: u32,
    pub lane: Lane,
    pub partition: u16,
    pub offset: i64,
}

/// Of the epoch that the batch belongs to.
#[derive(Debug, Clone)]
pub struct Epoch {
    pub environment: String,
    pub host: String,
    pub partition: u16,
    pub highest_seq: u64,
    pub duplicate_batches: u64,
    /// When an agent of this host was heard last, seconds since the Unix epoch.
    pub last_applied_at: i64,
}

/// A gap that the batch lies in.
#[derive(Debug, Clone)]
pub struct Gap {
    pub state: String,
    pub reason: String,
}

/// A dead letter of the batch, by the place of its original.
#[derive(Debug, Clone)]
pub struct Quarantined {
    pub topic: String,
    pub partition: u32,
    pub offset: i64,
    pub reason: String,
    pub at_ms: i64,
}

/// All of it, of one shard.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    pub shard: String,
    pub audit: Option<Audit>,
    /// The ledger's ranges hold its seq.
    pub in_ranges: bool,
    pub epoch: Option<Epoch>,
    pub gap: Option<Gap>,
    pub quarantined: Option<Quarantined>,
    /// Where each lane of its partition stands.
    pub next: Option<(i64, i64)>,
}

impl Stored {
    pub fn is_applied(&self) -> bool {
        self.audit.is_some() || self.in_ranges
    }

    pub fn knows_anything(&self) -> bool {
        self.is_applied() || self.epoch.is_some() || self.quarantined.is_some()
    }
}

pub async fn read(desk: &Desk, shard: &Shard, id: &BatchId) -> Result<Stored, MysqlFault> {
    let mut server = Server::connect(&desk.settings, shard).await?;
    let (agent, epoch, seq) = id.columns();
    let key = Key { agent, epoch, seq };
    let name = shard.name.clone();
    server
        .ask(async |conn| {
            let mut stored = Stored { shard: name, ..Stored::default() };
            stored.audit = audit(conn, &key).await?;
            stored.epoch = ledger(conn, &key).await?;
            stored.in_ranges = key.seq > 0 && in_ranges(conn, &key).await?;
            stored.quarantined = quarantined(conn, &key).await?;
            if !stored.is_applied() {
                stored.gap = gap(conn, &key).await?;
            }
            let partition = stored.audit.as_ref().map(|audit| audit.partition);
            let partition = partition.or(stored.epoch.as_ref().map(|epoch| epoch.partition));
            if let Some(partition) = partition {
                stored.next = next(conn, partition).await?;
            }
            Ok(stored)
        })
        .await
}

/// The ledger's columns.
struct Key {
    agent: [u8; 16],
    epoch: [u8; 16],
    seq: u64,
}

async fn audit(conn: &mut MySqlConnection, key: &Key) -> Result<Option<Audit>, sqlx::Error> {
    let sql = "SELECT applied_at, crc, points, window_ts, topic, partition_id, record_offset
               FROM spillway_store.audit WHERE agent_id = ? AND epoch = ? AND seq = ?
               ORDER BY applied_at LIMIT 1";
    let query = sqlx::query(sql).bind(&key.agent[..]).bind(&key.epoch[..]).bind(key.seq);
    let Some(row) = query.fetch_optional(conn).await? else { return Ok(None) };
    let (topic, partition): (u8, u32) = (row.try_get(4)?, row.try_get(5)?);
    Ok(Some(Audit {
        applied_at: row.try_get(0)?,
        crc: row.try_get(1)?,
        points: row.try_get(2)?,
        window_ts: row.try_get(3)?,
        lane: if topic == Lane::Live as u8 { Lane::Live } else { Lane::Backlog },
        partition: u16::try_from(partition).unwrap_or(u16::MAX),
        offset: row.try_get(6)?,
    }))
}

async fn ledger(conn: &mut MySqlConnection, key: &Key) -> Result<Option<Epoch>, sqlx::Error> {
    let sql = "SELECT environment, host, partition_id, highest_seq, duplicate_batches,
               last_applied_at FROM spillway_store.ledger_epochs WHERE agent_id = ? AND epoch = ?";
    let query = sqlx::query(sql).bind(&key.agent[..]).bind(&key.epoch[..]);
    let Some(row) = query.fetch_optional(conn).await? else { return Ok(None) };
    let partition: u32 = row.try_get(2)?;
    Ok(Some(Epoch {
        environment: text(&row, 0)?,
        host: text(&row, 1)?,
        partition: u16::try_from(partition).unwrap_or(u16::MAX),
        highest_seq: row.try_get(3)?,
        duplicate_batches: row.try_get(4)?,
        last_applied_at: row.try_get(5)?,
    }))
}

async fn in_ranges(conn: &mut MySqlConnection, key: &Key) -> Result<bool, sqlx::Error> {
    let sql = "SELECT last_seq FROM spillway_store.ledger_ranges
               WHERE agent_id = ? AND epoch = ? AND first_seq <= ?
               ORDER BY first_seq DESC LIMIT 1";
    let query = sqlx::query(sql).bind(&key.agent[..]).bind(&key.epoch[..]).bind(key.seq);
    let row = query.fetch_optional(conn).await?;
    let last: Option<u64> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(last.is_some_and(|last| last >= key.seq))
}

async fn gap(conn: &mut MySqlConnection, key: &Key) -> Result<Option<Gap>, sqlx::Error> {
    if key.seq == 0 {
        return Ok(None);
    }
    let sql = "SELECT state, reason FROM spillway.gaps
               WHERE agent_id = ? AND epoch = ? AND first_seq <= ?
               AND (last_seq IS NULL OR last_seq >= ?) LIMIT 1";
    let uuid = |bytes: [u8; 16]| Uuid::from_bytes(bytes).to_string();
    let query = sqlx::query(sql).bind(uuid(key.agent)).bind(uuid(key.epoch));
    let row = query.bind(key.seq).bind(key.seq).fetch_optional(conn).await?;
    row.map(|row| Ok(Gap { state: text(&row, 0)?, reason: text(&row, 1)? })).transpose()
}

async fn quarantined(
    conn: &mut MySqlConnection,
    key: &Key,
) -> Result<Option<Quarantined>, sqlx::Error> {
    let sql = "SELECT topic, partition_id, record_offset, reason, quarantined_at
               FROM spillway_store.quarantined WHERE agent_id = ? AND epoch = ? AND seq = ?
               ORDER BY quarantined_at DESC LIMIT 1";
    let query = sqlx::query(sql).bind(&key.agent[..]).bind(&key.epoch[..]).bind(key.seq);
    let Some(row) = query.fetch_optional(conn).await? else { return Ok(None) };
    Ok(Some(Quarantined {
        topic: text(&row, 0)?,
        partition: row.try_get(1)?,
        offset: row.try_get(2)?,
        reason: text(&row, 3)?,
        at_ms: row.try_get(4)?,
    }))
}

async fn next(
    conn: &mut MySqlConnection,
    partition: u16,
) -> Result<Option<(i64, i64)>, sqlx::Error> {
    let sql = "SELECT live_next, backlog_next FROM spillway_store.positions WHERE partition_id = ?";
    sqlx::query_as(sql).bind(partition).fetch_optional(conn).await
}

/// MySQL's hops: the transaction, and the dead letter if there is one.
pub fn hops(id: &BatchId, stored: Option<&Stored>) -> Vec<Hop> {
    let mut hops = vec![transaction(id, stored)];
    if let Some(letter) = stored.and_then(|stored| stored.quarantined.as_ref()) {
        let at = time(letter.at_ms);
        hops.push(Hop::new(
            "dead-letters",
            "quarantined",
            format!(
                "{at}: {}; its original is {} partition {} offset {}",
                letter.reason, letter.topic, letter.partition, letter.offset
            ),
        ));
    } else {
        hops.push(Hop::new("dead-letters", "absent", "no dead letter bears its id"));
    }
    hops
}

fn transaction(id: &BatchId, stored: Option<&Stored>) -> Hop {
    const HOP: &str = "mysql";
    let Some(stored) = stored else {
        return Hop::new(HOP, "absent", "no shard that answers knows the batch or its epoch");
    };
    let shard = &stored.shard;
    if let Some(audit) = &stored.audit {
        let counted = stored.epoch.as_ref().map_or(String::new(), |epoch| {
            format!("; {} duplicates of its epoch were applied as nothing", epoch.duplicate_batches)
        });
        return Hop::new(
            HOP,
            "applied",
            format!(
                "shard {shard}, {}: {} points of window {}, crc {:08x}, in one transaction with \
                 its offset{counted}",
                time(audit.applied_at),
                audit.points,
                time(i64::from(audit.window_ts) * 1_000),
                audit.crc
            ),
        );
    }
    if stored.in_ranges {
        let text = format!(
            "shard {shard}: its seq is in the ledger; when and from where is no longer kept"
        );
        return Hop::new(HOP, "applied", text);
    }
    let highest = stored.epoch.as_ref().map_or(0, |epoch| epoch.highest_seq);
    let text = match (id, &stored.gap) {
        (_, Some(gap)) => format!("shard {shard}: in a gap that is {} ({})", gap.state, gap.reason),
        (BatchId::Sequenced { seq, .. }, None) if *seq > highest => {
            format!("shard {shard}: above the highest seq of its epoch, {highest}")
        }
        _ => format!("shard {shard}: not applied"),
    };
    Hop::new(HOP, "absent", text)
}

/// A time in UTC to the millisecond.
pub fn time(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map(|at| at.to_string()).unwrap_or_default()
}
