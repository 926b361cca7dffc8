//! The console against the real servers: making a site, making it again, and what it refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should say where"
)]

mod browser;
mod dead_letters;
mod failover;
mod followed;
mod grafana;
mod live;
mod mariadb;
mod quiet;
mod relocate;
mod site;

use site::Site;
use spillway_testkit::{Database, Stack, StackOptions};
use sqlx::{Connection, MySqlConnection};

async fn servers() -> Stack {
    let options = StackOptions { servers_only: true, ..StackOptions::default() };
    Stack::start(options).await.unwrap()
}

fn shards(primary: &str, partitions: u16) -> String {
    format!(
        "partitions = {partitions}\ngroup = 4\n[[shard]]\nname = \"s0\"\nprimary = {primary:?}\n\
         groups = \"0-{}\"\n",
        partitions / 4 - 1
    )
}

fn site_on(stack: &Stack) -> Site {
    let file = stack.file();
    let s3 = &file.s3;
    let settings = format!(
        "remote_deadline = \"60s\"\n[kafka]\nbrokers = [{:?}]\n[s3]\nendpoint = {:?}\n\
         bucket = {:?}\naccess_key = {:?}\nsecret_key = {:?}\n",
        file.kafka, s3.endpoint, s3.bucket, s3.access_key, s3.secret_key
    );
    Site::new(&shards(&file.mysql[0].primary, 8), &settings)
}

