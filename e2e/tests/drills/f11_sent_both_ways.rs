//! Row 11: batches go over HTTP and over S3 as well. (One object drained twice, and two workers:
//! `pipeline/drained_twice.rs`.)

use spillway_e2e::rig::{Agent, HASTY_AGENT, Rig, Totals};
use spillway_testkit::stack::{AgentOptions, StackOptions};

use crate::sending::{HEALED_WITHIN, until};

const AGENT: &str = "two-way-agent";
const BOTH_WAYS: f64 = 3.0;

#[tokio::test(flavor = "multi_thread")]
async fn batches_sent_by_both_ways_count_once_whichever_comes_first() {
    let rig = Rig::start(StackOptions::default()).await;
    let mut agent = AgentOptions::new(AGENT, "demo", AGENT);
    let always_warm = "[deliver]\nwarm_every = \"1s\"\n";
    agent.toml = HASTY_AGENT.replace("[deliver]\n", always_warm);
    rig.stack.spawn_agent(agent).await.expect("the agent starts");
    rig.until(AGENT, "spillway_agent_batches_warmed_total", |warmed| warmed >= BOTH_WAYS).await;
    let drained = "spillway_recovery_batches_drained_total";
    rig.until("recovery-worker-0", drained, |n| n >= BOTH_WAYS).await;
    until("the bucket is empty", HEALED_WITHIN, async || rig.stack.parked_objects() == 0).await;
    rig.judge_agent(&Agent { name: AGENT.into(), environment: "demo".into() }).await;
    let totals = Totals::read(&rig.mysql("demo"), AGENT).await;
    assert!(totals.duplicates as f64 >= BOTH_WAYS, "the second copies count nothing: {totals:?}");
}
