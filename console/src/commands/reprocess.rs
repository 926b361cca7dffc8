//! `spillway reprocess raw|rollups`: what is stored, held against what it was made of, and put
//! right where the two differ. The work itself is `spillway_keeper`'s, at the pace of background
//! work; here are the plan, the progress and the words.
//!
//! Both may be ended at any moment and run again: whatever is right already is only compared.

use std::ops::Range;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value as Json;
use spillway_keeper::metrics::Metrics;
use spillway_keeper::pace::Pace;
use spillway_keeper::reprocess::{Gone, Reprocess, Request, Sources, reprocess};
use spillway_keeper::rollups::repair::{Repair, repair};
use spillway_keeper::settings::KeeperSettings;
use spillway_keeper::shard::ShardHandle;
use spillway_runtime::shards::{Shard, ShardMap};
use sqlx::Row as _;

use crate::answer::{Answer, Verdict, duration};
use crate::cli::{self, ReprocessRaw, Stretch};
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};
use crate::journal::Entry;
use crate::reach::mysql::Server;

/// Between two lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(2);

pub async fn run(desk: &Desk, command: cli::Reprocess) -> Result<Answer, Failure> {
    match command {
        cli::Reprocess::Raw(options) => raw(desk, &options).await,
        cli::Reprocess::Rollups(stretch) => rollups(desk, &stretch).await,
    }
}

async fn raw(desk: &Desk, options: &ReprocessRaw) -> Result<Answer, Failure> {
    let map = desk.shards()?;
    let (shard, span) = chosen(&map, &options.stretch)?;
    let partitions = partitions(&map, shard, options)?;
    let mut answer = Answer::default();
    answer
        .fact("shard", shard.name.clone())
        .fact("from", time(span.start))
        .fact("to", time(span.end))
        .fact("partitions", partitions.len());
    let from_to = format!("{} to {}", time(span.start), time(span.end));
    let count = partitions.len();
    let steps = vec![
        format!("make the points of {from_to} again from {count} partitions of Kafka, both topics"),
        format!("hold them against shard {}, row by row", shard.name),
        "write rows that are missing or differ, unless the consumer changes them meanwhile".into(),
        "mark their minutes, so that rollups are made again".into(),
        "leave whatever no record brought, and whatever Kafka no longer has".into(),
    ];
    let entry = consent(desk, Plan { action: "reprocess raw", steps }, shard)?;
    let request = Request {
        span,
        partitions,
        environment: options.environment.clone(),
        raw_retention: desk.settings.raw_retention.get(),
        future_max: options.future_max.get(),
        dry_run: entry.is_none(),
    };
    let done = raw_work(desk, &map, shard, &request).await;
    let done = match entry {
        Some(entry) => entry.end(done)?,
        None => done?,
    };
    tell_raw(desk, shard, &request, &done, &mut answer).await?;
    Ok(answer)
}

/// `None` for a dry run, which does everything but write.
fn consent(desk: &Desk, plan: Plan, shard: &Shard) -> Result<Option<Entry>, Failure> {
    Ok(match desk.ask_about(&plan, &shard.name)? {
        Consent::Given(entry) => Some(entry),
        Consent::Nothing(_) => None,
    })
}

async fn raw_work(
    desk: &Desk,
    map: &ShardMap,
    shard: &Shard,
    request: &Request,
) -> Result<Reprocess, Failure> {
    let handle = handle(desk, map, shard)?;
    let Some(partitioning) = map.partitioning() else {
        return Err(UsageError("shards.toml has no partitions".to_owned()).into());
    };
    let pace = pace(shard);
    let kafka = &desk.settings.kafka;
    let sources = Sources { shard: &handle, kafka, partitioning, pace: &pace };
    let (began, mut told) = (Instant::now(), None);
    let tell = |state: &Reprocess| {
        let is_last = state.partitions_done == state.partitions;
        if !is_last && told.is_some_and(|told: Instant| told.elapsed() < TELL_EVERY) {
            return;
        }
        told = Some(Instant::now());
        let took = began.elapsed().as_secs_f64();
        let rate = state.points as f64 / took.max(0.001);
        let left = took * (state.partitions - state.partitions_done) as f64
            / state.partitions_done.max(1) as f64;
        let left = match state.partitions_done {
            0 => String::new(),
            _ => format!(", about {} left", duration(left)),
        };
        eprintln!(
            "  {} of {} partitions, {} records, {} points ({rate:.0}/s), {} rows differ, {} \
             restored{left}",
            state.partitions_done,
            state.partitions,
            state.records,
            state.points,
            state.missing + state.different,
            state.restored,
        );
    };
    Ok(reprocess(&sources, request, tell).await?)
}