async fn root(stack: &Stack) -> MySqlConnection {
    MySqlConnection::connect(&stack.file().mysql[0].primary).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_is_made_step_by_step_and_each_step_may_be_repeated() {
    let mut stack = servers().await;
    let site = site_on(&stack);
    assert!(site.refused("topics create --yes", 2).contains("run `spillway migrate`"));
    assert!(site.refused("topics check", 2).contains("run `spillway topics create`"));

    let migrated = site.ok("migrate --yes");
    assert_eq!(migrated["shards"][0]["applied"].as_array().unwrap().len(), 3);
    assert_eq!(site.ok("migrate --yes")["shards"][0]["applied"].as_array().unwrap().len(), 0);

    assert!(
        site.refused("topics create --replication-factor 3 --yes", 2).contains("3 copies need")
    );
    let planned = site.run("topics create --dry-run");
    assert!(planned.errors.contains("seed 8 positions on shard s0"), "{planned:?}");
    assert!(site.refused("topics check", 2).contains("does not exist"), "planned only");
    assert_eq!(site.ok("topics create --yes")["seeded"][0]["partitions"], 8);
    assert_eq!(site.ok("topics create --yes")["notes"][0], "there is nothing to do");
    assert_eq!(site.ok("topics check")["shards"][0]["positions"], 8);

    let journal = site.read("journal.jsonl");
    assert!(journal.contains("seed 8 positions on shard s0"), "{journal}");
    let lag = site.ok("lag");
    assert_eq!((&lag["verdict"], &lag["shards"][0]["state"]), (&"ok".into(), &"OK".into()));
    assert_eq!(
        (&lag["shards"][0]["in_per_s"], &lag["shards"][0]["eta_s"]),
        (&0.0.into(), &0.0.into())
    );
    assert_eq!(site.ok("gaps")["complete"], true);
    assert_eq!(site.ok("ledger")["missing_batches"], 0);
    assert_eq!(site.ok("spill ls")["objects"], 0);
    what_operators_ask_of_a_new_site(&site, &stack);
    stack.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_its_own_environment_through_the_views_and_nothing_else() {
    let mut stack = servers().await;
    let site = site_on(&stack);
    site.ok("migrate --yes");
    let mut root = root(&stack).await;
    for environment in ["acme", "globex"] {
        let sql = "INSERT INTO spillway_store.hosts (host_id, environment, host, first_seen_ts,
                   last_seen_ts) VALUES (CRC32(?), ?, 'web-1', 1, 1)";
        sqlx::query(sql).bind(environment).bind(environment).execute(&mut root).await.unwrap();
    }
    let made = site.ok("reader create --environment acme --connections 2 --yes");
    let dsn = made["readers"][0]["dsn"].as_str().unwrap();
    let mut reader = MySqlConnection::connect(dsn).await.unwrap();
    let sql =
        "SELECT CAST(GROUP_CONCAT(environment) AS CHAR) COLLATE utf8mb4_general_ci FROM hosts";
    let seen: Option<String> = sqlx::query_scalar(sql).fetch_one(&mut reader).await.unwrap();
    assert_eq!(seen.as_deref(), Some("acme"));
    let stolen = sqlx::query("SELECT * FROM spillway_store.hosts").execute(&mut reader).await;
    assert!(stolen.unwrap_err().to_string().contains("denied"));
    let _second = MySqlConnection::connect(dsn).await.unwrap();
    assert!(MySqlConnection::connect(dsn).await.is_err(), "two connections at once, no more");

    let again = site.refused("reader create --environment acme --yes", 2);
    assert!(again.contains("already; revoke it first"), "{again}");
    site.ok("reader revoke read_acme --yes");
    drop(reader);
    assert!(MySqlConnection::connect(dsn).await.is_err());
    stack.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_that_could_skip_a_record_are_never_made() {
    let mut stack = servers().await;
    let site = site_on(&stack);
    site.ok("migrate --yes");
    site.ok("topics create --yes");
    let mut root = root(&stack).await;

    let wrong_count = shards(&stack.file().mysql[0].primary, 16);
    std::fs::write(site.path("other.toml"), wrong_count).unwrap();
    let other = site.path("other.toml").display().to_string();
    let refused = site.run_with("topics create --yes", &[("SPILLWAY__SHARDS_FILE", &other)]);
    assert!(refused.errors.contains("has 8 partitions, and shards.toml says 16"), "{refused:?}");

    publish_one(&stack.file().kafka, 3).await;
    let delete = "DELETE FROM spillway_store.positions WHERE partition_id = 3";
    sqlx::query(delete).execute(&mut root).await.unwrap();
    let sentence = site.refused("topics create --yes", 2);
    assert!(sentence.contains("no position for partition 3; if nothing"), "{sentence}");
    assert!(site.run("topics check").json["notes"][0].to_string().contains("partition 3"));
    let lag = site.run("lag");
    let live = &lag.json["shards"].as_array().unwrap().iter().find(|row| row["lag_records"] == 1);
    assert_eq!((lag.code, &live.unwrap()["state"]), (2, &"STALL".into()), "{lag:?}");
    let notes = lag.json["notes"].to_string();
    assert!(notes.contains("no position") && !notes.contains("does not tell"), "{notes}");
    site.ok("topics create --from-beginning --yes");

    let ahead = "UPDATE spillway_store.positions SET live_next = 7 WHERE partition_id = 3";
    sqlx::query(ahead).execute(&mut root).await.unwrap();
    let sentence = site.refused("topics create --from-beginning --yes", 2);
    assert!(sentence.contains("recreated or cut"), "{sentence}");

    let renamed = "UPDATE spillway_store.shard_meta SET shard = 's9'";
    sqlx::query(renamed).execute(&mut root).await.unwrap();
    let sentence = site.refused("topics create --yes", 2);
    assert!(sentence.contains("says it is s9; correct the address"), "{sentence}");
    stack.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_shard_down_the_answer_says_so_and_is_never_all_is_well() {
    let mut stack = servers().await;
    let site = site_on(&stack);
    site.ok("migrate --yes");
    site.ok("topics create --yes");
    publish_one(&stack.file().kafka, 3).await;
    stack.kill("mysql-s0").await.unwrap();
    let lag = site.run("lag");
    assert_eq!((lag.code, &lag.json["shards"][0]["state"]), (2, &"UNKNOWN".into()), "{lag:?}");
    let sum = &lag.json["shards"][0];
    assert!(sum["lag_s"].is_null() && sum["lag_records"].is_null(), "not nought: {lag:?}");
    let parted = lag.json["partitions"].as_array().unwrap();
    assert!(parted.iter().any(|row| row["end_offset"] == 1), "Kafka's part is told: {lag:?}");
    let gaps = site.run("gaps");
    assert_eq!((gaps.code, &gaps.json["complete"]), (2, &false.into()), "{gaps:?}");
    let note = gaps.json["notes"][0].to_string();
    assert!(note.contains("shard s0") && note.contains("is the server up"), "{note}");
    stack.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_that_is_quiet_ended_or_without_a_point_is_told_as_that() {
    let options = StackOptions {
        servers_only: true,
        database: Database::of_tests(),
        ..StackOptions::default()
    };
    let mut stack = Stack::start(options).await.unwrap();
    let site = site_on(&stack);
    site.ok("migrate --yes");
    site.ok("topics create --yes");
    quiet::is_no_delay(&site, &mut root(&stack).await).await;
    stack.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboards_run_and_prune_and_hosts_have_charts() {
    let mut stack = servers().await;
    let site = site_on(&stack);
    site.ok("migrate --yes");
    site.ok("topics create --yes");
    let mut root = root(&stack).await;
    grafana::every_statement_runs_and_prunes(&mut root).await;
    grafana::hosts_have_charts_and_names_are_only_text(&site).await;
    stack.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_refuses_what_is_unsafe_and_goes_on_where_it_was_broken_off() {
    let options = StackOptions { servers_only: true, replicas: 2, ..StackOptions::default() };
    let mut stack = Stack::start(options).await.unwrap();
    let file = stack.file();
    let replicas = file.mysql[0].replicas.iter().map(|url| format!("{{ url = {url:?} }}"));
    let replicas = format!("replicas = [{}]\n", replicas.collect::<Vec<_>>().join(", "));
    let settings = format!(
        "remote_deadline = \"20s\"\nkafka.brokers = [{:?}]\nmysql.connect_timeout = \"5s\"\n\
         replication = {{ user = \"stack_replication\", password = \"stack\" }}\n",
        file.kafka
    );
    let site = Site::new(&(shards(&file.mysql[0].primary, 8) + &replicas), &settings);
    site.ok("migrate --yes");
    site.ok("topics create --yes");
    failover::is_rehearsed(&site, &stack).await;
    stack.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_moves_to_an_empty_shard_with_its_readers_and_keepers_are_waited_for() {
    relocate::between_shards(Database::Mysql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_moves_between_shards_of_mariadb_with_its_readers() {
    relocate::between_shards(Database::Mariadb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_of_mariadb_is_seen_as_it_is_and_never_switched_over() {
    mariadb::a_replicated_shard().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_page_tells_an_outage_of_kafka_and_its_end_and_dashboards_show_live_data() {
    live::an_outage_with_the_page_open().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_followed_through_every_hop_and_what_was_set_aside_comes_home_once() {
    followed::a_batch_through_every_hop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_s_batch_comes_home_once_when_its_cause_is_mended() {
    dead_letters::come_home_once().await;
}

fn what_operators_ask_of_a_new_site(site: &Site, stack: &Stack) {
    let unheard =
        "ledger 00000000-0000-0000-0000-000000000001/00000000-0000-0000-0000-000000000002/3";
    let traced = site.run(unheard);
    assert_eq!(traced.code, 1, "{traced:?}");
    assert_eq!(traced.json["conclusion"], "nobody here has ever heard of it");
    let broker = &stack.file().kafka;
    let stopped = site.run(&format!("preflight --stop {broker}"));
    assert_eq!(stopped.code, 2, "one broker of one may not be stopped: {stopped:?}");
    let words = stopped.json.to_string();
    assert!(
        words.contains("could not be written") && words.contains("0 in sync, 1 needed"),
        "{words}"
    );
    let checks = stopped.json["checks"].as_array().unwrap();
    let of = |check: &str| checks.iter().find(|row| row["check"] == check).unwrap();
    // How full this machine's own disk is, is not ours to judge.
    let disk = of(&format!("disk {broker}"));
    assert!(disk["detail"].as_str().unwrap().contains(" free, logs "), "{disk:#}");
    for well in ["certificate s0", "clock of s0", "clock of kafka", "s3"] {
        assert_eq!((&of(well)["state"], &of(well)["fix"]), (&"ok".into(), &().into()), "{well}");
    }
    assert!(of("kafka quorum")["detail"].as_str().unwrap().contains("1 of 1 controllers"));
    assert!(of("kafka without it")["fix"].is_string(), "what is wrong has a fix: {stopped:?}");
    let nobody = site.refused("preflight --stop nobody:1", 64);
    assert!(nobody.contains("nothing here is called nobody:1"), "{nobody}");
    let found = site.run("doctor").json;
    let findings = found["findings"].as_array().unwrap();
    let of = |what: &str| findings.iter().find(|row| row["what"] == what).unwrap();
    assert_eq!(of("mysql s0")["state"], "ok", "{found:#}");
    assert!(of("failover s0")["fix"].as_str().unwrap().contains("shard rebuild"), "{found:#}");
    assert!(findings.iter().all(|row| row["state"] == "ok" || row["fix"].is_string()), "{found:#}");
    let listed = site.ok("shard ls");
    assert_eq!(
        (&listed["servers"][0]["state"], &listed["servers"][0]["epoch"]),
        (&"ok".into(), &1.into())
    );
    let refused = site.refused("shard switchover s0 --yes", 2);
    assert!(refused.contains("no replica in shards.toml"), "{refused}");
    let small = site.ok("topics check");
    assert!(small["dead_letter_bytes"].as_u64() > Some(1 << 20), "{small:#}");
}

async fn publish_one(brokers: &str, partition: i32) {
    use rdkafka::ClientConfig;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let config = ClientConfig::new().set("bootstrap.servers", brokers).clone();
    let sent = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = config.create().unwrap();
        let record = BaseRecord::<[u8], [u8]>::to("spillway.live").partition(partition);
        producer.send(record.payload(b"x".as_slice())).unwrap();
        producer.flush(std::time::Duration::from_secs(20))
    });
    sent.await.unwrap().unwrap();
}
