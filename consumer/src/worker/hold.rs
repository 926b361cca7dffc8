//! The partitions of one worker: what it holds, what it may not read and why, and what it will try
//! to claim next.
//!
//! Invariant: a partition is held under one claim number, and nothing of an older one counts.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use spillway_proto::kafka_record::Lane;
use tokio::time::Instant;

use crate::claim::{Claimed, Obstacle};
use crate::commit::{Advance, Committed, PerLane};
use crate::group::Assignment;
use crate::receive::Record;
use crate::store::Fresh;
use crate::store::series::Known;

/// Between two looks at a partition that waits for an operator.
const OPERATOR_PAUSE: Duration = Duration::from_secs(15);
/// After a fence: if the group meant it for somebody else, the news comes meanwhile.
const FENCED_PAUSE: Duration = Duration::from_secs(1);

/// A partition that this worker reads and writes.
pub struct Held {
    pub claim: u64,
    pub fence: u64,
    pub shard_epoch: u32,
    /// Next offsets to apply: what MySQL has.
    pub next: PerLane<i64>,
    /// The crc that the record before `next` must have, until it was read.
    pub unchecked: PerLane<Option<u32>>,
    pub known: Known,
    /// What each environment brought for the first time in the running hour.
    pub fresh: HashMap<String, Fresh>,
    pub fresh_since: Instant,
}

enum State {
    /// To be claimed at or after this time.
    Wanted(Instant),
    Held(Box<Held>),
    /// Waits for an operator, and is looked at again then; never, for what can't pass by itself.
    Stopped {
        obstacle: Obstacle,
        again: Option<Instant>,
    },
    /// The other lane went to another consumer.
    Half,
}

/// All partitions of a worker that the group gave to this consumer.
#[derive(Default)]
pub struct Partitions {
    states: BTreeMap<u16, State>,
    assignment: u64,
    /// What this process has applied, to notice that MySQL went back.
    applied: BTreeMap<u16, PerLane<i64>>,
}

impl Partitions {
    /// Takes over an assignment. Returns whether anything changed; all holds are void then.
    pub fn follow(&mut self, assignment: &Assignment, mine: impl Fn(u16) -> bool) -> bool {
        if assignment.number == self.assignment {
            return false;
        }
        self.assignment = assignment.number;
        let now = Instant::now();
        let before = std::mem::take(&mut self.states);
        // What only a restart mends stays stopped across rebalances.
        let stays = |state: &State| matches!(state, State::Stopped { again: None, .. });
        let mut stopped: BTreeMap<u16, State> =
            before.into_iter().filter(|(_, state)| stays(state)).collect();
        for partition in assignment.whole.iter().copied().filter(|at| mine(*at)) {
            let state = stopped.remove(&partition).unwrap_or(State::Wanted(now));
            self.states.insert(partition, state);
        }
        for partition in assignment.half.iter().copied().filter(|at| mine(*at)) {
            self.states.insert(partition, State::Half);
        }
        true
    }

    /// The assignment that was followed last.
    pub fn assignment(&self) -> u64 {
        self.assignment
    }

    /// Partitions to be claimed now.
    pub fn due(&self) -> Vec<u16> {
        let now = Instant::now();
        let due = self.states.iter().filter(|(_, state)| match state {
            State::Wanted(at) | State::Stopped { again: Some(at), .. } => *at <= now,
            State::Held(_) | State::Half | State::Stopped { again: None, .. } => false,
        });
        due.map(|(partition, _)| *partition).collect()
    }

    /// When the next claim is due.
    pub fn next_due(&self) -> Option<Instant> {
        let times = self.states.values().filter_map(|state| match state {
            State::Wanted(at) | State::Stopped { again: Some(at), .. } => Some(*at),
            State::Held(_) | State::Half | State::Stopped { again: None, .. } => None,
        });
        times.min()
    }

    /// Holds what was claimed. Returns whether MySQL went back behind what this process applied.
    pub fn hold(&mut self, claimed: &Claimed, claim: u64) -> bool {
        let applied = self.applied.insert(claimed.partition, claimed.next);
        let behind = |applied: PerLane<i64>| {
            applied.iter().zip(claimed.next).any(|(applied, next)| next < *applied)
        };
        let held = Held {
            claim,
            fence: claimed.fence,
            shard_epoch: claimed.shard_epoch,
            next: claimed.next,
            unchecked: claimed.crc,
            known: Known::default(),
            fresh: HashMap::new(),
            fresh_since: Instant::now(),
        };
        self.states.insert(claimed.partition, State::Held(Box::new(held)));
        applied.is_some_and(behind)
    }

