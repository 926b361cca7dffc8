//! Rollups on a real MySQL, each time held against single points.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spillway_keeper::anomalies::Anomalies;
use spillway_keeper::metrics::OfDuty;
use spillway_keeper::pace::Pace;
use spillway_keeper::rollups::repair::repair;
use spillway_keeper::rollups::{LOCK, Rollups};
use spillway_keeper::shard::lock;
use spillway_runtime::settings::Dur;
use spillway_testkit::rollup_proof::prove;
use sqlx::MySqlConnection;

use crate::feed::{Dice, Host, KINDS, run};
use crate::world::World;

const MARKS: &str = "SELECT COUNT(*) FROM spillway_store.rollup_marks";
const ROWS: &str = "SELECT COUNT(*) FROM spillway_store.rollup_1m";
/// The keeper wants to clear a mark that somebody else has locked. (Not by innodb_trx, which shows
/// old news to whoever asks more often than ten times a second.)
const WAITING: &str = "SELECT COUNT(*) FROM information_schema.processlist
                       WHERE info LIKE 'DELETE FROM rollup_marks%'";

/// A world with these hosts, and the hour, three ago, in which they measure.
pub async fn world(hosts: &[Host]) -> (World, i64) {
    let mut world = World::new().await;
    world.settings.pace.rest_max = Dur::from_millis(1);
    let reader = "INSERT INTO spillway_store.readers (name, environment, created_at)
                  VALUES (SUBSTRING_INDEX(USER(), '@', 1), NULL, 0)";
    world.run(reader).await;
    let mut session = world.session().await;
    for host in hosts {
        host.create(&mut session).await;
    }
    session.give_back();
    let hour = jiff::Timestamp::now().as_second().div_euclid(3_600) * 3_600 - 3 * 3_600;
    (world, hour)
}

fn keeper(world: &World) -> Rollups {
    let pace = Pace::new("s0", &world.settings.pace, &world.metrics);
    Rollups::new(world.shard.clone(), &world.settings.rollups, pace, &world.metrics)
}

fn now_s() -> u32 {
    u32::try_from(jiff::Timestamp::now().as_second()).unwrap()
}

pub async fn begin(conn: &mut MySqlConnection) {
    run(conn, "START TRANSACTION").await;
}

pub async fn commit(conn: &mut MySqlConnection) {
    run(conn, "COMMIT").await;
}

/// Rolls until nothing is marked, then holds every row against the points.
async fn settle_and_prove(world: &World, hour: i64) -> (usize, usize) {
    for _ in 0..10 {
        assert!(keeper(world).roll(now_s()).await.unwrap(), "nobody else holds the lock");
        let hours = "SELECT COUNT(*) FROM spillway_store.rollup_hour_marks";
        if world.number(MARKS).await + world.number(hours).await == 0 {
            let proof = prove(&world.admin, hour, hour + 3 * 3_600).await.unwrap();
            proof.must_hold();
            return (proof.minutes, proof.hours);
        }
    }
    panic!("marks stay open");
}

/// A sample every 10 s of every series in the minutes of `hour`, as they come.
pub async fn feed_hour(conn: &mut MySqlConnection, host: Host, hour: i64, minutes: i64) {
    let mut dice = Dice(host.0 + 1);
    for kind in KINDS {
        let mut samples = Vec::new();
        let mut counter = 0.0;
        for window in 0..minutes * 6 {
            let at = (hour + window * 10) * 1_000;
            // One sample in a window, or several, regular or not.
            for ms in [0, 5_000, 1_234 + window].into_iter().take(1 + (window % 3) as usize) {
                let value = dice.value();
                counter = if value == 0.0 { 0.0 } else { counter + value };
                samples.push((at + ms, if kind == 3 { counter } else { value }));
                counter = if counter.is_finite() { counter } else { 1.0 };
            }
        }
        begin(conn).await;
        host.store(conn, kind, &samples).await;
        commit(conn).await;
    }
}

