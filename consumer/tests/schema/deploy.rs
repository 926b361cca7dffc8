//! deploy/mysql as it is shipped: the configuration is one the server takes, and each program's
//! user may do what the program does and not more.

use std::process::Command;

use spillway_consumer::migrations::{migrate, pending};
use spillway_testkit::artifacts::{Artifacts, cache_dir};
use spillway_testkit::{Database, Progress};

use crate::server::{Server, number, options_now, run};

const USERS_SQL: &str = include_str!("../../../deploy/mysql/users.sql");
const MY_CNF: &str = include_str!("../../../deploy/mysql/my.cnf");
const USERS: [&str; 4] =
    ["spillway_migrate", "spillway_consumer", "spillway_keeper", "spillway_console"];

#[test]
fn the_shipped_configuration_is_valid() {
    let database = Database::of_tests();
    let artifacts = Artifacts::fetch(&cache_dir(), database, &Progress::silent());
    let files = artifacts.expect("a server").database;
    let dir = tempfile::tempdir().unwrap();
    let configuration = dir.path().join("my.cnf");
    // MariaDB says what its options come to, and ends, only if it knows them all.
    let (text, ask) = match database {
        Database::Mysql => (MY_CNF.to_owned(), ["--user=root", "--validate-config"]),
        Database::Mariadb => (for_mariadb(MY_CNF), ["--help", "--verbose"]),
    };
    std::fs::write(&configuration, text).unwrap();
    let output = Command::new(files.program())
        .arg(format!("--defaults-file={}", configuration.display()))
        .arg(format!("--basedir={}", files.base.display()))
        .arg(format!("--datadir={}", dir.path().display()))
        .args(ask)
        .envs(files.env())
        .output()
        .expect("the server starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("[ERROR]"), "{said}");
}

/// What the file's first lines tell operators of MariaDB to make of it.
fn for_mariadb(text: &str) -> String {
    let (before, block) = text.split_once("# [mysql] up to").expect("a block for MySQL");
    let (_, after) = block.split_once("\n\n").expect("its end");
    format!("{before}{}", after.replace("# [mariadb] ", ""))
}

#[tokio::test]
async fn each_programs_user_may_do_its_work_and_not_more() {
    let mut server = Server::empty().await;
    let mut users = USERS_SQL.to_owned();
    for user in USERS {
        server.run(&format!("DROP USER IF EXISTS '{user}'@'%'")).await;
        users = users.replace(&format!("${{{user}_password}}"), &format!("{user}-1"));
    }
    server.run(&users).await;

    let mut owner = server.connect_as("spillway_migrate", "spillway_migrate-1").await;
    migrate(&mut owner, &options_now()).await.expect("the owner migrates");
    assert!(pending(&mut owner).await.unwrap().is_empty());

    let mut consumer = server.connect_as("spillway_consumer", "spillway_consumer-1").await;
    let insert = "INSERT INTO spillway_store.points (series_id, window_ts, vals)
                  VALUES (1, UNIX_TIMESTAMP() DIV 10 * 10, '[1]')";
    run(&mut consumer, insert).await;
    for forbidden in [
        "DROP TABLE spillway_store.points",
        "TRUNCATE spillway_store.points",
        "CREATE TABLE spillway_store.mine (i INT)",
    ] {
        assert!(sqlx::raw_sql(forbidden).execute(&mut consumer).await.is_err(), "{forbidden}");
    }

    let mut keeper = server.connect_as("spillway_keeper", "spillway_keeper-1").await;
    let newest = "SELECT CAST(MAX(CAST(partition_description AS SIGNED)) AS SIGNED)
                  FROM information_schema.partitions WHERE table_schema = 'spillway_store'
                    AND table_name = 'points'";
    let end = number(&mut keeper, newest).await + 3600;
    let table = "ALTER TABLE spillway_store.points";
    let add = format!("{table} ADD PARTITION (PARTITION p{end} VALUES LESS THAN ({end}))");
    run(&mut keeper, &add).await;
    run(&mut keeper, "LOCK TABLES spillway_store.points WRITE").await;
    run(&mut keeper, &format!("{table} DROP PARTITION p{end}")).await;
    run(&mut keeper, "UNLOCK TABLES").await;
    let theirs = number(&mut consumer, "SELECT CAST(CONNECTION_ID() AS SIGNED)").await;
    run(&mut keeper, &format!("KILL {theirs}")).await;
    for user in USERS {
        server.run(&format!("DROP USER '{user}'@'%'")).await;
    }
}
