//! The agent's entry: command line, then `run` or one of its own commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    spillway_agent::cli::program(env!("CARGO_PKG_VERSION")).run(spillway_agent::app::run)
}
