//! Rows as they should be, from the records that were applied: the consumer's own `verify` and
//! `Drafts` read the frames, its own arithmetic packs the rows.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::message::BorrowedMessage;
use spillway_consumer::receive::{Appended, Record};
use spillway_consumer::store::draft::{Drafts, Judge};
use spillway_consumer::store::series::Known;
use spillway_consumer::store::values::normalize;
use spillway_consumer::verify::verify;
use spillway_proto::frame::Decoder;
use spillway_proto::kafka_record::Lane;
use spillway_publisher::reading::{self, LogError, Since, Stretch, Told};
use spillway_runtime::mysql::Session;

use super::applied::applied;
use super::{Gone, Reprocess, ReprocessError, Request, Sources};
use crate::shard::answer;

/// Points of one slice in memory: some 100 MB with what surrounds them.
const POINTS_MAX: u64 = 2_000_000;

/// A span of one partition.
#[derive(Clone, Debug)]
pub struct Slice {
    pub partition: u16,
    pub span: Range<u32>,
}

/// (ms since the window's start, value).
type Samples = Vec<(i64, f64)>;

/// Samples of one applied batch, and when it was applied.
#[derive(Debug)]
struct Piece {
    /// Transactions are told apart by their time; within one, live stands before backlog.
    order: (i64, Lane, i64),
    samples: Samples,
}

/// A slice, made again.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// By (series, window).
    pub rows: BTreeMap<(u64, u32), Samples>,
    pub host_of: HashMap<u64, u64>,
    pub gone: Vec<Gone>,
    partition: u16,
    records: u64,
    points: u64,
    not_applied: u64,
    pieces: BTreeMap<(u64, u32), Vec<Piece>>,
}

impl Rebuilt {
    /// Whether Kafka has every record that can have brought points of this window.
    #[must_use]
    pub fn covers(&self, window_ts: u32) -> bool {
        self.gone.iter().all(|gone| gone.before_ts.is_some_and(|before| window_ts >= before))
    }

    /// Adds what was read to the books.
    pub fn count(&self, state: &mut Reprocess) {
        state.records += self.records;
        state.points += self.points;
        state.not_applied += self.not_applied;
        state.rows += self.rows.len() as u64;
        let new = self.gone.iter().filter(|gone| !state.gone.contains(gone));
        let new: Vec<Gone> = new.copied().collect();
        state.gone.extend(new);
    }

    /// Packs the pieces of each row in the order in which they were applied; the later one wins.
    fn pack(&mut self) {
        for (key, mut pieces) in std::mem::take(&mut self.pieces) {
            pieces.sort_by_key(|piece| piece.order);
            let several = pieces.len() > 1;
            let mut samples: Samples = pieces.into_iter().flat_map(|piece| piece.samples).collect();
            if several {
                normalize(&mut samples);
            }
            self.rows.insert(key, samples);
        }
    }
}

