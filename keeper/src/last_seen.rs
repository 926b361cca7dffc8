//! last_seen on its way from Redis to MySQL: consumers write it to a hash per shard, the keeper
//! renames the hash and folds it page by page, deleting each page that MySQL has. GREATEST makes
//! folding again harmless, so a crash anywhere costs nothing: a renamed hash that is found is
//! folded first. Redis being
//! away or flushed loses no point; a series then merely looks unseen for a while.

use std::path::PathBuf;
use std::time::Duration;

use redis::AsyncCommands as _;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use spillway_runtime::deadline::{DeadlineExceeded, within};
use spillway_runtime::mysql::Session;
use spillway_runtime::settings::{Secret, SecretFileError};
use thiserror::Error;

use crate::duty::Duty;
use crate::metrics::{Metrics, OfShard};
use crate::settings::RedisSettings;
use crate::shard::{ShardError, ShardHandle, execute};

/// Entries one UPDATE carries at most; its rows stay locked for some milliseconds.
const ENTRIES_AT_ONCE_MAX: usize = 500;
/// What HSCAN is asked for at a time.
const PAGE: usize = 1_000;
/// Pages a round at most, over both hashes; the next round goes on with the renamed hash.
const PAGES_A_ROUND_MAX: usize = 2_000;
const REDIS_DEADLINE: Duration = Duration::from_secs(3);

/// Why a round of folding ended early.
#[derive(Debug, Error)]
pub enum FoldError {
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("Redis: {0}")]
    Silent(#[from] DeadlineExceeded),
    #[error("the password of Redis: {0}")]
    Password(#[from] SecretFileError),
    #[error("MySQL: {0}")]
    Shard(#[from] ShardError),
}

/// What is folded where.
struct Target {
    kind: &'static str,
    table: &'static str,
    id: &'static str,
}

const TARGETS: [Target; 2] = [
    Target { kind: "series", table: "series", id: "series_id" },
    Target { kind: "hosts", table: "hosts", id: "host_id" },
];

/// Folds one shard's last_seen.
pub struct LastSeen {
    shard: ShardHandle,
    metrics: Metrics,
    interval: Duration,
    url: String,
    password: Secret,
    password_file: Option<PathBuf>,
    redis: Option<ConnectionManager>,
}

impl LastSeen {
    /// None when no Redis is set.
    #[must_use]
    pub fn new(shard: ShardHandle, settings: &RedisSettings, metrics: &Metrics) -> Option<Self> {
        Some(Self {
            shard,
            metrics: metrics.clone(),
            interval: settings.interval.get(),
            url: settings.url.clone()?,
            password: settings.password.clone(),
            password_file: settings.password_file.clone(),
            redis: None,
        })
    }

    /// Folds what is there now. How many entries that was.
    pub async fn fold(&mut self) -> Result<u64, FoldError> {
        let mut redis = self.connection().await?;
        let mut session = self.shard.session().await?;
        let (mut folded, mut pages) = (0, 0);
        for target in &TARGETS {
            let key = format!("spillway:last_seen:{}:{}", target.kind, self.shard.name);
            let folding = format!("{key}:folding");
            if !take(&mut redis, &key, &folding).await? {
                continue;
            }
            let mut cursor = 0u64;
            loop {
                let (next, entries) = page(&mut redis, &folding, cursor).await?;
                folded += update(&mut session, target, &entries).await?;
                let ids: Vec<&str> = entries.iter().map(|(id, _)| id.as_str()).collect();
                if !ids.is_empty() {
                    within(REDIS_DEADLINE, redis.hdel::<_, _, ()>(&folding, ids)).await??;
                }
                (cursor, pages) = (next, pages + 1);
                if cursor == 0 || pages >= PAGES_A_ROUND_MAX {
                    break;
                }
            }
            if cursor == 0 {
                within(REDIS_DEADLINE, redis.del::<_, ()>(&folding)).await??;
            }
        }
        session.give_back();
        Ok(folded)
    }

    async fn connection(&mut self) -> Result<ConnectionManager, FoldError> {
        if let Some(redis) = &self.redis {
            return Ok(redis.clone());
        }
        let password = self.password.resolve(self.password_file.as_deref())?;
        let mut info: redis::ConnectionInfo =
            redis::IntoConnectionInfo::into_connection_info(self.url.as_str())?;
        if password.is_set() {
            let settings = info.redis_settings().clone().set_password(password.reveal());
            info = info.set_redis_settings(settings);
        }
        let client = redis::Client::open(info)?;
        let config = ConnectionManagerConfig::new().set_number_of_retries(1);
        let manager = ConnectionManager::new_with_config(client, config);
        let manager = within(REDIS_DEADLINE, manager).await??;
        self.redis = Some(manager.clone());
        Ok(manager)
    }
}

impl Duty for LastSeen {
    const NAME: &'static str = "last_seen";
    type Error = FoldError;

    fn interval(&self) -> Duration {
        self.interval
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(120)
    }

    async fn round(&mut self) -> Result<(), FoldError> {
        let folded = self.fold().await?;
        let label = OfShard { shard: self.shard.name.clone() };
        self.metrics.last_seen_folded.get_or_create(&label).inc_by(folded);
        Ok(())
    }
}

/// Renames the hash out of the writers' way, unless one is left from an earlier round. Whether
/// there is anything to fold.
async fn take(redis: &mut ConnectionManager, key: &str, folding: &str) -> Result<bool, FoldError> {
    let left: bool = within(REDIS_DEADLINE, redis.exists(folding)).await??;
    if left {
        return Ok(true);
    }
    let written: bool = within(REDIS_DEADLINE, redis.exists(key)).await??;
    if written {
        within(REDIS_DEADLINE, redis.rename::<_, _, ()>(key, folding)).await??;
    }
    Ok(written)
}

/// One page of the hash, and the cursor of the next one (0 after the last).
async fn page(
    redis: &mut ConnectionManager,
    folding: &str,
    cursor: u64,
) -> Result<(u64, Vec<(String, String)>), FoldError> {
    let mut scan = redis::cmd("HSCAN");
    scan.arg(folding).arg(cursor).arg("COUNT").arg(PAGE);
    Ok(within(REDIS_DEADLINE, scan.query_async(redis)).await??)
}

/// Raises last_seen_ts of the rows that exist. Entries that are no numbers are nobody's: skipped.
async fn update(
    session: &mut Session,
    target: &Target,
    entries: &[(String, String)],
) -> Result<u64, FoldError> {
    let parsed = |(id, ts): &(String, String)| Some((id.parse().ok()?, ts.parse().ok()?));
    let mut rows: Vec<(u64, u32)> = entries.iter().filter_map(parsed).collect();
    // In the order of the primary key, like every writer: no deadlocks.
    rows.sort_unstable();
    for chunk in rows.chunks(ENTRIES_AT_ONCE_MAX) {
        execute(session, &update_sql(target, chunk)).await?;
    }
    Ok(rows.len() as u64)
}

fn update_sql(target: &Target, rows: &[(u64, u32)]) -> String {
    let Target { table, id, .. } = target;
    let seen = |(id, ts): &(u64, u32)| format!("SELECT {id} AS id, {ts} AS ts");
    let seen: Vec<String> = rows.iter().map(seen).collect();
    format!(
        "UPDATE {table} t JOIN ({}) seen ON seen.id = t.{id}
         SET t.last_seen_ts = GREATEST(t.last_seen_ts, seen.ts)",
        seen.join(" UNION ALL ")
    )
}