#[tokio::test]
async fn rollups_say_what_their_points_say_also_after_late_data_and_a_replay() {
    let hosts = [Host(1), Host(2)];
    let (world, hour) = world(&hosts).await;
    let mut session = world.session().await;
    for host in hosts {
        feed_hour(&mut session, host, hour, 70).await;
    }
    let (minutes, hours) = settle_and_prove(&world, hour).await;
    assert_eq!((minutes, hours), (2 * 3 * 70, 2 * 3 * 2));
    let increases = "SELECT COUNT(*) FROM spillway.metrics_1m WHERE increase IS NOT NULL";
    assert!(world.number(increases).await >= 2 * 65, "of cumulative series, and of them only");

    // Into gaps, over existing samples, and before everything.
    let mut dice = Dice(99);
    for _ in 0..40 {
        let (host, kind) = (hosts[dice.below(2) as usize], KINDS[dice.below(3) as usize]);
        let at = hour * 1_000 + dice.below(100 * 60_000) as i64;
        begin(&mut session).await;
        host.store(&mut session, kind, &[(at, dice.value()), (at + 60_000, 3.0)]).await;
        commit(&mut session).await;
    }
    assert!(world.number(MARKS).await > 0);
    let after = settle_and_prove(&world, hour).await;
    assert!(after.0 > minutes, "{after:?}");

    // The same once more, as after a failover.
    let sum = "SELECT CAST(SUM(CRC32(CONCAT_WS(',', series_id, minute_ts, cnt, `sum`, `min`, `max`,
               `first`, `last`, growth, increase))) AS SIGNED) FROM spillway_store.rollup_1m";
    let before = world.number(sum).await;
    world
        .run(
            "INSERT INTO spillway_store.rollup_marks
             SELECT DISTINCT series_id DIV 10, window_ts DIV 60 * 60, 7 FROM spillway_store.points",
        )
        .await;
    assert_eq!(settle_and_prove(&world, hour).await, after);
    assert_eq!(world.number(sum).await, before, "made again, nothing changes");
}

#[tokio::test]
async fn a_mark_that_is_raised_between_reading_and_clearing_stays() {
    let host = Host(1);
    let (world, hour) = world(&[host]).await;
    let mut consumer = world.session().await;
    let at = hour * 1_000;
    begin(&mut consumer).await;
    host.store(&mut consumer, 1, &[(at, 1.0)]).await;
    commit(&mut consumer).await;
    // Its next transaction has written its point and raised the mark, and is not committed.
    begin(&mut consumer).await;
    host.store(&mut consumer, 1, &[(at + 1_000, 2.0)]).await;
    let rolling = tokio::spawn({
        let keeper = keeper(&world);
        async move { keeper.roll(now_s()).await }
    });
    // The keeper has read mark and points, and wants to clear the mark.
    world.until(WAITING, 1).await;
    commit(&mut consumer).await;
    rolling.await.unwrap().unwrap();
    let marks = world.number(MARKS).await;
    let made = world.number("SELECT CAST(SUM(cnt) AS SIGNED) FROM spillway.metrics_1m").await;
    assert!(marks == 1 || made == 2, "a point is in no rollup and nothing says so");
    assert_eq!(settle_and_prove(&world, hour).await.0, 1);
}

#[tokio::test]
async fn a_keeper_that_dies_in_the_middle_leaves_nothing_half_made() {
    let host = Host(1);
    let (world, hour) = world(&[host]).await;
    let mut other = world.session().await;
    feed_hour(&mut other, host, hour, 2).await;
    begin(&mut other).await;
    run(&mut other, "SELECT * FROM spillway_store.rollup_marks FOR UPDATE").await;
    let rolling = tokio::spawn({
        let keeper = keeper(&world);
        async move { keeper.roll(now_s()).await }
    });
    world.until(WAITING, 1).await;
    rolling.abort();
    assert!(rolling.await.unwrap_err().is_cancelled());
    run(&mut other, "ROLLBACK").await;
    world.until(WAITING, 0).await;
    // The server notices that the connection is gone; what it held is released then.
    world.until("SELECT IS_FREE_LOCK('spillway_rollups')", 1).await;
    let (rows, marks) = (world.number(ROWS).await, world.number(MARKS).await);
    assert!((rows, marks) == (0, 2) || (rows, marks) == (3, 1), "{rows} rows, {marks} marks");
    assert_eq!(settle_and_prove(&world, hour).await.0, 6);
}