async fn tell_raw(
    desk: &Desk,
    shard: &Shard,
    request: &Request,
    done: &Reprocess,
    answer: &mut Answer,
) -> Result<(), Failure> {
    answer
        .fact("records", done.records)
        .fact("points", done.points)
        .fact("rows", done.rows)
        .fact("missing", done.missing)
        .fact("different", done.different)
        .fact("extra", done.extra)
        .fact("beyond_kafka", done.beyond)
        .fact("restored", done.restored);
    name_rows(desk, shard, done, answer).await?;
    let differ = done.missing + done.different;
    if request.dry_run {
        answer.note("dry run: nothing was changed");
        if differ > 0 {
            answer.trouble(Verdict::Warning, format!("{differ} rows would be restored"));
        }
    }
    let mut count = |count: u64, text: &str| {
        if count > 0 {
            answer.trouble(Verdict::Warning, format!("{count} {text}"));
        }
    };
    count(done.changed_meanwhile, "rows changed since they were compared: run it once more");
    count(done.extra, "rows came from no record that Kafka has: left as they are");
    count(done.beyond, "rows are older than what Kafka still has: they can't be judged, and stay");
    count(done.not_applied, "records are neither in the ledger nor in dead letters: left out");
    for text in gone(&done.gone) {
        answer.note(text);
    }
    if done.was_paused {
        let at = request.partitions.get(done.partitions_done);
        let from = at.map(|at| format!("; go on with --from-partition {at}")).unwrap_or_default();
        answer.trouble(Verdict::Warning, format!("held still by keeper_pauses{from}"));
    }
    if done.restored > 0 {
        answer.note("Their rollups are made again by the keeper; nothing else is to be done.");
    }
    answer.note("There is no archive of S3 to go further back: Kafka's window is all there is.");
    Ok(())
}

/// What Kafka no longer has, by range; partitions that lost the same share a line.
fn gone(all: &[Gone]) -> Vec<String> {
    let mut texts = Vec::new();
    for one in all {
        let until = match one.before_ts {
            Some(before) => format!("before {}", time(before)),
            None => "of this time at all".to_owned(),
        };
        texts.push(format!(
            "Kafka no longer has everything of {} partition {} {until}: there, nothing is taken \
             away",
            one.lane.topic(),
            one.partition,
        ));
    }
    texts
}

/// The first differences, with the names that people know.
async fn name_rows(
    desk: &Desk,
    shard: &Shard,
    done: &Reprocess,
    answer: &mut Answer,
) -> Result<(), Failure> {
    if done.named.is_empty() {
        return Ok(());
    }
    let mut server = Server::connect(&desk.settings, shard).await?;
    let columns = ["what", "environment", "host", "metric", "labels", "window", "series_id"];
    let section = answer.section("differences", &columns);
    for named in &done.named {
        let sql = "SELECT environment, host, metric, labels FROM spillway_store.series \
                   WHERE series_id = ?";
        let id = named.series_id;
        let row =
            server.ask(async |conn| sqlx::query(sql).bind(id).fetch_optional(conn).await).await?;
        let text = |place: usize| match &row {
            Some(row) => row.try_get_unchecked::<String, _>(place).map_or(Json::Null, Json::from),
            None => Json::Null,
        };
        let window = time(named.window_ts);
        section.row([
            named.what.word().into(),
            text(0),
            text(1),
            text(2),
            text(3),
            window.into(),
            id.to_string().into(),
        ]);
    }
    Ok(())
}

