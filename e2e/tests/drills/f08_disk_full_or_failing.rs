//! Row 8: the agent's disk is full, or fails at writing, syncing, renaming and reading, while it
//! is all that the agent has: API and S3 are down.

use std::path::{Path, PathBuf};

use spillway_e2e::rig::{Agent, HASTY_AGENT, Rig, Totals};
use spillway_proto::frame::MAGIC;
use spillway_testkit::stack::{AgentOptions, StackOptions};
use sqlx::Row as _;

use crate::sending::disk::SmallDisk;
use crate::sending::strace::Injection;
use crate::sending::{HEALED_WITHIN, until};

/// The least that the settings allow: four segments, each of two of the largest batches.
const SMALL_SPOOL: &str = r#"
[spool]
bytes_max = "8MiB"
segment_bytes = "2MiB"
live_reserve = "2MiB"
free_space_floor = "0B"
"#;

const AGENT: &str = "cramped-agent";

async fn start(rig: &Rig, disk: &SmallDisk, more: &str) -> Agent {
    let mut options = AgentOptions::new(AGENT, "demo", AGENT);
    options.state_dir = Some(disk.path().join("state"));
    options.toml = format!("{HASTY_AGENT}{SMALL_SPOOL}{more}");
    rig.stack.spawn_agent(options).await.expect("the agent starts");
    rig.until(AGENT, "spillway_agent_batches_acked_total", |acked| acked >= 1.0).await;
    Agent { name: AGENT.into(), environment: "demo".into() }
}

fn segments(disk: &SmallDisk) -> Vec<PathBuf> {
    let files = std::fs::read_dir(disk.path().join("state/spool")).expect("the spool");
    let segments = files.flatten().map(|file| file.path());
    segments.filter(|path| path.extension().is_some_and(|e| e == "spool")).collect()
}

fn frames(segment: &Path) -> usize {
    let bytes = std::fs::read(segment).unwrap_or_default();
    bytes.windows(MAGIC.len()).filter(|window| *window == MAGIC).count()
}

