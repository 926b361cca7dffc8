//! Objects that nobody honest made: set aside with their reason, never deleted, never published.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod rig;

use bytes::Bytes;
use rig::objects::{Sealer, frame, frame_of};
use rig::{Rig, quarantined, until};
use spillway_proto::limits::SEALED_OBJECT_BYTES_MAX;
use spillway_recovery_worker::bucket::Condition;
use spillway_runtime::settings::Dur;

/// Puts an object, and waits until it is in quarantine for this reason, byte for byte.
async fn ends_in_quarantine(rig: &Rig, reason: &str, make: impl FnOnce(&str) -> Vec<u8>) {
    let mut made = Vec::new();
    let key = rig
        .put_spill(|key| {
            made = make(key);
            made.clone()
        })
        .await;
    until(&format!("{reason}: removed from spill/"), async || !rig.exists(&key).await).await;
    let (copy, _) = rig.bucket.get(&quarantined(&key), None, 1 << 30).await.unwrap();
    assert_eq!(copy, Bytes::from(made), "{reason}: the bytes are kept");
    let told = rig.quarantine_reason(&key).await;
    assert_eq!((told["reason"].as_str(), told["object"].as_str()), (Some(reason), Some(&*key)));
    assert!(!told.to_string().contains(&rig.token), "no secret in the reason's file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_opened_is_set_aside_with_its_reason() {
    let rig = Rig::start().await;
    let worker = rig.worker();
    let frames = [frame(1)];
    ends_in_quarantine(&rig, "not-sealed", |_| b"hello".to_vec()).await;
    ends_in_quarantine(&rig, "not-sealed", |_| Vec::new()).await;
    ends_in_quarantine(&rig, "unknown-key", |key| Sealer::new().seal(key, &rig.token, &frames))
        .await;
    ends_in_quarantine(&rig, "broken-seal", |key| {
        let mut object = rig.sealer.seal(key, &rig.token, &frames);
        *object.last_mut().unwrap() ^= 1;
        object
    })
    .await;
    ends_in_quarantine(&rig, "broken-seal", |_| {
        rig.sealer.seal("spill/0123456789abcdef0123456789abcdef", &rig.token, &frames)
    })
    .await;
    ends_in_quarantine(&rig, "not-sealed", |key| rig.sealer.seal_bytes(key, &[0xff; 64])).await;
    assert!(rig.kafka.records().await.is_empty());
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_entitled_is_set_aside_with_the_reason() {
    let rig = Rig::start().await;
    let hour = jiff::SignedDuration::from_hours(1);
    let now = jiff::Timestamp::now();
    let revoked = rig.add_token("demo", |row| row.revoked = Some(now - hour));
    let expired = rig.add_token("demo", |row| row.expires = Some(now - hour));
    let future = rig.add_token("demo", |row| row.created = now + hour);
    let cases = [
        ("token-malformed", "nonsense".to_owned()),
        ("token-malformed", String::new()),
        ("token-unknown", "spw_nobody_secret".to_owned()),
        ("token-wrong-secret", format!("{}x", rig.token)),
        ("token-revoked", revoked),
        ("token-expired", expired),
        ("token-not-yet-valid", future),
    ];
    let worker = rig.worker();
    let objects = cases.len() as u64;
    for (reason, token) in cases {
        let frames = [frame(1), frame(2)];
        ends_in_quarantine(&rig, reason, |key| rig.sealer.seal(key, &token, &frames)).await;
    }
    let points = spillway_proto::frame::points_claimed(&frame(1)) as u64;
    let counted =
        || (worker.metrics.batches_quarantined.get(), worker.metrics.points_quarantined.get());
    let all = (objects * 2, objects * 2 * points);
    until("what they hold is counted", async || counted() == all).await;
    assert!(rig.kafka.records().await.is_empty());
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_revoked_later_still_counts_for_what_arrived_before() {
    let rig = Rig::start().await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let token = rig.add_token("demo", |row| row.revoked = Some(soon));
    rig.put_spill(|key| rig.sealer.seal(key, &token, &[frame(1)])).await;
    let worker = rig.worker();
    until("published", async || worker.metrics.batches_drained.get() == 1).await;
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_frames_beside_bad_ones_are_published_and_the_object_is_set_aside() {
    let rig = Rig::start().await;
    let worker = rig.worker();
    ends_in_quarantine(&rig, "frames-refused", |key| {
        let frames = [frame(1), frame_of("acme", "web-1", 2), frame(3), Bytes::from_static(b"x")];
        rig.sealer.seal(key, &rig.token, &frames)
    })
    .await;
    let mut seqs: Vec<u64> =
        rig.kafka.records().await.iter().map(|record| record.id.columns().2).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, [1, 3], "another environment's batch is not ours to publish");
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_the_listing_calls_too_large_is_never_read() {
    let rig = Rig::start().await;
    let worker = rig.worker();
    ends_in_quarantine(&rig, "too-large", |_| vec![0; SEALED_OBJECT_BYTES_MAX + 1]).await;
    assert_eq!(rig.s3.gets(), 0);
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replaced_a_drained_object_is_not_deleted_in_its_stead() {
    let rig = Rig::start().await;
    let key = rig.park(&[frame(1)]).await;
    let worker = rig.worker();
    until("published", async || worker.metrics.objects_awaiting.get() == 1).await;
    let other = Bytes::from(rig.sealer.seal(&key, &rig.token, &[frame(2)]));
    rig.bucket.put(&key, other, Condition::Always).await.unwrap();
    until("deleted once both are stored", async || {
        rig.kafka.commit_all().await;
        !rig.exists(&key).await
    })
    .await;
    assert_eq!(rig.kafka.records().await.len(), 2, "the new content was published as well");
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_no_agent_makes_are_left_alone_and_shown() {
    let rig = Rig::start().await;
    let foreign = Bytes::from_static(b"x");
    rig.bucket.put("spill/readme.txt", foreign, Condition::Always).await.unwrap();
    let worker = rig.worker();
    until("shown", async || worker.metrics.objects_foreign.get() == 1).await;
    rig.after_looks(3).await;
    assert!(rig.exists("spill/readme.txt").await);
    assert_eq!((worker.metrics.objects_pending.get(), rig.s3.gets()), (0, 0));
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_can_not_be_read_keeps_nobody_away() {
    let rig = Rig::start().await;
    let key = rig.park(&[frame(1)]).await;
    let torn = Bytes::from_static(b"{\"owner\":\"some");
    rig.bucket.put(&rig::claim_of(&key), torn, Condition::Always).await.unwrap();
    let worker = rig.worker();
    until("published", async || worker.metrics.batches_drained.get() == 1).await;
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_about_another_content_or_cluster_proves_nothing() {
    let rig = Rig::start().await;
    let key = rig.park(&[frame(1)]).await;
    let places = "[{\"topic\":\"spillway.backlog\",\"partition\":0,\"offset\":0}]";
    let claim = format!(
        "{{\"owner\":\"x\",\"expires_ms\":0,\"etag\":\"\\\"other\\\"\",\"cluster\":\"other\",\
         \"published\":{places}}}"
    );
    rig.bucket.put(&rig::claim_of(&key), Bytes::from(claim), Condition::Always).await.unwrap();
    let worker = rig.worker_with("a", |drain| drain.claim_life = Dur::from_secs(10));
    until("published", async || worker.metrics.batches_drained.get() == 1).await;
    assert_eq!(worker.stop().await, 0);
}
