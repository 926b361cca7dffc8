//! One epoch, against a model that counts seq by seq.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn run(first: u64, last: u64) -> Run {
    Run { first, last }
}

fn runs(epoch: &Epoch) -> Vec<(u64, u64, Cause)> {
    epoch.gaps().iter().map(|gap| (gap.run.first, gap.run.last, gap.cause)).collect()
}

#[test]
fn what_lies_below_the_highest_and_is_not_there_is_a_gap() {
    let mut epoch = Epoch::default();
    assert!(epoch.apply(1, 10) && epoch.apply(5, 50));
    assert_eq!(runs(&epoch), [(2, 4, Cause::Missing)]);
    let gap = &epoch.gaps()[0];
    assert_eq!((gap.from_ts, gap.to_ts), (Some(10), Some(50)));
    assert!(!epoch.apply(5, 50), "a duplicate is applied as nothing");
    assert!(epoch.apply(3, 30));
    assert_eq!(runs(&epoch), [(2, 2, Cause::Missing), (4, 4, Cause::Missing)]);
}

#[test]
fn an_arrival_wins_over_a_declaration_whichever_comes_first() {
    let mut declared_first = Epoch::default();
    declared_first.apply(1, 0);
    declared_first.note(run(2, 6), Cause::Declared, "spool-full");
    declared_first.apply(4, 0);
    let mut arrived_first = Epoch::default();
    arrived_first.apply(1, 0);
    arrived_first.apply(4, 0);
    arrived_first.note(run(2, 6), Cause::Declared, "spool-full");
    let expected = [(2, 3, Cause::Declared), (5, 6, Cause::Declared)];
    assert_eq!(runs(&declared_first), expected);
    assert_eq!(runs(&arrived_first), expected);
    assert_eq!(declared_first.noted(Cause::Declared), 4);
}

#[test]
fn the_successors_word_reveals_a_missing_tail() {
    let mut epoch = Epoch::default();
    (1..=3).for_each(|seq| {
        epoch.apply(seq, 0);
    });
    assert!(epoch.is_whole());
    epoch.expect_last(5);
    assert!(!epoch.is_whole());
    assert_eq!(runs(&epoch), [(4, 5, Cause::Missing)]);
    epoch.apply(4, 0);
    epoch.apply(5, 0);
    assert!(epoch.is_whole() && epoch.gaps().is_empty());
}

#[test]
fn an_epoch_of_which_nothing_came_is_all_gap() {
    let mut epoch = Epoch::default();
    assert!(epoch.gaps().is_empty());
    epoch.expect_last(7);
    assert_eq!(runs(&epoch), [(1, 7, Cause::Missing)]);
}

#[test]
fn windows_around_a_gap_survive_a_reload_and_a_split() {
    let mut first = Epoch::default();
    first.apply(1, 10);
    first.apply(9, 90);
    let mut later = Epoch::load(first.applied.clone(), first.highest, first.gaps());
    later.apply(5, 50);
    let dated: Vec<_> =
        later.gaps().iter().map(|g| (g.run.first, g.run.last, g.from_ts, g.to_ts)).collect();
    assert_eq!(dated, [(2, 4, Some(10), Some(50)), (6, 8, Some(50), Some(90))]);
}

#[test]
fn an_epoch_has_a_bounded_number_of_runs() {
    let mut epoch = Epoch::default();
    (0..RUNS_MAX as u64).for_each(|at| {
        epoch.apply(2 + at * 3, 0);
    });
    assert!(epoch.is_full(1_000_000_000));
    assert!(!epoch.is_full(3), "what extends a run needs no new one");
}

/// The same as `Epoch`, said seq by seq.
#[derive(Default)]
struct Naive {
    state: BTreeMap<u64, Cause>,
    applied: std::collections::BTreeSet<u64>,
    highest: u64,
    expected: u64,
}

impl Naive {
    fn gaps(&self) -> BTreeMap<u64, Cause> {
        (1..=self.highest.max(self.expected))
            .filter(|seq| !self.applied.contains(seq))
            .map(|seq| (seq, self.state.get(&seq).copied().unwrap_or(Cause::Missing)))
            .collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Apply(u64),
    Note(u64, u64, bool),
    Expect(u64),
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u64..40).prop_map(Step::Apply),
        2 => (1_u64..40, 0_u64..8, any::<bool>()).prop_map(|(a, n, d)| Step::Note(a, a + n, d)),
        1 => (1_u64..50).prop_map(Step::Expect),
        2 => Just(Step::Reload),
    ]
}

proptest! {
    #[test]
    fn any_order_of_arrivals_declarations_and_reloads_equals_the_naive_model(
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let (mut epoch, mut naive) = (Epoch::default(), Naive::default());
        for step in steps {
            match step {
                Step::Apply(seq) => {
                    prop_assert_eq!(epoch.apply(seq, 7), naive.applied.insert(seq));
                    naive.highest = naive.highest.max(seq);
                }
                Step::Note(first, last, declared) => {
                    let cause = if declared { Cause::Declared } else { Cause::Quarantined };
                    epoch.note(run(first, last), cause, "why");
                    for seq in (first..=last).filter(|seq| !naive.applied.contains(seq)) {
                        naive.state.entry(seq).or_insert(cause);
                    }
                    naive.highest = naive.highest.max(last);
                }
                Step::Expect(seq) => {
                    epoch.expect_last(seq);
                    naive.expected = naive.expected.max(seq);
                }
                Step::Reload => {
                    let expected = epoch.expected_last;
                    epoch = Epoch::load(epoch.applied.clone(), epoch.highest, epoch.gaps());
                    epoch.expected_last = expected;
                }
            }
            let gaps = epoch.gaps();
            prop_assert!(gaps.windows(2).all(|pair| pair[0].run.last < pair[1].run.first));
            let seqs = gaps.iter().flat_map(|g| (g.run.first..=g.run.last).map(|s| (s, g.cause)));
            prop_assert_eq!(seqs.collect::<BTreeMap<_, _>>(), naive.gaps());
            prop_assert_eq!(epoch.is_whole(), naive.gaps().is_empty());
            prop_assert_eq!(epoch.applied.count(), naive.applied.len() as u64);
            let noted = epoch.noted(Cause::Declared) + epoch.noted(Cause::Quarantined);
            let known = naive.gaps().values().filter(|cause| **cause != Cause::Missing).count();
            prop_assert_eq!(noted, known as u64);
        }
    }
}
