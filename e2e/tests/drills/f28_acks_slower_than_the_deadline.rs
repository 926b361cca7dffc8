//! Row 28: for a minute Kafka acknowledges slower than the HTTP deadline: behind a line that
//! delays every packet, each request's answer is 503 before its ack comes.

use std::time::Duration;

use spillway_e2e::rig::{ACCEPTED_WITHIN, Rig};
use spillway_e2e::{Fate, Sender, SenderOptions};
use spillway_proto::kafka_record::TOPIC_LIVE;
use spillway_testkit::proxy::Mode;
use spillway_testkit::stack::{End, StackOptions};
use tokio::time::{Instant, sleep_until};

use crate::sending::{HEALED_WITHIN, log, until};

/// One way; there and back it is longer than the API's 3 s.
const DELAY: Duration = Duration::from_secs(2);
const SLOW_FOR: Duration = Duration::from_secs(60);
const HOSTS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn retries_join_what_is_under_way_and_goodput_does_not_collapse() {
    let rig = Rig::start(StackOptions::default().link(End::IngestApi, End::Kafka)).await;
    let load = SenderOptions {
        windows: 120,
        hosts: HOSTS,
        series: 3,
        points: 2,
        pace: Duration::from_millis(500),
        ..rig.load("demo")
    };
    let load = Sender::start(load);
    let accepted = || load.ledger.batches(Fate::Ok).len();
    until("every host sends", HEALED_WITHIN, async || accepted() >= HOSTS).await;
    let link = rig.stack.link(End::IngestApi, End::Kafka).expect("it was asked for");
    link.set(Mode::Delay(DELAY));
    let (began, before) = (Instant::now(), accepted());
    // The delay's first round trip belongs to no half.
    sleep_until(began + 3 * DELAY).await;
    let first = accepted();
    sleep_until(began + 3 * DELAY + SLOW_FOR / 2).await;
    let second = accepted();
    sleep_until(began + 3 * DELAY + SLOW_FOR).await;
    let third = accepted();
    let api = rig.metrics("ingest-api-0").await;
    link.set(Mode::Pass);
    let halves = (second - first, third - second);
    let joins = api.sum("spillway_ingest_joins_total");
    let later = api.sum_where("spillway_ingest_requests_total", &[("status", "503")]);
    eprintln!(
        "accepted: {before} before, then {} and {} in two halves of a slow minute; {later} answers \
         were 503, {joins} retries joined",
        halves.0, halves.1
    );
    let (ledger, options) = load.finish(3 * ACCEPTED_WITHIN).await;
    rig.judge_sent(&ledger, &options).await;
    let copies = log::copies(&log::records(&rig.stack.file().kafka, TOPIC_LIVE).await);
    let further: usize = copies.values().map(|copies| copies - 1).sum();
    eprintln!("{} batches in Kafka, {further} further copies", copies.len());
    assert!(later > 0.0, "acks were slower than the deadline");
    assert!(joins > 0.0, "retries joined");
    // A host has one batch under way; even so each gets several through a slow half-minute.
    assert!(halves.0 >= HOSTS && halves.1 >= HOSTS, "{halves:?}");
    assert!(2 * halves.1 >= halves.0, "the second half is not worse: {halves:?}");
    assert!(further * 100 <= copies.len(), "one in a hundred at most: {further}");
}
