//! What is done to a stack while the load runs. Every step waits for what it has to see.

use std::future::Future;
use std::time::Duration;

use spillway_proto::kafka_record::Lane;
use spillway_testkit::StackError;
use spillway_testkit::proxy::Mode;
use spillway_testkit::stack::{End, Stack};
use tokio::time::Instant;

use crate::ledger::{Attempted, Fate};
use crate::oracle::log;
use crate::oracle::trial::Trial;
use crate::verdict::Findings;

/// Whatever is waited for has come by then, or the run can't be judged.
const SEEN_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Of the scenario that loses a leader.
const BROKERS: i32 = 3;
/// The agent beside the played ones.
const AGENT: &str = "oracle-agent-0";

/// Waits for a condition.
pub async fn until<F: Future<Output = bool>>(
    what: &str,
    mut holds: impl FnMut() -> F,
) -> Result<(), StackError> {
    let until = Instant::now() + SEEN_WITHIN;
    while Instant::now() < until {
        if holds().await {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(StackError::Refused { what: format!("not seen within {SEEN_WITHIN:?}: {what}") })
}

/// A counter or gauge of a program, 0 while it does not answer.
pub async fn metric(stack: &Stack, program: &str, name: &str) -> f64 {
    stack.metrics(program).await.map_or(0.0, |metrics| metrics.sum(name))
}

/// Starts a program again that dies by itself, without its failpoint.
pub async fn dies(stack: &Stack, program: &str) -> Result<(), StackError> {
    stack.wait_exit(program, SEEN_WITHIN).await?;
    stack.clear_env(program, "SPILLWAY_FAILPOINT")?;
    stack.start_process(program).await
}

pub async fn kill_agent(stack: &Stack) -> Result<(), StackError> {
    let acked = "spillway_agent_batches_acked_total";
    until("the agent sends", || async { metric(stack, AGENT, acked).await >= 2.0 }).await?;
    stack.kill(AGENT).await?;
    stack.start_process(AGENT).await?;
    until("the agent sends", || async { metric(stack, AGENT, acked).await >= 2.0 }).await
}

pub async fn kill_kafka_and_api(stack: &Stack, trial: &Trial) -> Result<(), StackError> {
    trial.reached(20).await;
    stack.kill("kafka-0").await?;
    let ledger = trial.ledger();
    let accepted = ledger.count(Fate::Ok);
    // Right ones try again and are told to wait; the hasty ones go on.
    until("senders try again, or go on", || async {
        ledger.repeats() >= 8 || ledger.count(Fate::Ok) >= accepted + 12
    })
    .await?;
    stack.kill("ingest-api-0").await?;
    stack.start_process("kafka-0").await?;
    stack.start_process("ingest-api-0").await
}

/// The broker that is lost leads the partition of a host that sends: on the others, whoever does
/// not wait for followers loses nothing either.
pub async fn lose_leader(stack: &Stack, trial: &Trial) -> Result<(), StackError> {
    trial.reached(20).await;
    let ledger = trial.ledger();
    let all = ledger.batches(Fate::Ok);
    let recipe = all
        .first()
        .map(|batch| &batch.recipe)
        .ok_or_else(|| StackError::Refused { what: "nothing was accepted".to_owned() })?;
    let (environment, host) = (recipe.environment.clone(), recipe.host.clone());
    let partition = log::partition_of(&environment, &host);
    let place = log::place(&stack.file().kafka, Lane::Live.topic(), partition).await;
    let (leader, _) = place
        .ok_or_else(|| StackError::Refused { what: "a partition has no leader".to_owned() })?;
    let followers = (0..BROKERS).filter(|broker| *broker != leader);
    let followers: Vec<String> = followers.map(|broker| format!("kafka-{broker}")).collect();
    let leader = format!("kafka-{leader}");

    for follower in &followers {
        stack.freeze(follower)?;
    }
    let of_host = || {
        let is_its = |batch: &&Attempted| {
            (&batch.recipe.environment, &batch.recipe.host) == (&environment, &host)
        };
        ledger.batches(Fate::Ok).iter().filter(is_its).count()
    };
    // Of the host's batches one may have been answered for by the followers just before.
    let (accepted, repeats) = (of_host(), ledger.repeats());
    until("senders try again, or go on", || async {
        ledger.repeats() >= repeats + 12 || of_host() >= accepted + 3
    })
    .await?;
    stack.kill(&leader).await?;
    for follower in &followers {
        stack.thaw(follower)?;
    }
    let accepted = ledger.count(Fate::Ok);
    until("the others lead", || async { ledger.count(Fate::Ok) >= accepted + 4 }).await?;
    stack.start_process(&leader).await
}

pub async fn consumers_away(stack: &Stack, trial: &mut Trial) -> Result<(), StackError> {
    stack.kill("consumer-0").await?;
    let drained = "spillway_recovery_batches_drained_total";
    let worker = "recovery-worker-0";
    until("objects are drained", || async { metric(stack, worker, drained).await >= 3.0 }).await?;
    let held = "spillway_recovery_objects_awaiting";
    let deleted = "spillway_recovery_objects_drained_total";
    // The hold time of the first ones passes while the others come.
    until("the worker has looked at them again", || async {
        let more = metric(stack, worker, drained).await >= 30.0;
        (more && metric(stack, worker, held).await >= 20.0)
            || metric(stack, worker, deleted).await > 0.0
    })
    .await?;
    let count = metric(stack, worker, deleted).await;
    let mut found = Findings::default();
    if count > 0.0 {
        found.push(None, || format!("{count} objects were deleted before MySQL had their batches"));
    }
    trial.custody("objects stay in S3 until their batches are stored".into(), found);
    stack.start_process("consumer-0").await
}

/// What an operator can do with Kafka's own tools while no consumer runs. The group's offsets are a
/// hint for others: nobody may miss a record for it.
pub async fn move_group(stack: &Stack, trial: &Trial) -> Result<(), StackError> {
    trial.reached(20).await;
    stack.terminate("consumer-0", SEEN_WITHIN).await?;
    let ledger = trial.ledger();
    let accepted = ledger.count(Fate::Ok);
    until("more is accepted", || async { ledger.count(Fate::Ok) >= accepted + 20 }).await?;
    let brokers = stack.file().kafka;
    let moved = tokio::task::spawn_blocking(move || log::skip_to_the_end(&brokers)).await;
    let moved = moved.map_err(|error| StackError::Refused { what: error.to_string() })?;
    moved.map_err(|error| StackError::Refused { what: format!("moving the group: {error}") })?;
    stack.start_process("consumer-0").await
}

/// Freezes whichever consumer is in the middle of a transaction until the other one has taken all
/// partitions.
pub async fn zombie(stack: &Stack) -> Result<(), StackError> {
    let names = ["consumer-0", "consumer-1"];
    let stalls = |name: &str| {
        let log = stack.log_path(name).ok().and_then(|path| std::fs::read_to_string(path).ok());
        log.is_some_and(|text| text.contains("failpoint"))
    };
    until("a consumer stalls", || async { names.iter().any(|name| stalls(name)) }).await?;
    let (zombie, heir) = match stalls("consumer-0") {
        true => ("consumer-0", "consumer-1"),
        false => ("consumer-1", "consumer-0"),
    };
    stack.freeze(zombie)?;
    let claimed = "spillway_consumer_partitions_claimed";
    until("the other one takes over", || async { metric(stack, heir, claimed).await >= 64.0 })
        .await?;
    stack.thaw(zombie)
}

/// From the first COMMIT after the claims on, none arrives.
pub async fn lose_commits(stack: &Stack) -> Result<(), StackError> {
    let claimed = "spillway_consumer_partitions_claimed";
    until("all partitions are claimed", || async {
        metric(stack, "consumer-0", claimed).await >= 64.0
    })
    .await?;
    stack.link(End::Consumer, End::Mysql)?.set(Mode::LoseRequest(b"\x03COMMIT"));
    Ok(())
}

pub async fn heal_commits(stack: &Stack) -> Result<(), StackError> {
    let link = stack.link(End::Consumer, End::Mysql)?;
    let lost = || {
        let of = |proxy: &spillway_testkit::proxy::Proxy| {
            proxy.traffic().lost.load(std::sync::atomic::Ordering::Relaxed)
        };
        link.proxies().iter().map(of).sum::<u64>()
    };
    until("a COMMIT is lost", || async { lost() >= 1 }).await?;
    link.set(Mode::Pass);
    Ok(())
}
