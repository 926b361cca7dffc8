//! What consumers will read again after another server took over, said before it does.

use std::collections::BTreeMap;

use spillway_proto::kafka_record::Lane;
use spillway_runtime::shards::{Shard, ShardMap};

use super::ShardFault;
use super::server::{Member, Status};
use crate::answer::Answer;
use crate::desk::Desk;
use crate::failure::Failure;

/// Points are summed over this long before now at most.
const AUDIT_S: i64 = 3 * 86_400;

/// Records between where two servers stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    pub records: i64,
    /// As the old primary's audit tells; `None` where it can't be asked.
    pub points: Option<i64>,
    pub partitions: usize,
    /// Compared with the old primary itself, not with what the consumers noted in Kafka.
    pub exact: bool,
}

impl Replay {
    pub fn sentence(&self) -> String {
        let against = match self.exact {
            true => "",
            false => " at least (by what consumers last noted in Kafka)",
        };
        match (self.records, self.points) {
            (0, _) if self.exact => "nothing is replayed: the replica has everything".to_owned(),
            (0, _) => "nothing is replayed, as far as consumers noted in Kafka".to_owned(),
            (records, Some(points)) => format!(
                "consumers replay {records} records with {points} points on {} \
                 partitions{against}; what is there already counts once",
                self.partitions
            ),
            (records, None) => format!(
                "consumers replay {records} records on {} partitions{against}; what is there \
                 already counts once",
                self.partitions
            ),
        }
    }

    pub fn tell(&self, answer: &mut Answer) {
        answer.fact("replayed_records", self.records).fact("replayed_points", self.points);
    }
}

type Positions = BTreeMap<(Lane, u16), i64>;

fn behind(new: &Positions, old: &Positions) -> Vec<(Lane, u16, i64, i64)> {
    let lacking = |((lane, partition), next): (&(Lane, u16), &i64)| {
        let other = old.get(&(*lane, *partition))?;
        (other > next).then_some((*lane, *partition, *next, other - next))
    };
    new.iter().filter_map(lacking).collect()
}

/// Compares the replica with the old primary, or without it with what the group noted; refuses a
/// replica that is older than what Kafka still holds.
pub async fn judge(
    desk: &Desk,
    map: &ShardMap,
    shard: &Shard,
    (member, replica): (&Member, &Status),
    old: Option<(&mut Member, &Status)>,
) -> Result<Replay, Failure> {
    let kafka = desk.kafka()?;
    let ends = kafka.ends(Lane::ALL.to_vec(), map.partitions).await?;
    let own = map.partitions_of(shard);
    let mine: Positions = replica
        .positions
        .iter()
        .filter(|((_, p), _)| own.contains(p))
        .map(|(k, v)| (*k, *v))
        .collect();
    for ((lane, partition), next) in &mine {
        let low = ends.get(&(*lane, *partition)).map_or(0, |ends| ends.low);
        if low > *next {
            let (address, records, topic) = (member.address.clone(), low - next, lane.topic());
            let partition = *partition;
            return Err(ShardFault::TooOld { address, records, low, topic, partition }.into());
        }
    }
    let exact = old.is_some();
    let other = match &old {
        Some((_, status)) => status.positions.clone(),
        None => kafka.noted(map.partitions).await?,
    };
    let lacking = behind(&mine, &other);
    let mut replay = Replay {
        records: lacking.iter().map(|(.., records)| records).sum(),
        points: exact.then_some(0),
        partitions: lacking.len(),
        exact,
    };
    if let Some((old, _)) = old.filter(|_| !lacking.is_empty()) {
        let since_s = jiff::Timestamp::now().as_second() - AUDIT_S;
        let places: Vec<_> = lacking.iter().map(|(l, p, next, _)| (*l, *p, *next)).collect();
        replay.points = Some(old.points_from(&places, since_s).await?);
    }
    Ok(replay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_replica_lacks_is_replayed_partition_by_partition() {
        let of = |list: &[(Lane, u16, i64)]| -> Positions {
            list.iter().map(|(lane, partition, next)| ((*lane, *partition), *next)).collect()
        };
        let new = of(&[(Lane::Live, 0, 10), (Lane::Live, 1, 7), (Lane::Backlog, 0, 3)]);
        let old = of(&[(Lane::Live, 0, 15), (Lane::Live, 1, 7), (Lane::Backlog, 0, 2)]);
        assert_eq!(behind(&new, &old), [(Lane::Live, 0, 10, 5)]);
    }

    #[test]
    fn the_sentence_says_whether_it_is_exact() {
        let none = Replay { exact: true, points: Some(0), ..Replay::default() };
        assert!(none.sentence().starts_with("nothing is replayed"));
        let some = Replay { records: 12, points: None, partitions: 2, exact: false };
        assert!(
            some.sentence().contains("12 records on 2 partitions at least"),
            "{}",
            some.sentence()
        );
    }
}
