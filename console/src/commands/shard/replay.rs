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

/// Partitions that a refusal names before it only counts them.
const PLACES_NAMED: usize = 8;

/// Records of one partition that the server lacks and Kafka no longer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    pub lane: Lane,
    pub partition: u16,
    pub records: i64,
    /// Where the log begins.
    pub low: i64,
}

/// Records between where two servers stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// What nobody can replay.
    pub trimmed: Vec<Trimmed>,
    pub records: i64,
    /// As the old primary's audit tells; `None` where it can't be asked.
    pub points: Option<i64>,
    pub partitions: usize,
    /// Compared with the old primary itself, not with what the consumers noted in Kafka.
    pub exact: bool,
}

impl Replay {
    /// What happens, in words: what is replayed, and what can't be.
    pub fn sentence(&self) -> String {
        match self.trimmed.as_slice() {
            [] => self.replayed(),
            trimmed => format!("{}; {}", self.replayed(), lost(trimmed)),
        }
    }

    /// Refuses what would lose records, unless so many were given up by the operator's word.
    pub fn check(self, address: &str, accepted: Option<i64>) -> Result<Self, ShardFault> {
        let records: i64 = self.trimmed.iter().map(|place| place.records).sum();
        if records <= accepted.unwrap_or(0) {
            return Ok(self);
        }
        let (address, places) = (address.to_owned(), named(&self.trimmed));
        Err(ShardFault::TooOld { address, records, places })
    }

    fn replayed(&self) -> String {
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
        let lost: i64 = self.trimmed.iter().map(|place| place.records).sum();
        answer.fact("lost_records", lost);
    }
}

fn lost(trimmed: &[Trimmed]) -> String {
    let records: i64 = trimmed.iter().map(|place| place.records).sum();
    format!(
        "{records} records are lost by your word, Kafka holds them no more ({}); consumers hold \
         these partitions (outside-log) until somebody sets their positions",
        named(trimmed)
    )
}

fn named(trimmed: &[Trimmed]) -> String {
    let name = |place: &Trimmed| {
        let (topic, Trimmed { partition, records, low, .. }) = (place.lane.topic(), place);
        format!("{records} below {low} on {topic} partition {partition}")
    };
    let mut names: Vec<String> = trimmed.iter().take(PLACES_NAMED).map(name).collect();
    if let Some(more) = trimmed.len().checked_sub(PLACES_NAMED).filter(|more| *more > 0) {
        names.push(format!("and on {more} more"));
    }
    names.join(", ")
}

type Positions = BTreeMap<(Lane, u16), i64>;

fn behind(new: &Positions, old: &Positions) -> Vec<(Lane, u16, i64, i64)> {
    let lacking = |((lane, partition), next): (&(Lane, u16), &i64)| {
        let other = old.get(&(*lane, *partition))?;
        (other > next).then_some((*lane, *partition, *next, other - next))
    };
    new.iter().filter_map(lacking).collect()
}

/// What the server lacks below where each log begins; from there on it can read.
fn trim(mine: &mut Positions, lows: &Positions) -> Vec<Trimmed> {
    let mut trimmed = Vec::new();
    for ((lane, partition), next) in mine {
        let low = lows.get(&(*lane, *partition)).copied().unwrap_or(0);
        if low > *next {
            let records = low - *next;
            trimmed.push(Trimmed { lane: *lane, partition: *partition, records, low });
            *next = low;
        }
    }
    trimmed
}

/// Compares the replica with the old primary, or without it with what the group noted, and with
/// what Kafka still holds.
pub async fn judge(
    desk: &Desk,
    map: &ShardMap,
    shard: &Shard,
    replica: &Status,
    old: Option<(&mut Member, &Status)>,
) -> Result<Replay, Failure> {
    let kafka = desk.kafka()?;
    let ends = kafka.ends(Lane::ALL.to_vec(), map.partitions).await?;
    let own = map.partitions_of(shard);
    let mut mine: Positions = replica
        .positions
        .iter()
        .filter(|((_, p), _)| own.contains(p))
        .map(|(k, v)| (*k, *v))
        .collect();
    let lows = ends.iter().map(|(place, ends)| (*place, ends.low)).collect();
    let trimmed = trim(&mut mine, &lows);
    let exact = old.is_some();
    let other = match &old {
        Some((_, status)) => status.positions.clone(),
        None => kafka.noted(map.partitions).await?,
    };
    let lacking = behind(&mine, &other);
    let mut replay = Replay {
        trimmed,
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
    fn what_kafka_no_longer_holds_is_refused_by_partition_and_accepted_by_number_only() {
        let mut mine = Positions::from([((Lane::Live, 0), 10), ((Lane::Backlog, 1), 3)]);
        let lows = Positions::from([((Lane::Live, 0), 15), ((Lane::Backlog, 1), 3)]);
        let trimmed = trim(&mut mine, &lows);
        assert_eq!(mine[&(Lane::Live, 0)], 15, "from there on it can be read");
        let replay = Replay { trimmed, exact: true, ..Replay::default() };
        let why = replay.clone().check("db:1", None).unwrap_err().to_string();
        assert!(why.contains("5 below 15 on spillway.live partition 0"), "{why}");
        assert!(why.contains("--accept-loss 5"), "{why}");
        assert!(replay.clone().check("db:1", Some(4)).is_err(), "more than was accepted");
        let told = replay.check("db:1", Some(5)).unwrap().sentence();
        assert!(told.contains("5 records are lost by your word"), "{told}");
    }

    #[test]
    fn the_sentence_says_whether_it_is_exact() {
        let none = Replay { exact: true, points: Some(0), ..Replay::default() };
        assert!(none.sentence().starts_with("nothing is replayed"));
        let some = Replay { records: 12, partitions: 2, ..Replay::default() };
        assert!(
            some.sentence().contains("12 records on 2 partitions at least"),
            "{}",
            some.sentence()
        );
    }
}
