//! Partitions, ages and readers on a real MySQL.

use std::time::Duration;

use spillway_keeper::duty::Duty as _;
use spillway_keeper::partitions::Partitions;
use spillway_keeper::readers::Readers;
use spillway_keeper::retention::Retention;
use spillway_runtime::settings::Dur;

use crate::world::World;

const POINTS: &str = "information_schema.partitions
    WHERE table_schema = 'spillway_store' AND table_name = 'points'";

fn now_s() -> u32 {
    u32::try_from(jiff::Timestamp::now().as_second()).unwrap()
}

async fn newest(world: &World) -> i64 {
    let sql =
        format!("SELECT CAST(MAX(CAST(partition_description AS SIGNED)) AS SIGNED) FROM {POINTS}");
    world.number(&sql).await
}

#[tokio::test]
async fn partitions_are_made_ahead_and_dropped_once_all_in_them_is_too_old() {
    let mut world = World::new().await;
    world.settings.ages.raw_retention = Dur::from_hours(3);
    let newest = newest(&world).await;
    world.run(&format!("ALTER TABLE spillway_store.points DROP PARTITION p{newest}")).await;
    let now_s = now_s();
    Partitions::new(world.shard.clone(), &world.settings, &world.metrics)
        .keep(now_s)
        .await
        .unwrap();
    assert!(self::newest(&world).await >= i64::from(now_s) + 48 * 3600);
    let oldest =
        format!("SELECT CAST(MIN(CAST(partition_description AS SIGNED)) AS SIGNED) FROM {POINTS}");
    let oldest = world.number(&oldest).await;
    let kept_from = i64::from(now_s) - 3 * 3600;
    assert!(oldest > kept_from && oldest <= kept_from + 3600, "{oldest} {kept_from}");
}

#[tokio::test]
async fn a_raw_partition_with_minutes_that_wait_for_their_rollup_is_kept() {
    // Before the schema's own: an hour that begins in between would be one more partition ahead.
    let now_s = now_s();
    let mut world = World::new().await;
    world.settings.ages.raw_retention = Dur::from_hours(3);
    let count = format!("SELECT COUNT(*) FROM {POINTS}");
    let before = world.number(&count).await;
    let mark = "INSERT INTO spillway_store.rollup_marks VALUES (1, UNIX_TIMESTAMP() - 86400, 1)";
    world.run(mark).await;
    let partitions = Partitions::new(world.shard.clone(), &world.settings, &world.metrics);
    partitions.keep(now_s).await.unwrap();
    assert_eq!(world.number(&count).await, before, "nothing may be dropped");
    world.run("DELETE FROM spillway_store.rollup_marks").await;
    partitions.keep(now_s).await.unwrap();
    assert!(world.number(&count).await < before);
}

#[tokio::test]
async fn a_long_query_of_a_reader_is_ended_only_when_partitions_run_low() {
    let mut world = World::new().await;
    world.settings.partitions.lock_wait = Dur::from_secs(1);
    world.run("DROP USER IF EXISTS keeper_reader").await;
    world.run("CREATE USER keeper_reader IDENTIFIED BY 'keeper-reader-1'").await;
    world.run("GRANT SELECT ON *.* TO keeper_reader").await;
    let insert = "INSERT INTO spillway_store.readers VALUES ('keeper_reader', 'demo', 3600, 0)";
    world.run(insert).await;
    let newest = newest(&world).await;
    world.run(&format!("ALTER TABLE spillway_store.points DROP PARTITION p{newest}")).await;
    let url = world.url.replace("stack:stack@", "keeper_reader:keeper-reader-1@");
    let reader = sqlx::MySqlPool::connect(&url).await.unwrap();
    let query = tokio::spawn(async move {
        let slow = "SELECT COUNT(*), SLEEP(600) FROM spillway_store.points";
        sqlx::raw_sql(slow).fetch_all(&reader).await
    });
    let at_work = "SELECT COUNT(*) FROM information_schema.processlist
                   WHERE user = 'keeper_reader' AND state = 'User sleep'";
    world.until(at_work, 1).await;

    world.settings.partitions.headroom_min = Dur::from_hours(12);
    let calm = Partitions::new(world.shard.clone(), &world.settings, &world.metrics);
    assert!(calm.keep(now_s()).await.unwrap_err().is_lock_wait());
    assert_eq!(world.number(at_work).await, 1, "with days ahead nobody is ended");

    world.settings.partitions.headroom_min = Dur::from_hours(100);
    let low = Partitions::new(world.shard.clone(), &world.settings, &world.metrics);
    assert!(low.keep(now_s()).await.unwrap_err().is_lock_wait());
    assert!(query.await.unwrap().is_err(), "the reader's query was ended");
    low.keep(now_s()).await.unwrap();
    assert!(self::newest(&world).await >= newest);
    world.run("DROP USER keeper_reader").await;
}

