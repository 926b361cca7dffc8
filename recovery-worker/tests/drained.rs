//! What was parked arrives once, and is deleted only when consumers have stored it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod rig;

use std::collections::BTreeSet;

use rdkafka::types::RDKafkaRespErr;
use rig::objects::{frame, frame_of, id};
use rig::s3::{Fault, Spoil};
use rig::{PARTITIONS, Rig, claim_of, until};
use spillway_proto::partition::Partitioning;
use spillway_recovery_worker::bucket::Condition;
use spillway_runtime::settings::Dur;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_batch_reaches_the_backlog_as_the_api_would_have_sent_it() {
    let rig = Rig::start().await;
    let frames = [frame(1), frame(2), frame_of("demo", "db-9", 3)];
    rig.park(&frames).await;
    let worker = rig.worker();
    until("all published", async || worker.metrics.batches_drained.get() == 3).await;
    let mut records = rig.kafka.records().await;
    records.sort_by_key(|record| record.id.columns().2);
    let partitioning = Partitioning::new(PARTITIONS, 4).unwrap();
    let hosts = ["web-1", "web-1", "db-9"];
    for ((record, frame), (host, seq)) in records.iter().zip(&frames).zip(hosts.iter().zip(1..)) {
        assert_eq!(record.frame, frame.to_vec(), "the very same bytes");
        assert_eq!((record.id, record.environment.as_str()), (id(seq), "demo"));
        assert_eq!(record.partition, partitioning.partition_of("demo", host));
    }
    assert_eq!(records.len(), 3);
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_deleted_only_after_the_group_has_committed_past_all_of_it() {
    let rig = Rig::start().await;
    let key = rig.park(&[frame(1), frame_of("demo", "db-9", 2)]).await;
    let worker = rig.worker();
    until("published", async || worker.metrics.objects_awaiting.get() == 1).await;
    rig.after_looks(5).await;
    assert!(rig.exists(&key).await, "Kafka has it, but nobody has stored it");
    rig.kafka.commit_all().await;
    until("deleted", async || !rig.exists(&key).await).await;
    until("its claim gone", async || !rig.exists(&claim_of(&key)).await).await;
    // It is counted once all of it is done.
    until("counted", async || worker.metrics.objects_drained.get() == 1).await;
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_not_deleted_before_the_hold_time_is_over() {
    let rig = Rig::start().await;
    let key = rig.park(&[frame(1)]).await;
    let worker = rig.worker_with("worker-a", |drain| drain.hold = Dur::from_hours(1));
    until("published", async || worker.metrics.objects_awaiting.get() == 1).await;
    rig.kafka.commit_all().await;
    rig.after_looks(5).await;
    assert!(rig.exists(&key).await);
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_without_batches_goes_as_well() {
    let rig = Rig::start().await;
    let key = rig.park(&[]).await;
    let worker = rig.worker();
    until("deleted", async || !rig.exists(&key).await).await;
    assert!(rig.kafka.records().await.is_empty());
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_drain_one_bucket_and_every_object_is_published() {
    let rig = Rig::start().await;
    let mut keys = Vec::new();
    for seq in 1..=30 {
        keys.push(rig.park(&[frame(seq)]).await);
    }
    let (a, b) = (rig.worker_with("a", |_| ()), rig.worker_with("b", |_| ()));
    let published = || a.metrics.batches_drained.get() + b.metrics.batches_drained.get() >= 30;
    until("all published", async || published()).await;
    rig.kafka.commit_all().await;
    until("the bucket is empty", async || {
        rig.kafka.commit_all().await;
        rig.bucket.list_spill(None).await.is_ok_and(|page| page.objects.is_empty())
    })
    .await;
    let ids: BTreeSet<u64> =
        rig.kafka.records().await.iter().map(|record| record.id.columns().2).collect();
    assert_eq!(ids, (1..=30).collect());
    assert_eq!((a.stop().await, b.stop().await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_leaves_what_another_one_has_claimed() {
    let rig = Rig::start().await;
    rig.park(&[frame(1)]).await;
    let a = rig.worker_with("a", |_| ());
    until("published", async || a.metrics.objects_awaiting.get() == 1).await;
    let gets = rig.s3.gets();
    let b = rig.worker_with("b", |_| ());
    rig.after_looks(10).await;
    assert_eq!((b.metrics.batches_drained.get(), rig.s3.gets()), (0, gets));
    assert_eq!((a.stop().await, b.stop().await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_worker_goes_on_from_its_claims_without_publishing_again() {
    let rig = Rig::start().await;
    let key = rig.park(&[frame(1)]).await;
    let first = rig.worker();
    until("published", async || first.metrics.objects_awaiting.get() == 1).await;
    first.crash().await;
    let second = rig.worker();
    until("taken up again", async || second.metrics.objects_awaiting.get() == 1).await;
    rig.kafka.commit_all().await;
    until("deleted", async || !rig.exists(&key).await).await;
    assert_eq!(rig.kafka.records().await.len(), 1, "one copy in Kafka");
    assert_eq!(second.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_object_is_gone_is_swept_and_a_live_one_is_not() {
    let rig = Rig::start().await;
    let key = rig.park(&[frame(1)]).await;
    let orphan = claim_of(&rig::objects::new_key());
    rig.bucket.put(&orphan, bytes::Bytes::from_static(b"{}"), Condition::Always).await.unwrap();
    let worker = rig.worker();
    until("swept", async || !rig.exists(&orphan).await).await;
    until("published", async || worker.metrics.objects_awaiting.get() == 1).await;
    assert!(rig.exists(&claim_of(&key)).await);
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_away_costs_time_and_nothing_else() {
    let rig = Rig::start().await;
    rig.kafka.down();
    let key = rig.park(&[frame(1)]).await;
    let worker = rig.worker_with("a", |drain| drain.progress_timeout = Dur::from_secs(1));
    rig.after_looks(3).await;
    assert!(rig.exists(&key).await);
    assert_eq!(worker.metrics.paused.get(), 1);
    rig.kafka.up();
    until("published", async || worker.metrics.batches_drained.get() == 1).await;
    rig.kafka.commit_all().await;
    until("deleted", async || !rig.exists(&key).await).await;
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_kafka_refuses_for_now_is_published_later() {
    let rig = Rig::start().await;
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    rig.kafka.refuse_produce(error, 1);
    let key = rig.park(&[frame(1)]).await;
    let worker = rig.worker();
    until("published", async || worker.metrics.batches_drained.get() == 1).await;
    rig.kafka.commit_all().await;
    until("deleted", async || !rig.exists(&key).await).await;
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_pauses_while_consumers_lag_and_resumes_when_they_have_caught_up() {
    let rig = Rig::start().await;
    for seq in 1..=6 {
        rig.park(&[frame(seq)]).await;
    }
    let worker = rig.worker_with("a", |drain| {
        drain.lag_records_max = 2;
        drain.objects_in_flight = 1;
    });
    until("paused by lag", async || {
        worker.metrics.paused.get() == 1 && worker.metrics.backlog_lag_records.get() > 2
    })
    .await;
    rig.after_looks(1).await;
    let drained = worker.metrics.batches_drained.get();
    rig.after_looks(5).await;
    assert_eq!(worker.metrics.batches_drained.get(), drained, "nothing while they lag");
    until("all drained once they keep up", async || {
        rig.kafka.commit_all().await;
        worker.metrics.objects_drained.get() == 6
    })
    .await;
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_s3_answers_nothing_is_lost_and_it_drains_when_s3_is_well_again() {
    let spoils = [
        ("GET", "list-type=2", Fault::Status(500, "InternalError")),
        ("GET", "list-type=2", Fault::Hang),
        ("GET", "/spill/", Fault::Status(503, "SlowDown")),
        ("GET", "/spill/", Fault::Status(403, "AccessDenied")),
        ("GET", "/spill/", Fault::Truncate),
        ("GET", "/spill/", Fault::Garble),
        ("GET", "/spill/", Fault::Hang),
        ("GET", "/claims/", Fault::Status(500, "InternalError")),
        ("PUT", "/claims/", Fault::Status(503, "SlowDown")),
        ("PUT", "/claims/", Fault::Status(412, "PreconditionFailed")),
        ("HEAD", "/spill/", Fault::Status(500, "InternalError")),
        ("DELETE", "/spill/", Fault::Status(503, "SlowDown")),
        ("DELETE", "/claims/", Fault::Status(500, "InternalError")),
    ];
    let rig = Rig::start().await;
    let worker = rig.worker();
    for (seq, (method, part, fault)) in (1..).zip(spoils) {
        rig.s3.faults().add(Spoil { method, part, fault, times: 1 });
        let key = rig.park(&[frame(seq)]).await;
        let what = format!("{method} {part} {fault:?}: drained in the end");
        until(&what, async || {
            rig.kafka.commit_all().await;
            worker.metrics.objects_drained.get() == seq && rig.s3.faults().left() == 0
        })
        .await;
        assert!(rig.bucket.head(&key).await.unwrap().is_none(), "{what}");
    }
    assert_eq!(worker.metrics.objects_quarantined.get_or_create(&reason("broken-seal")).get(), 0);
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_claim_holds_up_no_object() {
    let rig = Rig::start().await;
    let key = rig.park(&[frame(1)]).await;
    let claim = bytes::Bytes::from_static(b"{}");
    rig.bucket.put(&claim_of(&key), claim, Condition::Always).await.unwrap();
    let spoil = Spoil { method: "GET", part: "/claims/", fault: Fault::Garble, times: u64::MAX };
    rig.s3.faults().add(spoil);
    let worker = rig.worker();
    until("drained, though its claim can never be read", async || {
        rig.kafka.commit_all().await;
        worker.metrics.objects_drained.get() == 1
    })
    .await;
    rig.s3.faults().heal();
    assert!(!rig.exists(&claim_of(&key)).await);
    assert_eq!(worker.stop().await, 0);
}

fn reason(reason: &'static str) -> spillway_recovery_worker::metrics::Reason {
    spillway_recovery_worker::metrics::Reason { reason }
}
