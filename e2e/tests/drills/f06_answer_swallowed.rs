//! Row 6: the append happened and the answer is swallowed: the agent can't know, and sends the
//! same id again. (With a played sender: `pipeline/lost_ack.rs`.)

use spillway_e2e::rig::{HASTY_AGENT, Rig, Totals};
use spillway_testkit::proxy::Mode;
use spillway_testkit::stack::{AgentOptions, End, StackOptions};

use crate::sending::{HEALED_WITHIN, until};

/// Answers that are lost, one after the other.
const LOST: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_answers_are_swallowed_sends_the_same_ids_again_and_leaves_one_copy() {
    let options = StackOptions::default().link(End::Agent, End::IngestApi);
    let rig = Rig::start(options).await;
    let link = rig.stack.link(End::Agent, End::IngestApi).expect("it was asked for");
    link.set(Mode::LoseAnswerTo(b"POST /v1/batches"));
    let mut agent = AgentOptions::new("unheard-agent", "demo", "unheard-agent");
    let without_parking = HASTY_AGENT.replace("park_after = \"3s\"", "park_after = \"1h\"");
    assert_ne!(without_parking, HASTY_AGENT);
    agent.toml = without_parking;
    rig.stack.spawn_agent(agent).await.expect("the agent starts");
    let lost = || {
        let traffic = link.proxies().iter().map(|proxy| proxy.traffic());
        traffic.map(|t| t.lost.load(std::sync::atomic::Ordering::Relaxed)).sum::<u64>()
    };
    until("answers are lost", HEALED_WITHIN, async || lost() >= LOST).await;
    let unacked = rig.metrics("unheard-agent").await;
    assert_eq!(unacked.sum("spillway_agent_batches_acked_total"), 0.0, "no answer, no ack");
    link.set(Mode::Pass);
    rig.until("unheard-agent", "spillway_agent_batches_acked_total", |acked| acked >= 2.0).await;
    let agent =
        spillway_e2e::rig::Agent { name: "unheard-agent".into(), environment: "demo".into() };
    rig.judge_agent(&agent).await;
    let joins = rig.metrics("ingest-api-0").await.sum("spillway_ingest_joins_total");
    let totals = Totals::read(&rig.mysql("demo"), "unheard-agent").await;
    eprintln!("{} answers lost, {joins} retries joined, {totals:?}", lost());
    assert!(joins + totals.duplicates as f64 >= LOST as f64, "each repetition was recognised");
}
