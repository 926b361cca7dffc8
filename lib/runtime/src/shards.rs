//! shards.toml: which MySQL server holds which groups of partitions.
//!
//! ```toml
//! partitions = 64
//! group = 4
//!
//! [[shard]]
//! name = "s0"
//! primary = "mysql://db-0:3306"
//! replicas = [{ url = "mysql://db-0b:3306", region = "west" }]
//! groups = "0-7"
//! epoch = 1
//! ```
//!
//! Every group has exactly one shard or the file is refused. While programs run, a shard's epoch
//! may only rise (a failover). A group goes to another shard with its data, by `spillway shard
//! move`, which raises the epochs of both shards; without that, changed groups are refused.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use spillway_proto::partition::Partitioning;
use tokio::sync::watch;

use crate::mysql_url::MysqlUrl;
use crate::settings::Problem;
use crate::watched_file::{self, WatchedFile};

/// In a row of `positions`, in place of a shard's epoch: the partition is being moved to another
/// shard, or was. No epoch ever reaches it, so no claim and no failover can undo it.
pub const MOVED_AWAY: u32 = u32::MAX;

/// One version of the whole file, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardMap {
    pub partitions: u16,
    /// Partitions per group.
    pub group: u16,
    pub shards: Vec<Shard>,
}

/// One shard: a primary, its replicas, and the groups it owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shard {
    pub name: String,
    pub primary: MysqlUrl,
    /// Holds the password, where the address does not.
    pub primary_password_file: Option<PathBuf>,
    pub replicas: Vec<Replica>,
    /// Sorted group numbers.
    pub groups: Vec<u16>,
    /// Rises with every failover.
    pub epoch: u32,
}

/// A server that follows a primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replica {
    pub url: MysqlUrl,
    #[serde(default)]
    pub region: Option<String>,
    #[serde(default)]
    pub role: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    partitions: u16,
    group: u16,
    #[serde(default)]
    shard: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    primary: MysqlUrl,
    #[serde(default)]
    primary_password_file: Option<PathBuf>,
    #[serde(default)]
    replicas: Vec<Replica>,
    groups: String,
    #[serde(default = "first_epoch")]
    epoch: u32,
}

fn first_epoch() -> u32 {
    1
}

/// Why a shards.toml is refused: everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardsError {
    pub problems: Vec<Problem>,
}

impl ShardsError {
    fn one(message: impl Into<String>) -> Self {
        Self { problems: vec![Problem::new("", message)] }
    }
}

