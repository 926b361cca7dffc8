//! What the drills on the storing side share: a shard that is asked directly, a consumer that is
//! watched, batches that are made and sent by hand, and a failover as its runbook says it.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use spillway_e2e::rig::{ACCEPTED_WITHIN, Rig, SETTLED_WITHIN};
pub use spillway_e2e::rig::{HASTY_CONSUMER, until};
use spillway_proto::frame::Encoder;
use spillway_proto::partition::Partitioning;
use spillway_proto::{Batch, BatchId, Kind, Point, Series};
use spillway_testkit::stack::StackOptions;
use sqlx::MySqlPool;
use sqlx::mysql::MySqlPoolOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// Such consumers, asleep for a moment before each COMMIT: that is where a freeze meets them.
pub fn sleepy(options: StackOptions) -> StackOptions {
    let stall = "before-commit=sleep:300";
    options.set("consumer", HASTY_CONSUMER).env("consumer", "SPILLWAY_FAILPOINT", stall)
}

/// Between two looks at something that takes its time.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For one answer of a server that is well, on a machine that may be busy.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Longer than any frame's answer.
const POSTED_WITHIN: Duration = Duration::from_secs(20);

/// A server with every right on it, over one connection: a drill that takes all places away must
/// not need a second one.
pub struct Server(pub MySqlPool);

impl Server {
    /// The primary that the stack started for a shard.
    pub fn primary(rig: &Rig, shard: &str) -> Self {
        let primary = rig.stack.servers().primary(shard);
        Self::at(&primary.expect("the shard has a primary").admin_url())
    }

    /// The first replica of a shard.
    pub fn replica(rig: &Rig, shard: &str) -> Self {
        let replicas = rig.stack.servers().replicas(shard);
        Self::at(&replicas.first().expect("the stack has a replica").admin_url())
    }

    fn at(url: &str) -> Self {
        let pool = MySqlPoolOptions::new().max_connections(1).acquire_timeout(ANSWER_WITHIN);
        Self(pool.connect_lazy(url).expect("the address is one"))
    }

    pub async fn run(&self, sql: &str) {
        let done = timeout(SETTLED_WITHIN, sqlx::raw_sql(sql).execute(&self.0)).await;
        let done = done.expect("the server answers");
        done.unwrap_or_else(|error| panic!("{error}\n{sql}"));
    }

    /// One number; NULL is 0.
    pub async fn number(&self, sql: &str) -> i64 {
        let sql = format!("SELECT CAST(COALESCE(({sql}), 0) AS SIGNED)");
        let asked = timeout(ANSWER_WITHIN, sqlx::query_scalar(&sql).fetch_one(&self.0)).await;
        asked.expect("the server answers").unwrap_or_else(|error| panic!("{error}\n{sql}"))
    }

    /// How often the server told a user this error: its own count, not the client's.
    pub async fn told(&self, error: u16, user: &str) -> i64 {
        self.number(&format!(
            "SELECT SUM(SUM_ERROR_RAISED) FROM \
             performance_schema.events_errors_summary_by_user_by_error \
             WHERE ERROR_NUMBER = {error} AND USER = '{user}'"
        ))
        .await
    }

    /// Ends a user's connections.
    pub async fn end_connections(&self, user: &str) {
        let ids = "SELECT id FROM information_schema.processlist WHERE user = ?";
        let ids: Vec<u64> =
            sqlx::query_scalar(ids).bind(user).fetch_all(&self.0).await.expect("a list");
        for id in ids {
            let killed = sqlx::raw_sql(&format!("KILL {id}")).execute(&self.0).await;
            if let Err(error) = killed {
                let gone = error.to_string().contains("Unknown thread id");
                assert!(gone, "KILL {id}: {error}");
            }
        }
    }

    /// Batches in the audit: each was applied once.
    pub async fn audited(&self) -> i64 {
        self.number("SELECT COUNT(*) FROM spillway_store.audit").await
    }

    /// Series that have points and no name.
    pub async fn orphans(&self) -> i64 {
        self.number(
            "SELECT COUNT(DISTINCT p.series_id) FROM spillway_store.points p \
             LEFT JOIN spillway_store.series s USING (series_id) WHERE s.series_id IS NULL",
        )
        .await
    }

    pub async fn quarantined(&self) -> i64 {
        self.number("SELECT COUNT(*) FROM spillway_store.quarantined").await
    }
}

/// The stack's partitions.
pub fn partitioning() -> Partitioning {
    Partitioning::new(64, 4).expect("the stack's partitions")
}

/// Of two consumers, the one that the range assignor gives an environment to.
pub fn owner(environment: &str) -> &'static str {
    match partitioning().group_of(environment) {
        0..8 => "consumer-0",
        _ => "consumer-1",
    }
}

/// How often a consumer met a class of MySQL's errors.
pub async fn errors(rig: &Rig, consumer: &str, class: &str) -> f64 {
    let metrics = rig.metrics(consumer).await;
    metrics.sum_where("spillway_consumer_errors_total", &[("class", class)])
}

/// Waits until each of these consumers reads as many partitions.
pub async fn reading(rig: &Rig, consumers: &[&str], partitions: f64) {
    for consumer in consumers {
        rig.until(consumer, "spillway_consumer_partitions_claimed", |n| n == partitions).await;
    }
}