async fn rollups(desk: &Desk, stretch: &Stretch) -> Result<Answer, Failure> {
    let map = desk.shards()?;
    let (shard, span) = chosen(&map, stretch)?;
    let mut answer = Answer::default();
    answer
        .fact("shard", shard.name.clone())
        .fact("from", time(span.start))
        .fact("to", time(span.end));
    let steps = vec![
        format!(
            "hold the minutes from {} to {} of shard {} against their points",
            time(span.start),
            time(span.end),
            shard.name
        ),
        "mark those that differ; the keeper makes them again".to_owned(),
    ];
    let entry = consent(desk, Plan { action: "reprocess rollups", steps }, shard)?;
    let dry_run = entry.is_none();
    let work = async {
        let handle = handle(desk, &map, shard)?;
        let mut told = Instant::now();
        let tell = |state: &Repair| {
            if told.elapsed() >= TELL_EVERY || state.minutes_done == state.minutes {
                told = Instant::now();
                let Repair { minutes_done, minutes, rows, differ, .. } = state;
                eprintln!("  {minutes_done} of {minutes} minutes, {rows} rows, {differ} differ");
            }
        };
        Ok::<_, Failure>(repair(&handle, &pace(shard), (span, dry_run), tell).await?)
    };
    let done = work.await;
    let done = match entry {
        Some(entry) => entry.end(done)?,
        None => done?,
    };
    answer
        .fact("minutes", done.minutes)
        .fact("rows", done.rows)
        .fact("different", done.differ)
        .fact("marked", done.marked);
    if dry_run {
        answer.note("dry run: nothing was changed");
        if done.differ > 0 {
            answer.trouble(Verdict::Warning, format!("{} rows differ", done.differ));
        }
    }
    if done.of_nothing > 0 {
        let text = format!("{} rows have no point any more: left as they are", done.of_nothing);
        answer.trouble(Verdict::Warning, text);
    }
    if done.was_paused {
        answer.trouble(Verdict::Warning, "held still by keeper_pauses before its end");
    }
    Ok(answer)
}

fn chosen<'a>(map: &'a ShardMap, stretch: &Stretch) -> Result<(&'a Shard, Range<u32>), UsageError> {
    let name = &stretch.shard;
    let shard = map.shard(name);
    let shard = shard.ok_or_else(|| UsageError(format!("shards.toml has no shard {name:?}")))?;
    let second = |at: Timestamp| u32::try_from(at.as_second()).unwrap_or(0);
    let now = Timestamp::now();
    let span = second(stretch.from)..second(stretch.to.unwrap_or(now).min(now));
    match span.is_empty() {
        true => Err(UsageError("--from must lie before --to, and in the past".to_owned())),
        false => Ok((shard, span)),
    }
}

fn partitions(
    map: &ShardMap,
    shard: &Shard,
    options: &ReprocessRaw,
) -> Result<Vec<u16>, UsageError> {
    let own = map.partitions_of(shard);
    let mut chosen = match &options.environment {
        Some(environment) => {
            let group = map.partitioning().map(|partitioning| partitioning.group_of(environment));
            let first = group.unwrap_or(0) * map.group;
            (first..first + map.group).collect()
        }
        None => own.clone(),
    };
    chosen.retain(|partition| options.from_partition.is_none_or(|from| *partition >= from));
    match chosen.iter().find(|partition| !own.contains(partition)) {
        Some(stranger) => Err(UsageError(format!(
            "partition {stranger} does not live on shard {}; see `spillway where`",
            shard.name
        ))),
        None => Ok(chosen),
    }
}

fn handle(desk: &Desk, map: &ShardMap, shard: &Shard) -> Result<ShardHandle, Failure> {
    let handles = ShardHandle::all(map, &desk.settings.mysql)?;
    let own = handles.into_iter().find(|handle| handle.name == shard.name);
    own.ok_or_else(|| UsageError(format!("shards.toml has no shard {:?}", shard.name)).into())
}

/// As the keeper paces itself unless told otherwise.
fn pace(shard: &Shard) -> Pace {
    Pace::new(&shard.name, &KeeperSettings::default().pace, &Metrics::default())
}

fn time(ts: u32) -> String {
    Timestamp::from_second(ts.into()).map_or_else(|_| ts.to_string(), |at| at.to_string())
}