impl fmt::Display for ShardsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shards file is refused")?;
        for problem in &self.problems {
            write!(f, "; {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ShardsError {}

impl ShardMap {
    pub fn load(path: &Path) -> Result<Self, ShardsError> {
        let text = watched_file::read(path).map_err(|cause| {
            ShardsError::one(format!("{} cannot be read: {cause}", path.display()))
        })?;
        Self::parse(&text)
    }

    pub fn parse(text: &str) -> Result<Self, ShardsError> {
        let file: File = toml::from_str(text)
            .map_err(|error| ShardsError::one(error.to_string().trim().to_owned()))?;
        let Some(partitioning) = Partitioning::new(file.partitions, file.group) else {
            return Err(ShardsError::one(format!(
                "partitions = {} cannot be cut into groups of group = {}",
                file.partitions, file.group
            )));
        };
        let mut problems = Vec::new();
        let mut shards = Vec::with_capacity(file.shard.len());
        for row in file.shard {
            shards.push(row.checked(partitioning, &mut problems));
        }
        let map = Self { partitions: file.partitions, group: file.group, shards };
        map.check_names(&mut problems);
        if problems.is_empty() {
            map.check_cover(partitioning, &mut problems);
        }
        match problems.is_empty() {
            true => Ok(map),
            false => Err(ShardsError { problems }),
        }
    }

    fn check_names(&self, problems: &mut Vec<Problem>) {
        for (i, shard) in self.shards.iter().enumerate() {
            let path = format!("shard {:?}", shard.name);
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if shard.name.is_empty() || !shard.name.bytes().all(plain) {
                let message = "the name must be made of a-z, 0-9 and -";
                problems.push(Problem::new(path.clone(), message));
            }
            if self.shards.iter().take(i).any(|other| other.name == shard.name) {
                problems.push(Problem::new(path, "the name is there twice"));
            }
        }
    }

    fn check_cover(&self, partitioning: Partitioning, problems: &mut Vec<Problem>) {
        for group in 0..partitioning.groups() {
            let owners = self.shards.iter().filter(|s| s.groups.contains(&group));
            let owners: Vec<_> = owners.map(|s| s.name.as_str()).collect();
            let message = match owners.as_slice() {
                [_] => continue,
                [] => format!("group {group} has no shard; each group needs exactly one"),
                many => format!("group {group} has several shards: {}", many.join(", ")),
            };
            problems.push(Problem::new("groups", message));
        }
    }

    /// What keeps `new` from replacing this version while programs run.
    pub fn refuses(&self, new: &ShardMap) -> Result<(), ShardsError> {
        let mut problems = Vec::new();
        if (self.partitions, self.group) != (new.partitions, new.group) {
            let message = format!(
                "partitions and group are fixed for life ({} and {}), the new file says {} and {}",
                self.partitions, self.group, new.partitions, new.group
            );
            problems.push(Problem::new("partitions", message));
        }
        for new_shard in &new.shards {
            let path = format!("shard {:?}", new_shard.name);
            if !self.may_hold(new_shard, new) {
                problems.push(Problem::new(path.clone(), MOVED));
            }
            let Some(old) = self.shard(&new_shard.name) else { continue };
            if new_shard.epoch < old.epoch {
                let message = format!(
                    "the epoch goes down from {} to {}; it only ever rises",
                    old.epoch, new_shard.epoch
                );
                problems.push(Problem::new(path, message));
            }
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(ShardsError { problems }),
        }
    }

    /// Whether `new_shard` has its groups from before, or took them over in a move: then its own
    /// epoch and that of the shard they come from have both risen, as `spillway shard move` raises
    /// them on the servers too. A hand that changes groups and epochs here alone gets no further
    /// than the consumers' claims, which compare the epochs with the servers'.
    fn may_hold(&self, new_shard: &Shard, new: &ShardMap) -> bool {
        let rose = |name: &str| {
            let epochs = self.shard(name).zip(new.shard(name));
            epochs.is_some_and(|(old, new)| new.epoch > old.epoch)
        };
        new_shard.groups.iter().all(|group| {
            let old_owner = self.shards.iter().find(|shard| shard.groups.contains(group));
            old_owner.is_some_and(|old| {
                old.name == new_shard.name || (rose(&old.name) && rose(&new_shard.name))
            })
        })
    }

    /// Whether every partition has the same shard in both.
    pub fn places_alike(&self, other: &ShardMap) -> bool {
        let name = |map: &ShardMap, partition| {
            map.shard_of_partition(partition).map(|shard| shard.name.clone())
        };
        (0..self.partitions.max(other.partitions)).all(|at| name(self, at) == name(other, at))
    }

    /// P and S, as proto's placement functions take them.
    pub fn partitioning(&self) -> Option<Partitioning> {
        Partitioning::new(self.partitions, self.group)
    }

    pub fn shard(&self, name: &str) -> Option<&Shard> {
        self.shards.iter().find(|shard| shard.name == name)
    }

    pub fn shard_of_partition(&self, partition: u16) -> Option<&Shard> {
        let group = self.partitioning()?.group_of_partition(partition);
        self.shards.iter().find(|shard| shard.groups.contains(&group))
    }

    /// `None` cannot happen for a map that was parsed: every group has its shard.
    pub fn shard_of_environment(&self, environment: &str) -> Option<&Shard> {
        let group = self.partitioning()?.group_of(environment);
        self.shards.iter().find(|shard| shard.groups.contains(&group))
    }

    /// The partitions (of every topic) that `shard` owns, in order.
    pub fn partitions_of(&self, shard: &Shard) -> Vec<u16> {
        let of_group = |group: &u16| {
            let first = group * self.group;
            first..first + self.group
        };
        shard.groups.iter().flat_map(of_group).collect()
    }
}

const MOVED: &str = "its groups changed; only `spillway shard move` moves groups, with their data";

impl Row {
    fn checked(self, partitioning: Partitioning, problems: &mut Vec<Problem>) -> Shard {
        let groups = expand(&self.groups, partitioning.groups()).unwrap_or_else(|message| {
            let path = format!("shard {:?}.groups", self.name);
            problems.push(Problem::new(path, message));
            Vec::new()
        });
        Shard {
            name: self.name,
            primary: self.primary,
            primary_password_file: self.primary_password_file,
            replicas: self.replicas,
            groups,
            epoch: self.epoch,
        }
    }
}

/// Sorted group numbers as the file writes them: `[0, 1, 2, 3, 8]` is `"0-3,8"`.
pub fn written(groups: &[u16]) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for group in groups {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*group) => *last = *group,
            _ => ranges.push((*group, *group)),
        }
    }
    let range = |(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

/// `"0-3,8"` as numbers below `groups`; empty for a shard that owns nothing yet.
pub fn expand(text: &str, groups: u16) -> Result<Vec<u16>, String> {
    let mut all = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bounds = first.trim().parse::<u16>().ok().zip(last.trim().parse::<u16>().ok());
        match bounds {
            Some((first, last)) if first <= last && last < groups => all.extend(first..=last),
            Some((first, last)) if first <= last => {
                return Err(format!("{part:?} goes past the last group, {}", groups - 1));
            }
            _ => return Err(format!("{part:?} is no range; write it like \"0-7\" or \"0-3,8\"")),
        }
    }
    all.sort_unstable();
    if all.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(format!("{text:?} names a group twice"));
    }
    Ok(all)
}

/// shards.toml as it stands now.
#[derive(Debug, Clone)]
pub struct ShardFile {
    file: WatchedFile<ShardMap>,
    first: Arc<ShardMap>,
}

impl ShardFile {
    /// The first version must be good; later ones must also follow from the one in force.
    pub fn watch(
        path: impl Into<PathBuf>,
        reload: watch::Receiver<u64>,
    ) -> Result<Self, ShardsError> {
        let path = path.into();
        let file = WatchedFile::start(&path, reload, |text, before: Option<&ShardMap>| {
            let new = ShardMap::parse(text)?;
            before.map_or(Ok(()), |before| before.refuses(&new))?;
            Ok::<_, ShardsError>(new)
        });
        match file.current() {
            Some(first) => Ok(Self { file, first }),
            None => Err(ShardMap::load(&path)
                .err()
                .unwrap_or_else(|| ShardsError::one("the shards file changed while it was read"))),
        }
    }

    pub fn current(&self) -> Arc<ShardMap> {
        self.file.current().unwrap_or_else(|| Arc::clone(&self.first))
    }

    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<ShardMap>>> {
        self.file.subscribe()
    }

    /// Why the newest version of the file is not in force, if it is not.
    pub fn last_error(&self) -> Option<String> {
        self.file.last_error()
    }
}

#[cfg(test)]
#[path = "shards_tests.rs"]
mod tests;