/// Makes the slice again, as of the snapshot that `session` has open.
pub async fn rebuild(
    session: &mut Session,
    (sources, request): (&Sources<'_>, &Request),
    slice: &Slice,
) -> Result<Rebuilt, ReprocessError> {
    let next = positions(session, slice.partition).await?;
    let future_ms = millis(request.future_max);
    let judge = Judge {
        raw_retention_ms: millis(request.raw_retention),
        // What lay too far ahead is in dead letters, and so not in the ledger.
        future_max_ms: i64::MAX / 4,
        floor_ts: slice.span.start,
    };
    let mut reading = Reading {
        session,
        sources,
        environment: request.environment.as_deref(),
        span: &slice.span,
        judge,
        decoder: Decoder::new(),
        drafts: Drafts::default(),
        known: Known::default(),
        rebuilt: Rebuilt { partition: slice.partition, ..Rebuilt::default() },
    };
    for (lane, next) in Lane::ALL.into_iter().zip(next) {
        let from_ms = i64::from(slice.span.start) * 1_000 - future_ms;
        reading.lane((lane, from_ms, next), future_ms).await?;
    }
    let mut rebuilt = reading.rebuilt;
    rebuilt.pack();
    Ok(rebuilt)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// Up to where both lanes are applied.
async fn positions(session: &mut Session, partition: u16) -> Result<[i64; 2], ReprocessError> {
    let sql = "SELECT live_next, backlog_next FROM positions WHERE partition_id = ?";
    let query = sqlx::query_as::<_, (i64, i64)>(sql).bind(u32::from(partition));
    let found = answer(query.fetch_optional(&mut **session)).await?;
    found.map(Into::into).ok_or(ReprocessError::NoPosition(partition))
}

struct Reading<'a> {
    session: &'a mut Session,
    sources: &'a Sources<'a>,
    environment: Option<&'a str>,
    span: &'a Range<u32>,
    judge: Judge,
    decoder: Decoder,
    drafts: Drafts,
    /// Names were seen: they are of no use here.
    known: Known,
    rebuilt: Rebuilt,
}

impl Reading<'_> {
    /// Reads one lane from a time up to an offset, and notes what of it is gone.
    async fn lane(
        &mut self,
        (lane, from_ms, next): (Lane, i64, i64),
        future_ms: i64,
    ) -> Result<(), ReprocessError> {
        let partition = self.rebuilt.partition;
        let (topic, since) = (lane.topic(), Since::Time(from_ms));
        let stretch = Stretch { topic, partition, since, next: Some(next) };
        // What is read here is no consumer's: its books are shown to nobody.
        let books = Arc::default();
        let copy = move |message: &BorrowedMessage<'_>| {
            let record = Record::copy(message, (lane, partition), 0, &books);
            let bytes = record.bytes();
            (record, bytes)
        };
        let mut told = reading::read(self.sources.kafka, stretch, copy)?;
        let mut first_ms = None;
        let mut is_cut = false;
        loop {
            match told.recv().await.ok_or(LogError::Gone)?? {
                // From the first record on that is left, where an older one was trimmed.
                Told::Begins { low, start, .. } => is_cut = low > 0 && start == low,
                Told::Records(records) => {
                    if let Some(Appended::At(ms)) = records.first().map(|first| first.appended) {
                        first_ms.get_or_insert(ms);
                    }
                    self.take(&records).await?;
                }
                Told::Ends => break,
            }
        }
        if is_cut {
            let before = first_ms.map(|ms: i64| ms.saturating_add(future_ms) / 1_000 + 1);
            let before_ts = before.map(|ts| u32::try_from(ts).unwrap_or(u32::MAX));
            if before_ts.is_none_or(|before| before > self.span.start) {
                self.rebuilt.gone.push(Gone { partition, lane, before_ts });
            }
        }
        Ok(())
    }

    async fn take(&mut self, records: &[Record]) -> Result<(), ReprocessError> {
        self.rebuilt.records += records.len() as u64;
        self.draft(records);
        let end = self.span.end;
        let drafts = &self.drafts;
        let rows = |range: &Range<usize>| drafts.rows.get(range.clone()).unwrap_or_default();
        let within = drafts.batches.iter();
        let within = within.filter(|one| rows(&one.rows).iter().any(|row| row.window_ts < end));
        let within: Vec<_> = within.collect();
        let applied = applied(self.session, records, &within).await?;
        self.rebuilt.not_applied += applied.unexplained;
        for batch in within {
            let Some(record) = records.get(batch.index) else { continue };
            let at = (record.lane, record.offset);
            let Some(applied_at) = applied.at.get(&at) else { continue };
            for row in rows(&batch.rows).iter().filter(|row| row.window_ts < end) {
                let samples = drafts.samples.get(row.samples.clone()).unwrap_or_default().to_vec();
                self.rebuilt.points += samples.len() as u64;
                self.rebuilt.host_of.insert(row.series_id, batch.host_id);
                let piece = Piece { order: (*applied_at, record.lane, record.offset), samples };
                let key = (row.series_id, row.window_ts);
                self.rebuilt.pieces.entry(key).or_default().push(piece);
            }
        }
        match self.rebuilt.points > POINTS_MAX {
            true => Err(ReprocessError::TooMuch(self.rebuilt.partition)),
            false => Ok(()),
        }
    }

    /// Opens the frames; what is refused here was refused by the consumer, and is not in the
    /// ledger.
    fn draft(&mut self, records: &[Record]) {
        self.drafts.clear();
        for (index, record) in records.iter().enumerate() {
            let Appended::At(appended_ms) = record.appended else { continue };
            let verified = verify(&mut self.decoder, record, self.sources.partitioning);
            let Ok(view) = verified else { continue };
            if self.environment.is_none_or(|environment| environment == view.environment) {
                let when = (appended_ms, &self.judge);
                drop(self.drafts.add(index, &view, when, &self.known));
            }
        }
        for sighting in &self.drafts.sightings {
            self.known.seen(sighting.identity.id, 1, 1);
        }
    }
}
