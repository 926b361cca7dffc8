//! The same promises on a real broker: how offsets are read, committed and waited for is Kafka's
//! own business here, and no mock's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod rig;

use rig::kafka::Kafka;
use rig::objects::{frame, frame_of};
use rig::{Rig, until};
use spillway_runtime::settings::Dur;
use spillway_testkit::{Stack, StackOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_broker_had_acknowledged_is_still_waited_for_and_then_retired() {
    let options = StackOptions { servers_only: true, ..StackOptions::default() };
    let mut stack = Stack::start(options).await.unwrap();
    let rig = Rig::with(Kafka::real(stack.servers().bootstrap()).await).await;
    let first = rig.park(&[frame(1), frame_of("demo", "db-9", 2)]).await;
    let worker = rig.worker_with("a", |drain| drain.progress_timeout = Dur::from_secs(2));
    until("published", async || worker.metrics.objects_awaiting.get() == 1).await;
    rig.after_looks(5).await;
    assert!(rig.exists(&first).await, "nobody has stored it");

    stack.kill("kafka-0").await.unwrap();
    let second = rig.park(&[frame(3)]).await;
    rig.after_looks(2).await;
    assert!(rig.exists(&first).await && rig.exists(&second).await);

    stack.start_process("kafka-0").await.unwrap();
    until("both in Kafka", async || worker.metrics.batches_drained.get() == 3).await;
    rig.kafka.commit_all().await;
    until("both deleted", async || !rig.exists(&first).await && !rig.exists(&second).await).await;
    assert_eq!(rig.kafka.records().await.len(), 3, "each batch once");
    assert_eq!(worker.stop().await, 0);
    stack.stop();
}
