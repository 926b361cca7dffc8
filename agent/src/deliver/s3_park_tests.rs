//! What goes to S3, and what is known afterwards.

use std::io::Write as _;

use super::super::test_server::{Reply, TestServer, answer};
use super::*;
use spillway_runtime::settings::{Dur, Secret};

/// Any point of the curve will do: nothing is opened here.
const PUBLIC_KEY: &str = "0900000000000000000000000000000000000000000000000000000000000000";

fn settings(url: &str) -> Settings {
    let mut settings = Settings::default();
    settings.agent.token = Secret::new("spw_id_verysecret".to_owned());
    let spill = &mut settings.spill;
    spill.enabled = true;
    spill.endpoint = url.to_owned();
    spill.bucket = "bucket".to_owned();
    spill.access_key = "AKIDEXAMPLE".to_owned();
    spill.secret_key = Secret::new("s3secret".to_owned());
    spill.public_key = PUBLIC_KEY.to_owned();
    spill.request_timeout = Dur::from_secs(30);
    settings
}

async fn park(reply: Reply) -> Result<(ObjectKey, usize), ParkError> {
    let silent = matches!(reply, Reply::Silence);
    let server = TestServer::start(move |_| reply.clone()).await;
    let mut settings = settings(&server.url);
    if silent {
        settings.spill.request_timeout = Dur::from_millis(500);
    }
    let s3 = S3Park::new(&settings).unwrap().unwrap();
    s3.park(&[Bytes::from_static(b"frame")]).await
}

#[tokio::test]
async fn an_object_goes_in_one_signed_put_with_its_checksum() {
    let server = TestServer::start(|_| answer(200, "", "")).await;
    let s3 = S3Park::new(&settings(&server.url)).unwrap().unwrap();
    let (key, size) = s3.park(&[Bytes::from_static(b"frame")]).await.unwrap();
    let seen = server.seen().pop().unwrap();
    assert!(seen.head.starts_with(&format!("put /bucket/{key} http/1.1")), "{}", seen.head);
    assert_eq!(seen.body.len(), size);
    let checksum = BASE64.encode(crc32c::crc32c(&seen.body).to_be_bytes());
    assert_eq!(seen.header(CHECKSUM), Some(checksum.to_lowercase().as_str()));
    let authorization = seen.header("authorization").unwrap();
    assert!(authorization.starts_with("aws4-hmac-sha256 credential=akidexample/"));
    assert!(authorization.contains("/us-east-1/s3/aws4_request"));
    for signed in ["host", "x-amz-date", "x-amz-content-sha256", CHECKSUM] {
        assert!(authorization.contains(signed), "{signed} is not signed: {authorization}");
    }
    assert!(!seen.head.contains("s3secret") && !seen.head.contains("verysecret"));
}

#[tokio::test]
async fn without_a_key_the_put_goes_unsigned() {
    let server = TestServer::start(|_| answer(200, "", "")).await;
    let mut settings = settings(&server.url);
    settings.spill.unsigned = true;
    let s3 = S3Park::new(&settings).unwrap().unwrap();
    s3.park(&[]).await.unwrap();
    assert_eq!(server.seen().pop().unwrap().header("authorization"), None);
}

#[tokio::test]
async fn two_objects_never_have_one_name() {
    let server = TestServer::start(|_| answer(200, "", "")).await;
    let s3 = S3Park::new(&settings(&server.url)).unwrap().unwrap();
    let (first, _) = s3.park(&[]).await.unwrap();
    let (second, _) = s3.park(&[]).await.unwrap();
    assert_ne!(first, second);
}

#[tokio::test]
async fn nothing_but_a_success_with_the_right_checksum_is_a_success() {
    let body = "<Error><Code>SlowDown</Code></Error>";
    let slow = park(answer(503, "retry-after: 9\r\n", body)).await.unwrap_err();
    assert_eq!((slow.word(), slow.retry_after()), ("later", Some(Duration::from_secs(9))));
    assert!(slow.to_string().contains("SlowDown"));
    assert_eq!(park(answer(403, "", "")).await.unwrap_err().word(), "denied");
    assert_eq!(park(answer(412, "", "")).await.unwrap_err().word(), "later");
    assert_eq!(park(Reply::Silence).await.unwrap_err().word(), "unknown");
    assert_eq!(park(Reply::RawThenClose(Vec::new())).await.unwrap_err().word(), "unknown");
    let huge = answer(500, "", &"x".repeat(ANSWER_BYTES_MAX + 1));
    assert_eq!(park(huge).await.unwrap_err().word(), "unknown");
    let other = answer(200, "x-amz-checksum-crc32c: AAAAAA==\r\n", "");
    assert!(matches!(park(other).await, Err(ParkError::Checksum)));
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_corrected_by_s3_s_own() {
    let server = TestServer::start(|_| {
        answer(403, "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "RequestTimeTooSkewed")
    });
    let server = server.await;
    let s3 = S3Park::new(&settings(&server.url)).unwrap().unwrap();
    for _ in 0..2 {
        assert!(s3.park(&[]).await.is_err());
    }
    let seen = server.seen().pop().unwrap();
    assert!(seen.header("x-amz-date").unwrap().starts_with("19941106t0849"), "{}", seen.head);
}

#[tokio::test]
async fn certificates_are_read_from_the_file_that_is_named() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"no certificate").unwrap();
    let mut settings = settings("https://127.0.0.1:1");
    settings.spill.ca_file = Some(file.path().to_owned());
    assert!(matches!(S3Park::new(&settings), Err(StartError::Client(_))));
}
