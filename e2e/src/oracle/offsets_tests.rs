//! Each way in which Kafka and MySQL may disagree is found.

use spillway_proto::kafka_record::Lane;

use super::super::log::LogRecord;
use super::super::store::Standing;
use super::*;

fn id(hash: u128) -> BatchId {
    BatchId::Content { hash }
}

fn record(hash: u128) -> LogRecord {
    let crc = hash as u32;
    LogRecord { id: Some(id(hash)), value_crc: crc, frame_crc: Some(crc), points: 3 }
}

fn row(hash: u128, offset: i64) -> Applied {
    let place = (Lane::Live, 0, offset);
    Applied { id: id(hash), crc: hash as u32, points: 3, place, shard: "s0".into() }
}

/// Two batches, the second of them twice.
fn world() -> (Log, Store) {
    let mut log = Log::default();
    for (offset, hash) in [(0, 1), (1, 2), (2, 2)] {
        log.records.insert((Lane::Live, 0, offset), record(hash));
    }
    log.ends.insert((Lane::Live, 0), (0, 3));
    let mut store = Store { applied: vec![row(1, 0), row(2, 1)], ..Store::default() };
    store.positions.insert((Lane::Live, 0), Standing { next: 3, crc: Some(2) });
    (log, store)
}

#[test]
fn a_log_that_was_applied_once_holds() {
    let (log, store) = world();
    let (counts, found) = judge(&log, &store, &[]);
    assert!(found.is_empty(), "{found:?}");
    assert_eq!((counts.records, counts.applied, counts.duplicates), (3, 2, 1));
}

#[test]
fn each_way_of_disagreeing_is_found() {
    let spoil: [fn(&mut Log, &mut Store); 8] = [
        |_, store| drop(store.applied.pop()),
        |_, store| store.applied.push(row(2, 2)),
        |_, store| store.applied.push(row(9, 0)),
        |_, store| store.applied.iter_mut().for_each(|row| row.crc += 1),
        |_, store| store.positions.values_mut().for_each(|at| at.next = 2),
        |_, store| store.positions.values_mut().for_each(|at| at.crc = None),
        |log, _| {
            log.records.remove(&(Lane::Live, 0, 0));
        },
        |_, store| drop(store.quarantined.insert((Lane::Live, 0, 2), "reason".into())),
    ];
    for (number, spoil) in spoil.iter().enumerate() {
        let (mut log, mut store) = world();
        spoil(&mut log, &mut store);
        assert!(!judge(&log, &store, &[]).1.is_empty(), "{number}");
    }
}
