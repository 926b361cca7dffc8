//! The real servers of a stack do what tests rely on: killed, they come back with their data;
//! nothing outlives the stack; the agents' S3 key opens one door only.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::process::Stdio;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use spillway_testkit::{Database, Stack, StackOptions};

const SOON: Duration = Duration::from_secs(30);

async fn servers(options: StackOptions) -> Stack {
    Stack::start(StackOptions { servers_only: true, ..options }).await.unwrap()
}

fn kafka(stack: &Stack) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", stack.servers().bootstrap()).set("acks", "all");
    config
}

/// The number of records in the topic's only partition.
async fn records(stack: &Stack, topic: &'static str) -> i64 {
    let config = kafka(stack);
    let asked = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = config.create().unwrap();
        client.fetch_watermarks(topic, 0, SOON).unwrap().1
    });
    asked.await.unwrap()
}

async fn produce(stack: &Stack, topic: &'static str) {
    let config = kafka(stack);
    let sent = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = config.create().unwrap();
        producer.send(BaseRecord::<(), str>::to(topic).payload("kept")).unwrap();
        producer.flush(SOON).unwrap();
    });
    sent.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_comes_back_with_what_it_acknowledged() {
    killed_and_back(Database::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_mariadb_comes_back_with_what_it_acknowledged() {
    killed_and_back(Database::Mariadb).await;
}

async fn killed_and_back(database: Database) {
    let stack = servers(StackOptions { replicas: 1, database, ..StackOptions::default() }).await;
    let admin: AdminClient<DefaultClientContext> = kafka(&stack).create().unwrap();
    let topic = NewTopic::new("kept", 1, TopicReplication::Fixed(1));
    let made = admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    produce(&stack, "kept").await;
    let mysql = stack.mysql("s0").unwrap();
    for statement in ["CREATE DATABASE kept", "CREATE TABLE kept.t (n INT PRIMARY KEY)"] {
        sqlx::raw_sql(statement).execute(&mysql).await.unwrap();
    }
    sqlx::raw_sql("INSERT INTO kept.t VALUES (7)").execute(&mysql).await.unwrap();
    for name in ["kafka-0", "mysql-s0", "redis", "s3"] {
        stack.kill(name).await.unwrap();
        assert!(!stack.is_running(name));
        stack.start_process(name).await.unwrap();
    }
    assert_eq!(records(&stack, "kept").await, 1);
    let mysql = stack.mysql("s0").unwrap();
    let kept: i32 = sqlx::query_scalar("SELECT n FROM kept.t").fetch_one(&mysql).await.unwrap();
    assert_eq!(kept, 7);
    replicated(&stack).await;
    redis_and_s3_freeze_and_thaw(&stack).await;
}

/// The replica found its killed primary again and has the row.
async fn replicated(stack: &Stack) {
    let replica = stack.servers().replicas("s0").first().unwrap().admin_pool();
    let until = tokio::time::Instant::now() + SOON;
    loop {
        let row = sqlx::query_scalar::<_, i32>("SELECT n FROM kept.t").fetch_optional(&replica);
        if let Ok(Some(7)) = row.await {
            return;
        }
        assert!(tokio::time::Instant::now() < until, "the replica does not follow");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn redis_and_s3_freeze_and_thaw(stack: &Stack) {
    for (name, port) in [("redis", &stack.servers().redis), ("s3", &stack.servers().s3_port)] {
        stack.freeze(name).unwrap();
        let silence = tokio::time::timeout(Duration::from_millis(300), answers(name, port));
        assert!(silence.await.is_err(), "a frozen {name} answered");
        stack.thaw(name).unwrap();
        answers(name, port).await.unwrap();
    }
}

async fn answers(name: &str, port: &spillway_testkit::ports::Port) -> Result<(), String> {
    match name {
        "redis" => spillway_testkit::redis::answers(port).await,
        _ => spillway_testkit::s3_server::answers(port).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_restarted_by_its_command_is_ours_to_stop() {
    let stack = servers(StackOptions::default()).await;
    let redis = stack.file().processes.into_iter().find(|p| p.name == "redis").unwrap();
    stack.kill("redis").await.unwrap();
    let (program, args) = redis.restart.split_first().unwrap();
    let mut command = tokio::process::Command::new(program);
    let mut stranger = command.args(args).stdout(Stdio::null()).spawn().unwrap();
    let until = tokio::time::Instant::now() + SOON;
    while answers("redis", &stack.servers().redis).await.is_err() {
        assert!(tokio::time::Instant::now() < until, "the restart command did not start redis");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let now = stack.file().processes.into_iter().find(|p| p.name == "redis").unwrap();
    assert_eq!(now.pid, stranger.id().and_then(|pid| i32::try_from(pid).ok()));
    tokio::task::spawn_blocking(move || drop(stack)).await.unwrap();
    tokio::time::timeout(SOON, stranger.wait()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_stack_is_gone_so_is_every_process() {
    let mut stack = servers(StackOptions { brokers: 3, ..StackOptions::default() }).await;
    let pids: Vec<i32> = stack.file().processes.iter().filter_map(|p| p.pid).collect();
    assert_eq!(pids.len(), 6);
    let dir = stack.dir().to_owned();
    let stopped = tokio::task::spawn_blocking(move || {
        stack.stop();
        stack
    });
    let stack = stopped.await.unwrap();
    let file = std::fs::read(dir.join("stack.json")).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
    assert_eq!(file["ready"], false, "who finds the file finds no stack");
    drop(stack);
    for pid in pids {
        let there = std::fs::exists(format!("/proc/{pid}")).unwrap();
        assert!(!there, "process {pid} is left behind");
    }
    assert!(!dir.exists(), "the temporary folder is left behind");
}
