//! mysqld dies during COMMIT, again and again, or is there and says nothing; mariadbd too.

use std::time::Duration;

use spillway_e2e::{Sender, SenderOptions};
use spillway_testkit::{Database, StackOptions};

use spillway_e2e::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn mysqld_killed_during_commit_in_a_loop_is_never_guessed_at() {
    killed_during_commit_in_a_loop(Database::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadbd_killed_during_commit_in_a_loop_is_never_guessed_at() {
    killed_during_commit_in_a_loop(Database::Mariadb).await;
}

async fn killed_during_commit_in_a_loop(database: Database) {
    let options = StackOptions { database, ..StackOptions::default() };
    // A stall just before COMMIT makes it likely that the kill hits a transaction that is ready.
    let options = options.env("consumer", "SPILLWAY_FAILPOINT", "before-commit=sleep:20");
    let rig = Rig::start(options).await;
    let pace = Duration::from_millis(30);
    let load = SenderOptions { windows: 400, hosts: 6, series: 10, pace, ..rig.load("demo") };
    let load = Sender::start(load);
    for round in 0..5_u64 {
        tokio::time::sleep(Duration::from_millis(900 + round * 137)).await;
        rig.kill_and_start("mysql-s0", Duration::from_millis(100)).await;
    }
    rig.judge(load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_mysqld_holds_up_its_own_shard_and_no_other() {
    let rig = Rig::start(StackOptions { shards: 2, ..StackOptions::default() }).await;
    let frozen = Sender::start(SenderOptions { windows: 100, ..rig.load("demo") });
    tokio::time::sleep(Duration::from_secs(2)).await;
    rig.stack.freeze("mysql-s0").expect("it runs");
    // The other shard's whole load is sent, applied and compared while s0 says nothing.
    let other = Sender::start(rig.load("globex"));
    rig.judge(other).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    rig.stack.thaw("mysql-s0").expect("it is there");
    rig.judge(frozen).await;
}
