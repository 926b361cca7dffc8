//! The lock as all operators' machines share it, in two parts, on every MySQL server that answers.
//!
//! While a command runs it holds MySQL's own `GET_LOCK` there: on replicas too, which take no row,
//! since a failover begins when the primary is gone. Such a lock ends with its connection, so a
//! console that dies leaves none behind. An operator's own lock (`maintenance begin`) outlives the
//! command: a row on each shard's primary, which its replicas have as well.

use jiff::Timestamp;
use spillway_runtime::mysql::text;
use spillway_runtime::shards::{Shard, ShardMap};
use sqlx::{MySqlConnection, Row};

use super::{Lock, LockFault};
use crate::desk::Desk;
use crate::reach::mysql::{MysqlFault, Server};

const NAME: &str = "spillway.change";
/// A connection that says nothing for so long is closed by its server, and the lock with it.
const SILENT_S_MAX: u32 = 6 * 3_600;

/// What the servers said, and their locks until this is dropped.
#[derive(Debug, Default)]
pub struct Grip {
    primaries: Vec<Server>,
    /// Kept for their locks alone.
    replicas: Vec<Server>,
    /// Servers that could not be asked.
    pub silent: Vec<String>,
    /// An operator's lock that was found.
    pub holder: Option<Lock>,
}

impl Grip {
    pub fn servers(&self) -> usize {
        self.primaries.len() + self.replicas.len()
    }
}

/// Takes the command's lock on every server that answers, in one order for everybody.
pub async fn grip(desk: &Desk, map: &ShardMap, words: &str) -> Result<Grip, LockFault> {
    let mut grip = Grip::default();
    for (shard, is_primary) in servers(map) {
        let taken = async {
            let mut server = Server::connect(&desk.settings, &shard).await?;
            let rival = server.ask(async |conn| take(conn, words).await).await?;
            let holder = server.ask(async |conn| row(conn).await).await?;
            Ok::<_, MysqlFault>((server, rival, holder))
        };
        match taken.await {
            Ok((_, Some(rival), _)) => return Err(LockFault::AtWork(rival)),
            Ok((server, None, holder)) => {
                grip.holder = grip.holder.take().or(holder);
                let list = if is_primary { &mut grip.primaries } else { &mut grip.replicas };
                list.push(server);
            }
            Err(fault) => grip.silent.push(fault.to_string()),
        }
    }
    Ok(grip)
}

/// An operator's lock, as the first server that answers knows it; nothing is locked.
pub async fn holder(desk: &Desk, map: &ShardMap) -> (Option<Lock>, Vec<String>) {
    let mut silent = Vec::new();
    for (shard, _) in servers(map) {
        let found = async {
            let mut server = Server::connect(&desk.settings, &shard).await?;
            server.ask(async |conn| row(conn).await).await
        };
        match found.await {
            Ok(Some(lock)) => return (Some(lock), silent),
            Ok(None) => {}
            Err(fault) => silent.push(fault.to_string()),
        }
    }
    (None, silent)
}

/// Every shard's primary, then its replicas.
fn servers(map: &ShardMap) -> impl Iterator<Item = (Shard, bool)> {
    map.shards.iter().flat_map(|shard| {
        let replicas = shard.replicas.iter().map(|replica| (replica.url.clone(), false));
        let all = std::iter::once((shard.primary.clone(), true)).chain(replicas);
        all.map(|(primary, is_primary)| (Shard { primary, ..shard.clone() }, is_primary))
    })
}

/// Takes the lock of this connection; or tells who has it.
async fn take(conn: &mut MySqlConnection, words: &str) -> Result<Option<String>, sqlx::Error> {
    let stay = format!("SET SESSION wait_timeout = {SILENT_S_MAX}");
    sqlx::raw_sql(&stay).execute(&mut *conn).await?;
    // Others read it there, to be told who is at work.
    sqlx::query("SET @spillway_change = ?").bind(words).execute(&mut *conn).await?;
    let got: Option<i64> =
        sqlx::query_scalar("SELECT GET_LOCK(?, 0)").bind(NAME).fetch_one(&mut *conn).await?;
    if got == Some(1) {
        return Ok(None);
    }
    let sql = "SELECT v.variable_value FROM performance_schema.user_variables_by_thread v
               JOIN performance_schema.threads t ON t.thread_id = v.thread_id
               WHERE t.processlist_id = IS_USED_LOCK(?) AND v.variable_name = 'spillway_change'";
    let found = sqlx::query(sql).bind(NAME).fetch_optional(conn).await;
    // MariaDB keeps no such table; who it is matters less than that somebody is.
    let words = found.ok().flatten().and_then(|row| text(&row, 0).ok());
    Ok(Some(words.unwrap_or_else(|| "another console".to_owned())))
}

/// The row, unless its time is over. A server without the table knows of no lock.
async fn row(conn: &mut MySqlConnection) -> Result<Option<Lock>, sqlx::Error> {
    let there = "SELECT COUNT(*) FROM information_schema.tables
                 WHERE table_schema = 'spillway_store' AND table_name = 'maintenance'";
    if sqlx::query_scalar::<_, i64>(there).fetch_one(&mut *conn).await? == 0 {
        return Ok(None);
    }
    let sql = "SELECT owner, reason, since_at, until_at FROM spillway_store.maintenance
               WHERE id = 1 AND until_at > ?";
    let now = Timestamp::now().as_millisecond();
    let Some(row) = sqlx::query(sql).bind(now).fetch_optional(conn).await? else { return Ok(None) };
    let time = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    Ok(Some(Lock {
        owner: text(&row, 0)?,
        reason: text(&row, 1)?,
        since: time(row.try_get(2)?),
        until: time(row.try_get(3)?),
    }))
}

impl Grip {
    /// Writes an operator's lock, or removes it, on every primary that answered; and tells which
    /// did not take it.
    pub async fn write(&mut self, lock: Option<&Lock>) -> Vec<String> {
        let mut missed = Vec::new();
        for server in &mut self.primaries {
            let written = server.ask(async |conn| {
                let Some(lock) = lock else {
                    let sql = "DELETE FROM spillway_store.maintenance WHERE id = 1";
                    return sqlx::query(sql).execute(conn).await.map(drop);
                };
                let sql = "REPLACE INTO spillway_store.maintenance
                           (id, owner, reason, since_at, until_at) VALUES (1, ?, ?, ?, ?)";
                let query = sqlx::query(sql).bind(&lock.owner).bind(&lock.reason);
                let query = query.bind(lock.since.as_millisecond());
                query.bind(lock.until.as_millisecond()).execute(conn).await.map(drop)
            });
            if let Err(fault) = written.await {
                missed.push(fault.to_string());
            }
        }
        missed
    }
}
