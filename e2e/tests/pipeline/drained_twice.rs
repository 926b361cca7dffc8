//! The same sealed object is published more than once: by two workers, and by one that forgot.

use std::time::Duration;

use spillway_testkit::stack::StackOptions;

use spillway_e2e::rig::{Rig, Totals, until};

const WORKERS: [&str; 2] = ["recovery-worker-0", "recovery-worker-1"];
const PUBLISHED: &str = "spillway_recovery_batches_drained_total";
const RETIRED: &str = "spillway_recovery_objects_drained_total";

#[tokio::test(flavor = "multi_thread")]
async fn an_object_drained_twice_counts_once_and_goes_only_with_proof() {
    let rig = Rig::start(StackOptions { recovery_workers: 2, ..StackOptions::default() }).await;
    // Which of two workers sees an object first is chance, and may stay the same one for long:
    // so there is one of them until it has published.
    rig.stack.kill(WORKERS[1]).await.expect("it runs");
    let agent = rig.agent("parked-agent", "demo").await;
    rig.until("parked-agent", "spillway_agent_batches_acked_total", |acked| acked >= 1.0).await;
    rig.stack.kill("ingest-api-0").await.expect("it runs");
    // Without a consumer the group's offsets stand still: nothing may be deleted.
    rig.stack.kill("consumer-0").await.expect("it runs");
    rig.until("parked-agent", "spillway_agent_batches_parked_total", |parked| parked >= 2.0).await;
    rig.until(WORKERS[0], PUBLISHED, |n| n >= 1.0).await;
    // Nothing tells the second one that the first has published, so it does so as well.
    rig.stack.forget_claims().await.expect("the bucket answers");
    rig.stack.start_process(WORKERS[1]).await.expect("it starts again");
    rig.until(WORKERS[1], PUBLISHED, |n| n >= 1.0).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    for name in WORKERS {
        let retired = rig.metrics(name).await.sum(RETIRED);
        assert_eq!(retired, 0.0, "{name} deleted without the group's commit");
        rig.stack.kill(name).await.expect("it runs");
    }
    // Their notes are gone, so they publish everything once more.
    rig.stack.forget_claims().await.expect("the bucket answers");
    for name in WORKERS {
        rig.stack.start_process(name).await.expect("it starts again");
    }
    rig.stack.start_process("consumer-0").await.expect("it starts again");
    rig.stack.start_process("ingest-api-0").await.expect("it starts again");
    rig.until(WORKERS[0], "spillway_recovery_objects_pending", |n| n == 0.0).await;
    rig.judge_agent(&agent).await;
    // They lie in the log: when the consumer comes by them is its own business.
    let mysql = rig.mysql("demo");
    let copies = async || Totals::read(&mysql, "parked-agent").await.duplicates;
    until("the copies are recognised", async || copies().await >= 2).await;
}
