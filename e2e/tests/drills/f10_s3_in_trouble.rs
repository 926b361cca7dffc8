//! Row 10: S3 is reset, silent, refuses with 403, is dead, slow, or lists late, while it is the
//! only way out, and while the worker drains it. (500, 503 SlowDown, 412, a truncated and a garbled
//! GET: `recovery-worker/tests/drained.rs` and `agent/src/deliver/s3_park_tests.rs`.)

use std::fs;
use std::time::Duration;

use spillway_e2e::rig::{Agent, HASTY_AGENT, Rig};
use spillway_testkit::proxy::Mode;
use spillway_testkit::stack::{AgentOptions, End, StackOptions};

use crate::sending::{HEALED_WITHIN, until};

const AGENT: &str = "parking-agent";
/// Slow, but an object of some kilobytes arrives within the agent's own deadline.
const SLOW: Mode = Mode::Bandwidth(8_000);

async fn failed_puts(rig: &Rig) -> f64 {
    let metrics = rig.metrics(AGENT).await;
    let to_s3 =
        |labels: &[(&str, &str)]| metrics.sum_where("spillway_agent_requests_total", labels);
    to_s3(&[("target", "s3")]) - to_s3(&[("target", "s3"), ("outcome", "done")])
}

/// Waits until the agent has tried and failed once more, and holds everything all the same.
async fn one_more_put_fails(rig: &Rig, what: &str) {
    let before = failed_puts(rig).await;
    until(what, HEALED_WITHIN, async || failed_puts(rig).await > before).await;
    let metrics = rig.metrics(AGENT).await;
    let sum = |name: &str| metrics.sum(&format!("spillway_agent_batches_{name}_total"));
    let held = metrics.sum("spillway_agent_spool_batches");
    assert_eq!(sum("emitted"), sum("acked") + sum("parked") + held, "{what}: nothing is dropped");
    assert_eq!((sum("parked"), sum("declared")), (0.0, 0.0), "{what}");
}

/// S3 answers 403 to agents while their key's secret is another.
async fn agents_key(rig: &Rig, good: bool) {
    let file = rig.stack.dir().join("config/s3.json");
    let text = fs::read_to_string(&file).expect("S3's settings");
    let secret = rig.stack.file().s3.agent_secret_key;
    let wrong = secret.chars().rev().collect::<String>();
    let text = if good { text.replace(&wrong, &secret) } else { text.replace(&secret, &wrong) };
    fs::write(&file, text).expect("S3's settings");
    if rig.stack.is_running("s3") {
        rig.stack.kill("s3").await.expect("it runs");
    }
    rig.stack.start_process("s3").await.expect("it starts again");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_s3_does_nothing_is_dropped_and_everything_arrives_once() {
    let options =
        StackOptions::default().link(End::Agent, End::S3).link(End::RecoveryWorker, End::S3);
    let rig = Rig::start(options).await;
    let mut agent = AgentOptions::new(AGENT, "demo", AGENT);
    agent.toml = format!("{HASTY_AGENT}[spill]\nrequest_timeout = \"3s\"\n");
    rig.stack.spawn_agent(agent).await.expect("the agent starts");
    rig.until(AGENT, "spillway_agent_batches_acked_total", |acked| acked >= 1.0).await;
    let to_s3 = rig.stack.link(End::Agent, End::S3).expect("it was asked for");
    to_s3.set(Mode::Reset);
    rig.stack.kill("ingest-api-0").await.expect("it runs");
    one_more_put_fails(&rig, "reset").await;
    to_s3.set(Mode::BlackHole);
    one_more_put_fails(&rig, "silent").await;
    to_s3.set(Mode::Pass);
    agents_key(&rig, false).await;
    one_more_put_fails(&rig, "403").await;
    rig.stack.kill("s3").await.expect("it runs");
    one_more_put_fails(&rig, "dead").await;
    to_s3.set(SLOW);
    agents_key(&rig, true).await;
    rig.until(AGENT, "spillway_agent_batches_parked_total", |parked| parked >= 2.0).await;
    drained_through_trouble(&rig).await;
    rig.stack.start_process("ingest-api-0").await.expect("it comes back");
    rig.judge_agent(&Agent { name: AGENT.into(), environment: "demo".into() }).await;
}

/// The worker meets a silent, a resetting, a dead and a slow S3, and one that lists late.
async fn drained_through_trouble(rig: &Rig) {
    const WORKER: &str = "recovery-worker-0";
    let link = rig.stack.link(End::RecoveryWorker, End::S3).expect("it was asked for");
    let errors = "spillway_recovery_s3_errors_total";
    for trouble in [Mode::Reset, Mode::BlackHole] {
        let before = rig.metrics(WORKER).await.sum(errors);
        link.set(trouble);
        rig.until(WORKER, errors, |now| now > before).await;
        link.set(Mode::Pass);
    }
    // An object that the listing does not show yet.
    let (spill, hidden) = (rig.stack.bucket_dir().join("spill"), rig.stack.dir().join("hidden"));
    rig.stack.kill(WORKER).await.expect("it runs");
    let parked = rig.metrics(AGENT).await.sum("spillway_agent_batches_parked_total");
    rig.until(AGENT, "spillway_agent_batches_parked_total", |now| now > parked).await;
    let object = fs::read_dir(&spill)
        .expect("the prefix")
        .flatten()
        .find(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    let object = object.expect("an object").path();
    fs::rename(&object, &hidden).expect("it is hidden");
    rig.stack.start_process(WORKER).await.expect("it starts again");
    link.set(Mode::Bandwidth(50_000));
    let pending = "spillway_recovery_objects_pending";
    rig.until(WORKER, pending, |n| n == 0.0).await;
    link.set(Mode::Delay(Duration::from_millis(20)));
    fs::rename(&hidden, &object).expect("it shows at last");
    rig.until(WORKER, "spillway_recovery_objects_drained_total", |n| n >= 1.0).await;
    until("all is drained", HEALED_WITHIN, async || rig.stack.parked_objects() == 0).await;
    link.set(Mode::Pass);
}
