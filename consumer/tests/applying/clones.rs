//! A cloned machine gives the same id to other content: both are stored, and an event says so.

use spillway_proto::kafka_record::Lane;

use super::batches::Agent;
use super::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_contents_of_one_id_are_stored_and_an_event_names_it() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    let (original, mut clone) = (agent.batch(1, &[1.0]), agent.batch(1, &[2.0]));
    clone.series[0].metric = "other".into();
    site.publish(Lane::Live, &original);
    let consumer = site.start(site.settings());
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 1).await;
    // Twice: the second time it is known by its content.
    site.publish(Lane::Live, &clone);
    site.publish(Lane::Live, &clone);
    let duplicates = "SELECT SUM(duplicate_batches) FROM spillway_store.ledger_epochs";
    site.until(duplicates, 1).await;
    let points = site.texts("SELECT vals FROM spillway_store.points ORDER BY vals").await;
    assert_eq!(points, ["[1]", "[2]"]);
    let events = site.texts("SELECT kind FROM spillway_store.events").await;
    assert_eq!(events, ["cloned_agent"]);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_more_epochs_than_may_begin_in_an_hour_are_stored_by_their_content() {
    let mut site = Site::new().await;
    let agents: Vec<Agent> = (0..5).map(|_| Agent::new("demo", "restarts")).collect();
    let mut settings = site.settings();
    settings.store.new_epochs_per_hour = 2;
    let consumer = site.start(settings);
    for (nth, agent) in (1..).zip(&agents) {
        agent.publish(&site, Lane::Live, [1, 2]);
        site.until("SELECT COUNT(*) FROM spillway_store.audit", nth * 2).await;
    }
    for agent in &agents {
        agent.publish(&site, Lane::Backlog, [1]);
    }
    let duplicates = "SELECT SUM(duplicate_batches) FROM spillway_store.ledger_epochs";
    site.until(duplicates, 5).await;
    let opened =
        "SELECT COUNT(*) FROM spillway_store.ledger_epochs WHERE epoch <> REPEAT('\\0', 16)";
    assert_eq!(site.number(opened).await, 2);
    let events = site.texts("SELECT DISTINCT kind FROM spillway_store.events").await;
    assert_eq!(events, ["too_many_epochs"]);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_contents_of_one_id_in_one_transaction_are_told_apart() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    let mut clone = agent.batch(1, &[2.0]);
    clone.series[0].metric = "other".into();
    site.publish(Lane::Live, &agent.batch(1, &[1.0]));
    site.publish(Lane::Live, &clone);
    let consumer = site.start(site.settings());
    site.until("SELECT COUNT(*) FROM spillway_store.points", 2).await;
    assert_eq!(site.number("SELECT COUNT(*) FROM spillway_store.events").await, 1);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_under_another_hosts_name_spoils_no_ledger() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    agent.publish(&site, Lane::Live, 1..=3);
    let consumer = site.start(site.settings());
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 3).await;
    for host in ["web-2", "web-3", "web-4", "web-5"] {
        let renamed = Agent { host: host.into(), environment: "demo".into(), ..agent };
        renamed.publish(&site, Lane::Live, [4]);
    }
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 7).await;
    let own = "SELECT highest_seq FROM spillway_store.ledger_epochs WHERE host = 'web-1'";
    assert_eq!(site.number(own).await, 3);
    consumer.stop().await;
}
