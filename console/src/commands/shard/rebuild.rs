//! `spillway shard rebuild`: a server follows its shard's primary again.
//!
//! By GTID this needs no copying, unless the server has transactions that the primary never had (an
//! old primary that died with unreplicated commits). Following would then never be true again, so
//! that is refused: what those transactions held, Kafka has replayed; the server is to be emptied
//! and restored.

use std::time::{Duration, Instant};

use spillway_runtime::mysql_url::MysqlUrl;
use spillway_runtime::shards::Shard;

use super::file::{self, Change};
use super::server::{LOOK_EVERY, Member, transactions};
use super::{ShardFault, address, same, shard, typed};
use crate::answer::{Answer, duration};
use crate::cli::Rebuild;
use crate::commands::maintenance;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};

/// How long a server may take until both of its replication threads run.
const RUNS_WITHIN: Duration = Duration::from_secs(30);

pub async fn run(desk: &Desk, options: &Rebuild) -> Result<Answer, Failure> {
    let map = desk.shards()?;
    let shard = shard(&map, &options.shard)?;
    let asked = typed(&options.server)?;
    if same(&asked, &shard.primary) {
        let text = format!("{} is the primary of {}", options.server, shard.name);
        return Err(UsageError(text).into());
    }
    // To be told so only once it is fenced would be an outage of that shard.
    let has = |other: &&Shard| {
        other.name != shard.name
            && (same(&asked, &other.primary)
                || other.replicas.iter().any(|replica| same(&replica.url, &asked)))
    };
    if let Some(other) = map.shards.iter().find(has) {
        let text = format!("{} belongs to {}, by shards.toml", options.server, other.name);
        return Err(UsageError(text).into());
    }
    let known = shard.replicas.iter().find(|replica| same(&replica.url, &asked));
    let url = known.map_or(&asked, |replica| &replica.url).clone();
    let (server, primary) = (address(&url), address(&shard.primary));
    let mut steps = vec![
        format!("make {server} read-only (super_read_only)"),
        format!("let it follow {primary} by GTID"),
    ];
    if known.is_none() {
        steps.push(format!("add it to {}", desk.settings.shards_file.display()));
    }
    let mut answer = Answer::default();
    answer.fact("shard", shard.name.clone()).fact("primary", primary);
    answer.fact("server", server.clone());
    let entry = match desk.ask_about(&Plan { action: "shard rebuild", steps }, &server)? {
        Consent::Nothing(why) => {
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    let done = async {
        let _lock = maintenance::hold(desk, &format!("shard rebuild {}", shard.name)).await?;
        follow(desk, shard, &url, &shard.primary, RUNS_WITHIN).await?;
        if known.is_none() {
            let change = Change::AddReplica(&url);
            let text = file::changed(&desk.settings.shards_file, &shard.name, &change)?;
            file::write(&desk.settings.shards_file, &text)?;
        }
        Ok::<_, Failure>(())
    };
    entry.end(done.await)?;
    answer.note("It follows; `spillway shard ls` tells how far it is.");
    Ok(answer)
}

/// Lets the server at `url` follow `source`, unless it has what `source` has not.
pub async fn follow(
    desk: &Desk,
    shard: &Shard,
    url: &MysqlUrl,
    source: &MysqlUrl,
    within: Duration,
) -> Result<(), Failure> {
    let mut member = Member::connect(desk, shard, url).await?;
    let mut primary = Member::connect(desk, shard, source).await?;
    let own = member.status().await?;
    let theirs = primary.status().await?;
    if theirs.gtids.is_empty() {
        return Err(ShardFault::NoGtids(primary.address).into());
    }
    let gtids = primary.lacking(&own.gtids, &theirs.gtids).await?;
    if !gtids.is_empty() {
        let (address, count) = (member.address.clone(), transactions(&gtids));
        return Err(ShardFault::Errant { address, count, gtids }.into());
    }
    member.follow(desk, source).await?;
    let began = Instant::now();
    loop {
        let follows = member.status().await?.follows.unwrap_or_default();
        if follows.receives && follows.applies {
            return Ok(());
        }
        if began.elapsed() >= within {
            let (address, state) = (member.address.clone(), follows.state());
            let after = duration(within.as_secs_f64());
            return Err(ShardFault::DoesNotFollow { address, after, state }.into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
