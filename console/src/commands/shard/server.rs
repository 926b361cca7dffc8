//! One MySQL server of a shard: what it says of itself, and the few statements that change it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use spillway_proto::kafka_record::Lane;
use spillway_runtime::mysql::text;
use spillway_runtime::mysql_url::MysqlUrl;
use spillway_runtime::shards::{MOVED_AWAY, Shard};
use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};

use super::{ShardFault, address};
use crate::desk::Desk;
use crate::failure::Failure;
use crate::reach::mysql::{MysqlFault, Server};

/// Between two looks at something that takes its time.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The longest wait inside one statement; longer waits repeat it.
const WAIT_S_MAX: u64 = 2;

/// What a server says.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// In MariaDB, which has none, the server's number.
    pub uuid: String,
    /// `super_read_only`: nobody may write. MariaDB can't be fenced so.
    pub fenced: bool,
    pub read_only: bool,
    /// Empty without MySQL's GTIDs, which alone can be subtracted: no switchover then.
    pub gtids: String,
    pub shard: Option<String>,
    pub epoch: Option<u32>,
    pub follows: Option<Follows>,
    pub positions: BTreeMap<(Lane, u16), i64>,
    /// Partitions whose row bears each epoch.
    pub at_epoch: BTreeMap<u32, usize>,
}

impl Status {
    /// Partitions that are consumed into this shard; those that moved away leave their row.
    pub fn partitions(&self) -> usize {
        let here = self.at_epoch.iter().filter(|(epoch, _)| **epoch != MOVED_AWAY);
        here.map(|(_, partitions)| partitions).sum()
    }
}

/// Its replication, if it follows anyone.
#[derive(Debug, Clone, Default)]
pub struct Follows {
    pub host: String,
    pub port: u16,
    pub uuid: String,
    pub receives: bool,
    pub applies: bool,
    pub behind_s: Option<i64>,
    pub received: String,
    pub error: String,
}

impl Follows {
    pub fn state(&self) -> String {
        match (self.receives, self.applies) {
            (true, true) => "running".to_owned(),
            _ if !self.error.is_empty() => self.error.clone(),
            (true, false) => "receives, does not apply".to_owned(),
            (false, true) => "does not receive".to_owned(),
            (false, false) => "stopped".to_owned(),
        }
    }
}

/// What the two kinds of server call the same things.
struct Dialect {
    /// What [`Status`] begins with.
    itself: &'static str,
    applied: &'static str,
    /// Takes what `applied` said and seconds; 0 if all of it came in time.
    wait: &'static str,
    follows: &'static str,
    /// Of `follows`: host, port, identity, receives, applies, behind, received.
    columns: [&'static str; 7],
}

const MYSQL: Dialect = Dialect {
    itself: "@@global.server_uuid, @@global.super_read_only, @@global.read_only, \
             @@global.gtid_executed",
    applied: "@@global.gtid_executed",
    wait: "WAIT_FOR_EXECUTED_GTID_SET",
    follows: "SHOW REPLICA STATUS",
    columns: [
        "Source_Host",
        "Source_Port",
        "Source_UUID",
        "Replica_IO_Running",
        "Replica_SQL_Running",
        "Seconds_Behind_Source",
        "Retrieved_Gtid_Set",
    ],
};

const MARIADB: Dialect = Dialect {
    itself: "CAST(@@global.server_id AS CHAR), 0, @@global.read_only, ''",
    applied: "@@global.gtid_current_pos",
    wait: "MASTER_GTID_WAIT",
    // Those with a name too.
    follows: "SHOW ALL SLAVES STATUS",
    columns: [
        "Master_Host",
        "Master_Port",
        "Master_Server_Id",
        "Slave_IO_Running",
        "Slave_SQL_Running",
        "Seconds_Behind_Master",
        "Gtid_IO_Pos",
    ],
};

/// A connection to one server of a shard, not only to its primary.
#[derive(Debug)]
pub struct Member {
    pub url: MysqlUrl,
    pub address: String,
    server: Server,
}

impl Member {
    pub async fn connect(desk: &Desk, shard: &Shard, url: &MysqlUrl) -> Result<Self, MysqlFault> {
        let at = Shard { primary: url.clone(), ..shard.clone() };
        let server = Server::connect(&desk.settings, &at).await?;
        Ok(Self { url: url.clone(), address: address(url), server })
    }

    async fn dialect(&mut self) -> Result<&'static Dialect, MysqlFault> {
        Ok(if self.server.is_mariadb().await? { &MARIADB } else { &MYSQL })
    }

