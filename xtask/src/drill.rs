//! `cargo xtask drill`: every fault of docs/reliability.md on real servers; what is too long for
//! `cargo xtask test`.

use std::path::{Path, PathBuf};
use std::process::Command;

use spillway_testkit::{StackError, binaries, errand, stack};

mod previous;
mod simulate;

use previous::PreviousArgs;
use simulate::SimulateArgs;

#[derive(Debug, clap::Subcommand)]
pub enum Drill {
    /// The drills' names
    Ls,
    /// Drills whose name contains FILTER (half a minute to three minutes each)
    Run { filter: String },
    /// Every hop's program killed, and the agent's disk failed, at the 1st, 2nd, 3rd … system
    /// call of each kind (about 5 minutes; needs strace)
    CrashPoints,
    /// Hostile requests, contents, objects and connections under a memory limit, and what a flood
    /// does to neighbours (about a quarter of an hour)
    Hostile,
    /// The version before this one beside it, in any mixture (two minutes, and five to build it)
    Previous(PreviousArgs),
    /// All of them but `previous`, one after the other (about an hour)
    All,
    /// Two or three faults at a time, chosen by a seed, for some minutes (and one more to start
    /// and to compare)
    Random {
        /// The same seed chooses the same faults
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[arg(long, default_value_t = 2)]
        minutes: u64,
    },
    /// Ten million points, everything killed once, all laws L1 to L8 (about fifteen minutes)
    Oracle {
        /// Options of `spillway-oracle run`: --points N, --stack DIR, --quiet
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// The oracle itself: each wrong behaviour built in must break a law (about half an hour)
    Mutants {
        /// Options of `spillway-oracle mutants`: part of a name, --no-controls
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Agent, ingest-api and recovery-worker in simulated time, one seed a schedule (no servers)
    Simulate(SimulateArgs),
}

type Variables<'a> = &'a [(&'a str, String)];

pub fn run(drill: &Drill) -> Result<(), StackError> {
    match drill {
        Drill::Ls => drills(&["--list"], &[]),
        Drill::Run { filter } => with_programs(&[filter], &[]),
        Drill::CrashPoints => with_programs(&["crash_points"], &[]),
        Drill::Hostile => with_programs(&["hostile"], &[]),
        Drill::Previous(args) => previous::run(args),
        Drill::All => with_programs(&[], &[]),
        Drill::Random { seed, minutes } => with_programs(
            &["f32_random_mix"],
            &[
                ("SPILLWAY_DRILL_SEED", seed.to_string()),
                ("SPILLWAY_DRILL_MINUTES", minutes.to_string()),
            ],
        ),
        Drill::Oracle { args } => oracle("run", args, None),
        Drill::Mutants { args } => oracle("mutants", args, Some(&mutated_programs()?)),
        Drill::Simulate(args) => simulate::run(args),
    }
}

/// Builds what the stack starts, then runs the drills that `args` name.
fn with_programs(args: &[&str], variables: Variables<'_>) -> Result<(), StackError> {
    let packages: Vec<&str> = stack::PACKAGES.iter().map(|(package, _)| *package).collect();
    binaries::build(&packages, false, true)?;
    // One stack at a time: two cores carry one Kafka, one MySQL and our programs.
    drills(&[args, &["--test-threads=1", "--nocapture"]].concat(), variables)
}

fn drills(args: &[&str], variables: Variables<'_>) -> Result<(), StackError> {
    let mut command = Command::new(binaries::cargo());
    command.current_dir(binaries::workspace());
    command.args(["test", "--package", "spillway-e2e", "--features", "drills", "--test", "drills"]);
    command.arg("--").args(args);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    ends_well(command, "the drills")
}

fn ends_well(command: Command, what: &str) -> Result<(), StackError> {
    let status = errand::status(command).map_err(StackError::io(what))?;
    if status.success() {
        return Ok(());
    }
    Err(StackError::Refused { what: format!("{what} ended with {status}") })
}

/// Runs the oracle, with programs from a folder or as the stack builds them.
fn oracle(command: &str, args: &[String], programs: Option<&Path>) -> Result<(), StackError> {
    let mut run = Command::new(binaries::cargo());
    run.current_dir(binaries::workspace());
    run.args(["run", "--package", "spillway-e2e", "--bin", "spillway-oracle", "--", command]);
    run.args(args);
    if let Some(programs) = programs {
        run.env("SPILLWAY_BINARIES", programs);
    }
    ends_well(run, "the oracle")
}

/// Builds the programs with their mutants, and keeps them apart: what the next stack builds has
/// none.
fn mutated_programs() -> Result<PathBuf, StackError> {
    let mut build = Command::new(binaries::cargo());
    build.current_dir(binaries::workspace()).arg("build");
    for (package, _) in stack::PACKAGES {
        build.args(["--package", package]);
    }
    build.args(["--features", &MUTATED.join(",")]);
    ends_well(build, "building the mutants")?;
    let to = binaries::target_dir().join("mutants");
    keep_programs(&to)?;
    Ok(to)
}

/// Copies what cargo has just built: its next build puts other programs there.
fn keep_programs(to: &Path) -> Result<(), StackError> {
    let from = binaries::target_dir().join("debug");
    let keep = || {
        std::fs::create_dir_all(to)?;
        for (_, binary) in stack::PACKAGES {
            std::fs::copy(from.join(binary), to.join(binary))?;
        }
        Ok(())
    };
    keep().map_err(StackError::io("keeping the programs"))
}

/// Programs that can be wrong on purpose, and crash points to die at meanwhile.
const MUTATED: [&str; 7] = [
    "spillway-agent/mutants",
    "spillway-ingest-api/mutants",
    "spillway-consumer/mutants",
    "spillway-recovery-worker/mutants",
    "spillway-keeper/mutants",
    "spillway-consumer/failpoints",
    "spillway-recovery-worker/failpoints",
];
