//! A hand in the database: every row of an environment is deleted or altered, and comes back bit
//! for bit from Kafka, while the consumer goes on storing.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use spillway_e2e::rig::{Rig, SETTLED_WITHIN};
use spillway_e2e::{Ledger, Sender, SenderOptions};
use spillway_proto::kafka_record::TOPIC_LIVE;
use spillway_testkit::rollup_proof::prove;
use sqlx::MySqlPool;
use tokio::time::Instant;

const ENVIRONMENT: &str = "acme";
/// Of what was there before anything was broken.
const THEIRS: &str = "series_id IN (SELECT series_id FROM spillway_store.series \
                      WHERE environment = 'acme' AND host NOT LIKE '%meanwhile%')";

struct Broken<'a> {
    rig: &'a Rig,
    admin: MySqlPool,
    shard: String,
    from: String,
}

/// `ledger` and `options` are of the load that is stored already.
pub async fn judge(rig: &Rig, ledger: &Ledger, options: &SenderOptions) {
    let file = rig.stack.file();
    let own = |names: &[String]| names.iter().any(|name| name == ENVIRONMENT);
    let shard = file.mysql.iter().find(|shard| own(&shard.environments)).expect("a shard");
    let admin = rig.stack.servers().primary(&shard.shard).expect("its primary").admin_pool();
    let from = jiff::Timestamp::from_second(i64::from(options.first_window_ts) - 1_200);
    let from = from.expect("a time").to_string();
    let broken = Broken { rig, admin, shard: shard.shard.clone(), from };
    let (before, rows) = (broken.sum().await, broken.number(&count(THEIRS)).await);
    let load = SenderOptions { name: "meanwhile".into(), windows: 60, ..rig.load(ENVIRONMENT) };
    let load = Sender::start(load);
    let deleted = broken.spoil().await;

    let (code, found) = broken.reprocess("raw", "--dry-run").await;
    assert_eq!((code, count_of(&found, "restored")), (1, 0), "{found:#}");
    assert_eq!(count_of(&found, "missing"), deleted, "{found:#}");
    assert_eq!(
        count_of(&found, "different"),
        rows - deleted,
        "what arrives meanwhile is no difference"
    );
    assert_eq!(count_of(&found, "extra"), 1, "{found:#}");
    assert_eq!(
        found.get("differences").and_then(Value::as_array).map(Vec::len),
        Some(10),
        "{found:#}"
    );
    assert_ne!(broken.sum().await, before, "a dry run changes nothing");

    let (_, done) = broken.reprocess("raw", "--yes").await;
    assert_eq!(count_of(&done, "restored"), rows, "{done:#}");
    broken.run(&format!("DELETE FROM spillway_store.points WHERE window_ts = {EXTRA}")).await;
    assert_eq!(broken.sum().await, before, "bit for bit");
    rig.judge(load).await;
    rig.judge_sent(ledger, options).await;
    let (code, after) = broken.reprocess("raw", "--dry-run").await;
    let differ = [count_of(&after, "missing"), count_of(&after, "different")];
    assert_eq!((code, differ), (0, [0, 0]), "{after:#}");

    broken.rollups_are_made_again(options).await;
    broken.what_kafka_no_longer_has_is_told_and_stays().await;
}

/// A window of a row that no record brought, before all others.
const EXTRA: &str = "(SELECT * FROM (SELECT MIN(window_ts) FROM spillway_store.points) AS oldest)";

/// A fact of an answer.
fn count_of(answer: &Value, name: &str) -> i64 {
    answer.get(name).and_then(Value::as_i64).expect(name)
}

fn count(condition: &str) -> String {
    format!("SELECT COUNT(*) FROM spillway_store.points WHERE {condition}")
}

/// By SQLSTATE.
fn is_deadlock(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "40001")
}

