//! Lanes that wait because a worker's queue is full.
//!
//! A pause belongs to the partition in librdkafka, not to its assignment, and outlives it: so a
//! lane leaves the list of paused ones only once the client has resumed it, whoever reads it then.

use std::sync::Arc;

use rdkafka::consumer::Consumer;
use spillway_proto::kafka_record::Lane;

use super::{Poller, listed};
use crate::receive::Intake;

impl Poller {
    /// Stops fetching one lane of all partitions that feed this queue.
    pub(super) fn pause(&mut self, lane: Lane, intake: &Arc<Intake>) {
        let feeds = |partition: &u16| {
            let route = self.parts.routes.get(usize::from(*partition));
            route.is_some_and(|route| Arc::ptr_eq(route, intake))
        };
        let partitions: Vec<u16> = self.sources.keys().copied().filter(feeds).collect();
        let list = listed(partitions.iter().map(|partition| (lane, *partition)));
        match self.consumer.pause(&list) {
            Ok(()) => self.paused.extend(partitions.iter().map(|partition| (lane, *partition))),
            Err(error) => tracing::warn!(%error, "librdkafka did not pause a full lane"),
        }
        self.count_paused();
    }

    pub(super) fn resume(&mut self) {
        if self.paused.is_empty() {
            return;
        }
        let is_due = |(lane, partition): &&(Lane, u16)| {
            let route = self.parts.routes.get(usize::from(*partition));
            let has_room = route.is_none_or(|intake| intake.has_room(*lane));
            // Of one that is not read nothing arrives; whoever claims it next finds it resumed.
            has_room || !self.sources.contains_key(partition)
        };
        let due: Vec<(Lane, u16)> = self.paused.iter().filter(is_due).copied().collect();
        if due.is_empty() {
            return;
        }
        match self.consumer.resume(&listed(due.iter().copied())) {
            Ok(()) => due.iter().for_each(|place| {
                self.paused.remove(place);
            }),
            Err(error) => {
                if self.gate.pass().is_some() {
                    tracing::warn!(%error, "librdkafka did not resume a lane; again soon");
                }
            }
        }
        self.count_paused();
    }

    pub(super) fn count_paused(&self) {
        let lanes = i64::try_from(self.paused.len()).unwrap_or(i64::MAX);
        self.parts.metrics.lanes_paused.set(lanes);
    }
}
