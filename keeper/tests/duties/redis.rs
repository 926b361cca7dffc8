//! Folding last_seen from a real Redis.

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use spillway_keeper::last_seen::LastSeen;

use crate::world::World;

const SERIES: &str = "spillway:last_seen:series:s0";
const HOSTS: &str = "spillway:last_seen:hosts:s0";

async fn connect(world: &World) -> MultiplexedConnection {
    let client = redis::Client::open(world.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHALL").query_async::<()>(&mut redis).await.unwrap();
    redis
}

async fn rows(world: &World) {
    world
        .run(
            "INSERT INTO spillway_store.series VALUES
               (18446744073709551615, 'demo', 'h', 'm', '{}', 1, '', REPEAT('x', 16), 100, 100),
               (2, 'demo', 'h', 'n', '{}', 1, '', REPEAT('y', 16), 100, 900);
             INSERT INTO spillway_store.hosts (host_id, environment, host, first_seen_ts,
               last_seen_ts) VALUES (7, 'demo', 'h', 100, 100)",
        )
        .await;
}

async fn last_seen(world: &World, table: &str, id: &str) -> i64 {
    let sql = format!("SELECT CAST(last_seen_ts AS SIGNED) FROM spillway_store.{table} WHERE {id}");
    world.number(&sql).await
}

#[tokio::test]
async fn last_seen_rises_to_what_redis_holds_and_never_falls() {
    let world = World::new().await;
    let mut redis = connect(&world).await;
    rows(&world).await;
    let entries = [("18446744073709551615", "500"), ("2", "300"), ("3", "1"), ("x", "y")];
    redis.hset_multiple::<_, _, _, ()>(SERIES, &entries).await.unwrap();
    redis.hset::<_, _, _, ()>(HOSTS, "7", "700").await.unwrap();
    let mut duty =
        LastSeen::new(world.shard.clone(), &world.settings.redis, &world.metrics).unwrap();
    assert_eq!(duty.fold().await.unwrap(), 4, "what is no number is nobody's");
    assert_eq!(last_seen(&world, "series", "series_id = 18446744073709551615").await, 500);
    assert_eq!(last_seen(&world, "series", "series_id = 2").await, 900);
    assert_eq!(last_seen(&world, "hosts", "host_id = 7").await, 700);
    let left: Vec<String> = redis.keys("*").await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(duty.fold().await.unwrap(), 0);
}

#[tokio::test]
async fn what_a_crash_left_renamed_is_folded_first_and_new_entries_after_it() {
    let world = World::new().await;
    let mut redis = connect(&world).await;
    rows(&world).await;
    redis.hset::<_, _, _, ()>(format!("{SERIES}:folding"), "2", "1000").await.unwrap();
    redis.hset::<_, _, _, ()>(SERIES, "2", "2000").await.unwrap();
    let mut duty =
        LastSeen::new(world.shard.clone(), &world.settings.redis, &world.metrics).unwrap();
    duty.fold().await.unwrap();
    assert_eq!(last_seen(&world, "series", "series_id = 2").await, 1000);
    duty.fold().await.unwrap();
    assert_eq!(last_seen(&world, "series", "series_id = 2").await, 2000);
}

#[tokio::test]
async fn a_hash_of_many_pages_is_folded_whole() {
    let world = World::new().await;
    let mut redis = connect(&world).await;
    world
        .run(
            "INSERT INTO spillway_store.series
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
             SELECT a.i * 100 + b.i - 100, 'demo', 'h', CONCAT('m', a.i, '-', b.i), '{}', 1, '',
                    UNHEX(MD5(a.i * 1000 + b.i)), 1, 1
             FROM n AS a JOIN n AS b ON b.i <= 100",
        )
        .await;
    let entries: Vec<(u64, u64)> = (1..=20_000).map(|id| (id, 5_000 + id)).collect();
    redis.hset_multiple::<_, _, _, ()>(SERIES, &entries).await.unwrap();
    let mut duty =
        LastSeen::new(world.shard.clone(), &world.settings.redis, &world.metrics).unwrap();
    assert_eq!(duty.fold().await.unwrap(), 20_000);
    let right = "SELECT COUNT(*) FROM spillway_store.series WHERE last_seen_ts = 5000 + series_id";
    assert_eq!(world.number(right).await, 20_000);
}

#[tokio::test]
async fn a_redis_that_is_away_is_an_error_in_time_and_loses_nothing() {
    let mut world = World::new().await;
    let mut redis = connect(&world).await;
    rows(&world).await;
    redis.hset::<_, _, _, ()>(HOSTS, "7", "700").await.unwrap();
    let there = world.settings.redis.url.replace("redis://127.0.0.2:1".to_owned());
    let mut away =
        LastSeen::new(world.shard.clone(), &world.settings.redis, &world.metrics).unwrap();
    let folded = tokio::time::timeout(std::time::Duration::from_secs(20), away.fold()).await;
    assert!(folded.expect("an answer in time").is_err());
    world.settings.redis.url = there;
    let mut back =
        LastSeen::new(world.shard.clone(), &world.settings.redis, &world.metrics).unwrap();
    assert_eq!(back.fold().await.unwrap(), 1);
}
