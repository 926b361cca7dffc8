//! Everything restarts while one shard is down.

use std::time::Duration;

use spillway_e2e::{Sender, SenderOptions};
use spillway_testkit::stack::StackOptions;

use spillway_e2e::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn with_one_shard_down_all_restarts_and_the_other_shards_go_on() {
    let rig = Rig::start(StackOptions { shards: 2, ..StackOptions::default() }).await;
    let waiting = Sender::start(SenderOptions { windows: 80, ..rig.load("demo") });
    tokio::time::sleep(Duration::from_secs(2)).await;
    rig.stack.kill("mysql-s0").await.expect("it runs");
    for name in ["consumer-0", "recovery-worker-0", "keeper", "ingest-api-0"] {
        rig.stack.kill(name).await.expect("it runs");
    }
    for name in ["consumer-0", "recovery-worker-0", "keeper", "ingest-api-0"] {
        rig.stack.start_process(name).await.expect("it starts without the shard");
    }
    let other = Sender::start(rig.load("globex"));
    rig.judge(other).await;
    rig.stack.start_process("mysql-s0").await.expect("it comes back");
    rig.judge(waiting).await;
}
