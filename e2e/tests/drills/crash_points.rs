//! Faults 5 and 7, exhaustively: every hop's program is killed, and the agent's calls are failed,
//! at the 1st, 2nd, 3rd … system call of each kind, until a run passes untouched.
//!
//! `strace` does it to the real programs (`apt install strace`), with one thread of Tokio's, since
//! it counts per thread. "Untouched" means: the batch of that run was stored and nothing died.
//! What a power cut leaves, and every single call of the spool, of the books and of quarantine, is
//! enumerated in the agent's own tests (`crash_points_tests.rs`), where a disk can forget.
//! All of it: about 5 minutes.

use std::time::Duration;

use spillway_e2e::rig::{Agent, Rig};
use spillway_e2e::{Sender, SenderOptions};
use spillway_testkit::proxy::Mode;
use spillway_testkit::stack::{End, StackOptions};
use tokio::time::Instant;

use crate::crash_points_strace::{Fault, Strace};

/// More calls of one kind than any batch's way takes; a loop that gets here proves nothing.
const CALLS_MAX: u32 = 60;
/// The work of one run.
const WORK_WITHIN: Duration = Duration::from_secs(90);
/// A program that was told to die at a call may have passed it: it is asked this often.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// `kill -9` needs no help.
const DEATH_WITHIN: Duration = Duration::from_secs(3_600);

/// What a thread of a server may wait in, take from others and give to others.
const SERVER_CALLS: [&str; 7] =
    ["recvfrom", "sendto", "writev", "sendmsg", "recvmsg", "write", "epoll_wait"];
/// What changes the agent's files.
const FILE_CALLS: [&str; 7] =
    ["pwrite64", "fdatasync", "fsync", "rename", "fallocate", "ftruncate", "unlink"];
const ACKED: &str = "spillway_agent_batches_acked_total";

async fn rig(options: StackOptions) -> Rig {
    let mut options = options;
    for program in ["ingest-api", "consumer", "recovery-worker", "agent"] {
        options = options.env(program, "TOKIO_WORKER_THREADS", "1");
    }
    Rig::start(options).await
}

fn pid(rig: &Rig, name: &str) -> i32 {
    let file = rig.stack.file();
    let process = file.processes.iter().find(|process| process.name == name);
    process.and_then(|process| process.pid).expect("it runs")
}

/// A batch or two for each run, so that what is lost or doubled is known by the run.
fn load(rig: &Rig, name: String) -> Sender {
    let one = SenderOptions { hosts: 1, windows: 2, series: 5, name, ..rig.load("demo") };
    Sender::start(SenderOptions { pace: Duration::ZERO, ..one })
}

/// Kills `program` at its nth `call`, n = 1, 2, …, each time while a load of its own runs, and
/// compares that load once the program is back. Returns how many calls there were to die at.
async fn dies_at_every(rig: &Rig, program: &str, call: &str) -> u32 {
    for nth in 1..CALLS_MAX {
        let traced = Strace::attach(pid(rig, program), call, Fault::Kill, nth).await;
        let mut judged = Box::pin(rig.judge(load(rig, format!("{call}-{nth:02}"))));
        let died = tokio::select! {
            died = rig.stack.wait_exit(program, DEATH_WITHIN) => { died.expect("it dies"); true }
            _ = &mut judged => false,
        };
        drop(traced);
        if !died {
            return nth - 1;
        }
        rig.stack.start_process(program).await.expect("it starts again");
        judged.await;
    }
    panic!("{program} never gets past its {CALLS_MAX} calls of {call}");
}

