//! Row 7: the agent is killed at each kind of system call by which something becomes durable, at
//! the first, second, … one of every thread. (Every single call in turn: `crash_points`.)

use std::time::Duration;

use spillway_e2e::rig::{Rig, Totals};
use spillway_testkit::stack::StackOptions;

use crate::sending::HEALED_WITHIN;
use crate::sending::strace::Plain;

/// How books, segments and records reach the disk. (A rename takes place at an agent's very first
/// start and in quarantine only.)
const CALLS: [&str; 5] = ["fsync", "fallocate", "pwrite64", "fdatasync", "unlink"];
const NTH: [u32; 3] = [1, 2, 4];
const AGENT: &str = "mortal-agent";

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_write_and_sync_the_spool_keeps_its_word_and_no_seq_comes_twice() {
    let rig = Rig::start(StackOptions::default()).await;
    let agent = rig.agent(AGENT, "demo").await;
    rig.until(AGENT, "spillway_agent_batches_acked_total", |acked| acked >= 1.0).await;
    rig.stack.kill(AGENT).await.expect("it runs");
    let plain = Plain::of(&rig, AGENT);
    let mut lives = 1;
    for calls in CALLS {
        let mut died = 0;
        for nth in NTH {
            plain.under_strace(&rig, calls, &format!("signal=KILL:when={nth}"));
            lives += 1;
            if lives_until_acked(&rig).await {
                rig.stack.kill(AGENT).await.expect("it is there");
                eprintln!("{calls} #{nth}: not reached before a batch was acknowledged");
            } else {
                died += 1;
                eprintln!("{calls} #{nth}: killed");
            }
        }
        assert!(died > 0, "{calls} is how something becomes durable");
    }
    plain.alone(&rig);
    rig.stack.start_process(AGENT).await.expect("it opens whatever was left");
    rig.until(AGENT, "spillway_agent_batches_acked_total", |acked| acked >= 1.0).await;
    rig.judge_agent(&agent).await;
    let totals = Totals::read(&rig.mysql("demo"), AGENT).await;
    let cloned = rig.metrics("consumer-0").await.sum("spillway_consumer_batches_cloned_total");
    eprintln!("{lives} lives: {totals:?}");
    assert_eq!(cloned, 0.0, "a seq that comes twice with other content is a clone");
}

/// Starts the agent; whether it lived long enough to have a batch acknowledged.
async fn lives_until_acked(rig: &Rig) -> bool {
    // Not becoming ready is what a program that is killed at its start does.
    let started = rig.stack.start_process(AGENT).await;
    let until = tokio::time::Instant::now() + HEALED_WITHIN;
    while rig.stack.is_running(AGENT) {
        let acked = rig.stack.metrics(AGENT).await;
        if acked.is_ok_and(|m| m.sum("spillway_agent_batches_acked_total") >= 1.0) {
            return true;
        }
        assert!(tokio::time::Instant::now() < until, "neither dead nor delivering: {started:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}
