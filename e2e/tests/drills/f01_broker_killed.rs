//! Row 1: a broker is killed: the only one, or the leader of three.

use std::time::Duration;

use spillway_e2e::ledger::Way;
use spillway_e2e::rig::Rig;
use spillway_e2e::{Fate, Sender, SenderOptions};
use spillway_proto::kafka_record::TOPIC_LIVE;
use spillway_testkit::stack::StackOptions;
use tokio::task::JoinSet;

use crate::sending::{Door, HEALED_WITHIN, Host, log, until};

/// Batches that arrive while the only broker is dead.
const BATCHES: usize = 20;
/// Each of the brokers is the leader that dies once.
const ROUNDS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn with_the_only_broker_dead_every_request_is_told_503_in_time_and_none_2xx() {
    let rig = Rig::start(StackOptions::default()).await;
    let (door, host) = (Door::of(&rig, "demo"), Host::new(&rig, "demo", "lone", BATCHES + 1));
    host.deliver(&door, &host.batch(0)).await;
    rig.stack.kill("kafka-0").await.expect("it runs");
    let mut posts = JoinSet::new();
    for window in 1..=BATCHES {
        let (door, sent) = (door.clone(), host.batch(window));
        host.ledger.attempt(&sent.recipe, Way::Http).await;
        posts.spawn(async move { door.post(&sent.frame).await });
    }
    for answer in posts.join_all().await {
        answer.must_be_later();
    }
    rig.stack.start_process("kafka-0").await.expect("it comes back");
    for window in 1..=BATCHES {
        host.deliver(&door, &host.batch(window)).await;
    }
    host.judge(&rig).await;
    let joins = rig.metrics("ingest-api-0").await.sum("spillway_ingest_joins_total");
    assert!(joins >= BATCHES as f64, "each retry joined its first attempt: {joins}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_leader_of_three_killed_in_turn_stops_nobody_and_loses_nothing() {
    let rig = Rig::start(StackOptions { brokers: 3, ..StackOptions::default() }).await;
    let kafka = rig.stack.file().kafka;
    for round in 0..ROUNDS {
        let pace = Duration::from_millis(50);
        let name = format!("leader{round}");
        let load = SenderOptions { windows: 80, hosts: 4, pace, name, ..rig.load("demo") };
        let partition = log::partition_of("demo", &load.host(0));
        let load = Sender::start(load);
        let accepted = || load.ledger.batches(Fate::Ok).len();
        until("the load runs", HEALED_WITHIN, async || accepted() >= 20).await;
        let (leader, _) = log::place(&kafka, TOPIC_LIVE, partition).await.expect("a leader");
        let victim = format!("kafka-{leader}");
        rig.stack.kill(&victim).await.expect("it runs");
        eprintln!("{victim} is killed with {} batches accepted", accepted());
        // All of it is accepted, applied and compared with two of three.
        rig.judge(load).await;
        rig.stack.start_process(&victim).await.expect("it comes back");
        until("all three are in sync", HEALED_WITHIN, async || {
            let place = log::place(&kafka, TOPIC_LIVE, partition).await;
            place.is_some_and(|(_, in_sync)| in_sync.len() == 3)
        })
        .await;
    }
    let api = rig.metrics("ingest-api-0").await;
    let accepted = api.sum("spillway_ingest_batches_accepted_total");
    let reported =
        api.sum("spillway_ingest_records_published_total") + api.sum("spillway_ingest_joins_total");
    assert!(accepted <= reported, "{accepted} accepted, {reported} delivery reports and joins");
}
