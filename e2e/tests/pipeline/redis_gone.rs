//! Redis is a buffer for last_seen and nothing more.

use std::time::Duration;

use spillway_e2e::{Sender, SenderOptions};
use spillway_testkit::stack::StackOptions;

use spillway_e2e::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_no_point_is_lost_and_the_pipeline_goes_on() {
    let rig = Rig::start(StackOptions::default()).await;
    let load = Sender::start(SenderOptions { windows: 40, ..rig.load("demo") });
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.stack.freeze("redis").expect("it runs");
    tokio::time::sleep(Duration::from_secs(2)).await;
    rig.stack.kill("redis").await.expect("it is there");
    // All of it is applied while Redis is gone.
    rig.judge(load).await;
    rig.stack.start_process("redis").await.expect("it comes back");
}
