//! `cargo xtask check`: everything that can be said about the code without running it.
//!
//! Each step is run even when an earlier one failed, so one run names all there is to mend. The
//! order is from what answers in seconds to what has to compile.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Instant;
use std::{fmt, io};

use crate::{generate, policy, tidy};

/// One step of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Format,
    Tidy,
    Policy,
    Clippy,
    Generated,
}

const STEPS: [Step; 5] = [Step::Format, Step::Tidy, Step::Policy, Step::Clippy, Step::Generated];

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => "format",
            Self::Tidy => "tidy",
            Self::Policy => "dependencies and licences",
            Self::Clippy => "clippy",
            Self::Generated => "generated files",
        })
    }
}

/// Why a step did not pass.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("`{command}` ended with {status}")]
    Command { command: String, status: ExitStatus },
    #[error("cannot start `{command}`")]
    CannotStart { command: String, source: io::Error },
    #[error("{count} findings")]
    Findings { count: usize },
    #[error(transparent)]
    Tidy(#[from] tidy::TidyError),
    #[error(transparent)]
    Policy(#[from] policy::PolicyError),
    #[error(transparent)]
    Generated(#[from] generate::GenerateError),
}

/// At least one step did not pass; each has been printed where it failed.
#[derive(Debug, thiserror::Error)]
#[error("check failed: {}", failed.join(", "))]
pub struct CheckFailed {
    failed: Vec<String>,
}

/// Runs every step on the repository at `root` and prints what each found.
pub fn run(root: &Path) -> Result<(), CheckFailed> {
    let mut failed = Vec::new();
    for step in STEPS {
        let started = Instant::now();
        println!("── {step}");
        match run_step(step, root) {
            Ok(()) => println!("   ok ({:.1} s)", started.elapsed().as_secs_f64()),
            Err(error) => {
                println!("   FAILED: {error}");
                failed.push(step.to_string());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(CheckFailed { failed }) }
}

/// The tidy step alone, for `cargo xtask tidy`.
pub fn run_tidy(root: &Path) -> Result<(), CheckFailed> {
    tidy_tree(root).map_err(|error| {
        println!("   FAILED: {error}");
        CheckFailed { failed: vec![Step::Tidy.to_string()] }
    })
}

fn run_step(step: Step, root: &Path) -> Result<(), StepError> {
    match step {
        Step::Format => cargo(root, &["fmt", "--all", "--check"]),
        Step::Tidy => tidy_tree(root),
        Step::Policy => print_all(&policy::check(root)?),
        Step::Clippy => cargo(
            root,
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--features",
                "spillway-e2e/drills",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ],
        ),
        Step::Generated => print_all(&generate::stale(root)?),
    }
}

fn tidy_tree(root: &Path) -> Result<(), StepError> {
    let report = tidy::check_tree(root)?;
    println!("   {} files read", report.files);
    print_all(&report.findings)
}

fn print_all(findings: &[impl fmt::Display]) -> Result<(), StepError> {
    for finding in findings {
        println!("   {finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(StepError::Findings { count }),
    }
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<(), StepError> {
    let command = format!("cargo {}", arguments.join(" "));
    let status = Command::new("cargo")
        .args(arguments)
        .current_dir(root)
        .status()
        .map_err(|source| StepError::CannotStart { command: command.clone(), source })?;
    if status.success() { Ok(()) } else { Err(StepError::Command { command, status }) }
}
