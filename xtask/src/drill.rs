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
    /// Every hop's program killed, and the agent's disk failed, at the 1st, 2nd, 3rd … system
    /// call of each kind (about 5 minutes; needs strace)
    CrashPoints,
    /// Hostile requests, contents and objects under a memory limit (about 6 minutes)
    Hostile,
    /// All of them, one after the other (about an hour)
    All,
}

pub fn run(drill: &Drill) -> Result<(), StackError> {
    match drill {
        Drill::Ls => drills(&["--list"]),
        Drill::Run { filter } => with_programs(&[filter]),
        Drill::CrashPoints => with_programs(&["crash_points"]),
        Drill::Hostile => with_programs(&["hostile"]),
        Drill::All => with_programs(&[]),
    }
}

/// Builds what the stack starts, then runs the drills that `args` name.
fn with_programs(args: &[&str]) -> Result<(), StackError> {
    let packages: Vec<&str> = stack::PACKAGES.iter().map(|(package, _)| *package).collect();
    binaries::build(&packages, false, true)?;
    // One stack at a time: two cores carry one Kafka, one MySQL and our programs.
    drills(&[args, &["--test-threads=1", "--nocapture"]].concat())
}

fn drills(args: &[&str]) -> Result<(), StackError> {
    let mut command = Command::new(binaries::cargo());
    command.current_dir(binaries::workspace());
    command.args(["test", "--package", "spillway-e2e", "--features", "drills", "--test", "drills"]);
    command.arg("--").args(args);
    let status = spillway_testkit::errand::status(command);
    let status = status.map_err(StackError::io("running the drills"))?;
    if status.success() {
        return Ok(());
    }
    Err(StackError::Refused { what: format!("the drills ended with {status}") })
}
