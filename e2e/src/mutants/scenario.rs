//! The runs: a stack, what it needs to be breakable, the fault, and the judgement.

use std::sync::Arc;
use std::time::Duration;

use spillway_testkit::StackError;
use spillway_testkit::stack::{End, Stack, StackOptions};

use super::{deadlock, faults, poison, unit};
use crate::oracle::report::Report;
use crate::oracle::site::Site;
use crate::oracle::trial::{Shape, Trial};
use crate::rig::{HASTY_WORKER, PATIENT_CONSOLE};

/// Attempts to start a stack.
const STARTS_MAX: u32 = 4;

/// What happens in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Nothing but the load.
    Quiet,
    AgentKilled,
    /// Kafka is killed, senders try and try again, the API is killed before Kafka is back.
    KafkaAndApiKilled,
    /// Of three brokers the followers are frozen, then the leader is killed and the others thaw.
    LeaderLost,
    /// The worker dies before it publishes what it fetched.
    WorkerDies,
    /// No consumer runs while the worker drains: nothing may be deleted.
    ConsumersAway,
    /// A frame with a flipped bit lies in Kafka.
    Damaged,
    ConsumerDiesAfterRows,
    /// While no consumer runs, somebody moves the group's offsets to the log's end.
    GroupMoved,
    Deadlock,
    /// A consumer is frozen in the middle of a transaction until another one has its partitions.
    Zombie,
    /// A COMMIT never arrives, and nobody answers.
    CommitLost,
    /// The agent's spool on a disk that forgets what was not synced: its own model test.
    SpoolModel,
    /// The agent's spool, damaged at every byte: its own test.
    SpoolDamage,
    /// A point is committed while the keeper rolls its minute up: the keeper's own test.
    RollupRace,
}

/// Runs it, with a program that is wrong on purpose or without.
pub async fn run(
    scenario: Scenario,
    armed: Option<(&'static str, &'static str)>,
) -> Result<Report, StackError> {
    if let Some(test) = unit::of(scenario) {
        return unit::run(test, armed.map(|(_, mutant)| mutant)).await;
    }
    let mut options =
        options(scenario).set("recovery-worker", HASTY_WORKER).set("console", PATIENT_CONSOLE);
    if let Some((program, mutant)) = armed {
        options = options.env(program, "SPILLWAY_MUTANT", mutant);
    }
    let stack = Arc::new(start(&options).await?);
    let dir = stack.dir().to_owned();
    if scenario == Scenario::CommitLost {
        faults::lose_commits(&stack).await?;
    }
    let site = Site::of_stack(Arc::clone(&stack));
    let mut trial = Trial::start(site, shape(scenario), &dir).await?;
    match scenario {
        Scenario::Quiet | Scenario::SpoolModel | Scenario::SpoolDamage | Scenario::RollupRace => {}
        Scenario::AgentKilled => faults::kill_agent(&stack).await?,
        Scenario::KafkaAndApiKilled => faults::kill_kafka_and_api(&stack, &trial).await?,
        Scenario::LeaderLost => faults::lose_leader(&stack, &trial).await?,
        Scenario::WorkerDies => faults::dies(&stack, "recovery-worker-0").await?,
        Scenario::ConsumersAway => faults::consumers_away(&stack, &mut trial).await?,
        Scenario::Damaged => poison::damage_one(&stack, &trial).await?,
        Scenario::ConsumerDiesAfterRows => faults::dies(&stack, "consumer-0").await?,
        Scenario::GroupMoved => faults::move_group(&stack, &trial).await?,
        Scenario::Deadlock => deadlock::provoke(&stack, &trial).await?,
        Scenario::Zombie => faults::zombie(&stack).await?,
        Scenario::CommitLost => faults::heal_commits(&stack).await?,
    }
    trial.end().await
}

/// A machine that is busy with other things may need more than one attempt to start Kafka.
async fn start(options: &StackOptions) -> Result<Stack, StackError> {
    for _ in 1..STARTS_MAX {
        match Stack::start(options.clone()).await {
            Ok(stack) => return Ok(stack),
            Err(error) => println!("   the stack did not start: {}", first_line(&error)),
        }
    }
    Stack::start(options.clone()).await
}

fn first_line(error: &StackError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn options(scenario: Scenario) -> StackOptions {
    // What the keeper does takes no part in any of this.
    let plain = StackOptions { keeper: false, ..StackOptions::default() };
    let failpoint = |program, point| plain.clone().env(program, "SPILLWAY_FAILPOINT", point);
    match scenario {
        Scenario::LeaderLost => StackOptions { brokers: 3, ..plain },
        Scenario::WorkerDies => failpoint("recovery-worker", "before-publish=abort@2"),
        Scenario::ConsumerDiesAfterRows => failpoint("consumer", "after-rows=abort@6"),
        // Without names of their own, members leave at once, and only then may others commit.
        Scenario::GroupMoved => plain.set("consumer", "[group]\ninstance = \"\""),
        Scenario::Zombie => {
            let options = failpoint("consumer", "after-rows=sleep:5000@6");
            StackOptions { consumers: 2, ..options }
                .set("consumer", "[group]\nsession_timeout = \"6s\"")
        }
        Scenario::CommitLost => {
            plain.link(End::Consumer, End::Mysql).set("consumer", "[mysql]\ntls = \"disabled\"")
        }
        _ => plain,
    }
}

fn shape(scenario: Scenario) -> Shape {
    let small = Shape::small();
    match scenario {
        Scenario::AgentKilled => Shape { agents: 1, ..small },
        Scenario::KafkaAndApiKilled | Scenario::LeaderLost | Scenario::Zombie => {
            Shape { windows: 100, pace: Duration::from_millis(100), ..small }
        }
        Scenario::ConsumersAway => Shape { windows: 160, ..small },
        _ => small,
    }
}
