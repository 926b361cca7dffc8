//! Redis hears of series and hosts, and is waited for by nobody.

use redis::Commands as _;
use spillway_proto::kafka_record::Lane;

use super::batches::Agent;
use super::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_and_hosts_are_told_to_redis_once_a_minute() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    let client = redis::Client::open(site.redis.clone()).unwrap();
    let mut redis = client.get_connection().unwrap();
    redis::cmd("FLUSHALL").exec(&mut redis).unwrap();
    let mut settings = site.settings();
    settings.redis.url = Some(site.redis.clone());
    agent.publish(&site, Lane::Live, 1..=3);
    let consumer = site.start(settings);
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 3).await;
    consumer.until("last_seen_sent_total", "", 2.0).await;
    agent.publish(&site, Lane::Live, 4..=6);
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 6).await;
    consumer.stop().await;
    let series: std::collections::HashMap<u64, u64> =
        redis.hgetall("spillway:last_seen:series:s0").unwrap();
    let stored = site.number("SELECT series_id FROM spillway_store.series").await;
    assert_eq!(series.keys().copied().collect::<Vec<_>>(), [stored.cast_unsigned()]);
    let hosts: usize = redis.hlen("spillway:last_seen:hosts:s0").unwrap();
    assert_eq!(hosts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_every_point_is_applied_all_the_same() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    let mut settings = site.settings();
    settings.redis.url = Some("redis://127.0.0.1:1".to_owned());
    agent.publish(&site, Lane::Live, 1..=30);
    let consumer = site.start(settings);
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 30).await;
    consumer.until("last_seen_dropped_total", "", 1.0).await;
    consumer.stop().await;
}
