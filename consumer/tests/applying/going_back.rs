//! A primary that lost what was committed (failover to a stale replica): the consumer notices,
//! drops what it believed, goes back, and applies the difference.

use spillway_proto::kafka_record::Lane;

use super::batches::Agent;
use super::site::Site;

const TABLES: [&str; 9] = [
    "points",
    "series",
    "hosts",
    "ledger_epochs",
    "ledger_ranges",
    "ledger_gaps",
    "audit",
    "rollup_marks",
    "positions",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stale_replica_lacks_is_applied_again() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    let consumer = site.start(site.settings());
    agent.publish(&site, Lane::Live, 1..=10);
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 10).await;
    site.run("DROP DATABASE IF EXISTS stale; CREATE DATABASE stale").await;
    for table in TABLES {
        site.run(&format!("CREATE TABLE stale.{table} AS SELECT * FROM spillway_store.{table}"))
            .await;
    }
    agent.publish(&site, Lane::Live, 11..=20);
    let late = Agent::new("demo", "web-1");
    let mut batch = late.batch(1, &[1.0]);
    batch.series[0].metric = "late".into();
    site.publish(Lane::Live, &batch);
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 21).await;
    let mut back = String::from("START TRANSACTION;");
    for table in TABLES {
        back.push_str(&format!(
            "DELETE FROM spillway_store.{table}; \
             INSERT INTO spillway_store.{table} SELECT * FROM stale.{table};"
        ));
    }
    site.run(&(back + "COMMIT; DROP DATABASE stale")).await;
    agent.publish(&site, Lane::Live, [21]);
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 22).await;
    assert_eq!(
        site.number("SELECT SUM(cnt IS NULL) + COALESCE(SUM(cnt), 0) FROM spillway_store.points")
            .await,
        21 * 3 + 1
    );
    let orphans = "SELECT COUNT(*) FROM spillway_store.points p \
                   LEFT JOIN spillway_store.series s USING (series_id) WHERE s.series_id IS NULL";
    assert_eq!(site.number(orphans).await, 0, "no series without its row");
    assert!(consumer.metric("went_back_total") >= 1.0);
    consumer.stop().await;
}
