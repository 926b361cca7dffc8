//! The answer is swallowed after the append: the sender can't know, and sends the same id again.

use std::time::Duration;

use spillway_e2e::{Sender, SenderOptions};
use spillway_testkit::proxy::{Mode, Proxy};
use spillway_testkit::stack::StackOptions;

use spillway_e2e::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_after_the_append_leaves_one_copy() {
    let rig = Rig::start(StackOptions::default()).await;
    let file = rig.stack.file();
    let api = file.api.first().and_then(|url| url.strip_prefix("http://")).expect("an API");
    let proxy = Proxy::start(api.parse().expect("an address")).await.expect("the proxy starts");
    let through = vec![format!("http://{}", proxy.address())];
    let load = Sender::start(SenderOptions { api: through, windows: 60, ..rig.load("demo") });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        proxy.set(Mode::SwallowAnswers);
        tokio::time::sleep(Duration::from_secs(2)).await;
        proxy.set(Mode::Reset);
        proxy.set(Mode::Pass);
    }
    let (ledger, _) = rig.judge(load).await;
    assert!(ledger.repeats() > 0, "answers were lost");
    let api = rig.metrics("ingest-api-0").await;
    let consumer = rig.metrics("consumer-0").await;
    let recognised = api.sum("spillway_ingest_joins_total")
        + consumer.sum("spillway_consumer_batches_duplicate_total");
    assert!(recognised > 0.0, "repeated batches were recognised, not applied again");
}
