//! Row 14: mysqld is there for a minute and says nothing.

use std::time::Duration;

use spillway_e2e::rig::{ACCEPTED_WITHIN, Rig};
use spillway_e2e::{Sender, SenderOptions};
use spillway_testkit::stack::StackOptions;
use tokio::time::Instant;

use crate::storing::{HASTY_CONSUMER, Server, reading, until};

/// How long the server is frozen: the fault itself.
const FROZEN_FOR: Duration = Duration::from_secs(60);
/// The smallest queues, so that it shows whether they hold.
const SMALL_QUEUES: &str = r#"
[group]
fetch_ahead = "1 MiB"
[intake]
live_max = "1 MiB"
backlog_max = "1 MiB"
"#;
/// Two workers' live queues, each with one record more than fits.
const QUEUES_MAX: f64 = 2.0 * (1024.0 + 960.0) * 1024.0;
/// Far above what the queues, the client's buffers and one transaction need.
const GROWTH_MAX_KIB: i64 = 96 * 1024;

/// What a process holds in memory.
fn resident_kib(rig: &Rig, name: &str) -> i64 {
    let file = rig.stack.file();
    let process = file.processes.iter().find(|process| process.name == name);
    let pid = process.and_then(|process| process.pid).expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_of_a_frozen_mysqld_costs_bounded_memory_no_membership_and_no_other_shard() {
    let options = StackOptions { shards: 2, ..StackOptions::default() };
    let rig = Rig::start(options.set("consumer", HASTY_CONSUMER).set("consumer", SMALL_QUEUES));
    let rig = rig.await;
    reading(&rig, &["consumer-0"], 64.0).await;
    rig.judge(Sender::start(SenderOptions { name: "before".into(), ..rig.load("demo") })).await;
    let rebalances = rig.metrics("consumer-0").await.sum("spillway_consumer_rebalances_total");
    let at_rest_kib = resident_kib(&rig, "consumer-0");

    rig.stack.freeze("mysql-s0").expect("it runs");
    let thaw_at = Instant::now() + FROZEN_FOR;
    // Several times as much as the queues hold, of numbers that do not compress.
    let pace = Duration::from_millis(10);
    let heavy = SenderOptions { hosts: 8, windows: 50, series: 300, pace, ..rig.load("demo") };
    let frozen = tokio::spawn(Sender::start(heavy).finish(ACCEPTED_WITHIN));
    let other = rig.judge(Sender::start(rig.load("globex")));
    let watched = async {
        let mut most = (0.0_f64, 0);
        while Instant::now() < thaw_at || !frozen.is_finished() {
            let metrics = rig.metrics("consumer-0").await;
            most.0 = most.0.max(metrics.sum("spillway_consumer_intake_bytes"));
            most.1 = most.1.max(resident_kib(&rig, "consumer-0") - at_rest_kib);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        most
    };
    let ((queued, grown_kib), _) = tokio::join!(watched, other);
    let (ledger, options) = frozen.await.expect("the load was accepted while it was frozen");
    eprintln!("most queued: {queued} bytes; most grown: {grown_kib} KiB; {}", ledger.summary());
    let metrics = rig.metrics("consumer-0").await;
    assert!(metrics.sum("spillway_consumer_lanes_paused") >= 1.0, "the frozen shard's are paused");
    assert!(queued <= QUEUES_MAX, "{queued} bytes are more than the queues may hold");
    assert!(grown_kib <= GROWTH_MAX_KIB, "grown by {grown_kib} KiB");
    let rebalances_now = metrics.sum("spillway_consumer_rebalances_total");
    assert_eq!(rebalances_now, rebalances, "the membership is kept");

    rig.stack.thaw("mysql-s0").expect("it is there");
    rig.judge_sent(&ledger, &options).await;
    let server = Server::primary(&rig, "s0");
    assert_eq!(server.quarantined().await, 0, "nothing transient is in dead letters");
    let paused = async || {
        let metrics = rig.metrics("consumer-0").await;
        metrics.sum("spillway_consumer_lanes_paused") == 0.0
    };
    until("fetching goes on", paused).await;
}
