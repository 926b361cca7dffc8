//! Row 4: Kafka's answers are away longer than `message.timeout.ms`: the producer gives up on
//! records that the broker has stored. (That a dead broker loses nothing is in
//! `pipeline/kafka_down.rs`.)

use std::time::Duration;

use spillway_e2e::rig::{ACCEPTED_WITHIN, Rig};
use spillway_e2e::{Fate, Sender, SenderOptions};
use spillway_proto::kafka_record::TOPIC_LIVE;
use spillway_testkit::proxy::Mode;
use spillway_testkit::stack::{End, StackOptions};

use crate::sending::{HEALED_WITHIN, log, until};

#[tokio::test(flavor = "multi_thread")]
async fn records_given_up_after_kafka_stored_them_are_sent_again_and_count_once() {
    let impatient = "[kafka.producer]\nmessage_timeout = \"10s\"";
    let options =
        StackOptions::default().link(End::IngestApi, End::Kafka).set("ingest-api", impatient);
    let rig = Rig::start(options).await;
    let pace = Duration::from_millis(50);
    let load = Sender::start(SenderOptions { windows: 60, hosts: 8, pace, ..rig.load("demo") });
    let accepted = || load.ledger.batches(Fate::Ok).len();
    until("the load runs", HEALED_WITHIN, async || accepted() >= 20).await;
    let link = rig.stack.link(End::IngestApi, End::Kafka).expect("it was asked for");
    link.set(Mode::SwallowAnswers);
    until("the producer gives records up", HEALED_WITHIN, async || {
        let api = rig.metrics("ingest-api-0").await;
        let unknown = [("outcome", "unknown")];
        api.sum_where("spillway_ingest_records_failed_total", &unknown) >= 8.0
    })
    .await;
    link.set(Mode::Pass);
    let (ledger, options) = load.finish(ACCEPTED_WITHIN).await;
    rig.judge_sent(&ledger, &options).await;
    let copies = log::copies(&log::records(&rig.stack.file().kafka, TOPIC_LIVE).await);
    let twice = copies.values().filter(|copies| **copies > 1).count();
    let duplicates =
        rig.metrics("consumer-0").await.sum("spillway_consumer_batches_duplicate_total");
    eprintln!("{twice} batches lie in Kafka more than once; {duplicates} were recognised");
    assert!(twice > 0, "the broker had stored what was given up");
    assert!(duplicates >= twice as f64, "every further copy was recognised");
}
