//! What is missing has a name from the moment it is missing until the moment it comes.

use spillway_proto::kafka_record::Lane;
use spillway_proto::{Declaration, PreviousEpoch};
use uuid::Uuid;

use super::batches::Agent;
use super::site::Site;

const GAPS: &str = "SELECT CONCAT_WS(' ', first_seq, last_seq, cause, reason) \
                    FROM spillway_store.ledger_gaps ORDER BY epoch, first_seq";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_opens_splits_closes_and_is_declared() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    let consumer = site.start(site.settings());
    agent.publish(&site, Lane::Live, [1, 10]);
    site.until("SELECT COUNT(*) FROM spillway_store.ledger_gaps", 1).await;
    assert_eq!(site.texts(GAPS).await, ["2 9 missing "]);
    agent.publish(&site, Lane::Backlog, [5]);
    site.until("SELECT COUNT(*) FROM spillway_store.ledger_gaps", 2).await;
    assert_eq!(site.texts(GAPS).await, ["2 4 missing ", "6 9 missing "]);
    let mut carrier = agent.batch(11, &[1.0]);
    let (epoch, reason) = (agent.epoch, "spool-full".to_owned());
    carrier.declarations = vec![Declaration { epoch, first_seq: 3, last_seq: 7, reason }];
    site.publish(Lane::Live, &carrier);
    site.until("SELECT SUM(declared_batches) FROM spillway_store.ledger_epochs", 4).await;
    let expected =
        ["2 2 missing ", "3 4 declared spool-full", "6 7 declared spool-full", "8 9 missing "];
    assert_eq!(site.texts(GAPS).await, expected);
    // An arrival wins over the declaration.
    agent.publish(&site, Lane::Backlog, [2, 3, 4, 6, 8]);
    site.until("SELECT SUM(declared_batches) FROM spillway_store.ledger_epochs", 1).await;
    assert_eq!(site.texts(GAPS).await, ["7 7 declared spool-full", "9 9 missing "]);
    agent.publish(&site, Lane::Backlog, [7, 9]);
    site.until("SELECT COUNT(*) FROM spillway_store.ledger_gaps", 0).await;
    site.until("SELECT COUNT(*) FROM spillway_store.ledger_ranges", 1).await;
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_reveals_what_its_predecessor_lost() {
    let mut site = Site::new().await;
    let first = Agent::new("demo", "web-1");
    let second =
        Agent { epoch: Uuid::now_v7(), host: "web-1".into(), environment: "demo".into(), ..first };
    let consumer = site.start(site.settings());
    first.publish(&site, Lane::Live, 1..=3);
    let mut batch = second.batch(1, &[1.0]);
    batch.previous = Some(PreviousEpoch { epoch: first.epoch, last_seq: 5 });
    site.publish(Lane::Live, &batch);
    site.until("SELECT COUNT(*) FROM spillway_store.ledger_gaps", 1).await;
    assert_eq!(site.texts(GAPS).await, ["4 5 missing "]);
    let mut closing = second.batch(2, &[1.0]);
    closing.closing = true;
    site.publish(Lane::Live, &closing);
    first.publish(&site, Lane::Backlog, [5, 4]);
    site.until("SELECT COUNT(*) FROM spillway_store.ledger_gaps", 0).await;
    site.until("SELECT SUM(closed) FROM spillway_store.ledger_epochs", 1).await;
    let known = "SELECT COUNT(*) FROM spillway_store.ledger_epochs \
                 WHERE successor_epoch IS NOT NULL AND expected_last_seq = 5";
    assert_eq!(site.number(known).await, 1);
    consumer.stop().await;
}
