//! Where each claimed partition is being read, and which polled record continues it.
//!
//! Promise: a worker gets each offset of a claim once and in order. An offset that is missing is
//! fetched again, and then looked for by another client, before it is believed to be missing from
//! the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdkafka::message::{BorrowedMessage, Message};
use spillway_proto::kafka_record::Lane;

use crate::books::Books;
use crate::commit::PerLane;
use crate::receive::Record;

/// One partition being read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub claim: u64,
    /// Next offset to enqueue.
    pub next: PerLane<i64>,
    /// A jump to this offset: fetched again, and asked another client about if it comes again.
    suspect: PerLane<Option<Jump>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Jump {
    to: i64,
    /// Another client found the same.
    confirmed: bool,
}

impl Source {
    /// Reads from here, under this claim.
    #[must_use]
    pub fn new(claim: u64, next: PerLane<i64>) -> Self {
        Self { claim, next, suspect: [None; 2] }
    }

    /// What a polled offset is to this partition.
    fn step(&mut self, lane: Lane, offset: i64) -> Step {
        let ([live, backlog], [suspect_live, suspect_backlog]) =
            (&mut self.next, &mut self.suspect);
        let (next, suspect) = match lane {
            Lane::Live => (live, suspect_live),
            Lane::Backlog => (backlog, suspect_backlog),
        };
        if offset < *next {
            return Step::Known;
        }
        if offset > *next {
            match *suspect {
                Some(jump) if jump.to == offset && jump.confirmed => {}
                Some(jump) if jump.to == offset => return Step::Again { next: *next },
                _ => {
                    *suspect = Some(Jump { to: offset, confirmed: false });
                    return Step::Suspect;
                }
            }
        }
        let jump = offset > *next;
        (*next, *suspect) = (offset + 1, None);
        if jump { Step::Believed } else { Step::Next }
    }

    /// Another client found the same hole: the next time it is believed.
    pub fn confirm(&mut self, lane: Lane) {
        let [live, backlog] = &mut self.suspect;
        let suspect = match lane {
            Lane::Live => live,
            Lane::Backlog => backlog,
        };
        if let Some(jump) = suspect {
            jump.confirmed = true;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Known,
    Next,
    Suspect,
    /// The same jump after it was fetched again, from where it should go on.
    Again {
        next: i64,
    },
    Believed,
}

/// A jump that one client has shown twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    pub lane: Lane,
    pub partition: u16,
    /// The first offset that is missing.
    pub next: i64,
    /// The offset that came instead.
    pub found: i64,
}

/// What another client's word makes of a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It reads this record, which the first client passed over: that one is not to be trusted.
    PassedOver { first: i64 },
    /// It finds nothing there either.
    Real,
    /// It said nothing: neither is believed.
    Unknown,
}

impl Hole {
    /// `first`: the first record at or after `next` that another client reads.
    #[must_use]
    pub fn judge(&self, first: Option<i64>) -> Finding {
        match first {
            Some(first) if first < self.found => Finding::PassedOver { first },
            Some(_) => Finding::Real,
            None => Finding::Unknown,
        }
    }
}

/// What a polled message is to its partition's worker.
pub enum Taken {
    Record(Record),
    /// Offsets are missing before it: fetch again from where it should go on.
    Suspect,
    /// They are missing again: is it the log or the client?
    Doubted(Hole),
    /// They are missing from the log itself, by the word of two clients.
    Believed(Record),
    /// Not claimed, or enqueued before.
    Nothing,
}

