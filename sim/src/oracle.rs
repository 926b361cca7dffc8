//! What was promised and what came of it, kept outside of everything that is simulated.
//!
//! Checked at each step: no answer of 2xx before every acknowledgement, no id with two contents,
//! no measurement under two ids, no object deleted before all of it was applied. Checked at the
//! end (`verdict`): whatever a spool called durable was applied, or declared by name; gaps are
//! honest; nothing was applied that nobody made.

use std::collections::{BTreeMap, BTreeSet};

use spillway_agent::assemble::{Custody, Kept};
use spillway_proto::frame::Header;
use spillway_proto::{Batch, BatchId};
use uuid::Uuid;

/// The name of the series whose value is different in every window of every agent.
pub const MARKER: &str = "sim.window";

/// The books.
#[derive(Debug, Default)]
pub struct Oracle {
    pub violations: Vec<String>,
    /// The crc under which an id was first seen, anywhere.
    contents: BTreeMap<BatchId, u32>,
    /// What a spool answered for, and the marker of its window.
    kept: BTreeMap<BatchId, (Custody, u64)>,
    /// The last seq that an epoch gave, as far as its agent knew.
    given: BTreeMap<Uuid, u64>,
    /// What the broker reported as stored.
    acked: BTreeSet<(BatchId, u32)>,
    applied: BTreeMap<BatchId, Option<u64>>,
    markers: BTreeMap<u64, BatchId>,
    declared: Vec<(Uuid, u64, u64)>,
    expected_last: BTreeMap<Uuid, u64>,
    pub duplicates: u64,
    /// Whether the state directory ever failed: then the end of an epoch may be unknown.
    pub state_failed: bool,
}

impl Oracle {
    /// An agent's spool took a batch, or did not.
    pub fn kept(&mut self, kept: Kept, marker: u64) {
        self.kept.insert(kept.id, (kept.custody, marker));
        let BatchId::Sequenced { epoch, seq, .. } = kept.id else { return };
        self.gave(epoch, seq);
    }

    /// An epoch has given this seq.
    pub fn gave(&mut self, epoch: Uuid, seq: u64) {
        let last = self.given.entry(epoch).or_default();
        *last = (*last).max(seq);
    }

    /// Bytes were seen under an id: on the wire, in a bucket, in the log.
    pub fn saw(&mut self, header: &Header) {
        let first = *self.contents.entry(header.id).or_insert(header.crc);
        if first != header.crc {
            let crc = header.crc;
            let what = format!("{} has two contents, {first:08x} and {crc:08x}", header.id);
            self.violations.push(what);
        }
    }

    /// The broker reported this frame as stored.
    pub fn acked(&mut self, header: &Header) {
        self.acked.insert((header.id, header.crc));
    }

    /// A sender was told that this frame is in Kafka.
    pub fn answered(&mut self, header: &Header) {
        if !self.acked.contains(&(header.id, header.crc)) {
            self.violations.push(format!("2xx for {} before its acknowledgement", header.id));
        }
    }

    /// Whether consumers have it.
    #[must_use]
    pub fn is_applied(&self, id: &BatchId) -> bool {
        self.applied.contains_key(id)
    }

    /// The consumers' transaction with this batch was committed.
    pub fn apply(&mut self, batch: &Batch, crc: u32, again: bool) {
        if self.applied.contains_key(&batch.id) && !again {
            self.duplicates += 1;
            return;
        }
        let marker = marker_of(batch);
        if self.contents.get(&batch.id) != Some(&crc) {
            self.violations.push(format!("{} was applied with bytes nobody sent", batch.id));
        }
        if let Some(marker) = marker
            && let Some(other) = self.markers.insert(marker, batch.id)
        {
            let what = format!("window {marker} was applied as {other} and as {}", batch.id);
            self.violations.push(what);
        }
        self.applied.insert(batch.id, marker);
        if let Some(previous) = batch.previous {
            let last = self.expected_last.entry(previous.epoch).or_default();
            *last = (*last).max(previous.last_seq);
        }
        let told = batch.declarations.iter();
        self.declared.extend(told.map(|told| (told.epoch, told.first_seq, told.last_seq)));
        if batch.closing
            && let BatchId::Sequenced { epoch, seq, .. } = batch.id
        {
            self.expected_last.insert(epoch, seq);
        }
    }

    fn is_declared(&self, id: &BatchId) -> bool {
        let BatchId::Sequenced { epoch, seq, .. } = *id else { return false };
        self.declared
            .iter()
            .any(|(of, first, last)| *of == epoch && (*first..=*last).contains(&seq))
    }

    /// Batches: those that a spool answered for, those that were applied, those declared.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64) {
        let declared: u64 = self.declared.iter().map(|(_, first, last)| last - first + 1).sum();
        (self.kept.len() as u64, self.applied.len() as u64, declared)
    }

    /// What is wrong now that everything has come to rest.
    pub fn verdict(&mut self, quarantined: &[BatchId]) {
        let mut wrong = Vec::new();
        for (id, (custody, marker)) in &self.kept {
            match self.applied.get(id) {
                Some(Some(applied)) if applied != marker => {
                    wrong.push(format!("{id} was applied with the window of another"));
                }
                Some(_) => {}
                None if self.is_declared(id) || quarantined.contains(id) => {}
                None if *custody == Custody::Volatile => {}
                // There were no bytes to keep, and its name could not be noted.
                None if *custody == Custody::Refused && self.state_failed => {}
                None => wrong.push(format!("{id} ({custody:?}) was neither applied nor declared")),
            }
        }
        for id in self.applied.keys() {
            let BatchId::Sequenced { epoch, seq, .. } = *id else { continue };
            if self.given.get(&epoch).is_none_or(|given| *given < seq) {
                wrong.push(format!("{id} was applied and never given"));
            }
        }
        for (epoch, first, last) in &self.declared {
            if self.given.get(epoch).is_none_or(|given| given < last) {
                wrong.push(format!("{epoch}/{first}-{last} was declared and never given"));
            }
        }
        self.ends(&mut wrong);
        self.violations.extend(wrong);
    }

    /// How far each epoch went must be known, or its tail is lost in silence; and it must be true.
    fn ends(&self, wrong: &mut Vec<String>) {
        let mut last_kept: BTreeMap<Uuid, u64> = BTreeMap::new();
        for id in self.kept.keys() {
            let BatchId::Sequenced { epoch, seq, .. } = *id else { continue };
            let last = last_kept.entry(epoch).or_default();
            *last = (*last).max(seq);
        }
        for (epoch, kept) in &last_kept {
            match self.expected_last.get(epoch) {
                None if self.state_failed => {}
                None => wrong.push(format!("nobody knows that epoch {epoch} ended at {kept}")),
                Some(known) if known < kept && !self.state_failed => {
                    wrong.push(format!("epoch {epoch} ended at {kept}, it is said at {known}"));
                }
                Some(_) => {}
            }
        }
        for (epoch, known) in &self.expected_last {
            if self.given.get(epoch).is_none_or(|given| given < known) {
                wrong.push(format!("epoch {epoch} is said to end at {known}, beyond what it gave"));
            }
        }
    }
}

fn marker_of(batch: &Batch) -> Option<u64> {
    let series = batch.series.iter().find(|series| series.metric == MARKER)?;
    series.points.first().map(|point| point.value as u64)
}