#[tokio::test]
async fn a_statement_over_its_readers_limit_is_ended_and_one_below_it_is_not() {
    let world = World::new().await;
    let mut queries = Vec::new();
    for (user, limit_s) in [("keeper_hasty", 1), ("keeper_patient", 3600)] {
        world.run(&format!("DROP USER IF EXISTS {user}")).await;
        world.run(&format!("CREATE USER {user} IDENTIFIED BY '{user}-1'")).await;
        let insert = "INSERT INTO spillway_store.readers VALUES";
        world.run(&format!("{insert} ('{user}', 'demo', {limit_s}, 0)")).await;
        let url = world.url.replace("stack:stack@", &format!("{user}:{user}-1@"));
        let reader = sqlx::MySqlPool::connect(&url).await.unwrap();
        // SLEEP ends early with 1 when its statement is ended.
        queries.push(tokio::spawn(async move {
            sqlx::query_scalar::<_, i64>("SELECT SLEEP(600)").fetch_one(&reader).await
        }));
    }
    let running = "SELECT COUNT(*) FROM information_schema.processlist
                   WHERE user IN ('keeper_hasty', 'keeper_patient') AND time > 1";
    world.until(running, 2).await;
    let mut readers = Readers::new(world.shard.clone(), &world.settings.readers, &world.metrics);
    readers.round().await.unwrap();
    let hasty = queries.remove(0).await.unwrap();
    assert!(!matches!(hasty, Ok(0)), "{hasty:?}");
    let patient = "SELECT COUNT(*) FROM information_schema.processlist
                   WHERE user = 'keeper_patient' AND command <> 'Sleep'";
    assert_eq!(world.number(patient).await, 1);
    queries.remove(0).abort();
    world.run("DROP USER keeper_hasty, keeper_patient").await;
}

#[tokio::test]
async fn epochs_older_than_the_ledger_go_with_their_ranges_and_younger_ones_stay() {
    let world = World::new().await;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let day_ms = 86_400_000;
    for (epoch, age_days) in [("a", 15), ("b", 13)] {
        let at = now_ms - age_days * day_ms;
        world
            .run(&format!(
                "INSERT INTO spillway_store.ledger_epochs (agent_id, epoch, environment, host,
                   partition_id, first_applied_at, last_applied_at)
                 VALUES (REPEAT('x', 16), REPEAT('{epoch}', 16), 'demo', 'h', 0, {at}, {at});
                 INSERT INTO spillway_store.ledger_ranges
                 VALUES (REPEAT('x', 16), REPEAT('{epoch}', 16), 1, 5),
                        (REPEAT('x', 16), REPEAT('{epoch}', 16), 7, 9)"
            ))
            .await;
    }
    for (kind, age_days) in [("anomaly", 91), ("anomaly", 89), ("failover", 91)] {
        let at = now_ms - age_days * day_ms;
        let insert = "INSERT INTO spillway_store.events (time_at, kind, text) VALUES";
        world.run(&format!("{insert} ({at}, '{kind}', '')")).await;
    }
    let retention = Retention::new(world.shard.clone(), &world.settings, &world.metrics);
    retention.keep(now_ms).await.unwrap();
    let epochs = "SELECT COUNT(*) FROM spillway_store.ledger_epochs WHERE epoch = REPEAT('b', 16)";
    assert_eq!(world.number("SELECT COUNT(*) FROM spillway_store.ledger_epochs").await, 1);
    assert_eq!(world.number(epochs).await, 1);
    assert_eq!(world.number("SELECT COUNT(*) FROM spillway_store.ledger_ranges").await, 2);
    let events = "SELECT COUNT(*) FROM spillway_store.events WHERE kind";
    assert_eq!(world.number(&format!("{events} = 'anomaly'")).await, 1, "the younger one");
    assert_eq!(world.number(&format!("{events} = 'failover'")).await, 1, "history stays");
    let life = "SELECT CAST(longest_life_s AS SIGNED) FROM spillway_store.gap_ages";
    assert_eq!(world.number(life).await, 96 * 3600);
}

#[tokio::test]
async fn a_shard_that_is_away_is_an_error_within_the_deadline() {
    let mut world = World::new().await;
    let nowhere = world.url.replace("stack:stack@127.0.0.1", "stack:stack@127.0.0.2");
    let mysql = spillway_runtime::mysql::MysqlSettings::default();
    let url = nowhere.parse().unwrap();
    let options = spillway_runtime::mysql::options_for(&mysql, &url, None).unwrap();
    let pool = spillway_runtime::mysql::pool(&mysql, options, None);
    world.shard = spillway_keeper::shard::ShardHandle::new("away", vec![0], pool);
    let partitions = Partitions::new(world.shard.clone(), &world.settings, &world.metrics);
    let kept = tokio::time::timeout(Duration::from_secs(30), partitions.keep(now_s())).await;
    assert!(kept.expect("an answer in time").is_err());
}
