//! The whole program: one dead shard beside a living one.

use std::time::Duration;

use spillway_keeper::app;
use spillway_runtime::program::{Context, Drained};

use crate::kafka::topics;
use crate::world::World;

#[tokio::test]
async fn a_dead_shard_stops_nothing_on_the_living_one() {
    let world = World::new().await;
    topics(&world).await;
    let dir = tempfile::tempdir().unwrap();
    let mut settings = world.settings.clone();
    settings.shards_file = dir.path().join("shards.toml");
    let shards = format!(
        "partitions = 4\ngroup = 2\n\
         [[shard]]\nname = 's0'\nprimary = '{}'\ngroups = '0'\nepoch = 1\n\
         [[shard]]\nname = 'dead'\nprimary = 'mysql://x:y@127.0.0.2:1'\ngroups = '1'\nepoch = 1\n",
        world.url
    );
    std::fs::write(&settings.shards_file, shards).unwrap();
    let context = Context::for_test("keeper");
    let running = tokio::spawn(app::run(settings, context.clone()));
    let measured = "SELECT COUNT(*) FROM spillway_store.lag_measurements";
    world.until(measured, 4).await;
    world.run("DELETE FROM spillway_store.lag_measurements").await;
    world.until(measured, 4).await;
    let counted = "spillway_keeper_duty_errors_total{duty=\"lag\",shard=\"dead\"}";
    let failing = async {
        while !context.metrics.encode().contains(counted) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let failing = tokio::time::timeout(Duration::from_secs(30), failing).await;
    assert!(failing.is_ok(), "the dead shard's rounds are counted as errors");
    context.shutdown.trigger();
    let drained = tokio::time::timeout(Duration::from_secs(20), running).await;
    let drained = drained.expect("it ends when told").unwrap().unwrap();
    assert_eq!(drained, Drained::Everything);
}
