//! From gathered records to a COMMIT: verify, quarantine, store, commit, and what to do when one of
//! them fails.
//!
//! The records stay in hand until they are committed or their partitions are given up; a partition
//! is only ever given up as a whole, so that its offsets never skip a record.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use spillway_proto::kafka_record::Lane;
use tokio::time::Instant;

use super::link::Link;
use super::{Ended, Worker};
use crate::claim::Obstacle;
use crate::commit::{Advance, CommitError, Committed, Settled, commit, roll_back, settle};
use crate::last_seen::Seen;
use crate::metrics::{Outcome, Reason as ReasonLabel, since};
use crate::quarantine::{QuarantineError, Quarantined};
use crate::receive::{Appended, Record};
use crate::store::classify::{Verdict, classify};
use crate::store::draft::{Draft, Judge};
use crate::store::{StoreError, Work, Written, write};
use crate::verify::{Named, Reason, Refused, verify};

/// The same transaction is tried whole so often; then it is halved, which mends deadlocks and
/// servers too slow for it.
const WHOLE_ATTEMPTS: u32 = 4;
/// An hour, for the cap on new series.
const HOUR: Duration = Duration::from_secs(3_600);

/// What became of some records.
enum Stored {
    /// Committed, or given up to be read again.
    Done,
    /// To be stored one half after the other.
    Halves(Vec<Record>, Vec<Record>),
    OutOfTime,
}

/// What one attempt says to do next.
enum Step {
    Committed,
    Again(Duration),
    Split(Duration),
    GiveUp,
    Stop(u16, Obstacle),
    OutOfTime,
}

/// Records in hand, with what is known of them besides.
struct Hand {
    records: Vec<Record>,
    /// Those in dead letters.
    letters: Vec<Quarantined>,
    /// What only the store could refuse.
    refused: BTreeMap<Place, Refused>,
    attempts: u32,
}

/// Where a record is.
type Place = (Lane, u16, i64);

fn place(record: &Record) -> Place {
    (record.lane, record.partition, record.offset)
}

impl Worker {
    /// Brings all records to a COMMIT, or gives up their partitions.
    pub(super) async fn apply(&mut self, records: Vec<Record>) -> Ended {
        let records = self.admit(records).await;
        let mut slices = VecDeque::from([records]);
        while let Some(slice) = slices.pop_front() {
            match self.store(slice).await {
                Stored::Done => {}
                Stored::Halves(first, second) => {
                    slices.push_front(second);
                    slices.push_front(first);
                }
                Stored::OutOfTime => return Ended::Unfinished,
            }
        }
        Ended::Idle
    }

    /// Compares the record before a claim's offset with the one that was applied, and lets through
    /// what comes after it.
    async fn admit(&mut self, records: Vec<Record>) -> Vec<Record> {
        let mut admitted = Vec::with_capacity(records.len());
        for record in records {
            let Some(held) = self.partitions.get_mut(record.partition) else { continue };
            let at = usize::from(record.lane == Lane::Backlog);
            let unchecked = held.unchecked.get_mut(at).and_then(Option::take);
            let next = held.next.get(at).copied().unwrap_or(0);
            match unchecked {
                Some(crc) if record.offset + 1 != next || record.crc() != crc => {
                    let obstacle = Obstacle::OtherRecord { lane: record.lane, next };
                    self.stop(record.partition, obstacle).await;
                }
                _ if record.offset < next => {}
                _ => admitted.push(record),
            }
        }
        admitted
    }

    async fn store(&mut self, records: Vec<Record>) -> Stored {
        let (letters, refused) = (Vec::new(), BTreeMap::new());
        let mut hand = Hand { records, letters, refused, attempts: 0 };
        loop {
            self.follow();
            self.drop_strangers(&mut hand);
            if hand.records.is_empty() {
                return Stored::Done;
            }
            hand.attempts += 1;
            match self.attempt(&mut hand).await {
                Step::Committed => return Stored::Done,
                Step::Again(pause) => self.pause_for(pause).await,
                Step::Split(_) if hand.records.len() > 1 => {
                    let second = hand.records.split_off(hand.records.len() / 2);
                    return Stored::Halves(hand.records, second);
                }
                Step::Split(pause) => self.pause_for(pause).await,
                Step::GiveUp => {
                    let partitions: BTreeSet<u16> =
                        hand.records.iter().map(|record| record.partition).collect();
                    let partitions: Vec<u16> = partitions.into_iter().collect();
                    self.release(&partitions, true).await;
                }
                Step::Stop(partition, obstacle) => self.stop(partition, obstacle).await,
                Step::OutOfTime => return Stored::OutOfTime,
            }
            if self.is_out_of_time() {
                return Stored::OutOfTime;
            }
        }
    }

