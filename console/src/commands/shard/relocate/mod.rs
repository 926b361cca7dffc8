//! `spillway shard move`: groups of partitions go to another shard, with their environments' rows.
//!
//! The order is the safety: lock → the source gives the partitions up (`seat.rs`: nobody can commit
//! for them there any more) → rows are made alike, slice by slice (`slice.rs`, `walk.rs`), until a
//! whole pass finds nothing to change → the target takes the partitions over with the very same
//! offsets → the source's epoch rises → shards.toml names the target. Meanwhile Kafka keeps what
//! senders bring; the offsets moved with the rows, so each batch counts once.
//!
//! A console that dies anywhere leaves each step done or not done, and the servers tell which: the
//! same command goes on. To where the groups already are, it undoes a move that was broken off.

mod finish;
mod hold;
mod readers;
mod seat;
mod slice;
mod walk;

use std::time::{Duration, Instant};

use spillway_runtime::shards::{Shard, ShardMap, expand};

use super::promote::progress;
use super::{file, shard};
use crate::answer::{Answer, Verdict, duration};
use crate::cli::Move;
use crate::commands::maintenance;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};
use crate::reach::mysql::Server;

use self::hold::release_keeper;
use self::seat::{Stage, Standing, standing};
use self::slice::{Act, Pair, rows};
use self::walk::{Scope, walk};

/// After so many passes that still found differences somebody else writes there.
const PASSES_MAX: u32 = 8;
/// Between two passes, once more for each before.
const PASS_PAUSE: Duration = Duration::from_secs(1);
/// Rows a second, for the plan's estimate: what a busy machine of two cores did (operations.md).
const ROWS_PER_S: u64 = 5_000;

/// Why groups are not moved.
#[derive(Debug, thiserror::Error)]
pub enum RelocateFault {
    #[error("shard {shard} has no table {table} as the other has it; run `spillway migrate`")]
    Schema { shard: String, table: &'static str },
    #[error("the server of {expected} says that it is shard {found:?}")]
    OtherShard { expected: String, found: String },
    #[error("the primary of {0} is read-only: finish its switchover, or `shard unfence` it")]
    ReadOnly(String),
    #[error("the two shards are filled from different Kafka clusters")]
    Clusters,
    #[error(
        "shard {shard} has no position of partition {partition}; is shards.toml the right one?"
    )]
    NoPosition { shard: String, partition: u16 },
    #[error(
        "shards.toml says epoch {expected} of {shard}, its server says {found}: the file is old, \
         or a failover was not finished; nothing was changed"
    )]
    Epoch { shard: String, expected: u32, found: u32 },
    #[error(
        "{0} serves these partitions already, whatever shards.toml says here: take the newest \
         shards.toml; nothing was changed"
    )]
    Served(String),
    #[error("shards.toml or the servers changed while you were asked; nothing was changed")]
    Changed,
    #[error("the epoch of {0} rose in this moment: somebody else is at work; run it again")]
    Raced(String),
    #[error(
        "the replica {0} of the new shard has not got everything yet, so nothing was removed from \
         the old one; run it again with --clean-source"
    )]
    NotReplicated(String),
    #[error(
        "a keeper of {0} does not end what it has begun, so nothing was removed; run it again with \
         --clean-source"
    )]
    KeeperBusy(String),
    #[error(
        "after {PASSES_MAX} passes rows still differ: somebody writes them. The groups are served \
         by nobody: run it again, or move them to {0} to undo it"
    )]
    Restless(String),
}

/// Who gives what to whom.
struct Job<'a> {
    from: &'a Shard,
    to: &'a Shard,
    scope: Scope,
}

