//! ingest-api is killed under load: what it had not answered comes again, what it had is there.

use std::time::Duration;

use spillway_e2e::{Sender, SenderOptions};
use spillway_testkit::stack::StackOptions;

use spillway_e2e::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn ingest_api_killed_in_mid_request_loses_and_doubles_nothing() {
    let rig = Rig::start(StackOptions { apis: 2, ..StackOptions::default() }).await;
    let pace = Duration::from_millis(20);
    let load = SenderOptions { windows: 200, hosts: 6, pace, ..rig.load("demo") };
    let load = Sender::start(load);
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let name = if round % 2 == 0 { "ingest-api-0" } else { "ingest-api-1" };
        rig.kill_and_start(name, Duration::from_millis(300)).await;
    }
    rig.judge(load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_drains_and_says_so() {
    let rig = Rig::start(StackOptions { apis: 2, ..StackOptions::default() }).await;
    let load = Sender::start(SenderOptions { windows: 60, ..rig.load("demo") });
    tokio::time::sleep(Duration::from_secs(1)).await;
    for name in ["ingest-api-0", "consumer-0", "recovery-worker-0", "keeper"] {
        let code = rig.stack.terminate(name, Duration::from_secs(35)).await.expect("it stops");
        assert_eq!(code, Some(0), "{name} drained");
        rig.stack.start_process(name).await.expect("it starts again");
    }
    rig.judge(load).await;
}
