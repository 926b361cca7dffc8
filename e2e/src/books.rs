//! The system's own books against the ledger: how often each epoch's batches were applied, and
//! which seqs it says are missing.

use std::collections::{BTreeMap, BTreeSet};

use spillway_proto::BatchId;
use sqlx::{MySqlPool, Row as _};
use tokio::time::timeout;
use uuid::Uuid;

use crate::compare::{QUERY_DEADLINE, Scope};
use crate::ledger::{Attempted, Fate};
use crate::verdict::Verdict;

/// Agent and epoch; nil for batches that are named by their content.
pub type Key = (Uuid, Uuid);

/// How many batches of these hosts were applied, by epoch.
pub async fn applied_batches(
    mysql: &MySqlPool,
    scope: &Scope,
) -> Result<BTreeMap<Key, u64>, String> {
    let query = sqlx::query(
        "SELECT agent_id, epoch, applied_batches FROM spillway.ledger_totals \
         WHERE environment = ? AND host LIKE ?",
    );
    let query = query.bind(&scope.environment).bind(scope.pattern());
    let rows = timeout(QUERY_DEADLINE, query.fetch_all(mysql))
        .await
        .map_err(|_| "MySQL does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let mut applied = BTreeMap::new();
    for row in &rows {
        let batches: u64 = row.try_get(2).map_err(|error| error.to_string())?;
        *applied.entry(key_of(row, 0)).or_default() += batches;
    }
    Ok(applied)
}

/// What the ledger knows of an epoch.
#[derive(Debug, Default)]
struct Sent {
    host: String,
    ok: BTreeSet<u64>,
    ok_points: u64,
    open: BTreeSet<u64>,
    open_points: u64,
    declared: BTreeSet<u64>,
    /// Not there, and nobody gave a reason: refused ones too.
    withheld: BTreeSet<u64>,
}

impl Sent {
    fn add(&mut self, entry: &Attempted, seq: u64) {
        let points = entry.recipe.points() as u64;
        self.host.clone_from(&entry.recipe.host);
        match entry.fate {
            Fate::Ok => {
                self.ok.insert(seq);
                self.ok_points += points;
            }
            Fate::Info => {
                self.open.insert(seq);
                self.open_points += points;
            }
            Fate::Declared => drop(self.declared.insert(seq)),
            Fate::Withheld | Fate::Fail => drop(self.withheld.insert(seq)),
        }
    }
}

/// Holds `ledger_totals` and `gaps` of these hosts against the ledger.
pub async fn judge(mysql: &MySqlPool, entries: &[Attempted], scope: &Scope, verdict: &mut Verdict) {
    let mut sent: BTreeMap<Key, Sent> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.recipe.environment == scope.environment) {
        if let Some((agent_id, epoch, seq)) = entry.recipe.counted() {
            sent.entry((agent_id, epoch)).or_default().add(entry, seq);
        }
    }
    // What was refused as a whole has no books, and must have none.
    let totals = totals(mysql, scope).await;
    for (key, sent) in sent.iter().filter(|(_, sent)| !sent.ok.is_empty()) {
        judge_totals(*key, sent, totals.get(key).copied().unwrap_or_default(), verdict);
    }
    for (key, totals) in totals.iter().filter(|(key, _)| !key.1.is_nil()) {
        let known = sent.get(key).is_some_and(|s| !s.ok.is_empty() || !s.open.is_empty());
        if !known && totals.batches > 0 && scope.windows.is_none() {
            let text = || format!("an epoch nobody sent: {key:?} {totals:?}");
            verdict.miscounted.push(None, text);
        }
    }
    judge_gaps(&sent, &gaps(mysql, scope).await, verdict);
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    batches: u64,
    points: u64,
    expired: u64,
    duplicates: u64,
}

fn judge_totals(key: Key, sent: &Sent, totals: Totals, verdict: &mut Verdict) {
    verdict.epochs += 1;
    verdict.batches += totals.batches;
    verdict.duplicates += totals.duplicates;
    let (least, least_points) = (sent.ok.len() as u64, sent.ok_points);
    let (most, most_points) = (least + sent.open.len() as u64, least_points + sent.open_points);
    let points = totals.points + totals.expired;
    let counts = (least..=most).contains(&totals.batches);
    if !counts || !(least_points..=most_points).contains(&points) {
        let (agent_id, epoch) = key;
        let id = sent.ok.first().map(|seq| BatchId::Sequenced { agent_id, epoch, seq: *seq });
        verdict.miscounted.push(id, || {
            format!(
                "{} epoch {epoch}: sent {least}..={most} batches with \
                 {least_points}..={most_points} points, applied {} with {points}",
                sent.host, totals.batches
            )
        });
    }
}

