//! What holds for every foreign protocol.

use spillway_runtime::tokens::TokenLimits;

use super::protobuf::snappy;
use super::remote_write::{SNAPPY, V2, series, v1, v2};
use crate::stage::{Stage, hasty, stage};

/// Path, headers and body.
type Asked = (&'static str, Vec<(&'static str, &'static str)>, Vec<u8>);

/// One valid request of each protocol.
fn requests() -> Vec<Asked> {
    let one = v1(&[series(&[("__name__", "m"), ("host", "h")], &[(1, 1.0)])]);
    let two = v2(&["", "__name__", "m"], &[(&[1, 2], &[(1, 1.0)], 2)]);
    let otlp = "{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[{\"name\":\"m\",\
                \"gauge\":{\"dataPoints\":[{\"asInt\":1,\"timeUnixNano\":\"5\"}]}}]}]}]}";
    let datadog = b"{\"series\":[{\"metric\":\"m\",\"points\":[[1,1]]}]}".to_vec();
    let json = ("Content-Type", "application/json");
    vec![
        ("/api/v1/write", vec![SNAPPY], snappy(&one)),
        ("/api/v1/push", vec![V2, SNAPPY], snappy(&two)),
        ("/v1/metrics", vec![json], otlp.as_bytes().to_vec()),
        ("/write", vec![], b"m f=1 5".to_vec()),
        ("/api/v2/write", vec![], b"m f=1 5".to_vec()),
        ("/api/v1/series", vec![json], datadog),
        ("/api/v2/series", vec![json], b"{\"series\":[]}".to_vec()),
    ]
}

/// Words by which Telegraf drops what it should send again.
const MAGIC: [&str; 5] = [
    "retention policy not found",
    "hinted handoff queue not empty",
    "points beyond retention policy",
    "partial write",
    "unable to parse",
];

async fn is_later(stage: &Stage, id: &str) {
    for (path, headers, body) in requests() {
        if body.ends_with(b"[]}") {
            continue;
        }
        let reply = stage.send(path, &headers, &body).await;
        assert_eq!(reply.status, 503, "{id} {path}: {reply:?}");
        let seconds: u32 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=600).contains(&seconds));
        assert_eq!(reply.header("connection"), Some("close"));
        let text = reply.body.to_string();
        assert!(MAGIC.iter().all(|magic| !text.contains(magic)), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kafka_does_not_acknowledge_is_503_with_retry_after_for_each_protocol() {
    let stage = stage(hasty).await;
    stage.cluster.broker_down(-1).unwrap();
    is_later(&stage, "kafka slow").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_revoked_credential_has_each_protocol_s_own_status() {
    let stage = stage(|_| {}).await;
    for (path, headers, body) in requests() {
        let reply = stage.ask("POST", path, &headers, &body).await;
        let wanted = if path.ends_with("series") { 403 } else { 401 };
        assert_eq!(reply.status, wanted, "{path}: {reply:?}");
        let reply = stage.ask("GET", path, &headers, b"").await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("post")), "{path}");
    }
    let revoked = stage.token("demo", |row| row.revoked = Some(row.created));
    let fresh = format!("Bearer {}", stage.token("demo", |_| {}));
    let known = [("Authorization", fresh.as_str())];
    while stage.ask("POST", "/v1/batches", &known, b"").await.status != 200 {}
    for (path, headers, body) in requests() {
        let credential = format!("Bearer {revoked}");
        let all = [&[("Authorization", credential.as_str())], headers.as_slice()].concat();
        let reply = stage.ask("POST", path, &all, &body).await;
        let wanted = if path.ends_with("series") { 403 } else { 401 };
        assert_eq!(reply.status, wanted, "{path}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_limit_has_each_protocol_s_own_status() {
    let stage = stage(|settings| {
        settings.http.body_bytes_max = spillway_runtime::settings::Size::mib(1);
    })
    .await;
    let body = vec![b'x'; (1 << 20) + 1];
    for (path, headers, _) in requests() {
        let reply = stage.send(path, &headers, &body).await;
        let wanted =
            if path.starts_with("/api/v1/write") || path.ends_with("push") { 400 } else { 413 };
        assert_eq!(reply.status, wanted, "{path}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_with_all_its_series_goes_on_with_those_and_no_others() {
    let stage = stage(|_| {}).await;
    let limits = TokenLimits { series_per_hour: Some(50), ..TokenLimits::default() };
    let limited = format!("Bearer {}", stage.token("demo", |row| row.limits = Some(limits)));
    let token = [("Authorization", limited.as_str())];
    while stage.ask("POST", "/v1/batches", &token, b"").await.status != 200 {}
    let series = |numbers: std::ops::Range<u32>| -> Vec<u8> {
        let lines = numbers.map(|n| format!("m{n} f=1 1760000000000000000\n"));
        lines.collect::<String>().into_bytes()
    };
    assert_eq!(stage.ask("POST", "/write", &token, &series(0..40)).await.status, 204);
    assert_eq!(stage.ask("POST", "/write", &token, &series(40..80)).await.status, 503);
    assert_eq!(stage.ask("POST", "/api/v2/write", &token, &series(40..80)).await.status, 429);
    assert_eq!(stage.ask("POST", "/write", &token, &series(0..40)).await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_has_no_more_connections_than_its_limit() {
    let stage = stage(|_| {}).await;
    let limits = TokenLimits { connections: Some(1), ..TokenLimits::default() };
    let limited = format!("Bearer {}", stage.token("demo", |row| row.limits = Some(limits)));
    let headers = [("Authorization", limited.as_str()), ("Content-Length", "0")];
    let ask = crate::stage::request("POST", "/v1/batches", &headers, b"");
    let mut first = loop {
        let mut client = stage.connect().await;
        client.write(&ask).await;
        if client.reply().await.status == 200 {
            break client;
        }
    };
    let mut second = stage.connect().await;
    second.write(&ask).await;
    second.reply().await.is_problem("over-quota");
    first.write(&ask).await;
    first.reply().await.is_accepted(0);
    drop(first);
    loop {
        second.write(&ask).await;
        if second.reply().await.status == 200 {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_over_its_limit_hears_what_its_client_sends_again_after() {
    let stage = stage(|_| {}).await;
    let limits = TokenLimits { points_per_second: Some(1), ..TokenLimits::default() };
    let limited = format!("Bearer {}", stage.token("demo", |row| row.limits = Some(limits)));
    let token = ("Authorization", limited.as_str());
    while stage.ask("POST", "/v1/batches", &[token], b"").await.status != 200 {}
    let many: String = (1..=100).map(|n| format!("m f={n} {n}000000\n")).collect();
    assert_eq!(stage.ask("POST", "/write", &[token], many.as_bytes()).await.status, 204);
    for (path, headers, body) in requests() {
        let all = [&[token], headers.as_slice()].concat();
        let reply = stage.ask("POST", path, &all, &body).await;
        let wanted =
            if ["/api/v1/write", "/api/v1/push", "/write"].contains(&path) { 503 } else { 429 };
        assert_eq!(reply.status, wanted, "{path}: {reply:?}");
        assert!(reply.header("retry-after").is_some(), "{path}");
    }
    let reply = stage.ask("POST", "/v1/batches", &[token], b"").await;
    assert_eq!(reply.status, 429);
    reply.is_problem("over-quota");
}
