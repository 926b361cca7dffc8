//! Where a batch goes: a pure function of environment and host, fixed for the life of the topics.
//!
//! An environment hashes to a group of partitions, its hosts spread over the group. A shard owns
//! whole groups, so an environment lives on one shard and a series in one partition.

use xxhash_rust::xxh3::xxh3_64;

use crate::limits::PARTITIONS_MAX;

/// How many partitions a topic has, and how many of them form a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitioning {
    partitions: u16,
    group: u16,
}

impl Partitioning {
    /// `None` unless `group` divides `partitions`, both are positive, and
    /// `partitions <= PARTITIONS_MAX`.
    #[must_use]
    pub fn new(partitions: u16, group: u16) -> Option<Self> {
        let whole = group > 0 && partitions > 0 && partitions.is_multiple_of(group);
        (whole && partitions <= PARTITIONS_MAX).then_some(Self { partitions, group })
    }

    #[must_use]
    pub fn partitions(self) -> u16 {
        self.partitions
    }

    #[must_use]
    pub fn group_size(self) -> u16 {
        self.group
    }

    #[must_use]
    pub fn groups(self) -> u16 {
        self.partitions / self.group
    }

    /// The group that holds all partitions of `environment`.
    #[must_use]
    pub fn group_of(self, environment: &str) -> u16 {
        reduce(xxh3_64(environment.as_bytes()), self.groups())
    }

    /// The partition, of every topic, that holds `host` of `environment`.
    #[must_use]
    pub fn partition_of(self, environment: &str, host: &str) -> u16 {
        let within = reduce(xxh3_64(host.as_bytes()), self.group);
        self.group_of(environment) * self.group + within
    }

    /// The group a partition belongs to.
    #[must_use]
    pub fn group_of_partition(self, partition: u16) -> u16 {
        partition / self.group
    }
}

fn reduce(hash: u64, buckets: u16) -> u16 {
    // The remainder is below `buckets`, so it fits.
    (hash % u64::from(buckets)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_stays_within_its_group() {
        let partitioning = Partitioning::new(64, 4).unwrap();
        let group = partitioning.group_of("acme");
        let mut seen = std::collections::BTreeSet::new();
        for host in 0..200 {
            let partition = partitioning.partition_of("acme", &format!("host-{host}"));
            assert_eq!(partitioning.group_of_partition(partition), group);
            seen.insert(partition);
        }
        assert_eq!(seen.len(), 4, "hosts use every partition of the group");
    }

    #[test]
    fn stored_places_never_change() {
        let partitioning = Partitioning::new(64, 4).unwrap();
        let places: Vec<u16> = ["demo", "acme", "globex"]
            .iter()
            .map(|environment| partitioning.partition_of(environment, "web-1"))
            .collect();
        let line = format!("{} {} {}\n", places[0], places[1], places[2]);
        assert_eq!(line, include_str!("../golden/partitions.txt"));
    }

    #[test]
    fn a_group_that_does_not_divide_is_refused() {
        assert_eq!(Partitioning::new(64, 5), None);
        assert_eq!(Partitioning::new(0, 4), None);
        assert_eq!(Partitioning::new(64, 0), None);
    }
}
