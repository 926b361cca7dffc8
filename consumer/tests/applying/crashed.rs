//! A consumer that dies between any two steps of a transaction: its successor goes on where MySQL
//! stands. Needs a build with the feature `failpoints`.

use std::process::{Child, Command, Stdio};

use spillway_proto::kafka_record::Lane;

use super::batches::Agent;
use super::site::{SOON, Site};

const BATCHES: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_without_a_commit_do_not_count() {
    dies_at("after-rows", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_without_a_commit_do_not_count() {
    dies_at("before-commit", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_counts_though_kafka_never_heard_of_it() {
    dies_at("after-commit", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_may_come_twice_but_its_offset_passes_once() {
    dies_at("after-dead-letter", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_fails_takes_its_consumer_with_it() {
    let site = Site::new().await;
    Agent::new("demo", "web-1").publish(&site, Lane::Live, 1..=3);
    let mut child = start(&site, Some("after-rows=panic@1"));
    let died = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let died = tokio::time::timeout(SOON, died).await.expect("it must not go on without it");
    assert_eq!(died.unwrap().code(), Some(1));
}

/// Kills the consumer at its first to fourth passage of a point, each time under load.
async fn dies_at(point: &str, poison: i64) {
    let mut site = Site::new().await;
    let agents: Vec<Agent> = (0..4).map(|n| Agent::new("demo", &format!("web-{n}"))).collect();
    for passage in 1..=4_u64 {
        let seqs = (passage - 1) * BATCHES + 1..=passage * BATCHES;
        for agent in &agents {
            agent.publish(&site, Lane::Live, seqs.clone());
        }
        if poison > 0 {
            let partition = Site::partition_of(&agents.first().unwrap().batch(1, &[1.0]));
            site.publish_raw(Lane::Live, partition, (b"key", b"rubbish"), "demo");
        }
        let passage = if poison > 0 { 1 } else { passage };
        let mut child = start(&site, Some(&format!("{point}=abort@{passage}")));
        let died = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert!(!died.success(), "it must die at {point}, passage {passage}");
    }
    let mut child = start(&site, None);
    let expected = i64::try_from(BATCHES * 4 * 4).unwrap();
    site.until("SELECT COUNT(*) FROM spillway_store.audit", expected).await;
    site.until("SELECT COUNT(*) FROM spillway_store.quarantined", poison * 4).await;
    let twice = "SELECT SUM(duplicate_batches) FROM spillway_store.ledger_epochs";
    assert_eq!(site.number(twice).await, 0);
    let whole =
        "SELECT COUNT(*) FROM spillway_store.ledger_epochs WHERE applied_batches = highest_seq";
    assert_eq!(site.number(whole).await, 4);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn start(site: &Site, failpoint: Option<&str>) -> Child {
    command(site, failpoint).spawn().unwrap()
}

/// The shipped program, armed.
pub fn command(site: &Site, failpoint: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spillway-consumer"));
    command.arg("--config").arg(site.settings_file()).stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(failpoint) = failpoint {
        command.env("SPILLWAY_FAILPOINT", failpoint);
    }
    command
}
