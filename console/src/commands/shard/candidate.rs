//! Which server takes over: the named replica, or of those that answer the one that has most.

use spillway_runtime::mysql_url::MysqlUrl;
use spillway_runtime::program::chain;
use spillway_runtime::shards::Shard;

use super::promote::Old;
use super::server::{Member, Status, transactions};
use super::{ShardFault, address, same, typed};
use crate::cli::Switchover;
use crate::desk::Desk;
use crate::failure::Failure;
use crate::reach::mysql::MysqlFault;

/// A server that is about to take over, and what is known of it.
pub struct Candidate {
    pub member: Member,
    pub status: Status,
    /// Transactions that it has, applied or only received.
    has: u64,
}

/// The replicas of a shard: those that answer, and why the others do not.
pub struct Replicas {
    pub there: Vec<Candidate>,
    pub silent: Vec<MysqlFault>,
}

impl Replicas {
    pub async fn ask(desk: &Desk, shard: &Shard) -> Self {
        let mut replicas = Self { there: Vec::new(), silent: Vec::new() };
        for replica in &shard.replicas {
            match Candidate::ask(desk, shard, &replica.url).await {
                Ok(found) => replicas.there.push(found),
                Err(fault) => replicas.silent.push(fault),
            }
        }
        replicas
    }

    /// The one to take over, out of all.
    pub fn choose(&mut self, shard: &Shard, how: &Switchover) -> Result<Candidate, Failure> {
        let place = match &how.to {
            Some(to) => self.named(shard, to)?,
            None => {
                let most = self.there.iter().enumerate().max_by_key(|(_, one)| one.has);
                most.map(|(place, _)| place)
            }
        };
        match (place, self.silent.pop()) {
            (Some(place), silent) => {
                self.silent.extend(silent);
                Ok(self.there.swap_remove(place))
            }
            (None, Some(fault)) => Err(fault.into()),
            (None, None) => Err(ShardFault::NoReplica(shard.name.clone()).into()),
        }
    }

    fn named(&self, shard: &Shard, to: &str) -> Result<Option<usize>, Failure> {
        let asked = typed(to)?;
        let urls: Vec<&MysqlUrl> = shard.replicas.iter().map(|replica| &replica.url).collect();
        if !urls.iter().any(|url| same(url, &asked)) {
            let known = urls.iter().map(|url| address(url)).collect::<Vec<_>>().join(", ");
            let (asked, shard) = (to.to_owned(), shard.name.clone());
            return Err(ShardFault::NotAReplica { asked, shard, known }.into());
        }
        Ok(self.there.iter().position(|one| same(&one.member.url, &asked)))
    }

    /// What the plan should say of those that do not take over.
    pub fn left_out(&self, chosen: &Candidate) -> Vec<String> {
        let mut lines: Vec<String> = self
            .silent
            .iter()
            .map(|fault| {
                format!("{} can't be asked and is left out: {}", fault.address, chain(fault))
            })
            .collect();
        for other in self.there.iter().filter(|other| other.has > chosen.has) {
            lines.push(format!(
                "{} has {} transactions more than {}: it can't follow afterwards and must be \
                 restored",
                other.member.address,
                other.has - chosen.has,
                chosen.member.address
            ));
        }
        lines
    }
}

impl Candidate {
    async fn ask(desk: &Desk, shard: &Shard, url: &MysqlUrl) -> Result<Self, MysqlFault> {
        let mut member = Member::connect(desk, shard, url).await?;
        let status = member.status().await?;
        let mut has = transactions(&status.gtids);
        if let Some(follows) = status.follows.as_ref().filter(|_| !status.gtids.is_empty()) {
            // What was received is told since the last restart only, so the two are added up.
            let waiting = member.lacking(&follows.received, &status.gtids).await?;
            has = has.saturating_add(transactions(&waiting));
        }
        Ok(Self { member, status, has })
    }

    /// Whether it may take over from `old`.
    pub fn check(&self, shard: &Shard, old: &Old, is_failover: bool) -> Result<(), ShardFault> {
        check_meta(shard, &self.member, &self.status)?;
        let Old::Alive(_, primary) = old else { return Ok(()) };
        let found = match &self.status.follows {
            Some(follows) if follows.uuid == primary.uuid => return Ok(()),
            Some(follows) => format!("{}:{}", follows.host, follows.port),
            // As a change that was broken off leaves it. A failover says what is replayed.
            None if is_failover || primary.fenced => return Ok(()),
            None => "nobody".to_owned(),
        };
        let (address, primary) = (self.member.address.clone(), address(&shard.primary));
        Err(ShardFault::FollowsAnother { address, primary, found })
    }
}

pub fn check_meta(shard: &Shard, member: &Member, status: &Status) -> Result<(), ShardFault> {
    let address = member.address.clone();
    if status.gtids.is_empty() {
        return Err(ShardFault::NoGtids(address));
    }
    if status.shard.as_ref() != Some(&shard.name) {
        let (expected, found) = (shard.name.clone(), status.shard.clone());
        return Err(ShardFault::OtherShard { address, expected, found });
    }
    match status.epoch {
        Some(found) if found > shard.epoch => {
            Err(ShardFault::FileIsOld { address, expected: shard.epoch, found })
        }
        Some(found) if found < shard.epoch => {
            Err(ShardFault::NotThereYet { address, expected: shard.epoch, found })
        }
        _ => Ok(()),
    }
}
