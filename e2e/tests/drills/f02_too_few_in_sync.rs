//! Row 2: fewer replicas in sync than min.insync.replicas: nothing is acknowledged, and what the
//! leader stored meanwhile is recognised when it comes again.

use spillway_e2e::ledger::Way;
use spillway_e2e::rig::Rig;
use spillway_proto::kafka_record::TOPIC_LIVE;
use spillway_testkit::stack::StackOptions;

use crate::sending::{Door, HEALED_WITHIN, Host, log, until};

const BATCHES: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_but_not_acknowledged_is_recognised_when_it_comes_again() {
    let rig = Rig::start(StackOptions { brokers: 3, ..StackOptions::default() }).await;
    let kafka = rig.stack.file().kafka;
    let (door, host) = (Door::of(&rig, "demo"), Host::new(&rig, "demo", "insync", 2 * BATCHES));
    let partition = log::partition_of("demo", &host.name());
    // All three must have it, and one of them is silent: the leader stores what it can't confirm.
    log::set_topic(&kafka, TOPIC_LIVE, "min.insync.replicas", "3").await;
    let (leader, _) = log::place(&kafka, TOPIC_LIVE, partition).await.expect("a leader");
    let silent = format!("kafka-{}", (leader + 1) % 3);
    rig.stack.freeze(&silent).expect("it runs");
    no_2xx(&host, &door, 0..BATCHES).await;
    until("the silent one is out of sync", HEALED_WITHIN, async || {
        let place = log::place(&kafka, TOPIC_LIVE, partition).await;
        place.is_some_and(|(_, in_sync)| in_sync.len() == 2)
    })
    .await;
    // Now Kafka refuses at once, and is asked again and again.
    no_2xx(&host, &door, 0..BATCHES).await;
    rig.stack.thaw(&silent).expect("it is there");
    accepted_in_the_end(&host, &door, 0..BATCHES).await;

    // Two of three dead, as production has it (min.insync 2): the last one may take nothing.
    log::set_topic(&kafka, TOPIC_LIVE, "min.insync.replicas", "2").await;
    let (leader, _) = log::place(&kafka, TOPIC_LIVE, partition).await.expect("a leader");
    let dead = [(leader + 1) % 3, (leader + 2) % 3].map(|id| format!("kafka-{id}"));
    for name in &dead {
        rig.stack.kill(name).await.expect("it runs");
    }
    no_2xx(&host, &door, BATCHES..2 * BATCHES).await;
    for name in &dead {
        rig.stack.start_process(name).await.expect("it comes back");
    }
    accepted_in_the_end(&host, &door, BATCHES..2 * BATCHES).await;

    host.judge(&rig).await;
    let records = log::records(&kafka, TOPIC_LIVE).await;
    let copies = log::copies(&records);
    assert_eq!(copies.len(), 2 * BATCHES, "each batch lies in Kafka");
    let twice = copies.values().filter(|copies| **copies > 1).count();
    assert_eq!(twice, 0, "what Kafka stored before it could say so is not stored again");
}

async fn no_2xx(host: &Host, door: &Door, windows: std::ops::Range<usize>) {
    let sent: Vec<_> = windows.map(|window| host.batch(window)).collect();
    let mut posts = tokio::task::JoinSet::new();
    for sent in &sent {
        host.ledger.attempt(&sent.recipe, Way::Http).await;
        let (door, frame) = (door.clone(), sent.frame.clone());
        posts.spawn(async move { door.post(&frame).await });
    }
    for answer in posts.join_all().await {
        answer.must_be_later();
    }
}

async fn accepted_in_the_end(host: &Host, door: &Door, windows: std::ops::Range<usize>) {
    for window in windows {
        host.deliver(door, &host.batch(window)).await;
    }
}
