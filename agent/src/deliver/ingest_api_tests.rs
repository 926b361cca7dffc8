//! What is known after an attempt, with servers that do as they please.

use super::super::test_server::{Reply, TestServer, accepted, answer, problem};
use super::*;
use spillway_runtime::settings::{Dur, Secret};

fn settings(endpoints: &[&str]) -> Settings {
    let mut settings = Settings::default();
    settings.agent.token = Secret::new("spw_id_verysecret".to_owned());
    settings.deliver.endpoints = endpoints.iter().map(ToString::to_string).collect();
    settings.deliver.request_timeout = Dur::from_secs(30);
    settings
}

fn frames(count: usize) -> Vec<Bytes> {
    (0..count).map(|number| Bytes::from(vec![number as u8; 10])).collect()
}

/// One attempt with `count` batches at a server that answers so.
async fn attempt(count: usize, reply: Reply) -> Attempt {
    let silent = matches!(reply, Reply::Silence);
    let server = TestServer::start(move |_| reply.clone()).await;
    let mut settings = settings(&[&server.url]);
    if silent {
        settings.deliver.request_timeout = Dur::from_millis(500);
    }
    let api = IngestApi::new(&settings).unwrap();
    api.send(Lane::Live, &frames(count), 0).await
}

const LATER: Outcome<Refused> = Outcome::TryLater { retry_after: None };

