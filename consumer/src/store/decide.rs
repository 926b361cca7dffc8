//! Which batches are new: every id is held against the ledger, as it stands in this transaction.
//!
//! - A seq that is there already, with the same crc: a duplicate, applied as nothing.
//! - With another crc, or from another host: a cloned machine gave the id twice. Applied under its
//!   content's id, with an event, so that neither is lost and a third copy is still recognised.
//! - What a batch says of other epochs (its predecessor, what was given up) enters the ledger too.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spillway_proto::series::host_id;
use spillway_proto::{BatchId, Declaration};
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::draft::Draft;
use super::epochs::{Book, Key, Owner};
use super::facts::Event;
use super::ledger::Cause;
use super::ranges::Run;
use super::statement::{Sql, get, get_id, run};
use super::{FreshBy, StoreError, Work};
use crate::mutant::{Mutant, is, turn};
use crate::verify::Named;

/// Ids looked up in `audit` by one statement.
const IDS_PER_STATEMENT: usize = 500;

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Duplicate,
    /// Applied under `id`, which is not its own if it was `cloned`.
    Apply {
        id: BatchId,
        cloned: bool,
    },
}

impl Fate {
    #[must_use]
    pub fn applies(&self) -> bool {
        matches!(self, Self::Apply { .. })
    }
}

/// The decisions of one transaction.
pub struct Verdicts {
    /// One per draft.
    pub fates: Vec<Fate>,
    pub book: Book,
    pub events: Vec<Event>,
    /// Epochs that were opened.
    pub fresh: FreshBy,
}

/// An id as its columns.
type Columns = ([u8; 16], [u8; 16], u64);

/// Begins the transaction, reads the ledger and decides.
pub async fn decide(
    conn: &mut MySqlConnection,
    limit: Duration,
    work: &Work<'_>,
) -> Result<Verdicts, StoreError> {
    run(conn, limit, &Sql::new("START TRANSACTION")).await?;
    let keys: Vec<Key> = keys_of(work).into_iter().collect();
    let book = Book::load(conn, limit, &keys).await?;
    let mut judge = Judging { work, book, events: Vec::new(), seen: BTreeMap::new() };
    judge.seen = audited(conn, limit, judge.doubtful()).await?;
    let (renamed, fresh) = judge.renamed();
    if !renamed.is_empty() {
        // A clone's own content may have come before as well, and it counts for its host.
        let contents = renamed.values().map(|renamed| renamed.id.columns()).collect();
        judge.seen.extend(audited(conn, limit, contents).await?);
        let hosts: BTreeSet<Key> = renamed.values().map(|renamed| renamed.key).collect();
        let hosts: Vec<Key> = hosts.into_iter().collect();
        judge.book.extend(Book::load(conn, limit, &hosts).await?);
    }
    let fates = work.drafts.batches.iter();
    let fates = fates.map(|batch| judge.judge(batch, renamed.get(&batch.index))).collect();
    judge.quarantine();
    Ok(Verdicts { fates, book: judge.book, events: judge.events, fresh })
}

/// Every epoch that the transaction will say something of.
fn keys_of(work: &Work<'_>) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    for batch in &work.drafts.batches {
        let BatchId::Sequenced { agent_id, epoch, .. } = batch.id else {
            keys.insert(Key::uncounted(batch.host_id));
            continue;
        };
        let of = |epoch: Uuid| key(agent_id, epoch);
        keys.insert(of(epoch));
        keys.extend(batch.previous.map(|previous| of(previous.epoch)));
        keys.extend(batch.declarations.iter().map(|declaration| of(declaration.epoch)));
    }
    for named in work.quarantined.iter().filter_map(|letter| letter.refused.batch.as_ref()) {
        keys.insert(key_of(named));
    }
    keys
}

/// Where a dead letter is counted.
fn key_of(named: &Named) -> Key {
    match named.id {
        BatchId::Sequenced { agent_id, epoch, .. } => key(agent_id, epoch),
        BatchId::Content { .. } => Key::uncounted(host_id(&named.environment, &named.host)),
    }
}

