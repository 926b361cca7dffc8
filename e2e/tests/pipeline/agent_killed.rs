//! The agent is killed and started again on the same state: its spool and its seqs go on.

use std::time::Duration;

use spillway_testkit::stack::StackOptions;

use spillway_e2e::rig::{Rig, Totals};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_with_a_full_spool_sends_it_all_and_reuses_no_seq() {
    let rig = Rig::start(StackOptions::default()).await;
    let agent = rig.agent("killed-agent", "demo").await;
    rig.until("killed-agent", "spillway_agent_batches_acked_total", |acked| acked >= 1.0).await;
    // Without API and S3 the spool is the only place that has the next batches.
    rig.stack.kill("ingest-api-0").await.expect("it runs");
    rig.stack.kill("s3").await.expect("it runs");
    rig.until("killed-agent", "spillway_agent_spool_batches", |held| held >= 2.0).await;
    let given = rig.metrics("killed-agent").await.sum("spillway_agent_batches_emitted_total");
    rig.stack.kill("killed-agent").await.expect("it runs");
    rig.stack.start_process("killed-agent").await.expect("it opens its spool");
    rig.until("killed-agent", "spillway_agent_batches_found_total", |found| found >= 2.0).await;
    rig.until("killed-agent", "spillway_agent_spool_batches", |held| held >= 2.0).await;
    rig.stack.start_process("s3").await.expect("it comes back");
    rig.stack.start_process("ingest-api-0").await.expect("it comes back");
    rig.until("killed-agent", "spillway_agent_spool_batches", |held| held == 0.0).await;
    rig.judge_agent(&agent).await;
    let totals = Totals::read(&rig.mysql("demo"), "killed-agent").await;
    assert_eq!(totals.epochs, 2, "a start is an epoch: {totals:?}");
    assert!(totals.applied as f64 > given, "both lives are there: {totals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_again_and_again_is_complete_in_the_end() {
    let rig = Rig::start(StackOptions::default()).await;
    let agent = rig.agent("restless-agent", "demo").await;
    for round in 0..4_u64 {
        tokio::time::sleep(Duration::from_millis(3_100 + round * 1_700)).await;
        rig.kill_and_start("restless-agent", Duration::ZERO).await;
    }
    rig.until("restless-agent", "spillway_agent_batches_acked_total", |acked| acked >= 1.0).await;
    rig.judge_agent(&agent).await;
}
