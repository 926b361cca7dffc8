//! L5: (partition, offset) ↔ one payload, for every observer: Kafka itself, read from the
//! beginning; the audit rows; the crc beside each stored offset; the ledger.

use std::collections::BTreeMap;

use spillway_proto::BatchId;

use super::log::{Log, Place};
use super::store::{Applied, Store};
use crate::ledger::{Attempted, Fate};
use crate::verdict::Findings;

/// What was held against each other.
#[derive(Debug, Default)]
pub struct Counts {
    pub records: u64,
    pub applied: u64,
    pub duplicates: u64,
    pub quarantined: u64,
}

/// Compares log, shards and ledger; all of the log must be applied already.
#[must_use]
pub fn judge(log: &Log, store: &Store, entries: &[Attempted]) -> (Counts, Findings) {
    let mut found = Findings::default();
    let applied = by_place(store, &mut found);
    let by_id = by_id(store, &mut found);
    judge_log(log, &mut found);
    let counts = judge_records(log, store, &applied, &by_id, &mut found);
    judge_positions(log, store, &mut found);
    let places = log.places();
    for entry in entries.iter().filter(|entry| entry.fate == Fate::Ok) {
        let id = entry.recipe.id;
        if !places.contains_key(&id) {
            found.push(Some(id), || format!("{id} was accepted and is nowhere in Kafka"));
        } else if !by_id.contains_key(&id) {
            found.push(Some(id), || format!("{id} is in Kafka and was never applied under its id"));
        }
    }
    for (place, row) in &applied {
        if !log.records.contains_key(place) {
            found.push(Some(row.id), || format!("{place:?} was applied and is not in Kafka"));
        }
    }
    // A consumer that died between the letter and the COMMIT sends the letter again.
    if log.dead_letters < counts.quarantined {
        let (letters, rows) = (log.dead_letters, counts.quarantined);
        found.push(None, || format!("{letters} dead letters, {rows} quarantined in MySQL"));
    }
    (counts, found)
}

fn by_place<'a>(store: &'a Store, found: &mut Findings) -> BTreeMap<Place, &'a Applied> {
    let mut places: BTreeMap<Place, &Applied> = BTreeMap::new();
    for row in &store.applied {
        if let Some(other) = places.insert(row.place, row) {
            let text = || format!("{:?} was applied as {} and as {}", row.place, other.id, row.id);
            found.push(Some(row.id), text);
        }
    }
    places
}

fn by_id<'a>(store: &'a Store, found: &mut Findings) -> BTreeMap<BatchId, &'a Applied> {
    let mut ids: BTreeMap<BatchId, &Applied> = BTreeMap::new();
    for row in &store.applied {
        if let Some(other) = ids.insert(row.id, row) {
            let text = || {
                let (first, second) = (&other.place, &row.place);
                format!("{} was applied twice, from {first:?} and {second:?}", row.id)
            };
            found.push(Some(row.id), text);
        }
    }
    ids
}

/// The log has no holes, and what it holds are frames.
fn judge_log(log: &Log, found: &mut Findings) {
    for ((lane, partition), (low, high)) in &log.ends {
        for offset in *low..*high {
            if !log.records.contains_key(&(*lane, *partition, offset)) {
                found.push(None, || format!("{lane:?}/{partition}@{offset} can't be read"));
            }
        }
    }
}

/// Each record was applied from its place, or is a duplicate of one that was, or is quarantined.
fn judge_records(
    log: &Log,
    store: &Store,
    applied: &BTreeMap<Place, &Applied>,
    by_id: &BTreeMap<BatchId, &Applied>,
    found: &mut Findings,
) -> Counts {
    let mut counts = Counts { records: log.records.len() as u64, ..Counts::default() };
    for (place, record) in &log.records {
        if store.quarantined.contains_key(place) {
            counts.quarantined += 1;
            continue;
        }
        let Some(id) = record.id else {
            found.push(None, || format!("{place:?} has no id for a key and was not quarantined"));
            continue;
        };
        if let Some(row) = applied.get(place) {
            counts.applied += 1;
            if row.id != id || Some(row.crc) != record.frame_crc || row.points != record.points {
                let text = || {
                    let kafka = (id, record.frame_crc, record.points);
                    let audit = (row.id, row.crc, row.points);
                    format!("{place:?} holds {kafka:?}, audit has {audit:?}")
                };
                found.push(Some(id), text);
            }
        } else if let Some(row) = by_id.get(&id) {
            counts.duplicates += 1;
            if Some(row.crc) != record.frame_crc {
                found.push(Some(id), || format!("{place:?} repeats {id} with other bytes"));
            }
        } else {
            found.push(Some(id), || format!("{place:?} with {id} was passed and not applied"));
        }
    }
    counts
}

/// Each partition stands at its log's end, and remembers the record before it.
fn judge_positions(log: &Log, store: &Store, found: &mut Findings) {
    for ((lane, partition), (low, high)) in &log.ends {
        let Some(at) = store.positions.get(&(*lane, *partition)) else {
            found.push(None, || format!("no shard has a position for partition {partition}"));
            continue;
        };
        if at.next != *high {
            let next = at.next;
            found.push(None, || format!("{lane:?}/{partition} stands at {next} of {high}"));
        }
        let before = log.records.get(&(*lane, *partition, at.next - 1));
        let same = before.is_none_or(|record| at.crc == Some(record.value_crc));
        if !same && at.next > *low {
            let text = || format!("the crc before {lane:?}/{partition}@{} is another", at.next);
            found.push(None, text);
        }
    }
}

#[cfg(test)]
#[path = "offsets_tests.rs"]
mod tests;
