//! Two shards without any program of ours: what a move leaves behind, and who waits for whom.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use spillway_testkit::{Database, Stack, StackOptions};
use sqlx::{Connection, MySqlConnection};

use crate::site::Site;

const WITHIN: Duration = Duration::from_secs(60);
const ENVIRONMENT: &str = "acme";

/// A site of two shards, and a group's way from one to the other.
pub async fn between_shards(database: Database) {
    let own = StackOptions { servers_only: true, shards: 2, ..StackOptions::default() };
    let options = StackOptions { database, replicas: 1, ..own };
    let mut stack = Stack::start(options).await.unwrap();
    let site = site(&stack);
    site.ok("migrate --yes");
    site.ok("topics create --yes");
    to_an_empty_shard(&site, &stack).await;
    stack.stop();
}

/// Two shards, the second of which has no group yet.
fn site(stack: &Stack) -> Site {
    let file = stack.file();
    let shards = format!(
        "partitions = 8\ngroup = 4\n\
         [[shard]]\nname = \"s0\"\nprimary = {:?}\ngroups = \"0-1\"\n\
         [[shard]]\nname = \"s1\"\nprimary = {:?}\nreplicas = [{{ url = {:?} }}]\ngroups = \"\"\n",
        file.mysql[0].primary, file.mysql[1].primary, file.mysql[1].replicas[0]
    );
    Site::new(&shards, &format!("remote_deadline = \"60s\"\nkafka.brokers = [{:?}]\n", file.kafka))
}

/// A host's series with some hours of points and rollups.
async fn fill(source: &mut MySqlConnection) {
    for sql in [
        "INSERT INTO spillway_store.hosts (host_id, environment, host, first_seen_ts, last_seen_ts)
         VALUES (7, 'acme', 'web-1', 1, 1)",
        "INSERT INTO spillway_store.series
           (series_id, environment, host, metric, labels, kind, identity, first_seen_ts,
            last_seen_ts)
         VALUES (70, 'acme', 'web-1', 'load', '{}', 0, UNHEX(MD5('70')), 1, 1)",
        "INSERT INTO spillway_store.points (series_id, window_ts, vals)
         WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900)
         SELECT 70, UNIX_TIMESTAMP() DIV 10 * 10 - i * 10, '[0.1]' FROM n",
        ROLLUP,
    ] {
        run(source, sql).await;
    }
}

const ROLLUP: &str = "REPLACE INTO spillway_store.rollup_1m (series_id, minute_ts, cnt)
                      VALUES (70, UNIX_TIMESTAMP() DIV 60 * 60, 6)";

async fn run(conn: &mut MySqlConnection, sql: &str) {
    if let Err(error) = sqlx::raw_sql(sql).execute(conn).await {
        panic!("{error}\n{sql}");
    }
}

async fn number(conn: &mut MySqlConnection, sql: &str) -> i64 {
    let sql = format!("SELECT CAST(COALESCE(({sql}), 0) AS SIGNED)");
    sqlx::query_scalar(&sql).fetch_one(conn).await.unwrap()
}

async fn until(conn: &mut MySqlConnection, sql: &str) {
    let began = Instant::now();
    while number(conn, sql).await == 0 {
        assert!(began.elapsed() < WITHIN, "never: {sql}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A console that is not waited for.
fn start(site: &Site, command: &str) -> Child {
    let mut run = Command::new(env!("CARGO_BIN_EXE_spillway"));
    run.arg("--config").arg(site.path("spillway.toml")).args(command.split_whitespace());
    run.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

async fn to_an_empty_shard(site: &Site, stack: &Stack) {
    let file = stack.file();
    let connect = async |shard: usize| {
        MySqlConnection::connect(&file.mysql[shard].primary).await.expect("an administrator")
    };
    let (mut source, mut target) = (connect(0).await, connect(1).await);
    let mut keeper = connect(0).await;
    fill(&mut source).await;
    let group = &site.ok(&format!("where {ENVIRONMENT}"))["group"];
    let command = format!("shard move --groups {group} --to s1 --consumers-within 0s --yes");
    let reader = site.ok(&format!("reader create --environment {ENVIRONMENT} --yes"));
    let dsn = reader["readers"][0]["dsn"].as_str().unwrap().to_owned();

    a_console_that_dies_frees_the_keepers(site, &command, (&mut source, &mut target)).await;

    let moved = site.run(&command);
    assert_eq!(moved.code, 1, "there are no consumers: {moved:#?}");
    assert_eq!(moved.json["readers"][0], "read_acme", "{moved:#?}");
    assert_eq!(site.ok(&format!("where {ENVIRONMENT}"))["shard"], "s1");
    for server in [&mut source, &mut target] {
        assert_eq!(number(server, "SELECT COUNT(*) FROM spillway_store.points").await, 901);
        assert_eq!(number(server, PAUSES).await, 0, "keepers go on");
    }
    let (old, new) = (stack_port(&file.mysql[0].primary), stack_port(&file.mysql[1].primary));
    let mut there = MySqlConnection::connect(&dsn.replace(&old, &new)).await.expect("as before");
    assert_eq!(number(&mut there, "SELECT COUNT(*) FROM metrics").await, 901);
    let limit = "SELECT max_user_connections FROM mysql.user WHERE user = 'read_acme'";
    assert_eq!(number(&mut target, limit).await, number(&mut source, limit).await);

    what_a_keeper_has_begun_ends_before_rows_are_removed(site, group, (&mut source, &mut keeper))
        .await;
}

const PAUSES: &str = "SELECT COUNT(*) FROM spillway_store.keeper_pauses";

fn stack_port(url: &str) -> String {
    let port = url.rsplit(':').next().unwrap();
    format!(":{}/", port.split('/').next().unwrap())
}

/// The pause that a killed console leaves is over within a minute.
async fn a_console_that_dies_frees_the_keepers(
    site: &Site,
    command: &str,
    (source, target): (&mut MySqlConnection, &mut MySqlConnection),
) {
    run(target, "LOCK TABLES spillway_store.points WRITE").await;
    let mut console = start(site, command);
    until(source, PAUSES).await;
    let left = "SELECT MAX(until_at) - UNIX_TIMESTAMP() * 1000 FROM spillway_store.keeper_pauses";
    assert!((1..=61_000).contains(&number(source, left).await));
    console.kill().unwrap();
    assert_eq!(console.wait().unwrap().code(), None, "it was in the middle");
    run(target, "UNLOCK TABLES").await;
}

/// A rollup that is under way when the rows go lays no row down for a series that is gone.
async fn what_a_keeper_has_begun_ends_before_rows_are_removed(
    site: &Site,
    group: &serde_json::Value,
    (source, keeper): (&mut MySqlConnection, &mut MySqlConnection),
) {
    run(keeper, "DO GET_LOCK('spillway_rollups', 0)").await;
    let command = format!("shard move --groups {group} --to s1 --clean-source --yes");
    let mut console = start(site, &command);
    let waits = "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock'";
    until(source, waits).await;
    assert_eq!(number(source, "SELECT COUNT(*) FROM spillway_store.series").await, 1);
    run(keeper, ROLLUP).await;
    run(keeper, "DO RELEASE_LOCK('spillway_rollups')").await;
    let done = tokio::task::spawn_blocking(move || console.wait()).await.unwrap().unwrap();
    assert_eq!(done.code(), Some(0));
    for table in ["series", "hosts", "points", "rollup_1m"] {
        let left = format!("SELECT COUNT(*) FROM spillway_store.{table}");
        assert_eq!(number(source, &left).await, 0, "{table}");
    }
    assert_eq!(number(source, PAUSES).await, 0);
}