/// Copies a polled message for its worker, if it continues a partition that is being read.
pub fn take(
    sources: &mut BTreeMap<u16, Source>,
    message: &BorrowedMessage<'_>,
    books: &Arc<Books>,
) -> Taken {
    let Some(lane) = Lane::of_topic(message.topic()) else { return Taken::Nothing };
    let Ok(partition) = u16::try_from(message.partition()) else { return Taken::Nothing };
    let Some(source) = sources.get_mut(&partition) else { return Taken::Nothing };
    let step = source.step(lane, message.offset());
    let record = || Record::copy(message, (lane, partition), source.claim, books);
    match step {
        Step::Known => Taken::Nothing,
        Step::Suspect => Taken::Suspect,
        Step::Again { next } => {
            Taken::Doubted(Hole { lane, partition, next, found: message.offset() })
        }
        Step::Next => Taken::Record(record()),
        Step::Believed => Taken::Believed(record()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    /// More fetches without a record than any truth needs; `stalls.rs` gives such a client up.
    const FRUITLESS_MAX: usize = 12;

    /// Reads a log by one client after the other; each hides its own records, others at each fetch,
    /// and the last one none. `silent`: at which questions the witness does not answer.
    fn read(log: &BTreeSet<i64>, liars: &[Vec<BTreeSet<i64>>], silent: &[bool]) -> Vec<i64> {
        let (mut applied, mut silent) = (Vec::new(), silent.iter());
        let mut source = Source::new(1, [0, 0]);
        for client in liars.iter().map(Some).chain([None]) {
            let (mut fruitless, mut fetches) = (0, client.into_iter().flatten().cycle());
            // Whoever claims next starts where it stands, and holds nothing against anybody.
            source = Source::new(1, source.next);
            'fetching: while fruitless < FRUITLESS_MAX {
                fruitless += 1;
                let hidden = fetches.next();
                let shown = log.range(source.next[0]..);
                for found in shown.filter(|offset| hidden.is_none_or(|h| !h.contains(offset))) {
                    match source.step(Lane::Live, *found) {
                        Step::Known => {}
                        Step::Next | Step::Believed => {
                            applied.push(*found);
                            fruitless = 0;
                        }
                        Step::Suspect => continue 'fetching,
                        Step::Again { next } => {
                            let hole = Hole { lane: Lane::Live, partition: 3, next, found: *found };
                            let answers = !silent.next().copied().unwrap_or(false);
                            let first = log.range(next..).next().copied().filter(|_| answers);
                            match hole.judge(first) {
                                Finding::PassedOver { .. } => break 'fetching,
                                Finding::Real => source.confirm(Lane::Live),
                                Finding::Unknown => {}
                            }
                            continue 'fetching;
                        }
                    }
                }
            }
        }
        applied
    }

    proptest! {
        #[test]
        fn whatever_clients_pass_over_each_record_of_the_log_is_read_once_and_in_order(
            log in btree_set(0..40_i64, 0..40),
            liars in vec(vec(btree_set(0..40_i64, 0..6), 1..4), 0..4),
            silent in vec(any::<bool>(), 0..8),
        ) {
            let all: Vec<i64> = log.iter().copied().collect();
            prop_assert_eq!(read(&log, &liars, &silent), all);
        }
    }

    #[test]
    fn a_hole_is_fetched_again_and_found_by_another_client_before_it_is_believed() {
        let mut source = Source::new(1, [5, 5]);
        assert_eq!(source.step(Lane::Live, 5), Step::Next);
        assert_eq!(source.step(Lane::Live, 8), Step::Suspect);
        assert_eq!(source.next, [6, 5], "it is read again from where it should go on");
        for _ in 0..3 {
            assert_eq!(source.step(Lane::Live, 8), Step::Again { next: 6 });
        }
        source.confirm(Lane::Backlog);
        assert_eq!(source.step(Lane::Live, 8), Step::Again { next: 6 });
        source.confirm(Lane::Live);
        assert_eq!(source.step(Lane::Live, 9), Step::Suspect, "that is another hole");
        assert_eq!(source.step(Lane::Live, 8), Step::Suspect);
        assert_eq!(source.step(Lane::Live, 8), Step::Again { next: 6 });
        source.confirm(Lane::Live);
        assert_eq!(source.step(Lane::Live, 8), Step::Believed);
        assert_eq!(source.step(Lane::Live, 9), Step::Next);
        assert_eq!(source.step(Lane::Live, 7), Step::Known);
        assert_eq!(source.step(Lane::Backlog, 5), Step::Next);
    }

    #[test]
    fn a_hole_that_was_the_clients_closes_when_it_is_fetched_again() {
        let mut source = Source::new(1, [5, 5]);
        assert_eq!(source.step(Lane::Live, 7), Step::Suspect);
        assert_eq!(source.step(Lane::Live, 5), Step::Next);
        assert_eq!(source.step(Lane::Live, 6), Step::Next);
        assert_eq!(source.step(Lane::Live, 7), Step::Next);
    }
}
