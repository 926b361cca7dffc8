//! `cargo xtask bench NAME`: builds the benchmarks with optimisation and hands over.

use std::process::Command;

use spillway_testkit::{StackError, binaries};

#[derive(Debug, clap::Args)]
#[command(trailing_var_arg = true)]
pub struct BenchArgs {
    /// api, consumer, rollups, agent, recovery or e2e, and the benchmark's own options (`api
    /// --help`)
    #[arg(allow_hyphen_values = true, required = true)]
    args: Vec<String>,
}

pub fn run(args: &BenchArgs) -> Result<(), StackError> {
    let mut command = Command::new(binaries::cargo());
    command.current_dir(binaries::workspace());
    command.args(["run", "--release", "--package", "spillway-bench", "--"]).args(&args.args);
    let status = spillway_testkit::errand::status(command);
    let status = status.map_err(StackError::io("running the benchmark"))?;
    if status.success() {
        return Ok(());
    }
    Err(StackError::Refused { what: format!("the benchmark ended with {status}") })
}
