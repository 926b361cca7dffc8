//! A shard that is silent or gone keeps only its own partitions waiting.

use std::time::Duration;

use spillway_proto::kafka_record::Lane;
use spillway_testkit::proxy::{Mode, Proxy};

use super::batches::Agent;
use super::site::{GROUP, PARTITIONS, Site};

/// An environment of each group.
fn environments() -> [String; 2] {
    let partitioning = spillway_proto::partition::Partitioning::new(PARTITIONS, GROUP).unwrap();
    [0, 1].map(|group| {
        (0..100)
            .map(|n| format!("env-{n}"))
            .find(|name| partitioning.group_of(name) == group)
            .unwrap()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_shard_is_waited_for_and_then_everything_is_there() {
    let mut site = Site::new().await;
    let proxy = Proxy::start(site.mysql).await.unwrap();
    let agent = Agent::new("demo", "web-1");
    let consumer = site.start(site.settings_for(proxy.address(), 1));
    agent.publish(&site, Lane::Live, 1..=5);
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 5).await;
    let rebalances = consumer.metric("rebalances_total");
    proxy.set(Mode::BlackHole);
    agent.publish(&site, Lane::Live, 6..=50);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(site.number("SELECT COUNT(*) FROM spillway_store.audit").await, 5);
    assert_eq!(consumer.metric("rebalances_total"), rebalances, "the membership is kept");
    proxy.set(Mode::Pass);
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 50).await;
    assert_eq!(site.number("SELECT COUNT(*) FROM spillway_store.quarantined").await, 0);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_shard_dead_from_the_start_the_others_partitions_move() {
    let mut site = Site::new().await;
    let settings = site.settings();
    let [here, gone] = environments();
    let text = format!(
        "partitions = {PARTITIONS}\ngroup = {GROUP}\n[[shard]]\nname = \"s0\"\n\
         primary = \"mysql://stack:stack@{}\"\ngroups = \"0\"\nepoch = 1\n\
         [[shard]]\nname = \"s1\"\n\
         primary = \"mysql://stack:stack@127.0.0.1:1\"\ngroups = \"1\"\nepoch = 1\n",
        site.mysql
    );
    std::fs::write(&settings.shards_file, text).unwrap();
    let (alive, dead) = (Agent::new(&here, "web-1"), Agent::new(&gone, "web-1"));
    dead.publish(&site, Lane::Live, 1..=10);
    alive.publish(&site, Lane::Live, 1..=10);
    let consumer = site.start(settings);
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 10).await;
    consumer.until("errors_total", "s1", 1.0).await;
    assert_eq!(consumer.metric_of("errors_total", "s0"), 0.0);
    consumer.stop().await;
}
