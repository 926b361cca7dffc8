//! Row 35: a group goes to another shard under load, by a console that is killed twice on the way.

use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;
use spillway_e2e::rig::{ACCEPTED_WITHIN, HASTY_CONSUMER, Rig, SETTLED_WITHIN, until};
use spillway_e2e::{Sender, SenderOptions, compare, settled};
use spillway_testkit::stack::StackOptions;
use spillway_testkit::{Database, binaries};
use sqlx::MySqlPool;
use sqlx::mysql::MySqlPoolOptions;

/// What a supervisor sees when groups moved.
const STARTED_AGAIN: Option<i32> = Some(75);

async fn console(rig: &Rig, command: &str) -> Value {
    let mut words: Vec<&str> = command.split_whitespace().collect();
    words.extend(["--output", "json", "--yes"]);
    let done = rig.stack.console(&words).await.expect("the console runs");
    eprintln!("spillway {command}\n{}", String::from_utf8_lossy(&done.stderr));
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
    assert_eq!(done.status.code(), Some(0), "spillway {command}: {answer:#}");
    answer
}

/// A console that is not waited for.
fn start_console(rig: &Rig, command: &str) -> Child {
    let mut run = Command::new(binaries::program("spillway", false));
    run.arg("--config").arg(rig.stack.dir().join("config/console.toml"));
    run.args(command.split_whitespace()).arg("--yes");
    run.spawn().expect("it starts")
}

fn kill(mut console: Child) {
    console.kill().expect("it has not ended");
    let status = console.wait().expect("it is gone");
    assert_eq!(status.code(), None, "it was in the middle: {status}");
}

async fn number(server: &MySqlPool, sql: &str) -> i64 {
    let sql = format!("SELECT CAST(COALESCE(({sql}), 0) AS SIGNED)");
    sqlx::query_scalar(&sql).fetch_one(server).await.expect("the server answers")
}

/// Nobody reads or writes a table until this is dropped.
async fn locked(server: &MySqlPool, table: &str) -> MySqlPool {
    let options = server.connect_options().as_ref().clone();
    let one = MySqlPoolOptions::new().max_connections(1).connect_lazy_with(options);
    let lock = format!("LOCK TABLES spillway_store.{table} WRITE");
    sqlx::raw_sql(&lock).execute(&one).await.expect("it is locked");
    one
}

fn reader(rig: &Rig, shard: &str) -> MySqlPool {
    let file = rig.stack.file();
    let found = file.mysql.iter().find(|one| one.shard == shard).expect("a shard");
    let url = found.reader.as_deref().expect("a reader");
    MySqlPoolOptions::new().max_connections(2).connect_lazy(url).expect("a URL")
}

