//! Row 24: SIGTERM under load: everything is restarted in turn, brokers, MySQL, Redis and S3
//! among it; what could not be drained is told by the exit code; and the version before runs
//! beside this one.

use std::path::PathBuf;
use std::time::Duration;

use spillway_e2e::rig::Rig;
use spillway_e2e::{Fate, Sender, SenderOptions};
use spillway_testkit::stack::StackOptions;

use crate::sending::{Door, HEALED_WITHIN, Host, until};

/// A folder with programs of the version before this one (`spillway-agent`, …):
/// `cargo xtask drill previous` makes it.
const PREVIOUS: &str = "SPILLWAY_PREVIOUS";
const STOPS_WITHIN: Duration = Duration::from_secs(60);
/// "Something was left" (sysexits' EX_TEMPFAIL).
const LEFT: Option<i32> = Some(75);
const OURS: [&str; 6] =
    ["ingest-api-0", "ingest-api-1", "consumer-0", "consumer-1", "recovery-worker-0", "keeper"];

async fn restart(rig: &Rig, name: &str) -> Option<i32> {
    let code = rig.stack.terminate(name, STOPS_WITHIN).await.expect("it stops");
    rig.stack.start_process(name).await.expect("it starts again");
    code
}

fn two_of_each() -> StackOptions {
    StackOptions { apis: 2, consumers: 2, ..StackOptions::default() }
}

/// Restarts one server in the middle of a load of its own, every batch of which must be accepted
/// and counted; `why` tells it from others for the same server.
async fn restart_under_load(rig: &Rig, name: &str, why: &str) -> Option<i32> {
    let (pace, of) = (Duration::from_millis(250), format!("{why}-{name}"));
    let load =
        Sender::start(SenderOptions { windows: 50, hosts: 6, pace, name: of, ..rig.load("demo") });
    let accepted = async || load.ledger.batches(Fate::Ok).len() >= 20;
    until("the load runs", HEALED_WITHIN, accepted).await;
    let code = restart(rig, name).await;
    rig.judge(load).await;
    eprintln!("{name} restarted (exit code {code:?})");
    code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_everything_under_load_loses_nothing_and_every_exit_is_clean() {
    let rig = Rig::start(StackOptions { brokers: 3, ..two_of_each() }).await;
    let agent = rig.agent("rolling-agent", "demo").await;
    for name in OURS {
        assert_eq!(restart_under_load(&rig, name, "rolled").await, Some(0), "{name} drained");
    }
    assert_eq!(restart(&rig, "rolling-agent").await, Some(0), "the agent drained");
    for name in ["kafka-0", "kafka-1", "kafka-2", "mysql-s0", "redis", "s3"] {
        restart_under_load(&rig, name, "rolled").await;
    }
    rig.judge_agent(&agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_drained_is_told_by_the_exit_code_and_arrives_after_the_start() {
    let rig = Rig::start(StackOptions::default()).await;
    let agent = rig.agent("left-agent", "demo").await;
    rig.until("left-agent", "spillway_agent_batches_acked_total", |acked| acked >= 1.0).await;
    let (door, host) = (Door::of(&rig, "demo"), Host::new(&rig, "demo", "unanswered", 2));
    host.deliver(&door, &host.batch(0)).await;
    rig.stack.freeze("kafka-0").expect("it runs");
    host.post(&door, &host.batch(1)).await.must_be_later();
    let code = rig.stack.terminate("ingest-api-0", STOPS_WITHIN).await.expect("it stops");
    assert_eq!(code, LEFT, "a record has no word from Kafka");
    rig.stack.kill("s3").await.expect("it runs");
    rig.until("left-agent", "spillway_agent_spool_batches", |held| held >= 1.0).await;
    let code = rig.stack.terminate("left-agent", STOPS_WITHIN).await.expect("it stops");
    assert_eq!(code, LEFT, "its spool holds batches");
    rig.stack.thaw("kafka-0").expect("it is there");
    for name in ["s3", "ingest-api-0", "left-agent"] {
        rig.stack.start_process(name).await.expect("it starts again");
    }
    host.deliver(&door, &host.batch(1)).await;
    host.judge(&rig).await;
    rig.judge_agent(&agent).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs that version's programs: cargo xtask drill previous builds them and runs it"]
async fn the_version_before_runs_beside_this_one_in_any_mixture() {
    let previous = std::env::var_os(PREVIOUS).map(PathBuf::from);
    let previous = previous.expect("SPILLWAY_PREVIOUS names a folder with its programs");
    let rig = Rig::start(two_of_each()).await;
    let agent = rig.agent("mixed-agent", "demo").await;
    let all = [OURS.as_slice(), &["mixed-agent"]].concat();
    // Back, one after the other, in travel order; and forth in the other order.
    for name in &all {
        let changed = rig.stack.respec(name, |spec| {
            let file = spec.program.file_name().expect("a program").to_owned();
            spec.program = previous.join(file);
            assert!(spec.program.is_file(), "{} is missing", spec.program.display());
        });
        changed.expect("it is one of ours");
        assert_eq!(restart_under_load(&rig, name, "back").await, Some(0), "{name} drained");
    }
    for name in all.iter().rev() {
        let changed = rig.stack.respec(name, |spec| {
            let file = spec.program.file_name().expect("a program").to_owned();
            spec.program = spillway_testkit::binaries::program(&file.to_string_lossy(), false);
        });
        changed.expect("it is one of ours");
        let code = restart_under_load(&rig, name, "forth").await;
        assert_eq!(code, Some(0), "{name} of the version before drained");
    }
    rig.judge_agent(&agent).await;
}
