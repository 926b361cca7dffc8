//! The ledger's rows: read and locked for all epochs of a transaction in one statement, and written
//! back where they changed.
//!
//! An epoch without a gap is its row in `ledger_epochs` alone (applied = highest); only others
//! need their ranges and gaps read.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::ledger::{Cause, Epoch, Gap};
use super::ranges::{Ranges, Run};
use super::statement::{Sql, get, get_id, run};
use super::{Packets, StoreError};

/// Epochs looked up by one statement.
const EPOCHS_PER_STATEMENT: usize = 500;

/// An epoch of an agent. All zeros for `epoch`: batches of senders that do not count, kept in one
/// row per host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub agent_id: [u8; 16],
    pub epoch: [u8; 16],
}

impl Key {
    /// The row of those senders of a host that do not count.
    #[must_use]
    pub fn uncounted(host_id: u64) -> Self {
        Self { agent_id: u128::from(host_id).to_be_bytes(), epoch: [0; 16] }
    }

    fn counts(self) -> bool {
        self.epoch != [0; 16]
    }
}

/// Whose epoch it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub environment: String,
    pub host: String,
    pub partition: u16,
}

/// One epoch in a transaction.
#[derive(Clone, Debug)]
pub struct Entry {
    pub owner: Owner,
    pub epoch: Epoch,
    /// A batch of it came, be it a duplicate.
    pub spoke: bool,
    stored: Option<Stored>,
}

/// What its row held before.
#[derive(Clone, Debug, Default)]
struct Stored {
    batches: u64,
    points: u64,
    expired: u64,
    duplicates: u64,
    quarantined: u64,
    last_applied_at: i64,
    runs: Vec<Run>,
}

/// All epochs of a transaction, in key order, so that two transactions lock in the same order.
#[derive(Debug, Default)]
pub struct Book {
    entries: BTreeMap<Key, Entry>,
}

impl Book {
    /// Reads and locks what is stored of `keys`. The caller has begun the transaction.
    pub async fn load(
        conn: &mut MySqlConnection,
        limit: Duration,
        keys: &[Key],
    ) -> Result<Self, StoreError> {
        let mut book = Self::default();
        for keys in keys.chunks(EPOCHS_PER_STATEMENT) {
            let sql = select_epochs(keys);
            for row in run(conn, limit, &sql).await?.iter().flat_map(|answer| &answer.rows) {
                let (key, entry) = read_epoch(row)?;
                book.entries.insert(key, entry);
            }
        }
        let torn = book.entries.iter().filter(|(key, entry)| entry.is_torn(**key));
        let torn: Vec<Key> = torn.map(|(key, _)| *key).collect();
        for keys in torn.chunks(EPOCHS_PER_STATEMENT) {
            book.load_torn(conn, limit, keys).await?;
        }
        Ok(book)
    }

    /// Ranges and gaps of epochs that are not one run from 1.
    async fn load_torn(
        &mut self,
        conn: &mut MySqlConnection,
        limit: Duration,
        keys: &[Key],
    ) -> Result<(), StoreError> {
        let sql = select_torn(keys);
        let answers = run(conn, limit, &sql).await?;
        let [ranges, gaps] = answers.as_slice() else {
            return Err(StoreError::Shape("not two answers to two questions"));
        };
        let mut read: BTreeMap<Key, (Vec<Run>, Vec<Gap>)> = BTreeMap::new();
        for row in &ranges.rows {
            read.entry(read_key(row)?).or_default().0.push(read_run(row)?);
        }
        for row in &gaps.rows {
            read.entry(read_key(row)?).or_default().1.push(read_gap(row)?);
        }
        for key in keys {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            let (runs, gaps) = read.remove(key).unwrap_or_default();
            let applied: Ranges = runs.iter().copied().collect();
            let known = &entry.epoch;
            let mut whole = Epoch::load(applied, known.highest, gaps);
            whole.expected_last = known.expected_last;
            whole.closed = known.closed;
            whole.successor = known.successor;
            entry.epoch = whole;
            if let Some(stored) = &mut entry.stored {
                stored.runs = runs;
            }
        }
        Ok(())
    }

