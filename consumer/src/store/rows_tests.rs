//! Packing, merging within a transaction, and statement shapes.

use super::super::decide::Fate;
use super::super::draft::{Draft, Drafts};
use super::super::{Fresh, Work};
use super::*;
use spillway_proto::BatchId;

/// Series, window, samples.
type Piece = (u64, u32, Vec<(i64, f64)>);

fn drafts(batches: &[Vec<Piece>]) -> Drafts {
    let mut drafts = Drafts::default();
    for (index, rows) in batches.iter().enumerate() {
        let from = drafts.rows.len();
        for (series_id, window_ts, samples) in rows {
            let at = drafts.samples.len();
            drafts.samples.extend(samples);
            let samples = at..drafts.samples.len();
            drafts.rows.push(DraftRow { series_id: *series_id, window_ts: *window_ts, samples });
        }
        drafts.batches.push(Draft {
            index,
            id: BatchId::Content { hash: index as u128 },
            crc: 0,
            environment: "demo".into(),
            host: "h".into(),
            host_id: 1,
            window_ts: 0,
            points: 0,
            expired: 0,
            newest_ts: 0,
            minutes: vec![],
            rows: from..drafts.rows.len(),
            sightings: 0..0,
            previous: None,
            declarations: vec![],
            closing: false,
            host_info: None,
        });
    }
    drafts
}

fn packed(drafts: &Drafts, fates: &[Fate]) -> Vec<(u64, u32, String)> {
    let mut rows = Rows::default();
    let work = Work {
        records: &[],
        drafts,
        quarantined: &[],
        now_ms: 0,
        ledger_retention: Duration::ZERO,
        left: &|_, _| Fresh::default(),
    };
    rows.pack(&Trial { work: &work, fates });
    let text = |row: &Row| String::from_utf8(rows.text[row.vals.clone()].to_vec()).unwrap();
    rows.rows.iter().map(|row| (row.series_id, row.window_ts, text(row))).collect()
}

fn apply(count: usize) -> Vec<Fate> {
    let id = BatchId::Content { hash: 0 };
    vec![Fate::Apply { id, cloned: false }; count]
}

#[test]
fn pieces_of_one_row_become_one_row_and_the_later_arrival_wins() {
    let drafts = drafts(&[
        vec![(7, 20, vec![(1, 1.0), (3, 1.0)]), (5, 10, vec![(0, 5.0)])],
        vec![(7, 20, vec![(2, 2.0), (3, 2.0)]), (7, 10, vec![(0, 9.0)])],
    ]);
    let rows = packed(&drafts, &apply(2));
    assert_eq!(
        rows,
        [
            (5, 10, "[5]".to_owned()),
            (7, 10, "[9]".to_owned()),
            (7, 20, "[[1,1],[2,2],[3,2]]".to_owned()),
        ]
    );
}

#[test]
fn a_duplicate_leaves_no_trace_in_the_rows() {
    let drafts = drafts(&[vec![(7, 20, vec![(1, 1.0)])], vec![(7, 20, vec![(2, 2.0)])]]);
    let fates = [Fate::Duplicate, Fate::Apply { id: BatchId::Content { hash: 1 }, cloned: false }];
    assert_eq!(packed(&drafts, &fates), [(7, 20, "[[2,2]]".to_owned())]);
}

#[test]
fn rows_go_in_partition_by_partition_and_in_key_order() {
    let hour = 3_600;
    let drafts = drafts(&[vec![
        (9, hour, vec![(0, 1.0)]),
        (1, hour + 10, vec![(0, 1.0)]),
        (9, 0, vec![(0, 1.0)]),
        (1, hour, vec![(0, 1.0)]),
    ]]);
    let keys: Vec<_> =
        packed(&drafts, &apply(1)).into_iter().map(|(id, window, _)| (id, window)).collect();
    assert_eq!(keys, [(9, 0), (1, hour), (1, hour + 10), (9, hour)]);
}

#[test]
fn statements_have_few_shapes_and_bounded_bytes() {
    let mut rows = Rows::default();
    let row = |bytes: usize| Row { series_id: 0, window_ts: 0, summary: None, vals: 0..bytes };
    rows.rows = vec![row(10); 634];
    let mut shapes = Vec::new();
    let mut next = 0;
    while next < rows.rows.len() {
        shapes.push(rows.shape_at(next));
        next += rows.shape_at(next);
    }
    assert_eq!(shapes, [500, 100, 20, 4, 4, 4, 1, 1]);
    rows.rows = vec![row(STATEMENT_BYTES_MAX / 10); 500];
    assert_eq!(rows.shape_at(0), 4);
    rows.rows = vec![row(STATEMENT_BYTES_MAX * 2)];
    assert_eq!(rows.shape_at(0), 1);
}
