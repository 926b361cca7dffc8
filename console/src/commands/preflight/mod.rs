//! `spillway preflight [--stop NAME]…`: may this be stopped now?
//!
//! Each thing that is about to be stopped is taken away in thought, all of them together, and what
//! is left is held against what must be: in-sync copies for every partition, a primary and a
//! replica for every shard, one of each program, and against what all of it stands on
//! (`surroundings.rs`). What can't be seen from here, like MySQL's disks, is said, not assumed.

mod surroundings;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use spillway_runtime::program::chain;
use spillway_runtime::shards::ShardMap;
use spillway_runtime::tokens::Tokens;

use super::{lag, maintenance, shard};
use crate::answer::{Answer, Verdict, duration};
use crate::cli::Preflight;
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};
use crate::reach::http::{Http, join};
use crate::reach::kafka::{Layout, TopicValue};
use crate::reach::mysql::Server;

/// Partitions of points should reach at least this far ahead; the keeper makes them days ahead.
const HEADROOM_S_MIN: i64 = 24 * 3_600;
/// A token that ends sooner needs somebody's attention.
const TOKEN_DAYS_MIN: i64 = 14;
/// What to do about a check that is not ok, by the first word of its name.
const FIXES: [(&str, &str); 16] = [
    ("maintenance", "wait for its end; or maintenance begin --take-over-from"),
    ("kafka copies", "bring the broker back, and wait until its copies are in sync"),
    (
        "kafka quorum",
        "bring those back that are behind; it takes three controllers for one to be spared",
    ),
    ("kafka without", "wait until all copies are in sync; or not this one"),
    ("kafka", "is it up, and is kafka.brokers right? See `spillway doctor`"),
    ("mysql", "`spillway shard ls` tells which; then shard switchover or rebuild"),
    ("ingest-api", "start another one first"),
    ("lag", "`spillway lag --watch`; is a consumer running?"),
    ("partitions", "the keeper makes them: does it run, and does a long query hold it?"),
    ("tokens", "`spillway token create`, roll it out, then revoke the old one"),
    ("certificate", "renew it; the programs take new files by themselves or at SIGHUP"),
    ("disk", "make room or a larger disk; is the keeper trimming?"),
    ("clock", "start chrony or systemd-timesyncd on both machines"),
    ("s3", "check [s3] in spillway.toml and deploy/s3/recovery-worker-policy.json"),
    ("broker", "wait until the others have its copies in sync"),
    ("", "start it first"),
];
const MIN_INSYNC: &str = "min.insync.replicas";

/// The lines of the answer.
#[derive(Default)]
struct Lines {
    rows: Vec<Vec<Json>>,
    verdict: Verdict,
}

impl Lines {
    fn add(&mut self, check: impl Into<String>, verdict: Verdict, detail: impl Into<String>) {
        self.verdict = self.verdict.max(verdict);
        let (check, fix) = (check.into(), verdict != Verdict::Ok);
        let fix = FIXES.iter().find(|(name, _)| fix && check.starts_with(name));
        let fix = fix.map_or(Json::Null, |(_, fix)| Json::from(*fix));
        self.rows.push(vec![check.into(), verdict.as_str().into(), detail.into().into(), fix]);
    }

    fn judge(&mut self, check: &str, (verdict, detail): (Verdict, String)) {
        self.add(check, verdict, detail);
    }

    /// What can't be known from here, and how it can.
    fn unknown(&mut self, check: &str, detail: String, fix: String) {
        self.rows.push(vec![check.into(), "unknown".into(), detail.into(), fix.into()]);
    }

    /// What holds nobody up, but should be known.
    fn tell(&mut self, check: &str, word: &str, detail: impl Into<String>) {
        self.rows.push(vec![check.into(), word.into(), detail.into().into(), Json::Null]);
    }
}

