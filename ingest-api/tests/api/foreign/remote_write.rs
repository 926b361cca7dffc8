//! Remote write 1.0 and 2.0: what is sent is in Kafka, and what the sender hears of it.

use spillway_proto::Kind;

use super::name;
use super::protobuf::{Message, snappy};
use crate::stage::{Reply, Stage, stage};

pub const V1: (&str, &str) = ("Content-Type", "application/x-protobuf");
pub const V2: (&str, &str) =
    ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request");
pub const SNAPPY: (&str, &str) = ("Content-Encoding", "snappy");

pub type Labels<'a> = &'a [(&'a str, &'a str)];
pub type Samples<'a> = &'a [(i64, f64)];

pub fn sample((ts_ms, value): (i64, f64)) -> Message {
    Message::new().double(1, value).int(2, ts_ms)
}

/// A TimeSeries of 1.0.
pub fn series(labels: Labels<'_>, samples: Samples<'_>) -> Message {
    let label = |message: Message, (name, value): &(&str, &str)| {
        message.message(1, &Message::new().text(1, name).text(2, value))
    };
    let message = labels.iter().fold(Message::new(), label);
    samples.iter().fold(message, |message, one| message.message(2, &sample(*one)))
}

/// A WriteRequest.
pub fn v1(all: &[Message]) -> Vec<u8> {
    all.iter().fold(Message::new(), |request, series| request.message(1, series)).0
}

