//! `spillway shard ls`: every server, as it sees itself.

use serde_json::Value as Json;
use spillway_runtime::mysql_url::MysqlUrl;
use spillway_runtime::shards::{Shard, ShardMap};

use super::address;
use super::server::{Member, Status};
use crate::answer::{Answer, Verdict};
use crate::desk::Desk;
use crate::failure::Failure;

/// A replica that is further behind costs a long replay when it takes over.
const BEHIND_S_MAX: i64 = 60;

/// One server, as `shard ls` shows it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub shard: String,
    pub role: &'static str,
    pub address: String,
    /// `ok`, `late`, `wrong` or `down`.
    pub state: &'static str,
    /// What is wrong, if anything is.
    pub trouble: Option<String>,
    status: Option<Status>,
}

pub async fn run(desk: &Desk) -> Result<Answer, Failure> {
    let seen = servers(desk, &desk.shards()?).await?;
    let mut answer = Answer::default();
    for server in &seen {
        if let Some(trouble) = &server.trouble {
            let dead = server.state == "down" && server.role == "primary";
            let verdict = if dead { Verdict::Critical } else { Verdict::Warning };
            answer.trouble(verdict, format!("{} {}: {trouble}", server.shard, server.address));
        }
    }
    let columns =
        ["shard", "role", "server", "state", "epoch", "behind_s", "writable", "partitions"];
    answer.section("servers", &columns).rows = seen.iter().map(row).collect();
    Ok(answer)
}

/// Asks every server of every shard.
pub async fn servers(desk: &Desk, map: &ShardMap) -> Result<Vec<Seen>, Failure> {
    let mut seen = Vec::new();
    for shard in &map.shards {
        let replicas = shard.replicas.iter().map(|replica| ("replica", &replica.url));
        for (role, url) in std::iter::once(("primary", &shard.primary)).chain(replicas) {
            seen.push(look(desk, shard, (role, url)).await);
        }
    }
    Ok(seen)
}

async fn look(desk: &Desk, shard: &Shard, (role, url): (&'static str, &MysqlUrl)) -> Seen {
    let status = match Member::connect(desk, shard, url).await {
        Ok(mut member) => member.status().await,
        Err(fault) => Err(fault),
    };
    let (state, trouble, status) = match status {
        Ok(status) => {
            let (state, trouble) = judge(shard, role, &status);
            (state, trouble, Some(status))
        }
        Err(fault) => ("down", Some(fault.cause.to_string()), None),
    };
    Seen { shard: shard.name.clone(), role, address: address(url), state, trouble, status }
}

fn row(seen: &Seen) -> Vec<Json> {
    let of = |value: &dyn Fn(&Status) -> Json| seen.status.as_ref().map_or(Json::Null, value);
    vec![
        seen.shard.clone().into(),
        seen.role.into(),
        seen.address.clone().into(),
        seen.state.into(),
        of(&|status| status.epoch.into()),
        of(&|status| status.follows.as_ref().and_then(|follows| follows.behind_s).into()),
        of(&|status| (!status.read_only).into()),
        of(&|status| status.partitions().into()),
    ]
}

/// One word, and a sentence if it is not as it should be.
fn judge(shard: &Shard, role: &str, status: &Status) -> (&'static str, Option<String>) {
    let wrong = |sentence: String| ("wrong", Some(sentence));
    if status.shard.as_deref().is_some_and(|name| name != shard.name) {
        return wrong(format!("it says it is shard {:?}", status.shard));
    }
    if status.epoch.is_some_and(|epoch| epoch != shard.epoch) {
        let epoch = status.epoch.unwrap_or_default();
        let why = match epoch < shard.epoch {
            true => "it has not got the last change yet",
            false => "this shards.toml is old, or a change was not finished",
        };
        return wrong(format!("its epoch is {epoch}, shards.toml says {}: {why}", shard.epoch));
    }
    match (role, &status.follows) {
        ("primary", None) if !status.read_only => ("ok", None),
        ("primary", None) => {
            let why =
                if status.fenced { "it is fenced (super_read_only)" } else { "it is read-only" };
            wrong(format!("{why}: a change was not finished, or a failover is under way"))
        }
        ("primary", Some(_)) => wrong("it follows another server".to_owned()),
        (_, None) => wrong("it follows nobody; `spillway shard rebuild` lets it follow".to_owned()),
        (_, Some(follows)) if !(follows.receives && follows.applies) => {
            wrong(format!("replication: {}", follows.state()))
        }
        (_, Some(_)) if !status.read_only => wrong("a replica that may be written to".to_owned()),
        (_, Some(follows)) if follows.behind_s.is_some_and(|s| s > BEHIND_S_MAX) => {
            ("late", Some(format!("{} s behind", follows.behind_s.unwrap_or_default())))
        }
        (_, Some(_)) => ("ok", None),
    }
}
