//! More arrives than MySQL takes: fetching pauses, memory stays bounded, nothing is lost or twice.

use spillway_proto::kafka_record::Lane;
use spillway_proto::{Kind, Point, Series};
use spillway_runtime::settings::Size;
use spillway_testkit::proxy::{Mode, Proxy};

use super::batches::Agent;
use super::site::Site;

/// Series of one batch: enough for frames of some 60 KB.
const SERIES: usize = 600;
const BATCHES: u64 = 40;

/// A batch whose frame does not compress well.
fn large(agent: &Agent, seq: u64) -> spillway_proto::Batch {
    let mut batch = agent.batch(seq, &[1.0]);
    let start_ms = i64::from(batch.window_ts) * 1_000;
    let mut noise = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        (noise >> 12) as f64 / 3.0
    };
    let point = |at: i64, value| Point { ts_ms: start_ms + at * 500, value };
    batch.series = (0..SERIES)
        .map(|n| Series {
            metric: format!("metric_{n}"),
            labels: vec![],
            kind: Kind::Gauge,
            unit: String::new(),
            points: (0..10).map(|at| point(at, next())).collect(),
        })
        .collect();
    batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_lost_while_its_lane_is_paused_is_read_on_once_it_is_claimed_again() {
    let mut site = Site::new().await;
    let proxy = Proxy::start(site.mysql).await.unwrap();
    let agent = Agent::new("demo", "web-1");
    let mut settings = site.settings_for(proxy.address(), 1);
    settings.store.workers_per_shard = 1;
    settings.intake.live_max = Size::mib(1);
    let consumer = site.start(settings);
    consumer.until("partitions_claimed", "", 8.0).await;
    proxy.set(Mode::BlackHole);
    for seq in 1..=BATCHES {
        site.publish(Lane::Live, &large(&agent, seq));
    }
    consumer.until("lanes_paused", "", 1.0).await;
    site.run("UPDATE spillway_store.positions SET fence = fence + 1").await;
    proxy.set(Mode::Pass);
    let expected = i64::try_from(BATCHES).unwrap();
    site.until("SELECT COUNT(*) FROM spillway_store.audit", expected).await;
    assert!(consumer.metric("fenced_total") >= 1.0);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_pauses_fetching_and_everything_is_applied_once_in_the_end() {
    let mut site = Site::new().await;
    let proxy = Proxy::start(site.mysql).await.unwrap();
    let agents: Vec<Agent> = (0..4).map(|n| Agent::new("demo", &format!("web-{n}"))).collect();
    let mut settings = site.settings_for(proxy.address(), 1);
    settings.store.workers_per_shard = 1;
    settings.intake.live_max = Size::mib(1);
    settings.intake.backlog_max = Size::mib(1);
    settings.gather.records_max = 5;
    let consumer = site.start(settings);
    consumer.until("partitions_claimed", "", 8.0).await;
    proxy.set(Mode::BlackHole);
    for seq in 1..=BATCHES {
        for agent in &agents {
            let lane = if seq % 2 == 0 { Lane::Backlog } else { Lane::Live };
            site.publish(lane, &large(agent, seq));
        }
    }
    consumer.until("lanes_paused", "", 1.0).await;
    let received = consumer.metric("batches_received_total");
    assert!(received < 4.0 * BATCHES as f64, "all {received} records were taken into memory");
    proxy.set(Mode::Pass);
    let expected = i64::try_from(BATCHES * 4).unwrap();
    site.until("SELECT COUNT(*) FROM spillway_store.audit", expected).await;
    let twice = "SELECT SUM(duplicate_batches) FROM spillway_store.ledger_epochs";
    assert_eq!(site.number(twice).await, 0);
    assert_eq!(site.number("SELECT COUNT(*) FROM spillway_store.ledger_gaps").await, 0);
    assert_eq!(consumer.metric("offset_jumps_total"), 0.0);
    consumer.stop().await;
}
