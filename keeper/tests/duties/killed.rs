//! The keeper as a process of its own, killed with `kill -9` in the midst of rollups, of partition
//! work and of trimming, while points arrive: nothing is wrong once another one has run.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use spillway_proto::kafka_record::TOPIC_LIVE;
use spillway_testkit::rollup_proof::prove;

use crate::feed::{Dice, Host, KINDS, run};
use crate::kafka::{WAIT, config, produce, topics};
use crate::rollups::{begin, commit, feed_hour, world};
use crate::world::{PARTITIONS, World};

/// Kills, and how many of them must come before the work is done; which do so is chance, so it is
/// tried until enough have.
const KILLS: u64 = 8;
const AMIDST: i64 = 3;
const KILLS_MAX: u64 = 40;
const MARKS: &str = "SELECT COUNT(*) FROM spillway_store.rollup_marks";
const HOUR_MARKS: &str = "SELECT COUNT(*) FROM spillway_store.rollup_hour_marks";
const ENDS: &str = "FROM information_schema.partitions
                    WHERE table_schema = 'spillway_store' AND table_name = 'points'";
/// Records of each partition and round, and how many of all are not applied.
const RECORDS: usize = 20;
const NOT_APPLIED: u64 = 5;

const HASTY: &str = "[log]\nlevel = \"warn\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
    [pace]\nrest_max = \"1ms\"\n[rollups]\ninterval = \"1s\"\n\
    [partitions]\ninterval = \"1s\"\n[trim]\nenabled = true\ninterval = \"1s\"\n\
    [ages]\nspool = \"10m\"\ns3 = \"10m\"\nraw_retention = \"5h\"\n\
    replay_window = \"2s\"\nreplica_staleness = \"1s\"\n";

/// Killed when dropped.
struct Keeper(Child);

impl Keeper {
    fn start(world: &World, dir: &std::path::Path) -> Self {
        let shards = dir.join("shards.toml");
        let text = format!(
            "partitions = {PARTITIONS}\ngroup = {PARTITIONS}\n\
             [[shard]]\nname = 's0'\nprimary = '{}'\ngroups = '0'\nepoch = 1\n",
            world.url
        );
        std::fs::write(&shards, text).unwrap();
        let brokers = &world.settings.kafka.brokers;
        let settings = dir.join("keeper.toml");
        let text = format!("shards_file = {shards:?}\n{HASTY}[kafka]\nbrokers = {brokers:?}\n");
        std::fs::write(&settings, text).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_spillway-keeper"));
        program.arg("--config").arg(&settings).stdin(Stdio::null()).stdout(Stdio::null());
        Self(program.spawn().expect("the keeper starts"))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // SIGKILL: it has no chance to end anything.
        assert!(self.0.kill().is_ok() && self.0.wait().is_ok());
    }
}

#[tokio::test]
async fn killed_at_any_moment_it_leaves_nothing_that_the_next_one_does_not_make_right() {
    let hosts = [Host(1), Host(2), Host(3)];
    let (world, hour) = world(&hosts).await;
    topics(&world).await;
    let dir = tempfile::tempdir().unwrap();
    let mut session = world.session().await;
    for host in hosts {
        feed_hour(&mut session, host, hour, 70).await;
    }
    let mut dice = Dice(7);
    let (mut round, mut amidst) = (0, 0);
    while round < KILLS || amidst < AMIDST {
        round += 1;
        assert!(round <= KILLS_MAX, "only {amidst} kills came before the work was done");
        break_into_work(&world, round).await;
        let marks = world.number(MARKS).await;
        let keeper = Keeper::start(&world, dir.path());
        let begun = format!("SELECT ({MARKS}) < {marks}");
        world.until(&begun, 1).await;
        let (host, kind) = (hosts[dice.below(3) as usize], KINDS[dice.below(3) as usize]);
        begin(&mut session).await;
        let at = hour * 1_000 + dice.below(70 * 60_000) as i64;
        host.store(&mut session, kind, &[(at, dice.value())]).await;
        commit(&mut session).await;
        // The moment of the kill is the fault itself.
        tokio::time::sleep(Duration::from_millis(dice.below(150))).await;
        drop(keeper);
        amidst += i64::from(world.number(MARKS).await > 0);
    }

    let keeper = Keeper::start(&world, dir.path());
    world.until(&format!("SELECT ({MARKS}) + ({HOUR_MARKS})"), 0).await;
    let sql = format!(
        "SELECT CAST(MAX(CAST(partition_description AS SIGNED)) >= UNIX_TIMESTAMP() + 47 * 3600
           AS SIGNED) {ENDS}"
    );
    world.until(&sql, 1).await;
    let all = round * RECORDS as u64;
    let low = |partition: u16| {
        let client: BaseConsumer = config(&world).set("group.id", "test").create().unwrap();
        client.fetch_watermarks(TOPIC_LIVE, partition.into(), WAIT).unwrap()
    };
    drop(keeper);
    let proof = prove(&world.admin, hour, hour + 3 * 3_600).await.unwrap();
    proof.must_hold();
    assert!(proof.minutes >= 3 * 3 * 70, "{proof:?}");
    let hourly = format!(
        "SELECT CAST(MAX(CAST(partition_description AS SIGNED))
           - MIN(CAST(partition_description AS SIGNED)) - 3600 * (COUNT(*) - 1) AS SIGNED) {ENDS}"
    );
    assert_eq!(world.number(&hourly).await, 0, "each hour has one partition of its own");
    for partition in 0..PARTITIONS {
        let (low, high) = low(partition);
        assert_eq!(u64::try_from(high).unwrap(), all);
        assert!(low.cast_unsigned() <= all - NOT_APPLIED, "partition {partition}: {low}..{high}");
    }
}

/// All minutes are to be made again, partitions are missing ahead, and Kafka has something to trim.
async fn break_into_work(world: &World, round: u64) {
    world
        .run(
            "INSERT INTO spillway_store.rollup_marks
             SELECT DISTINCT series_id DIV 10, window_ts DIV 60 * 60, 7 FROM spillway_store.points
             ON DUPLICATE KEY UPDATE version = version + 1",
        )
        .await;
    let newest =
        format!("SELECT CAST(MAX(CAST(partition_description AS SIGNED)) AS SIGNED) {ENDS}");
    let newest = world.number(&newest).await;
    let mut session = world.session().await;
    run(
        &mut session,
        &format!("ALTER TABLE spillway_store.points DROP PARTITION p{newest}, p{}", newest - 3_600),
    )
    .await;
    session.give_back();
    for partition in 0..PARTITIONS {
        produce(world, partition.into(), RECORDS);
    }
    let applied = round * RECORDS as u64 - NOT_APPLIED;
    world.run(&format!("UPDATE spillway_store.positions SET live_next = {applied}")).await;
}