fn key(agent_id: Uuid, epoch: Uuid) -> Key {
    if is(Mutant::ShareLedger) {
        return Key { agent_id: [1; 16], epoch: [1; 16] };
    }
    Key { agent_id: *agent_id.as_bytes(), epoch: *epoch.as_bytes() }
}

/// The crc under which each of these ids was applied, of those that were.
async fn audited(
    conn: &mut MySqlConnection,
    limit: Duration,
    ids: BTreeSet<Columns>,
) -> Result<BTreeMap<Columns, u32>, StoreError> {
    let ids: Vec<Columns> = ids.into_iter().collect();
    let mut found = BTreeMap::new();
    for ids in ids.chunks(IDS_PER_STATEMENT) {
        let mut sql = Sql::new(
            "SELECT agent_id, epoch, seq, crc FROM spillway_store.audit \
             WHERE (agent_id, epoch, seq) IN (",
        );
        sql.rows(ids, |sql, (agent_id, epoch, seq)| {
            sql.bytes(agent_id).comma().bytes(epoch).comma().number(*seq);
        });
        sql.words(")");
        for row in run(conn, limit, &sql).await?.iter().flat_map(|answer| &answer.rows) {
            found.insert((get_id(row, 0)?, get_id(row, 1)?, get(row, 2)?), get(row, 3)?);
        }
    }
    Ok(found)
}

/// A batch that is applied under its content's id.
struct Renamed {
    id: BatchId,
    /// Where it is counted instead.
    key: Key,
    why: Why,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    OtherHost,
    OtherContent,
    TooManyRuns,
    TooManyEpochs,
}

impl Why {
    /// Whether another machine gives the same ids.
    fn cloned(self) -> bool {
        matches!(self, Self::OtherHost | Self::OtherContent)
    }
}

struct Judging<'a> {
    work: &'a Work<'a>,
    book: Book,
    events: Vec<Event>,
    /// Ids applied before or in this transaction, with their crc.
    seen: BTreeMap<Columns, u32>,
}

