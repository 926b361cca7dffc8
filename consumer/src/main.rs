//! The consumer's entry: settings, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    spillway_runtime::program::main(env!("CARGO_PKG_VERSION"), spillway_consumer::app::run)
}