    pub async fn status(&mut self) -> Result<Status, MysqlFault> {
        let dialect = self.dialect().await?;
        self.server
            .ask(async |conn| {
                let sql = format!("SELECT {}", dialect.itself);
                let row = sqlx::query(&sql).fetch_one(&mut *conn).await?;
                let mut status = Status {
                    uuid: text(&row, 0)?,
                    fenced: row.try_get_unchecked::<i64, _>(1)? != 0,
                    read_only: row.try_get_unchecked::<i64, _>(2)? != 0,
                    gtids: text(&row, 3)?.split_whitespace().collect(),
                    ..Status::default()
                };
                status.follows = follows(conn, dialect).await?;
                read_store(conn, &mut status).await?;
                Ok(status)
            })
            .await
    }

    /// Nobody may write from here on. Waits for commits that are under way.
    pub async fn fence(&mut self) -> Result<(), MysqlFault> {
        self.server.run("SET GLOBAL super_read_only = ON").await
    }

    pub async fn unfence(&mut self) -> Result<(), MysqlFault> {
        self.server.run("SET GLOBAL super_read_only = OFF").await?;
        self.server.run("SET GLOBAL read_only = OFF").await
    }

    /// All that it has applied, in the words that a server of its kind waits for: MySQL's GTIDs are
    /// a set, MariaDB's a position.
    pub async fn applied(&mut self) -> Result<String, MysqlFault> {
        let sql = format!("SELECT {}", self.dialect().await?.applied);
        self.server.ask(async |conn| text(&sqlx::query(&sql).fetch_one(conn).await?, 0)).await
    }

