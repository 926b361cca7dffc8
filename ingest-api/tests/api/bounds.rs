//! One byte over each bound, too slow, too many: the right status, and room for the next one.

use bytes::Bytes;
use spillway_proto::kafka_record::TOPIC_LIVE;
use spillway_proto::limits::FRAMES_PER_BODY_MAX;
use spillway_runtime::settings::{Dur, Size};

use crate::stage::{frame, joined, request, stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_limit_is_refused_with_the_limit_before_it_is_read() {
    let stage = stage(|settings| settings.http.body_bytes_max = Size::mib(1)).await;
    let mut client = stage.connect().await;
    let token = format!("Bearer {}", stage.token);
    let length = ((1 << 20) + 1).to_string();
    let headers = [("Authorization", token.as_str()), ("Content-Length", length.as_str())];
    client.write(&request("POST", "/v1/batches", &headers, b"")).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, &reply.body["limit_bytes"]), (413, &(1 << 20).into()));
    reply.is_problem("body-too-large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_in_the_middle_of_a_body_reads_why_it_is_refused() {
    let stage = stage(|settings| settings.http.body_bytes_max = Size::mib(1)).await;
    let mut client = stage.connect().await;
    // More than the sockets' buffers hold: closed at once, the rest would be answered by a reset.
    let body = Bytes::from(vec![7; 12 << 20]);
    client.write(&stage.request(&body, &[])).await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 413);
    reply.is_problem("body-too-large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_unstated_length_is_cut_at_the_limit() {
    let stage = stage(|settings| settings.http.body_bytes_max = Size::mib(1)).await;
    let mut client = stage.connect().await;
    let token = format!("Bearer {}", stage.token);
    let headers = [("Authorization", token.as_str()), ("Transfer-Encoding", "chunked")];
    client.write(&request("POST", "/v1/batches", &headers, b"")).await;
    let chunk = [b"10000\r\n".to_vec(), vec![7; 0x10000], b"\r\n".to_vec()].concat();
    for _ in 0..17 {
        if !client.write_what_is_taken(&chunk).await {
            break;
        }
    }
    assert_eq!(client.reply().await.status, 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_batch_more_than_a_body_may_have_takes_nothing_and_blames_no_batch() {
    let stage = stage(|_| {}).await;
    let last = FRAMES_PER_BODY_MAX as u64 + 1;
    let frames: Vec<_> = (1..=last).map(|seq| frame("demo", seq)).collect();
    let reply = stage.post(&joined(&frames)).await;
    assert_eq!((reply.status, reply.body.get("index")), (413, None));
    assert_eq!(stage.records(TOPIC_LIVE).len(), 0);
    let (_, fewer) = frames.split_first().unwrap();
    stage.post(&joined(fewer)).await.is_accepted(FRAMES_PER_BODY_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_body_within_the_limit_is_taken() {
    let stage = stage(|_| {}).await;
    let mut client = stage.connect().await;
    let token = format!("Bearer {}", stage.token);
    let headers = [("Authorization", token.as_str()), ("Transfer-Encoding", "chunked")];
    client.write(&request("POST", "/v1/batches", &headers, b"")).await;
    for byte in frame("demo", 1) {
        client.write(&[b'1', b'\r', b'\n', byte, b'\r', b'\n']).await;
    }
    client.write(b"0\r\n\r\n").await;
    client.reply().await.is_accepted(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let stage = stage(|settings| settings.http.body_within = Dur::from_millis(300)).await;
    let mut client = stage.connect().await;
    let whole = stage.request(&frame("demo", 1), &[]);
    let (most, _) = whole.split_at(whole.len() - 1);
    client.write(most).await;
    client.reply().await.is_later("body-too-slow");
    assert!(stage.metric("spillway_ingest_in_flight_bytes") == 0.0, "its room is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_and_one_with_an_endless_head_are_closed() {
    let stage = stage(|settings| {
        settings.http.first_byte_within = Dur::from_millis(200);
        settings.http.head_within = Dur::from_millis(200);
    })
    .await;
    for beginning in [&b""[..], b"POST /v1/batches HTTP/1.1\r\nHost: t\r\nX-A"] {
        let mut client = stage.connect().await;
        client.write(beginning).await;
        assert!(client.reply_or_end().await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_house_sheds_strangers_and_keeps_whoever_showed_a_token() {
    let stage = stage(|settings| settings.http.connections_max = 2).await;
    stage.until_nobody_is_connected().await;
    let (mut known, mut stranger) = (stage.connect().await, stage.connect().await);
    known.write(&stage.request(&Bytes::new(), &[])).await;
    known.reply().await.is_accepted(0);
    stranger.write(&request("GET", "/livez", &[], b"")).await;
    assert_eq!(stranger.reply().await.status, 200);
    let mut other = stage.connect().await;
    other.write(&stage.request(&Bytes::new(), &[])).await;
    other.reply().await.is_accepted(0);
    assert!(stranger.reply_or_end().await.is_none(), "it made room");
    assert!(stage.connect().await.reply_or_end().await.is_none(), "no stranger is left to go");
    known.write(&stage.request(&Bytes::new(), &[])).await;
    known.reply().await.is_accepted(0);
    assert_eq!(stage.metric("spillway_ingest_connections_shed_total"), 1.0);
    let refused = "spillway_ingest_connections_refused_total{reason=\"full\"}";
    assert_eq!(stage.metric(refused), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_with_all_its_connections_gets_no_other() {
    let stage = stage(|settings| settings.http.connections_per_address_max = 2).await;
    stage.until_nobody_is_connected().await;
    let _both = (stage.connect().await, stage.connect().await);
    assert!(stage.connect().await.reply_or_end().await.is_none());
    let refused = "spillway_ingest_connections_refused_total{reason=\"address\"}";
    assert_eq!(stage.metric(refused), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_after_its_last_request() {
    let stage = stage(|settings| settings.http.connection_requests_max = 2).await;
    let mut client = stage.connect().await;
    for last in [None, Some("close")] {
        client.write(&request("GET", "/livez", &[], b"")).await;
        assert_eq!(client.reply().await.header("connection"), last);
    }
    assert!(client.reply_or_end().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_routes_methods_and_kinds_have_their_own_answers() {
    let stage = stage(|_| {}).await;
    let token = format!("Bearer {}", stage.token);
    let cases = [
        ("GET", "/nothing", ("X", "y"), 404, "not-found"),
        ("GET", "/v1/batches", ("X", "y"), 405, "method-not-allowed"),
        ("POST", "/livez", ("X", "y"), 405, "method-not-allowed"),
        ("POST", "/v1/batches", ("Content-Type", "text/plain"), 415, "unsupported-media-type"),
        ("POST", "/v1/batches", ("Content-Encoding", "gzip"), 415, "unsupported-media-type"),
    ];
    for (method, path, header, status, id) in cases {
        let all = [("Authorization", token.as_str()), ("Content-Length", "0"), header];
        let mut client = stage.connect().await;
        client.write(&request(method, path, &all, b"")).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, status, "{method} {path} {header:?}");
        reply.is_problem(id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_could_smuggle_a_request_are_refused() {
    let stage = stage(|_| {}).await;
    let many: Vec<(String, String)> =
        (0..10_000).map(|n| (format!("X-{n}"), "1".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let cases: [&[(&str, &str)]; 3] = [
        &[("Content-Length", "1"), ("Content-Length", "2")],
        &[("Content-Length", "1"), ("Transfer-Encoding", "chunked")],
        &many,
    ];
    for headers in cases {
        let mut client = stage.connect().await;
        client.write_what_is_taken(&request("POST", "/v1/batches", headers, b"")).await;
        let status = client.reply_or_end().await.map(|reply| reply.status);
        assert!(matches!(status, None | Some(400 | 401 | 431)), "{status:?}");
    }
    stage.post(&Bytes::new()).await.is_accepted(0);
    let malformed = stage.metric("spillway_ingest_connections_malformed_total");
    assert!(malformed >= 2.0, "what hyper refuses by itself is counted: {malformed}");
}
