//! `cargo xtask drill simulate`: thousands of schedules in simulated time (sim/).

use std::process::Command;

use spillway_testkit::{StackError, binaries};

#[derive(Debug, clap::Args)]
#[command(after_help = TIMES)]
pub struct SimulateArgs {
    /// So many seeds, from --first on
    #[arg(long, default_value_t = 5_000)]
    seeds: u64,
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// This seed alone, told in full
    #[arg(long)]
    seed: Option<u64>,
    /// Every mutant of the surroundings instead, each until a seed finds it
    #[arg(long, conflicts_with = "seed")]
    mutants: bool,
    /// Not optimised: quicker to build, several times slower to run
    #[arg(long)]
    dev: bool,
}

const TIMES: &str = "With --dev a seed takes about 0.15 s of one core of a quiet machine, without \
    it a fraction of that. The same seed gives the same history, to the last event.";

pub fn run(args: &SimulateArgs) -> Result<(), StackError> {
    let mut command = Command::new(binaries::cargo());
    command.current_dir(binaries::workspace());
    command.args(["run", "--quiet", "--package", "spillway-sim"]);
    command.args(Some("--release").filter(|_| !args.dev)).arg("--");
    match args.seed {
        Some(seed) => command.args(["--seed", &seed.to_string()]),
        None => {
            let (seeds, first) = (args.seeds.to_string(), args.first.to_string());
            command.args(["--seeds", &seeds, "--first", &first])
        }
    };
    command.args(Some("--mutants").filter(|_| args.mutants));
    super::ends_well(command, "the simulation")
}
