//! `spillway shard unfence`: a primary that a broken-off change left read-only is written to again.

use super::candidate::Replicas;
use super::server::Member;
use super::{ShardFault, address, shard, unfinished};
use crate::answer::Answer;
use crate::commands::maintenance;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::Failure;

pub async fn run(desk: &Desk, name: &str) -> Result<Answer, Failure> {
    let map = desk.shards()?;
    let shard = shard(&map, name)?;
    let primary = address(&shard.primary);
    let mut member = Member::connect(desk, shard, &shard.primary).await?;
    let status = member.status().await?;
    super::candidate::check_meta(shard, &member, &status)?;
    no_other(desk, shard).await?;
    let mut answer = Answer::default();
    answer.fact("shard", shard.name.clone()).fact("primary", primary.clone());
    let steps = match status.read_only {
        true => vec![format!("let {primary} be written to again; shards.toml stays as it is")],
        false => Vec::new(),
    };
    let entry = match desk.ask_about(&Plan { action: "shard unfence", steps }, &shard.name)? {
        Consent::Nothing(why) => {
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    let done = async {
        let _lock = maintenance::hold(desk, &format!("shard unfence {}", shard.name)).await?;
        unfinished::unchanged(desk, shard).await?;
        no_other(desk, shard).await?;
        Ok::<_, Failure>(member.unfence().await?)
    };
    entry.end(done.await)?;
    answer.note("It is writable; consumers go on there by themselves.");
    Ok(answer)
}

/// Whether no replica became, or may become, the primary meanwhile.
async fn no_other(desk: &Desk, shard: &spillway_runtime::shards::Shard) -> Result<(), ShardFault> {
    let fenced = address(&shard.primary);
    for one in Replicas::ask(desk, shard).await.there {
        let address = one.member.address.clone();
        match one.status.epoch {
            Some(epoch) if epoch > shard.epoch => {
                return Err(ShardFault::Succeeded { address, epoch, fenced });
            }
            _ if one.status.follows.is_none() && !one.status.read_only => {
                return Err(ShardFault::TwoPrimaries { address, fenced });
            }
            _ => {}
        }
    }
    Ok(())
}
