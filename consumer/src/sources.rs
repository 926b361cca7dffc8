//! Where each claimed partition is being read, and which polled record continues it.
//!
//! Promise: a worker gets each offset of a claim once and in order. An offset that is missing is
//! fetched again, and then looked for by another client, before it is believed to be missing from
//! the log.

use std::collections::BTreeMap;

use rdkafka::message::{BorrowedMessage, Message};
use spillway_proto::kafka_record::Lane;

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
pub fn take(sources: &mut BTreeMap<u16, Source>, message: &BorrowedMessage<'_>) -> Taken {
    let Some(lane) = Lane::of_topic(message.topic()) else { return Taken::Nothing };
    let Ok(partition) = u16::try_from(message.partition()) else { return Taken::Nothing };
    let Some(source) = sources.get_mut(&partition) else { return Taken::Nothing };
    let step = source.step(lane, message.offset());
    let record = || Record::copy(message, lane, partition, source.claim);
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
    use super::*;

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
