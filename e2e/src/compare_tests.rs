//! What a comparison must tell apart.

use spillway_proto::BatchId;

use super::*;

const NAME: &str = "h e2e.value.0001";

fn expected() -> Vec<Expected> {
    let by = BatchId::Content { hash: 1 };
    let of = |(ts_ms, value)| Expected { ts_ms, must: Some(value), may: None, by };
    [(1_000, 5.0), (2_000, 7.0), (3_000, 9.0)].map(of).to_vec()
}

fn verdict_of(found: &[(i64, f64)]) -> Verdict {
    let mut verdict = Verdict::default();
    compare_series(NAME, &expected(), found.to_vec(), &mut verdict);
    verdict
}

#[test]
fn the_same_in_any_order_holds() {
    let verdict = verdict_of(&[(3_000, 9.0), (1_000, 5.0), (2_000, 7.0)]);
    assert!(verdict.holds(), "{verdict}");
    assert_eq!((verdict.points_expected, verdict.points_found, verdict.series), (3, 3, 1));
}

#[test]
fn a_lost_a_made_up_a_changed_and_a_doubled_point_are_each_told_apart() {
    let lost = verdict_of(&[(1_000, 5.0), (3_000, 9.0)]);
    assert_eq!((lost.missing.count(), lost.unequal.count(), lost.phantom.count()), (1, 1, 0));
    let made_up = verdict_of(&[(1_000, 5.0), (1_500, 1.0), (2_000, 7.0), (3_000, 9.0)]);
    assert_eq!((made_up.phantom.count(), made_up.missing.count()), (1, 0));
    let swapped = verdict_of(&[(1_000, 7.0), (2_000, 5.0), (3_000, 9.0)]);
    assert_eq!((swapped.different.count(), swapped.unequal.count()), (2, 1));
    let doubled = verdict_of(&[(1_000, 5.0), (2_000, 7.0), (2_000, 7.0), (3_000, 9.0)]);
    assert_eq!((doubled.twice.count(), doubled.different.count()), (1, 0));
    let moved = verdict_of(&[(1_000, 5.0), (2_000, 7.0), (4_000, 9.0)]);
    assert_eq!((moved.missing.count(), moved.phantom.count()), (1, 1));
}

#[test]
fn a_batch_of_which_nothing_was_heard_may_be_there_or_not() {
    let mut open = expected();
    open[2].may = open[2].must.take();
    for found in [&[(1_000, 5.0), (2_000, 7.0)][..], &[(1_000, 5.0), (2_000, 7.0), (3_000, 9.0)]] {
        let mut verdict = Verdict::default();
        compare_series(NAME, &open, found.to_vec(), &mut verdict);
        assert!(verdict.holds(), "{verdict}");
    }
}