    fn drop_strangers(&self, hand: &mut Hand) {
        let before = hand.records.len();
        hand.records.retain(|record| self.partitions.is_current(record));
        let dropped = before - hand.records.len();
        self.shared.metrics.records_dropped.inc_by(dropped as u64);
        let here: BTreeSet<Place> = hand.records.iter().map(place).collect();
        hand.letters
            .retain(|letter| here.contains(&(letter.lane, letter.partition, letter.offset)));
    }

    /// One try at everything.
    async fn attempt(&mut self, hand: &mut Hand) -> Step {
        if !self.connect().await {
            return Step::Again(self.pause.next_delay());
        }
        let limit = self.statement_timeout();
        let Some(link) = &mut self.link else { return Step::Again(Duration::ZERO) };
        let floor_ts = match link.floor_ts(limit).await {
            Ok(floor_ts) => floor_ts,
            Err(error) => return self.failed(hand, &error).await,
        };
        match self.draft(hand, floor_ts) {
            Err((partition, obstacle)) => return Step::Stop(partition, obstacle),
            Ok(refused) => {
                if let Some(step) = self.quarantine(hand, refused).await {
                    return step;
                }
            }
        }
        let began = Instant::now();
        let written = match self.write(hand).await {
            Ok(written) => written,
            Err(error) => return self.failed(hand, &error).await,
        };
        let advances = self.partitions.advances(&hand.records);
        let Some(link) = &mut self.link else { return Step::Again(Duration::ZERO) };
        let committing = Instant::now();
        let committed = commit(&mut link.session, limit, advances.clone(), now_ms()).await;
        self.shared.metrics.commit_seconds.observe(since(committing));
        let committed = match committed {
            Ok(committed) => committed,
            Err(CommitError::Fenced) => return self.fenced().await,
            Err(CommitError::Failed(error)) => return self.failed(hand, &error).await,
            Err(CommitError::Unknown(error)) => match self.settle(advances, &error).await {
                Ok(committed) => committed,
                Err(step) => return step,
            },
        };
        self.shared.metrics.transaction_seconds.observe(since(began));
        self.finish(hand, &written, &committed);
        Step::Committed
    }

    /// Verifies and drafts all records anew. Returns what can't be applied.
    fn draft(
        &mut self,
        hand: &Hand,
        floor_ts: u32,
    ) -> Result<Vec<(usize, Refused)>, (u16, Obstacle)> {
        let store = &self.shared.settings.store;
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let judge = Judge {
            raw_retention_ms: millis(store.raw_retention.get()),
            future_max_ms: millis(store.future_max.get()),
            floor_ts,
        };
        self.drafts.clear();
        let mut refused = Vec::new();
        for (index, record) in hand.records.iter().enumerate() {
            if let Some(known) = hand.refused.get(&place(record)) {
                refused.push((index, known.clone()));
                continue;
            }
            let Appended::At(appended_ms) = record.appended else {
                return Err((record.partition, Obstacle::NoAppendTime));
            };
            let Some(held) = self.partitions.get(record.partition) else { continue };
            let drafted = verify(&mut self.decoder, record, self.shared.partitioning)
                .and_then(|view| self.drafts.add(index, &view, (appended_ms, &judge), &held.known));
            if let Err(why) = drafted {
                refused.push((index, why));
            }
        }
        Ok(refused)
    }

    /// Sends what can't be applied to dead letters, each once. `None` when all of it is there.
    async fn quarantine(&mut self, hand: &mut Hand, all: Vec<(usize, Refused)>) -> Option<Step> {
        let per_minute_max = self.shared.settings.dead_letters.per_minute_max;
        for (index, refused) in all {
            let record = hand.records.get(index)?;
            let sent = |letter: &Quarantined| {
                (letter.lane, letter.partition, letter.offset) == place(record)
            };
            if hand.letters.iter().any(sent) {
                continue;
            }
            let partition = record.partition;
            let outcome = match self.limiter.admits(record, &refused, per_minute_max) {
                true => self.shared.dead_letters.send(record, &refused).await,
                false => Err(QuarantineError::TooMany),
            };
            match outcome {
                Ok(letter) => {
                    tracing::warn!(
                        partition,
                        offset = letter.offset,
                        topic = letter.lane.topic(),
                        reason = refused.reason.word(),
                        "record is in dead letters"
                    );
                    hand.letters.push(letter);
                }
                Err(QuarantineError::TooMany) => {
                    return Some(Step::Stop(partition, Obstacle::DeadLetterFlood));
                }
                Err(QuarantineError::Undeliverable) => {
                    return Some(Step::Stop(partition, Obstacle::DeadLetterRefused));
                }
                Err(error @ QuarantineError::Unconfirmed) => {
                    tracing::warn!(%error, partition, "the partition waits for its dead letter");
                    return Some(Step::Again(self.pause.next_delay()));
                }
            }
        }
        None
    }

