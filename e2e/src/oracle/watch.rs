//! The observer: looks while the load runs and the faults come, with eyes of its own.
//!
//! - L5: a stored offset never goes back (no failover is declared in a trial).
//! - L7: in one snapshot of each shard, what its books hold equals what its positions have passed;
//!   and the programs' counters never run ahead of Kafka.
//! - L8: what is missing is in `gaps` ([`super::honest`]).
//! - L6: memory ([`super::memory`]).
//!
//! A look that gets no answer is no finding: something was killed on purpose. The last one is taken
//! when all is well again, and must see everything; else a law would hold because nobody looked.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::{Connection as _, Executor as _, Row as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::conserve::{self, Tallies};
use super::honest::Honest;
use super::log;
use super::memory::Peaks;
use super::site::Site;
use crate::verdict::Findings;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(1_000);
const QUERY_DEADLINE: Duration = Duration::from_secs(20);
/// Kafka is asked for its ends at every so manieth look: 128 questions each time.
const ENDS_EVERY: u64 = 4;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub looks: u64,
    pub snapshots: u64,
    pub ends_read: u64,
    pub honest_looks: u64,
    pub seqs: u64,
    /// Seqs that were missing at the moment of a look, and told of.
    pub missing: u64,
    pub went_back: Findings,
    pub unbalanced: Findings,
    pub dishonest: Findings,
    pub tallies: Tallies,
    pub peaks: Peaks,
}

/// A running observer; dropped, it looks no more and lets go of the stack.
pub struct Observer {
    stop: watch::Sender<bool>,
    task: JoinSet<Observed>,
}

/// What it looks at.
pub struct Sights {
    pub site: Site,
    pub honest: Vec<Honest>,
}

impl Observer {
    #[must_use]
    pub fn start(sights: Sights) -> Self {
        let (stop, stopped) = watch::channel(false);
        let eye = Eye { sights, observed: Observed::default(), last: BTreeMap::new() };
        let mut task = JoinSet::new();
        task.spawn(eye.look_on(stopped));
        Self { stop, task }
    }

    /// Takes a last look.
    pub async fn end(mut self) -> Observed {
        self.stop.send_replace(true);
        let seen = self.task.join_next().await;
        seen.expect("there is one observer").expect("it does not panic")
    }
}

/// Where each partition of each shard stood.
type Stood = BTreeMap<(String, u32), (i64, i64)>;

struct Eye {
    sights: Sights,
    observed: Observed,
    last: Stood,
}

impl Eye {
    async fn look_on(mut self, mut stopped: watch::Receiver<bool>) -> Observed {
        let mut last_look = false;
        while !last_look {
            last_look = *stopped.borrow();
            self.look(last_look).await;
            if !last_look {
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    _ = stopped.changed() => {}
                }
            }
        }
        self.observed
    }

    async fn look(&mut self, last: bool) {
        let number = self.observed.looks;
        self.observed.looks += 1;
        self.observed.peaks.look(&self.sights.site.processes());
        for shard in self.sights.site.file().mysql.clone() {
            match snapshot(&shard.primary).await {
                Ok(snapshot) => {
                    self.observed.snapshots += 1;
                    self.judge(&shard.shard, snapshot);
                }
                Err(error) if last => {
                    let text = || format!("{}: no last snapshot: {error}", shard.shard);
                    self.observed.unbalanced.push(None, text);
                }
                Err(_) => {}
            }
        }
        let turn = usize::try_from(number).unwrap_or(0) % self.sights.honest.len().max(1);
        let all = if last { 0..self.sights.honest.len() } else { turn..turn + 1 };
        for honest in self.sights.honest.get(all).unwrap_or_default() {
            match honest.look(&mut self.observed.dishonest).await {
                Ok(looked) => {
                    self.observed.honest_looks += 1;
                    self.observed.seqs += looked.seqs;
                    self.observed.missing += looked.missing;
                }
                Err(error) if last => {
                    let text = || format!("{}: no last look: {error}", honest.host);
                    self.observed.dishonest.push(None, text);
                }
                Err(_) => {}
            }
        }
        if last && self.observed.seqs == 0 {
            self.observed.dishonest.push(None, || "no seq of any host was looked at".into());
        }
        conserve::read_all(&self.sights.site, &mut self.observed.tallies).await;
        if number.is_multiple_of(ENDS_EVERY) || last {
            let ends_read = self.observed.ends_read;
            self.look_at_kafka().await;
            if last && self.observed.ends_read == ends_read {
                let text = || "Kafka did not tell its ends at the last look".into();
                self.observed.unbalanced.push(None, text);
            }
        }
    }

    /// Kafka is asked after the programs: it can only have more than they say.
    async fn look_at_kafka(&mut self) {
        let brokers = self.sights.site.file().kafka.clone();
        let asked = tokio::task::spawn_blocking(move || log::ends(&brokers)).await;
        let Ok(Ok(ends)) = asked else { return };
        self.observed.ends_read += 1;
        let records: i64 = ends.values().map(|(_, high)| high).sum();
        let records = u64::try_from(records).unwrap_or(0);
        let tallies = &self.observed.tallies;
        for (what, number) in [("published", tallies.published()), ("consumed", tallies.consumed())]
        {
            if number > records {
                let text = || format!("{number} records {what}, {records} in Kafka");
                self.observed.unbalanced.push(None, text);
            }
        }
    }

    fn judge(&mut self, shard: &str, snapshot: Snapshot) {
        let passed: i64 = snapshot.stands.values().map(|(live, backlog)| live + backlog).sum();
        if passed != snapshot.booked {
            let text =
                || format!("{shard}: {passed} records passed, its books hold {}", snapshot.booked);
            self.observed.unbalanced.push(None, text);
        }
        for (partition, stands) in snapshot.stands {
            let stood = self.last.insert((shard.to_owned(), partition), stands);
            let (live, backlog) = stood.unwrap_or(stands);
            if stands.0 < live || stands.1 < backlog {
                let text = || format!("{shard} partition {partition}: {stood:?} to {stands:?}");
                self.observed.went_back.push(None, text);
            }
        }
    }
}

/// One moment of a shard.
struct Snapshot {
    /// Applied, duplicate and quarantined records.
    booked: i64,
    stands: BTreeMap<u32, (i64, i64)>,
}

async fn snapshot(url: &str) -> Result<Snapshot, sqlx::Error> {
    let late = |_| sqlx::Error::PoolTimedOut;
    let reading = async {
        let mut conn = MySqlConnection::connect(url).await?;
        conn.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
        let booked = "SELECT CAST(COALESCE((SELECT SUM(applied_batches + duplicate_batches) \
                      FROM spillway_store.ledger_epochs), 0) \
                      + (SELECT COUNT(*) FROM spillway_store.quarantined) AS SIGNED)";
        let booked = conn.fetch_one(booked).await?.try_get(0)?;
        let stands = "SELECT partition_id, live_next, backlog_next FROM spillway_store.positions";
        let mut all = BTreeMap::new();
        for row in conn.fetch_all(stands).await? {
            all.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
        }
        Ok(Snapshot { booked, stands: all })
    };
    timeout(QUERY_DEADLINE, reading).await.map_err(late)?
}