/// Freezes a consumer in the middle of a transaction; needs a failpoint that stalls it there.
pub async fn freeze_in_transaction(rig: &Rig, server: &Server, consumer: &str) {
    const OPEN: &str = "SELECT COUNT(*) FROM information_schema.innodb_trx \
                        WHERE trx_rows_modified > 0";
    const STANDS: &str = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE \
                          trx_rows_modified > 0 AND trx_started < NOW() - INTERVAL 3 SECOND";
    const TRIES: usize = 10;
    for _ in 0..TRIES {
        until("a transaction is open", async || server.number(OPEN).await > 0).await;
        rig.stack.freeze(consumer).expect("it runs");
        let by = Instant::now() + Duration::from_secs(5);
        while Instant::now() < by {
            if server.number(STANDS).await > 0 {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        rig.stack.thaw(consumer).expect("it is there");
    }
    panic!("{consumer} was never caught in the middle of a transaction");
}

/// Does by hand what a failover of the only shard is: the replica becomes the primary of the next
/// epoch, and shards.toml names it. The old primary is fenced or gone already.
pub async fn promote(rig: &Rig, replica: &Server) {
    replica.run("STOP REPLICA").await;
    replica.run("RESET REPLICA ALL").await;
    replica.run("SET GLOBAL super_read_only = OFF; SET GLOBAL read_only = OFF").await;
    replica.run("UPDATE spillway_store.shard_meta SET epoch = 2 WHERE id = 1").await;
    let address = replica_address(rig);
    let text = format!(
        "partitions = 64\ngroup = 4\n\n[[shard]]\nname = \"s0\"\nprimary = \"mysql://{address}\"\n\
         groups = \"0-15\"\nepoch = 2\n"
    );
    let (file, half) =
        (rig.stack.dir().join("shards.toml"), rig.stack.dir().join("shards.toml.new"));
    fs::write(&half, text).expect("the stack's folder takes a file");
    fs::rename(&half, &file).expect("the shard map is replaced in one step");
}

fn replica_address(rig: &Rig) -> SocketAddr {
    let replicas = rig.stack.servers().replicas("s0");
    replicas.first().expect("the stack has a replica").port.socket()
}

/// What an operator who sees everything reads at the new primary.
pub fn reader_after_failover(rig: &Rig) -> MySqlPool {
    let file = rig.stack.file();
    let url = file.mysql.first().and_then(|shard| shard.reader.as_deref()).expect("a reader");
    let (login, rest) = url.split_once('@').expect("a login");
    let database = rest.split_once('/').map_or("", |(_, database)| database);
    let url = format!("{login}@{}/{database}", replica_address(rig));
    MySqlPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(ANSWER_WITHIN)
        .connect_lazy(&url)
        .expect("the reader's URL is one")
}

/// A sender whose every batch is made by the drill itself.
pub struct ByHand {
    pub agent_id: Uuid,
    pub epoch: Uuid,
    pub environment: String,
    pub host: String,
}

impl ByHand {
    pub fn new(environment: &str, host: &str) -> Self {
        let (agent_id, epoch) = (Uuid::new_v4(), Uuid::now_v7());
        Self { agent_id, epoch, environment: environment.into(), host: host.into() }
    }

    pub fn partition(&self) -> u16 {
        partitioning().partition_of(&self.environment, &self.host)
    }

    /// The batch with this seq: one series with these points.
    pub fn batch(&self, seq: u64, metric: &str, points: &[(i64, f64)]) -> Batch {
        let first_ms = points.first().map_or(0, |(ts_ms, _)| *ts_ms);
        Batch {
            id: BatchId::Sequenced { agent_id: self.agent_id, epoch: self.epoch, seq },
            environment: self.environment.clone(),
            host: self.host.clone(),
            window_ts: u32::try_from(first_ms / 10_000 * 10).expect("a time since 1970"),
            series: vec![Series {
                metric: metric.into(),
                labels: vec![],
                kind: Kind::Gauge,
                unit: String::new(),
                points: points.iter().map(|(ts_ms, value)| point(*ts_ms, *value)).collect(),
            }],
            previous: None,
            declarations: vec![],
            closing: false,
            host_info: None,
        }
    }
}

fn point(ts_ms: i64, value: f64) -> Point {
    Point { ts_ms, value }
}

/// Ms since the Unix epoch.
pub fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_millis()).expect("before the year 292 million")
}

pub fn frame_of(batch: &Batch) -> Bytes {
    Encoder::new().encode(batch).expect("a made-up batch is valid")
}

/// Sends a frame to the first API server, and again as long as that says "not now", as every
/// sender does; it must be accepted. Whatever else is answered is a failure.
pub async fn post(rig: &Rig, batch: &Batch) {
    let by = Instant::now() + ACCEPTED_WITHIN;
    loop {
        let answer = attempt(rig, batch).await;
        if answer.contains("\"accepted\":1") {
            return;
        }
        let (head, _) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let head = head.to_ascii_lowercase();
        let later = head.starts_with("http/1.1 503") && head.contains("retry-after:");
        assert!(later && Instant::now() < by, "not accepted: {answer}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn attempt(rig: &Rig, batch: &Batch) -> String {
    let file = rig.stack.file();
    let api = file.api.first().and_then(|url| url.strip_prefix("http://")).expect("an API");
    let token = file.tokens.get(&batch.environment).expect("a token");
    let frame = frame_of(batch);
    let head = format!(
        "POST /v1/batches HTTP/1.1\r\nHost: {api}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/vnd.spillway.frames\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        frame.len()
    );
    let answered = async {
        let mut stream = TcpStream::connect(api).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&frame).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    timeout(POSTED_WITHIN, answered).await.expect("an answer").expect("an answer")
}
