//! Row 16: another server takes over that lacks what the old primary had.

use spillway_e2e::rig::{ACCEPTED_WITHIN, Rig, SETTLED_WITHIN};
use spillway_e2e::rollups::rolled_up;
use spillway_e2e::{Fate, Ledger, Sender, SenderOptions, compare, settled};
use spillway_testkit::stack::StackOptions;
use sqlx::MySqlPool;

use crate::storing::{
    HASTY_CONSUMER, Server, errors, freeze_in_transaction, owner, promote, reader_after_failover,
    reading, sleepy, until,
};

/// Of the first load, before the replica stops following.
const FOLLOWED: i64 = 40;
/// What the old primary has and the replica lacks, at least.
const LACKING: i64 = 60;

async fn judge(mysql: &MySqlPool, ledger: &Ledger, options: &SenderOptions) {
    settled(mysql, ledger, options, SETTLED_WITHIN).await;
    let verdict = compare(mysql, ledger, options).await;
    eprintln!("{} of {}: {verdict}", options.name, ledger.summary());
    verdict.must_hold();
    assert_eq!(verdict.points_expected, options.total_points());
}

/// Lets the replica follow for a while, then stand still while the primary goes on.
async fn fall_behind(replica: &Server) {
    until("the replica follows", async || replica.audited().await >= FOLLOWED).await;
    replica.run("STOP REPLICA SQL_THREAD").await;
}

/// What must hold of a new primary besides L1–L4.
async fn sound(primary: &Server, repeats: u32) {
    assert_eq!(primary.orphans().await, 0, "no series without its row");
    assert_eq!(primary.quarantined().await, 0, "nothing transient is in dead letters");
    let doubles =
        primary.number("SELECT SUM(duplicate_batches) FROM spillway_store.ledger_epochs").await;
    assert!(doubles <= i64::from(repeats), "{doubles} batches were applied again");
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_to_a_replica_that_lags_loses_and_doubles_nothing() {
    let options = StackOptions { replicas: 1, ..StackOptions::default() };
    let rig = Rig::start(options.set("consumer", HASTY_CONSUMER)).await;
    let (old, new) = (Server::primary(&rig, "s0"), Server::replica(&rig, "s0"));
    let long = SenderOptions { windows: 300, ..rig.load("demo") };
    let long = Sender::start(long);
    fall_behind(&new).await;
    // Series and hosts that only the old primary has ever heard of.
    let (lacked, late) =
        rig.judge(Sender::start(SenderOptions { name: "late".into(), ..rig.load("demo") })).await;
    let stale = new.audited().await;
    until("the replica lacks much", async || old.audited().await >= stale + LACKING).await;
    eprintln!("the old primary has {} batches, the replica {stale}", old.audited().await);

    rig.stack.kill("mysql-s0").await.expect("it runs");
    promote(&rig, &new).await;
    let mysql = reader_after_failover(&rig);
    judge(&mysql, &lacked, &late).await;
    let went_back = rig.metrics("consumer-0").await.sum("spillway_consumer_went_back_total");
    assert!(went_back >= 1.0, "the consumer saw that it stood further");

    // The old primary comes back as it was, and nobody minds it.
    rig.stack.start_process("mysql-s0").await.expect("it comes back");
    let left = old.audited().await;
    let (ledger, options) = long.finish(ACCEPTED_WITHIN).await;
    judge(&mysql, &ledger, &options).await;
    assert_eq!(old.audited().await, left, "somebody wrote to the old primary");
    rolled_up(&mysql, &options).await;
    sound(&new, ledger.repeats() + lacked.repeats()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_slept_through_a_failover_writes_nothing_to_the_old_primary() {
    let options = StackOptions { consumers: 2, replicas: 1, ..StackOptions::default() };
    let rig = Rig::start(sleepy(options)).await;
    let names = ["consumer-0", "consumer-1"];
    reading(&rig, &names, 32.0).await;
    let (old, new) = (Server::primary(&rig, "s0"), Server::replica(&rig, "s0"));
    let load = Sender::start(SenderOptions { windows: 300, ..rig.load("demo") });
    fall_behind(&new).await;
    let stale = new.audited().await;
    until("the replica lacks some", async || old.audited().await >= stale + 10).await;
    freeze_in_transaction(&rig, &old, owner("demo")).await;

    old.run("SET GLOBAL super_read_only = ON").await;
    let fenced_at = old.audited().await;
    promote(&rig, &new).await;
    let (ledger, options) = load.finish(ACCEPTED_WITHIN).await;
    let mysql = reader_after_failover(&rig);
    settled(&mysql, &ledger, &options, SETTLED_WITHIN).await;
    rig.stack.thaw(owner("demo")).expect("it is there");
    // It finds the new primary, under the new epoch, and reads its share there.
    reading(&rig, &names, 32.0).await;
    judge(&mysql, &ledger, &options).await;
    assert_eq!(old.audited().await, fenced_at, "the fence let something through");
    sound(&new, ledger.repeats()).await;
    rolled_up(&mysql, &options).await;

    let after = Sender::start(SenderOptions { name: "after".into(), ..rig.load("demo") });
    let (ledger, options) = after.finish(ACCEPTED_WITHIN).await;
    judge(&mysql, &ledger, &options).await;
    assert_eq!(old.audited().await, fenced_at, "the fence let something through");
}

#[tokio::test(flavor = "multi_thread")]
async fn between_fence_and_promotion_consumers_wait_and_then_go_on_at_the_new_primary() {
    let options = StackOptions { replicas: 1, ..StackOptions::default() };
    let rig = Rig::start(options.set("consumer", HASTY_CONSUMER)).await;
    let (old, new) = (Server::primary(&rig, "s0"), Server::replica(&rig, "s0"));
    let load = Sender::start(SenderOptions { windows: 200, ..rig.load("demo") });
    until("some of it is applied", async || old.audited().await >= FOLLOWED).await;
    old.run("SET GLOBAL super_read_only = ON").await;
    let fenced_at = old.audited().await;
    let waits = async || errors(&rig, "consumer-0", "read-only").await >= 2.0;
    until("the consumer finds the old primary read-only", waits).await;
    promote(&rig, &new).await;
    let (ledger, options) = load.finish(ACCEPTED_WITHIN).await;
    judge(&reader_after_failover(&rig), &ledger, &options).await;
    assert_eq!(old.audited().await, fenced_at, "the fence let something through");
    assert!(ledger.batches(Fate::Fail).is_empty(), "nothing was refused meanwhile");
    sound(&new, ledger.repeats()).await;
}
