//! What a frame promises, from outside: round trips, frozen bytes, damage at every byte.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use bytes::Bytes;
use proptest::prelude::*;
use spillway_proto::frame::{self, Decoder, EncodeError, Encoder, FrameError};
use spillway_proto::{
    Batch, BatchId, Declaration, HostInfo, Kind, Point, PreviousEpoch, Series, limits,
};
use uuid::Uuid;

/// Made-up data: one small batch with every field in use.
fn sample() -> Batch {
    Batch {
        id: BatchId::Sequenced {
            agent_id: Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_8888),
            epoch: Uuid::from_u128(0x0193_4c5e_0000_7000_8000_0000_0000_0001),
            seq: 42,
        },
        environment: "demo".into(),
        host: "web-1".into(),
        window_ts: 1_700_000_000,
        series: vec![
            Series {
                metric: "cpu.usage".into(),
                labels: vec![("core".into(), "0".into()), ("mode".into(), "user".into())],
                kind: Kind::Gauge,
                unit: "1".into(),
                points: vec![
                    Point { ts_ms: 1_700_000_000_000, value: 0.25 },
                    Point { ts_ms: 1_700_000_005_000, value: -0.0 },
                ],
            },
            Series {
                metric: "net.bytes".into(),
                labels: vec![],
                kind: Kind::Cumulative,
                unit: "bytes".into(),
                points: vec![Point { ts_ms: 1_699_999_999_999, value: 9_007_199_254_740_993.0 }],
            },
        ],
        previous: Some(PreviousEpoch { epoch: Uuid::from_u128(5), last_seq: 17 }),
        declarations: vec![Declaration {
            epoch: Uuid::from_u128(5),
            first_seq: 3,
            last_seq: 4,
            reason: "spool-full".into(),
        }],
        closing: true,
        host_info: Some(HostInfo {
            agent_version: "0.1.0".into(),
            clock_skew_ms: Some(-12),
            labels: vec![("rack".into(), "7".into())],
            backlog_batches: Some(3),
        }),
    }
}

fn encode(batch: &Batch) -> Bytes {
    Encoder::new().encode(batch).unwrap()
}

#[test]
fn a_batch_survives_its_frame() {
    let batch = sample();
    let frame = encode(&batch);
    assert_eq!(Decoder::new().decode(&frame).unwrap().to_batch(), batch);
    let verified = frame::verify(&frame).unwrap();
    assert_eq!((verified.environment.as_str(), verified.host.as_str()), ("demo", "web-1"));
    assert_eq!(verified.header.id, batch.id);
}

#[test]
fn frames_of_version_1_decode_for_ever() {
    let frozen: &[u8] = include_bytes!("../golden/frame_v1.bin");
    assert_eq!(Decoder::new().decode(frozen).unwrap().to_batch(), sample());
    let header = frame::check(frozen).unwrap();
    assert_eq!(&frozen[..4], b"SPWF");
    assert_eq!(header.points, 3);
}

#[test]
fn a_frame_flipped_at_any_byte_or_cut_anywhere_is_refused() {
    let frame = encode(&sample());
    let mut decoder = Decoder::new();
    for at in 0..frame.len() {
        for bit in 0..8 {
            let mut damaged = frame.to_vec();
            damaged[at] ^= 1 << bit;
            assert!(decoder.decode(&damaged).is_err(), "byte {at} bit {bit}");
        }
        assert!(decoder.decode(&frame[..at]).is_err(), "cut at {at}");
    }
    let longer = [frame.as_ref(), b"x"].concat();
    assert!(decoder.decode(&longer).is_err());
}

#[test]
fn a_body_is_cut_into_its_frames_and_damage_is_told_apart() {
    let frame = encode(&sample());
    let two = Bytes::from([frame.as_ref(), frame.as_ref()].concat());
    let frames = frame::split(&two);
    assert_eq!(frames, vec![Ok(frame.clone()), Ok(frame.clone())]);
    let cut = two.slice(..two.len() - 1);
    let frames = frame::split(&cut);
    assert_eq!(frames.len(), 2);
    assert!(frames[0].is_ok() && frames[1].is_err());
    assert!(frame::split(&Bytes::new()).is_empty());
    let many = Bytes::from(frame.repeat(limits::FRAMES_PER_BODY_MAX + 1));
    let frames = frame::split(&many);
    assert_eq!(frames.iter().filter(|frame| frame.is_ok()).count(), limits::FRAMES_PER_BODY_MAX);
    assert!(matches!(frames.last(), Some(Err(FrameError::Limit { .. }))));
}

