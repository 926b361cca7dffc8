//! Row 9: a record of the spool is damaged on disk. (Every byte cut and flipped in turn:
//! `agent/src/spool/damage_tests.rs`.)

use std::path::{Path, PathBuf};

use spillway_e2e::rig::{Rig, Totals};
use spillway_proto::frame::MAGIC;
use spillway_testkit::stack::StackOptions;
use sqlx::Row as _;

use crate::sending::{HEALED_WITHIN, until};

const AGENT: &str = "damaged-agent";
/// Behind a frame's beginning, well within its bytes.
const INTO_THE_FRAME: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_record_damaged_on_disk_is_declared_by_name_and_all_others_arrive() {
    let rig = Rig::start(StackOptions::default()).await;
    rig.agent(AGENT, "demo").await;
    rig.until(AGENT, "spillway_agent_batches_acked_total", |acked| acked >= 1.0).await;
    rig.stack.kill("ingest-api-0").await.expect("it runs");
    rig.stack.kill("s3").await.expect("it runs");
    rig.until(AGENT, "spillway_agent_spool_batches", |held| held >= 3.0).await;
    rig.stack.kill(AGENT).await.expect("it runs");
    let spool = rig.stack.dir().join("data").join(AGENT).join("spool");
    flip_a_byte_of_the_last_but_one(&spool);
    rig.stack.start_process(AGENT).await.expect("a damaged spool opens");
    let damaged = "spillway_agent_spool_damaged_records_total";
    rig.until(AGENT, damaged, |damaged| damaged == 1.0).await;
    rig.stack.start_process("s3").await.expect("it comes back");
    rig.stack.start_process("ingest-api-0").await.expect("it comes back");
    rig.until(AGENT, "spillway_agent_batches_acked_total", |acked| acked >= 1.0).await;
    let code = rig.stack.terminate(AGENT, HEALED_WITHIN).await.expect("it stops");
    assert_eq!(code, Some(0), "its spool was empty in the end");
    let mysql = rig.mysql("demo");
    until("all others are applied", HEALED_WITHIN, async || {
        let totals = Totals::read(&mysql, AGENT).await;
        totals.declared == 1 && totals.missing == 0 && totals.applied + 1 == totals.highest
    })
    .await;
    let gaps = "SELECT state, reason FROM spillway.gaps WHERE host = ?";
    let gaps = sqlx::query(gaps).bind(AGENT).fetch_all(&mysql).await.expect("gaps are readable");
    assert_eq!(gaps.len(), 1);
    let gap = gaps.first().expect("one");
    let text = |at: usize| gap.try_get_unchecked::<String, _>(at).expect("a text");
    assert_eq!((text(0).as_str(), text(1).as_str()), ("declared", "spool-damaged"));
}

fn flip_a_byte_of_the_last_but_one(spool: &Path) {
    let files = std::fs::read_dir(spool).expect("the spool").flatten().map(|file| file.path());
    let mut segments: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "spool")).collect();
    segments.sort();
    let segment = segments.last().expect("a segment");
    let mut bytes = std::fs::read(segment).expect("it can be read");
    let frames: Vec<usize> = bytes
        .windows(MAGIC.len())
        .enumerate()
        .filter_map(|(at, window)| (window == MAGIC).then_some(at))
        .collect();
    let at = frames.iter().rev().nth(1).expect("two frames") + INTO_THE_FRAME;
    *bytes.get_mut(at).expect("within the frame") ^= 0x40;
    std::fs::write(segment, bytes).expect("it can be written");
}
