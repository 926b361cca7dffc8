//! The agent's entry: command line, then `run` or one of its own commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    let run =
        || spillway_agent::cli::program(env!("CARGO_PKG_VERSION")).run(spillway_agent::app::run);
    spillway_agent::cli::without_settings(std::env::args_os()).unwrap_or_else(run)
}