pub async fn run(desk: &Desk, options: &Preflight) -> Result<Answer, Failure> {
    let map = desk.shards()?;
    let mut stop: BTreeSet<String> = options.stop.iter().cloned().collect();
    let mut lines = Lines::default();
    lock(desk, &mut lines).await;
    brokers(desk, &mut stop, &mut lines).await;
    servers(desk, &map, &mut stop, &mut lines).await;
    programs(desk, &mut stop, &mut lines).await;
    consumers(desk, &map, &mut lines).await;
    headroom(desk, &map, &mut lines).await;
    tokens(desk, &mut lines);
    surroundings::mysql(desk, &map, &mut lines).await;
    surroundings::api_certificates(desk, &mut lines).await;
    surroundings::s3(desk, &mut lines).await;
    if !stop.is_empty() {
        let names = stop.into_iter().collect::<Vec<_>>().join(", ");
        let text = format!(
            "nothing here is called {names}; a broker or MySQL server is HOST:PORT, a program as \
             in status.programs"
        );
        return Err(UsageError(text).into());
    }
    let mut answer = Answer::default();
    answer.worsen(lines.verdict);
    if !options.stop.is_empty() {
        answer.fact("stopping", options.stop.clone());
    }
    answer.section("checks", &["check", "state", "detail", "fix"]).rows = lines.rows;
    if !options.stop.is_empty() {
        answer.note(match lines.verdict {
            Verdict::Ok => "Nothing speaks against stopping it.",
            Verdict::Warning => "It may be stopped; mind the warnings.",
            Verdict::Critical => "Do not stop it now.",
        });
    }
    Ok(answer)
}

async fn lock(desk: &Desk, lines: &mut Lines) {
    match maintenance::holder(desk).await {
        Ok(None) => lines.add("maintenance lock", Verdict::Ok, "free"),
        Ok(Some(lock)) if lock.owner == crate::consent::who() => {
            lines.add("maintenance lock", Verdict::Ok, format!("yours: {}", lock.reason));
        }
        Ok(Some(lock)) => {
            let detail = format!("{} is at work: {}", lock.owner, lock.reason);
            lines.add("maintenance lock", Verdict::Critical, detail);
        }
        Err(fault) => lines.add("maintenance lock", Verdict::Warning, fault.to_string()),
    }
}

async fn brokers(desk: &Desk, stop: &mut BTreeSet<String>, lines: &mut Lines) {
    let looked = async {
        let kafka = desk.kafka()?;
        Ok::<_, Failure>((kafka.layout().await?, kafka.topic_values(&[MIN_INSYNC]).await?))
    };
    let (layout, values) = match looked.await {
        Ok(found) => found,
        Err(failure) => {
            return lines.add("kafka", Verdict::Critical, failure.sentence());
        }
    };
    let lagging = layout.partitions.iter().filter(|p| p.in_sync.len() < p.copies.len()).count();
    let detail = match lagging {
        0 => format!("all copies of {} partitions are in sync", layout.partitions.len()),
        _ => format!("{lagging} partitions have a copy that is not in sync"),
    };
    lines.add("kafka copies", if lagging == 0 { Verdict::Ok } else { Verdict::Warning }, detail);
    surroundings::kafka(desk, &layout.brokers, lines).await;
    let gone: Vec<i32> =
        layout.brokers.iter().filter(|(_, at)| stop.remove(at)).map(|(id, _)| *id).collect();
    if !gone.is_empty() {
        let (verdict, detail) = without(&layout, &values, &gone);
        lines.add("kafka without it", verdict, detail);
        return;
    }
    for (id, address) in &layout.brokers {
        let (verdict, detail) = without(&layout, &values, &[*id]);
        // Only asked about, not about to happen.
        let word = if verdict == Verdict::Ok { "may stop" } else { "may not stop" };
        lines.tell(&format!("broker {address}"), word, detail);
    }
}

