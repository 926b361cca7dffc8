//! A bounded part of one table, on both servers: compared by a digest, made alike, or removed.
//!
//! Every column travels as its bytes, whatever its type: MySQL writes a DOUBLE with as many digits
//! as bring back the very same number, and the digest is made of those same bytes.

use std::collections::BTreeMap;
use std::time::Instant;

use spillway_runtime::mysql::text;
use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::Query;
use sqlx::{MySql, Row};

use crate::failure::Failure;
use crate::reach::mysql::{MysqlFault, Server};

use super::RelocateFault;

/// The tables whose rows go along.
pub const TABLES: [&str; 14] = [
    "series",
    "hosts",
    "ledger_epochs",
    "ledger_ranges",
    "ledger_gaps",
    "declarations",
    "quarantined",
    "rollup_marks",
    "rollup_hour_marks",
    "events",
    "points",
    "audit",
    "rollup_1m",
    "rollup_1h",
];
/// Rows of one INSERT: some hundred kilobytes, below any max_allowed_packet.
const ROWS_AT_ONCE: usize = 500;

/// What goes in place of a question mark.
#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    Bytes(Vec<u8>),
    Number(u64),
}

/// Rows of one table; `filter` is made of our own words, with question marks.
#[derive(Clone, Debug)]
pub struct Slice {
    pub table: &'static str,
    pub filter: String,
    pub values: Vec<Value>,
}

/// What is to become of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The target gets exactly the source's rows.
    Match,
    /// The source's rows are removed.
    Clear,
}

/// Source and target of a move, and how far it is.
#[derive(Debug)]
pub struct Pair {
    pub source: Server,
    pub target: Server,
    columns: BTreeMap<&'static str, Vec<String>>,
    /// Whether rollups' marks go along in this pass.
    pub marks: bool,
    /// Rows looked at, and rows written or removed.
    pub seen: u64,
    pub changed: u64,
    /// When keepers' pauses were last renewed.
    pub held_at: Option<Instant>,
}

/// Question marks for a list.
pub fn marks(count: usize) -> String {
    vec!["?"; count].join(", ")
}

/// One statement's rows.
pub async fn rows(
    server: &mut Server,
    sql: &str,
    values: &[Value],
) -> Result<Vec<MySqlRow>, MysqlFault> {
    server.ask(async |conn| bound(sql, values).fetch_all(conn).await).await
}

/// One statement; how many rows it changed.
pub async fn change(server: &mut Server, sql: &str, values: &[Value]) -> Result<u64, MysqlFault> {
    let done = server.ask(async |conn| bound(sql, values).execute(conn).await);
    Ok(done.await?.rows_affected())
}

fn bound<'q>(sql: &'q str, values: &'q [Value]) -> Query<'q, MySql, MySqlArguments> {
    // As many texts as there are sizes of lists: nothing to keep prepared.
    let query = sqlx::query(sql).persistent(false);
    values.iter().fold(query, |query, value| match value {
        Value::Text(text) => query.bind(text),
        Value::Bytes(bytes) => query.bind(bytes),
        Value::Number(number) => query.bind(number),
    })
}

/// The columns of every table that goes along.
async fn columns(server: &mut Server) -> Result<BTreeMap<&'static str, Vec<String>>, Failure> {
    let sql = "SELECT column_name FROM information_schema.columns
               WHERE table_schema = 'spillway_store' AND table_name = ? ORDER BY ordinal_position";
    let mut all = BTreeMap::new();
    for table in TABLES {
        let found = rows(server, sql, &[Value::Text(table.to_owned())]).await?;
        let names = found.iter().map(|row| text(row, 0)).collect::<Result<Vec<_>, _>>();
        let mut names = names.map_err(|error| server.fault(error.into()))?;
        // Each server counts its events by itself.
        names.retain(|name| (table, name.as_str()) != ("events", "id"));
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if names.is_empty() || !names.iter().all(|name| name.bytes().all(plain)) {
            let shard = server.shard.name.clone();
            return Err(RelocateFault::Schema { shard, table }.into());
        }
        all.insert(table, names);
    }
    Ok(all)
}

