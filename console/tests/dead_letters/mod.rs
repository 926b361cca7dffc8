//! A batch that was refused for a reason that passes: its letter, its gap, a replay too early, and
//! the one after the cause was mended; what can't be replayed is counted and stays.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value as Json;
use spillway_proto::kafka_record::{HEADER_ENVIRONMENT, TOPIC_LIVE};
use spillway_proto::partition::Partitioning;
use spillway_proto::{Batch, BatchId};
use spillway_testkit::{Stack, StackOptions};
use tokio::time::Instant;
use uuid::Uuid;

use crate::followed::{WITHIN, ask, batch, publish, until};

const ENVIRONMENT: &str = "demo";
/// Beyond `store.future_max` (1 h), and within the partitions that are made ahead.
const AHEAD_S: u32 = 2 * 3_600;
const LS: [&str; 2] = ["dead-letters", "ls"];
const REPLAY: [&str; 4] = ["dead-letters", "replay", "--environment", ENVIRONMENT];

pub async fn come_home_once() {
    let options = StackOptions { keeper: false, recovery_workers: 0, ..StackOptions::default() };
    let options = options.set("console", "remote_deadline = \"20s\"");
    let mut stack = Stack::start(options).await.unwrap();
    let none = ask(&stack, &LS).await;
    assert_eq!((&none["verdict"], number(&none, "letters")), (&"ok".into(), 0), "{none:#}");
    assert_eq!(replay(&stack, &["--yes"]).await["notes"][0], "there is nothing to do");

    let (agent_id, epoch) = (Uuid::new_v4(), Uuid::now_v7());
    let id = |seq| BatchId::Sequenced { agent_id, epoch, seq };
    publish(&stack, &batch(id(1), ENVIRONMENT, Vec::new()), ENVIRONMENT).await;
    let early = of_the_future(batch(id(2), ENVIRONMENT, Vec::new()));
    publish(&stack, &early, ENVIRONMENT).await;
    publish_rubbish(&stack, &early.host).await;
    until(&stack, &gaps(), |answer| is_quarantined(answer, 2)).await;
    let listed = until(&stack, &LS, |answer| number(answer, "letters") == 2).await;
    is_listed(&listed, &early);

    let planned = replay(&stack, &["--dry-run"]).await;
    assert_eq!(sums(&planned), [2, 1, 1, 0, 1], "{planned:#}");
    assert!(planned["published"].is_null(), "a dry run publishes nothing: {planned:#}");
    let named = replay(&stack, &["--batch", &id(1).to_string(), "--dry-run"]).await;
    assert_eq!(number(&named, "letters"), 0, "its batch was applied: {named:#}");

    let too_early = replay(&stack, &["--yes"]).await;
    assert_eq!(number(&too_early, "published"), 1, "{too_early:#}");
    all_are_noted(&stack, 3).await;
    assert_eq!(number(&ask(&stack, &LS).await, "letters"), 3, "refused again, a letter again");
    assert!(is_quarantined(&ask(&stack, &gaps()).await, 2), "nothing was mended");

    the_cause_is_mended(&stack).await;
    let replayed = replay(&stack, &["--yes"]).await;
    assert_eq!(sums(&replayed), [3, 1, 1, 1, 1], "the batch lies there twice: {replayed:#}");
    assert_eq!(published(&replayed), [1, 1], "{replayed:#}");
    let why = &replayed["left"][0];
    assert_eq!((&why["why"], &why["letters"]), (&"undecodable-frame".into(), &1.into()));
    until(&stack, &gaps(), |answer| number(answer, "found") == 0).await;
    assert_eq!(ledger(&ask(&stack, &epochs()).await), [2, 0, 0]);
    assert_eq!(stored(&stack, &early).await, [1, 1], "one row with one point");

    let again = replay(&stack, &["--reason", "future-time", "--yes"]).await;
    assert_eq!((published(&again), &again["verdict"]), ([1, 1], &"ok".into()), "{again:#}");
    until(&stack, &epochs(), |answer| ledger(answer) == [2, 0, 1]).await;
    assert_eq!(stored(&stack, &early).await, [1, 1], "a duplicate changes nothing");
    assert_eq!(number(&ask(&stack, &LS).await, "letters"), 3, "letters stay, and none is new");

    stack.kill("kafka-0").await.unwrap();
    let (listed, replayed) = tokio::join!(ask(&stack, &LS), replay(&stack, &["--yes"]));
    for away in [listed, replayed] {
        assert!(away["error"].as_str().is_some_and(|text| text.contains("Kafka")), "{away:#}");
    }
    stack.stop();
}

