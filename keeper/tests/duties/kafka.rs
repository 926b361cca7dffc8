//! Lag and trimming on a real Kafka, with no consumer anywhere.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use spillway_keeper::duty::Duty as _;
use spillway_keeper::kafka::{Kafka, Place};
use spillway_keeper::lag::{Lag, Measured, State};
use spillway_keeper::metrics::OfTopic;
use spillway_keeper::shard::ShardHandle;
use spillway_keeper::trim::Trim;
use spillway_proto::kafka_record::{CONSUMER_GROUP, TOPIC_BACKLOG, TOPIC_LIVE};
use spillway_runtime::mysql::{MysqlSettings, options_for, pool};
use spillway_runtime::settings::Dur;

use crate::world::{PARTITIONS, World};

pub const WAIT: Duration = Duration::from_secs(30);
/// What Kafka keeps for replays; how old anything is, the tests say themselves.
const WINDOW: Dur = Dur::from_millis(1);

pub fn config(world: &World) -> ClientConfig {
    world.settings.kafka.client_config().unwrap()
}

/// Empty topics and positions at their begin.
pub async fn topics(world: &World) {
    let admin: AdminClient<DefaultClientContext> = config(world).create().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(WAIT));
    let topics = [TOPIC_LIVE, TOPIC_BACKLOG];
    admin.delete_topics(&topics, &options).await.unwrap();
    let metadata: BaseConsumer = config(world).set("group.id", "test").create().unwrap();
    let there = |topic: &str| {
        let found = metadata.fetch_metadata(None, WAIT).unwrap();
        found.topics().iter().any(|t| t.name() == topic && !t.partitions().is_empty())
    };
    while topics.iter().any(|topic| there(topic)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let new = topics.map(|name| {
        NewTopic::new(name, i32::from(PARTITIONS), TopicReplication::Fixed(1))
            .set("message.timestamp.type", "LogAppendTime")
            .set("retention.ms", "-1")
    });
    for made in admin.create_topics(&new, &options).await.unwrap() {
        made.unwrap();
    }
    while !topics.iter().all(|topic| there(topic)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.seed_positions().await;
}

pub fn produce(world: &World, partition: i32, records: usize) {
    let producer: BaseProducer = config(world).create().unwrap();
    for _ in 0..records {
        let record = BaseRecord::<[u8], [u8]>::to(TOPIC_LIVE).partition(partition).payload(b"x");
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(WAIT).unwrap();
}

fn of(measured: &[(Place, Measured)], topic: &str, partition: u16) -> Measured {
    let place =
        |(place, _): &&(Place, Measured)| place.topic == topic && place.partition == partition;
    measured.iter().find(place).expect("every partition is measured").1
}

#[tokio::test]
async fn lag_is_measured_from_ends_and_record_times_while_no_consumer_lives() {
    let world = World::new().await;
    topics(&world).await;
    produce(&world, 1, 10);
    let (kafka, _thread) = Kafka::start(&world.settings.kafka).unwrap();
    let mut lag = Lag::new(world.shard.clone(), kafka, &world.settings.lag, &world.metrics);
    let first = lag.measure().await.unwrap();
    assert_eq!(first.len(), usize::from(PARTITIONS) * 2);
    let idle = of(&first, TOPIC_LIVE, 0);
    assert_eq!((idle.records, idle.seconds, idle.state), (0, 0.0, State::Ok));
    assert_eq!(of(&first, TOPIC_BACKLOG, 1).records, 0);
    let waiting = of(&first, TOPIC_LIVE, 1);
    assert_eq!((waiting.next, waiting.end, waiting.records), (0, 10, 10));

    let second = of(&lag.measure().await.unwrap(), TOPIC_LIVE, 1);
    assert!(second.seconds > 0.0 && second.seconds >= waiting.seconds, "it grows");
    assert!(second.seconds < 60.0, "from the record's own time: {}", second.seconds);

    world.run("UPDATE spillway_store.positions SET live_next = 8 WHERE partition_id = 1").await;
    assert_eq!(of(&lag.measure().await.unwrap(), TOPIC_LIVE, 1).records, 2);
    world.run("UPDATE spillway_store.positions SET live_next = 10 WHERE partition_id = 1").await;
    assert_eq!(of(&lag.measure().await.unwrap(), TOPIC_LIVE, 1).seconds, 0.0);
    let rows = "SELECT COUNT(*) FROM spillway_store.lag_measurements WHERE state = 'OK'";
    assert_eq!(world.number(rows).await, i64::from(PARTITIONS) * 2);
}

/// What the consumers' group would have committed.
fn commit(world: &World, partition: i32, offset: i64) {
    let client: BaseConsumer = config(world).set("group.id", CONSUMER_GROUP).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(TOPIC_LIVE, partition, Offset::Offset(offset)).unwrap();
    client.commit(&list, CommitMode::Sync).unwrap();
}

#[tokio::test]
async fn a_partition_without_a_position_is_measured_from_the_log_and_is_never_nought() {
    let world = World::new().await;
    topics(&world).await;
    [1, 2].iter().for_each(|partition| produce(&world, *partition, 10));
    commit(&world, 1, 4);
    world.run("DELETE FROM spillway_store.positions WHERE partition_id IN (1, 2, 3)").await;
    let (kafka, _thread) = Kafka::start(&world.settings.kafka).unwrap();
    let mut lag = Lag::new(world.shard.clone(), kafka, &world.settings.lag, &world.metrics);
    let committed = async {
        while of(&lag.measure().await.unwrap(), TOPIC_LIVE, 1).next != 4 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let committed = tokio::time::timeout(WAIT, committed).await;
    assert!(committed.is_ok(), "from where the group committed");
    let measured = lag.measure().await.unwrap();
    assert_eq!(measured.len(), usize::from(PARTITIONS) * 2);
    for (partition, records) in [(1, 6), (2, 10)] {
        let found = of(&measured, TOPIC_LIVE, partition);
        assert_eq!((found.records, found.state), (records, State::Stall), "{found:?}");
        assert!(found.seconds > 0.0 && found.seconds < 60.0, "the record's own: {found:?}");
    }
    assert_eq!(of(&measured, TOPIC_LIVE, 3).state, State::Unknown, "nothing waits, yet");
    assert_eq!(of(&measured, TOPIC_LIVE, 0).state, State::Ok);

    let label = OfTopic { topic: TOPIC_LIVE, shard: "s0".to_owned() };
    assert_eq!(world.metrics.lag_records.get_or_create(&label).get(), 16);
    assert_eq!(world.metrics.partitions_stopped.get_or_create(&label).get(), 2);
    assert_eq!(world.metrics.partitions_unknown.get_or_create(&label).get(), 3);
    let trouble = lag.trouble().expect("/deepz is not ok");
    assert!(trouble.contains("no position of partition 1, 2, 3:"), "{trouble}");
    let told = "SELECT CAST(SUM(lag_records) AS SIGNED) FROM spillway_store.lag_measurements";
    assert_eq!(world.number(told).await, 16);

    world.run("DELETE FROM spillway_store.positions").await;
    world.seed_positions().await;
    assert_eq!(of(&lag.measure().await.unwrap(), TOPIC_LIVE, 1).records, 10);
    assert_eq!(lag.trouble(), None);
    assert_eq!(world.metrics.partitions_unknown.get_or_create(&label).get(), 0);
}

/// A moment after everything that is in Kafka by now and before whatever comes next (ms).
async fn a_moment_later() -> i64 {
    let now_ms = || jiff::Timestamp::now().as_millisecond();
    let moment = now_ms() + 1;
    while now_ms() <= moment {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    moment
}

#[tokio::test]
async fn kafka_is_trimmed_below_the_replay_window_and_never_above_what_is_applied() {
    let world = World::new().await;
    topics(&world).await;
    let produce_both = |records| [2, 3].iter().for_each(|at| produce(&world, *at, records));
    produce_both(10);
    let between = a_moment_later().await;
    produce_both(5);
    world.run("UPDATE spillway_store.positions SET live_next = 15 WHERE partition_id = 2").await;
    world.run("UPDATE spillway_store.positions SET live_next = 4 WHERE partition_id = 3").await;
    let (kafka, _thread) = Kafka::start(&world.settings.kafka).unwrap();
    let kafka = (kafka, &world.settings.kafka);
    // However long all this took: the window begins after the first ten.
    let ages = (Dur::from_secs(1), WINDOW);
    let mut trim = Trim::new(world.shard.clone(), kafka, ages, &world.metrics).unwrap();
    trim.trim(between + 1).await.unwrap();
    let client: BaseConsumer = config(&world).set("group.id", "test").create().unwrap();
    let low = |partition| client.fetch_watermarks(TOPIC_LIVE, partition, WAIT).unwrap().0;
    assert_eq!(low(2), 10, "the window's records stay");
    assert_eq!(low(3), 4, "what is not applied stays, however old");
    assert_eq!(low(0), 0);
}

/// As a replica that stands elsewhere: its tables lie beside the primary's.
async fn replica(world: &World) -> ShardHandle {
    world.run("DROP DATABASE IF EXISTS spillway_replica").await;
    world.run("CREATE DATABASE spillway_replica").await;
    world
        .run("CREATE TABLE spillway_replica.positions AS SELECT * FROM spillway_store.positions")
        .await;
    let mysql = MysqlSettings::default();
    let options = options_for(&mysql, &world.url.parse().unwrap(), None).unwrap();
    let pool = pool(&mysql, options, Some("spillway_replica"));
    ShardHandle::new("db-0b:3306", (0..PARTITIONS).collect(), pool)
}

#[tokio::test]
async fn kafka_keeps_what_a_replica_lacks_that_may_take_over_however_old_it_is() {
    let world = World::new().await;
    topics(&world).await;
    let produce_all = |records| [1, 2, 3].map(|at| produce(&world, at, records));
    produce_all(10);
    let between = a_moment_later().await;
    produce_all(1);
    world.run("UPDATE spillway_store.positions SET live_next = 9").await;
    let mut shard = world.shard.clone();
    shard.replicas.push(replica(&world).await);
    world.run("UPDATE spillway_replica.positions SET live_next = 4 WHERE partition_id = 2").await;
    world.run("DELETE FROM spillway_replica.positions WHERE partition_id = 3").await;
    let (kafka, _thread) = Kafka::start(&world.settings.kafka).unwrap();
    let ages = (Dur::from_secs(1), WINDOW);
    let trim = |shard: &ShardHandle| {
        let kafka = (kafka.clone(), &world.settings.kafka);
        Trim::new(shard.clone(), kafka, ages, &world.metrics).unwrap()
    };
    // The window begins after the first ten.
    let now_ms = between + 1;
    let client: BaseConsumer = config(&world).set("group.id", "test").create().unwrap();
    let lows = || [1, 2, 3].map(|at| client.fetch_watermarks(TOPIC_LIVE, at, WAIT).unwrap().0);
    let mut known = trim(&shard);
    known.trim(now_ms).await.unwrap();
    assert_eq!(lows(), [9, 4, 0]);

    // It is away: it stands where it was last seen, or, for a keeper that never saw it, nowhere.
    world.run("UPDATE spillway_store.positions SET live_next = 10").await;
    world.run("UPDATE spillway_replica.positions SET live_next = 8").await;
    world.run("RENAME TABLE spillway_replica.positions TO spillway_replica.away").await;
    for trim in [&mut known, &mut trim(&shard)] {
        let error = trim.trim(now_ms).await.expect_err("a replica is away");
        assert!(error.to_string().contains("db-0b:3306"), "{error}");
        assert_eq!(lows(), [9, 4, 0]);
    }
    world.run("RENAME TABLE spillway_replica.away TO spillway_replica.positions").await;
    known.trim(now_ms).await.unwrap();
    assert_eq!(lows(), [9, 8, 0]);
    world.run("DROP DATABASE spillway_replica").await;
}

#[tokio::test]
async fn a_kafka_that_is_away_is_an_error_within_the_deadline() {
    let mut world = World::new().await;
    topics(&world).await;
    world.settings.kafka.brokers = vec!["127.0.0.2:1".to_owned()];
    let (kafka, _thread) = Kafka::start(&world.settings.kafka).unwrap();
    let mut lag = Lag::new(world.shard.clone(), kafka, &world.settings.lag, &world.metrics);
    let measured = tokio::time::timeout(WAIT, lag.measure()).await;
    assert!(measured.expect("an answer in time").is_err());
}

/// A Kafka whose brokers say what they are told to: real ones lose their leaders for a moment only
/// now and then.
fn told(world: &mut World) -> MockCluster<'static, DefaultProducerContext> {
    let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
    for topic in [TOPIC_LIVE, TOPIC_BACKLOG] {
        cluster.create_topic(topic, i32::from(PARTITIONS), 1).unwrap();
    }
    world.settings.kafka.brokers = vec![cluster.bootstrap_servers()];
    cluster
}

#[tokio::test]
async fn lag_is_measured_again_without_a_restart_after_partitions_had_no_leader() {
    let mut world = World::new().await;
    let cluster = told(&mut world);
    let lead = |leader| {
        for topic in [TOPIC_LIVE, TOPIC_BACKLOG] {
            for partition in 0..PARTITIONS {
                cluster.partition_leader(topic, i32::from(partition), leader).unwrap();
            }
        }
    };
    world.seed_positions().await;
    lead(None);
    let (kafka, _thread) = Kafka::start(&world.settings.kafka).unwrap();
    let mut lag = Lag::new(world.shard.clone(), kafka, &world.settings.lag, &world.metrics);
    lag.measure().await.expect_err("no partition has a leader");
    lead(Some(1));
    let healed = async {
        while lag.measure().await.is_err() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let healed = tokio::time::timeout(WAIT, healed).await;
    assert!(healed.is_ok(), "the keeper would have to be started anew");
}