    pub fn get(&self, partition: u16) -> Option<&Held> {
        match self.states.get(&partition) {
            Some(State::Held(held)) => Some(held),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, partition: u16) -> Option<&mut Held> {
        match self.states.get_mut(&partition) {
            Some(State::Held(held)) => Some(held),
            _ => None,
        }
    }

    /// Whether a record was read under the claim that holds its partition now.
    pub fn is_current(&self, record: &Record) -> bool {
        self.get(record.partition).is_some_and(|held| held.claim == record.claim)
    }

    /// Stops a partition that must not be read. Returns its claim if it was held.
    pub fn stop(&mut self, partition: u16, obstacle: Obstacle) -> Option<u64> {
        let claim = self.get(partition).map(|held| held.claim);
        let again = obstacle.may_pass().then(|| Instant::now() + OPERATOR_PAUSE);
        self.states.insert(partition, State::Stopped { obstacle, again });
        claim
    }

    /// Gives up a hold; the partition is claimed again later. Returns its claim if it was held.
    pub fn release(&mut self, partition: u16, pause: Duration) -> Option<u64> {
        let claim = self.get(partition)?.claim;
        self.states.insert(partition, State::Wanted(Instant::now() + pause));
        Some(claim)
    }

    /// Gives up a hold that somebody else has fenced.
    pub fn release_fenced(&mut self, partition: u16) -> Option<u64> {
        self.release(partition, FENCED_PAUSE)
    }

    /// Puts off the claims that are due.
    pub fn put_off(&mut self, partitions: &[u16], pause: Duration) {
        let at = Instant::now() + pause;
        for partition in partitions {
            match self.states.get_mut(partition) {
                Some(State::Wanted(due)) => *due = at,
                Some(State::Stopped { again: Some(due), .. }) => *due = at,
                _ => {}
            }
        }
    }

    /// Held partitions.
    pub fn held(&self) -> Vec<u16> {
        let held = self.states.iter().filter(|(_, state)| matches!(state, State::Held(_)));
        held.map(|(partition, _)| *partition).collect()
    }

    /// Why partitions are not read, and how many for each reason.
    pub fn not_read(&self) -> BTreeMap<&'static str, i64> {
        let mut reasons = BTreeMap::new();
        for state in self.states.values() {
            let reason = match state {
                State::Held(_) => continue,
                State::Wanted(_) => "claiming",
                State::Half => "half-assigned",
                State::Stopped { obstacle, .. } => obstacle.word(),
            };
            *reasons.entry(reason).or_insert(0) += 1;
        }
        reasons
    }

    /// Whether anything waits for an operator.
    pub fn is_stopped(&self, partition: u16) -> bool {
        matches!(self.states.get(&partition), Some(State::Stopped { .. }))
    }

    /// Where these records take their partitions. Records must be current.
    pub fn advances(&self, records: &[Record]) -> Vec<Advance> {
        let mut advances: BTreeMap<u16, Advance> = BTreeMap::new();
        for record in records {
            let Some(held) = self.get(record.partition) else { continue };
            let advance = advances.entry(record.partition).or_insert_with(|| Advance {
                partition: record.partition,
                fence: held.fence,
                shard_epoch: held.shard_epoch,
                from: held.next,
                to: held.next,
                crc: [None; 2],
            });
            let ([live, backlog], [live_crc, backlog_crc]) = (&mut advance.to, &mut advance.crc);
            let (to, crc) = match record.lane {
                Lane::Live => (live, live_crc),
                Lane::Backlog => (backlog, backlog_crc),
            };
            if record.offset >= *to {
                (*to, *crc) = (record.offset + 1, Some(record.crc()));
            }
        }
        advances.into_values().collect()
    }

    /// Takes over what a COMMIT proved.
    pub fn advance(&mut self, committed: &Committed) {
        for advance in committed.advances() {
            self.applied.insert(advance.partition, advance.to);
            if let Some(held) = self.get_mut(advance.partition) {
                held.next = advance.to;
            }
        }
    }
}

#[cfg(test)]
#[path = "hold_tests.rs"]
mod tests;
