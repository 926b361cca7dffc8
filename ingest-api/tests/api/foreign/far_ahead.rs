//! A point further ahead than the consumer takes costs itself alone, in each protocol's words.

use std::time::SystemTime;

use serde_json::json;
use spillway_proto::limits::{EDGE_FUTURE_MS_MAX, FUTURE_MS_MAX};

use super::protobuf::{Message, snappy};
use super::remote_write::{SNAPPY, V1, sample, series, v1, v2};
use crate::stage::{Stage, stage};

/// Beside any pause of a test's machine.
const MINUTE_MS: i64 = 60_000;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Times that are taken, and one that is not.
fn times() -> ([i64; 2], i64) {
    let now_ms = now_ms();
    ([now_ms, now_ms + EDGE_FUTURE_MS_MAX - MINUTE_MS], now_ms + FUTURE_MS_MAX + MINUTE_MS)
}

fn stored(stage: &Stage) -> Vec<i64> {
    let mut times: Vec<i64> = stage.points().into_keys().map(|(_, ts_ms)| ts_ms).collect();
    times.sort_unstable();
    times.dedup();
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_too_far_ahead_is_a_partial_write_that_names_it() {
    let stage = stage(|_| {}).await;
    let (good, far) = times();
    let body = format!("a v=1 {}\na v=2,w=3 {far}\na v=4 {}\n", good[0], good[1]);
    let reply = stage.send("/write?db=x&precision=ms", &[], body.as_bytes()).await;
    let text = "partial write: 2 points refused: line 2: its time is more than 55 min ahead of \
                now; line 2: its time is more than 55 min ahead of now dropped=2";
    assert_eq!((reply.status, &reply.body), (400, &json!({ "error": text })));
    assert_eq!(stored(&stage), good);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_too_far_ahead_is_refused_by_remote_write_with_true_counts() {
    let stage = stage(|_| {}).await;
    let (good, far) = times();
    let points = [(good[0], 1.0), (good[1], 2.0), (far, 3.0)];
    let reply = stage.write_v2(&v2(&["", "__name__", "m"], &[(&[1, 2], &points, 2)])).await;
    assert_eq!((reply.status, reply.written()), (400, Some([2, 0, 0])), "{reply:?}");
    let labels = [("__name__", "m"), ("host", "h")];
    let histogram = Message::new().int(1, 0).int(15, far);
    let body = [series(&labels, &points), series(&labels, &[]).message(4, &histogram)];
    let reply = stage.send("/api/v1/write", &[V1, SNAPPY], &snappy(&v1(&body))).await;
    let text = reply.body.as_str().unwrap();
    assert_eq!(reply.status, 400);
    assert!(text.starts_with("2 points refused: series 0: its time is more than 55"), "{text}");
    assert_eq!(stored(&stage), good, "{:?}", sample(points[2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_point_too_far_ahead_is_counted_in_partial_success() {
    let stage = stage(|_| {}).await;
    let (good, far) = times();
    let point = |ts_ms: i64| json!({"asInt": 1, "timeUnixNano": (ts_ms * 1_000_000).to_string()});
    let body = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "m", "gauge": {"dataPoints": [point(good[0]), point(far), point(good[1])]}},
    ]}]}]});
    let json = ("Content-Type", "application/json");
    let reply = stage.send("/v1/metrics", &[json], body.to_string().as_bytes()).await;
    let partial = &reply.body["partialSuccess"];
    assert_eq!((reply.status, &partial["rejectedDataPoints"]), (200, &"1".into()), "{reply:?}");
    assert!(partial["errorMessage"].as_str().unwrap().contains("data point 1: its time"));
    assert_eq!(stored(&stage), good);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datadog_hears_400_of_a_point_too_far_ahead_and_its_neighbours_are_stored() {
    let stage = stage(|_| {}).await;
    let (good, far) = times();
    let point = |ts_ms: i64| json!([ts_ms / 1_000, 1]);
    let points = [point(good[0]), point(far), point(good[1])];
    let body = json!({"series": [{"metric": "m", "points": points}]}).to_string();
    let json = ("Content-Type", "application/json");
    let reply = stage.send("/api/v1/series", &[json], body.as_bytes()).await;
    assert_eq!(reply.status, 400);
    let text = reply.body["errors"][0].as_str().unwrap();
    assert!(text.starts_with("1 points refused: series 0: its time is more than 55"), "{text}");
    assert_eq!(stored(&stage), good.map(|ts_ms| ts_ms / 1_000 * 1_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_body_sent_again_is_the_same_points() {
    let stage = stage(|_| {}).await;
    let (good, far) = times();
    let line = |ts_ms: i64| format!("a v=1 {ts_ms}\n");
    let path = "/write?db=x&precision=ms";
    let whole = good.map(line).concat() + &line(far);
    for _ in 0..2 {
        assert_eq!(stage.send(path, &[], whole.as_bytes()).await.status, 400);
    }
    let ids = |stage: &Stage| {
        let ids: std::collections::BTreeSet<_> =
            stage.batches().into_iter().map(|batch| batch.id.to_bytes()).collect();
        ids.len()
    };
    assert_eq!(ids(&stage), 1, "what is refused leaves no trace in what is cut");
    assert_eq!(stage.send(path, &[], line(good[1]).as_bytes()).await.status, 204);
    assert_eq!(
        (ids(&stage), stored(&stage)),
        (2, good.to_vec()),
        "cut differently, the same points"
    );
}
