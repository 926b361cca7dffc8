//! The way of a batch that a law was broken for: which hop last had it.

use std::fmt::Write as _;

use spillway_proto::BatchId;

use super::log::Log;
use super::store::Store;
use crate::ledger::Ledger;

/// A few lines: ledger, Kafka, audit row. What lies in S3 can't be told apart: it is sealed.
#[must_use]
pub fn of(id: &BatchId, ledger: &Ledger, log: &Log, store: &Store) -> String {
    let mut text = format!("{id}");
    let mut tell = |line: String| write!(text, "\n      {line}").unwrap_or_default();
    match ledger.get(id) {
        None => tell("ledger: never attempted".into()),
        Some(entry) => tell(format!(
            "ledger: {:?} of {} window {}, {} requests to the API, {} objects into S3, {} points",
            entry.fate,
            entry.recipe.host,
            entry.recipe.window_ts,
            entry.attempts,
            entry.puts,
            entry.recipe.points()
        )),
    }
    let places: Vec<String> = log
        .records
        .iter()
        .filter(|(_, record)| record.id == Some(*id))
        .map(|((lane, partition, offset), record)| {
            format!("{}/{partition}@{offset} crc {:08x?}", lane.as_str(), record.frame_crc)
        })
        .collect();
    match places.is_empty() {
        true => tell("Kafka: nowhere (lost before its delivery, or still in S3)".into()),
        false => tell(format!("Kafka: {}", places.join(", "))),
    }
    let rows: Vec<String> = store
        .applied
        .iter()
        .filter(|row| row.id == *id)
        .map(|row| {
            let (lane, partition, offset) = row.place;
            let lane = lane.as_str();
            format!("{} from {lane}/{partition}@{offset} crc {:08x}", row.shard, row.crc)
        })
        .collect();
    match rows.is_empty() {
        true => tell("audit: no row (lost between Kafka and MySQL)".into()),
        false => tell(format!("audit: {}", rows.join(", "))),
    }
    text
}
