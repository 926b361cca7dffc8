//! last_seen, to Redis: a bounded queue that is dropped rather than waited for. Redis is a write
//! buffer the keeper folds into MySQL; away or flushed it costs two columns their freshness.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, IntoConnectionInfo, RedisError};
use spillway_runtime::admin::{DependencyProbe, Health};
use spillway_runtime::deadline::{DeadlineExceeded, within};
use spillway_runtime::settings::SecretFileError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::settings::RedisSettings;

/// Updates waiting, one per committed transaction.
const WAITING_MAX: usize = 256;
/// Fields of one HSET.
const FIELDS_PER_COMMAND: usize = 500;
/// How long Redis may take for one update.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// After a failure nothing is tried for this long, and updates are dropped.
const PAUSE: Duration = Duration::from_secs(5);

/// Series and hosts of one shard that were just seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub shard: String,
    pub at_ts: u32,
    pub series: Vec<u64>,
    pub hosts: Vec<u64>,
}

/// Why the buffer can't be used at all; a Redis that is away is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum LastSeenError {
    #[error("redis.url is not an address of Redis: {0}")]
    Address(RedisError),
    #[error(transparent)]
    Secret(#[from] SecretFileError),
}

/// Why one update did not reach Redis.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Late(#[from] DeadlineExceeded),
}

/// The workers' end of the queue.
#[derive(Clone)]
pub struct LastSeen {
    queue: Option<mpsc::Sender<Seen>>,
    metrics: Metrics,
}

impl LastSeen {
    /// Without Redis: every update is forgotten.
    #[must_use]
    pub fn nowhere(metrics: Metrics) -> Self {
        Self { queue: None, metrics }
    }

    /// Hands an update over, or drops it. Never waits.
    pub fn tell(&self, seen: Seen) {
        let Some(queue) = &self.queue else { return };
        let count = (seen.series.len() + seen.hosts.len()) as u64;
        if queue.try_send(seen).is_err() {
            self.metrics.last_seen_dropped.inc_by(count);
        }
    }
}

/// Makes the queue and the task that empties it.
pub fn start(
    settings: &RedisSettings,
    metrics: &Metrics,
    health: &Health,
    stop: CancellationToken,
) -> Result<(LastSeen, Option<impl Future<Output = ()> + use<>>), LastSeenError> {
    let Some(url) = &settings.url else {
        return Ok((LastSeen::nowhere(metrics.clone()), None));
    };
    let mut info = url.as_str().into_connection_info().map_err(LastSeenError::Address)?;
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    info = info.set_tcp_settings(tcp);
    let password = settings.password.resolve(settings.password_file.as_deref())?;
    if password.is_set() {
        let redis = info.redis_settings().clone().set_password(password.reveal());
        info = info.set_redis_settings(redis);
    }
    let client = Client::open(info).map_err(LastSeenError::Address)?;
    let (queue, updates) = mpsc::channel(WAITING_MAX);
    let around = Around { metrics: metrics.clone(), probe: health.register("redis"), stop };
    let task = drain(client, updates, around);
    Ok((LastSeen { queue: Some(queue), metrics: metrics.clone() }, Some(task)))
}

/// Who is told how it goes, and who ends it.
struct Around {
    metrics: Metrics,
    probe: DependencyProbe,
    stop: CancellationToken,
}

async fn drain(client: Client, mut updates: mpsc::Receiver<Seen>, around: Around) {
    let Around { metrics, probe, stop } = around;
    let mut connection = None;
    let mut silent_until = tokio::time::Instant::now();
    loop {
        let seen = tokio::select! {
            () = stop.cancelled() => return,
            seen = updates.recv() => seen,
        };
        let Some(seen) = seen else { return };
        let count = (seen.series.len() + seen.hosts.len()) as u64;
        if tokio::time::Instant::now() < silent_until {
            metrics.last_seen_dropped.inc_by(count);
            continue;
        }
        let began = tokio::time::Instant::now();
        match send(&client, &mut connection, &seen).await {
            Ok(()) => {
                probe.ok(began.elapsed());
                metrics.last_seen_sent.inc_by(count);
            }
            Err(error) => {
                probe.failed(&error);
                tracing::warn!(%error, pause = ?PAUSE, "Redis is away; last_seen waits for nobody");
                metrics.last_seen_dropped.inc_by(count);
                connection = None;
                silent_until = tokio::time::Instant::now() + PAUSE;
            }
        }
    }
}

async fn send(
    client: &Client,
    connection: &mut Option<ConnectionManager>,
    seen: &Seen,
) -> Result<(), SendError> {
    let connection = match connection {
        Some(connection) => connection,
        none => {
            let config = ConnectionManagerConfig::new()
                .set_number_of_retries(0)
                .set_response_timeout(Some(ANSWER_WITHIN))
                .set_connection_timeout(Some(ANSWER_WITHIN));
            let made = ConnectionManager::new_with_config(client.clone(), config);
            none.insert(within(ANSWER_WITHIN * 2, made).await??)
        }
    };
    for (kind, ids) in [("series", &seen.series), ("hosts", &seen.hosts)] {
        for ids in ids.chunks(FIELDS_PER_COMMAND) {
            let mut command = redis::cmd("HSET");
            command.arg(format!("spillway:last_seen:{kind}:{}", seen.shard));
            for id in ids {
                command.arg(*id).arg(seen.at_ts);
            }
            let sent = command.query_async::<()>(connection);
            within(ANSWER_WITHIN, sent).await??;
        }
    }
    Ok(())
}