async fn number(rig: &Rig, metric: &str) -> f64 {
    rig.metrics(AGENT).await.sum(metric)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_the_agent_goes_on_tries_s3_and_returns_to_disk_when_there_is_space() {
    let rig = Rig::start(StackOptions::default()).await;
    let disk = SmallDisk::mount(12);
    let agent = start(&rig, &disk, "").await;
    rig.stack.kill("ingest-api-0").await.expect("it runs");
    rig.stack.kill("s3").await.expect("it runs");
    let ballast = disk.fill();
    // The segment in use fails as well: the next one finds no space.
    let failing = Injection::attach(&rig, AGENT, "fdatasync", "error=EIO").await;
    let errors = "spillway_agent_spool_errors_total";
    rig.until(AGENT, errors, |errors| errors >= 1.0).await;
    drop(failing);
    rig.until(AGENT, "spillway_agent_spool_batches", |held| held >= 2.0).await;
    assert!(rig.stack.is_running(AGENT));
    assert_eq!(number(&rig, "spillway_agent_batches_declared_total").await, 0.0);
    // With S3 back, what memory holds goes there: the disk is still full.
    rig.stack.start_process("s3").await.expect("it comes back");
    rig.until(AGENT, "spillway_agent_batches_parked_total", |parked| parked >= 1.0).await;
    rig.stack.kill("s3").await.expect("it runs");
    let full = segments(&disk);
    ballast.clear();
    // Segments made since hold whatever waited in memory, and what came after.
    until("batches are on disk again", HEALED_WITHIN, async || {
        let held = number(&rig, "spillway_agent_spool_batches").await;
        let new = segments(&disk).into_iter().filter(|segment| !full.contains(segment));
        held >= 1.0 && new.map(|segment| frames(&segment)).sum::<usize>() as f64 >= held
    })
    .await;
    rig.stack.kill(AGENT).await.expect("it lives");
    rig.stack.start_process(AGENT).await.expect("what is on disk is there");
    rig.stack.start_process("s3").await.expect("it comes back");
    rig.stack.start_process("ingest-api-0").await.expect("it comes back");
    rig.until(AGENT, "spillway_agent_spool_batches", |held| held == 0.0).await;
    rig.judge_agent(&agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_on_a_full_disk_is_declared_by_name_and_counted() {
    let rig = Rig::start(StackOptions::default()).await;
    let disk = SmallDisk::mount(12);
    start(&rig, &disk, "age_max = \"15s\"\n").await;
    rig.stack.kill("ingest-api-0").await.expect("it runs");
    rig.stack.kill("s3").await.expect("it runs");
    let ballast = disk.fill();
    let declared = "spillway_agent_batches_declared_total";
    rig.until(AGENT, declared, |declared| declared >= 2.0).await;
    ballast.clear();
    rig.stack.start_process("s3").await.expect("it comes back");
    rig.stack.start_process("ingest-api-0").await.expect("it comes back");
    let acked = number(&rig, "spillway_agent_batches_acked_total").await;
    rig.until(AGENT, "spillway_agent_batches_acked_total", |now| now > acked).await;
    let declared = number(&rig, declared).await;
    let code = rig.stack.terminate(AGENT, HEALED_WITHIN).await.expect("it stops");
    assert_eq!(code, Some(0), "its spool was empty in the end");
    let mysql = rig.mysql("demo");
    until("the rest is applied", HEALED_WITHIN, async || {
        let totals = Totals::read(&mysql, AGENT).await;
        totals.closed == 1 && totals.applied + totals.declared == totals.highest
    })
    .await;
    let totals = Totals::read(&mysql, AGENT).await;
    let gaps = "SELECT state, reason FROM spillway.gaps WHERE host = ?";
    let gaps = sqlx::query(gaps).bind(AGENT).fetch_all(&mysql).await.expect("gaps are readable");
    eprintln!("{declared} declared by the agent; {totals:?}");
    assert_eq!(totals.declared as f64, declared, "every one that the agent gave up is known");
    assert!(!gaps.is_empty());
    for gap in gaps {
        let text = |at: usize| gap.try_get_unchecked::<String, _>(at).expect("a text");
        assert_eq!((text(0).as_str(), text(1).as_str()), ("declared", "spool-too-old"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eio_at_each_kind_of_call_loses_nothing_and_heals() {
    let rig = Rig::start(StackOptions::default()).await;
    let agent = rig.agent(AGENT, "demo").await;
    let acked = "spillway_agent_batches_acked_total";
    rig.until(AGENT, acked, |acked| acked >= 1.0).await;
    // Of these the spool knows nothing but its disk; batches must survive in memory meanwhile.
    rig.stack.kill("ingest-api-0").await.expect("it runs");
    rig.stack.kill("s3").await.expect("it runs");
    for (calls, error) in [
        ("fdatasync", "EIO"),
        ("pwrite64", "EIO"),
        ("pwrite64", "ENOSPC"),
        ("fallocate,fsync", "EIO"),
        ("openat", "EMFILE"),
    ] {
        let emitted = number(&rig, "spillway_agent_batches_emitted_total").await;
        let failing = Injection::attach(&rig, AGENT, calls, &format!("error={error}")).await;
        rig.until(AGENT, "spillway_agent_batches_emitted_total", |now| now > emitted).await;
        drop(failing);
        assert!(rig.stack.is_running(AGENT), "{calls} {error}");
        let errors = number(&rig, "spillway_agent_spool_errors_total").await;
        eprintln!("{calls} {error}: {errors} file operations have failed so far");
    }
    // What can't be read is tried again later, and never declared for that.
    rig.stack.start_process("ingest-api-0").await.expect("it comes back");
    let unreadable = Injection::attach(&rig, AGENT, "pread64", "error=EIO:when=1..3").await;
    rig.stack.start_process("s3").await.expect("it comes back");
    rig.until(AGENT, "spillway_agent_spool_batches", |held| held == 0.0).await;
    drop(unreadable);
    assert_eq!(number(&rig, "spillway_agent_batches_declared_total").await, 0.0);
    rig.judge_agent(&agent).await;
}
