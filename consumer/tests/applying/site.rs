//! A Kafka with fresh topics, a MySQL with a fresh schema, and consumers on them in this process.
//!
//! `SPILLWAY_TEST_STACK` (a folder of `xtask up --servers-only`) takes servers that run already.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use spillway_consumer::migrations::{Options, migrate};
use spillway_consumer::settings::ConsumerSettings;
use spillway_proto::kafka_record::{HEADER_ENVIRONMENT, Lane, TOPIC_DEAD_LETTERS};
use spillway_proto::partition::Partitioning;
use spillway_proto::{Batch, frame::Encoder};
use spillway_runtime::program::{Context, Drained, RunError};
use spillway_runtime::settings::Dur;
use spillway_testkit::stack::StackFile;
use spillway_testkit::{Stack, StackOptions};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{ConnectOptions as _, MySqlConnection};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

/// Kept by the tests that run at the moment; the last one stops it.
static STACK: Mutex<Weak<Stack>> = Mutex::const_new(Weak::new());
/// Topics, group and databases have fixed names, so one test at a time has the servers.
static TURN: Mutex<()> = Mutex::const_new(());

pub const PARTITIONS: u16 = 8;
pub const GROUP: u16 = 4;
/// Everything here must have happened by then, on a busy machine too.
pub const SOON: Duration = Duration::from_secs(120);

pub struct Site {
    pub conn: MySqlConnection,
    pub mysql: SocketAddr,
    pub kafka: String,
    pub redis: String,
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
    dir: tempfile::TempDir,
    _stack: Option<Arc<Stack>>,
    _turn: MutexGuard<'static, ()>,
}

/// A consumer that runs.
pub struct Consumer {
    pub ctx: Context,
    task: JoinHandle<Result<Drained, RunError>>,
}