#[test]
fn one_over_each_limit_is_refused_before_it_is_sent() {
    let mut encoder = Encoder::new();
    let mut refused = |change: &dyn Fn(&mut Batch)| {
        let mut batch = sample();
        change(&mut batch);
        let error = encoder.encode(&batch).unwrap_err();
        let EncodeError::Invalid(error) = error else { panic!("{error}") };
        assert!(error.to_string().len() < 200, "{error}");
    };
    refused(&|batch| batch.environment = "x".repeat(limits::ENVIRONMENT_BYTES_MAX + 1));
    refused(&|batch| batch.environment = "a/b".into());
    refused(&|batch| batch.environment.clear());
    refused(&|batch| batch.host = "h".repeat(limits::HOST_BYTES_MAX + 1));
    refused(&|batch| batch.host.clear());
    refused(&|batch| batch.host = "a\0b".into());
    refused(&|batch| batch.window_ts += 1);
    refused(&|batch| batch.series[0].metric = "m".repeat(limits::METRIC_BYTES_MAX + 1));
    refused(&|batch| batch.series[0].metric.clear());
    refused(&|batch| batch.series[0].unit = "u".repeat(limits::UNIT_BYTES_MAX + 1));
    refused(&|batch| batch.series[0].labels.reverse());
    refused(&|batch| batch.series[0].labels[1].0 = "core".into());
    refused(&|batch| batch.series[0].labels[0].0.clear());
    refused(&|batch| batch.series[0].labels[0].1 = "v".repeat(limits::LABEL_VALUE_BYTES_MAX + 1));
    refused(&|batch| batch.series[0].points.clear());
    refused(&|batch| batch.series[0].points.reverse());
    refused(&|batch| batch.series[0].points[0].ts_ms = -1);
    refused(&|batch| batch.series[0].points[1].ts_ms = limits::TS_MS_MAX + 1);
    refused(&|batch| batch.series[0].points[1].ts_ms = i64::MAX);
    refused(&|batch| batch.declarations[0].first_seq = 0);
    refused(&|batch| batch.declarations[0].reason = "r".repeat(limits::REASON_BYTES_MAX + 1));
    refused(&|batch| {
        let declaration = batch.declarations[0].clone();
        batch.declarations = vec![declaration; limits::BATCH_DECLARATIONS_MAX + 1];
    });
    refused(&|batch| {
        let series = batch.series[1].clone();
        batch.series = vec![series; limits::BATCH_SERIES_MAX + 1];
    });
    refused(&|batch| {
        batch.series[0].labels =
            (0..=limits::LABELS_MAX).map(|n| (format!("l{n:04}"), String::new())).collect();
    });
}

/// Names would pass for those of another batch, or be poison where nobody can refuse them any more.
#[test]
fn an_id_that_was_neither_counted_nor_computed_is_refused() {
    let batch = sample();
    let (agent_id, epoch) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let counted = |seq| BatchId::Sequenced { agent_id, epoch, seq };
    let declaration = Declaration { last_seq: u64::MAX, ..batch.declarations[0].clone() };
    for wrong in [
        Batch { id: counted(limits::SEQ_MAX + 1), ..batch.clone() },
        Batch { previous: Some(PreviousEpoch { epoch, last_seq: u64::MAX }), ..batch.clone() },
        Batch { declarations: vec![declaration], ..batch.clone() },
        Batch { id: BatchId::Content { hash: 1 }, ..batch.clone() },
    ] {
        let refused = Encoder::new().encode(&wrong).unwrap_err();
        assert!(matches!(refused, EncodeError::Invalid(FrameError::Content(_))), "{refused:?}");
    }
    Encoder::new().encode(&Batch { id: counted(limits::SEQ_MAX), ..batch.clone() }).unwrap();

    let (mut own, mut others) = (batch.clone(), Batch { environment: "acme".into(), ..batch });
    let others = Encoder::new().encode_by_content(&mut others).unwrap();
    let mut forged = Encoder::new().encode_by_content(&mut own).unwrap().to_vec();
    assert!(Decoder::new().decode(&forged).is_ok());
    forged[32..72].copy_from_slice(&others[32..72]);
    let crc = crc32c::crc32c(&forged[8..]);
    forged[4..8].copy_from_slice(&crc.to_le_bytes());
    let refused = Decoder::new().decode(&forged).err().unwrap();
    assert!(matches!(refused, FrameError::Content(_)), "another's content id: {refused:?}");
}

