//! Row 20: as large as each limit allows, and one over it: body, batch, message.max.bytes,
//! max_allowed_packet. (Each count and length of a frame: `proto/tests/frames.rs`; bodies of
//! unstated length: `ingest-api/tests/api/bounds.rs`.)

use bytes::Bytes;
use spillway_e2e::Fate;
use spillway_e2e::rig::Rig;
use spillway_proto::Point;
use spillway_proto::frame::Encoder;
use spillway_proto::kafka_record::TOPIC_LIVE;
use spillway_proto::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX};
use spillway_testkit::stack::StackOptions;

use crate::sending::{Door, HEALED_WITHIN, Host, log, until};

const LARGE_SERIES: usize = 5_000;
/// Less than a large frame, more than a small one.
const SMALLER_TOPIC_LIMIT: &str = "200000";

/// The largest batch that still fits a frame: labels that don't compress, grown until one letter
/// more is refused by the encoder.
fn largest(host: &Host, window: usize) -> Bytes {
    let small = host.batch(window).recipe.batch();
    let of = |letters: usize| {
        let mut batch = small.clone();
        let template = batch.series.first().expect("a series").clone();
        batch.series = (0..LARGE_SERIES).map(|number| one(&template, number, letters)).collect();
        Encoder::new().encode(&batch)
    };
    let (mut fits, mut too_long) = (1, 400);
    assert!(of(too_long).is_err(), "one over the limit is refused before it is sent");
    while too_long - fits > 1 {
        let middle = usize::midpoint(fits, too_long);
        if of(middle).is_ok() { fits = middle } else { too_long = middle }
    }
    of(fits).expect("it fits")
}

fn one(template: &spillway_proto::Series, number: usize, letters: usize) -> spillway_proto::Series {
    // Knuth's MMIX generator: noise that doesn't compress, the same in every run.
    let mut state = number as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        state >> 33
    };
    let letters: Vec<u8> = (0..letters).map(|_| b' ' + 1 + (random() % 90) as u8).collect();
    let text = String::from_utf8(letters).expect("ASCII");
    let points = template.points.iter().map(|point| Point {
        ts_ms: point.ts_ms,
        value: (random() << 20 ^ random()) as f64 * 1.000_000_1,
    });
    spillway_proto::Series {
        metric: format!("large.{number:05}"),
        labels: vec![("noise".into(), text)],
        points: points.collect(),
        ..template.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_batches_pass_every_hop_and_one_byte_more_is_refused() {
    let rig = Rig::start(StackOptions::default()).await;
    let (door, host) = (Door::of(&rig, "demo"), Host::new(&rig, "demo", "large", 3));
    let large = largest(&host, 0);
    let share = large.len() as f64 / FRAME_BYTES_MAX as f64;
    eprintln!("the largest frame has {} bytes, {share:.3} of the limit", large.len());
    assert!(share > 0.99, "nearly all of it");
    door.post_until_accepted(&large).await;
    // A body over the limit is refused at once, for good, and by name.
    let body = Bytes::from(vec![0; BODY_BYTES_MAX + 1]);
    let answer = door.post(&body).await;
    let limit = answer.body.get("limit_bytes").and_then(serde_json::Value::as_u64);
    assert_eq!((answer.status, limit), (413, Some(BODY_BYTES_MAX as u64)));

    let mysql = rig.mysql("demo");
    until("the large batch is applied", HEALED_WITHIN, async || {
        stored(&mysql).await == LARGE_SERIES as i64 * 10
    })
    .await;
}

/// Points of the large batches that can be read.
async fn stored(mysql: &sqlx::MySqlPool) -> i64 {
    let count = "SELECT CAST(COALESCE(SUM(cnt), 0) AS SIGNED) FROM spillway.metrics_10s \
                 WHERE host LIKE 'large-%'";
    sqlx::query_scalar(count).fetch_one(mysql).await.expect("readable")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_takes_less_than_we_send_holds_that_batch_and_no_other_and_heals() {
    let rig = Rig::start(StackOptions::default()).await;
    let kafka = rig.stack.file().kafka;
    let (door, host) = (Door::of(&rig, "demo"), Host::new(&rig, "demo", "held", 10));
    host.deliver(&door, &host.batch(0)).await;
    let before = "1048588";
    log::set_topic(&kafka, TOPIC_LIVE, "max.message.bytes", SMALLER_TOPIC_LIMIT).await;
    let large = largest(&Host::new(&rig, "demo", "large", 3), 0);
    // The operator made the topic too small: no fault of the batch's, so it is not refused.
    until("the topic's limit is felt", HEALED_WITHIN, async || {
        let answer = door.post(&large).await;
        answer.status == 503
    })
    .await;
    for window in 1..host.options.windows {
        host.deliver(&door, &host.batch(window)).await;
    }
    door.post(&large).await.must_be_later();
    log::set_topic(&kafka, TOPIC_LIVE, "max.message.bytes", before).await;
    door.post_until_accepted(&large).await;
    host.judge(&rig).await;
    assert!(host.ledger.batches(Fate::Fail).is_empty());
}
