//! Operators at work, under load, with the console's own commands: an environment paused and
//! admitted, a batch followed, a primary switched over, and one that dies while its replica lags.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use spillway_e2e::rig::{ACCEPTED_WITHIN, HASTY_CONSUMER, Rig, SETTLED_WITHIN, until};
use spillway_e2e::{Fate, Ledger, Sender, SenderOptions, compare, settled};
use spillway_testkit::mysql::MysqlServer;
use spillway_testkit::stack::StackOptions;
use spillway_testkit::{binaries, errand};
use sqlx::MySqlPool;
use sqlx::mysql::MySqlPoolOptions;

use crate::replica_status;

/// Batches that the replica lacks when it takes over, at least.
const LACKING: i64 = 40;

/// Runs a command; its exit code and answer.
async fn console(rig: &Rig, command: &str) -> (i32, Value) {
    let mut words: Vec<&str> = command.split_whitespace().collect();
    words.extend(["--output", "json", "--yes"]);
    let done = rig.stack.console(&words).await.expect("the console runs");
    eprintln!("spillway {command}\n{}", String::from_utf8_lossy(&done.stderr));
    let answer = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
    (done.status.code().expect("it ends by itself"), answer)
}

async fn ok(rig: &Rig, command: &str) -> Value {
    let (code, answer) = console(rig, command).await;
    assert_eq!(code, 0, "spillway {command}: {answer:#}");
    answer
}

async fn number(server: &MySqlPool, sql: &str) -> i64 {
    let sql = format!("SELECT CAST(COALESCE(({sql}), 0) AS SIGNED)");
    sqlx::query_scalar(&sql).fetch_one(server).await.expect("the server answers")
}

async fn audited(server: &MySqlPool) -> i64 {
    number(server, "SELECT COUNT(*) FROM spillway_store.audit").await
}

/// A reader of everything, at the server that is primary now.
fn reader_at(rig: &Rig, server: &MysqlServer) -> MySqlPool {
    let file = rig.stack.file();
    let url = file.mysql.first().and_then(|shard| shard.reader.as_deref()).expect("a reader");
    let (login, _) = url.split_once('@').expect("a login");
    let url = format!("{login}@{}/spillway", server.port.socket());
    MySqlPoolOptions::new().max_connections(2).connect_lazy(&url).expect("a URL")
}

async fn judge(mysql: &MySqlPool, ledger: &Ledger, options: &SenderOptions) {
    settled(mysql, ledger, options, SETTLED_WITHIN).await;
    let verdict = compare(mysql, ledger, options).await;
    eprintln!("{} of {}: {verdict}", options.name, ledger.summary());
    verdict.must_hold();
    assert_eq!(verdict.points_expected, options.total_points());
}

fn load(rig: &Rig, name: &str, windows: usize) -> Sender {
    Sender::start(SenderOptions { name: name.into(), windows, ..rig.load("demo") })
}

#[tokio::test(flavor = "multi_thread")]
async fn switched_over_and_failed_over_by_command_under_load_nothing_is_lost_or_doubled() {
    let options = StackOptions { replicas: 1, ..StackOptions::default() };
    let rig = Rig::start(options.set("consumer", HASTY_CONSUMER)).await;
    let servers = rig.stack.servers();
    let first = servers.primary("s0").expect("a primary");
    let replicas = servers.replicas("s0");
    let second = replicas.first().expect("a replica");
    let (first_sql, second_sql) = (first.admin_pool(), second.admin_pool());
    let (first_at, second_at) = (first.port.socket(), second.port.socket());
    replica_status::judge(rig.stack.dir(), first, second).await;

    // A planned switchover: the replica waits for everything, so nothing is replayed.
    let planned = load(&rig, "planned", 60);
    until("some of it is applied", async || audited(&first_sql).await >= 20).await;
    let refused =
        console(&rig, &format!("shard switchover s0 --expected-primary {second_at}")).await;
    assert_eq!(refused.0, 2, "an old plan is refused: {}", refused.1);
    let done = ok(&rig, &format!("shard switchover s0 --expected-primary {first_at}")).await;
    assert_eq!((&done["epoch"], &done["replayed_records"]), (&2.into(), &0.into()), "{done:#}");
    assert!(done["consumers_moved_s"].is_number(), "{done:#}");
    let (ledger, options) = planned.finish(ACCEPTED_WITHIN).await;
    judge(&reader_at(&rig, second), &ledger, &options).await;
    // The load may have been over before the switchover was: of this one only the new one is told.
    let before = audited(&second_sql).await;
    let (after, options) = load(&rig, "after", 5).finish(ACCEPTED_WITHIN).await;
    judge(&reader_at(&rig, second), &after, &options).await;
    until("the old primary follows the new one", async || audited(&first_sql).await > before).await;
    let listed = ok(&rig, "shard ls").await;
    assert_eq!(listed["servers"][0]["server"], second_at.to_string(), "{listed:#}");

    a_batch_is_followed(&rig, &ledger).await;

    // The new primary dies while its replica stands still.
    sqlx::raw_sql("STOP REPLICA IO_THREAD").execute(&first_sql).await.expect("it stops");
    let sudden = load(&rig, "sudden", 100);
    let stale = audited(&first_sql).await;
    until("the replica lacks much", async || audited(&second_sql).await >= stale + LACKING).await;
    rig.stack.kill(&second.name).await.expect("it runs");
    let (code, _) = console(&rig, "shard failover s0").await;
    assert_eq!(code, 2, "a primary that can't be fenced must be named as gone");
    let failover = format!("shard failover s0 --primary-is-gone {second_at}");
    let done = ok(&rig, &failover).await;
    assert_eq!(done["epoch"], 3, "{done:#}");
    assert!(done["replayed_records"].as_i64() >= Some(1), "{done:#}");
    let (ledger, options) = sudden.finish(ACCEPTED_WITHIN).await;
    judge(&reader_at(&rig, first), &ledger, &options).await;
    assert_eq!(number(&first_sql, "SELECT COUNT(*) FROM spillway_store.quarantined").await, 0);
    let events =
        "SELECT COUNT(*) FROM spillway_store.events WHERE kind IN ('switchover', 'failover')";
    assert_eq!(number(&first_sql, events).await, 2, "dashboards know of both");

    // What came back with commits that nobody replicated may not follow as it is.
    rig.stack.start_process(&second.name).await.expect("it comes back");
    let (code, answer) = console(&rig, &format!("shard rebuild s0 --server {second_at}")).await;
    let sentence = answer["error"].as_str().unwrap_or_default();
    assert!(code == 2 && sentence.contains("transactions that the primary has not"), "{answer:#}");

    each_broken_stage_is_named(&rig).await;
}