    /// Takes in what was loaded later; what is here already stays.
    pub fn extend(&mut self, more: Self) {
        for (key, entry) in more.entries {
            self.entries.entry(key).or_insert(entry);
        }
    }

    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The entry of `key`, made for `owner` if there is none.
    pub fn entry(&mut self, key: Key, owner: impl FnOnce() -> Owner) -> &mut Entry {
        self.entries.entry(key).or_insert_with(|| Entry {
            owner: owner(),
            epoch: Epoch::default(),
            spoke: false,
            stored: None,
        })
    }

    #[cfg(test)]
    pub fn entries(&self) -> &BTreeMap<Key, Entry> {
        &self.entries
    }
}

impl Entry {
    /// Whether ranges and gaps say more than the epoch's row.
    fn is_torn(&self, key: Key) -> bool {
        let stored = self.stored.as_ref().map_or(0, |stored| stored.batches);
        let end = self.epoch.highest.max(self.epoch.expected_last.unwrap_or(0));
        key.counts() && stored != end
    }

    fn applied_batches(&self, key: Key) -> u64 {
        if key.counts() {
            return self.epoch.applied.count();
        }
        let stored = self.stored.as_ref().map_or(0, |stored| stored.batches);
        stored.saturating_add(self.epoch.counts.uncounted)
    }

    fn quarantined_batches(&self, key: Key) -> u64 {
        if key.counts() {
            return self.epoch.noted(Cause::Quarantined);
        }
        self.stored.as_ref().map_or(0, |stored| stored.quarantined) + self.epoch.counts.letters
    }
}

fn keys_list(sql: &mut Sql, keys: &[Key]) {
    sql.rows(keys, |sql, key| {
        sql.bytes(&key.agent_id).comma().bytes(&key.epoch);
    });
}

fn select_epochs(keys: &[Key]) -> Sql {
    let mut sql = Sql::new(
        "SELECT agent_id, epoch, environment, host, partition_id, highest_seq, applied_batches, \
         applied_points, expired_points, duplicate_batches, expected_last_seq, closed, \
         successor_epoch, successor_at, last_applied_at, quarantined_batches \
         FROM spillway_store.ledger_epochs FORCE INDEX (PRIMARY) WHERE (agent_id, epoch) IN (",
    );
    keys_list(&mut sql, keys);
    sql.words(") FOR UPDATE");
    sql
}

fn select_torn(keys: &[Key]) -> Sql {
    let mut sql = Sql::new(
        "SELECT agent_id, epoch, first_seq, last_seq FROM spillway_store.ledger_ranges \
         WHERE (agent_id, epoch) IN (",
    );
    keys_list(&mut sql, keys);
    sql.words(")").end().words(
        "SELECT agent_id, epoch, first_seq, last_seq, cause, reason, from_ts, to_ts \
         FROM spillway_store.ledger_gaps WHERE (agent_id, epoch) IN (",
    );
    keys_list(&mut sql, keys);
    sql.words(")");
    sql
}

fn read_key(row: &MySqlRow) -> Result<Key, StoreError> {
    Ok(Key { agent_id: get_id(row, 0)?, epoch: get_id(row, 1)? })
}

fn read_run(row: &MySqlRow) -> Result<Run, StoreError> {
    Ok(Run { first: get(row, 2)?, last: get(row, 3)? })
}

/// Names are utf8mb4_bin, which the client library takes for bytes.
fn read_text(row: &MySqlRow, column: usize) -> Result<String, StoreError> {
    let bytes: &[u8] = get(row, column)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| StoreError::Shape("a text that is not UTF-8"))
}

fn read_gap(row: &MySqlRow) -> Result<Gap, StoreError> {
    let cause: &[u8] = get(row, 4)?;
    Ok(Gap {
        run: read_run(row)?,
        cause: Cause::parse(cause).ok_or(StoreError::Shape("an unknown cause of a gap"))?,
        reason: read_text(row, 5)?,
        from_ts: get(row, 6)?,
        to_ts: get(row, 7)?,
    })
}