/// A Request of 2.0, of the symbols and series given; `kind` is its metadata's type.
pub fn v2(symbols: &[&str], all: &[(&[u64], Samples<'_>, i64)]) -> Vec<u8> {
    let request = symbols.iter().fold(Message::new(), |request, text| request.text(4, text));
    let add = |request: Message, (refs, samples, kind): &(&[u64], Samples<'_>, i64)| {
        let series = samples
            .iter()
            .fold(Message::new().packed(1, refs), |series, one| series.message(2, &sample(*one)));
        request.message(5, &series.message(5, &Message::new().int(1, *kind)))
    };
    all.iter().fold(request, add).0
}

impl Stage {
    pub async fn write_v1(&self, all: &[Message]) -> Reply {
        self.send("/api/v1/write", &[V1, SNAPPY], &snappy(&v1(all))).await
    }

    pub async fn write_v2(&self, body: &[u8]) -> Reply {
        self.send("/api/v1/push", &[V2, SNAPPY], &snappy(body)).await
    }
}

impl Reply {
    /// What 2.0 was told of samples, histograms and exemplars.
    pub fn written(&self) -> Option<[usize; 3]> {
        let count = |what: &str| {
            let value = self.header(&format!("x-prometheus-remote-write-{what}-written"))?;
            value.parse().ok()
        };
        Some([count("samples")?, count("histograms")?, count("exemplars")?])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_1_0_body_is_in_kafka_and_answered_204_without_counts() {
    let stage = stage(|_| {}).await;
    let labels = [("__name__", "http_requests_total"), ("instance", "web-1:9090"), ("job", "x")];
    let hosted = [("__name__", "up"), ("host", "web-2"), ("instance", "web-1:9090")];
    let nameless = [("__name__", "up"), ("job", "x")];
    let reply = stage
        .write_v1(&[
            series(&labels, &[(1_000, 1.0), (2_000, 2.0)]),
            series(&hosted, &[(1_000, 1.0)]),
            series(&nameless, &[(1_000, 0.0)]),
        ])
        .await;
    assert_eq!((reply.status, reply.written(), reply.header("content-type")), (204, None, None));
    let requests = name("web-1:9090", "http_requests_total", "job=x");
    let wanted = [
        ((name("demo-1", "up", "job=x"), 1_000), 0.0),
        ((requests.clone(), 1_000), 1.0),
        ((requests, 2_000), 2.0),
        ((name("web-2", "up", "instance=web-1:9090"), 1_000), 1.0),
    ];
    assert_eq!(stage.points(), wanted.into());
    assert_eq!(stage.kinds()["http_requests_total"], Kind::Cumulative);
    assert_eq!(stage.kinds()["up"], Kind::Gauge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_2_0_body_is_in_kafka_and_answered_with_the_three_counts_also_again() {
    let stage = stage(|_| {}).await;
    let symbols = ["", "__name__", "jobs", "host", "web-1"];
    let body = v2(&symbols, &[(&[1, 2, 3, 4], &[(1_000, 1.0), (2_000, 2.0)], 1)]);
    for _ in 0..2 {
        let reply = stage.write_v2(&body).await;
        assert_eq!((reply.status, reply.written()), (204, Some([2, 0, 0])), "{reply:?}");
    }
    assert_eq!(stage.points().len(), 2);
    assert_eq!(stage.kinds()["jobs"], Kind::Cumulative, "the metadata says counter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_sent_again_gives_the_same_batches() {
    let stage = stage(|_| {}).await;
    let all: Vec<Message> = (0..50)
        .map(|n| {
            let (host, core) = (format!("web-{}", n % 7), n.to_string());
            series(&[("__name__", "m"), ("core", &core), ("host", &host)], &[(n, n as f64)])
        })
        .collect();
    for _ in 0..2 {
        assert_eq!(stage.write_v1(&all).await.status, 204);
    }
    let mut times = std::collections::BTreeMap::new();
    for batch in stage.batches() {
        *times.entry(batch.id).or_insert(0) += 1;
    }
    assert_eq!(times.len(), 7, "one batch a host");
    // A repetition is known by its ids, here already or in the ledger.
    assert!(times.values().all(|times| *times <= 2), "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_two_of_an_ha_pair_send_the_same_series() {
    let stage = stage(|_| {}).await;
    for (replica, label) in
        [("a", "__replica__"), ("b", "__replica__"), ("a", "prometheus_replica")]
    {
        let labels = [("__name__", "m"), (label, replica), ("cluster", "c"), ("host", "h")];
        let mut labels = labels.to_vec();
        labels.sort_unstable();
        assert_eq!(stage.write_v1(&[series(&labels, &[(1_000, 1.0)])]).await.status, 204);
    }
    assert_eq!(stage.points(), [((name("h", "m", "cluster=c"), 1_000), 1.0)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_scrape_at_different_times_count_once_on_the_stated_grid() {
    let stage = stage(|_| {}).await;
    for (replica, shift) in [("a", 0), ("b", 7_300)] {
        let labels = [("__name__", "m"), ("__replica__", replica), ("host", "h")];
        let body = snappy(&v1(&[series(&labels, &[(15_000 + shift, 1.0), (30_000 + shift, 2.0)])]));
        let path = "/api/v1/write?scrape_interval=15s";
        assert_eq!(stage.send(path, &[V1, SNAPPY], &body).await.status, 204);
    }
    let name = name("h", "m", "");
    assert_eq!(stage.points(), [((name.clone(), 15_000), 1.0), ((name, 30_000), 2.0)].into());
    for wrong in ["0s", "15", "x", "2d"] {
        let path = format!("/api/v1/write?scrape_interval={wrong}");
        assert_eq!(stage.send(&path, &[V1, SNAPPY], &snappy(&[])).await.status, 400, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn native_histograms_are_stored_as_count_sum_and_buckets() {
    let stage = stage(|_| {}).await;
    // Schema 0: bounds are powers of two. -2..-1: 1, zero: 2, 1..2: 3, 4..8: 1.
    let span = |offset, length| Message::new().zigzag(1, offset).int(2, length);
    let integers = Message::new()
        .int(1, 7)
        .double(3, 12.5)
        .zigzag(4, 0)
        .double(5, 0.001)
        .int(6, 2)
        .message(8, &span(1, 1))
        .packed(9, &[2])
        .message(11, &span(1, 1))
        .message(11, &span(1, 1))
        .packed(12, &[6, 3])
        .int(15, 1_000);
    let custom = Message::new()
        .double(2, 4.5)
        .double(3, 1.0)
        .zigzag(4, -53)
        .message(11, &span(0, 3))
        .packed_double(13, &[1.5, 2.0, 1.0])
        .packed_double(16, &[0.1, 0.5])
        .int(15, 1_000);
    let of = |metric| series(&[("__name__", metric), ("host", "h")], &[]);
    let reply = stage.write_v1(&[of("a").message(4, &integers), of("b").message(4, &custom)]).await;
    assert_eq!(reply.status, 204, "{reply:?}");
    let bucket = |metric, le: &str| name("h", metric, &format!("le={le}"));
    let wanted = [
        (bucket("a_bucket", "-1"), 1.0),
        (bucket("a_bucket", "0.001"), 3.0),
        (bucket("a_bucket", "2"), 6.0),
        (bucket("a_bucket", "8"), 7.0),
        (bucket("a_bucket", "+Inf"), 7.0),
        (name("h", "a_count", ""), 7.0),
        (name("h", "a_sum", ""), 12.5),
        (bucket("b_bucket", "0.1"), 1.5),
        (bucket("b_bucket", "0.5"), 3.5),
        (bucket("b_bucket", "+Inf"), 4.5),
        (name("h", "b_count", ""), 4.5),
        (name("h", "b_sum", ""), 1.0),
    ];
    let wanted = wanted.into_iter().map(|(name, value)| ((name, 1_000), value));
    assert_eq!(stage.points(), wanted.collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_native_histogram_that_makes_no_sense_is_refused_with_true_counts() {
    let stage = stage(|_| {}).await;
    let span = Message::new().zigzag(1, 0).int(2, 3);
    let torn = Message::new().int(1, 3).message(11, &span).packed(12, &[2]).int(15, 1_000);
    let whole = Message::new().int(1, 0).int(15, 1_000);
    let unknown = Message::new().zigzag(4, 40).int(15, 1_000);
    let timeseries = [torn, whole, unknown]
        .iter()
        .fold(Message::new().packed(1, &[1, 2, 3, 4]), |series, histogram| {
            series.message(3, histogram)
        });
    let symbols = ["", "__name__", "m", "host", "h"];
    let body = symbols.iter().fold(Message::new(), |request, text| request.text(4, text));
    let reply = stage.write_v2(&body.message(5, &timeseries).0).await;
    assert_eq!((reply.status, reply.written()), (400, Some([0, 1, 0])), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gauge_histogram_is_a_gauge_and_one_that_lists_too_much_is_refused_alone() {
    let stage = stage(|_| {}).await;
    let of = |metric| series(&[("__name__", metric), ("host", "h")], &[]);
    let histogram = |counts: &[u64]| {
        let span = Message::new().zigzag(1, 0).int(2, counts.len() as i64);
        let histogram = Message::new().int(1, 1).double(3, 1.0).message(11, &span);
        histogram.packed(12, counts).int(15, 1_000)
    };
    let gauge = histogram(&[2]).int(14, 3);
    let mut many = vec![0; 20_000];
    many[0] = 2;
    let reply = stage
        .write_v1(&[
            of("level").message(4, &gauge),
            of("endless").message(4, &histogram(&many)),
            of("total").message(4, &histogram(&[2])),
        ])
        .await;
    let text = reply.body.as_str().unwrap_or_default();
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(text.contains("1 points refused: series 1: its histogram lists more than"), "{text}");
    let kinds = stage.kinds();
    assert_eq!(kinds["level_bucket"], Kind::Gauge, "its fall is no reset");
    assert_eq!(kinds["total_bucket"], Kind::Cumulative);
    assert!(!kinds.contains_key("endless_bucket"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_native_histogram_whose_count_contradicts_its_buckets_is_refused_alone() {
    let stage = stage(|_| {}).await;
    let span = Message::new().zigzag(1, 0).int(2, 2);
    // 2 at zero, 3 and 1 above: 6.
    let counting = |count, sum: f64, ts_ms| {
        let histogram = Message::new().int(1, count).double(3, sum).int(6, 2);
        histogram.message(11, &span).packed(12, &[6, 3]).int(15, ts_ms)
    };
    let falling = Message::new().int(1, 0).message(11, &span).packed(12, &[2, 3]).int(15, 5);
    // Parts of numbers do not add up to the last digit.
    let fractions = Message::new().double(2, 0.4).double(3, 1.0).message(11, &span);
    let fractions = fractions.packed_double(13, &[0.1, 0.2]).int(15, 6);
    let mixed = Message::new().int(1, 2).message(11, &span).packed_double(13, &[1.0, 1.0]);
    let histograms = [
        counting(6, 1.0, 1),
        counting(7, 1.0, 2),
        counting(7, f64::NAN, 3),
        counting(5, f64::NAN, 4),
        falling,
        fractions,
        mixed.int(15, 7),
    ];
    let of = Message::new().packed(1, &[1, 2, 3, 4]);
    let add = |series: Message, histogram| series.message(3, histogram);
    let timeseries = histograms.iter().fold(of, add);
    let symbols = ["", "__name__", "m", "host", "h"];
    let body = symbols.iter().fold(Message::new(), |request, text| request.text(4, text));
    let reply = stage.write_v2(&body.message(5, &timeseries).0).await;
    assert_eq!((reply.status, reply.written()), (400, Some([0, 3, 0])), "{reply:?}");
    let text = reply.body.as_str().unwrap();
    assert!(text.starts_with("4 points refused: series 0: its histogram's count is not"), "{text}");
    let count = |((of, ts_ms), _): (_, f64)| (of == name("h", "m_count", "")).then_some(ts_ms);
    let stored: Vec<i64> = stage.points().into_iter().filter_map(count).collect();
    assert_eq!(stored, [1, 3, 6]);
}
