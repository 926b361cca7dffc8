//! The compare-and-set, and how an unanswered COMMIT is judged.

use super::*;

fn advance(partition: u16, from: PerLane<i64>, to: PerLane<i64>) -> Advance {
    Advance { partition, fence: 7, shard_epoch: 2, from, to, crc: [Some(9), None] }
}

fn found(rows: &[(u32, Standing)]) -> BTreeMap<u32, Standing> {
    rows.iter().copied().collect()
}

#[test]
fn an_unanswered_commit_is_decided_by_where_all_positions_stand() {
    let advances = vec![advance(1, [5, 0], [9, 0]), advance(2, [3, 3], [3, 8])];
    let both = |a, b| found(&[(1, (7, 2, a)), (2, (7, 2, b))]);
    let applied = judge(advances.clone(), &both([9, 0], [3, 8]));
    assert!(matches!(applied, Settled::Applied(committed) if committed.advances() == advances));
    assert_eq!(judge(advances.clone(), &both([5, 0], [3, 3])), Settled::NotApplied);
    assert_eq!(judge(advances, &both([9, 0], [3, 3])), Settled::Fenced);
}

#[test]
fn another_fence_epoch_or_a_missing_row_is_never_ours() {
    let advances = vec![advance(1, [5, 0], [9, 0])];
    assert_eq!(judge(advances.clone(), &found(&[(1, (8, 2, [9, 0]))])), Settled::Fenced);
    assert_eq!(judge(advances.clone(), &found(&[(1, (7, 3, [5, 0]))])), Settled::Fenced);
    assert_eq!(judge(advances, &found(&[])), Settled::Fenced);
}

#[test]
fn the_update_matches_only_what_stands_where_it_was_left() {
    let sql = compare_and_set(&[advance(4, [5, 1], [9, 1]), advance(6, [0, 0], [2, 0])], 77);
    let text = sql.as_str();
    assert!(text.contains("live_next = CASE partition_id WHEN 4 THEN 9 WHEN 6 THEN 2 "), "{text}");
    assert!(text.contains("backlog_crc = CASE partition_id WHEN -1 THEN 0 ELSE"), "{text}");
    assert!(text.contains("IN ((4, 7, 2, 5, 1), (6, 7, 2, 0, 0))"), "{text}");
}