async fn dies_at_every_call(rig: &Rig, program: &str, calls: &[&str]) {
    let mut points = 0;
    for call in calls {
        let died = dies_at_every(rig, program, call).await;
        println!("crash points: {program} died at {died} calls of {call}, one after the other");
        points += died;
    }
    assert!(points >= 5, "{points} deaths of {program} are not what a batch's way takes");
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_points_of_publish_leave_no_2xx_without_its_copy_and_no_second_copy() {
    let rig = rig(StackOptions::default()).await;
    dies_at_every_call(&rig, "ingest-api-0", &SERVER_CALLS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_points_of_store_lose_nothing_and_apply_nothing_twice() {
    let rig = rig(StackOptions::default()).await;
    // MySQL and Redis: sendto, write, recvfrom. Kafka: sendmsg, recvmsg.
    dies_at_every_call(&rig, "consumer-0", &["sendto", "write", "recvfrom", "sendmsg", "recvmsg"])
        .await;
}

/// Whether a program lives until `metric` has grown by `enough`.
async fn works(rig: &Rig, (program, metric): (&str, &str), enough: f64) -> bool {
    let until = Instant::now() + WORK_WITHIN;
    let mut before = None;
    while rig.stack.is_running(program) {
        assert!(Instant::now() < until, "{metric} of {program} stands still");
        if let Ok(metrics) = rig.stack.metrics(program).await {
            let now = metrics.sum(metric);
            if now - *before.get_or_insert(now) >= enough {
                return true;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    false
}

/// Kills a program that has work all the time at every nth `call`. Returns how often it died.
async fn dies_at_work(rig: &Rig, (program, metric): (&str, &str), call: &str) -> u32 {
    for nth in 1..CALLS_MAX {
        let traced = Strace::attach(pid(rig, program), call, Fault::Kill, nth).await;
        // Two, so that one of them began after the fault was in place.
        let died = !works(rig, (program, metric), 2.0).await;
        drop(traced);
        if !died {
            return nth - 1;
        }
        rig.stack.start_process(program).await.expect("it starts again");
    }
    panic!("{program} never gets past its {CALLS_MAX} calls of {call}");
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_points_of_retire_delete_nothing_undrained_and_store_nothing_twice() {
    let hasty = "[drain]\npoll_period = \"200ms\"\nhold = \"100ms\"\n";
    let options = StackOptions::default().set("recovery-worker-0", hasty);
    let rig = rig(options.link(End::Agent, End::IngestApi)).await;
    let link = rig.stack.link(End::Agent, End::IngestApi).expect("it was asked for");
    link.set(Mode::Reset);
    let agent = rig.agent("parking-agent", "demo").await;
    let worker = ("recovery-worker-0", "spillway_recovery_objects_drained_total");
    let mut points = 0;
    for call in ["write", "writev", "recvfrom", "sendmsg", "recvmsg"] {
        let died = dies_at_work(&rig, worker, call).await;
        println!("crash points: {} died at {died} calls of {call}", worker.0);
        points += died;
    }
    assert!(points >= 5, "{points} deaths are not what an object's way takes");
    link.set(Mode::Pass);
    rig.until(worker.0, "spillway_recovery_objects_pending", |pending| pending == 0.0).await;
    rig.judge_agent(&agent).await;
}

/// An agent that is down, with a state of some lives.
async fn agent_that_is_down(rig: &Rig, name: &str) -> Agent {
    let agent = rig.agent(name, "demo").await;
    rig.until(name, ACKED, |acked| acked >= 1.0).await;
    rig.stack.kill(name).await.expect("it runs");
    agent
}

/// Starts the agent with a fault at its nth `call`, n = 1, 2, …, until it has sent a batch of that
/// life untouched; each life ends with `kill -9`. Returns how often the fault came.
async fn from_exec(rig: &Rig, name: &str, call: &str, fault: Fault) -> u32 {
    let file = rig.stack.file();
    let process = file.processes.iter().find(|process| process.name == name);
    let command = &process.expect("it is one of ours").restart;
    for nth in 1..CALLS_MAX {
        let mut traced = Strace::start(command, call, fault, nth);
        let until = Instant::now() + WORK_WITHIN;
        while !traced.has_ended() {
            assert!(Instant::now() < until, "{name} neither sends nor dies at {call} {nth}");
            let metrics = rig.stack.metrics(name).await;
            if metrics.is_ok_and(|metrics| metrics.sum(ACKED) >= 1.0) {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        if !traced.has_injected() {
            return nth - 1;
        }
    }
    panic!("{name} never gets past its {CALLS_MAX} calls of {call}");
}

/// All of the agent's calls that change its files, from exec to its first batch that was taken.
async fn lives_through(rig: &Rig, name: &str, fault: Fault) {
    let agent = agent_that_is_down(rig, name).await;
    let mut points = 0;
    for call in FILE_CALLS {
        let came = from_exec(rig, name, call, fault).await;
        println!("crash points: {fault:?} at {came} calls of {call}, a life each");
        points += came;
    }
    assert!(points >= 8, "{points} are not what a start and a batch take");
    rig.stack.start_process(name).await.expect("it starts again");
    rig.until(name, ACKED, |acked| acked >= 1.0).await;
    rig.judge_agent(&agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_points_of_spool_lose_nothing_that_was_stored_and_reuse_no_seq() {
    let rig = rig(StackOptions::default()).await;
    lives_through(&rig, "dying-agent", Fault::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_points_of_the_disk_fail_one_by_one_and_the_agent_loses_nothing() {
    let rig = rig(StackOptions::default()).await;
    lives_through(&rig, "eio-agent", Fault::Eio).await;
    lives_through(&rig, "enospc-agent", Fault::Enospc).await;
}