/// What is left of the in-sync copies, where these brokers are gone.
fn without(layout: &Layout, values: &[TopicValue], gone: &[i32]) -> (Verdict, String) {
    let needed: BTreeMap<&str, usize> = values
        .iter()
        .filter_map(|value| Some((value.topic.as_str(), value.value.parse().ok()?)))
        .collect();
    let mut broken = 0;
    let mut first = None;
    for partition in &layout.partitions {
        let left = partition.in_sync.iter().filter(|id| !gone.contains(id)).count();
        let need = needed.get(partition.topic.as_str()).copied().unwrap_or(1);
        if left < need {
            broken += 1;
            first.get_or_insert((partition.topic.clone(), partition.partition, left, need));
        }
    }
    match first {
        None => (Verdict::Ok, "every partition keeps enough copies in sync".to_owned()),
        Some((topic, partition, left, need)) => (
            Verdict::Critical,
            format!(
                "{broken} partitions could not be written, such as {topic} {partition}: {left} in \
                 sync, {need} needed"
            ),
        ),
    }
}

async fn servers(desk: &Desk, map: &ShardMap, stop: &mut BTreeSet<String>, lines: &mut Lines) {
    let seen = match shard::servers(desk, map).await {
        Ok(seen) => seen,
        Err(failure) => return lines.add("mysql", Verdict::Critical, failure.sentence()),
    };
    for shard in &map.shards {
        let of_shard: Vec<_> = seen.iter().filter(|server| server.shard == shard.name).collect();
        let well = |role: &str, stop: &BTreeSet<String>| {
            let there = of_shard.iter().filter(|s| s.role == role && s.state == "ok");
            there.filter(|server| !stop.contains(&server.address)).count()
        };
        let check = format!("mysql {}", shard.name);
        let had_replicas = !shard.replicas.is_empty();
        let asked = of_shard.iter().any(|server| stop.contains(&server.address));
        let (primaries, replicas) = (well("primary", stop), well("replica", stop));
        let (verdict, detail) = match (primaries, replicas) {
            (0, 0) => (Verdict::Critical, "no server would be left".to_owned()),
            (0, _) => {
                let text = format!(
                    "no primary would be left: spillway shard switchover {} first",
                    shard.name
                );
                (Verdict::Critical, text)
            }
            (_, 0) if had_replicas && asked => {
                (Verdict::Critical, "no replica would be left to take over".to_owned())
            }
            (_, 0) => (Verdict::Warning, "there is no replica that could take over".to_owned()),
            (_, replicas) => (Verdict::Ok, format!("primary and {replicas} replicas are left")),
        };
        lines.add(check, verdict, detail);
        for server in of_shard {
            stop.remove(&server.address);
        }
    }
}

async fn programs(desk: &Desk, stop: &mut BTreeSet<String>, lines: &mut Lines) {
    let Ok(http) = Http::new(desk.settings.remote_deadline.get()) else { return };
    let mut ready: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for program in &desk.settings.status.programs {
        let answer = http.get(&join(&program.admin, "/readyz")).await;
        let is_ready = answer.is_ok_and(|answer| answer.status.is_success());
        let of_kind = ready.entry(kind(&program.name).to_owned()).or_default();
        if is_ready && !stop.contains(&program.name) {
            of_kind.push(&program.name);
        }
    }
    for (kind, left) in ready {
        let asked = desk.settings.status.programs.iter().map(|program| &program.name);
        let asked: Vec<&String> = asked.filter(|name| self::kind(name) == kind).collect();
        let asked = asked.into_iter().filter(|name| stop.remove(*name)).count() > 0;
        let (verdict, detail) = match (left.len(), kind.as_str()) {
            (0, "ingest-api") => {
                (Verdict::Critical, "none would be left: every agent would spool".to_owned())
            }
            (0, _) if asked => (Verdict::Warning, "none would be left meanwhile".to_owned()),
            (0, _) => (Verdict::Warning, "none is ready".to_owned()),
            (_, _) => (Verdict::Ok, format!("left: {}", left.join(", "))),
        };
        lines.add(kind, verdict, detail);
    }
}

/// `ingest-api-0` is one of `ingest-api`.
fn kind(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((kind, number)) if number.bytes().all(|b| b.is_ascii_digit()) => kind,
        _ => name,
    }
}

