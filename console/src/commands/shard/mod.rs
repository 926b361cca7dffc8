//! `spillway shard ls|switchover|failover|rebuild`: which server is a shard's primary, and how
//! another becomes it; `relocate/` moves groups to another shard. MySQL replicas by GTID; MariaDB's
//! GTIDs differ and are refused.
//!
//! The order is the safety: lock → fence the old primary → the replica has all it can have → it
//! becomes writable and learns the next epoch → shards.toml names it. Consumers that still hold the
//! old primary can write nothing there, and find the new one by the file. Whatever the replica
//! lacks, its `positions` lack too, so the consumers replay it from Kafka: nothing is copied here.
//!
//! A console that dies in the middle leaves each step done or not done, and the servers tell which:
//! the same command again goes on (`unfinished.rs`), and `unfence` gives a fenced primary back.

mod candidate;
mod file;
mod ls;
mod promote;
mod rebuild;
mod relocate;
mod replay;
mod server;
mod unfence;
mod unfinished;

pub use ls::servers;

use spillway_runtime::mysql_url::MysqlUrl;
use spillway_runtime::shards::ShardMap;

use crate::answer::Answer;
use crate::cli::{self, Failover};
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};

/// Why a server is not made primary, or not made to follow.
#[derive(Debug, thiserror::Error)]
pub enum ShardFault {
    #[error("shard {0} has no replica in shards.toml that could take over")]
    NoReplica(String),
    #[error("{asked} is no replica of shard {shard} in shards.toml; there are: {known}")]
    NotAReplica { asked: String, shard: String, known: String },
    #[error(
        "--expected-primary says {expected}, but shards.toml says {found}: somebody was faster, or \
         this file is old; nothing was changed"
    )]
    OtherPrimary { expected: String, found: String },
    #[error(
        "the primary {address} can't be reached ({cause}), so it can't be fenced. If it is gone \
         and stays so, pass --primary-is-gone {address}; a primary that is only cut off from here \
         would go on being written to"
    )]
    NotFenced { address: String, cause: String },
    #[error(
        "a switchover needs the primary alive ({0}); `spillway shard failover` is for one that is \
         gone"
    )]
    PrimaryGone(String),
    #[error("{address} is shard {found:?} in its own eyes, not {expected}")]
    OtherShard { address: String, expected: String, found: Option<String> },
    #[error(
        "shards.toml says epoch {expected}, the server {address} says {found}: this file is old. \
         Take the newest shards.toml; if there is none, an earlier change was not finished: \
         `spillway doctor` names it"
    )]
    FileIsOld { address: String, expected: u32, found: u32 },
    #[error(
        "{address} is still at epoch {found}, shards.toml says {expected}: it has not got the last \
         change of its shard yet, as a replica right after a `shard move` or a switchover. Wait \
         until `spillway shard ls` shows epoch {expected} there, or take another replica with --to"
    )]
    NotThereYet { address: String, expected: u32, found: u32 },
    #[error("{address} does not follow {primary}, but {found}")]
    FollowsAnother { address: String, primary: String, found: String },
    #[error(
        "{address} did not have all of the primary's transactions after {after}; nothing is changed"
    )]
    NotCaughtUp { address: String, after: String },
    #[error(
        "{address} lacks {records} records that Kafka no longer holds: {places}. It is older than \
         the replay window, and taking over would lose them: choose another replica, or restore \
         one that has more. If there is none and the primary is given up, say so: `spillway shard \
         failover --accept-loss {records}`; nothing was changed"
    )]
    TooOld { address: String, records: i64, places: String },
    #[error(
        "{address} has {count} transactions that the primary has not ({gtids}): it can't follow as \
         it is. Empty it and restore it from a backup or a clone of the primary, then run this \
         again"
    )]
    Errant { address: String, count: u64, gtids: String },
    #[error(
        "shard_meta of {address} was not at epoch {expected} when it was to rise; somebody else is \
         at work"
    )]
    Raced { address: String, expected: u32 },
    #[error(
        "--primary-is-gone names {gone}, but shards.toml says that {found} is primary (epoch \
         {epoch}): a change was done already, or this is another shard. Nothing was changed; \
         `spillway shard ls` shows who is what"
    )]
    GoneIsNoPrimary { gone: String, found: String, epoch: u32 },
    #[error(
        "{cause}; and {address} is still fenced ({why}): `spillway shard unfence {shard}` lets it \
         be written to again"
    )]
    LeftFenced { address: String, shard: String, cause: String, why: String },
    #[error(
        "while you were asked, {address} became primary of {shard} (epoch {epoch}): somebody else \
         was faster; nothing was changed here. Run it again to go on with that"
    )]
    Overtaken { address: String, shard: String, epoch: u32 },
    #[error(
        "{address} is primary of epoch {epoch} already: {fenced} must stay fenced. `spillway shard \
         switchover` goes on with that change"
    )]
    Succeeded { address: String, epoch: u32, fenced: String },
    #[error(
        "{address} can be written to and follows nobody: with {fenced} writable too there would be \
         two primaries. `spillway shard rebuild` lets it follow first"
    )]
    TwoPrimaries { address: String, fenced: String },
    #[error("set [replication] user and password_file in spillway.toml: as whom a replica follows")]
    NoReplicationUser,
    #[error("{address} does not follow after {after}: {state}")]
    DoesNotFollow { address: String, after: String, state: String },
    #[error("it uses no MySQL GTIDs ({0}); MariaDB is switched over by its own tools")]
    NoGtids(String),
}

pub async fn run(desk: &Desk, command: cli::Shard) -> Result<Answer, Failure> {
    match command {
        cli::Shard::Ls => ls::run(desk).await,
        cli::Shard::Switchover(how) => {
            promote::run(desk, &Failover { how, primary_is_gone: None, accept_loss: None }, false)
                .await
        }
        cli::Shard::Failover(failover) => promote::run(desk, &failover, true).await,
        cli::Shard::Rebuild(options) => rebuild::run(desk, &options).await,
        cli::Shard::Move(options) => relocate::run(desk, &options).await,
        cli::Shard::Unfence { shard } => unfence::run(desk, &shard).await,
    }
}

fn shard<'a>(
    map: &'a ShardMap,
    name: &str,
) -> Result<&'a spillway_runtime::shards::Shard, UsageError> {
    map.shard(name).ok_or_else(|| UsageError(format!("shards.toml has no shard {name:?}")))
}

/// host:port, as people name servers.
fn address(url: &MysqlUrl) -> String {
    format!("{}:{}", url.host, url.port)
}

/// An address that an operator typed, with or without `mysql://` and a port.
fn typed(text: &str) -> Result<MysqlUrl, UsageError> {
    let url = text.strip_prefix("mysql://").unwrap_or(text);
    format!("mysql://{url}")
        .parse()
        .map_err(|error| UsageError(format!("{text:?} is no server's address: {error}")))
}

/// Whether two addresses are the same server, whoever logs in there.
fn same(a: &MysqlUrl, b: &MysqlUrl) -> bool {
    (&a.host, a.port) == (&b.host, b.port)
}
