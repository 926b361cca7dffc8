//! Switchover and failover: the same steps, with a primary that is alive or one that is gone.

use std::time::{Duration, Instant};

use spillway_runtime::mysql_url::MysqlUrl;
use spillway_runtime::program::chain;
use spillway_runtime::shards::{Shard, ShardMap};

use super::candidate::{Candidate, Replicas, check_meta};
use super::file::{self, Change};
use super::replay::{self, Replay};
use super::server::{LOOK_EVERY, Member, Status};
use super::{ShardFault, address, same, shard, typed, unfinished};
use crate::answer::{Answer, Verdict, duration};
use crate::cli::{Failover, Switchover};
use crate::commands::maintenance;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::Failure;

/// The old primary: alive and to be fenced, or gone by the operator's word.
pub enum Old {
    Alive(Box<Member>, Box<Status>),
    Gone,
}

pub async fn run(desk: &Desk, failover: &Failover, is_failover: bool) -> Result<Answer, Failure> {
    let action = if is_failover { "shard failover" } else { "shard switchover" };
    let (map, how) = (desk.shards()?, &failover.how);
    let shard = shard(&map, &how.shard)?;
    check_expected(shard, how)?;
    file::check_writable(&desk.settings.shards_file)?;
    check_gone(shard, failover)?;
    let mut replicas = Replicas::ask(desk, shard).await;
    if let Some(new) = unfinished::promoted(shard, &mut replicas) {
        return unfinished::finish(desk, (&map, shard), (failover, action), new).await;
    }
    let mut old = old_primary(desk, shard, failover, is_failover).await?;
    if let Old::Alive(member, status) = &old {
        check_meta(shard, member, status)?;
    }
    let mut new = replicas.choose(shard, how)?;
    new.check(shard, &old, is_failover)?;
    let replay = foreseen(desk, (&map, shard), failover, &new, &mut old).await?;
    let mut answer = Answer::default();
    answer.fact("shard", shard.name.clone()).fact("old_primary", address(&shard.primary));
    answer.fact("new_primary", new.member.address.clone()).fact("epoch", shard.epoch + 1);
    replay.tell(&mut answer);
    let mut steps = steps(desk, (shard, failover), &new, &old, &replay);
    steps.extend(replicas.left_out(&new));
    let entry = match desk.ask_about(&Plan { action, steps }, &shard.name)? {
        Consent::Nothing(why) => {
            answer.note(replay.sentence()).note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    let done = async {
        let _lock = maintenance::hold(desk, &format!("{action} {}", shard.name)).await?;
        unfinished::unchanged(desk, shard).await?;
        take_over(desk, (&map, shard), (failover, is_failover), &mut old, &mut new).await
    };
    let replay = entry.end(done.await)?;
    replay.tell(&mut answer);
    let sentence = replay.sentence();
    answer.note(sentence.clone());
    tell(desk, (&map, shard), (how, action), (&old, &mut new), (&sentence, &mut answer)).await;
    Ok(answer)
}

/// The end of every change: the event, whoever is to follow, and the consumers.
pub async fn tell(
    desk: &Desk,
    (map, shard): (&ShardMap, &Shard),
    (how, action): (&Switchover, &str),
    (old, new): (&Old, &mut Candidate),
    (what, answer): (&str, &mut Answer),
) {
    answer.note(format!(
        "{} is changed here; consumers, keeper and consoles on other machines need the same file.",
        desk.settings.shards_file.display()
    ));
    let sentence = format!(
        "{}: {} took over from {}, epoch {}; {what}",
        shard.name,
        new.member.address,
        address(&shard.primary),
        shard.epoch + 1,
    );
    if let Err(fault) = new.member.note_event(&action.replace("shard ", ""), &sentence).await {
        answer.trouble(Verdict::Warning, format!("not in events: {}", chain(&fault)));
    }
    follow_up(desk, (shard, how), old, new, answer).await;
    await_consumers(map, shard, how, &mut new.member, answer).await;
}

fn check_expected(shard: &Shard, how: &Switchover) -> Result<(), Failure> {
    let Some(expected) = &how.expected_primary else { return Ok(()) };
    match same(&typed(expected)?, &shard.primary) {
        true => Ok(()),
        false => {
            let (expected, found) = (expected.clone(), address(&shard.primary));
            Err(ShardFault::OtherPrimary { expected, found }.into())
        }
    }
}

/// Whoever names another server as gone than the one that is primary acts on an old picture: after
/// a change that was done already, the new primary would be taken away.
fn check_gone(shard: &Shard, failover: &Failover) -> Result<(), Failure> {
    let Some(gone) = &failover.primary_is_gone else { return Ok(()) };
    match same(&typed(gone)?, &shard.primary) {
        true => Ok(()),
        false => {
            let (gone, found) = (gone.clone(), address(&shard.primary));
            Err(ShardFault::GoneIsNoPrimary { gone, found, epoch: shard.epoch }.into())
        }
    }
}

/// Reached, or gone because the operator says so by name.
pub async fn old_primary(
    desk: &Desk,
    shard: &Shard,
    failover: &Failover,
    is_failover: bool,
) -> Result<Old, Failure> {
    let reached = match Member::connect(desk, shard, &shard.primary).await {
        Ok(mut member) => member.status().await.map(|status| (member, status)),
        Err(fault) => Err(fault),
    };
    let fault = match reached {
        Ok((member, status)) => {
            return Ok(Old::Alive(Box::new(member), Box::new(status)));
        }
        Err(fault) => fault,
    };
    if !is_failover {
        return Err(ShardFault::PrimaryGone(chain(&fault)).into());
    }
    // `check_gone` saw to it that this names no other server.
    match failover.primary_is_gone.is_some() {
        true => Ok(Old::Gone),
        false => {
            let (address, cause) = (address(&shard.primary), fault.cause.to_string());
            Err(ShardFault::NotFenced { address, cause }.into())
        }
    }
}

/// What is replayed; refused if more is lost than was accepted.
async fn foreseen(
    desk: &Desk,
    (map, shard): (&ShardMap, &Shard),
    failover: &Failover,
    new: &Candidate,
    old: &mut Old,
) -> Result<Replay, Failure> {
    let other = match old {
        Old::Alive(member, status) => Some((member.as_mut(), &**status)),
        Old::Gone => None,
    };
    let replay = replay::judge(desk, map, shard, &new.status, other).await?;
    Ok(replay.check(&new.member.address, failover.accept_loss)?)
}

fn steps(
    desk: &Desk,
    (shard, failover): (&Shard, &Failover),
    new: &Candidate,
    old: &Old,
    replay: &Replay,
) -> Vec<String> {
    let how = &failover.how;
    let (to, primary) = (&new.member.address, address(&shard.primary));
    let catch_up = duration(how.catch_up.get().as_secs_f64());
    let mut steps = Vec::new();
    match old {
        Old::Alive(..) => {
            if failover.primary_is_gone.is_some() {
                steps.push(format!("note that {primary} is not gone: it answers"));
            }
            steps.push(format!("fence {primary}: super_read_only, nobody writes there any more"));
            steps.push(format!("wait up to {catch_up} until {to} has all of it"));
        }
        Old::Gone => {
            steps.push(format!("take your word that {primary} is gone: it is NOT fenced"));
            steps.push(format!("let {to} apply what it has received, for up to {catch_up}"));
        }
    }
    steps.push(format!(
        "make {to} writable, shard {} rises to epoch {}",
        shard.name,
        shard.epoch + 1
    ));
    steps.push(format!("name it in {}", desk.settings.shards_file.display()));
    steps.push(format!("as things stand, {}", replay.sentence()));
    steps
}

/// The change itself. Until the replica is writable every failure leaves things as they were.
async fn take_over(
    desk: &Desk,
    (map, shard): (&ShardMap, &Shard),
    (failover, is_failover): (&Failover, bool),
    old: &mut Old,
    new: &mut Candidate,
) -> Result<Replay, Failure> {
    let replay = match prepare(desk, (map, shard), (failover, is_failover), old, new).await {
        Ok(replay) => replay,
        Err(failure) => return Err(give_back(desk, shard, old, failure).await),
    };
    new.member.promote().await?;
    new.member.raise_epoch(&shard.name, shard.epoch).await?;
    progress(&format!("{} is primary of epoch {}", new.member.address, shard.epoch + 1));
    let keep_old = matches!(old, Old::Alive(..));
    let change = Change::Promote { replica: &new.member.url, keep_old };
    let text = file::changed(&desk.settings.shards_file, &shard.name, &change)?;
    file::write(&desk.settings.shards_file, &text)?;
    progress(&format!("{} names it", desk.settings.shards_file.display()));
    Ok(replay)
}

/// The old primary fenced, and the replica with all that it can have.
async fn prepare(
    desk: &Desk,
    (map, shard): (&ShardMap, &Shard),
    (failover, is_failover): (&Failover, bool),
    old: &mut Old,
    new: &mut Candidate,
) -> Result<Replay, Failure> {
    let how = &failover.how;
    match old {
        Old::Alive(member, status) => {
            member.fence().await?;
            progress(&format!("{} is fenced", member.address));
            // Whether it was fenced before decides what undoing means, so that is kept.
            let before = status.read_only;
            **status = Status { read_only: before, ..member.status().await? };
            if new.status.follows.is_some() {
                new.member.apply_received().await?;
            }
            let caught_up = new.member.has(&status.gtids, how.catch_up.get()).await;
            // A failover goes on with what the replica has; the rest is replayed.
            if !matches!(caught_up, Ok(true)) && !is_failover {
                caught_up?;
                let address = new.member.address.clone();
                let after = duration(how.catch_up.get().as_secs_f64());
                return Err(ShardFault::NotCaughtUp { address, after }.into());
            }
        }
        Old::Gone => {
            let received = new.status.follows.as_ref().map(|follows| follows.received.clone());
            if let Some(received) = received.filter(|received| !received.is_empty()) {
                new.member.apply_received().await?;
                new.member.has(&received, how.catch_up.get()).await?;
            }
        }
    }
    new.status = new.member.status().await?;
    foreseen(desk, (map, shard), failover, new, old).await
}

/// The old primary writable again, as it was; the failure, with what could not be undone.
async fn give_back(desk: &Desk, shard: &Shard, old: &Old, failure: Failure) -> Failure {
    let Old::Alive(member, before) = old else { return failure };
    if before.read_only {
        return failure;
    }
    // Its own connection may be in the middle of what failed.
    let undone = match Member::connect(desk, shard, &member.url).await {
        Ok(mut member) => member.unfence().await,
        Err(fault) => Err(fault),
    };
    match undone {
        Ok(()) => {
            progress(&format!("{} is writable again", member.address));
            failure
        }
        Err(fault) => {
            let (cause, why) = (failure.sentence(), chain(&fault));
            let (address, shard) = (member.address.clone(), shard.name.clone());
            ShardFault::LeftFenced { address, shard, cause, why }.into()
        }
    }
}

pub fn progress(sentence: &str) {
    eprintln!("  {sentence}");
}

/// The old primary and the other replicas follow the new one, where that can be had; nothing here
/// undoes the change.
async fn follow_up(
    desk: &Desk,
    (shard, how): (&Shard, &Switchover),
    old: &Old,
    new: &Candidate,
    answer: &mut Answer,
) {
    let mut others: Vec<MysqlUrl> = shard.replicas.iter().map(|r| r.url.clone()).collect();
    others.retain(|url| !same(url, &new.member.url));
    if let Old::Alive(member, _) = old {
        others.push(member.url.clone());
    }
    for url in others {
        let followed =
            super::rebuild::follow(desk, shard, &url, &new.member.url, how.catch_up.get());
        match followed.await {
            Ok(()) => progress(&format!("{} follows {}", address(&url), new.member.address)),
            Err(failure) => {
                let text = format!(
                    "{} does not follow yet: {}. Afterwards: spillway shard rebuild {} --server {}",
                    address(&url),
                    failure.sentence(),
                    shard.name,
                    address(&url)
                );
                answer.trouble(Verdict::Warning, text);
            }
        }
    }
}

/// Whether the consumers write under the new epoch.
async fn await_consumers(
    map: &ShardMap,
    shard: &Shard,
    how: &Switchover,
    primary: &mut Member,
    answer: &mut Answer,
) {
    let within: Duration = how.consumers_within.get();
    if within.is_zero() {
        return;
    }
    let (wanted, began) = (map.partitions_of(shard).len(), Instant::now());
    progress(&format!(
        "waiting up to {} for consumers to write there",
        duration(within.as_secs_f64())
    ));
    loop {
        let moved = match primary.status().await {
            Ok(status) => status.at_epoch.get(&(shard.epoch + 1)).copied().unwrap_or(0),
            Err(fault) => {
                answer.trouble(Verdict::Warning, chain(&fault));
                return;
            }
        };
        if moved >= wanted {
            let took = duration(began.elapsed().as_secs_f64());
            progress(&format!("consumers hold all {wanted} partitions there, after {took}"));
            answer.fact("consumers_moved_s", began.elapsed().as_secs_f64());
            return;
        }
        if began.elapsed() >= within {
            let text = format!(
                "after {} consumers hold {moved} of {wanted} partitions at the new primary; do \
                 they run, and have they the new shards.toml?",
                duration(within.as_secs_f64())
            );
            answer.trouble(Verdict::Warning, text);
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
