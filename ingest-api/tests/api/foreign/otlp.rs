//! OTLP/HTTP: every shape of metric, in both encodings, and both kinds of answers.

use serde_json::json;
use spillway_proto::Kind;

use super::name;
use super::protobuf::Message;
use crate::stage::stage;

const PATH: &str = "/v1/metrics";
const PROTOBUF: (&str, &str) = ("Content-Type", "application/x-protobuf");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const NS: u64 = 1_000_000;

fn attribute(name: &str, value: &str) -> Message {
    Message::new().text(1, name).message(2, &Message::new().text(1, value))
}

/// A request with these metrics, of the service `shop` on web-1.
fn request(metrics: &[Message]) -> Vec<u8> {
    let resource = Message::new()
        .message(1, &attribute("service.name", "shop"))
        .message(1, &attribute("host.name", "web-1"));
    let scope = Message::new().message(1, &Message::new().text(1, "lib"));
    let scope = metrics.iter().fold(scope, |scope, metric| scope.message(2, metric));
    Message::new().message(1, &Message::new().message(1, &resource).message(2, &scope)).0
}

fn number(attributes: u32, value: f64) -> Message {
    let point = Message::new().fixed(3, 1_000 * NS).double(4, value);
    point.message(attributes, &attribute("path", "/"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shape_of_metric_is_stored_from_protobuf() {
    let stage = stage(|_| {}).await;
    let metric = |name: &str, tag, data: Message| {
        Message::new().text(1, name).text(3, "s").message(tag, &data)
    };
    let points = |point: &Message| Message::new().message(1, point);
    let histogram = Message::new()
        .fixed(3, 1_000 * NS)
        .fixed(4, 6)
        .double(5, 9.0)
        .packed_fixed(6, &[1, 2, 3])
        .packed_double(7, &[0.5, 1.0])
        .double(11, 0.1)
        .double(12, 7.0);
    let exponential = Message::new()
        .fixed(3, 1_000 * NS)
        .fixed(4, 6)
        .double(5, 9.0)
        .zigzag(6, 0)
        .fixed(7, 1)
        .message(8, &Message::new().zigzag(1, 0).packed(2, &[2, 0, 3]));
    let quantile = Message::new().double(1, 0.99).double(2, 0.7);
    let summary =
        Message::new().fixed(3, 1_000 * NS).fixed(4, 10).double(5, 5.0).message(6, &quantile);
    let body = request(&[
        metric("level", 5, points(&number(7, 1.5))),
        metric("done", 7, points(&number(7, 3.0)).int(2, 2).int(3, 1)),
        metric("news", 7, points(&number(7, 4.0)).int(2, 1).int(3, 1)),
        metric("size", 9, points(&histogram).int(2, 2)),
        metric("wide", 10, points(&exponential).int(2, 1)),
        metric("lat", 11, points(&summary)),
    ]);
    let reply = stage.send(PATH, &[PROTOBUF], &body).await;
    assert_eq!((reply.status, &reply.body), (200, &json!("")), "an empty message: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/x-protobuf"));
    let shared = "otel.scope.name=lib,service.name=shop";
    let of = |metric| name("web-1", metric, shared);
    let pathed = |metric| name("web-1", metric, "otel.scope.name=lib,path=/,service.name=shop");
    let le = |metric, le: &str| name("web-1", metric, &format!("le={le},{shared}"));
    let wanted = [
        (pathed("level"), 1.5),
        (pathed("done"), 3.0),
        (pathed("news"), 4.0),
        (le("size_bucket", "0.5"), 1.0),
        (le("size_bucket", "1"), 3.0),
        (le("size_bucket", "+Inf"), 6.0),
        (of("size_count"), 6.0),
        (of("size_sum"), 9.0),
        (of("size_min"), 0.1),
        (of("size_max"), 7.0),
        (le("wide_bucket", "0"), 1.0),
        (le("wide_bucket", "2"), 3.0),
        (le("wide_bucket", "8"), 6.0),
        (le("wide_bucket", "+Inf"), 6.0),
        (of("wide_count"), 6.0),
        (of("wide_sum"), 9.0),
        (of("lat_count"), 10.0),
        (of("lat_sum"), 5.0),
        (name("web-1", "lat", "otel.scope.name=lib,quantile=0.99,service.name=shop"), 0.7),
    ];
    let wanted = wanted.into_iter().map(|(name, value)| ((name, 1_000), value));
    assert_eq!(stage.points(), wanted.collect());
    let kinds = stage.kinds();
    let of = ["level", "done", "news", "size_sum", "wide_sum", "lat"].map(|name| kinds[name]);
    use Kind::{Cumulative, Delta, Gauge};
    assert_eq!(of, [Gauge, Cumulative, Delta, Cumulative, Delta, Gauge]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_says_the_same_as_protobuf() {
    let stage = stage(|_| {}).await;
    let body = json!({"resourceMetrics": [{
        "resource": {"attributes": [
            {"key": "host.name", "value": {"stringValue": "web-1"}},
            {"key": "n", "value": {"intValue": "7"}},
            {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": true}]}}},
        ]},
        "unknown": {"x": [1]},
        "scopeMetrics": [{"scope": null, "metrics": [
            {"name": "a", "unit": null, "sum": null, "gauge": {"isMonotonic": null, "dataPoints": [
                {"timeUnixNano": "1000000000", "asInt": "5", "flags": null, "positive": null},
                {"timeUnixNano": 2_000_000_000_u64, "asDouble": 6.5},
            ]}},
            {"name": "b", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [
                {"timeUnixNano": "1000000000", "asInt": 5},
            ]}},
            {"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [
                {"timeUnixNano": "1000000000", "count": "3", "sum": 4,
                 "bucketCounts": ["1", 2], "explicitBounds": [0.5]},
            ]}},
        ]}],
    }]})
    .to_string();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, body.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let reply = stage.send(PATH, &[JSON, ("Content-Encoding", "gzip")], &gzip).await;
    assert_eq!((reply.status, &reply.body), (200, &json!({})), "{reply:?}");
    let of = |metric| name("web-1", metric, "list=[true],n=7");
    let le = |le: &str| name("web-1", "h_bucket", &format!("le={le},list=[true],n=7"));
    let wanted = [
        ((of("a"), 1_000), 5.0),
        ((of("a"), 2_000), 6.5),
        ((of("b"), 1_000), 5.0),
        ((le("0.5"), 1_000), 1.0),
        ((le("+Inf"), 1_000), 3.0),
        ((of("h_count"), 1_000), 3.0),
        ((of("h_sum"), 1_000), 4.0),
    ];
    assert_eq!(stage.points(), wanted.into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_that_can_not_be_stored_are_counted_in_partial_success() {
    let stage = stage(|_| {}).await;
    let bad = Message::new().fixed(3, NS);
    let gauge = Message::new().message(1, &number(7, 1.0)).message(1, &bad);
    let metrics = [
        Message::new().text(1, "m").message(5, &gauge),
        Message::new().text(1, "s").message(7, &Message::new().message(1, &number(7, 1.0))),
    ];
    let reply = stage.send(PATH, &[PROTOBUF], &request(&metrics)).await;
    assert_eq!(reply.status, 200);
    let text = reply.body.as_str().unwrap();
    assert!(
        text.contains("2 points refused: data point 1: it has no value; data point 2"),
        "{text}"
    );
    let body = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "m", "gauge": {"dataPoints": [{"asInt": 1}, {"timeUnixNano": "5"}]}},
    ]}]}]});
    let reply = stage.send(PATH, &[JSON], body.to_string().as_bytes()).await;
    assert_eq!(
        (reply.status, &reply.body["partialSuccess"]["rejectedDataPoints"]),
        (200, &"1".into())
    );
    assert_eq!(stage.points().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_a_status_in_the_encoding_of_the_request() {
    let stage = stage(|_| {}).await;
    let reply = stage.send(PATH, &[JSON], b"{\"resourceMetrics\": 5}").await;
    assert_eq!((reply.status, &reply.body["code"]), (400, &3.into()), "{reply:?}");
    assert!(reply.body["message"].as_str().unwrap().contains("expected a list"));
    let reply = stage.send(PATH, &[PROTOBUF], b"no protobuf").await;
    assert_eq!((reply.status, reply.header("content-type")), (400, Some("application/x-protobuf")));
    assert!(reply.body.as_str().unwrap().starts_with("\u{8}\u{3}\u{12}"), "{reply:?}");
    let reply = stage.send(PATH, &[("Content-Type", "text/plain")], b"").await;
    assert_eq!(reply.status, 415);
    let reply = stage.send(PATH, &[PROTOBUF, ("Content-Encoding", "br")], b"").await;
    assert_eq!(reply.status, 415);
    let reply = stage.ask("POST", PATH, &[JSON], b"{}").await;
    assert_eq!((reply.status, &reply.body["code"]), (401, &16.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_unfolds_beyond_its_limit_is_413() {
    let stage = stage(|_| {}).await;
    let zeros = vec![0; 17 << 20];
    let bomb = zstd::bulk::compress(&zeros, 3).unwrap();
    let reply = stage.send(PATH, &[PROTOBUF, ("Content-Encoding", "zstd")], &bomb).await;
    assert_eq!(reply.status, 413, "{reply:?}");
    let many = format!("{{\"resourceMetrics\":[{}{{}}]}}", "{},".repeat(2_000_000));
    let packed = zstd::bulk::compress(many.as_bytes(), 3).unwrap();
    let reply = stage.send(PATH, &[JSON, ("Content-Encoding", "zstd")], &packed).await;
    assert_eq!(reply.status, 400);
    assert!(reply.body["message"].as_str().unwrap().contains("too many entries"), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_histogram_that_says_too_much_is_refused_alone_in_either_encoding() {
    let stage = stage(|_| {}).await;
    let listed = |name: &str, counts: &[u64]| {
        let point = Message::new().fixed(3, 1_000 * NS).fixed(4, 1).zigzag(6, 5);
        let point = point.message(8, &Message::new().packed(2, counts));
        Message::new().text(1, name).message(10, &Message::new().message(1, &point).int(2, 2))
    };
    let mut sparse = vec![0; 5_000];
    sparse[4_999] = 1;
    let metrics = [listed("sparse", &sparse), listed("endless", &[1; 20_000])];
    let reply = stage.send(PATH, &[PROTOBUF], &request(&metrics)).await;
    let text = reply.body.as_str().unwrap_or_default();
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(text.contains("1 points refused: data point 1: it lists more than 16384"), "{text}");
    let bounds: Vec<f64> = (0..1_500).map(f64::from).collect();
    let body = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "fine", "histogram": {"aggregationTemporality": 2, "dataPoints": [
            {"timeUnixNano": "1", "count": 1501, "bucketCounts": vec![1; 1_501],
             "explicitBounds": bounds},
        ]}},
        {"name": "deep", "summary": {"dataPoints": [
            {"timeUnixNano": "1", "quantileValues": vec![json!({"quantile": 0.5}); 1_001]},
        ]}},
    ]}]}]});
    let reply = stage.send(PATH, &[JSON], body.to_string().as_bytes()).await;
    let rejected = &reply.body["partialSuccess"]["rejectedDataPoints"];
    assert_eq!((reply.status, rejected), (200, &"2".into()), "{reply:?}");
    let kept = stage.kinds().into_keys().collect::<Vec<_>>();
    assert_eq!(kept, ["sparse_bucket", "sparse_count"], "and nothing of the others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_histogram_whose_count_contradicts_its_buckets_is_refused_alone() {
    let stage = stage(|_| {}).await;
    let explicit = |time: u64, count: u64| {
        json!({"timeUnixNano": time * NS, "count": count, "sum": 1, "bucketCounts": [1, 2],
               "explicitBounds": [0.5]})
    };
    let exponential = |time: u64, count: u64| {
        json!({"timeUnixNano": time * NS, "count": count, "sum": 1, "scale": 0, "zeroCount": 1,
               "positive": {"bucketCounts": [2]}, "negative": {"bucketCounts": [4]}})
    };
    let gone = json!({"timeUnixNano": 3 * NS, "flags": 1, "bucketCounts": [1, 2],
                      "explicitBounds": [0.5]});
    let without = json!({"timeUnixNano": 4 * NS, "count": 9, "sum": 1});
    let body = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [
            explicit(1, 3), explicit(2, 4), gone, without]}},
        {"name": "e", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [
            exponential(1, 7), exponential(2, 6)]}},
    ]}]}]});
    let reply = stage.send(PATH, &[JSON], body.to_string().as_bytes()).await;
    let partial = &reply.body["partialSuccess"];
    assert_eq!((reply.status, &partial["rejectedDataPoints"]), (200, &"2".into()), "{reply:?}");
    let text = partial["errorMessage"].as_str().unwrap();
    assert!(text.contains("data point 1: its count is not the sum of its buckets"), "{text}");
    let counts = stage.points().into_keys().filter(|(of, _)| of.metric.ends_with("_count"));
    let counts: Vec<_> = counts.map(|(of, ts_ms)| (of.metric, ts_ms)).collect();
    let wanted = [("e_count", 1), ("h_count", 1), ("h_count", 3), ("h_count", 4)];
    assert_eq!(counts, wanted.map(|(metric, ts_ms)| (metric.to_owned(), ts_ms)));
}
