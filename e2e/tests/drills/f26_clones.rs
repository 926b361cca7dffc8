//! Row 26: the same identity twice, a state directory of an earlier day, none at all.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use spillway_e2e::rig::{Rig, Totals};
use spillway_testkit::stack::StackOptions;
use sqlx::Row as _;

use crate::storing::{ByHand, Server, now_ms, post, until};

const STOPS_WITHIN: Duration = Duration::from_secs(40);
const ACKED: &str = "spillway_agent_batches_acked_total";
/// A host is silent, and its epoch's tail unknown, within seconds instead of minutes.
const SOON_SILENT: &str = "[ages]\nsilent_after = \"3s\"\n[partitions]\ninterval = \"1s\"";

/// Copies a state directory, as a snapshot of its disk would.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(done.success(), "copying {} failed", from.display());
}

fn remove(dir: &Path) {
    std::fs::remove_dir_all(dir).expect("the state directory can be removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_contents_of_a_cloned_agents_ids_are_stored_and_an_event_names_it() {
    let rig = Rig::start(StackOptions::default()).await;
    let server = Server::primary(&rig, "s0");
    let original = ByHand::new("demo", "cloned-host");
    let start_ms = now_ms() / 10_000 * 10_000 - 600_000;
    const BATCHES: u64 = 30;
    for seq in 1..=BATCHES {
        let ts_ms = start_ms + seq as i64 * 10_000;
        let (ours, clones) = ([(ts_ms, 1.0)], [(ts_ms + 1_000, 2.0)]);
        post(&rig, &original.batch(seq, "original", &ours)).await;
        // Twice: the second time it is known by its content.
        for _ in 0..2 {
            post(&rig, &original.batch(seq, "clone", &clones)).await;
        }
    }
    let points = "SELECT SUM(COALESCE(cnt, 1)) FROM spillway_store.points";
    until("both contents are stored", async || server.number(points).await == 2 * BATCHES as i64)
        .await;
    let of = |metric: &str| {
        format!(
            "SELECT COUNT(*), CAST(SUM(value) AS DOUBLE) FROM spillway.metrics \
                 WHERE host = 'cloned-host' AND metric = '{metric}'"
        )
    };
    let reader = rig.mysql("demo");
    for (metric, value) in [("original", 1.0), ("clone", 2.0)] {
        let row = sqlx::query(&of(metric)).fetch_one(&reader).await.expect("readable");
        let (count, sum): (i64, f64) =
            (row.try_get(0).expect("a count"), row.try_get(1).expect("a sum"));
        assert_eq!((count, sum), (BATCHES as i64, BATCHES as f64 * value), "{metric}");
    }
    let named = "SELECT COUNT(*) FROM spillway_store.events WHERE kind = 'cloned_agent' \
                 AND host = 'cloned-host'";
    assert!(server.number(named).await >= 1, "an event names the clone");
    let gaps = "SELECT COUNT(*) FROM spillway_store.ledger_gaps";
    assert_eq!(server.number(gaps).await, 0, "nothing of it is a gap");
    assert_eq!(server.quarantined().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_put_back_to_an_earlier_state_reuses_no_id_and_loses_nothing() {
    let rig = Rig::start(StackOptions::default()).await;
    let agent = rig.agent("restored", "demo").await;
    let (state, earlier) = (rig.stack.dir().join("data/restored"), tempfile::tempdir());
    let earlier = earlier.expect("a folder").path().join("state");
    std::fs::create_dir_all(earlier.parent().expect("a parent")).expect("a folder");
    rig.until("restored", ACKED, |n| n >= 2.0).await;
    rig.stack.kill("restored").await.expect("it runs");
    copy(&state, &earlier);
    rig.stack.start_process("restored").await.expect("it starts again");
    rig.until("restored", ACKED, |n| n >= 2.0).await;
    let code = rig.stack.terminate("restored", STOPS_WITHIN).await.expect("it stops");
    assert_eq!(code, Some(0));
    remove(&state);
    copy(&earlier, &state);
    rig.stack.start_process("restored").await.expect("it starts again");
    rig.until("restored", ACKED, |n| n >= 2.0).await;
    rig.judge_agent(&agent).await;
    let server = Server::primary(&rig, "s0");
    let epochs = "SELECT COUNT(DISTINCT epoch) FROM spillway_store.ledger_epochs \
                  WHERE host = 'restored'";
    assert_eq!(server.number(epochs).await, 3, "each start counts in an epoch of its own");
    let agents = "SELECT COUNT(DISTINCT agent_id) FROM spillway_store.ledger_epochs \
                  WHERE host = 'restored'";
    assert_eq!(server.number(agents).await, 1);
    let clones = "SELECT COUNT(*) FROM spillway_store.events WHERE kind = 'cloned_agent'";
    assert_eq!(server.number(clones).await, 0, "no id was given twice");
    std::fs::remove_dir_all(earlier.parent().expect("a parent")).expect("the copy goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_lost_its_state_is_a_new_one_and_the_old_ones_tail_is_shown_as_unknown() {
    let rig = Rig::start(StackOptions::default().set("keeper", SOON_SILENT)).await;
    let agent = rig.agent("forgetful", "demo").await;
    rig.until("forgetful", ACKED, |n| n >= 2.0).await;
    rig.stack.kill("forgetful").await.expect("it runs");
    remove(&rig.stack.dir().join("data/forgetful"));
    rig.stack.start_process("forgetful").await.expect("it starts without its state");
    rig.until("forgetful", ACKED, |n| n >= 2.0).await;
    let code = rig.stack.terminate(&agent.name, STOPS_WITHIN).await.expect("it stops");
    assert_eq!(code, Some(0));
    let server = Server::primary(&rig, "s0");
    let agents = "SELECT COUNT(DISTINCT agent_id) FROM spillway_store.ledger_epochs \
                  WHERE host = 'forgetful'";
    until("both agents are known", async || server.number(agents).await == 2).await;
    let reader = rig.mysql("demo");
    let tails = "SELECT COUNT(*) FROM spillway.gaps WHERE host = 'forgetful'";
    let shown = async || {
        let count: i64 = sqlx::query_scalar(&format!("{tails} AND state = 'unknown_tail'"))
            .fetch_one(&reader)
            .await
            .expect("readable");
        count == 1
    };
    until("the old agent's tail is shown as unknown", shown).await;
    let all: i64 = sqlx::query_scalar(tails).fetch_one(&reader).await.expect("readable");
    assert_eq!(all, 1, "and nothing else is a gap");
    let totals = Totals::read(&reader, "forgetful").await;
    assert!(totals.stored > 0 && totals.stored == totals.points, "{totals:?}");
    assert_eq!(totals.stored_rows, totals.stored, "nothing counts twice: {totals:?}");
    assert_eq!(totals.applied, totals.highest, "{totals:?}");
}
