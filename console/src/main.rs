//! `spillway`: the operators' command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    spillway_console::app::run()
}
