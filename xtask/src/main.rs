//! `cargo xtask`: the developers' commands.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

mod cli;
mod signals;
mod up;
mod demo;
mod drill;
mod tests_run;
mod bench;

mod check;
mod tidy;
mod policy;
mod generate;

/// What still waits for an errand that was just ended must not hold up our own end.
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(cli::run(cli));
    spillway_testkit::errand::kill_all();
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