    async fn write(&mut self, hand: &Hand) -> Result<Written, StoreError> {
        let limit = self.statement_timeout();
        let store = &self.shared.settings.store;
        let partitions = &self.partitions;
        let new_series_left = |partition: u16, environment: &str| {
            let held = partitions.get(partition);
            let created = held.and_then(|held| held.created.get(environment)).copied();
            u64::from(store.new_series_per_hour).saturating_sub(created.unwrap_or(0))
        };
        let work = Work {
            records: &hand.records,
            drafts: &self.drafts,
            quarantined: &hand.letters,
            now_ms: now_ms(),
            ledger_retention: store.ledger_retention.get(),
            new_series_left: &new_series_left,
        };
        let Some(Link { session, .. }) = &mut self.link else {
            return Err(StoreError::Shape("no connection"));
        };
        write(session, limit, &work, &mut self.rows).await
    }

    /// What to do after a failure; the transaction is rolled back either way.
    async fn failed(&mut self, hand: &mut Hand, error: &StoreError) -> Step {
        if let StoreError::Refused { index, reason } = error {
            self.refuse(hand, *index, *reason);
            return self.rolled_back(Step::Again(Duration::ZERO)).await;
        }
        let verdict = classify(error);
        self.note_trouble(error, verdict);
        let pause = self.pause.next_delay();
        let worn_out = hand.attempts >= WHOLE_ATTEMPTS && hand.records.len() > 1;
        match verdict {
            Verdict::Retry | Verdict::Duplicate if worn_out => {
                self.rolled_back(Step::Split(pause)).await
            }
            Verdict::Retry | Verdict::Duplicate => self.rolled_back(Step::Again(pause)).await,
            Verdict::Split => self.rolled_back(Step::Split(pause)).await,
            Verdict::Poison(number) if hand.records.len() == 1 => {
                self.refuse(hand, 0, Reason::RefusedByMysql(number));
                self.rolled_back(Step::Again(Duration::ZERO)).await
            }
            Verdict::Poison(_) => self.rolled_back(Step::Split(Duration::ZERO)).await,
            Verdict::Reconnect if worn_out && matches!(error, StoreError::Late(_)) => {
                self.link = None;
                Step::Split(pause)
            }
            Verdict::Reconnect | Verdict::Wait(_) => {
                self.link = None;
                Step::Again(pause)
            }
        }
    }

    /// Rolls back, or closes the connection, which does the same.
    async fn rolled_back(&mut self, step: Step) -> Step {
        let limit = self.statement_timeout();
        if let Some(link) = &mut self.link
            && let Err(error) = roll_back(&mut link.session, limit).await
        {
            tracing::debug!(%error, "ROLLBACK failed: the connection is closed");
            self.link = None;
        }
        step
    }

    async fn fenced(&mut self) -> Step {
        self.shared.metrics.fenced.inc();
        tracing::warn!(shard = %self.id.shard, "fenced: what was read is dropped and claimed anew");
        self.rolled_back(Step::GiveUp).await
    }

    /// Notes that a record's batch can never be applied.
    fn refuse(&self, hand: &mut Hand, index: usize, reason: Reason) {
        let Some(record) = hand.records.get(index) else { return };
        let draft = self.drafts.batches.iter().find(|draft| draft.index == index);
        let batch = draft.map(|draft| named(draft));
        hand.refused.insert(place(record), Refused { reason, batch });
    }

    /// Learns what became of a COMMIT without an answer.
    async fn settle(
        &mut self,
        advances: Vec<Advance>,
        error: &StoreError,
    ) -> Result<Committed, Step> {
        tracing::warn!(%error, shard = %self.id.shard, "COMMIT was not answered: asking positions");
        let (limit, server) = (self.statement_timeout(), self.server.clone());
        self.link = None;
        let outcome = loop {
            if self.is_out_of_time() {
                break Err(("abandoned", Step::OutOfTime));
            }
            if self.connect().await {
                if self.server != server {
                    break Err(("other-server", Step::GiveUp));
                }
                let Some(link) = &mut self.link else { continue };
                match settle(&mut link.session, limit, advances.clone()).await {
                    Ok(Settled::Applied(committed)) => break Ok(committed),
                    Ok(Settled::NotApplied) => {
                        break Err(("not-applied", Step::Again(Duration::ZERO)));
                    }
                    Ok(Settled::Fenced) => break Err(("fenced", Step::GiveUp)),
                    Err(error) => {
                        self.note_trouble(&error, classify(&error));
                        self.link = None;
                    }
                }
            }
            let pause = self.pause.next_delay();
            self.pause_for(pause).await;
            self.follow();
        };
        let word = outcome.as_ref().err().map_or("applied", |(word, _)| word);
        tracing::info!(outcome = word, shard = %self.id.shard, "the unanswered COMMIT is settled");
        self.shared.metrics.unknown_commits.get_or_create(&Outcome { outcome: word }).inc();
        outcome.map_err(|(_, step)| step)
    }

