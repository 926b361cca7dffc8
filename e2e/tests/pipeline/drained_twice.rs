//! The same sealed object is published more than once: by a worker that forgot, and by two.

use std::time::Duration;

use spillway_testkit::stack::StackOptions;

use spillway_e2e::rig::{Rig, Totals};

#[tokio::test(flavor = "multi_thread")]
async fn an_object_drained_twice_counts_once_and_goes_only_with_proof() {
    let rig = Rig::start(StackOptions { recovery_workers: 2, ..StackOptions::default() }).await;
    let agent = rig.agent("parked-agent", "demo").await;
    rig.until("parked-agent", "spillway_agent_batches_acked_total", |acked| acked >= 1.0).await;
    rig.stack.kill("ingest-api-0").await.expect("it runs");
    // Without a consumer the group's offsets stand still: nothing may be deleted.
    rig.stack.kill("consumer-0").await.expect("it runs");
    rig.until("parked-agent", "spillway_agent_batches_parked_total", |parked| parked >= 2.0).await;
    let drained = "spillway_recovery_batches_drained_total";
    rig.until("recovery-worker-0", drained, |n| n >= 1.0).await;
    let retired = "spillway_recovery_objects_drained_total";
    tokio::time::sleep(Duration::from_secs(5)).await;
    for name in ["recovery-worker-0", "recovery-worker-1"] {
        let metrics = rig.metrics(name).await;
        assert_eq!(metrics.sum(retired), 0.0, "{name} deleted without the group's commit");
        rig.stack.kill(name).await.expect("it runs");
    }
    // Their notes are gone, so both publish everything once more.
    rig.stack.forget_claims().await.expect("the bucket answers");
    for name in ["recovery-worker-0", "recovery-worker-1"] {
        rig.stack.start_process(name).await.expect("it starts again");
    }
    rig.stack.start_process("consumer-0").await.expect("it starts again");
    rig.stack.start_process("ingest-api-0").await.expect("it starts again");
    rig.until("recovery-worker-0", "spillway_recovery_objects_pending", |n| n == 0.0).await;
    rig.judge_agent(&agent).await;
    let totals = Totals::read(&rig.mysql("demo"), "parked-agent").await;
    assert!(totals.duplicates > 0, "the second copies were recognised: {totals:?}");
}
