//! `spillway doctor`: what is wrong with this console, its files and its ways, one line each, and
//! for each that is, how to mend it. It changes nothing.
//!
//! `check` asks whether batches come through; `doctor` asks whether you could operate the system at
//! night: may this console fence a primary, is there a replica, can it write its journal.

mod journal;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value as Json;
use spillway_runtime::mysql::text;
use spillway_runtime::program::chain;
use spillway_runtime::shards::{Shard, ShardMap};

use super::check::preflight;
use super::{ingest, lag, maintenance, shard, topics};
use crate::answer::{Answer, Verdict};
use crate::desk::Desk;
use crate::failure::Failure;
use crate::reach::clock::{self, SKEW_MS_MAX};
use crate::reach::http::{Http, join};
use crate::reach::mysql::Server;

/// What `shard switchover` needs of the operators' MySQL user.
const RIGHTS: [&str; 4] =
    ["SYSTEM_VARIABLES_ADMIN", "REPLICATION_SLAVE_ADMIN", "RELOAD", "CREATE USER"];
/// What the console does on MariaDB: `reader`, and `shard ls` (REPLICA MONITOR, as it is granted).
const RIGHTS_ON_MARIADB: [&str; 3] = ["RELOAD", "CREATE USER", "SLAVE MONITOR"];

/// The lines of the answer.
#[derive(Default)]
struct Lines {
    rows: Vec<Vec<Json>>,
    verdict: Verdict,
}

impl Lines {
    fn fine(&mut self, what: impl Into<String>, detail: impl Into<String>) {
        self.rows.push(vec![what.into().into(), "ok".into(), detail.into().into(), Json::Null]);
    }

    fn wrong(&mut self, verdict: Verdict, what: impl Into<String>, (detail, fix): (String, &str)) {
        self.verdict = self.verdict.max(verdict);
        let state = verdict.as_str();
        self.rows.push(vec![what.into().into(), state.into(), detail.into(), fix.into()]);
    }

    fn judge(&mut self, what: &str, found: Result<String, Failure>, fix: &str) {
        match found {
            Ok(detail) => self.fine(what, detail),
            Err(failure) => self.wrong(Verdict::Critical, what, (failure.sentence(), fix)),
        }
    }
}

pub async fn run(desk: &Desk) -> Result<Answer, Failure> {
    let mut lines = Lines::default();
    files(desk, &mut lines).await;
    let map = match desk.shards() {
        Ok(map) => Some(map),
        Err(error) => {
            let fix = "correct the file; `spillway where` and every consumer read it";
            lines.wrong(Verdict::Critical, "shards file", (error.to_string(), fix));
            None
        }
    };
    if let Some(map) = &map {
        kafka(desk, map, &mut lines).await;
        for shard in &map.shards {
            mysql(desk, shard, &mut lines).await;
        }
        replicas(desk, map, &mut lines).await;
        consumers(desk, map, &mut lines).await;
    }
    let s3 = preflight::s3(desk).await.map(|((), detail)| detail);
    lines.judge("s3", s3, "check [s3] endpoint, bucket and keys; agents park there in an outage");
    let canary = preflight::token(desk).await.map(|(_, detail)| detail);
    lines.judge("canary token", canary, "spillway token create, then [api] token_file");
    for endpoint in &desk.settings.api.endpoints {
        let ready = preflight::api(desk, endpoint).await.map(|((), detail)| detail);
        let what = format!("api {}", crate::reach::http::host_of(endpoint));
        lines.judge(&what, ready, "see its log and /deepz; agents park in S3 meanwhile");
    }
    programs(desk, &mut lines).await;
    let mut answer = Answer::default();
    answer.worsen(lines.verdict);
    answer.section("findings", &["what", "state", "detail", "fix"]).rows = lines.rows;
    Ok(answer)
}

