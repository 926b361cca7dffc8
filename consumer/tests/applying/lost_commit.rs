//! A COMMIT without an answer, again and again: positions are asked, nothing is guessed.

use std::time::Duration;

use spillway_proto::kafka_record::Lane;
use spillway_runtime::mysql::Tls;
use spillway_testkit::proxy::{Mode, Proxy};

use super::batches::Agent;
use super::site::Site;

const COMMIT: &[u8] = b"\x03COMMIT";
const ROUNDS: u8 = 8;

/// Loses one COMMIT a round, and waits each time for the consumer to learn what became of it.
async fn commits_are_lost(mode: Mode, outcome: &str) {
    let mut site = Site::new().await;
    let agents: Vec<Agent> = (0..4).map(|n| Agent::new("demo", &format!("web-{n}"))).collect();
    let proxy = Proxy::start(site.mysql).await.unwrap();
    let mut settings = site.settings_for(proxy.address(), 1);
    // The proxy has to recognise a COMMIT when it sees one.
    settings.mysql.tls = Tls::Disabled;
    settings.gather.linger = spillway_runtime::settings::Dur::from_millis(0);
    let consumer = site.start(settings);
    for agent in &agents {
        agent.publish(&site, Lane::Live, [1]);
    }
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 4).await;
    let label = format!("\"{outcome}\"");
    for round in 1..=ROUNDS {
        let before = consumer.metric_of("unknown_commits_total", &label);
        proxy.set(mode);
        for agent in &agents {
            agent.publish(&site, Lane::Live, [u64::from(round) + 1]);
        }
        consumer.until("unknown_commits_total", &label, before + 1.0).await;
        proxy.set(Mode::Pass);
        site.until("SELECT COUNT(*) FROM spillway_store.audit", i64::from(round + 1) * 4).await;
    }
    let points = i64::from(ROUNDS + 1) * 4 * 3;
    assert_eq!(site.number("SELECT SUM(cnt) FROM spillway_store.points").await, points);
    let duplicates = "SELECT SUM(duplicate_batches) FROM spillway_store.ledger_epochs";
    assert_eq!(site.number(duplicates).await, 0);
    tokio::time::timeout(Duration::from_secs(20), consumer.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_counts_exactly_once() {
    commits_are_lost(Mode::LoseAnswerTo(COMMIT), "applied").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_never_arrived_is_made_again() {
    commits_are_lost(Mode::LoseRequest(COMMIT), "not-applied").await;
}
