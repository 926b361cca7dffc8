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
use crate::commit::{CommitError, commit};
use crate::metrics::since;
use crate::mutant::{Mutant, is, turn};
use crate::quarantine::{QuarantineError, Quarantined};
use crate::receive::{Appended, Record};
use crate::store::draft::Judge;
use crate::store::{Fresh, StoreError, Work, Written, write};
use crate::verify::{Reason, Refused, verify};

/// What became of some records.
enum Stored {
    /// Committed, or given up to be read again.
    Done,
    /// To be stored one half after the other.
    Halves(Vec<Record>, Vec<Record>),
    OutOfTime,
}

/// What one attempt says to do next.
pub(super) enum Step {
    Committed,
    Again(Duration),
    Split(Duration),
    GiveUp,
    Stop(u16, Obstacle),
    OutOfTime,
}

/// Records in hand, with what is known of them besides.
pub(super) struct Hand {
    pub records: Vec<Record>,
    /// Those in dead letters.
    pub letters: Vec<Quarantined>,
    /// What only the store could refuse.
    pub refused: BTreeMap<Place, Refused>,
    /// Counted against the limit on dead letters already.
    pub allowed: BTreeSet<Place>,
    pub attempts: u32,
}

/// Where a record is.
pub(super) type Place = (Lane, u16, i64);

pub(super) fn place(record: &Record) -> Place {
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
        let mut hand = Hand {
            records,
            letters: Vec::new(),
            refused: BTreeMap::new(),
            allowed: BTreeSet::new(),
            attempts: 0,
        };
        loop {
            self.pulse.beat();
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
        hand.records.retain(|record| self.partitions.is_current(record));
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
        #[cfg(feature = "mutants")]
        if is(Mutant::OffsetsBeforeRows) {
            return self.offsets_before_rows(hand).await;
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
            if turn(Mutant::DropOneBatch, 40) || turn(Mutant::LoseOneDoubleAnother, 40) {
                continue;
            }
            let Some(held) = self.partitions.get(record.partition) else { continue };
            let drafted = verify(&mut self.decoder, record, self.shared.partitioning)
                .and_then(|view| self.drafts.add(index, &view, (appended_ms, &judge), &held.known));
            if let Err(why) = drafted
                && !(is(Mutant::SkipBadCrc) && matches!(why.reason, Reason::Frame(_)))
            {
                refused.push((index, why));
            }
        }
        #[cfg(feature = "mutants")]
        self.spoil_drafts(&hand.records);
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
            let first = hand.allowed.insert(place(record));
            let outcome = match !first || self.limiter.admits(record, &refused, per_minute_max) {
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

    pub(super) async fn write(&mut self, hand: &Hand) -> Result<Written, StoreError> {
        let limit = self.statement_timeout();
        let store = &self.shared.settings.store;
        let partitions = &self.partitions;
        let left = |partition: u16, environment: &str| {
            let held = partitions.get(partition);
            let fresh = held.and_then(|held| held.fresh.get(environment)).copied();
            let Fresh { series, epochs } = fresh.unwrap_or_default();
            Fresh {
                series: u64::from(store.new_series_per_hour).saturating_sub(series),
                epochs: u64::from(store.new_epochs_per_hour).saturating_sub(epochs),
            }
        };
        let work = Work {
            records: &hand.records,
            drafts: &self.drafts,
            quarantined: &hand.letters,
            now_ms: now_ms(),
            ledger_retention: store.ledger_retention.get(),
            left: &left,
        };
        let Some(Link { session, .. }) = &mut self.link else {
            return Err(StoreError::Shape("no connection"));
        };
        write(session, limit, &work, &mut self.rows).await
    }
}

pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