async fn files(desk: &Desk, lines: &mut Lines) {
    let settings = &desk.settings;
    for (what, path) in
        [("journal", &settings.journal_file), ("maintenance lock", &settings.maintenance_file)]
    {
        match can_write(path) {
            Ok(()) => lines.fine(what, format!("{} can be written", path.display())),
            Err(cause) => {
                let detail = format!("{}: {cause}", path.display());
                let fix = "make its folder, writable to you; nothing is changed without it";
                lines.wrong(Verdict::Critical, what, (detail, fix));
            }
        }
    }
    journal::look(desk, lines);
    keys(&settings.keys_dir, lines);
    match maintenance::holder(desk).await {
        Ok(Some(lock)) => {
            let detail = format!("held by {} until {}: {}", lock.owner, lock.until, lock.reason);
            let fix = "spillway maintenance end, when that work is done; it ends then by itself";
            lines.wrong(Verdict::Warning, "maintenance", (detail, fix));
        }
        Ok(None) => lines.fine("maintenance", "nobody is at work"),
        Err(fault) => {
            let fix = "look at the file, then remove it";
            lines.wrong(Verdict::Warning, "maintenance", (fault.to_string(), fix));
        }
    }
    let admission = ingest::run(desk, crate::cli::Ingest::Show);
    match admission {
        Ok(answer) if answer.verdict == Verdict::Ok => lines.fine("admission", "everyone"),
        Ok(_) => {
            let detail = "not everyone is admitted (`spillway ingest show`)".to_owned();
            lines.wrong(Verdict::Warning, "admission", (detail, "spillway ingest admit --all"));
        }
        Err(failure) => {
            let fix = "correct the file; ingest-api goes on with the last good version";
            lines.wrong(Verdict::Warning, "admission", (failure.sentence(), fix));
        }
    }
}

/// Tried beside the file, so that nothing of it changes.
fn can_write(path: &Path) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let there = dir.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    tempfile::tempfile_in(there).map(drop)
}

/// Private keys are for their owner's eyes.
fn keys(dir: &Path, lines: &mut Lines) {
    const OTHERS: u32 = 0o077;
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(cause) => {
            let detail = format!("{} can't be read: {cause}", dir.display());
            let fix = "only needed for `spill show|verify`, `ledger BATCH` and canaries: copy the \
                       keys here, or leave it";
            return lines.wrong(Verdict::Warning, "keys", (detail, fix));
        }
    };
    let (mut count, mut open) = (0, Vec::new());
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "key") {
            continue;
        }
        count += 1;
        let mode = entry.metadata().map(|meta| meta.permissions().mode());
        if mode.is_ok_and(|mode| mode & OTHERS != 0) {
            open.push(path.display().to_string());
        }
    }
    match open.is_empty() {
        true => lines.fine("keys", format!("{count} private keys, their owner's alone")),
        false => {
            let detail = format!("others may read {}", open.join(", "));
            lines.wrong(Verdict::Critical, "keys", (detail, "chmod 600 these files"));
        }
    }
}

async fn kafka(desk: &Desk, map: &ShardMap, lines: &mut Lines) {
    let found = preflight::kafka(desk, map).await.map(|(_, detail)| detail);
    lines.judge("kafka", found, "spillway topics check; is kafka.brokers right?");
    if let Ok(answer) = topics::check(desk).await
        && answer.verdict != Verdict::Ok
    {
        let detail = "a topic or a position is not as it must be".to_owned();
        lines.wrong(answer.verdict, "topics", (detail, "spillway topics check says what"));
    }
}

async fn mysql(desk: &Desk, shard: &Shard, lines: &mut Lines) {
    let what = format!("mysql {}", shard.name);
    let asked_ms = clock::now_ms();
    let asked = async {
        let mut server = Server::connect(&desk.settings, shard).await?;
        let rights = if server.is_mariadb().await? { &RIGHTS_ON_MARIADB[..] } else { &RIGHTS[..] };
        server
            .ask(async |conn| {
                let now = "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)";
                let now: i64 = sqlx::query_scalar(now).fetch_one(&mut *conn).await?;
                let rows = sqlx::raw_sql("SHOW GRANTS").fetch_all(conn).await?;
                let rows = rows.iter().map(|row| text(row, 0)).collect::<Result<Vec<_>, _>>()?;
                Ok((now, rows.join("\n"), rights))
            })
            .await
    };
    let (now_ms, grants, rights) = match asked.await {
        Ok(found) => found,
        Err(fault) => {
            let fix = "bring it back, or spillway shard failover";
            return lines.wrong(Verdict::Critical, what, (chain(&fault), fix));
        }
    };
    let all = grants.contains("GRANT ALL PRIVILEGES ON *.*");
    let missing: Vec<&str> =
        rights.iter().copied().filter(|right| !all && !grants.contains(right)).collect();
    match missing.is_empty() {
        true => lines.fine(&what, "answers, and the operators' user has its rights"),
        false => {
            let detail = format!("the operators' user lacks {}", missing.join(", "));
            let fix = "grant what deploy/mysql/users.sql says; without it no switchover";
            lines.wrong(Verdict::Warning, &what, (detail, fix));
        }
    }
    let skew_ms = clock::ahead_ms(asked_ms, now_ms, clock::now_ms());
    if skew_ms.abs() > SKEW_MS_MAX {
        let detail = format!("this clock is {skew_ms} ms ahead of that server's");
        let fix = "start chrony or systemd-timesyncd on both";
        lines.wrong(Verdict::Warning, what, (detail, fix));
    }
}

