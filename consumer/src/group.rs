//! What the consumer group says, as librdkafka tells it in the middle of a poll: answered at once
//! with nothing assigned, and kept until the poller looks.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};
use spillway_proto::kafka_record::Lane;

use crate::metrics::Metrics;

/// What the group gave to this consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Rises with every change; a claim made under an older one is void.
    pub number: u64,
    /// Partitions of which both lanes are here.
    pub whole: BTreeSet<u16>,
    /// Partitions of which one lane went to somebody else: nobody may read them.
    pub half: BTreeSet<u16>,
}

/// What the group said, kept until the poller looks.
#[derive(Default)]
pub struct Group {
    changes: Mutex<Vec<Change>>,
    metrics: Option<Metrics>,
}

/// One thing the group said.
pub enum Change {
    Assigned(Vec<(Lane, u16)>),
    Revoked,
}

impl ClientContext for Group {}

impl Group {
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self { changes: Mutex::default(), metrics: Some(metrics) }
    }

    /// What was said since the last look.
    pub fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ConsumerContext for Group {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        err: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let assigned = err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let done = match assigned {
            true => consumer.assign(&TopicPartitionList::new()),
            false => consumer.unassign(),
        };
        if let Err(error) = done {
            tracing::error!(%error, "librdkafka refused the answer to a rebalance");
        }
        let places = list.elements().into_iter().filter_map(|element| {
            let partition = u16::try_from(element.partition()).ok()?;
            Some((Lane::of_topic(element.topic())?, partition))
        });
        let change = if assigned { Change::Assigned(places.collect()) } else { Change::Revoked };
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            self.metrics.iter().for_each(|metrics| {
                metrics.group_commits_failed.inc();
            });
            tracing::debug!(%error, "Kafka did not take the group's offsets; they are told again");
        }
    }
}

impl Assignment {
    /// Partitions of a change: whole where both lanes are in it.
    #[must_use]
    pub fn next(&self, change: &Change) -> Self {
        let mut next = Self { number: self.number + 1, ..Self::default() };
        let Change::Assigned(places) = change else { return next };
        for (_, partition) in places {
            let lanes = places.iter().filter(|(_, other)| other == partition).count();
            let set = if lanes == Lane::ALL.len() { &mut next.whole } else { &mut next.half };
            set.insert(*partition);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_partition_with_both_lanes_is_whole() {
        let places = vec![(Lane::Live, 1), (Lane::Backlog, 1), (Lane::Live, 2)];
        let next = Assignment::default().next(&Change::Assigned(places));
        assert_eq!((next.number, next.whole, next.half), (1, [1].into(), [2].into()));
        let revoked = Assignment { number: 7, ..Assignment::default() }.next(&Change::Revoked);
        assert_eq!(revoked, Assignment { number: 8, ..Assignment::default() });
    }
}
