//! Row 25: a dashboard's long SELECT holds `points` while partitions are made and dropped.

use std::time::Duration;

use spillway_e2e::rig::Rig;
use spillway_e2e::{Sender, SenderOptions};
use spillway_testkit::stack::StackOptions;

use crate::storing::{HASTY_CONSUMER, Server, errors, until};

/// What the keeper is to do once it runs for the second time: drop all but two hours.
const SHORT_AGES: &str = r#"
[ages]
spool = "30m"
s3 = "30m"
raw_retention = "2h"
[partitions]
interval = "1s"
"#;
const RETENTION: &str = "SPILLWAY__AGES__RAW_RETENTION";
const COUNT: &str = "SELECT COUNT(*) FROM information_schema.partitions \
                     WHERE table_schema = 'spillway_store' AND table_name = 'points'";
const NEWEST: &str = "SELECT MAX(CAST(partition_description AS UNSIGNED)) FROM \
                      information_schema.partitions \
                      WHERE table_schema = 'spillway_store' AND table_name = 'points'";
/// The scan, as the server sees it.
const SCAN: &str = "SELECT COUNT(*) FROM information_schema.processlist \
                    WHERE info LIKE '%SLEEP(0.25)%' AND info NOT LIKE '%processlist%'";

#[tokio::test(flavor = "multi_thread")]
async fn writers_go_on_while_a_long_select_keeps_the_keeper_from_making_and_dropping_partitions() {
    let options = StackOptions::default().set("consumer", HASTY_CONSUMER);
    let options = options.set("keeper", SHORT_AGES).env("keeper", RETENTION, "7d");
    let rig = Rig::start(options).await;
    let server = Server::primary(&rig, "s0");
    rig.judge(Sender::start(SenderOptions { name: "before".into(), ..rig.load("demo") })).await;
    let code = rig.stack.terminate("keeper", Duration::from_secs(30)).await;
    assert_eq!(code.expect("the keeper stops"), Some(0));
    let newest = server.number(NEWEST).await;
    server.run(&format!("ALTER TABLE spillway_store.points DROP PARTITION p{newest}")).await;
    let partitions = server.number(COUNT).await;

    // Its own limit is not what this is about.
    server.run("UPDATE spillway_store.readers SET statement_limit_s = 3600").await;
    let reader = rig.mysql("demo");
    let scan = tokio::spawn(async move {
        let slow = "SELECT SUM(SLEEP(0.25)) FROM spillway.metrics";
        sqlx::raw_sql(slow).fetch_all(&reader).await
    });
    until("the SELECT runs", async || server.number(SCAN).await == 1).await;
    let retries = errors(&rig, "consumer-0", "retry").await;
    rig.stack.clear_env("keeper", RETENTION).expect("it has that variable");
    rig.stack.start_process("keeper").await.expect("it starts again");
    let failed = "spillway_keeper_duty_errors_total";
    rig.until("keeper", failed, |n| n >= 1.0).await;
    // All of it is applied, and read, while DDL comes and gives up again and again.
    let load = SenderOptions { name: "during".into(), windows: 60, ..rig.load("demo") };
    rig.judge(Sender::start(load)).await;
    rig.until("keeper", failed, |n| n >= 3.0).await;
    assert_eq!(server.number(SCAN).await, 1, "the SELECT still holds the table");
    assert_eq!(server.number(COUNT).await, partitions, "nothing was made or dropped under it");
    assert!(server.told(1205, "spillway_keeper").await >= 3, "DDL gave up");
    // The guard's time (2 s) is as long as the consumer itself would wait.
    assert_eq!(server.told(1205, "spillway_consumer").await, 0, "a writer waited longer");
    assert_eq!(errors(&rig, "consumer-0", "retry").await, retries);

    server.run(&format!("KILL {}", server.number(&scan_id()).await)).await;
    assert!(scan.await.expect("the scan's task ends").is_err(), "the SELECT was ended");
    until("partitions ahead are made", async || server.number(NEWEST).await >= newest).await;
    until("those too old are dropped", async || server.number(COUNT).await < partitions - 20).await;
    rig.judge(Sender::start(SenderOptions { name: "after".into(), ..rig.load("demo") })).await;
}

fn scan_id() -> String {
    SCAN.replacen("COUNT(*)", "MAX(id)", 1)
}