    /// Everything that may follow a COMMIT, and only then.
    fn finish(&mut self, hand: &Hand, written: &Written, committed: &Committed) {
        self.pause.reset();
        self.partitions.advance(committed);
        self.shared.group_offsets.note(committed);
        let metrics = &self.shared.metrics;
        for advance in committed.advances() {
            for (lane, next) in Lane::ALL.into_iter().zip(advance.to) {
                metrics.applied(lane, advance.partition, next);
            }
        }
        metrics.transactions.inc();
        metrics.transaction_points.observe(written.points as f64);
        metrics.batches_applied.inc_by(written.batches);
        metrics.points_applied.inc_by(written.points);
        metrics.batches_duplicate.inc_by(written.duplicates);
        metrics.points_expired.inc_by(written.expired);
        metrics.batches_cloned.inc_by(written.cloned);
        metrics.rows.inc_by(written.rows);
        metrics.merges.inc_by(written.merges);
        for letter in &hand.letters {
            let reason = ReasonLabel { reason: letter.refused.reason.word() };
            metrics.batches_quarantined.get_or_create(&reason).inc();
        }
        let now_ms = now_ms();
        let appended = hand.records.iter().filter_map(|record| match record.appended {
            Appended::At(ms) => Some(ms),
            Appended::Unknown => None,
        });
        if let Some(newest) = appended.max() {
            metrics.append_age_seconds.set(now_ms.saturating_sub(newest) as f64 / 1_000.0);
        }
        self.probe.ok(Duration::ZERO);
        self.count_created(written);
        self.tell_last_seen(hand, written, now_ms);
    }

    fn count_created(&mut self, written: &Written) {
        for ((partition, environment), created) in &written.series_created {
            self.shared.metrics.series_created.inc_by(*created);
            let Some(held) = self.partitions.get_mut(*partition) else { continue };
            if held.created_since.elapsed() >= HOUR {
                held.created.clear();
                held.created_since = Instant::now();
            }
            *held.created.entry(environment.clone()).or_default() += created;
        }
    }

    /// The series of the applied rows are known from now on, and Redis hears of some of them.
    fn tell_last_seen(&mut self, hand: &Hand, written: &Written, now_ms: i64) {
        let at_ts = u32::try_from(now_ms / 1_000).unwrap_or(0);
        let every_s = self.shared.settings.redis.per_series.get().as_secs();
        let every_s = u32::try_from(every_s).unwrap_or(u32::MAX);
        let mut seen = Seen { shard: self.id.shard.clone(), at_ts, ..Seen::default() };
        let mut hosts = BTreeSet::new();
        let batches = self.drafts.batches.iter().zip(&written.fates);
        for (batch, _) in batches.filter(|(_, fate)| fate.applies()) {
            let Some(record) = hand.records.get(batch.index) else { continue };
            let Some(held) = self.partitions.get_mut(record.partition) else { continue };
            let before = seen.series.len();
            for row in self.drafts.rows.get(batch.rows.clone()).unwrap_or_default() {
                if held.known.seen(row.series_id, at_ts, every_s) {
                    seen.series.push(row.series_id);
                }
            }
            if seen.series.len() > before {
                hosts.insert(batch.host_id);
            }
        }
        if !seen.series.is_empty() {
            seen.hosts = hosts.into_iter().collect();
            self.shared.last_seen.tell(seen);
        }
    }

    /// Sleeps, but not through a stop or a new assignment.
    async fn pause_for(&mut self, pause: Duration) {
        let shared = &mut self.shared;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = shared.assignment.changed() => {}
            _ = shared.shards.changed() => {}
        }
    }

    fn is_out_of_time(&self) -> bool {
        let shutdown = &self.shared.shutdown;
        shutdown.requested() && Instant::now() + self.pause_margin() >= shutdown.drain_until()
    }

    /// Kept free at the end of the drain for the group's last commit.
    fn pause_margin(&self) -> Duration {
        Duration::from_secs(2)
    }
}

fn named(draft: &Draft) -> Named {
    Named {
        id: draft.id,
        environment: draft.environment.clone(),
        host: draft.host.clone(),
        points: u64::from(draft.points) + u64::from(draft.expired),
        window_ts: draft.window_ts,
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
