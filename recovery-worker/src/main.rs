//! The recovery worker's entry: settings, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    spillway_runtime::program::main(version, spillway_recovery_worker::app::run)
}
