//! Who may send: each credential that is not good has its own answer, and a broken tokens file
//! locks nobody out for good.

use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use crate::stage::{PATIENCE, Stage, frame, request, stage};
use spillway_proto::kafka_record::TOPIC_LIVE;

async fn status(stage: &Stage, authorization: Option<&str>) -> (u16, String) {
    let body = frame("demo", 1);
    let length = body.len().to_string();
    let mut headers = vec![("Content-Length", length.as_str())];
    headers.extend(authorization.map(|value| ("Authorization", value)));
    let mut client = stage.connect().await;
    client.write(&request("POST", "/v1/batches", &headers, &body)).await;
    let reply = client.reply().await;
    let id = reply.body["type"].as_str().unwrap_or_default().to_owned();
    (reply.status, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_that_is_not_good_is_refused_before_the_body_is_read() {
    let stage = stage(|_| {}).await;
    let wrong = format!("Bearer {}x", stage.token);
    let foreign = "Bearer spw_nobody_0000000000000000000000000000000000000000000000000000000000";
    let long = format!("Bearer spw_{}", "a".repeat(2_000));
    let bad = [None, Some(""), Some("Bearer "), Some(&wrong), Some(foreign), Some(&long)];
    for authorization in bad {
        let (status, id) = status(&stage, authorization).await;
        assert_eq!((status, id.as_str()), (401, "/errors/unauthorized"), "{authorization:?}");
    }
    assert_eq!(status(&stage, Some(&format!("bearer {}", stage.token))).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_writes_for_its_own_environment_alone() {
    let stage = stage(|_| {}).await;
    let body = [frame("demo", 1), frame("acme", 2)].concat();
    let reply = stage.post(&body.into()).await;
    reply.is_accepted(1);
    assert_eq!(reply.body["rejected"][0]["index"], 1);
    assert_eq!(reply.body["rejected"][0]["type"], "environment-mismatch");
    assert_eq!(stage.records(TOPIC_LIVE).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_megabyte_costs_its_sender_the_connection_and_nobody_else() {
    let stage = stage(|_| {}).await;
    let mut client = stage.connect().await;
    let huge = format!("Bearer {}", "a".repeat(1 << 20));
    let bytes = request("POST", "/v1/batches", &[("Authorization", &huge)], b"");
    client.write_what_is_taken(&bytes).await;
    let status = client.reply_or_end().await.map(|reply| reply.status);
    assert!(matches!(status, None | Some(431)), "{status:?}");
    stage.post(&frame("demo", 1)).await.is_accepted(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_read_again_and_revoked_and_expired_ones_are_told_apart() {
    let stage = stage(|_| {}).await;
    let past = Timestamp::now() - SignedDuration::from_hours(1);
    let longer_ago = past - SignedDuration::from_hours(1);
    let revoked = stage.token("demo", |row| row.revoked = Some(past));
    let expired = stage.token("demo", |row| {
        row.created = longer_ago;
        row.expires = Some(past);
    });
    let fresh = stage.token("demo", |_| {});
    let read = async { while status(&stage, Some(&format!("Bearer {fresh}"))).await.0 != 200 {} };
    timeout(PATIENCE, read).await.unwrap();
    let told = |id: &str| format!("/errors/{id}");
    let answer = status(&stage, Some(&format!("Bearer {revoked}"))).await;
    assert_eq!(answer, (403, told("token-revoked")));
    let answer = status(&stage, Some(&format!("Bearer {expired}"))).await;
    assert_eq!(answer, (401, told("unauthorized")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_tokens_file_nobody_is_told_that_a_token_is_wrong() {
    let elsewhere = tempfile::TempDir::new().unwrap();
    let missing = elsewhere.path().join("tokens.toml");
    let file = missing.clone();
    let stage = crate::stage::stage_on(crate::stage::cluster(), move |settings| {
        settings.tokens.file = file;
    })
    .await;
    let bearer = format!("Bearer {}", stage.token);
    let unavailable = async {
        // Kafka's topics are checked meanwhile, which is told first.
        loop {
            let (status, id) = status(&stage, Some(&bearer)).await;
            assert_eq!(status, 503);
            if id == "/errors/tokens-unavailable" {
                break;
            }
        }
    };
    timeout(PATIENCE, unavailable).await.unwrap();
    std::fs::copy(stage.tokens_file(), &missing).unwrap();
    stage.until_it_takes_batches().await;
}
