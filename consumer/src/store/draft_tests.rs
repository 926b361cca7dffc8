//! Rows at the grid, and points without a place.

use spillway_proto::frame::{Decoder, Encoder};
use spillway_proto::{Batch, Point, Series};
use uuid::Uuid;

use super::*;

const APPENDED_MS: i64 = 1_800_000_000_000;
const JUDGE: Judge =
    Judge { raw_retention_ms: 7 * 86_400_000, future_max_ms: 3_600_000, floor_ts: 0 };

fn batch(times: &[i64]) -> Batch {
    Batch {
        id: BatchId::Sequenced { agent_id: Uuid::from_u128(1), epoch: Uuid::from_u128(2), seq: 1 },
        environment: "demo".into(),
        host: "web-1".into(),
        window_ts: (APPENDED_MS / 10_000 * 10) as u32,
        series: vec![Series {
            metric: "cpu".into(),
            labels: vec![("a\"b".into(), "ü\\".into()), ("mode".into(), "user".into())],
            kind: Kind::Gauge,
            unit: "1".into(),
            points: times.iter().map(|ts_ms| Point { ts_ms: *ts_ms, value: 0.5 }).collect(),
        }],
        previous: None,
        declarations: vec![],
        closing: false,
        host_info: None,
    }
}

fn draft(times: &[i64], judge: &Judge) -> Result<Drafts, Refused> {
    let frame = Encoder::new().encode(&batch(times)).unwrap();
    let mut decoder = Decoder::new();
    let view = decoder.decode(&frame).unwrap();
    let mut drafts = Drafts::default();
    drafts.add(0, &view, (APPENDED_MS, judge), &Known::default()).map(|()| drafts)
}

#[test]
fn a_row_never_crosses_the_grid() {
    let times = [APPENDED_MS, APPENDED_MS + 9_999, APPENDED_MS + 10_000, APPENDED_MS + 70_001];
    let drafts = draft(&times, &JUDGE).unwrap();
    let rows: Vec<_> =
        drafts.rows.iter().map(|r| (r.window_ts, &drafts.samples[r.samples.clone()])).collect();
    let start = (APPENDED_MS / 1_000) as u32;
    assert_eq!(rows[0], (start, &[(0, 0.5), (9_999, 0.5)][..]));
    assert_eq!(rows[1], (start + 10, &[(0, 0.5)][..]));
    assert_eq!(rows[2], (start + 70, &[(1, 0.5)][..]));
    let batch = &drafts.batches[0];
    assert_eq!((batch.points, batch.expired), (4, 0));
    assert_eq!(batch.minutes, [start / 60 * 60, (start + 70) / 60 * 60]);
    assert_eq!(drafts.sightings[0].labels, r#"{"a\"b":"ü\\","mode":"user"}"#);
}

#[test]
fn points_before_raw_retention_are_counted_and_have_no_row() {
    let times = [0, APPENDED_MS - 7 * 86_400_000 - 1, APPENDED_MS - 7 * 86_400_000];
    let drafts = draft(&times, &JUDGE).unwrap();
    assert_eq!((drafts.batches[0].points, drafts.batches[0].expired), (1, 2));
    assert_eq!(drafts.rows.len(), 1);
}

#[test]
fn points_whose_partition_is_gone_have_no_row_in_another_one() {
    let floor_ts = ((APPENDED_MS - 3_600_000) / 1_000) as u32;
    let times = [APPENDED_MS - 3_600_001, APPENDED_MS];
    let drafts = draft(&times, &Judge { floor_ts, ..JUDGE }).unwrap();
    assert_eq!((drafts.batches[0].points, drafts.batches[0].expired), (1, 1));
}

#[test]
fn one_point_too_far_in_the_future_refuses_the_whole_batch() {
    assert!(draft(&[APPENDED_MS, APPENDED_MS + 3_600_000], &JUDGE).is_ok());
    let refused = draft(&[APPENDED_MS, APPENDED_MS + 3_600_001], &JUDGE).err().unwrap();
    assert_eq!(refused.reason, Reason::FutureTime);
    assert_eq!(refused.batch.unwrap().points, 2);
}

#[test]
fn a_batch_of_nothing_but_expired_points_names_no_series() {
    let drafts = draft(&[1, 2, 3], &JUDGE).unwrap();
    assert_eq!((drafts.batches[0].expired, drafts.sightings.len()), (3, 0));
}