async fn replicas(desk: &Desk, map: &ShardMap, lines: &mut Lines) {
    let Ok(seen) = shard::servers(desk, map).await else { return };
    for shard in &map.shards {
        let what = format!("failover {}", shard.name);
        let of_shard = || seen.iter().filter(|s| s.shard == shard.name && s.role == "replica");
        // One that is down was told by `mysql`.
        let primary = seen.iter().find(|s| s.shard == shard.name && s.role == "primary");
        if let Some(primary) = primary.filter(|primary| primary.state == "wrong") {
            let trouble = primary.trouble.clone().unwrap_or_default();
            let fix = "finish the change (`begun before`), or spillway shard unfence";
            let detail = format!("the primary {}: {trouble}", primary.address);
            lines.wrong(Verdict::Critical, format!("mysql {}", shard.name), (detail, fix));
        }
        if shard.replicas.is_empty() {
            let detail = "it has no replica".to_owned();
            let fix = "make one, then spillway shard rebuild: without it an outage is a restore";
            lines.wrong(Verdict::Warning, &what, (detail, fix));
        }
        for server in of_shard().filter(|server| server.state != "ok") {
            let trouble = server.trouble.clone().unwrap_or_default();
            let fix = "spillway shard ls; spillway shard rebuild";
            let detail = format!("{}: {trouble}", server.address);
            lines.wrong(Verdict::Warning, &what, (detail, fix));
        }
        let well = of_shard().filter(|server| server.state == "ok").count();
        if well > 0 {
            lines.fine(&what, format!("{well} replicas could take over"));
        }
    }
    let any = map.shards.iter().any(|shard| !shard.replicas.is_empty());
    if any && desk.settings.replication.user.is_empty() {
        let detail = "after a switchover no server would follow the new primary".to_owned();
        let fix = "set [replication] user and password_file";
        lines.wrong(Verdict::Warning, "replication user", (detail, fix));
    }
}

async fn consumers(desk: &Desk, map: &ShardMap, lines: &mut Lines) {
    let fix = "spillway lag --watch; is a consumer running?";
    match lag::measure(desk, map).await {
        Ok(look) => {
            let state = look.places.iter().map(|place| place.state).max();
            let state = state.unwrap_or(lag::State::Ok);
            let detail = format!("{}, {}", state.as_str(), look.behind().words());
            match lag::verdict(state) {
                Verdict::Ok => lines.fine("lag", detail),
                verdict => lines.wrong(verdict, "lag", (detail, fix)),
            }
        }
        Err(failure) => lines.wrong(Verdict::Critical, "lag", (failure.sentence(), fix)),
    }
}

/// Each program's own view of what it depends on.
async fn programs(desk: &Desk, lines: &mut Lines) {
    let Ok(http) = Http::new(desk.settings.remote_deadline.get()) else { return };
    for program in &desk.settings.status.programs {
        let answer = match http.get(&join(&program.admin, "/deepz")).await {
            Ok(answer) => answer,
            Err(fault) => {
                let fix = "start it; or correct status.programs";
                lines.wrong(Verdict::Critical, &program.name, (fault.to_string(), fix));
                continue;
            }
        };
        let page: Json = serde_json::from_slice(&answer.body).unwrap_or(Json::Null);
        let dependencies = page.get("dependencies").and_then(Json::as_object);
        let failed = dependencies.into_iter().flatten().filter_map(|(name, found)| {
            let state = found.get("state").and_then(Json::as_str)?;
            let error = found.get("error").and_then(Json::as_str).unwrap_or("no reason given");
            (state == "failed").then(|| format!("{name}: {error}"))
        });
        let failed: Vec<String> = failed.collect();
        match failed.is_empty() {
            true => lines.fine(&program.name, "reaches what it needs"),
            false => {
                let fix = "mend that dependency; the program goes on by itself";
                lines.wrong(Verdict::Critical, &program.name, (failed.join("; "), fix));
            }
        }
    }
}