impl Pair {
    pub async fn new(mut source: Server, mut target: Server) -> Result<Self, Failure> {
        let columns = columns(&mut source).await?;
        let theirs = self::columns(&mut target).await?;
        for (table, names) in &columns {
            if theirs.get(table) != Some(names) {
                let shard = target.shard.name.clone();
                return Err(RelocateFault::Schema { shard, table }.into());
            }
        }
        // Its own consumers go on writing there: no locks on what lies between rows.
        let level = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
        target.run(level).await?;
        source.run(level).await?;
        let (seen, changed, held_at) = (0, 0, None);
        Ok(Self { source, target, columns, marks: true, seen, changed, held_at })
    }

    fn columns(&self, table: &str) -> &[String] {
        self.columns.get(table).map_or(&[], Vec::as_slice)
    }

    /// The servers whose rows decide what there is to do.
    pub fn servers(&mut self, act: Act) -> Vec<&mut Server> {
        match act {
            Act::Match => vec![&mut self.source, &mut self.target],
            Act::Clear => vec![&mut self.source],
        }
    }

    /// Does to a slice what is to be done; the rows that it changed are counted.
    pub async fn apply(&mut self, slice: &Slice, act: Act) -> Result<(), Failure> {
        self.hold_keepers(act).await?;
        match act {
            Act::Match => self.make_alike(slice).await,
            Act::Clear => {
                let sql =
                    format!("DELETE FROM spillway_store.{} WHERE {}", slice.table, slice.filter);
                self.changed += change(&mut self.source, &sql, &slice.values).await?;
                Ok(())
            }
        }
    }

    async fn make_alike(&mut self, slice: &Slice) -> Result<(), Failure> {
        let sql = self.digest(slice);
        let here = digest(&mut self.source, &sql, slice).await?;
        let there = digest(&mut self.target, &sql, slice).await?;
        self.seen += here.0;
        if here == there {
            return Ok(());
        }
        let columns = self.columns(slice.table);
        let list = columns.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let bytes = columns.iter().map(|name| format!("CAST(`{name}` AS BINARY)"));
        let bytes = bytes.collect::<Vec<_>>().join(", ");
        let (count, table, filter) = (columns.len(), slice.table, &slice.filter);
        let read = format!("SELECT {bytes} FROM spillway_store.{table} WHERE {filter}");
        let found = rows(&mut self.source, &read, &slice.values).await?;
        self.target.run("START TRANSACTION").await?;
        let delete = format!("DELETE FROM spillway_store.{table} WHERE {filter}");
        self.changed += change(&mut self.target, &delete, &slice.values).await?;
        let one = format!("({})", marks(count));
        for chunk in found.chunks(ROWS_AT_ONCE) {
            let places = vec![one.as_str(); chunk.len()].join(", ");
            let insert = format!("INSERT INTO spillway_store.{table} ({list}) VALUES {places}");
            let inserted = self.target.ask(async |conn| {
                let mut query = sqlx::query(&insert).persistent(false);
                for row in chunk {
                    for column in 0..count {
                        query = query.bind(row.try_get_unchecked::<Option<Vec<u8>>, _>(column)?);
                    }
                }
                query.execute(conn).await
            });
            self.changed += inserted.await?.rows_affected();
        }
        Ok(self.target.run("COMMIT").await?)
    }

    /// Count, and the exclusive or of all rows' hashes. When something was last seen the keeper
    /// writes at any time, and it proves nothing.
    fn digest(&self, slice: &Slice) -> String {
        let proves = |name: &&String| name.as_str() != "last_seen_ts";
        let column = |name: &String| format!("COALESCE(HEX(CAST(`{name}` AS BINARY)), '-')");
        let columns = self.columns(slice.table).iter().filter(proves).map(column);
        format!(
            "SELECT CAST(COUNT(*) AS UNSIGNED), CAST(COALESCE(BIT_XOR(CAST(CONV(LEFT(MD5(CONCAT_WS(
             ',', {})), 16), 16, 10) AS UNSIGNED)), 0) AS UNSIGNED)
             FROM spillway_store.{} WHERE {}",
            columns.collect::<Vec<_>>().join(", "),
            slice.table,
            slice.filter
        )
    }
}

async fn digest(server: &mut Server, sql: &str, slice: &Slice) -> Result<(u64, u64), MysqlFault> {
    server
        .ask(async |conn| {
            let row = bound(sql, &slice.values).fetch_one(conn).await?;
            Ok((row.try_get(0)?, row.try_get(1)?))
        })
        .await
}