impl Judging<'_> {
    /// Ids that may have been applied before: content ids always, seqs where the ledger has them.
    fn doubtful(&self) -> BTreeSet<Columns> {
        let batches = self.work.drafts.batches.iter();
        let known = |batch: &&Draft| match batch.id {
            BatchId::Content { .. } => true,
            BatchId::Sequenced { agent_id, epoch, seq } => {
                let entry = self.book.get(&key(agent_id, epoch));
                entry.is_some_and(|entry| entry.epoch.applied.contains(seq))
            }
        };
        batches.filter(known).map(|batch| batch.id.columns()).collect()
    }

    /// Batches that can't be applied under the id they carry, by their record's place: found
    /// before the first is applied, since what their new names need must be read first.
    fn renamed(&self) -> (BTreeMap<usize, Renamed>, FreshBy) {
        let mut crcs: BTreeMap<Columns, u32> = self.seen.clone();
        let mut owners: BTreeMap<Key, (&str, &str)> = BTreeMap::new();
        let mut fresh = FreshBy::new();
        let mut not_opened = BTreeSet::new();
        let mut renamed = BTreeMap::new();
        for batch in &self.work.drafts.batches {
            let BatchId::Sequenced { agent_id, epoch, seq } = batch.id else { continue };
            let key = key(agent_id, epoch);
            let host = (batch.environment.as_str(), batch.host.as_str());
            let entry = self.book.get(&key);
            let stored = entry.map(|entry| (&*entry.owner.environment, &*entry.owner.host));
            let owner = match owners.entry(key) {
                Entry::Occupied(owner) => *owner.get(),
                Entry::Vacant(first) => {
                    if stored.is_none() && !self.opens(batch, &mut fresh) {
                        not_opened.insert(key);
                    }
                    *first.insert(stored.unwrap_or(host))
                }
            };
            let applied = entry.is_some_and(|entry| entry.epoch.applied.contains(seq));
            // Audit rows are kept for some days only; without one the seq alone decides.
            let crc = match crcs.get(&batch.id.columns()) {
                None if applied => batch.crc,
                _ => *crcs.entry(batch.id.columns()).or_insert(batch.crc),
            };
            let why = if owner != host && !is(Mutant::ShareLedger) {
                Why::OtherHost
            } else if crc != batch.crc {
                Why::OtherContent
            } else if entry.is_some_and(|entry| entry.epoch.is_full(seq)) {
                Why::TooManyRuns
            } else if not_opened.contains(&key) {
                Why::TooManyEpochs
            } else {
                continue;
            };
            let (id, key) = (self.content_id(batch), Key::uncounted(batch.host_id));
            renamed.insert(batch.index, Renamed { id, key, why });
        }
        (renamed, fresh)
    }

    /// Counts a new epoch, unless its environment has opened too many in the running hour.
    fn opens(&self, batch: &Draft, fresh: &mut FreshBy) -> bool {
        let record = self.work.records.get(batch.index);
        let partition = record.map_or(0, |record| record.partition);
        let opened = fresh.entry((partition, batch.environment.clone())).or_default();
        let left = (self.work.left)(partition, &batch.environment).epochs;
        let opens = opened.epochs < left;
        opened.epochs += u64::from(opens);
        opens
    }

    fn judge(&mut self, batch: &Draft, renamed: Option<&Renamed>) -> Fate {
        if let Some(renamed) = renamed {
            let fate = self.judge_content(batch, renamed.id, renamed.why.cloned());
            if fate.applies() {
                self.tell(batch, renamed.why);
            }
            return fate;
        }
        let BatchId::Sequenced { agent_id, epoch, seq } = batch.id else {
            return self.judge_content(batch, batch.id, false);
        };
        let work = self.work;
        let entry = self.book.entry(key(agent_id, epoch), || owner(work, batch));
        entry.spoke = true;
        if !entry.epoch.apply(seq, batch.window_ts) {
            if turn(Mutant::ApplyOneTwice, 1) || is(Mutant::LoseOneDoubleAnother) {
                entry.epoch.counts.points += u64::from(batch.points);
                return Fate::Apply { id: batch.id, cloned: false };
            }
            entry.epoch.counts.duplicates += 1;
            return Fate::Duplicate;
        }
        entry.epoch.counts.points += u64::from(batch.points);
        entry.epoch.counts.expired += u64::from(batch.expired);
        self.learn(agent_id, epoch, seq, batch);
        Fate::Apply { id: batch.id, cloned: false }
    }

    fn judge_content(&mut self, batch: &Draft, id: BatchId, cloned: bool) -> Fate {
        let first = self.seen.insert(id.columns(), batch.crc).is_none();
        let entry = self.book.entry(Key::uncounted(batch.host_id), || owner(self.work, batch));
        entry.spoke = true;
        if !first {
            entry.epoch.counts.duplicates += 1;
            return Fate::Duplicate;
        }
        entry.epoch.counts.uncounted += 1;
        entry.epoch.counts.points += u64::from(batch.points);
        entry.epoch.counts.expired += u64::from(batch.expired);
        Fate::Apply { id, cloned }
    }

    /// What an applied batch says of its own epoch's end and of other epochs.
    fn learn(&mut self, agent_id: Uuid, epoch: Uuid, seq: u64, batch: &Draft) {
        let work = self.work;
        if batch.closing {
            let entry = self.book.entry(key(agent_id, epoch), || owner(work, batch));
            entry.epoch.closed = true;
            entry.epoch.expect_last(seq);
        }
        for Declaration { epoch, first_seq, last_seq, reason } in &batch.declarations {
            if is(Mutant::ForgetDeclaration) {
                continue;
            }
            let run = Run { first: *first_seq, last: *last_seq };
            if self.is_known_or_young(agent_id, *epoch) {
                let entry = self.book.entry(key(agent_id, *epoch), || owner(work, batch));
                entry.epoch.note(run, Cause::Declared, reason);
            }
        }
        let Some(previous) = batch.previous.filter(|previous| previous.last_seq > 0) else {
            return;
        };
        if self.is_known_or_young(agent_id, previous.epoch) {
            let entry = self.book.entry(key(agent_id, previous.epoch), || owner(work, batch));
            entry.epoch.expect_last(previous.last_seq);
            entry.epoch.successor.get_or_insert((*epoch.as_bytes(), work.now_ms));
        }
    }

    /// An epoch without a row may be one that the ledger has outlived: then nothing of it is
    /// missing that anybody still counts.
    fn is_known_or_young(&self, agent_id: Uuid, epoch: Uuid) -> bool {
        let born_ms = epoch.get_timestamp().map(|born| {
            let (seconds, nanos) = born.to_unix();
            i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000)
                + i64::from(nanos / 1_000_000)
        });
        let retention_ms = i64::try_from(self.work.ledger_retention.as_millis());
        let oldest_ms = self.work.now_ms.saturating_sub(retention_ms.unwrap_or(i64::MAX));
        self.book.get(&key(agent_id, epoch)).is_some()
            || born_ms.is_none_or(|born_ms| born_ms >= oldest_ms)
    }

    /// Records in dead letters whose batch is known leave a named gap; those of senders that do not
    /// count, which have no seq to miss, an event and a count in their host's row.
    fn quarantine(&mut self) {
        let work = self.work;
        let mut uncounted: BTreeMap<(&str, &str, &'static str), (u64, u64)> = BTreeMap::new();
        for letter in work.quarantined {
            let Some(named) = &letter.refused.batch else { continue };
            let reason = letter.refused.reason.word();
            let entry = self.book.entry(key_of(named), || Owner {
                environment: named.environment.clone(),
                host: named.host.clone(),
                partition: letter.partition,
            });
            entry.spoke = true;
            if let BatchId::Sequenced { seq, .. } = named.id {
                let run = Run { first: seq, last: seq };
                entry.epoch.note(run, Cause::Quarantined, reason);
                continue;
            }
            entry.epoch.counts.letters += 1;
            let sums = uncounted.entry((&named.environment, &named.host, reason)).or_default();
            *sums = (sums.0 + 1, sums.1.saturating_add(named.points));
        }
        let tell = |((environment, host, reason), (batches, points)): (_, (u64, u64))| {
            let (environment, host): (&str, &str) = (environment, host);
            let text =
                format!("{batches} batches of {points} points are in dead letters: {reason}");
            let (environment, host) = (Some(environment.to_owned()), Some(host.to_owned()));
            Event { environment, host, kind: "quarantined", text }
        };
        self.events.extend(uncounted.into_iter().map(tell));
    }

    fn tell(&mut self, batch: &Draft, why: Why) {
        let (kind, how) = match why {
            Why::OtherHost => ("cloned_agent", "its epoch belongs to another host"),
            Why::OtherContent => ("cloned_agent", "its seq was used for other content"),
            Why::TooManyRuns => ("torn_epoch", "its epoch has too many gaps"),
            Why::TooManyEpochs => ("too_many_epochs", "too many epochs began in this hour"),
        };
        let told = |event: &Event| event.kind == kind && event.host.as_ref() == Some(&batch.host);
        if self.events.iter().any(told) {
            return;
        }
        self.events.push(Event {
            environment: Some(batch.environment.clone()),
            host: Some(batch.host.clone()),
            kind,
            text: format!("batch {} was applied under its content's id: {how}", batch.id),
        });
    }

    fn content_id(&self, batch: &Draft) -> BatchId {
        let frame = self.work.records.get(batch.index).and_then(|record| record.value.as_deref());
        BatchId::content_of(&batch.environment, frame.unwrap_or_default())
    }
}

fn owner(work: &Work<'_>, batch: &Draft) -> Owner {
    Owner {
        environment: batch.environment.clone(),
        host: batch.host.clone(),
        partition: work.records.get(batch.index).map_or(0, |record| record.partition),
    }
}
