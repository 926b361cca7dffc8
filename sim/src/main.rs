//! `cargo xtask drill simulate`: many seeds, or one that failed, told in full.

use std::process::ExitCode;

use clap::Parser;
use spillway_sim::command::{self, Args};

fn main() -> ExitCode {
    command::run_command(&Args::parse())
}