fn read_epoch(row: &MySqlRow) -> Result<(Key, Entry), StoreError> {
    let key = read_key(row)?;
    let partition: u32 = get(row, 4)?;
    let (highest, batches): (u64, u64) = (get(row, 5)?, get(row, 6)?);
    let successor: Option<&[u8]> = get(row, 12)?;
    let successor_at: Option<i64> = get(row, 13)?;
    let closed: i8 = get(row, 11)?;
    // Right for an epoch without gaps; the others are read in full.
    let whole = Run { first: 1, last: batches };
    let runs: Vec<Run> = if key.counts() && batches > 0 { vec![whole] } else { Vec::new() };
    let mut epoch = Epoch::load(runs.iter().copied().collect(), highest, Vec::new());
    epoch.expected_last = get(row, 10)?;
    epoch.closed = closed != 0;
    epoch.successor = successor.and_then(|id| id.try_into().ok()).zip(successor_at);
    let owner = Owner {
        environment: read_text(row, 2)?,
        host: read_text(row, 3)?,
        partition: u16::try_from(partition).unwrap_or(u16::MAX),
    };
    let stored = Stored {
        batches,
        points: get(row, 7)?,
        expired: get(row, 8)?,
        duplicates: get(row, 9)?,
        last_applied_at: get(row, 14)?,
        quarantined: get(row, 15)?,
        runs,
    };
    Ok((key, Entry { owner, epoch, spoke: false, stored: Some(stored) }))
}

/// Writes what changed. A new epoch is a plain INSERT: if another transaction made it meanwhile,
/// that is a duplicate key, and the whole transaction is tried again.
pub fn write(book: &Book, now_ms: i64, packets: &mut Packets) {
    let (old, new): (Vec<_>, Vec<_>) =
        book.entries.iter().partition(|(_, entry)| entry.stored.is_some());
    for (entries, update) in [(new, ""), (old, UPDATE)] {
        for entries in entries.chunks(EPOCHS_PER_STATEMENT) {
            let mut sql = Sql::new(INSERT);
            sql.rows(entries, |sql, (key, entry)| epoch_row(sql, **key, entry, now_ms));
            sql.words(update);
            packets.add(&sql);
        }
    }
    let counted: Vec<_> = book.entries.iter().filter(|(key, _)| key.counts()).collect();
    write_ranges(&counted, packets);
    write_gaps(&counted, now_ms, packets);
}

const INSERT: &str = "INSERT INTO spillway_store.ledger_epochs (agent_id, epoch, environment, \
     host, partition_id, highest_seq, applied_batches, applied_points, expired_points, \
     duplicate_batches, declared_batches, quarantined_batches, expected_last_seq, closed, \
     successor_epoch, successor_at, first_applied_at, last_applied_at) VALUES ";

/// The row is locked and was read in this transaction, so plain values are right.
const UPDATE: &str = " ON DUPLICATE KEY UPDATE highest_seq = VALUES(highest_seq), \
     applied_batches = VALUES(applied_batches), applied_points = VALUES(applied_points), \
     expired_points = VALUES(expired_points), duplicate_batches = VALUES(duplicate_batches), \
     declared_batches = VALUES(declared_batches), \
     quarantined_batches = VALUES(quarantined_batches), \
     expected_last_seq = VALUES(expected_last_seq), closed = VALUES(closed), \
     successor_epoch = VALUES(successor_epoch), successor_at = VALUES(successor_at), \
     last_applied_at = VALUES(last_applied_at)";

fn epoch_row(sql: &mut Sql, key: Key, entry: &Entry, now_ms: i64) {
    let none = Stored { last_applied_at: now_ms, ..Stored::default() };
    let stored = entry.stored.as_ref().unwrap_or(&none);
    let (epoch, counts) = (&entry.epoch, entry.epoch.counts);
    let last_applied_at = if entry.spoke { now_ms } else { stored.last_applied_at };
    sql.bytes(&key.agent_id).comma().bytes(&key.epoch).comma();
    sql.text(&entry.owner.environment).comma().text(&entry.owner.host).comma();
    sql.number(entry.owner.partition).comma().number(epoch.highest).comma();
    sql.number(entry.applied_batches(key)).comma();
    sql.number(stored.points.saturating_add(counts.points)).comma();
    sql.number(stored.expired.saturating_add(counts.expired)).comma();
    sql.number(stored.duplicates.saturating_add(counts.duplicates)).comma();
    sql.number(epoch.noted(Cause::Declared)).comma();
    sql.number(entry.quarantined_batches(key)).comma();
    sql.number_or_null(epoch.expected_last).comma().number(u8::from(epoch.closed)).comma();
    match &epoch.successor {
        Some((successor, at)) => sql.bytes(successor).comma().number(*at),
        None => sql.words("NULL, NULL"),
    };
    sql.comma().number(now_ms).comma().number(last_applied_at);
}