async fn totals(mysql: &MySqlPool, scope: &Scope) -> BTreeMap<Key, Totals> {
    let query = sqlx::query(
        "SELECT agent_id, epoch, applied_batches, applied_points, expired_points, \
         duplicate_batches FROM spillway.ledger_totals WHERE environment = ? AND host LIKE ?",
    );
    let query = query.bind(&scope.environment).bind(scope.pattern());
    let rows = timeout(QUERY_DEADLINE, query.fetch_all(mysql))
        .await
        .expect("the comparison reads within its deadline")
        .expect("the view `ledger_totals` is readable");
    let read = |row: &sqlx::mysql::MySqlRow| -> Result<_, sqlx::Error> {
        let totals = Totals {
            batches: row.try_get(2)?,
            points: row.try_get(3)?,
            expired: row.try_get(4)?,
            duplicates: row.try_get(5)?,
        };
        Ok((key_of(row, 0), totals))
    };
    rows.iter().map(|row| read(row).expect("columns are as the contract says")).collect()
}

/// Agent and epoch in two columns of a view, as text.
fn key_of(row: &sqlx::mysql::MySqlRow, at: usize) -> Key {
    let uuid = |at: usize| {
        let text = row.try_get_unchecked::<Option<String>, _>(at).ok().flatten();
        text.and_then(|text| Uuid::parse_str(&text).ok()).unwrap_or_default()
    };
    (uuid(at), uuid(at + 1))
}

/// One row of the view `gaps`.
#[derive(Clone, Debug)]
pub struct Gap {
    pub key: (Uuid, Uuid),
    pub first: u64,
    /// `None`: the tail is of unknown length.
    pub last: Option<u64>,
    pub state: String,
}

async fn gaps(mysql: &MySqlPool, scope: &Scope) -> Vec<Gap> {
    let query = sqlx::query(
        "SELECT agent_id, epoch, CAST(first_seq AS UNSIGNED), CAST(last_seq AS UNSIGNED), state \
         FROM spillway.gaps WHERE environment = ? AND host LIKE ?",
    );
    let query = query.bind(&scope.environment).bind(scope.pattern());
    let rows = timeout(QUERY_DEADLINE, query.fetch_all(mysql))
        .await
        .expect("the comparison reads within its deadline")
        .expect("the view `gaps` is readable");
    rows.iter().map(|row| gap(row).expect("columns are as the contract says")).collect()
}

/// Reads agent_id, epoch, first_seq, last_seq and state.
///
/// # Errors
/// The columns are others.
pub fn gap(row: &sqlx::mysql::MySqlRow) -> Result<Gap, sqlx::Error> {
    Ok(Gap {
        key: key_of(row, 0),
        first: row.try_get(2)?,
        last: row.try_get(3)?,
        state: row.try_get_unchecked(4)?,
    })
}

/// Gaps must be exactly what was given up, each in its state.
fn judge_gaps(sent: &BTreeMap<Key, Sent>, gaps: &[Gap], verdict: &mut Verdict) {
    let mut told: BTreeMap<Key, BTreeMap<u64, &str>> = BTreeMap::new();
    for gap in gaps {
        let known = sent.contains_key(&gap.key);
        let Some(last) = gap.last.filter(|_| known) else {
            verdict.gaps.push(None, || format!("nobody sent this epoch: {gap:?}"));
            continue;
        };
        let seqs = (gap.first..=last).map(|seq| (seq, gap.state.as_str()));
        told.entry(gap.key).or_default().extend(seqs);
    }
    for (key, sent) in sent.iter().filter(|(_, sent)| !sent.ok.is_empty()) {
        let told = told.remove(key).unwrap_or_default();
        let highest = sent.ok.last().copied().unwrap_or(0);
        let id = |seq: u64| BatchId::Sequenced { agent_id: key.0, epoch: key.1, seq };
        let declared = sent.declared.iter().map(|seq| (*seq, "declared"));
        let withheld = sent.withheld.iter().map(|seq| (*seq, "late"));
        let owed = declared.chain(withheld).filter(|(seq, _)| *seq < highest);
        let owed: BTreeMap<u64, &str> = owed.collect();
        for (seq, state) in &owed {
            if told.get(seq) != Some(state) {
                let text =
                    || format!("{} seq {seq} is {state}, gaps says {:?}", sent.host, told.get(seq));
                verdict.gaps.push(Some(id(*seq)), text);
            }
        }
        for (seq, state) in told.iter().filter(|(seq, _)| !owed.contains_key(seq)) {
            if !sent.open.contains(seq) {
                let text = || format!("{} seq {seq} was sent, gaps says {state}", sent.host);
                verdict.gaps.push(Some(id(*seq)), text);
            }
        }
    }
}
