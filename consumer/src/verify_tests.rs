//! What a record says of itself, held against its frame.

use std::sync::Arc;

use bytes::Bytes;
use spillway_proto::frame::Encoder;
use spillway_proto::kafka_record::Lane;
use spillway_proto::{Batch, BatchId, Kind, Point, Series};
use uuid::Uuid;

use super::*;
use crate::books::Receipt;
use crate::receive::Appended;

fn partitioning() -> Partitioning {
    Partitioning::new(64, 4).unwrap()
}

fn batch(seq: u64) -> Batch {
    let agent_id = Uuid::from_u128(1);
    Batch {
        id: BatchId::Sequenced { agent_id, epoch: Uuid::from_u128(2), seq },
        environment: "demo".into(),
        host: "web-1".into(),
        window_ts: 1_000,
        series: vec![Series {
            metric: "cpu".into(),
            labels: vec![],
            kind: Kind::Gauge,
            unit: String::new(),
            points: vec![Point { ts_ms: 1_000_000, value: 1.0 }],
        }],
        previous: None,
        declarations: vec![],
        closing: false,
        host_info: None,
    }
}

fn record(batch: &Batch) -> Record {
    Record {
        lane: Lane::Live,
        partition: partitioning().partition_of("demo", "web-1"),
        offset: 7,
        claim: 1,
        appended: Appended::At(1_000_000),
        key: Some(Bytes::copy_from_slice(&batch.id.to_bytes())),
        value: Some(Encoder::new().encode(batch).unwrap()),
        environment: Some(Bytes::from_static(b"demo")),
        receipt: Receipt::new(&Arc::default(), Lane::Live, 1),
    }
}

fn refused(record: &Record) -> Option<Reason> {
    verify(&mut Decoder::new(), record, partitioning()).err().map(|refused| refused.reason)
}

#[test]
fn a_true_record_passes() {
    assert_eq!(refused(&record(&batch(1))), None);
}

#[test]
fn what_a_record_says_of_itself_must_be_what_its_frame_says() {
    let good = || record(&batch(1));
    let other = record(&batch(2));
    assert_eq!(refused(&Record { key: other.key, ..good() }), Some(Reason::KeyMismatch));
    assert_eq!(refused(&Record { key: None, ..good() }), Some(Reason::KeyMismatch));
    let forged = Some(Bytes::from_static(b"acme"));
    let forged = Record { environment: forged, ..good() };
    assert_eq!(refused(&forged), Some(Reason::EnvironmentMismatch));
    let unnamed = Record { environment: None, ..good() };
    assert_eq!(refused(&unnamed), Some(Reason::EnvironmentMismatch));
    let misplaced = Record { partition: good().partition ^ 1, ..good() };
    assert_eq!(refused(&misplaced), Some(Reason::PartitionMismatch));
    let tombstone = Record { value: None, ..good() };
    assert_eq!(refused(&tombstone), Some(Reason::Tombstone));
}

#[test]
fn a_flipped_bit_anywhere_in_the_frame_is_found() {
    let good = || record(&batch(1));
    let frame = good().value.unwrap();
    for at in 0..frame.len() {
        let mut bytes = frame.to_vec();
        bytes[at] ^= 0x10;
        let damaged = Record { value: Some(bytes.into()), ..good() };
        assert!(matches!(refused(&damaged), Some(Reason::Frame(_))), "byte {at}");
    }
}