impl Broken<'_> {
    async fn reprocess(&self, what: &str, how: &str) -> (i32, Value) {
        let Self { shard, from, .. } = self;
        let raw = if what == "raw" { "--environment acme" } else { "" };
        let command =
            format!("reprocess {what} --shard {shard} --from {from} {raw} {how} --output json");
        let words: Vec<&str> = command.split_whitespace().collect();
        let done = self.rig.stack.console(&words).await.expect("the console runs");
        eprintln!("spillway {command}\n{}", String::from_utf8_lossy(&done.stderr));
        let answer = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
        (done.status.code().expect("it ends by itself"), answer)
    }

    async fn number(&self, sql: &str) -> i64 {
        let sql = format!("SELECT CAST(COALESCE(({sql}), 0) AS SIGNED)");
        sqlx::query_scalar(&sql).fetch_one(&self.admin).await.expect("the server answers")
    }

    async fn run(&self, sql: &str) -> i64 {
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            let done = sqlx::raw_sql(sql).execute(&self.admin).await;
            // Consumer and keeper go on meanwhile, and of two that wait for each other the server
            // lets one go: then nothing of the statement was done.
            if !done.as_ref().is_err_and(is_deadlock) || Instant::now() >= until {
                let rows = done.expect("the server obeys").rows_affected();
                return i64::try_from(rows).expect("few rows");
            }
        }
    }

    async fn sum(&self) -> i64 {
        self.number(&format!(
            "SELECT SUM(CRC32(CONCAT_WS('|', series_id, window_ts, cnt, `sum`, `min`, `max`, \
             `first`, `last`, vals))) FROM spillway_store.points WHERE {THEIRS}"
        ))
        .await
    }

    /// Half of the rows are deleted, the others altered, and one is made of nothing. The rollups
    /// are all wrong, too. How many rows were deleted.
    async fn spoil(&self) -> i64 {
        let halves = "series_id % 2 = 0";
        let deleted = self
            .run(&format!("DELETE FROM spillway_store.points WHERE {THEIRS} AND {halves}"))
            .await;
        let nonsense = "UPDATE spillway_store.points SET cnt = 2, `sum` = 7, vals = '[3,4]' WHERE";
        self.run(&format!("{nonsense} {THEIRS} AND NOT {halves}")).await;
        let extra = "INSERT INTO spillway_store.points (series_id, window_ts, vals) \
                     SELECT series_id, window_ts - 600, '[1]' FROM spillway_store.points WHERE";
        self.run(&format!("{extra} {THEIRS} ORDER BY window_ts, series_id LIMIT 1")).await;
        let rollups = "UPDATE spillway_store.rollup_1m SET cnt = cnt + 1 WHERE";
        self.run(&format!("{rollups} {THEIRS}")).await;
        assert!(deleted > 0);
        deleted
    }

    async fn rollups_are_made_again(&self, options: &SenderOptions) {
        let hour = i64::from(options.first_window_ts / 3_600 * 3_600);
        let end = hour + 3_600;
        let marks = format!(
            "SELECT (SELECT COUNT(*) FROM spillway_store.rollup_marks WHERE minute_ts < {end}) \
             + (SELECT COUNT(*) FROM spillway_store.rollup_hour_marks WHERE hour_ts = {hour})"
        );
        let settled = async || self.number(&marks).await == 0;
        spillway_e2e::rig::until("no mark is left", settled).await;
        let proof = prove(&self.rig.mysql(ENVIRONMENT), hour, end).await;
        let proof = proof.expect("readable");
        proof.must_hold();
        assert!(proof.minutes > 0);
        let (code, answer) = self.reprocess("rollups", "--dry-run").await;
        assert_eq!((code, count_of(&answer, "different")), (0, 0), "{answer:#}");
    }

    async fn what_kafka_no_longer_has_is_told_and_stays(&self) {
        let before = self.sum().await;
        let rows = self.number(&count(THEIRS)).await;
        let file = self.rig.stack.file();
        let kafka: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &file.kafka).create().expect("a client");
        let sql =
            "SELECT partition_id, live_next FROM spillway_store.positions WHERE live_next > 0";
        let positions: Vec<(u32, i64)> =
            sqlx::query_as(sql).fetch_all(&self.admin).await.expect("positions");
        let mut below = TopicPartitionList::new();
        for (partition, next) in positions {
            let partition = i32::try_from(partition).expect("few");
            below.add_partition_offset(TOPIC_LIVE, partition, Offset::Offset(next)).expect("one");
        }
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        kafka.delete_records(&below, &options).await.expect("Kafka trims");
        let (code, answer) = self.reprocess("raw", "--yes").await;
        let counts = [count_of(&answer, "restored"), count_of(&answer, "extra")];
        assert_eq!((code, counts), (1, [0, 0]), "{answer:#}");
        assert!(count_of(&answer, "beyond_kafka") >= rows, "{answer:#}");
        let told = answer.get("notes").map(Value::to_string).unwrap_or_default();
        assert!(told.contains("Kafka no longer has everything of spillway.live"), "{answer:#}");
        assert_eq!(self.sum().await, before, "the store keeps what Kafka has not");
    }
}