#[test]
fn a_series_with_one_label_too_many_hears_so_also_alone_in_its_batch() {
    let mut batch = sample();
    batch.series.truncate(1);
    batch.series[0].labels =
        (0..=limits::LABELS_MAX).map(|n| (format!("l{n:04}"), "v".to_owned())).collect();
    let error = Encoder::new().encode(&batch).unwrap_err();
    assert!(error.to_string().contains("labels of one series is 65, the limit is 64"), "{error}");
}

#[test]
fn a_header_that_promises_the_world_allocates_nothing() {
    let mut bomb = encode(&sample()).to_vec();
    for at in [12, 16, 20, 24] {
        let mut claimed = bomb.clone();
        claimed[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(frame::verify(&claimed), Err(FrameError::Limit { .. })), "{at}");
    }
    // A body that is larger than its header states stops at the stated size.
    let zeros = zstd::bulk::compress(&vec![0; 1 << 20], 19).unwrap();
    bomb.truncate(frame::HEADER_BYTES);
    bomb.extend_from_slice(&zeros);
    let body_bytes = u32::try_from(zeros.len()).unwrap();
    bomb[12..16].copy_from_slice(&body_bytes.to_le_bytes());
    let crc = crc32c::crc32c(&bomb[8..]);
    bomb[4..8].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(frame::verify(&bomb), Err(FrameError::Compression(_))));
}

fn any_value() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits)
}

prop_compose! {
    fn any_series()(
        metric in "[a-z.]{1,20}",
        labels in proptest::collection::btree_map("[a-z]{1,8}", "\\PC{0,20}", 0..4),
        kind in prop_oneof![Just(Kind::Gauge), Just(Kind::Delta), Just(Kind::Cumulative)],
        points in proptest::collection::btree_map(0..limits::TS_MS_MAX, any_value(), 1..20),
    ) -> Series {
        let points = points.into_iter().map(|(ts_ms, value)| Point { ts_ms, value }).collect();
        let labels = labels.into_iter().collect();
        Series { metric, labels, kind, unit: String::new(), points }
    }
}

/// Equality by bits, so that NaN equals itself and −0 differs from 0.
fn bits(batch: &Batch) -> Vec<(String, Vec<(i64, u64)>)> {
    let points = |series: &Series| {
        series.points.iter().map(|point| (point.ts_ms, point.value.to_bits())).collect()
    };
    batch.series.iter().map(|series| (series.metric.clone(), points(series))).collect()
}

proptest! {
    #[test]
    fn any_batch_survives_bit_for_bit(
        series in proptest::collection::vec(any_series(), 0..20),
        seq in 1..=limits::SEQ_MAX,
        window in 0..400_000_000_u32,
    ) {
        let id = BatchId::Sequenced { agent_id: Uuid::from_u128(1), epoch: Uuid::max(), seq };
        let batch = Batch { series, id, window_ts: window * 10, ..sample() };
        let frame = encode(&batch);
        let mut decoder = Decoder::new();
        let decoded = decoder.decode(&frame).unwrap().to_batch();
        prop_assert_eq!(bits(&decoded), bits(&batch));
        prop_assert_eq!(decoded.id, batch.id);
    }

    #[test]
    fn random_bytes_behind_a_true_checksum_never_panic(
        raw in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let body = zstd::bulk::compress(&raw, 1).unwrap();
        let mut frame = encode(&sample()).to_vec();
        frame.truncate(frame::HEADER_BYTES);
        frame.extend_from_slice(&body);
        frame[12..16].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        frame[16..20].copy_from_slice(&u32::try_from(raw.len()).unwrap().to_le_bytes());
        let crc = crc32c::crc32c(&frame[8..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        if let Ok(view) = Decoder::new().decode(&frame) {
            let batch = view.to_batch();
            prop_assert_eq!(batch.points(), view.header.points);
        }
    }
}
