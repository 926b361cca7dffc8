//! Row 12: consumers come and go, or stand still past their session and come back.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use spillway_e2e::rig::{ACCEPTED_WITHIN, Rig, SETTLED_WITHIN};
use spillway_e2e::{Fate, Ledger, Sender, SenderOptions, compare, settled};
use spillway_proto::kafka_record::CONSUMER_GROUP;
use spillway_testkit::stack::StackOptions;

use crate::storing::{
    HASTY_CONSUMER, Server, freeze_in_transaction, owner, reading, sleepy, until,
};

/// Members without names of their own: each coming and each going moves partitions.
const NAMELESS: &str = "[group]\ninstance = \"\"";
/// How long a consumer stays.
const STAY: Duration = Duration::from_secs(2);

/// Nothing was recognised as a repetition that the sender did not repeat.
async fn applied_once(server: &Server, ledger: &Ledger) {
    let doubles =
        server.number("SELECT SUM(duplicate_batches) FROM spillway_store.ledger_epochs").await;
    assert!(doubles <= i64::from(ledger.repeats()), "{doubles} batches were applied again");
    assert_eq!(server.quarantined().await, 0, "nothing transient is in dead letters");
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_come_and_go_every_two_seconds_apply_everything_once() {
    let options = StackOptions { consumers: 3, ..StackOptions::default() };
    let options = options.set("consumer", HASTY_CONSUMER).set("consumer", NAMELESS);
    let rig = Rig::start(options).await;
    let pace = Duration::from_millis(100);
    let load = SenderOptions { windows: 340, hosts: 6, pace, ..rig.load("demo") };
    let load = Sender::start(load);
    for round in 0..12 {
        let name = format!("consumer-{}", round % 3);
        // Every other one goes without a word: the group has to find out.
        if round % 2 == 0 {
            let code = rig.stack.terminate(&name, SETTLED_WITHIN).await.expect("it stops");
            assert!(matches!(code, Some(0 | 75)), "{name} ended with {code:?}");
        } else {
            rig.stack.kill(&name).await.expect("it runs");
        }
        tokio::time::sleep(STAY).await;
        rig.stack.start_process(&name).await.expect("it starts again");
    }
    let (ledger, _) = rig.judge(load).await;
    applied_once(&Server::primary(&rig, "s0"), &ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_frozen_past_its_session_holds_up_nobody_and_writes_nothing_once_thawed() {
    let options = StackOptions { consumers: 2, ..StackOptions::default() };
    let rig = Rig::start(sleepy(options)).await;
    let names = ["consumer-0", "consumer-1"];
    reading(&rig, &names, 32.0).await;
    let server = Server::primary(&rig, "s0");
    let (frozen, other) = match owner("demo") {
        "consumer-0" => ("consumer-0", "consumer-1"),
        _ => ("consumer-1", "consumer-0"),
    };
    let pace = Duration::from_millis(100);
    let load = Sender::start(SenderOptions { windows: 200, pace, ..rig.load("demo") });
    freeze_in_transaction(&rig, &server, frozen).await;
    // Its partitions go to the other one, which applies everything: also what the frozen one's
    // open transaction has locked.
    rig.until(other, "spillway_consumer_partitions_assigned", |n| n == 64.0).await;
    let (ledger, options) = load.finish(ACCEPTED_WITHIN).await;
    let mysql = rig.mysql("demo");
    settled(&mysql, &ledger, &options, SETTLED_WITHIN).await;
    let before = server.audited().await;

    rig.stack.thaw(frozen).expect("it is there");
    let refused = async || {
        let metrics = rig.metrics(frozen).await;
        let unknown =
            metrics.sum_where("spillway_consumer_unknown_commits_total", &[("outcome", "applied")]);
        assert_eq!(unknown, 0.0, "the frozen transaction counted");
        let fenced = metrics.sum("spillway_consumer_fenced_total");
        fenced + metrics.sum("spillway_consumer_unknown_commits_total") >= 1.0
    };
    until("the thawed consumer learns that its transaction does not count", refused).await;
    reading(&rig, &names, 32.0).await;
    assert_eq!(server.audited().await, before, "the thawed consumer wrote something");
    let verdict = compare(&mysql, &ledger, &options).await;
    eprintln!("{}: {verdict}", ledger.summary());
    verdict.must_hold();
    applied_once(&server, &ledger).await;
    // Both work again, the thawed one included.
    rig.judge(Sender::start(SenderOptions { name: "after".into(), ..rig.load("demo") })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_restarts_within_its_session_moves_no_partition() {
    let rig = Rig::start(StackOptions { consumers: 2, ..StackOptions::default() }).await;
    let names = ["consumer-0", "consumer-1"];
    reading(&rig, &names, 32.0).await;
    let rebalances = "spillway_consumer_rebalances_total";
    let load = Sender::start(SenderOptions { windows: 200, ..rig.load("demo") });
    for (goes, stays) in [("consumer-0", "consumer-1"), ("consumer-1", "consumer-0")] {
        for killed in [false, true] {
            let before = rig.metrics(stays).await.sum(rebalances);
            if killed {
                rig.stack.kill(goes).await.expect("it runs");
            } else {
                let code = rig.stack.terminate(goes, SETTLED_WITHIN).await.expect("it stops");
                assert_eq!(code, Some(0), "an ordered stop leaves nothing");
            }
            rig.stack.start_process(goes).await.expect("it starts again");
            reading(&rig, &names, 32.0).await;
            let after = rig.metrics(stays).await.sum(rebalances);
            assert_eq!(after, before, "{stays} was disturbed by {goes}'s restart");
        }
    }
    let (ledger, _) = rig.judge(load).await;
    applied_once(&Server::primary(&rig, "s0"), &ledger).await;
}

/// Members of the consumers' group, as the broker counts them.
async fn members(kafka: String) -> usize {
    let ask = move || {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &kafka).create().ok()?;
        let list = client.fetch_group_list(Some(CONSUMER_GROUP), Duration::from_secs(5)).ok()?;
        list.groups().first().map(|group| group.members().len())
    };
    tokio::task::spawn_blocking(ask).await.ok().flatten().unwrap_or(usize::MAX)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_only_consumer_longer_than_its_session_loses_nothing() {
    let rig = Rig::start(StackOptions::default().set("consumer", HASTY_CONSUMER)).await;
    let kafka = rig.stack.file().kafka;
    reading(&rig, &["consumer-0"], 64.0).await;
    let load = Sender::start(SenderOptions { windows: 150, ..rig.load("demo") });
    until("some of it is accepted", async || load.ledger.batches(Fate::Ok).len() > 20).await;
    rig.stack.kill("consumer-0").await.expect("it runs");
    until("the group has nobody left", async || members(kafka.clone()).await == 0).await;
    let (ledger, options) = load.finish(ACCEPTED_WITHIN).await;
    let server = Server::primary(&rig, "s0");
    assert!(server.audited().await < ledger.batches(Fate::Ok).len() as i64, "nobody applied it");
    rig.stack.start_process("consumer-0").await.expect("it starts again");
    rig.judge_sent(&ledger, &options).await;
    applied_once(&server, &ledger).await;
}
