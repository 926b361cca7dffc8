//! What benchmarks need around them: a stack, empty topics, an empty schema, settings, their
//! result.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use spillway_consumer::migrations::{Options, migrate};
use spillway_proto::kafka_record::{Lane, TOPIC_DEAD_LETTERS};
use spillway_testkit::StackOptions;
use spillway_testkit::progress::Progress;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{ConnectOptions as _, MySqlConnection, MySqlExecutor};

use crate::consumer::BenchError;

/// As in production, unless chosen otherwise.
pub const PARTITIONS: u16 = 64;
/// Partitions of one group.
pub const GROUP: u16 = 4;
/// How long Kafka may take to make topics.
const TOPICS_WITHIN: Duration = Duration::from_secs(30);

/// All programs as they are shipped, but for the keeper, which works in the background.
pub fn programs() -> StackOptions {
    let progress = Progress::new(|line| println!("{line}"));
    StackOptions { release: true, keeper: false, progress, ..StackOptions::default() }
}

/// Points that a shard has applied, by its own books.
pub async fn applied_points<'c>(shard: impl MySqlExecutor<'c>) -> Result<u64, sqlx::Error> {
    let sql = "SELECT CAST(COALESCE(SUM(applied_points), 0) AS UNSIGNED) \
               FROM spillway_store.ledger_epochs";
    sqlx::query_scalar(sql).fetch_one(shard).await
}

/// Writes what was measured, if somebody asked for it.
pub fn write_json(path: Option<&Path>, report: &impl serde::Serialize) -> Result<(), BenchError> {
    if let Some(path) = path {
        std::fs::write(path, serde_json::to_vec_pretty(report)?)?;
    }
    Ok(())
}

/// Topics as production has them, empty.
pub async fn recreate_topics(kafka: &str) -> Result<(), BenchError> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create()?;
    let options = AdminOptions::new().operation_timeout(Some(TOPICS_WITHIN));
    let names = [Lane::Live.topic(), Lane::Backlog.topic(), TOPIC_DEAD_LETTERS];
    let topics = names.map(|name| {
        NewTopic::new(name, i32::from(PARTITIONS), TopicReplication::Fixed(1))
            .set("message.timestamp.type", "LogAppendTime")
            .set("retention.ms", "-1")
    });
    let until = tokio::time::Instant::now() + TOPICS_WITHIN;
    admin.delete_topics(&names, &options).await?;
    while tokio::time::Instant::now() < until {
        let made = admin.create_topics(&topics, &options).await?;
        if made.iter().all(Result::is_ok) {
            return Ok(());
        }
        admin.delete_topics(&names, &options).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Err(BenchError::Topics)
}

/// A fresh schema with a place for each partition.
pub async fn recreate_schema(url: &str) -> Result<MySqlConnection, BenchError> {
    let options: MySqlConnectOptions = url.parse()?;
    let options = options.ssl_mode(MySqlSslMode::Preferred).pipes_as_concat(false);
    let mut conn = options.connect().await?;
    for database in ["spillway", "spillway_store"] {
        let sql = format!("DROP DATABASE IF EXISTS {database}");
        sqlx::raw_sql(&sql).execute(&mut conn).await?;
    }
    let raw_retention = Duration::from_secs(7 * 86_400);
    migrate(&mut conn, &Options { raw_retention, now: jiff::Timestamp::now() }).await?;
    let places: Vec<String> = (0..PARTITIONS).map(|partition| format!("({partition})")).collect();
    let sql = format!(
        "INSERT INTO spillway_store.positions (partition_id) VALUES {}; \
         INSERT INTO spillway_store.shard_meta (id, shard, epoch) VALUES (1, 's0', 1)",
        places.join(",")
    );
    sqlx::raw_sql(&sql).execute(&mut conn).await?;
    Ok(conn)
}

/// A program's settings, in `dir`.
pub fn write_settings(
    (dir, program): (&Path, &str),
    kafka: &str,
    mysql: &str,
    extra: &str,
) -> std::io::Result<PathBuf> {
    let shards = dir.join("shards.toml");
    let groups = PARTITIONS / GROUP - 1;
    std::fs::write(
        &shards,
        format!(
            "partitions = {PARTITIONS}\ngroup = {GROUP}\n[[shard]]\nname = \"s0\"\n\
             primary = \"{mysql}\"\ngroups = \"0-{groups}\"\nepoch = 1\n"
        ),
    )?;
    let settings = dir.join(format!("{program}.toml"));
    std::fs::write(
        &settings,
        format!(
            "shards_file = {shards:?}\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [kafka]\nbrokers = [\"{kafka}\"]\n{extra}\n"
        ),
    )?;
    Ok(settings)
}
