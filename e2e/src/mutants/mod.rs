//! The oracle on trial: programs that are wrong on purpose, each with the smallest run, and the
//! fault, in which a law must break; and the same run without the mutant, in which none may.
//!
//! The programs are those of `SPILLWAY_BINARIES`, built with the feature `mutants`.

mod scenario;
mod faults;
mod poison;
mod deadlock;
mod unit;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use spillway_testkit::StackError;
use tokio::task::LocalSet;

use self::scenario::Scenario;
use crate::oracle::report::Report;

/// A wrong behaviour, the program that has it, and what it takes to see it.
struct Case {
    mutant: &'static str,
    program: &'static str,
    scenario: Scenario,
}

const fn case(program: &'static str, mutant: &'static str, scenario: Scenario) -> Case {
    Case { mutant, program, scenario }
}

/// All of them, in travel order.
const CASES: [Case; 23] = [
    case("agent", "fsync-retry", Scenario::SpoolModel),
    case("agent", "skip-damaged-record", Scenario::SpoolDamage),
    case("agent", "reuse-seq", Scenario::AgentKilled),
    case("ingest-api", "wrong-partition", Scenario::Quiet),
    case("ingest-api", "answer-before-report", Scenario::KafkaAndApiKilled),
    case("ingest-api", "join-without-waiting", Scenario::KafkaAndApiKilled),
    case("ingest-api", "acks-one", Scenario::LeaderLost),
    case("recovery-worker", "delete-before-ack", Scenario::WorkerDies),
    case("recovery-worker", "retire-without-offset", Scenario::ConsumersAway),
    case("consumer", "drop-one-batch", Scenario::Quiet),
    case("consumer", "apply-one-twice", Scenario::Quiet),
    case("consumer", "lose-one-double-another", Scenario::Quiet),
    case("consumer", "swap-two-values", Scenario::Quiet),
    case("consumer", "share-ledger", Scenario::Quiet),
    case("consumer", "forget-declaration", Scenario::Quiet),
    case("consumer", "skip-bad-crc", Scenario::Damaged),
    case("consumer", "offsets-before-rows", Scenario::ConsumerDiesAfterRows),
    case("consumer", "group-offset-on-start", Scenario::GroupMoved),
    case("consumer", "half-retry", Scenario::Deadlock),
    case("consumer", "skip-fence", Scenario::Zombie),
    case("consumer", "settle-as-applied", Scenario::CommitLost),
    case("consumer", "trust-cache-after-unknown", Scenario::CommitLost),
    case("keeper", "clear-newer-mark", Scenario::RollupRace),
];

/// Which to run.
#[derive(Clone, Debug, clap::Args)]
pub struct MutantArgs {
    /// Only mutants whose name contains one of these
    filter: Vec<String>,
    /// Only the runs without a mutant
    #[arg(long, conflicts_with = "no_controls")]
    only_controls: bool,
    /// Leave out the runs without a mutant
    #[arg(long)]
    no_controls: bool,
}

/// Runs them one after the other and prints the table.
///
/// # Errors
/// A run could not be judged; that is no catch.
pub async fn run(args: &MutantArgs) -> Result<bool, StackError> {
    let named = |case: &Case| args.filter.iter().any(|part| case.mutant.contains(part.as_str()));
    let wanted = |case: &&Case| args.filter.is_empty() || named(case);
    let cases: Vec<&Case> = CASES.iter().filter(wanted).collect();
    let mut rows = Vec::new();
    let mut controls: BTreeMap<Scenario, &'static str> = BTreeMap::new();
    if !args.no_controls {
        for case in &cases {
            controls.entry(case.scenario).or_insert(case.program);
        }
    }
    for scenario in controls.keys() {
        rows.push(row("(none)", *scenario, None).await);
    }
    for case in cases.into_iter().filter(|_| !args.only_controls) {
        rows.push(row(case.mutant, case.scenario, Some((case.program, case.mutant))).await);
    }
    println!("\n{:<28} {:<26} {:<34} {:>6}  verdict", "mutant", "run", "caught by", "time");
    rows.iter().for_each(|row| println!("{row}"));
    let good = rows.iter().filter(|row| row.is_good).count();
    println!("{good} of {} as they must be", rows.len());
    Ok(good == rows.len())
}

/// A line of the table.
struct Row {
    mutant: &'static str,
    scenario: Scenario,
    caught_by: String,
    took: Duration,
    is_good: bool,
    verdict: &'static str,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mutant, scenario, caught_by, took, verdict, .. } = self;
        let (scenario, took) = (format!("{scenario:?}"), took.as_secs());
        write!(f, "{mutant:<28} {scenario:<26} {caught_by:<34} {took:>4} s  {verdict}")
    }
}

async fn row(
    mutant: &'static str,
    scenario: Scenario,
    armed: Option<(&'static str, &'static str)>,
) -> Row {
    println!("── {mutant} in {scenario:?}");
    let began = Instant::now();
    // In a task of its own: a judge that can't go on must not end the others.
    let here = LocalSet::new();
    let ran = here.spawn_local(scenario::run(scenario, armed));
    here.await;
    let ran = ran.await;
    let took = began.elapsed();
    let outcome = match ran {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let (caught_by, is_good, verdict) = judged(&outcome, armed.is_some());
    let row = Row { mutant, scenario, caught_by, took, is_good, verdict };
    match &outcome {
        Ok(report) if !is_good || armed.is_some() => println!("{report}"),
        _ => {}
    }
    println!("{row}");
    row
}

fn judged(outcome: &Result<Report, String>, armed: bool) -> (String, bool, &'static str) {
    match outcome {
        Err(error) => (error.lines().next().unwrap_or_default().into(), false, "NOT JUDGED"),
        Ok(report) => match (report.holds(), armed) {
            (true, false) => ("-".into(), true, "all laws hold"),
            (false, true) => (report.broken().join(", "), true, "caught"),
            (true, true) => ("-".into(), false, "SURVIVED"),
            (false, false) => (report.broken().join(", "), false, "BROKEN WITHOUT A MUTANT"),
        },
    }
}
