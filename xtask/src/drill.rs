//! `cargo xtask drill`: every fault of docs/reliability.md on real servers; what is too long for
//! `cargo xtask test`.

use std::process::Command;

use spillway_testkit::{StackError, binaries, stack};

#[derive(Debug, clap::Subcommand)]
pub enum Drill {
    /// The drills' names
    Ls,
    /// Drills whose name contains FILTER (half a minute to three minutes each)
    Run { filter: String },
    /// All of them, one after the other (about an hour)
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
}

type Variables<'a> = &'a [(&'a str, String)];

pub fn run(drill: &Drill) -> Result<(), StackError> {
    match drill {
        Drill::Ls => drills(&["--list"], &[]),
        Drill::Run { filter } => with_programs(&[filter], &[]),
        Drill::All => with_programs(&[], &[]),
        Drill::Random { seed, minutes } => with_programs(
            &["f32_random_mix"],
            &[
                ("SPILLWAY_DRILL_SEED", seed.to_string()),
                ("SPILLWAY_DRILL_MINUTES", minutes.to_string()),
            ],
        ),
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
    let status = spillway_testkit::errand::status(command);
    let status = status.map_err(StackError::io("running the drills"))?;
    if status.success() {
        return Ok(());
    }
    Err(StackError::Refused { what: format!("the drills ended with {status}") })
}