fn write_ranges(entries: &[(&Key, &Entry)], packets: &mut Packets) {
    let (mut gone, mut changed) = (Vec::new(), Vec::new());
    for (key, entry) in entries {
        let old = entry.stored.as_ref().map_or(&[][..], |stored| &stored.runs);
        let new = entry.epoch.applied.runs();
        if old == new {
            continue;
        }
        let kept = |run: &&Run| new.binary_search_by_key(&run.first, |new| new.first).is_ok();
        gone.extend(old.iter().filter(|run| !kept(run)).map(|run| (**key, run.first)));
        changed.extend(new.iter().filter(|run| !old.contains(run)).map(|run| (**key, *run)));
    }
    delete("DELETE FROM spillway_store.ledger_ranges", &gone, packets);
    for changed in changed.chunks(EPOCHS_PER_STATEMENT) {
        let mut sql = Sql::new(
            "INSERT INTO spillway_store.ledger_ranges (agent_id, epoch, first_seq, last_seq) \
             VALUES ",
        );
        sql.rows(changed, |sql, (key, run)| {
            sql.bytes(&key.agent_id).comma().bytes(&key.epoch).comma();
            sql.number(run.first).comma().number(run.last);
        });
        sql.words(" ON DUPLICATE KEY UPDATE last_seq = VALUES(last_seq)");
        packets.add(&sql);
    }
}

fn write_gaps(entries: &[(&Key, &Entry)], now_ms: i64, packets: &mut Packets) {
    let (mut gone, mut changed) = (Vec::new(), Vec::new());
    for (key, entry) in entries {
        let old = entry.epoch.stored_gaps();
        if old.is_empty() && entry.epoch.is_whole() {
            continue;
        }
        let new = entry.epoch.gaps();
        let kept = |gap: &&Gap| new.iter().any(|new| new.run.first == gap.run.first);
        gone.extend(old.iter().filter(|gap| !kept(gap)).map(|gap| (**key, gap.run.first)));
        changed.extend(new.into_iter().filter(|gap| !old.contains(gap)).map(|gap| (**key, gap)));
    }
    delete("DELETE FROM spillway_store.ledger_gaps", &gone, packets);
    for changed in changed.chunks(EPOCHS_PER_STATEMENT) {
        let mut sql = Sql::new(
            "INSERT INTO spillway_store.ledger_gaps (agent_id, epoch, first_seq, last_seq, cause, \
             reason, from_ts, to_ts, noted_at) VALUES ",
        );
        sql.rows(changed, |sql, (key, gap)| {
            sql.bytes(&key.agent_id).comma().bytes(&key.epoch).comma();
            sql.number(gap.run.first).comma().number(gap.run.last).comma();
            sql.text(gap.cause.word()).comma().text(&gap.reason).comma();
            sql.number_or_null(gap.from_ts).comma().number_or_null(gap.to_ts);
            sql.comma().number(now_ms);
        });
        sql.words(
            " ON DUPLICATE KEY UPDATE last_seq = VALUES(last_seq), cause = VALUES(cause), \
             reason = VALUES(reason), from_ts = VALUES(from_ts), to_ts = VALUES(to_ts), \
             noted_at = VALUES(noted_at)",
        );
        packets.add(&sql);
    }
}

/// One statement per row: equality on the whole key locks that row alone.
fn delete(head: &'static str, rows: &[(Key, u64)], packets: &mut Packets) {
    for (key, first) in rows {
        let mut sql = Sql::new(head);
        sql.words(" WHERE agent_id = ").bytes(&key.agent_id);
        sql.words(" AND epoch = ").bytes(&key.epoch).words(" AND first_seq = ").number(*first);
        packets.add(&sql);
    }
}
