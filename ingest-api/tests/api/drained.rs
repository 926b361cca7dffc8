//! SIGTERM: what is in work is answered, nothing new is taken, and the exit code is true.

use spillway_proto::kafka_record::TOPIC_LIVE;
use spillway_runtime::program::Drained;
use spillway_runtime::settings::Dur;
use tokio::time::timeout;

use crate::stage::{PATIENCE, frame, hasty, request, stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_work_is_answered_and_its_connection_closed() {
    let stage = stage(|_| {}).await;
    let mut idle = stage.connect().await;
    let mut client = stage.connect().await;
    let whole = stage.request(&frame("demo", 1), &[]);
    let (most, last) = whole.split_at(whole.len() - 1);
    client.write(most).await;
    // Its head was read: the room for its body is taken.
    let arrived = async {
        while stage.metric("spillway_ingest_in_flight_bytes") == 0.0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, arrived).await.unwrap();
    stage.context.shutdown.trigger();
    client.write(last).await;
    let reply = client.reply().await;
    reply.is_accepted(1);
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(idle.reply_or_end().await.is_none(), "an idle connection is closed");
    let records = stage.records(TOPIC_LIVE).len();
    let drained = timeout(PATIENCE, stage.running).await.unwrap().unwrap().unwrap();
    assert!(matches!(drained, Drained::Everything));
    assert_eq!(records, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_drains_readiness_says_so_and_batches_are_still_taken() {
    let stage = stage(|settings| settings.http.drain_grace = Dur::from_secs(60)).await;
    stage.context.shutdown.trigger();
    let mut client = stage.connect().await;
    client.write(&request("GET", "/readyz", &[], b"")).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (503, Some("close")));
    let reply = stage.post(&frame("demo", 1)).await;
    reply.is_accepted(1);
    assert_eq!(reply.header("connection"), Some("close"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_kafka_never_spoke_of_are_told_at_the_end() {
    let stage = stage(hasty).await;
    stage.cluster.broker_down(-1).unwrap();
    stage.post(&frame("demo", 1)).await.is_later("kafka-slow");
    stage.context.shutdown.trigger();
    let drained = timeout(PATIENCE, stage.running).await.unwrap().unwrap().unwrap();
    let Drained::Left(what) = drained else { panic!("something was left") };
    assert!(what.contains("1 records have no word from Kafka"), "{what}");
}