impl Site {
    pub async fn new() -> Self {
        // Before the turn: whoever waits for it keeps the servers up.
        let Servers { mysql, kafka, redis, stack } = servers().await;
        let turn = TURN.lock().await;
        let logs =
            tracing_subscriber::fmt().with_test_writer().with_max_level(tracing::Level::INFO);
        // Another test has done it.
        logs.try_init().unwrap_or_default();
        let options: MySqlConnectOptions = format!("mysql://stack:stack@{mysql}").parse().unwrap();
        let options = options.ssl_mode(MySqlSslMode::Preferred).pipes_as_concat(false);
        let mut conn = options.connect().await.unwrap();
        for database in ["spillway", "spillway_store"] {
            execute(&mut conn, &format!("DROP DATABASE IF EXISTS {database}")).await;
        }
        let raw_retention = Duration::from_secs(4 * 3600);
        let options_now = Options { raw_retention, now: jiff::Timestamp::now() };
        migrate(&mut conn, &options_now).await.unwrap();
        recreate_topics(&kafka).await;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &kafka).set("linger.ms", "1").set("acks", "all");
        let producer = config.create().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut site =
            Self { conn, mysql, kafka, redis, producer, dir, _stack: stack, _turn: turn };
        site.seed(0..PARTITIONS, 1).await;
        site
    }

    /// What `spillway topics create` does.
    pub async fn seed(&mut self, partitions: std::ops::Range<u16>, epoch: u32) {
        for partition in partitions {
            let sql = format!(
                "REPLACE INTO spillway_store.positions (partition_id, shard_epoch, updated_at) \
                 VALUES ({partition}, {epoch}, 0)"
            );
            execute(&mut self.conn, &sql).await;
        }
        let sql = format!(
            "REPLACE INTO spillway_store.shard_meta (id, shard, epoch) VALUES (1, 's0', {epoch})"
        );
        execute(&mut self.conn, &sql).await;
    }

    pub fn partition_of(batch: &Batch) -> u16 {
        let partitioning = Partitioning::new(PARTITIONS, GROUP).unwrap();
        partitioning.partition_of(&batch.environment, &batch.host)
    }

    /// Settings for this site with quick reactions.
    pub fn settings(&self) -> ConsumerSettings {
        self.settings_for(self.mysql, 1)
    }

    /// The same, with the shard at another address or epoch.
    pub fn settings_for(&self, mysql: SocketAddr, epoch: u32) -> ConsumerSettings {
        let shards_file = self.shards_file(mysql, epoch);
        let mut settings = ConsumerSettings { shards_file, ..ConsumerSettings::default() };
        settings.kafka.brokers = vec![self.kafka.clone()];
        settings.group.session_timeout = Dur::from_secs(6);
        settings.group.commit_interval = Dur::from_millis(100);
        settings.gather.linger = Dur::from_millis(50);
        settings.store.retry_pause_max = Dur::from_millis(500);
        settings.store.statement_timeout = Dur::from_secs(3);
        settings.mysql.lock_wait_timeout = Dur::from_secs(1);
        settings.shutdown.drain_deadline = Dur::from_secs(10);
        settings
    }

    /// Writes shards.toml.
    pub fn shards_file(&self, mysql: SocketAddr, epoch: u32) -> PathBuf {
        let path = self.dir.path().join("shards.toml");
        let groups = PARTITIONS / GROUP - 1;
        let text = format!(
            "partitions = {PARTITIONS}\ngroup = {GROUP}\n\n[[shard]]\nname = \"s0\"\n\
             primary = \"mysql://stack:stack@{mysql}\"\ngroups = \"0-{groups}\"\nepoch = {epoch}\n"
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Settings for a consumer of its own process: small transactions, so that there are many.
    #[cfg(feature = "failpoints")]
    pub fn settings_file(&self) -> PathBuf {
        let (shards, path) =
            (self.shards_file(self.mysql, 1), self.dir.path().join("consumer.toml"));
        let text = format!(
            "shards_file = {shards:?}\n[admin]\nlisten = \"127.0.0.1:0\"\n[kafka]\n\
             brokers = [{:?}]\n[group]\nsession_timeout = \"6s\"\n[gather]\nrecords_max = 20\n",
            self.kafka
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A consumer on this site.
    pub fn start(&self, settings: ConsumerSettings) -> Consumer {
        let ctx = Context::for_test("consumer");
        let task = tokio::spawn(spillway_consumer::app::run(settings, ctx.clone()));
        Consumer { ctx, task }
    }

    /// Publishes a batch as ingest-api does.
    pub fn publish(&self, lane: Lane, batch: &Batch) {
        let frame = Encoder::new().encode(batch).unwrap();
        let key = batch.id.to_bytes();
        self.publish_raw(lane, Self::partition_of(batch), (&key, &frame), &batch.environment);
    }

    /// Publishes anything; it is in Kafka when this returns.
    pub fn publish_raw(
        &self,
        lane: Lane,
        partition: u16,
        (key, value): (&[u8], &[u8]),
        environment: &str,
    ) {
        let headers = rdkafka::message::OwnedHeaders::new()
            .insert(rdkafka::message::Header { key: HEADER_ENVIRONMENT, value: Some(environment) });
        let record = BaseRecord::to(lane.topic())
            .partition(i32::from(partition))
            .key(key)
            .payload(value)
            .headers(headers);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(SOON).unwrap();
    }

    /// A record without a value.
    pub fn publish_tombstone(&self, lane: Lane, partition: u16) {
        let record =
            BaseRecord::<[u8], [u8]>::to(lane.topic()).partition(i32::from(partition)).key(b"key");
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(SOON).unwrap();
    }

    /// One number.
    pub async fn number(&mut self, sql: &str) -> i64 {
        number(&mut self.conn, sql).await
    }

    /// Waits until a number is what it should become.
    pub async fn until(&mut self, sql: &str, expected: i64) {
        let mut got = None;
        let wait = async {
            while got != Some(expected) {
                got = Some(number(&mut self.conn, sql).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let late = tokio::time::timeout(SOON, wait).await.is_err();
        assert!(!late, "{sql}: {got:?} instead of {expected}");
    }

    /// A text per row.
    pub async fn texts(&mut self, sql: &str) -> Vec<String> {
        let rows: Vec<Vec<u8>> = sqlx::query_scalar(sql).fetch_all(&mut self.conn).await.unwrap();
        rows.into_iter().map(|row| String::from_utf8(row).unwrap()).collect()
    }

    pub async fn run(&mut self, sql: &str) {
        execute(&mut self.conn, sql).await;
    }
}

impl Consumer {
    /// The sum of a metric over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        metric(&self.ctx, name, "")
    }

    /// The same, of those whose labels contain `label`.
    pub fn metric_of(&self, name: &str, label: &str) -> f64 {
        metric(&self.ctx, name, label)
    }

    /// Waits until a metric is at least `least`.
    pub async fn until(&self, name: &str, label: &str, least: f64) {
        let wait = async {
            while metric(&self.ctx, name, label) < least {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let late = tokio::time::timeout(SOON, wait).await.is_err();
        assert!(!late, "{name}{{{label}}} is {} instead of {least}", self.metric_of(name, label));
    }

    /// An ordered stop. Whatever happened before, the books balance.
    pub async fn stop(self) -> Drained {
        self.ctx.shutdown.trigger();
        let drained = self.task.await.unwrap().unwrap();
        for unit in ["batches", "points"] {
            let sum = |fates: &[&str]| -> f64 {
                let of = |fate: &&str| metric(&self.ctx, &format!("{unit}_{fate}"), "");
                fates.iter().map(of).sum()
            };
            let expired = if unit == "points" { sum(&["expired_total"]) } else { 0.0 };
            let settled = sum(&["applied_total", "duplicate_total", "quarantined_total"]);
            let rest = sum(&["dropped_total", "in_flight"]);
            let received = sum(&["received_total"]);
            assert_eq!(received, settled + expired + rest, "{unit}: {}", self.ctx.metrics.encode());
            assert_eq!(sum(&["in_flight"]), 0.0, "{unit} are held by nobody");
        }
        drained
    }
}

fn metric(ctx: &Context, name: &str, label: &str) -> f64 {
    let text = ctx.metrics.encode();
    let lines = text.lines().filter(|line| {
        let rest = line.strip_prefix("spillway_consumer_").and_then(|l| l.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

async fn number(conn: &mut MySqlConnection, sql: &str) -> i64 {
    let sql = format!("SELECT CAST(({sql}) AS SIGNED)");
    let number: Option<i64> = sqlx::query_scalar(&sql).fetch_one(conn).await.unwrap();
    number.unwrap_or(-1)
}

async fn execute(conn: &mut MySqlConnection, sql: &str) {
    if let Err(error) = sqlx::raw_sql(sql).execute(conn).await {
        panic!("{error}\n{sql}");
    }
}

struct Servers {
    mysql: SocketAddr,
    kafka: String,
    redis: String,
    stack: Option<Arc<Stack>>,
}

async fn servers() -> Servers {
    if let Ok(dir) = std::env::var("SPILLWAY_TEST_STACK") {
        let text = std::fs::read_to_string(PathBuf::from(dir).join("stack.json")).unwrap();
        let file: StackFile = serde_json::from_str(&text).unwrap();
        let url = &file.mysql.first().unwrap().primary;
        let mysql = url.rsplit('@').next().unwrap().parse().unwrap();
        return Servers { mysql, kafka: file.kafka, redis: file.redis, stack: None };
    }
    let mut shared = STACK.lock().await;
    let stack = match shared.upgrade() {
        Some(stack) => stack,
        None => {
            let options = StackOptions { servers_only: true, ..StackOptions::default() };
            let stack = Arc::new(Stack::start(options).await.unwrap());
            *shared = Arc::downgrade(&stack);
            stack
        }
    };
    let servers = stack.servers();
    let shard = servers.shards().next().unwrap().to_owned();
    let mysql = servers.primary(&shard).unwrap().port.address().parse().unwrap();
    let redis = format!("redis://{}", servers.redis.address());
    Servers { mysql, kafka: servers.bootstrap(), redis, stack: Some(stack) }
}

/// Topics as production has them, empty.
pub async fn recreate_topics(kafka: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(SOON)).request_timeout(Some(SOON));
    let names = [Lane::Live.topic(), Lane::Backlog.topic(), TOPIC_DEAD_LETTERS];
    admin.delete_topics(&names, &options).await.unwrap();
    let topic = |name| {
        NewTopic::new(name, i32::from(PARTITIONS), TopicReplication::Fixed(1))
            .set("message.timestamp.type", "LogAppendTime")
            .set("retention.ms", "-1")
    };
    let topics = names.map(topic);
    let create = async {
        // A deletion is still under way for a moment after it was answered.
        loop {
            let made = admin.create_topics(&topics, &options).await.unwrap();
            let there = |result: &Result<_, (_, rdkafka::types::RDKafkaErrorCode)>| match result {
                Ok(_) => true,
                Err((_, code)) => *code != rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists,
            };
            if made.iter().all(there) {
                return;
            }
            admin.delete_topics(&names, &options).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SOON, create).await.unwrap();
}
