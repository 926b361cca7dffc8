//! Row 29: Kafka or MySQL no longer hold what the other one needs. A page, never a guess.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use spillway_e2e::rig::{ACCEPTED_WITHIN, Rig};
use spillway_e2e::{Sender, SenderOptions};
use spillway_proto::kafka_record::TOPIC_LIVE;
use spillway_testkit::stack::StackOptions;

use crate::storing::{HASTY_CONSUMER, Server, partitioning, reading, until};

const HELD: &str = "spillway_consumer_partitions_held";
const KAFKA_WITHIN: Duration = Duration::from_secs(20);

/// Deletes all records of one partition, as somebody's retention or a careless hand would.
async fn truncate(kafka: &str, partition: u16) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create().expect("a client");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(TOPIC_LIVE, i32::from(partition), Offset::End).expect("an offset");
    let options = AdminOptions::new().operation_timeout(Some(KAFKA_WITHIN));
    let done = admin.delete_records(&list, &options).await.expect("Kafka deletes");
    for element in done.elements() {
        element.error().expect("Kafka deletes");
    }
}

async fn held(rig: &Rig, reason: &str) -> f64 {
    rig.metrics("consumer-0").await.sum_where(HELD, &[("reason", reason)])
}

/// An environment's busiest partition: that of the load's first host.
fn partition_of(load: &SenderOptions) -> u16 {
    partitioning().partition_of(&load.environment, &load.host(0))
}

async fn position(server: &Server, partition: u16) -> i64 {
    let row = "SELECT live_next FROM spillway_store.positions WHERE partition_id =";
    server.number(&format!("{row} {partition}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_cut_above_what_is_applied_and_a_missing_position_page_and_hold_only_themselves() {
    let rig = Rig::start(StackOptions::default().set("consumer", HASTY_CONSUMER)).await;
    let server = Server::primary(&rig, "s0");
    reading(&rig, &["consumer-0"], 64.0).await;
    let (demo, acme) = (rig.load("demo"), rig.load("acme"));
    let (cut, forgotten) = (partition_of(&demo), partition_of(&acme));
    rig.judge(Sender::start(demo)).await;
    rig.judge(Sender::start(acme)).await;
    rig.stack.kill("consumer-0").await.expect("it runs");
    // Accepted, not applied, and gone: what no replay can bring back.
    let lost = SenderOptions { hosts: 1, windows: 5, ..rig.load("demo") };
    let (lost, _) = Sender::start(lost).finish(ACCEPTED_WITHIN).await;
    let applied = position(&server, cut).await;
    truncate(&rig.stack.file().kafka, cut).await;
    server
        .run(&format!("DELETE FROM spillway_store.positions WHERE partition_id = {forgotten}"))
        .await;

    rig.stack.start_process("consumer-0").await.expect("it starts again");
    until("the cut log is a page", async || held(&rig, "outside-log").await == 1.0).await;
    until("the missing row is a page", async || held(&rig, "no-position").await == 1.0).await;
    reading(&rig, &["consumer-0"], 62.0).await;
    // Everybody else goes on.
    rig.judge(Sender::start(rig.load("globex"))).await;
    let check = rig.stack.console(&["topics", "check"]).await.expect("the console runs");
    assert_eq!(check.status.code(), Some(2), "operators are told: critical");
    assert_eq!(position(&server, cut).await, applied, "no offset was guessed");
    let rows = "SELECT COUNT(*) FROM spillway_store.positions";
    assert_eq!(server.number(rows).await, 63, "no position was seeded");
    assert_eq!(server.quarantined().await, 0);
    eprintln!("held as long as nobody decides; not applied: {}", lost.summary());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_cut_while_it_is_read_pages_and_jumps_over_nothing() {
    let small = "[group]\nfetch_ahead = \"1 MiB\"\n[intake]\nlive_max = \"1 MiB\"";
    let options = StackOptions::default().set("consumer", HASTY_CONSUMER).set("consumer", small);
    let rig = Rig::start(options).await;
    let server = Server::primary(&rig, "s0");
    reading(&rig, &["consumer-0"], 64.0).await;
    rig.judge(Sender::start(SenderOptions { name: "before".into(), ..rig.load("demo") })).await;
    let mut load = SenderOptions { hosts: 1, windows: 300, series: 400, ..rig.load("demo") };
    load.pace = Duration::ZERO;
    let cut = partition_of(&load);
    // The consumer can't apply, its queues fill, and far beyond them the log is cut.
    server.run("SET GLOBAL super_read_only = ON").await;
    let (accepted, _) = Sender::start(load).finish(ACCEPTED_WITHIN).await;
    rig.until("consumer-0", "spillway_consumer_lanes_paused", |n| n >= 1.0).await;
    truncate(&rig.stack.file().kafka, cut).await;
    server.run("SET GLOBAL super_read_only = OFF; SET GLOBAL read_only = OFF").await;
    until("the cut is a page", async || held(&rig, "outside-log").await == 1.0).await;
    let metrics = rig.metrics("consumer-0").await;
    assert_eq!(metrics.sum("spillway_consumer_offset_jumps_total"), 0.0, "nothing was jumped over");
    rig.judge(Sender::start(rig.load("globex"))).await;
    let stands = position(&server, cut).await;
    assert_eq!(held(&rig, "outside-log").await, 1.0);
    assert_eq!(position(&server, cut).await, stands, "no offset was guessed");
    eprintln!("stands at {stands}; accepted: {}", accepted.summary());
}