/// The consumer's transactions with so many letters are committed: it reads none of them again.
async fn all_are_noted(stack: &Stack, letters: i64) {
    let (store, by) = (stack.mysql("s0").unwrap(), Instant::now() + WITHIN);
    let sql = "SELECT COUNT(*) FROM spillway_store.quarantined";
    while sqlx::query_scalar::<_, i64>(sql).fetch_one(&store).await.unwrap() < letters {
        assert!(Instant::now() < by, "{letters} letters were not noted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Its consumer takes such points from its next start on.
async fn the_cause_is_mended(stack: &Stack) {
    // In peace, so that its group needs not miss it first.
    stack.terminate("consumer-0", WITHIN).await.unwrap();
    let setting = ("SPILLWAY__STORE__FUTURE_MAX".into(), "24h".into());
    stack.respec("consumer-0", |spec| spec.env.push(setting)).unwrap();
    stack.start_process("consumer-0").await.unwrap();
}

fn of_the_future(mut batch: Batch) -> Batch {
    batch.window_ts += AHEAD_S;
    batch.series[0].metric = "ahead".to_owned();
    batch.series[0].points[0].ts_ms += i64::from(AHEAD_S) * 1_000;
    batch
}

fn is_listed(listed: &Json, early: &Batch) {
    let counts = listed["counts"].as_array().unwrap();
    let of = |reason: &str| counts.iter().find(|row| row["reason"] == reason).unwrap();
    let (future, rubbish) = (of("future-time"), of("undecodable-frame"));
    assert_eq!((&future["letters"], &future["points"]), (&1.into(), &1.into()), "{listed:#}");
    assert_eq!((&rubbish["letters"], &rubbish["points"]), (&1.into(), &0.into()), "{listed:#}");
    let rows = listed["newest_letters"].as_array().unwrap();
    let row = rows.iter().find(|row| row["reason"] == "future-time").unwrap();
    assert_eq!((&row["environment"], &row["host"]), (&ENVIRONMENT.into(), &"by-hand".into()));
    assert_eq!(row["batch"], early.id.to_string());
    assert!(row["from"].as_str().unwrap().starts_with("spillway.live/"), "{row:#}");
}

fn gaps() -> [&'static str; 3] {
    ["gaps", "--environment", ENVIRONMENT]
}

fn epochs() -> [&'static str; 3] {
    ["ledger", "--environment", ENVIRONMENT]
}

fn is_quarantined(answer: &Json, seq: u64) -> bool {
    let gaps = answer["gaps"].as_array();
    gaps.is_some_and(|gaps| {
        gaps.iter().any(|gap| gap["state"] == "quarantined" && gap["first_seq"] == seq)
    })
}

/// Applied, missing and duplicate batches of the one epoch there is.
fn ledger(answer: &Json) -> [u64; 3] {
    let epoch = &answer["epochs"][0];
    ["applied_batches", "missing_batches", "duplicate_batches"].map(|name| number(epoch, name))
}

fn number(answer: &Json, name: &str) -> u64 {
    answer[name].as_u64().unwrap_or_else(|| panic!("{name}: {answer:#}"))
}

fn sums(answer: &Json) -> [u64; 5] {
    let names = ["letters", "batches", "points", "repeated", "not_replayable"];
    names.map(|name| number(answer, name))
}

fn published(answer: &Json) -> [u64; 2] {
    ["published", "published_points"].map(|name| number(answer, name))
}

async fn replay(stack: &Stack, more: &[&str]) -> Json {
    ask(stack, &[&REPLAY[..], more].concat()).await
}

/// Rows and points of the batch's series.
async fn stored(stack: &Stack, batch: &Batch) -> [i64; 2] {
    let sql = "SELECT COUNT(*), CAST(COALESCE(SUM(JSON_LENGTH(p.vals)), 0) AS SIGNED) \
               FROM spillway_store.points p JOIN spillway_store.series s USING (series_id) \
               WHERE s.metric = ?";
    let store = stack.mysql("s0").unwrap();
    let found: (i64, i64) =
        sqlx::query_as(sql).bind(&batch.series[0].metric).fetch_one(&store).await.unwrap();
    found.into()
}

async fn publish_rubbish(stack: &Stack, host: &str) {
    let partition = Partitioning::new(64, 4).unwrap().partition_of(ENVIRONMENT, host);
    let brokers = stack.file().kafka;
    let sent = tokio::task::spawn_blocking(move || {
        let config = ClientConfig::new().set("bootstrap.servers", brokers).clone();
        let producer: BaseProducer = config.create().unwrap();
        let header = Header { key: HEADER_ENVIRONMENT, value: Some(ENVIRONMENT) };
        let record = BaseRecord::to(TOPIC_LIVE)
            .partition(i32::from(partition))
            .key("rubbish")
            .headers(OwnedHeaders::new().insert(header))
            .payload("this is no frame");
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(20))
    });
    sent.await.unwrap().unwrap();
}
