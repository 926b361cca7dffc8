//! Lanes that stand still although their log goes on. A Kafka client has many reasons to read
//! nothing for a moment and none to do so for ever; when it does, nobody else would notice.
//!
//! Where the logs end is asked of a client of its own, so that this one's word is not needed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spillway_proto::kafka_record::Lane;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::group::Assignment;
use crate::log_ends::LogEnds;
use crate::poller::Command;
use crate::sources::Source;

/// Between two looks. A lane that had something to read at one and has not moved at the next has
/// stalled: far longer than a broker takes to answer a fetch.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// One that has not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalled {
    pub lane: Lane,
    pub partition: u16,
    pub next: i64,
    pub end: i64,
    /// At so many looks in a row.
    pub looks: u32,
}

/// What was seen at the last look.
#[derive(Debug, Default)]
pub struct Stalls {
    /// Where a lane stood that had something to read, and at how many looks it has not moved.
    behind: BTreeMap<(Lane, u16), (i64, u32)>,
}

impl Stalls {
    /// Which lanes had something to read at the last look and have not moved since.
    pub fn look(
        &mut self,
        sources: &BTreeMap<u16, Source>,
        paused: &BTreeSet<(Lane, u16)>,
        ends: &BTreeMap<(Lane, u16), i64>,
    ) -> Vec<Stalled> {
        let before = std::mem::take(&mut self.behind);
        let mut stalled = Vec::new();
        for (partition, source) in sources {
            for (lane, next) in Lane::ALL.into_iter().zip(source.next) {
                let (place, partition) = ((lane, *partition), *partition);
                let Some(end) = ends.get(&place).copied().filter(|end| next < *end) else {
                    continue;
                };
                if paused.contains(&place) {
                    continue;
                }
                let stood = before.get(&place).filter(|(stood, _)| *stood == next);
                let looks = stood.map_or(0, |(_, looks)| looks + 1);
                self.behind.insert(place, (next, looks));
                if looks > 0 {
                    stalled.push(Stalled { lane, partition, next, end, looks });
                }
            }
        }
        stalled
    }
}

/// Has the poller look again and again, until `stop`. A look that Kafka does not allow is left out.
pub async fn watch(
    assignment: watch::Receiver<Assignment>,
    log_ends: LogEnds,
    commands: mpsc::Sender<Command>,
    stop: CancellationToken,
) {
    while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        let partitions: Vec<u16> = assignment.borrow().whole.iter().copied().collect();
        if partitions.is_empty() {
            continue;
        }
        let ends = match log_ends.of(partitions).await {
            Ok(ends) => ends.logs.into_iter().map(|(place, (_, end))| (place, end)).collect(),
            Err(error) => {
                tracing::debug!(%error, "where the logs end is not known");
                continue;
            }
        };
        if commands.send(Command::Look(ends)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: (Lane, u16) = (Lane::Live, 3);

    fn at(next: i64) -> BTreeMap<u16, Source> {
        BTreeMap::from([(3, Source::new(1, [next, 0]))])
    }

    fn ending(end: i64) -> BTreeMap<(Lane, u16), i64> {
        BTreeMap::from([(LIVE, end), ((Lane::Backlog, 3), 0)])
    }

    #[test]
    fn a_lane_that_had_something_to_read_and_has_not_moved_is_told_at_each_look() {
        let (mut stalls, none) = (Stalls::default(), BTreeSet::new());
        assert_eq!(stalls.look(&at(5), &none, &ending(9)), []);
        for looks in 1..4 {
            let stalled = Stalled {
                lane: Lane::Live,
                partition: 3,
                next: 5,
                end: 9 + i64::from(looks),
                looks,
            };
            assert_eq!(stalls.look(&at(5), &none, &ending(9 + i64::from(looks))), [stalled]);
        }
        assert_eq!(stalls.look(&at(6), &none, &ending(20)), [], "it moves");
    }

    #[test]
    fn a_lane_at_its_logs_end_a_paused_one_and_one_that_is_not_read_have_not_stalled() {
        let (mut stalls, none) = (Stalls::default(), BTreeSet::new());
        let paused = BTreeSet::from([LIVE]);
        for _ in 0..3 {
            assert_eq!(stalls.look(&at(9), &none, &ending(9)), []);
        }
        assert_eq!(stalls.look(&at(9), &none, &ending(10)), [], "it came just now");
        for _ in 0..3 {
            assert_eq!(stalls.look(&at(9), &paused, &ending(20)), []);
            assert_eq!(stalls.look(&BTreeMap::new(), &none, &ending(20)), []);
        }
    }
}
