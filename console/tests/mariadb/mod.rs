//! A replicated shard of MariaDB, with the rights that operators are given there: seen as it is,
//! and never switched over by GTIDs that are MySQL's.

use std::time::{Duration, Instant};

use serde_json::Value as Json;
use spillway_testkit::{Database, Stack, StackOptions};
use sqlx::{Connection, MySqlConnection};

use crate::site::Site;

const USERS_SQL: &str = include_str!("../../../deploy/mysql/users.sql");
const FOLLOWS_WITHIN: Duration = Duration::from_secs(30);
const ITS_OWN_TOOLS: &str = "MariaDB is switched over by its own tools";

pub async fn a_replicated_shard() {
    let own = StackOptions { servers_only: true, replicas: 1, ..StackOptions::default() };
    let options = StackOptions { database: Database::Mariadb, ..own };
    let mut stack = Stack::start(options).await.unwrap();
    let site = site(&stack).await;
    let owner = [
        ("SPILLWAY__MYSQL__USER", "spillway_migrate"),
        ("SPILLWAY__MYSQL__PASSWORD", "spillway_migrate-1"),
    ];
    let migrated = site.run_with("migrate --yes", &owner);
    assert_eq!(migrated.code, 0, "{migrated:?}");
    site.ok("topics create --yes");

    until_both_are(&site, ["ok", "ok"]).await;
    let servers = until_all_is_there(&site).await;
    assert_eq!((&servers[0]["writable"], &servers[1]["writable"]), (&true.into(), &false.into()));
    assert_eq!(servers[0]["epoch"], 1);
    is_well(&site, ("doctor", "findings", "what"), ["mysql s0", "failover s0"]);
    is_well(&site, ("preflight", "checks", "check"), ["mysql s0"; 2]);

    let replica = stack.servers().replicas("s0").first().unwrap().port.address().to_string();
    for change in [
        "shard switchover s0 --yes".to_owned(),
        "shard failover s0 --yes".to_owned(),
        format!("shard rebuild s0 --server {replica} --yes"),
    ] {
        let refused = site.refused(&change, 2);
        assert!(refused.contains(ITS_OWN_TOOLS), "{change}: {refused}");
    }
    until_both_are(&site, ["ok", "ok"]).await;

    let mut broken = MySqlConnection::connect(&stack.file().mysql[0].replicas[0]).await.unwrap();
    sqlx::raw_sql("STOP SLAVE").execute(&mut broken).await.unwrap();
    until_both_are(&site, ["ok", "wrong"]).await;
    let told = format!("{:?}", site.run("shard ls"));
    assert!(told.contains("replication: stopped"), "{told}");
    sqlx::raw_sql("START SLAVE").execute(&mut broken).await.unwrap();
    stack.kill("mysql-s0").await.unwrap();
    until_both_are(&site, ["down", "wrong"]).await;
    let gone = format!("shard failover s0 --primary-is-gone {} --yes", primary(&stack));
    let refused = site.refused(&gone, 2);
    assert!(refused.contains(ITS_OWN_TOOLS), "{refused}");
    stack.stop();
}

fn primary(stack: &Stack) -> String {
    stack.servers().primary("s0").unwrap().port.address().to_string()
}

/// The shard as its operators have it: users by the shipped file, which replicate.
async fn site(stack: &Stack) -> Site {
    let file = stack.file();
    let mut users = USERS_SQL.to_owned();
    for user in ["spillway_migrate", "spillway_consumer", "spillway_keeper", "spillway_console"] {
        users = users.replace(&format!("${{{user}_password}}"), &format!("{user}-1"));
    }
    let mut admin = MySqlConnection::connect(&file.mysql[0].primary).await.unwrap();
    sqlx::raw_sql(&users).execute(&mut admin).await.unwrap();
    let bare = |url: &str| url.replace("stack:stack@", "");
    let shards = format!(
        "partitions = 8\ngroup = 4\n[[shard]]\nname = \"s0\"\nprimary = {:?}\n\
         replicas = [{{ url = {:?} }}]\ngroups = \"0-1\"\n",
        bare(&file.mysql[0].primary),
        bare(&file.mysql[0].replicas[0])
    );
    let settings = format!(
        "remote_deadline = \"20s\"\nkafka.brokers = [{:?}]\n\
         mysql = {{ user = \"spillway_console\", password = \"spillway_console-1\" }}\n\
         replication = {{ user = \"stack_replication\", password = \"stack\" }}\n",
        file.kafka
    );
    Site::new(&shards, &settings)
}

/// Primary and replica, as `shard ls` sees them.
async fn until_both_are(site: &Site, wanted: [&str; 2]) {
    let began = Instant::now();
    loop {
        let seen = site.run("shard ls");
        let servers = &seen.json["servers"];
        if wanted == [&servers[0]["state"], &servers[1]["state"]] {
            return;
        }
        assert!(began.elapsed() < FOLLOWS_WITHIN, "never {wanted:?}: {seen:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A replica follows well before it has everything. Both servers, once it does.
async fn until_all_is_there(site: &Site) -> Json {
    let began = Instant::now();
    loop {
        let servers = site.ok("shard ls")["servers"].clone();
        if (&servers[1]["epoch"], &servers[1]["behind_s"]) == (&1.into(), &0.into()) {
            return servers;
        }
        assert!(began.elapsed() < FOLLOWS_WITHIN, "the replica stays behind: {servers:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn is_well(site: &Site, (command, section, column): (&str, &str, &str), wanted: [&str; 2]) {
    let told = site.run(command).json;
    let rows = told[section].as_array().cloned().unwrap_or_default();
    let state = |what: &str| rows.iter().find(|row| row[column] == what).map(|row| &row["state"]);
    for what in wanted {
        assert_eq!(state(what), Some(&Json::from("ok")), "{command}: {what}: {told:#}");
    }
}