async fn consumers(desk: &Desk, map: &ShardMap, lines: &mut Lines) {
    match lag::measure(desk, map).await {
        Ok(look) => {
            let (verdict, detail) = match look.not_applied() {
                0 => (Verdict::Ok, look.behind().words()),
                still => (
                    Verdict::Critical,
                    format!("{still} partitions are not applied: mend that first"),
                ),
            };
            lines.add("lag", verdict, detail);
        }
        Err(failure) => lines.add("lag", Verdict::Critical, failure.sentence()),
    }
}

async fn headroom(desk: &Desk, map: &ShardMap, lines: &mut Lines) {
    for shard in &map.shards {
        let check = format!("partitions {}", shard.name);
        let asked = async {
            let mut server = Server::connect(&desk.settings, shard).await?;
            server
                .ask(async |conn| {
                    let sql = "SELECT CAST(MAX(CAST(partition_description AS UNSIGNED)) AS SIGNED)
                               - UNIX_TIMESTAMP() FROM information_schema.partitions
                               WHERE table_schema = 'spillway_store' AND table_name = 'points'";
                    sqlx::query_scalar::<_, Option<i64>>(sql).fetch_one(conn).await
                })
                .await
        };
        match asked.await {
            Ok(Some(seconds)) => {
                let low = seconds < HEADROOM_S_MIN;
                let detail =
                    format!("points have partitions for {} ahead", duration(seconds as f64));
                lines.add(check, if low { Verdict::Critical } else { Verdict::Ok }, detail);
            }
            Ok(None) => lines.add(check, Verdict::Critical, "points has no partitions"),
            Err(fault) => lines.add(check, Verdict::Critical, chain(&fault)),
        }
    }
}

fn tokens(desk: &Desk, lines: &mut Lines) {
    let tokens = match Tokens::load(&desk.settings.tokens_file) {
        Ok(tokens) => tokens,
        Err(error) => return lines.add("tokens", Verdict::Warning, error.to_string()),
    };
    let now = jiff::Timestamp::now();
    let soon = now.as_second() + TOKEN_DAYS_MIN * 86_400;
    let ending: Vec<String> = tokens
        .iter()
        .filter(|token| token.revoked.is_none())
        .filter_map(|token| Some((token, token.expires?)))
        .filter(|(_, expires)| *expires > now && expires.as_second() < soon)
        .map(|(token, expires)| format!("{} of {} on {expires}", token.id, token.environment))
        .collect();
    match ending.is_empty() {
        true => lines.add("tokens", Verdict::Ok, format!("none ends within {TOKEN_DAYS_MIN} days")),
        false => lines.add("tokens", Verdict::Warning, format!("ending: {}", ending.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::kafka::PartitionCopies;

    fn layout(in_sync: &[i32]) -> Layout {
        let partition = PartitionCopies {
            topic: "spillway.live".to_owned(),
            partition: 3,
            copies: vec![1, 2, 3],
            in_sync: in_sync.to_vec(),
        };
        Layout { brokers: Vec::new(), partitions: vec![partition] }
    }

    fn two_needed() -> Vec<TopicValue> {
        let (topic, name) = ("spillway.live".to_owned(), MIN_INSYNC.to_owned());
        vec![TopicValue { topic, name, value: "2".to_owned() }]
    }

    #[test]
    fn a_broker_may_go_while_enough_copies_stay_in_sync_and_two_at_once_may_not() {
        assert_eq!(without(&layout(&[1, 2, 3]), &two_needed(), &[1]).0, Verdict::Ok);
        assert_eq!(without(&layout(&[1, 2, 3]), &two_needed(), &[1, 2]).0, Verdict::Critical);
        let (verdict, detail) = without(&layout(&[1, 2]), &two_needed(), &[2]);
        assert_eq!(verdict, Verdict::Critical);
        assert!(detail.contains("spillway.live 3: 1 in sync, 2 needed"), "{detail}");
        assert_eq!(without(&layout(&[1, 2]), &two_needed(), &[3]).0, Verdict::Ok);
    }

    #[test]
    fn programs_are_of_one_kind_by_their_names() {
        assert_eq!(
            (kind("ingest-api-12"), kind("keeper"), kind("my-keeper")),
            ("ingest-api", "keeper", "my-keeper")
        );
    }
}
