//! Row 23: the line between any two parts is cut, one way or both, and heals.

use std::sync::atomic::Ordering;
use std::time::Duration;

use spillway_e2e::rig::Rig;
use spillway_e2e::{Sender, SenderOptions};
use spillway_testkit::proxy::{Mode, Way};
use spillway_testkit::stack::{End, StackOptions};

use crate::storing::{HASTY_CONSUMER, Server, until};

/// Longer than the consumer's session, its statements' and the agent's requests' deadlines.
const CUT_FOR: Duration = Duration::from_secs(8);
/// Every line a batch may travel.
const LINES: [(End, End); 7] = [
    (End::Agent, End::IngestApi),
    (End::Agent, End::S3),
    (End::IngestApi, End::Kafka),
    (End::Consumer, End::Kafka),
    (End::Consumer, End::Mysql),
    (End::RecoveryWorker, End::S3),
    (End::RecoveryWorker, End::Kafka),
];
const CUTS: [Mode; 3] =
    [Mode::BlackHole, Mode::HalfOpen(Way::ToServer), Mode::HalfOpen(Way::ToClient)];

/// Whether a line carries anything only while the agent parks.
fn carries_what_is_parked((from, to): (End, End)) -> bool {
    to == End::S3 || from == End::RecoveryWorker
}

/// Bytes that passed a line in the way that a cut leaves open or closes.
fn passed(rig: &Rig, (from, to): (End, End), cut: Mode) -> u64 {
    let link = rig.stack.link(from, to).expect("asked for");
    let bytes = link.proxies().iter().map(|proxy| {
        let traffic = proxy.traffic();
        let there = traffic.to_server_bytes.load(Ordering::Relaxed);
        let back = traffic.to_client_bytes.load(Ordering::Relaxed);
        match cut {
            Mode::HalfOpen(Way::ToServer) => there,
            Mode::HalfOpen(Way::ToClient) => back,
            _ => there + back,
        }
    });
    bytes.sum()
}

/// What has passed once what was read before the cut is through.
async fn silenced(rig: &Rig, line: (End, End), cut: Mode) -> u64 {
    let mut last = None;
    until(&format!("{line:?} falls silent after {cut:?}"), async || {
        let now = Some(passed(rig, line, cut));
        std::mem::replace(&mut last, now) == now
    })
    .await;
    last.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_every_cut_of_every_line_one_way_and_both_nothing_is_lost_or_doubled() {
    let mut options = StackOptions::default().set("consumer", HASTY_CONSUMER);
    for (from, to) in LINES {
        options = options.link(from, to);
    }
    let rig = Rig::start(options).await;
    let server = Server::primary(&rig, "s0");
    let agent = rig.agent("cut-agent", "demo").await;
    let acked = "spillway_agent_batches_acked_total";
    let parked = "spillway_agent_batches_parked_total";
    rig.until("cut-agent", acked, |n| n >= 1.0).await;
    let pace = Duration::from_millis(1_500);
    let load = Sender::start(SenderOptions { windows: 340, series: 5, pace, ..rig.load("demo") });
    let to_api = rig.stack.link(End::Agent, End::IngestApi).expect("asked for");
    let link = |(from, to)| rig.stack.link(from, to).expect("asked for");
    for line in LINES {
        for cut in CUTS {
            if carries_what_is_parked(line) {
                let before = rig.metrics("cut-agent").await.sum(parked);
                to_api.set(Mode::Reset);
                rig.until("cut-agent", parked, |n| n > before).await;
            }
            link(line).set(cut);
            let closed = silenced(&rig, line, cut).await;
            tokio::time::sleep(CUT_FOR).await;
            let during = passed(&rig, line, cut) - closed;
            assert_eq!(during, 0, "{line:?} was to be cut by {cut:?}");
            let again = passed(&rig, line, cut);
            link(line).set(Mode::Pass);
            let flows = async || passed(&rig, line, cut) > again;
            until(&format!("{line:?} carries again after {cut:?}"), flows).await;
            // Only now: with the API back, nothing is parked any more.
            to_api.set(Mode::Pass);
            let before = server.audited().await;
            let applied = async || server.audited().await > before + 2;
            until(&format!("batches are applied again after {cut:?} of {line:?}"), applied).await;
            eprintln!("{line:?} {cut:?}: healed");
        }
    }
    rig.until("recovery-worker-0", "spillway_recovery_objects_drained_total", |n| n >= 1.0).await;
    let (ledger, _) = rig.judge(load).await;
    assert!(ledger.repeats() > 0, "the cuts were felt");
    rig.until("recovery-worker-0", "spillway_recovery_objects_pending", |n| n == 0.0).await;
    rig.judge_agent(&agent).await;
    assert_eq!(server.quarantined().await, 0, "nothing transient is in dead letters");
    until("nothing is left in S3", async || rig.stack.parked_objects() == 0).await;
}
