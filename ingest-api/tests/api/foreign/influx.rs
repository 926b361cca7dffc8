//! Line protocol, as Telegraf and InfluxDB's clients send it.

use serde_json::json;

use super::name;
use crate::stage::stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_are_stored_one_series_per_field_in_both_versions() {
    let stage = stage(|_| {}).await;
    let lines =
        b"cpu,host=web-1,core=0 user=1.5,idle=98i,name=\"x\" 1000000000\nmem free=7u 2000000000\n";
    let reply = stage.send("/write?db=telegraf", &[], lines).await;
    assert_eq!((reply.status, reply.header("content-type")), (204, None), "{reply:?}");
    let path = "/api/v2/write?org=o&bucket=b&precision=s";
    assert_eq!(stage.send(path, &[], b"cpu,host=web-1,core=0 user=2.5 2").await.status, 204);
    let of = |metric| name("web-1", metric, "core=0");
    let wanted = [
        ((of("cpu_user"), 1_000), 1.5),
        ((of("cpu_idle"), 1_000), 98.0),
        ((of("cpu_user"), 2_000), 2.5),
        ((name("demo-1", "mem_free", ""), 2_000), 7.0),
    ];
    assert_eq!(stage.points(), wanted.into());
    assert!(stage.metric("spillway_ingest_texts_left_out_total") == 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_lines_are_a_partial_write_that_names_them() {
    let stage = stage(|_| {}).await;
    let lines = b"a b=1 1000000\nnonsense\na b=2 2000000\n,x y=1\n";
    let reply = stage.send("/write?db=x", &[], lines).await;
    let text = "partial write: 2 points refused: line 2: the fields are missing; \
                line 4: the measurement is missing dropped=2";
    assert_eq!((reply.status, &reply.body), (400, &json!({ "error": text })));
    assert!(reply.header("x-influxdb-error").is_some());
    let reply = stage.send("/api/v2/write?bucket=x", &[], lines).await;
    assert_eq!((reply.status, &reply.body), (400, &json!({ "code": "invalid", "message": text })));
    assert_eq!(stage.points().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_ask_before_they_write_is_answered() {
    let stage = stage(|_| {}).await;
    let reply = stage.ask("GET", "/ping", &[], b"").await;
    assert_eq!(reply.status, 204);
    assert!(reply.header("x-influxdb-version").is_some());
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let reply = stage.send("/query", &[form], b"q=CREATE+DATABASE+%22telegraf%22").await;
    assert_eq!((reply.status, &reply.body["results"][0]["statement_id"]), (200, &0.into()));
    assert_eq!(stage.send("/query?q=create%20database%20x", &[], b"").await.status, 200);
    let reply = stage.send("/query?q=DROP%20DATABASE%20x", &[], b"").await;
    assert_eq!(reply.status, 400);
    assert_eq!(stage.ask("POST", "/query?q=CREATE%20DATABASE%20x", &[], b"").await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_and_refusals_are_in_influx_s_words() {
    let stage = stage(|_| {}).await;
    use base64::Engine as _;
    let basic = base64::prelude::BASE64_STANDARD.encode(format!("any:{}", stage.token));
    let good = [format!("Token {}", stage.token), format!("Basic {basic}")];
    for credential in &good {
        let headers = [("Authorization", credential.as_str())];
        assert_eq!(stage.ask("POST", "/write", &headers, b"a b=1").await.status, 204);
    }
    let reply = stage.ask("POST", "/write", &[("Authorization", "Token nonsense")], b"a b=1").await;
    assert_eq!(reply.status, 401);
    assert!(reply.header("www-authenticate").is_some());
    let reply = stage.ask("POST", "/api/v2/write", &[], b"a b=1").await;
    assert_eq!((reply.status, &reply.body["code"]), (401, &"unauthorized".into()));
    assert_eq!(stage.send("/write?precision=d", &[], b"a b=1").await.status, 400);
    assert_eq!(stage.send("/write", &[("Content-Encoding", "br")], b"a b=1").await.status, 415);
    assert_eq!(stage.send("/write", &[], b"\xff\xfe b=1").await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_not_utf_8_is_refused_by_its_number_and_the_others_are_stored() {
    let stage = stage(|_| {}).await;
    let lines =
        b"a b=1 1000000\n# \xff\na,t=\xff b=2 2000000\na t=\"\xc3\n\",b=3 3000000\na b=4 4000000";
    let reply = stage.send("/write?db=x", &[], lines).await;
    let text = "partial write: 2 points refused: line 3: it is not UTF-8; \
                line 4: it is not UTF-8 dropped=2";
    assert_eq!((reply.status, &reply.body), (400, &json!({ "error": text })));
    let stored: Vec<i64> = stage.points().into_keys().map(|(_, ts_ms)| ts_ms).collect();
    assert_eq!(stored, [1, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_is_one_create_database_and_nothing_beside_it() {
    let stage = stage(|_| {}).await;
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    for (query, status) in [
        ("CREATE DATABASE x", 200),
        (" create database \"a; b\\\" c\" ; ", 200),
        ("CREATE DATABASE x WITH DURATION 1d REPLICATION 1 NAME 'a;b'", 200),
        ("CREATE DATABASE x; DROP DATABASE y", 400),
        ("CREATE DATABASE x;; ", 400),
        ("CREATE DATABASE \"x; DROP DATABASE y", 400),
        ("CREATE DATABASE x DROP DATABASE y", 400),
        ("CREATE DATABASE", 400),
        ("CREATE DATABASE ;", 400),
        ("SHOW DATABASES", 400),
    ] {
        let body = form_urlencoded::Serializer::new(String::new()).append_pair("q", query).finish();
        let reply = stage.send("/query", &[form], body.as_bytes()).await;
        assert_eq!(reply.status, status, "{query}: {reply:?}");
    }
}
