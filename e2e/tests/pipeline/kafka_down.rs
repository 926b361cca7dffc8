//! Kafka is killed and comes back, sooner or later than the producer's own patience.

use std::time::Duration;

use spillway_e2e::{Fate, Sender, SenderOptions};
use spillway_testkit::stack::StackOptions;

use spillway_e2e::rig::{ACCEPTED_WITHIN, Rig, until};

#[tokio::test(flavor = "multi_thread")]
async fn while_kafka_is_down_agents_park_in_s3_and_everything_arrives_once() {
    let rig = Rig::start(StackOptions::default()).await;
    let agent = rig.agent("parking-agent", "demo").await;
    rig.until("parking-agent", "spillway_agent_batches_acked_total", |acked| acked >= 1.0).await;
    let load = Sender::start(rig.load("demo"));

    rig.stack.kill("kafka-0").await.expect("Kafka runs");
    // A report that was already on its way may still be answered; once each host has heard that
    // its batch was not taken, nothing is accepted.
    until("every host sends a batch again", async || {
        let open = load.ledger.batches(Fate::Info);
        open.len() == load.options.hosts && open.iter().all(|batch| batch.attempts >= 2)
    })
    .await;
    let accepted = load.ledger.batches(Fate::Ok).len();
    rig.until("parking-agent", "spillway_agent_batches_parked_total", |parked| parked >= 2.0).await;
    assert_eq!(load.ledger.batches(Fate::Ok).len(), accepted, "no 2xx without Kafka");
    rig.stack.start_process("kafka-0").await.expect("Kafka comes back");

    rig.judge(load).await;
    rig.until("recovery-worker-0", "spillway_recovery_objects_drained_total", |n| n >= 1.0).await;
    rig.until("recovery-worker-0", "spillway_recovery_objects_pending", |n| n == 0.0).await;
    rig.judge_agent(&agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_away_longer_than_message_timeout_loses_and_doubles_nothing() {
    let impatient = "[kafka.producer]\nmessage_timeout = \"10s\"";
    let rig = Rig::start(StackOptions::default().set("ingest-api", impatient)).await;
    let load = Sender::start(SenderOptions { windows: 60, ..rig.load("demo") });
    tokio::time::sleep(Duration::from_secs(2)).await;
    rig.kill_and_start("kafka-0", Duration::from_secs(18)).await;
    let (ledger, options) = load.finish(ACCEPTED_WITHIN).await;
    assert!(ledger.repeats() > 0, "the outage was felt");
    rig.judge_sent(&ledger, &options).await;
}
