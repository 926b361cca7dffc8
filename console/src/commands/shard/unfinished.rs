//! What a console that died in the middle left behind, or one on another machine did: the servers
//! say so, whatever shards.toml says here, and the same command goes on from there.

use spillway_runtime::shards::{Shard, ShardMap};

use super::candidate::{Candidate, Replicas};
use super::file::{self, Change};
use super::promote::{Old, old_primary, progress, tell};
use super::{ShardFault, address};
use crate::answer::Answer;
use crate::cli::Failover;
use crate::commands::maintenance;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::Failure;

/// The replica that is primary of the next epoch already: only the file does not say so.
pub fn promoted(shard: &Shard, replicas: &mut Replicas) -> Option<Candidate> {
    let is = |one: &Candidate| {
        let status = &one.status;
        status.shard.as_ref() == Some(&shard.name)
            && status.epoch == Some(shard.epoch + 1)
            && status.follows.is_none()
            && !status.read_only
            && !status.gtids.is_empty()
    };
    let place = replicas.there.iter().position(is)?;
    Some(replicas.there.swap_remove(place))
}

/// Refuses to go on if somebody was faster while the operator was asked.
pub async fn unchanged(desk: &Desk, shard: &Shard) -> Result<(), Failure> {
    let now = desk.shards()?;
    let found = now.shard(&shard.name).map(|now| (address(&now.primary), now.epoch));
    let (mut address, mut epoch) = found.unwrap_or_default();
    for one in Replicas::ask(desk, shard).await.there {
        if one.status.epoch > Some(epoch) {
            (address, epoch) = (one.member.address, one.status.epoch.unwrap_or_default());
        }
    }
    match epoch == shard.epoch {
        true => Ok(()),
        false => Err(ShardFault::Overtaken { address, shard: shard.name.clone(), epoch }.into()),
    }
}

/// The rest of a change whose replica is primary already.
pub async fn finish(
    desk: &Desk,
    (map, shard): (&ShardMap, &Shard),
    (failover, action): (&Failover, &'static str),
    mut new: Candidate,
) -> Result<Answer, Failure> {
    // Whichever command goes on, an old primary that can't be reached must be named as gone.
    let mut old = old_primary(desk, shard, failover, true).await?;
    let primary = address(&shard.primary);
    let mut steps = vec![format!(
        "go on with a change that was not finished: {} is primary of epoch {} already",
        new.member.address,
        shard.epoch + 1
    )];
    steps.push(match &old {
        Old::Alive(..) => format!("fence {primary}: super_read_only, nobody writes there any more"),
        Old::Gone => format!("take your word that {primary} is gone: it is NOT fenced"),
    });
    steps.push(format!("name it in {}", desk.settings.shards_file.display()));
    let mut answer = Answer::default();
    answer.fact("shard", shard.name.clone()).fact("old_primary", primary);
    answer.fact("new_primary", new.member.address.clone()).fact("epoch", shard.epoch + 1);
    answer.fact("resumed", true);
    let entry = match desk.ask_about(&Plan { action, steps }, &shard.name)? {
        Consent::Nothing(why) => {
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    let done = async {
        let _lock = maintenance::hold(desk, &format!("{action} {}", shard.name)).await?;
        if let Old::Alive(member, _) = &mut old {
            member.fence().await?;
            progress(&format!("{} is fenced", member.address));
        }
        let keep_old = matches!(old, Old::Alive(..));
        let change = Change::Promote { replica: &new.member.url, keep_old };
        let text = file::changed(&desk.settings.shards_file, &shard.name, &change)?;
        file::write(&desk.settings.shards_file, &text)?;
        progress(&format!("{} names it", desk.settings.shards_file.display()));
        Ok::<_, Failure>(())
    };
    entry.end(done.await)?;
    let what = "an earlier change was finished; what the new primary lacks is replayed";
    answer.note(what);
    let how = &failover.how;
    tell(desk, (map, shard), (how, action), (&old, &mut new), (what, &mut answer)).await;
    Ok(answer)
}