pub async fn run(desk: &Desk, options: &Move) -> Result<Answer, Failure> {
    let map = desk.shards()?;
    let to = shard(&map, &options.to)?;
    let scope = scope(&map, &options.groups)?;
    let owners =
        map.shards.iter().filter(|one| one.groups.iter().any(|g| scope.groups.contains(g)));
    let owners: Vec<&Shard> = owners.collect();
    let from = match owners.as_slice() {
        [one] => *one,
        _ => return Err(UsageError("move groups of one shard at a time".to_owned()).into()),
    };
    file::check_writable(&desk.settings.shards_file)?;
    if from.name == to.name {
        return finish::settled(desk, &map, (to, &scope), options).await;
    }
    let job = Job { from, to, scope };
    let mut pair = job.connect(desk).await?;
    let (_, stage) = job.look(&mut pair).await?;
    let mut answer = Answer::default();
    answer.fact("groups", options.groups.clone()).fact("from", from.name.clone());
    answer.fact("to", to.name.clone()).fact("resumed", stage == Stage::Finish);
    let steps = job.steps(desk, &mut pair, stage, options).await?;
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
        if desk.shards()? != map {
            return Err(RelocateFault::Changed.into());
        }
        // What was connected to while the operator thought may be gone.
        let mut pair = job.connect(desk).await?;
        job.move_groups(desk, &mut pair, &mut answer).await?;
        let places = (&map, to, &job.scope);
        finish::follow_up(desk, places, pair, options, &mut answer).await
    };
    entry.end(done.await)?;
    Ok(answer)
}

fn scope(map: &ShardMap, groups: &str) -> Result<Scope, UsageError> {
    let wrong = |text: &str| UsageError(format!("--groups: {text}"));
    let partitioning = map.partitioning().ok_or_else(|| wrong("shards.toml has none"))?;
    let groups = expand(groups, partitioning.groups()).map_err(|text| wrong(&text))?;
    if groups.is_empty() {
        return Err(wrong("name at least one"));
    }
    let size = partitioning.group_size();
    let partitions = groups.iter().flat_map(|group| group * size..(group + 1) * size).collect();
    Ok(Scope { partitioning, groups, partitions })
}

