//! The commands and what they call. Each command's own arguments stand in its own file.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use spillway_testkit::{StackError, binaries, s3_server, stack};

use crate::check::CheckFailed;
use crate::generate::GenerateError;
use crate::policy::advisories::{self, AdvisoryError};
use crate::signals::Signals;
use crate::{bench, check, demo, drill, generate, tests_run, up};

/// Developers' commands of Spillway
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the stack and stays up; writes DIR/stack.json once ready
    Up(up::UpArgs),
    /// Runs everything on this machine, with this host's own metrics, and shows what happens
    Demo(demo::DemoArgs),
    /// Every test: unit, property, integration, whole pipeline
    Test(tests_run::TestArgs),
    /// Faults on purpose, on real servers, and the comparison after each
    #[command(subcommand)]
    Drill(drill::Drill),
    /// A benchmark: api, consumer, rollups, agent, recovery or e2e
    Bench(bench::BenchArgs),
    /// Format, clippy, tidy (style numbers), dependency policy, generated files fresh
    Check,
    /// Only the style numbers
    Tidy,
    /// Writes the files that the settings code generates
    Generate,
    /// Writes the list of advisories that `check` reads, from a checkout of RustSec's database
    Advisories { dir: PathBuf },
    /// Serves the local S3 (started by a stack)
    #[command(hide = true)]
    S3Serve { config: PathBuf },
    /// Becomes a process of the stack in DIR (the `restart` commands of stack.json)
    #[command(hide = true)]
    StackExec { dir: PathBuf, name: String },
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("something is missing")]
    Incomplete,
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error(transparent)]
    Check(#[from] CheckFailed),
    #[error(transparent)]
    Generate(#[from] GenerateError),
    #[error(transparent)]
    Advisories(#[from] AdvisoryError),
}

pub async fn run(cli: Cli) -> Result<(), CommandError> {
    let root = binaries::workspace();
    match cli.command {
        Command::Up(args) => {
            if !up::run(args).await? {
                return Err(CommandError::Interrupted);
            }
        }
        Command::Demo(args) => match demo::run(args).await? {
            Some(true) => {}
            Some(false) => return Err(CommandError::Incomplete),
            None => return Err(CommandError::Interrupted),
        },
        Command::Test(args) => foreground(move || tests_run::run(&args)).await?,
        Command::Drill(drill) => foreground(move || drill::run(&drill)).await?,
        Command::Bench(args) => foreground(move || bench::run(&args)).await?,
        Command::Check => check::run(&root)?,
        Command::Tidy => check::run_tidy(&root)?,
        Command::Generate => println!("{} files written", generate::run(&root)?),
        Command::Advisories { dir } => {
            println!("{} advisories listed", advisories::import::run(&root, &dir)?);
        }
        Command::S3Serve { config } => s3_server::serve(&config).await?,
        Command::StackExec { dir, name } => return Err(stack::exec(&dir, &name).into()),
    }
    Ok(())
}

/// Work that blocks, until it is done or a signal asks for the end; main then ends its errands.
async fn foreground(
    work: impl FnOnce() -> Result<(), StackError> + Send + 'static,
) -> Result<(), CommandError> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        done = tokio::task::spawn_blocking(work) => match done {
            Ok(done) => Ok(done?),
            Err(_) => Err(CommandError::Interrupted),
        },
        () = signals.stop() => Err(CommandError::Interrupted),
    }
}