#[tokio::test]
async fn of_two_keepers_one_works_and_the_other_takes_over_when_it_is_gone() {
    let host = Host(1);
    let (world, hour) = world(&[host]).await;
    let mut session = world.session().await;
    feed_hour(&mut session, host, hour, 1).await;
    let mut first = world.shard.session().await.unwrap();
    assert!(lock(&mut first, LOCK).await.unwrap());
    assert!(!keeper(&world).roll(now_s()).await.unwrap(), "it leaves the work to the first");
    assert_eq!(world.number(ROWS).await, 0);
    drop(first);
    world.until("SELECT IS_FREE_LOCK('spillway_rollups')", 1).await;
    assert_eq!(settle_and_prove(&world, hour).await.0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_writers_and_keepers_all_at_once_every_row_is_right_in_the_end() {
    let hosts = [Host(1), Host(2), Host(3)];
    let (world, hour) = world(&hosts).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut keepers = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (keeper, done) = (keeper(&world), Arc::clone(&done));
        keepers.spawn(async move {
            while !done.load(Ordering::Acquire) {
                keeper.roll(now_s()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    // As partitions are: one writer for a host.
    let mut writers = tokio::task::JoinSet::new();
    for host in hosts {
        let mut session = world.session().await;
        writers.spawn(async move {
            let mut dice = Dice(host.0 * 7 + 1);
            for _ in 0..60 {
                begin(&mut session).await;
                for _ in 0..3 {
                    let kind = KINDS[dice.below(3) as usize];
                    let at = hour * 1_000 + dice.below(20 * 60_000) as i64;
                    host.store(&mut session, kind, &[(at, dice.value())]).await;
                }
                commit(&mut session).await;
            }
            session.give_back();
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    done.store(true, Ordering::Release);
    while let Some(keeper) = keepers.join_next().await {
        keeper.unwrap();
    }
    settle_and_prove(&world, hour).await;
}

#[tokio::test]
async fn nothing_is_made_of_points_that_are_gone() {
    let host = Host(1);
    let (world, hour) = world(&[host]).await;
    let mut session = world.session().await;
    feed_hour(&mut session, host, hour, 60).await;
    settle_and_prove(&world, hour).await;
    let gone = "SELECT CAST(CAST(partition_description AS UNSIGNED) AS SIGNED)
                FROM information_schema.partitions WHERE table_schema = 'spillway_store'
                  AND table_name = 'points' ORDER BY partition_ordinal_position LIMIT 1";
    while world.number(gone).await <= hour + 3_600 {
        let end = world.number(gone).await;
        world.run(&format!("ALTER TABLE spillway_store.points DROP PARTITION p{end}")).await;
    }
    let sum = "SELECT CAST(SUM(cnt) AS SIGNED) FROM spillway.metrics_1m";
    let before = world.number(sum).await;
    world.run(&format!("INSERT INTO spillway_store.rollup_marks VALUES (1, {hour}, 1)")).await;
    keeper(&world).roll(now_s()).await.unwrap();
    assert_eq!(world.number(sum).await, before, "the minute is what it was");
    assert_eq!(world.number(MARKS).await, 0, "and nobody waits for it for ever");
}

#[tokio::test]
async fn what_an_operator_holds_still_stands_still_and_goes_on_afterwards() {
    let host = Host(1);
    let (world, hour) = world(&[host]).await;
    let mut session = world.session().await;
    feed_hour(&mut session, host, hour, 1).await;
    for duty in ["rollups", "*"] {
        let pause = "INSERT INTO spillway_store.keeper_pauses (duty, set_at) VALUES";
        world.run(&format!("{pause} ('{duty}', 0)")).await;
        keeper(&world).roll(now_s()).await.unwrap();
        assert_eq!(world.number(ROWS).await, 0, "{duty}");
        let label = OfDuty { duty: "rollups", shard: "s0".to_owned() };
        assert_eq!(world.metrics.duty_paused.get_or_create(&label).get(), 1, "{duty}");
        world.run("UPDATE spillway_store.keeper_pauses SET until_at = 1").await;
    }
    assert_eq!(settle_and_prove(&world, hour).await.0, 3);
}

#[tokio::test]
async fn a_minute_is_made_once_it_has_settled() {
    let host = Host(1);
    let (world, hour) = world(&[host]).await;
    let mut session = world.session().await;
    feed_hour(&mut session, host, hour, 1).await;
    let end_s = u32::try_from(hour + 60).unwrap();
    keeper(&world).roll(end_s + 9).await.unwrap();
    assert_eq!(world.number(ROWS).await, 0, "its last points are on their way");
    keeper(&world).roll(end_s + 10).await.unwrap();
    assert_eq!(world.number(ROWS).await, 3);
}

/// An hour of steady minutes, then some that are far off, then steady ones again.
async fn minutes(world: &World, host: Host, from: i64, count: i64, value: f64) {
    for minute in 0..count {
        let at = from + minute * 60;
        let wobble = value + (minute % 5) as f64;
        world
            .run(&format!(
                "INSERT INTO spillway_store.rollup_1m (series_id, minute_ts, cnt, `sum`)
                 VALUES ({}, {at}, 2, {wobble} * 2)",
                host.series(1)
            ))
            .await;
    }
}

#[tokio::test]
async fn a_series_that_behaves_as_never_before_becomes_an_event_that_ends_with_it() {
    let host = Host(1);
    let (world, hour) = world(&[host]).await;
    let mut settings = world.settings.anomalies.clone();
    settings.metrics = vec!["m1".to_owned()];
    let pace = Pace::new("s0", &world.settings.pace, &world.metrics);
    let mut anomalies =
        Anomalies::new(world.shard.clone(), &settings, pace.clone(), &world.metrics);
    let seen_at = |minutes: i64| u32::try_from(hour + minutes * 60 + 120).unwrap();
    let events = "SELECT COUNT(*) FROM spillway.events WHERE kind = 'anomaly'";
    minutes(&world, host, hour, 100, 50.0).await;
    assert_eq!(anomalies.look(seen_at(100)).await.unwrap(), 0);
    minutes(&world, host, hour + 100 * 60, 7, 500.0).await;
    assert_eq!(anomalies.look(seen_at(107)).await.unwrap(), 1);
    assert_eq!(anomalies.look(seen_at(107)).await.unwrap(), 0, "it is told once");
    // A keeper that starts anew finds it open.
    let mut anomalies = Anomalies::new(world.shard.clone(), &settings, pace, &world.metrics);
    minutes(&world, host, hour + 107 * 60, 10, 50.0).await;
    assert_eq!(anomalies.look(seen_at(117)).await.unwrap(), 0);
    assert_eq!(world.number(&format!("{events} AND host = 'h1'")).await, 1);
    let ended = format!("{events} AND timeend > `time` AND text LIKE 'm1 is 50_.0000, usually 5%'");
    assert_eq!(world.number(&ended).await, 1);
}

#[tokio::test]
async fn rows_that_are_wrong_are_found_by_a_dry_run_and_made_again_by_a_repair() {
    let host = Host(1);
    let (world, hour) = world(&[host]).await;
    let mut session = world.session().await;
    feed_hour(&mut session, host, hour, 20).await;
    settle_and_prove(&world, hour).await;
    let minute = |index: i64| hour + index * 60;
    let table = "spillway_store.rollup_1m";
    world.run(&format!("UPDATE {table} SET cnt = 77 WHERE minute_ts = {}", minute(3))).await;
    world.run(&format!("DELETE FROM {table} WHERE minute_ts = {}", minute(5))).await;
    let (second, gone) = (host.series(2), minute(25));
    world
        .run(&format!(
            "INSERT INTO {table} (series_id, minute_ts, cnt) VALUES ({second}, {gone}, 1)"
        ))
        .await;
    let pace = Pace::new("s0", &world.settings.pace, &world.metrics);
    let begin = u32::try_from(hour).unwrap();
    let span = begin..begin + 30 * 60;
    let mut told = 0;
    let found = repair(&world.shard, &pace, (span.clone(), true), |_| told += 1).await.unwrap();
    assert_eq!((found.minutes, found.minutes_done, told), (30, 30, 30));
    // The minute after the one that is gone: its step is another one now.
    assert!((6..=7).contains(&found.differ), "{found:?}");
    assert_eq!((found.rows, found.of_nothing, found.marked), (60, 1, 0), "{found:?}");
    assert_eq!(world.number(MARKS).await, 0, "a dry run changes nothing");
    let done = repair(&world.shard, &pace, (span, false), |_| ()).await.unwrap();
    assert_eq!(done.differ, found.differ);
    assert!(world.number(MARKS).await >= 2);
    world.run(&format!("DELETE FROM {table} WHERE minute_ts = {gone}")).await;
    settle_and_prove(&world, hour).await;
}
