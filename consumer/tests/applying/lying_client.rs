//! A Kafka client that never hands out a record which is in the log: another client is asked, this
//! one is given up, and nothing is lost. Needs a build with the feature `failpoints`.

use std::fs;

use spillway_proto::kafka_record::Lane;

use super::batches::Agent;
use super::crashed::command;
use super::site::Site;

const BATCHES: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_the_client_passes_over_is_read_by_the_next_one() {
    let mut site = Site::new().await;
    Agent::new("demo", "web-1").publish(&site, Lane::Live, 1..=BATCHES);
    let dir = tempfile::tempdir().unwrap();
    let (told, log) = (dir.path().join("log"), fs::File::create(dir.path().join("log")).unwrap());
    let mut consumer = command(&site, Some("client-lies=skip:7")).stderr(log).spawn().unwrap();
    let batches = i64::try_from(BATCHES).unwrap();
    site.until("SELECT COUNT(*) FROM spillway_store.audit", batches).await;
    let wrong = "SELECT COUNT(*) FROM spillway_store.ledger_epochs \
                 WHERE duplicate_batches > 0 OR applied_batches <> highest_seq";
    assert_eq!(site.number(wrong).await, 0);
    consumer.kill().unwrap();
    consumer.wait().unwrap();
    let told = fs::read_to_string(told).unwrap();
    assert!(told.contains("this client passes over records that another reads"), "{told}");
}