async fn judge(rig: &Rig, sender: Sender) {
    let (ledger, options) = sender.finish(ACCEPTED_WITHIN).await;
    let mysql = reader(rig, "s1");
    settled(&mysql, &ledger, &options, SETTLED_WITHIN).await;
    let verdict = compare(&mysql, &ledger, &options).await;
    eprintln!("{} of {}: {verdict}", options.environment, ledger.summary());
    verdict.must_hold();
    assert_eq!(verdict.points_expected, options.total_points());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_moves_under_load_and_its_console_is_killed_twice() {
    moves_and_is_killed_twice(Database::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_moves_under_load_between_replicated_shards_of_mariadb() {
    moves_and_is_killed_twice(Database::Mariadb).await;
}

async fn moves_and_is_killed_twice(database: Database) {
    let options = StackOptions { shards: 2, replicas: 1, database, ..StackOptions::default() };
    let rig = Rig::start(options.set("consumer", HASTY_CONSUMER)).await;
    let (old, new) = ("s0", "s1");
    let pool = |name| rig.stack.servers().primary(name).expect("a primary").admin_pool();
    let (source, target) = (pool(old), pool(new));
    let place = console(&rig, "where demo").await;
    assert_eq!(place["shard"], old, "{place:#}");
    let group = place["group"].as_u64().expect("a number");
    let command = format!("shard move --groups {group} --to {new} --clean-source");

    let moved = Sender::start(SenderOptions { windows: 120, ..rig.load("demo") });
    let other = Sender::start(SenderOptions { windows: 60, ..rig.load("globex") });
    let audited = "SELECT COUNT(*) FROM spillway_store.audit";
    until("some of it is applied", async || number(&source, audited).await >= 20).await;

    // Killed while it copies.
    let held = locked(&target, "points").await;
    let first = start_console(&rig, &command);
    let copying = "SELECT COUNT(*) FROM information_schema.processlist
                   WHERE state LIKE '%metadata lock%' AND info LIKE '%spillway_store.points%'
                   AND info LIKE '%MIN(window_ts)%'";
    until("it copies", async || number(&target, copying).await > 0).await;
    kill(first);
    drop_connection(held).await;
    let given_up = "SELECT COUNT(*) FROM spillway_store.positions WHERE shard_epoch = 4294967295";
    let partitions = number(&source, given_up).await;
    assert_eq!(partitions, place["partitions"].as_array().map_or(0, Vec::len) as i64);

    // Not wanted after all: the old shard goes on, so that what was copied is old when it goes on.
    let before = number(&source, audited).await;
    console(&rig, &format!("shard move --groups {group} --to {old}")).await;
    assert_eq!(number(&source, given_up).await, 0);
    until("the old shard goes on", async || number(&source, audited).await > before).await;

    // Killed when the new shard has taken over and shards.toml does not say so.
    let held = locked(&source, "lag_measurements").await;
    let second = start_console(&rig, &command);
    let epoch = "SELECT epoch FROM spillway_store.shard_meta";
    until("the epochs have risen", async || {
        number(&target, epoch).await == 2 && number(&source, epoch).await == 2
    })
    .await;
    kill(second);
    drop_connection(held).await;
    assert_eq!(console(&rig, "where demo").await["shard"], old);

    let during = SenderOptions { name: "during".into(), windows: 40, ..rig.load("demo") };
    let during = Sender::start(during);
    let (done, ()) = tokio::join!(console(&rig, &command), restarted(&rig));
    assert_eq!(done["resumed"], true, "{done:#}");
    assert!(done["rows_removed"].as_i64() > Some(0), "{done:#}");
    let place = console(&rig, "where demo").await;
    assert_eq!((&place["shard"], &place["epoch"]), (&new.into(), &2.into()), "{place:#}");
    judge(&rig, moved).await;
    judge(&rig, during).await;
    judge(&rig, other).await;
    rollups_say_what_their_points_say(&target).await;
    nothing_is_left(&source).await;
}

/// Those that moved and those that were made since, wherever nothing is marked.
async fn rollups_say_what_their_points_say(target: &MySqlPool) {
    let made = "SELECT COUNT(*) FROM spillway_store.rollup_1m m
                JOIN spillway_store.series s ON s.series_id = m.series_id
                WHERE s.environment = 'demo'";
    until("there are rollups", async || number(target, made).await > 0).await;
    let wrong = "SELECT COUNT(*) FROM (
          SELECT p.series_id, p.window_ts DIV 60 * 60 AS minute_ts, SUM(COALESCE(p.cnt, 1)) AS cnt
          FROM spillway_store.points p GROUP BY p.series_id, p.window_ts DIV 60 * 60) raw
        JOIN spillway_store.series s ON s.series_id = raw.series_id AND s.environment = 'demo'
        JOIN spillway_store.hosts h ON h.environment = s.environment AND h.host = s.host
        LEFT JOIN spillway_store.rollup_marks k
          ON k.host_id = h.host_id AND k.minute_ts = raw.minute_ts
        LEFT JOIN spillway_store.rollup_1m m
          ON m.series_id = raw.series_id AND m.minute_ts = raw.minute_ts
        WHERE k.host_id IS NULL AND (m.cnt IS NULL OR m.cnt <> raw.cnt)";
    assert_eq!(number(target, wrong).await, 0);
}

/// As a supervisor does.
async fn restarted(rig: &Rig) {
    let ended = rig.stack.wait_exit("consumer-0", Duration::from_secs(60)).await;
    assert_eq!(ended.expect("it ends by itself").code(), STARTED_AGAIN);
    rig.stack.start_process("consumer-0").await.expect("it starts");
}

async fn drop_connection(held: MySqlPool) {
    held.close().await;
}

async fn nothing_is_left(source: &MySqlPool) {
    for table in ["series", "hosts", "ledger_epochs"] {
        let sql = format!("SELECT COUNT(*) FROM spillway_store.{table} WHERE environment = 'demo'");
        assert_eq!(number(source, &sql).await, 0, "{table}");
    }
    for table in ["points", "rollup_1m", "rollup_1h"] {
        let sql = format!(
            "SELECT COUNT(*) FROM spillway_store.{table} t
             LEFT JOIN spillway_store.series s ON s.series_id = t.series_id
             WHERE s.series_id IS NULL"
        );
        assert_eq!(number(source, &sql).await, 0, "{table}");
    }
    let audit = "SELECT COUNT(*) FROM spillway_store.audit a
                 JOIN spillway_store.positions p ON p.partition_id = a.partition_id
                 WHERE p.shard_epoch = 4294967295";
    assert_eq!(number(source, audit).await, 0);
}
