//! The answer to a COMMIT is lost, again and again: positions are asked, nothing is guessed.

use std::time::Duration;

use spillway_proto::kafka_record::Lane;
use spillway_testkit::proxy::{Mode, Proxy};

use super::batches::Agent;
use super::site::Site;

/// Rounds until enough COMMITs have met the fault.
const ROUNDS_MAX: u64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_counts_exactly_once() {
    let mut site = Site::new().await;
    let agents: Vec<Agent> = (0..4).map(|n| Agent::new("demo", &format!("web-{n}"))).collect();
    let proxy = Proxy::start(site.mysql).await.unwrap();
    let mut settings = site.settings_for(proxy.address(), 1);
    settings.store.statement_timeout = spillway_runtime::settings::Dur::from_millis(1_500);
    settings.gather.linger = spillway_runtime::settings::Dur::from_millis(0);
    let consumer = site.start(settings);
    let mut seq = 0;
    for round in 0..ROUNDS_MAX {
        for agent in &agents {
            agent.publish(&site, Lane::Live, [seq + 1]);
        }
        seq += 1;
        // Answers are thrown away for a moment that wanders through the transaction.
        tokio::time::sleep(Duration::from_micros(2_000 + round % 40 * 500)).await;
        proxy.set(Mode::SwallowAnswers);
        tokio::time::sleep(Duration::from_millis(15)).await;
        proxy.set(Mode::Reset);
        tokio::time::sleep(Duration::from_millis(5)).await;
        proxy.set(Mode::Pass);
        let applied = consumer.metric_of("unknown_commits_total", "\"applied\"");
        if applied >= 3.0 && round >= 20 {
            break;
        }
    }
    let expected = i64::try_from(seq * 4).unwrap();
    site.until("SELECT COUNT(*) FROM spillway_store.audit", expected).await;
    assert_eq!(site.number("SELECT SUM(cnt) FROM spillway_store.points").await, {
        // Windows repeat every 60 seqs, and then the last writer wins.
        i64::try_from(seq.min(60) * 4 * 3).unwrap()
    });
    assert_eq!(
        site.number("SELECT SUM(duplicate_batches) FROM spillway_store.ledger_epochs").await,
        0
    );
    assert!(consumer.metric("unknown_commits_total") >= 1.0, "the fault never met a COMMIT");
    consumer.stop().await;
}
