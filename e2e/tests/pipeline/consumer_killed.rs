//! The consumer dies at its two worst moments, and where a kill happens to hit it.

use std::time::Duration;

use spillway_e2e::{Sender, SenderOptions};
use spillway_testkit::stack::StackOptions;

use spillway_e2e::rig::Rig;

/// Starts the consumer so that it dies at a named point, again and again while a load runs, then
/// once without the point, and compares.
async fn dies_at(failpoint: &str, times: u32) {
    let options = StackOptions::default().env("consumer", "SPILLWAY_FAILPOINT", failpoint);
    let rig = Rig::start(options).await;
    let pace = Duration::from_millis(250);
    let mut loads = Vec::new();
    for life in 0..=times {
        // A load of its own: however long a start takes, each life has transactions to die in.
        let name = format!("life-{life}");
        let load = SenderOptions { name, windows: 60, pace, ..rig.load("demo") };
        loads.push(Sender::start(load));
        let died = rig.stack.wait_exit("consumer-0", Duration::from_secs(60)).await;
        died.expect("the consumer dies at its failpoint");
        if life == times {
            rig.stack.clear_env("consumer-0", "SPILLWAY_FAILPOINT").expect("it is one of ours");
        }
        rig.stack.start_process("consumer-0").await.expect("it starts again");
    }
    for load in loads {
        rig.judge(load).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_rows_and_commit_nothing_is_lost_or_doubled() {
    dies_at("after-rows=abort@3", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_commit_and_group_commit_nothing_is_applied_twice() {
    dies_at("after-commit=abort@3", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_while_two_share_the_work_nothing_is_lost_or_doubled() {
    let rig = Rig::start(StackOptions { consumers: 2, ..StackOptions::default() }).await;
    let load = Sender::start(SenderOptions { windows: 150, hosts: 8, ..rig.load("demo") });
    for round in 0..4 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let name = if round % 2 == 0 { "consumer-0" } else { "consumer-1" };
        rig.kill_and_start(name, Duration::from_millis(500)).await;
    }
    rig.judge(load).await;
}
