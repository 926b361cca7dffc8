//! The stages that only look.

use jiff::Timestamp;
use spillway_publisher::check_topics;
use spillway_runtime::settings::Secret;
use spillway_runtime::shards::{Shard, ShardMap};
use spillway_runtime::tokens::{TokenError, Tokens};

use crate::commands::{lag, migrate, positions, spill, topics, views};
use crate::desk::Desk;
use crate::failure::Failure;
use crate::reach::http::{Http, HttpFault, join};
use crate::reach::kafka::Cluster;
use crate::reach::mysql::Server;

/// What a stage finds wrong, where nothing failed by itself.
#[derive(Debug, thiserror::Error)]
pub enum CheckFault {
    #[error("set [api] token_file to a token for the canary; `spillway token create` makes one")]
    NoToken,
    #[error("the canary's token is no good: {0}; make one with `spillway token create`")]
    Token(TokenError),
    #[error("the schema lacks {}; run `spillway migrate`", .0.join(", "))]
    Pending(Vec<&'static str>),
    #[error("the operators' user sees nothing through the views; run `spillway topics create`")]
    Blind,
    #[error(
        "{url} answers {status} ({text}): it is starting, draining, or something else is there"
    )]
    NotReady { url: String, status: u16, text: String },
    #[error(
        "{partitions} partitions are not applied, or nobody can tell ({behind}); is a consumer \
         running?"
    )]
    Stopped { partitions: usize, behind: String },
    #[error("{}", .0.join("; "))]
    Troubles(Vec<String>),
}

/// The canary's credential and the environment it is for.
#[derive(Debug, Clone)]
pub struct CanaryToken {
    pub secret: Secret,
    pub environment: String,
}

type Found<T> = Result<(T, String), Failure>;

pub async fn token(desk: &Desk) -> Found<CanaryToken> {
    let tokens = Tokens::load(&desk.settings.tokens_file)?;
    let api = &desk.settings.api;
    let secret = api.token.resolve(api.token_file.as_deref())?;
    if !secret.is_set() {
        return Err(CheckFault::NoToken.into());
    }
    let row = tokens.authenticate(secret.reveal(), Timestamp::now()).map_err(CheckFault::Token)?;
    let detail =
        format!("{} tokens; the canary goes to {}", tokens.iter().count(), row.environment);
    Ok((CanaryToken { environment: row.environment.clone(), secret }, detail))
}

pub async fn shards(desk: &Desk) -> Found<ShardMap> {
    let map = desk.shards()?;
    let detail = format!("{} shards, {} partitions", map.shards.len(), map.partitions);
    Ok((map, detail))
}

pub async fn kafka(desk: &Desk, map: &ShardMap) -> Found<Cluster> {
    let deadline = desk.settings.remote_deadline.get();
    check_topics(&desk.settings.kafka, map.partitions, deadline).await?;
    let cluster = desk.kafka()?.look().await?;
    let detail = format!("{} brokers, topics as they must be", cluster.brokers);
    Ok((cluster, detail))
}

pub async fn shard(
    desk: &Desk,
    map: &ShardMap,
    shard: &Shard,
    kafka: Option<&Cluster>,
) -> Found<()> {
    let mut server = Server::connect(&desk.settings, shard).await?;
    let pending = migrate::pending(&mut server).await?;
    if !pending.is_empty() {
        return Err(CheckFault::Pending(pending).into());
    }
    if !views::sees_all(&mut server).await? {
        return Err(CheckFault::Blind.into());
    }
    let known = positions::read(&mut server).await?;
    if let Some(cluster) = kafka {
        // After the positions: what is applied in between would seem to lie beyond the ends.
        let ends = topics::ends_of_existing(desk, map, cluster).await?;
        topics::check_shard(map, shard, (&known, &ends), cluster)?;
    }
    Ok(((), format!("schema current, {} positions", known.rows.len())))
}

pub async fn s3(desk: &Desk) -> Found<()> {
    let bucket = spill::bucket(desk)?;
    let page = bucket.list_spill(None).await?;
    Ok((
        (),
        format!("bucket {} lists {} parked objects", desk.settings.s3.bucket, page.objects.len()),
    ))
}

pub async fn api(desk: &Desk, endpoint: &str) -> Found<()> {
    let url = join(endpoint, "/readyz");
    let answer = Http::new(desk.settings.remote_deadline.get())?.get(&url).await?;
    let status = answer.status.as_u16();
    if status != 200 {
        let text = answer.text().trim().chars().take(80).collect();
        return Err(CheckFault::NotReady { url, status, text }.into());
    }
    Ok(((), "ready".to_owned()))
}

pub async fn consumer(desk: &Desk, map: &ShardMap) -> Found<()> {
    let look = lag::measure(desk, map).await?;
    if !look.troubles.is_empty() {
        return Err(CheckFault::Troubles(look.troubles).into());
    }
    let behind = look.behind().words();
    match look.not_applied() {
        0 => Ok(((), behind)),
        partitions => Err(CheckFault::Stopped { partitions, behind }.into()),
    }
}

/// A client for the canary's own request.
pub fn http(desk: &Desk) -> Result<Http, HttpFault> {
    Http::new(desk.settings.remote_deadline.get())
}
