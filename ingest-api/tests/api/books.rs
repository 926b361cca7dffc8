//! Conservation from `/metrics` alone: whatever becomes of what a sender brought, it is counted.

use spillway_runtime::settings::Dur;
use tokio::time::timeout;

use crate::stage::{PATIENCE, Stage, frame, joined, stage};

/// The sum of `spillway_ingest_<unit>_<fate>` over its labels.
fn sum(stage: &Stage, unit: &str, fate: &str) -> f64 {
    let name = format!("spillway_ingest_{unit}_{fate}");
    let text = stage.context.metrics.encode();
    let lines = text
        .lines()
        .filter(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_received_is_accepted_rejected_not_taken_or_in_flight() {
    let stage = stage(|settings| settings.http.answer_within = Dur::from_secs(3)).await;
    let of = |unit, fates: [&str; 5]| fates.map(|fate| sum(&stage, unit, fate));
    let fates =
        ["received_total", "accepted_total", "rejected_total", "not_taken_total", "in_flight"];
    stage.post(&joined(&[frame("demo", 1), frame("acme", 2)])).await.is_accepted(1);
    assert_eq!(of("batches", fates), [2.0, 1.0, 1.0, 0.0, 0.0]);
    assert_eq!(of("points", fates), [10.0, 5.0, 5.0, 0.0, 0.0]);
    // Lines of which two have no place: a batch of two points.
    let lines = b"a b=1 1000000\nnonsense\na b=2 2000000\n,x y=1\n";
    assert_eq!(stage.send("/write?db=x", &[], lines).await.status, 400);
    assert_eq!(of("batches", fates), [3.0, 2.0, 1.0, 0.0, 0.0]);
    assert_eq!(of("points", fates), [14.0, 7.0, 7.0, 0.0, 0.0]);
    stage.cluster.broker_down(-1).unwrap();
    stage.post(&frame("demo", 3)).await.is_later("kafka-slow");
    assert_eq!(of("batches", fates), [4.0, 2.0, 1.0, 1.0, 0.0]);
    // While one waits it is in flight; who hangs up heard nothing.
    let mut client = stage.connect().await;
    client.write(&stage.request(&frame("demo", 4), &[])).await;
    let waits = async {
        while sum(&stage, "points", "in_flight") != 5.0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waits).await.unwrap();
    drop(client);
    let ends = async {
        while sum(&stage, "points", "in_flight") != 0.0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ends).await.unwrap();
    assert_eq!(of("points", fates), [24.0, 7.0, 7.0, 10.0, 0.0]);
    stage.cluster.broker_up(-1).unwrap();
}
