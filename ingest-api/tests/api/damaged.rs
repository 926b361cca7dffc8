//! Bytes that are no batch: each damage ends in a typed refusal, nothing of it is published, and
//! the process goes on.

use bytes::Bytes;
use spillway_proto::kafka_record::TOPIC_LIVE;
use spillway_proto::verdict::Refusal;

use crate::stage::{Reply, frame, joined, stage};

/// One typed refusal, of the batch or of the body.
fn is_typed(reply: &Reply, what: &str) {
    let refusal = match reply.status {
        200 => {
            assert_eq!(reply.body["accepted"], 0, "{what}: {reply:?}");
            reply.body["rejected"][0]["type"].clone()
        }
        400 => {
            reply.is_problem("undecodable-body");
            reply.body["refusal"].clone()
        }
        _ => panic!("{what}: {reply:?}"),
    };
    assert!(serde_json::from_value::<Refusal>(refusal).is_ok(), "{what}: {reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_damaged_at_any_byte_is_refused_by_name() {
    let stage = stage(|_| {}).await;
    let whole = frame("demo", 1);
    let mut client = stage.connect().await;
    for place in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = whole.to_vec();
            *damaged.get_mut(place).unwrap() ^= flip;
            client.write(&stage.request(&Bytes::from(damaged), &[])).await;
            is_typed(&client.reply().await, &format!("byte {place} ^ {flip:#x}"));
        }
    }
    assert_eq!(stage.records(TOPIC_LIVE).len(), 0);
    stage.post(&whole).await.is_accepted(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_cut_at_any_byte_is_refused_by_name() {
    let stage = stage(|_| {}).await;
    let whole = frame("demo", 1);
    let mut client = stage.connect().await;
    for end in 1..whole.len() {
        client.write(&stage.request(&whole.slice(..end), &[])).await;
        is_typed(&client.reply().await, &format!("cut at {end}"));
    }
    assert_eq!(stage.records(TOPIC_LIVE).len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_batch_does_not_hold_up_the_others_of_its_request() {
    let stage = stage(|_| {}).await;
    let mut damaged = frame("demo", 2).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let other = frame("acme", 3);
    let body = joined(&[frame("demo", 1), Bytes::from(damaged), other, frame("demo", 4)]);
    let reply = stage.post(&body).await;
    reply.is_accepted(2);
    let rejected = reply.body["rejected"].as_array().unwrap();
    let types: Vec<_> = rejected.iter().map(|one| (&one["index"], &one["type"])).collect();
    let (two, three) = (serde_json::json!(1), serde_json::json!(2));
    let (damage, other) =
        (serde_json::json!("undecodable-frame"), serde_json::json!("environment-mismatch"));
    assert_eq!(types, [(&two, &damage), (&three, &other)]);
    assert_eq!(stage.records(TOPIC_LIVE).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_can_not_be_cut_publishes_nothing() {
    let stage = stage(|_| {}).await;
    let body = joined(&[frame("demo", 1), Bytes::from_static(b"and so on"), frame("demo", 2)]);
    let reply = stage.post(&body).await;
    assert_eq!((reply.status, &reply.body["index"]), (400, &serde_json::json!(1)));
    assert_eq!(stage.records(TOPIC_LIVE).len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_claims_to_be_huge_once_decompressed_is_refused_unread() {
    let stage = stage(|_| {}).await;
    let mut bomb = frame("demo", 1).to_vec();
    bomb.get_mut(16..20).unwrap().copy_from_slice(&u32::MAX.to_le_bytes());
    let reply = stage.post(&Bytes::from(bomb)).await;
    assert_eq!((reply.status, &reply.body["refusal"]), (400, &"limit-exceeded".into()));
}