#[tokio::test]
async fn a_request_holds_the_frames_the_token_the_lane_and_the_attempt() {
    let server = TestServer::start(|_| accepted(2)).await;
    let api = IngestApi::new(&settings(&[&format!("{}/", server.url)])).unwrap();
    let told = api.send(Lane::Backlog, &frames(2), 3).await;
    assert_eq!((told.outcome, told.environment.as_deref()), (Outcome::Done, Some("demo")));
    let seen = server.seen().pop().unwrap();
    assert!(seen.head.starts_with("post /v1/batches http/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.header("authorization"), Some("bearer spw_id_verysecret"));
    assert_eq!(seen.header("spillway-lane"), Some("backlog"));
    assert_eq!(seen.header("spillway-attempt"), Some("3"));
    assert_eq!(seen.body, [[0; 10], [1; 10]].concat());
}

#[tokio::test]
async fn each_batch_has_its_own_verdict() {
    let body = r#"{"accepted":1,"rejected":[{"index":1,"error":"x","type":"invalid-content"}]}"#;
    let told = attempt(2, answer(200, "", body)).await;
    assert_eq!(told.outcome, Outcome::Done);
    assert_eq!(told.rejected.len(), 1);
    assert_eq!(told.rejected[0].refusal, Refusal::InvalidContent);
}

#[tokio::test]
async fn an_ok_that_does_not_fit_what_was_sent_is_no_ok() {
    for body in [
        "<html>Please log in to the hotel's network</html>",
        r#"{"accepted":1,"rejected":[]}"#,
        r#"{"accepted":3,"rejected":[]}"#,
        r#"{"accepted":1,"rejected":[{"index":2,"error":"","type":"invalid-content"}]}"#,
        r#"{"accepted":1,"rejected":[{"index":1,"error":"","type":"a-word-of-the-future"}]}"#,
        "",
    ] {
        assert_eq!(attempt(2, answer(200, "", body)).await.outcome, Outcome::Unknown, "{body}");
    }
}

#[tokio::test]
async fn not_now_is_later_with_the_time_that_was_asked_for() {
    let told =
        attempt(1, problem(503, "retry-after: 7\r\n", r#"{"detail":"Kafka is slow"}"#)).await;
    let retry_after = Some(Duration::from_secs(7));
    assert_eq!(told.outcome, Outcome::TryLater { retry_after });
    assert!(told.error.unwrap().contains("Kafka is slow"));
}

#[tokio::test]
async fn what_is_not_ours_is_never_a_refusal() {
    let hostile = r#"{"refusal":"invalid-content","index":0}"#;
    for reply in [
        answer(400, "content-type: text/html\r\n", "<h1>Bad Request</h1>"),
        answer(400, "content-type: application/json\r\n", hostile),
        answer(404, "", ""),
        answer(413, "", "too large"),
        answer(302, "location: http://elsewhere/\r\n", ""),
        answer(500, "", ""),
        answer(204, "", ""),
        problem(400, "", r#"{"type":"/errors/bad-request"}"#),
        problem(503, "", hostile),
        problem(400, "", r#"{"refusal":"invalid-content","index":1}"#),
        problem(400, "", r#"{"refusal":"a reason of the future","index":0}"#),
    ] {
        let told = attempt(1, reply.clone()).await;
        assert_eq!(told.outcome, LATER, "{reply:?}");
    }
}

#[tokio::test]
async fn a_typed_refusal_names_its_batch() {
    let body = r#"{"detail":"cut off","refusal":"undecodable-frame","index":1}"#;
    let told = attempt(3, problem(400, "", body)).await;
    let refusal = Refusal::UndecodableFrame;
    let error = "cut off".to_owned();
    assert_eq!(told.outcome, Outcome::Refused(Refused::Content { index: 1, refusal, error }));
}

#[tokio::test]
async fn too_large_means_less_at_a_time_and_for_one_batch_a_refusal() {
    let body = r#"{"detail":"over 10 bytes","limit_bytes":10}"#;
    let told = attempt(2, problem(413, "", body)).await;
    assert_eq!(told.outcome, Outcome::Refused(Refused::TooLarge));
    let told = attempt(1, problem(413, "", body)).await;
    let (refusal, error) = (Refusal::LimitExceeded, "over 10 bytes".to_owned());
    assert_eq!(told.outcome, Outcome::Refused(Refused::Content { index: 0, refusal, error }));
}

#[tokio::test]
async fn a_refused_token_is_told_apart_from_a_refused_batch() {
    for status in [401, 403] {
        let told = attempt(1, answer(status, "", "")).await;
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(told.outcome, Outcome::Refused(Refused::Token { status, revoked: false }));
    }
    let told = attempt(1, problem(403, "", r#"{"type":"/errors/token-revoked"}"#)).await;
    let status = StatusCode::FORBIDDEN;
    assert_eq!(told.outcome, Outcome::Refused(Refused::Token { status, revoked: true }));
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_never_comes_leaves_the_outcome_unknown() {
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"accepted\":1".to_vec();
    for reply in [
        Reply::Silence,
        Reply::RawThenClose(cut),
        Reply::RawThenClose(Vec::new()),
        Reply::RawThenClose(b"HTTP/1.1 20".to_vec()),
        Reply::RawThenClose(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        answer(200, "", &"x".repeat(ANSWER_BYTES_MAX + 1)),
    ] {
        assert_eq!(attempt(1, reply).await.outcome, Outcome::Unknown);
    }
}

#[tokio::test]
async fn where_nobody_listens_nothing_arrived_and_the_next_server_is_tried() {
    // No program is given this port: one that was free a moment ago may be another's by now.
    let closed = "http://127.0.0.1:1";
    let server = TestServer::start(|_| accepted(1)).await;
    let api = IngestApi::new(&settings(&[closed, &server.url])).unwrap();
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        outcomes.push(api.send(Lane::Live, &frames(1), 0).await.outcome);
    }
    let failed = outcomes.iter().filter(|outcome| **outcome == LATER).count();
    assert!(failed <= 1, "{outcomes:?}");
    assert_eq!(outcomes.last(), Some(&Outcome::Done));
}

#[tokio::test]
async fn a_connection_is_used_again_unless_the_server_closes_it() {
    let server = TestServer::start(|_| accepted(1)).await;
    let api = IngestApi::new(&settings(&[&server.url])).unwrap();
    for _ in 0..2 {
        api.send(Lane::Live, &frames(1), 0).await;
    }
    server.play(|_| answer(503, "connection: close\r\nretry-after: 1\r\n", ""));
    api.send(Lane::Live, &frames(1), 0).await;
    server.play(|_| accepted(1));
    assert_eq!(api.send(Lane::Live, &frames(1), 0).await.outcome, Outcome::Done);
    let connections: Vec<_> = server.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0, 0, 1]);
}

#[tokio::test]
async fn the_distance_of_the_clocks_is_measured() {
    let server_ms = now_ms() + 3_600_000;
    let date = jiff::Timestamp::from_millisecond(server_ms).unwrap();
    let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT");
    let told = attempt(1, answer(503, &format!("date: {date}\r\n"), "")).await;
    let skew_ms = told.clock_skew_ms.unwrap();
    assert!((-3_602_000..=-3_597_000).contains(&skew_ms), "{skew_ms}");
}

#[tokio::test]
async fn the_token_is_in_no_error() {
    for reply in [answer(401, "", "no"), Reply::RawThenClose(Vec::new())] {
        let told = format!("{:?}", attempt(1, reply).await);
        assert!(!told.contains("verysecret"), "{told}");
    }
}

#[test]
fn retry_after_may_be_seconds_or_a_date_and_nonsense_is_none() {
    let parse = |text: &'static str| {
        let headers = [(RETRY_AFTER, HeaderValue::from_static(text))].into_iter().collect();
        retry_after(&headers, 784_111_770_000)
    };
    assert_eq!(parse("120"), Some(Duration::from_secs(120)));
    assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
    assert_eq!(parse("Sun, 06 Nov 1994 08:49:00 GMT"), None);
    assert_eq!(parse("soon"), None);
    assert_eq!(parse("-1"), None);
}

#[test]
fn settings_that_can_not_work_are_found_at_the_start() {
    assert!(matches!(IngestApi::new(&settings(&["http://bad host"])), Err(StartError::Url { .. })));
    let mut broken = settings(&["http://a"]);
    broken.agent.token = Secret::new("line\nbreak".to_owned());
    assert!(matches!(IngestApi::new(&broken), Err(StartError::Token(_))));
    let mut broken = settings(&["https://a"]);
    broken.deliver.ca_file = Some("/nowhere.pem".into());
    assert!(matches!(IngestApi::new(&broken), Err(StartError::Client(_))));
}

#[tokio::test]
async fn with_a_proxy_the_request_goes_through_it_and_nowhere_else() {
    let proxy = TestServer::start(|seen| match seen.head.starts_with("connect ") {
        true => Reply::Raw(b"HTTP/1.1 200 Established\r\n\r\n".to_vec()),
        false => accepted(1),
    });
    let proxy = proxy.await;
    // No name server knows this name: it is the proxy's to find.
    let mut settings = settings(&["http://ingest.invalid:8480"]);
    settings.deliver.proxy = Some(proxy.url.clone());
    let api = IngestApi::new(&settings).unwrap();
    let told = api.send(Lane::Live, &frames(1), 0).await;
    assert_eq!(told.outcome, Outcome::Done, "{told:?}");
    let seen = proxy.seen();
    assert!(seen[0].head.starts_with("connect ingest.invalid:8480 "), "{}", seen[0].head);
    assert!(!seen[0].head.contains("secret"), "the proxy is not told the token");
}
