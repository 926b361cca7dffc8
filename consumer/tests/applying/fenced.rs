//! Two owners of one partition: the one with the older fence changes nothing.

use std::time::Duration;

use spillway_proto::kafka_record::Lane;

use super::batches::Agent;
use super::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raised_fence_stops_the_old_owner_and_nothing_is_lost_or_doubled() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    let consumer = site.start(site.settings());
    for round in 1..=5_u64 {
        agent.publish(&site, Lane::Live, [round * 2 - 1]);
        site.until(
            "SELECT COUNT(*) FROM spillway_store.audit",
            i64::try_from(round * 2 - 1).unwrap(),
        )
        .await;
        site.run("UPDATE spillway_store.positions SET fence = fence + 1").await;
        agent.publish(&site, Lane::Live, [round * 2]);
        site.until("SELECT COUNT(*) FROM spillway_store.audit", i64::try_from(round * 2).unwrap())
            .await;
    }
    assert!(consumer.metric("fenced_total") >= 5.0);
    assert_eq!(
        site.number("SELECT SUM(duplicate_batches) FROM spillway_store.ledger_epochs").await,
        0
    );
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_come_and_go_apply_everything_once() {
    let mut site = Site::new().await;
    let agents: Vec<Agent> =
        (0..6).map(|n| Agent::new(["demo", "acme"][n % 2], &format!("web-{n}"))).collect();
    let mut running = Vec::new();
    let mut seq = 0;
    for round in 0..6 {
        running.push(site.start(site.settings()));
        for _ in 0..20 {
            seq += 1;
            for agent in &agents {
                let lane = if seq % 3 == 0 { Lane::Backlog } else { Lane::Live };
                agent.publish(&site, lane, [seq]);
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        if round % 2 == 1 {
            running.remove(0).stop().await;
        }
    }
    let expected = i64::try_from(seq * 6).unwrap();
    site.until("SELECT COUNT(*) FROM spillway_store.audit", expected).await;
    for consumer in running {
        consumer.stop().await;
    }
    let ledger = "SELECT COUNT(*) FROM spillway_store.ledger_epochs \
                  WHERE applied_batches = highest_seq AND duplicate_batches = 0";
    assert_eq!(site.number(ledger).await, 6);
    assert_eq!(site.number("SELECT COUNT(*) FROM spillway_store.ledger_gaps").await, 0);
}
