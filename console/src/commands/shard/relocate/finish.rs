//! After a move: consumers are awaited, readers named, and what was left behind is removed; and the
//! way back from a move that was broken off.

use std::time::{Duration, Instant};

use spillway_runtime::shards::{MOVED_AWAY, Shard, ShardMap};

use super::super::promote::progress;
use super::super::server::{LOOK_EVERY, Member};
use super::RelocateFault;
use super::hold::release_keeper;
use super::seat::{self, is_vacant, standing};
use super::slice::{Act, Pair};
use super::walk::{Scope, walk};
use crate::answer::{Answer, Verdict, duration};
use crate::cli::Move;
use crate::commands::maintenance;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::Failure;
use crate::reach::mysql::Server;

/// A replica that is further behind than this is not waited for.
const REPLICATED_WITHIN: Duration = Duration::from_secs(60);

/// The groups are at `to` by shards.toml: what is left of a move is undone or removed.
pub async fn settled(
    desk: &Desk,
    map: &ShardMap,
    (to, scope): (&Shard, &Scope),
    options: &Move,
) -> Result<Answer, Failure> {
    let is_lost = look(desk, map, to, scope).await?;
    let mut answer = Answer::default();
    answer.fact("groups", options.groups.clone()).fact("to", to.name.clone());
    let mut steps = Vec::new();
    if is_lost {
        let count = scope.partitions.len();
        steps.push(format!("undo a move: {} serves its {count} partitions again", to.name));
    }
    if options.clean_source {
        steps.push(format!(
            "remove all rows of these groups from the shards other than {}",
            to.name
        ));
    }
    let entry = match desk.ask_about(&Plan { action: "shard move", steps }, &options.groups)? {
        Consent::Nothing(why) => {
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    let done = async {
        let reason = format!("shard move {} to {}", options.groups, to.name);
        let _lock = maintenance::hold(desk, &reason).await?;
        if desk.shards()? != *map || look(desk, map, to, scope).await? != is_lost {
            return Err(RelocateFault::Changed.into());
        }
        if is_lost {
            let mut server = Server::connect(&desk.settings, to).await?;
            seat::take_back(&mut server, &scope.partitions).await?;
            for shard in &map.shards {
                release_keeper(&mut Server::connect(&desk.settings, shard).await?).await?;
            }
            progress(&format!("{} serves them again", to.name));
        }
        if options.clean_source {
            clean(desk, map, (to, scope), &mut answer).await?;
        }
        Ok::<_, Failure>(())
    };
    entry.end(done.await)?;
    Ok(answer)
}

/// Whether `to` gave partitions up that nobody else took over; refuses if another shard serves them
/// or `to` is not what shards.toml says.
async fn look(desk: &Desk, map: &ShardMap, to: &Shard, scope: &Scope) -> Result<bool, Failure> {
    let mut is_lost = false;
    for shard in &map.shards {
        let mut server = Server::connect(&desk.settings, shard).await?;
        let found = standing(&mut server, &scope.partitions).await?;
        if shard.name != to.name {
            if !is_vacant(&found) {
                return Err(RelocateFault::Served(shard.name.clone()).into());
            }
            continue;
        }
        if found.epoch != shard.epoch {
            let (name, found) = (shard.name.clone(), found.epoch);
            let fault = RelocateFault::Epoch { shard: name, expected: shard.epoch, found };
            return Err(fault.into());
        }
        if let Some(partition) = scope.partitions.iter().find(|at| !found.seats.contains_key(at)) {
            let (shard, partition) = (shard.name.clone(), *partition);
            return Err(RelocateFault::NoPosition { shard, partition }.into());
        }
        is_lost = found.seats.values().any(|seat| seat.epoch == MOVED_AWAY);
    }
    Ok(is_lost)
}

/// What comes after shards.toml names the new shard; nothing here undoes the move.
pub async fn follow_up(
    desk: &Desk,
    (map, to, scope): (&ShardMap, &Shard, &Scope),
    mut pair: Pair,
    options: &Move,
    answer: &mut Answer,
) -> Result<(), Failure> {
    answer.note(format!(
        "{} is changed here; consumers, keeper and consoles on other machines need the same file.",
        desk.settings.shards_file.display()
    ));
    note_event(&mut pair, options).await?;
    let is_seen = await_consumers(&mut pair, scope, options, answer).await?;
    let again =
        format!("spillway shard move --groups {} --to {} --clean-source", options.groups, to.name);
    match (options.clean_source, is_seen) {
        (true, true) => clean(desk, map, (to, scope), answer).await?,
        (true, false) => {
            let text = format!("nothing was removed from the old shard yet; later: {again}");
            answer.trouble(Verdict::Warning, text);
        }
        (false, _) => {
            answer.note(format!(
                "The old shard still has the rows: readers of all environments see them there, and \
                 its hosts look silent. Remove them: {again}"
            ));
        }
    }
    Ok(())
}

async fn note_event(pair: &mut Pair, options: &Move) -> Result<(), Failure> {
    let (groups, to) = (&options.groups, &options.to);
    let sentence = format!("groups {groups} moved from {} to {to}", pair.source.shard.name);
    let now = jiff::Timestamp::now().as_millisecond();
    let noted = pair.target.ask(async |conn| {
        let sql = "INSERT INTO spillway_store.events (time_at, kind, text, tags)
                   VALUES (?, 'move', ?, 'operator')";
        sqlx::query(sql).bind(now).bind(&sentence).execute(conn).await.map(drop)
    });
    Ok(noted.await?)
}

/// Whether consumers claimed everything at the new shard in time.
async fn await_consumers(
    pair: &mut Pair,
    scope: &Scope,
    options: &Move,
    answer: &mut Answer,
) -> Result<bool, Failure> {
    let (within, began) = (options.consumers_within.get(), Instant::now());
    let wanted = scope.partitions.len();
    let given_up = standing(&mut pair.source, &scope.partitions).await?;
    if !within.is_zero() {
        progress(&format!(
            "waiting up to {} for consumers to start again and write there",
            duration(within.as_secs_f64())
        ));
    }
    loop {
        let now = standing(&mut pair.target, &scope.partitions).await?;
        // The first claim there is the second step of the fence after the source's last.
        let is_claimed = |at: &&u16| {
            let fences = given_up.seats.get(at).zip(now.seats.get(at));
            fences.is_some_and(|(old, new)| new.fence > old.fence + 1)
        };
        let claimed = scope.partitions.iter().filter(is_claimed).count();
        if claimed == wanted {
            let took = began.elapsed().as_secs_f64();
            progress(&format!("consumers hold all {wanted} there, after {}", duration(took)));
            answer.fact("consumers_moved_s", took);
            return Ok(true);
        }
        if began.elapsed() >= within {
            let text = format!(
                "consumers hold {claimed} of {wanted} partitions at {}; does their supervisor \
                 start them again, and have they the new shards.toml?",
                options.to
            );
            answer.trouble(Verdict::Warning, text);
            return Ok(false);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Until every replica of the shard has what its primary has: the only other copy is about to go.
async fn replicated(desk: &Desk, to: &Shard) -> Result<(), Failure> {
    if to.replicas.is_empty() {
        return Ok(());
    }
    let gtids = Member::connect(desk, to, &to.primary).await?.applied().await?;
    for replica in &to.replicas {
        let mut member = Member::connect(desk, to, &replica.url).await?;
        if !member.has(&gtids, REPLICATED_WITHIN).await? {
            return Err(RelocateFault::NotReplicated(member.address).into());
        }
        progress(&format!("{} has all of it", member.address));
    }
    Ok(())
}

/// Removes the groups' rows from every shard that does not serve them.
async fn clean(
    desk: &Desk,
    map: &ShardMap,
    (to, scope): (&Shard, &Scope),
    answer: &mut Answer,
) -> Result<(), Failure> {
    replicated(desk, to).await?;
    let mut removed = 0;
    for other in map.shards.iter().filter(|other| other.name != to.name) {
        let source = Server::connect(&desk.settings, other).await?;
        let mut pair = Pair::new(source, Server::connect(&desk.settings, to).await?).await?;
        if !is_vacant(&standing(&mut pair.source, &scope.partitions).await?) {
            return Err(RelocateFault::Served(other.name.clone()).into());
        }
        pair.outlast_keepers().await?;
        walk(&mut pair, scope, Act::Clear).await?;
        release_keeper(&mut pair.source).await?;
        progress(&format!("{} rows removed from {}", pair.changed, other.name));
        removed += pair.changed;
    }
    answer.fact("rows_removed", removed);
    Ok(())
}