    /// Waits until everything of `gtids` is applied; whether that came to pass.
    pub async fn has(&mut self, gtids: &str, within: Duration) -> Result<bool, MysqlFault> {
        let until = Instant::now() + within;
        let sql = format!("SELECT {}(?, ?)", self.dialect().await?.wait);
        loop {
            let waited: Option<i64> = self
                .server
                .ask(async |conn| {
                    let query = sqlx::query_scalar(&sql).bind(gtids).bind(WAIT_S_MAX);
                    query.fetch_one(conn).await
                })
                .await?;
            if waited == Some(0) {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    /// What of `a` is not in `b`, and how many transactions that is at least.
    pub async fn lacking(&mut self, a: &str, b: &str) -> Result<String, MysqlFault> {
        self.server
            .ask(async |conn| {
                let query = sqlx::query("SELECT GTID_SUBTRACT(?, ?)").bind(a).bind(b);
                text(&query.fetch_one(conn).await?, 0)
            })
            .await
    }

    /// Applies what it has received, even if somebody stopped that.
    pub async fn apply_received(&mut self) -> Result<(), MysqlFault> {
        self.server.run("START REPLICA SQL_THREAD").await
    }

    /// It follows nobody any more, and may be written to.
    pub async fn promote(&mut self) -> Result<(), MysqlFault> {
        self.server.run("STOP REPLICA").await?;
        self.server.run("RESET REPLICA ALL").await?;
        self.unfence().await
    }

    /// The shard's epoch rises from `old` to the next, once.
    pub async fn raise_epoch(&mut self, shard: &str, old: u32) -> Result<(), Failure> {
        let changed = self.server.ask(async |conn| {
            let sql = "UPDATE spillway_store.shard_meta SET epoch = epoch + 1
                       WHERE id = 1 AND shard = ? AND epoch = ?";
            let done = sqlx::query(sql).bind(shard).bind(old).execute(conn).await?;
            Ok(done.rows_affected())
        });
        match changed.await? {
            1 => Ok(()),
            _ => Err(ShardFault::Raced { address: self.address.clone(), expected: old }.into()),
        }
    }

    /// Follows `source` by GTID, as the replication user of the settings.
    pub async fn follow(&mut self, desk: &Desk, source: &MysqlUrl) -> Result<(), Failure> {
        let user = &desk.settings.replication;
        let password = user.password.resolve(user.password_file.as_deref())?;
        if user.user.is_empty() || !password.is_set() {
            return Err(ShardFault::NoReplicationUser.into());
        }
        self.fence().await?;
        self.server.run("STOP REPLICA").await?;
        let changed = self.server.ask(async |conn| {
            // It takes no placeholders, so the server itself quotes what goes into it.
            let sql = "SET @spillway_follow = CONCAT(
                'CHANGE REPLICATION SOURCE TO SOURCE_HOST=', QUOTE(?), ', SOURCE_PORT=', ?,
                ', SOURCE_USER=', QUOTE(?), ', SOURCE_PASSWORD=', QUOTE(?),
                ', SOURCE_SSL=1, SOURCE_AUTO_POSITION=1, SOURCE_CONNECT_RETRY=5,',
                ' SOURCE_RETRY_COUNT=1000000')";
            let query = sqlx::query(sql).bind(&source.host).bind(source.port);
            let query = query.bind(&user.user).bind(password.reveal());
            query.execute(&mut *conn).await?;
            let follow = "PREPARE follow FROM @spillway_follow; EXECUTE follow;
                          DEALLOCATE PREPARE follow; SET @spillway_follow = NULL";
            sqlx::raw_sql(follow).execute(conn).await.map(drop)
        });
        changed.await?;
        Ok(self.server.run("START REPLICA").await?)
    }

    /// A line in `events`, for dashboards; that it can't be written changes nothing.
    pub async fn note_event(&mut self, kind: &str, sentence: &str) -> Result<(), MysqlFault> {
        let now = jiff::Timestamp::now().as_millisecond();
        self.server
            .ask(async |conn| {
                let sql = "INSERT INTO spillway_store.events (time_at, kind, text, tags)
                           VALUES (?, ?, ?, 'operator')";
                let query = sqlx::query(sql).bind(now).bind(kind).bind(sentence);
                query.execute(conn).await.map(drop)
            })
            .await
    }

    /// Points that were applied from the given offsets on, as the audit tells.
    pub async fn points_from(
        &mut self,
        places: &[(Lane, u16, i64)],
        since_s: i64,
    ) -> Result<i64, MysqlFault> {
        self.server
            .ask(async |conn| {
                let mut points = 0;
                for (lane, partition, offset) in places {
                    let sql = "SELECT CAST(COALESCE(SUM(points), 0) AS SIGNED)
                               FROM spillway_store.audit WHERE applied_ts >= ? AND topic = ?
                               AND partition_id = ? AND record_offset >= ?";
                    let query = sqlx::query_scalar(sql).bind(since_s).bind(*lane as u8);
                    let found: i64 =
                        query.bind(*partition).bind(*offset).fetch_one(&mut *conn).await?;
                    points += found;
                }
                Ok(points)
            })
            .await
    }
}

async fn follows(
    conn: &mut MySqlConnection,
    dialect: &Dialect,
) -> Result<Option<Follows>, sqlx::Error> {
    let rows = sqlx::raw_sql(dialect.follows).fetch_all(conn).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let yes = |name: &str| Ok::<_, sqlx::Error>(column(row, name)?.as_deref() == Some("Yes"));
    let word = |name: &str| Ok::<_, sqlx::Error>(column(row, name)?.unwrap_or_default());
    let mut error = word("Last_IO_Error")?;
    if error.is_empty() {
        error = word("Last_SQL_Error")?;
    }
    let [host, port, uuid, receives, applies, behind, received] = dialect.columns;
    Ok(Some(Follows {
        host: word(host)?,
        port: word(port)?.parse().unwrap_or(0),
        uuid: word(uuid)?,
        receives: yes(receives)?,
        applies: yes(applies)?,
        behind_s: column(row, behind)?.and_then(|text| text.parse().ok()),
        received: word(received)?.split_whitespace().collect(),
        error,
    }))
}

fn column(row: &MySqlRow, name: &str) -> Result<Option<String>, sqlx::Error> {
    row.try_get_unchecked(name)
}

/// Missing tables (a server that is still empty) are no error here.
async fn read_store(conn: &mut MySqlConnection, status: &mut Status) -> Result<(), sqlx::Error> {
    let there = "SELECT COUNT(*) FROM information_schema.tables
                 WHERE table_schema = 'spillway_store'
                 AND table_name IN ('shard_meta', 'positions')";
    let there: i64 = sqlx::query_scalar(there).fetch_one(&mut *conn).await?;
    if there < 2 {
        return Ok(());
    }
    let meta = "SELECT shard, epoch FROM spillway_store.shard_meta WHERE id = 1";
    if let Some(row) = sqlx::query(meta).fetch_optional(&mut *conn).await? {
        (status.shard, status.epoch) = (Some(text(&row, 0)?), Some(row.try_get(1)?));
    }
    let rows = "SELECT partition_id, live_next, backlog_next, shard_epoch
                FROM spillway_store.positions";
    for row in sqlx::query(rows).fetch_all(conn).await? {
        let (partition, epoch): (u32, u32) = (row.try_get(0)?, row.try_get(3)?);
        let partition = u16::try_from(partition).unwrap_or(u16::MAX);
        status.positions.insert((Lane::Live, partition), row.try_get(1)?);
        status.positions.insert((Lane::Backlog, partition), row.try_get(2)?);
        *status.at_epoch.entry(epoch).or_default() += 1;
    }
    Ok(())
}

/// Transactions in a GTID set, `uuid:1-5:7,…`.
pub fn transactions(gtids: &str) -> u64 {
    let interval = |text: &str| -> Option<u64> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.saturating_sub(first) + 1)
    };
    gtids.split([',', ':']).filter_map(|part| interval(part.trim())).sum()
}

#[cfg(test)]
mod tests {
    use super::transactions;

    #[test]
    fn transactions_of_a_gtid_set_are_counted_and_uuids_are_not() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        assert_eq!(transactions(&format!("{uuid}:1-5:11-18,\n{uuid}:7")), 14);
        assert_eq!(transactions(""), 0);
    }
}