/// From the last stage to the first: each part that breaks becomes the first failing stage.
async fn each_broken_stage_is_named(rig: &Rig) {
    let (patient, impatient) = (rig.stack.dir().join("config/console.toml"), impatient(rig));
    let check_with = async |config: &Path, within: &str| {
        let mut run = Command::new(binaries::program("spillway", false));
        run.arg("--config").arg(config).args(["--output", "json", "check", "--within", within]);
        let done = tokio::task::spawn_blocking(move || errand::output(&run));
        let done = done.await.expect("it runs").expect("it runs");
        let answer: Value = serde_json::from_slice(&done.stdout).expect("an answer");
        let first =
            answer.pointer("/failed/0").and_then(Value::as_str).unwrap_or("none").to_owned();
        eprintln!("exit {:?}, failing: {first}", done.status.code());
        (done.status.code().expect("it ends by itself"), first)
    };
    // What works is waited for as long as a busy machine may need, what is broken not at all.
    assert_eq!(check_with(&patient, "60s").await, (0, "none".to_owned()));
    rig.stack.freeze("recovery-worker-0").expect("it runs");
    let stuck = "canary: S3 → Kafka → MySQL";
    assert_eq!(check_with(&impatient, "20s").await, (2, stuck.to_owned()));
    let check = async || check_with(&impatient, "8s").await;
    let parts = [
        ("consumer-0", "canary: API → Kafka → MySQL"),
        ("ingest-api-0", "api "),
        ("s3", "s3"),
        ("mysql-s0", "mysql s0"),
        ("kafka-0", "kafka"),
    ];
    for (process, stage) in parts {
        rig.stack.kill(process).await.expect("it runs");
        let (code, first) = check().await;
        // A consumer that is dead for long enough is seen before its canary is missed.
        let seen = first.starts_with(stage) || (process == "consumer-0" && first == "consumer");
        assert!(code == 2 && seen, "{process} is dead, and {first:?} was named, not {stage:?}");
    }
    std::fs::write(rig.stack.dir().join("shards.toml"), "nonsense").expect("a file");
    assert_eq!(check().await.1, "shards");
    std::fs::write(rig.stack.dir().join("tokens.toml"), "nonsense").expect("a file");
    assert_eq!(check().await.1, "tokens");
}

/// The console's settings with a short wait for each answer: half of what is asked is dead.
fn impatient(rig: &Rig) -> PathBuf {
    let config = rig.stack.dir().join("config");
    let text = std::fs::read_to_string(config.join("console.toml")).expect("settings");
    let hasty = text.replace("remote_deadline = \"60s\"", "remote_deadline = \"5s\"");
    assert_ne!(text, hasty, "the stack's console is a patient one");
    let own = config.join("impatient.toml");
    std::fs::write(&own, hasty).expect("a file");
    own
}

/// Applied batches are found in MySQL and, the very bytes, in Kafka.
async fn a_batch_is_followed(rig: &Rig, ledger: &Ledger) {
    let applied = ledger.batches(Fate::Ok);
    let id = applied.first().expect("something was accepted").recipe.id;
    let traced = ok(rig, &format!("ledger {id}")).await;
    let hops = traced.get("hops").and_then(Value::as_array).expect("a list");
    let state = |name: &str| hops.iter().find(|hop| hop["hop"] == name).map(|hop| &hop["state"]);
    assert_eq!(state("mysql"), Some(&"applied".into()), "{traced:#}");
    let kafka = hops.iter().find(|hop| hop["hop"] == "kafka").expect("a hop");
    assert!(kafka["detail"].to_string().contains("the very bytes"), "{traced:#}");
}
