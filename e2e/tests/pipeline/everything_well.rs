//! Nothing breaks: three environments, two shards, an agent of this host, readers apart.

use std::time::Duration;

use spillway_e2e::{Sender, SenderOptions};
use spillway_testkit::stack::StackOptions;
use sqlx::Row as _;

use spillway_e2e::rig::{Rig, SETTLED_WITHIN};

use crate::inputs;

#[tokio::test(flavor = "multi_thread")]
async fn three_environments_arrive_on_their_shards_and_readers_see_only_their_own() {
    let rig = Rig::start(StackOptions { shards: 2, ..StackOptions::default() }).await;
    let mut loads = Vec::new();
    for environment in ["demo", "acme", "globex"] {
        let pace = Duration::from_millis(20);
        loads.push(Sender::start(SenderOptions { pace, ..rig.load(environment) }));
    }
    let agent = rig.agent("well-agent", "demo").await;
    let inputs = inputs::start(&rig).await;
    for load in loads {
        rig.judge(load).await;
    }
    // Two windows of the agent: what it measures is real, and takes real time.
    rig.until("well-agent", "spillway_agent_batches_acked_total", |acked| acked >= 2.0).await;
    rig.judge_agent(&agent).await;
    inputs::judge(&rig, SETTLED_WITHIN).await;
    rig.judge_agent(&inputs).await;

    let file = rig.stack.file();
    let shards: Vec<_> = file.mysql.iter().map(|shard| shard.environments.len()).collect();
    assert!(
        shards.iter().all(|environments| *environments > 0),
        "both shards are used: {shards:?}"
    );
    for shard in &file.mysql {
        for (environment, url) in &shard.readers {
            let reader = sqlx::MySqlPool::connect(url).await.expect("the reader may log in");
            let seen = sqlx::query("SELECT DISTINCT environment FROM spillway.metrics_10s")
                .fetch_all(&reader)
                .await
                .expect("the view is readable");
            let seen: Vec<String> =
                seen.iter().map(|row| row.try_get_unchecked(0).expect("a text")).collect();
            assert_eq!(&seen, std::slice::from_ref(environment));
            let closed = sqlx::query("SELECT 1 FROM spillway_store.points LIMIT 1");
            assert!(closed.fetch_optional(&reader).await.is_err(), "base tables are closed");
        }
    }
}