impl Job<'_> {
    async fn connect(&self, desk: &Desk) -> Result<Pair, Failure> {
        let source = Server::connect(&desk.settings, self.from).await?;
        Pair::new(source, Server::connect(&desk.settings, self.to).await?).await
    }

    async fn look(&self, pair: &mut Pair) -> Result<(Standing, Stage), Failure> {
        let partitions = &self.scope.partitions;
        let source = standing(&mut pair.source, partitions).await?;
        let target = standing(&mut pair.target, partitions).await?;
        let stage = seat::stage((&source, &target), (self.from, self.to), partitions)?;
        Ok((source, stage))
    }

    async fn steps(
        &self,
        desk: &Desk,
        pair: &mut Pair,
        stage: Stage,
        options: &Move,
    ) -> Result<Vec<String>, Failure> {
        let (from, to) = (&self.from.name, &self.to.name);
        let file = desk.settings.shards_file.display();
        let mut steps = Vec::new();
        if stage == Stage::Copy {
            let all = self.scope.environments(pair, Act::Clear).await?;
            let (series, points) = self.size(pair, &all).await?;
            let names = all.into_iter().collect::<Vec<_>>().join(", ");
            steps.push(format!("move the environments: {names}"));
            steps.push(format!(
                "stop {} partitions at {from}: nobody commits there any more; senders notice \
                 nothing, Kafka keeps what comes",
                self.scope.partitions.len()
            ));
            steps.push(format!(
                "copy {series} series with some {points} rows of points, their rollups and ledger \
                 to {to}, about {}; how much room {to} has is not known from here",
                duration((points / ROWS_PER_S) as f64)
            ));
            steps.push("compare everything on both sides".to_owned());
            steps.push(format!(
                "let {to} take the partitions over where they stopped, epoch {}",
                self.to.epoch + 1
            ));
        } else {
            steps.push(format!("go on with a move that was not finished: {to} has everything"));
        }
        steps
            .push(format!("raise {from} to epoch {} and name {to} in {file}", self.from.epoch + 1));
        let readers = readers::of(pair, &self.scope).await?;
        if !readers.is_empty() {
            let names: Vec<_> = readers.into_iter().map(|reader| reader.name).collect();
            let names = names.join(", ");
            steps.push(format!("make the readers {names} at {to} too, with their passwords"));
        }
        steps.push("consumers end (exit code 75) and start again with the new file".to_owned());
        if options.clean_source {
            steps.push(format!("once consumers are seen at {to}: remove the rows from {from}"));
        }
        Ok(steps)
    }

    /// Series, and about how many rows of points they have.
    async fn size(
        &self,
        pair: &mut Pair,
        environments: &std::collections::BTreeSet<String>,
    ) -> Result<(u64, u64), Failure> {
        pair.source.see_sizes_now().await?;
        let count = "SELECT environment, COUNT(*) FROM spillway_store.series GROUP BY environment";
        let (mut own, mut all) = (0, 0);
        for row in rows(&mut pair.source, count, &[]).await? {
            let found = spillway_runtime::mysql::text(&row, 0)
                .and_then(|name| Ok((name, sqlx::Row::try_get::<i64, _>(&row, 1)?)));
            let (name, series) = found.map_err(|error| pair.source.fault(error.into()))?;
            let series = u64::try_from(series).unwrap_or(0);
            all += series;
            own += if environments.contains(&name) { series } else { 0 };
        }
        let estimate = "SELECT CAST(COALESCE(SUM(table_rows), 0) AS UNSIGNED)
                        FROM information_schema.tables
                        WHERE table_schema = 'spillway_store' AND table_name = 'points'";
        let mut points = 0_u64;
        for row in rows(&mut pair.source, estimate, &[]).await? {
            let found = sqlx::Row::try_get::<u64, _>(&row, 0);
            points = found.map_err(|error| pair.source.fault(error.into()))?;
        }
        Ok((own, (points as f64 * own as f64 / (all.max(1)) as f64) as u64))
    }

    async fn move_groups(
        &self,
        desk: &Desk,
        pair: &mut Pair,
        answer: &mut Answer,
    ) -> Result<(), Failure> {
        let partitions = &self.scope.partitions;
        let (from, to) = (&self.from.name, &self.to.name);
        let began = Instant::now();
        if self.look(pair).await?.1 == Stage::Copy {
            seat::give_up(&mut pair.source, partitions).await?;
            progress(&format!("{from} has given up {} partitions", partitions.len()));
            self.copy(pair, answer).await?;
            let (source, _) = self.look(pair).await?;
            seat::take_over(&mut pair.target, &source, self.to.epoch).await?;
            progress(&format!("{to} has taken them over, epoch {}", self.to.epoch + 1));
        }
        let readers = readers::of(pair, &self.scope).await?;
        readers::go_along(pair, &readers, answer).await;
        for server in [&mut pair.source, &mut pair.target] {
            release_keeper(server).await?;
        }
        seat::leave(&mut pair.source, self.from.epoch, partitions).await?;
        let text = file::moved(&desk.settings.shards_file, &self.scope.groups, to)?;
        file::write(&desk.settings.shards_file, &text)?;
        progress(&format!("{} names {to}", desk.settings.shards_file.display()));
        answer.fact("stopped_s", began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Pass after pass, until one finds both sides alike.
    async fn copy(&self, pair: &mut Pair, answer: &mut Answer) -> Result<(), Failure> {
        let mut written = 0;
        for pass in 0..PASSES_MAX {
            (pair.seen, pair.changed, pair.marks) = (0, 0, pass > 0);
            walk(pair, &self.scope, Act::Match).await?;
            written += pair.changed;
            let (seen, changed) = (pair.seen, pair.changed);
            progress(&format!("pass {}: {seen} rows compared, {changed} changed", pass + 1));
            if pair.marks && changed == 0 {
                answer.fact("rows", seen).fact("rows_written", written);
                return Ok(());
            }
            // What a keeper had begun before it was held still comes to its end.
            tokio::time::sleep(PASS_PAUSE * pass).await;
        }
        answer.trouble(Verdict::Critical, "rows still differ");
        Err(RelocateFault::Restless(self.from.name.clone()).into())
    }
}
