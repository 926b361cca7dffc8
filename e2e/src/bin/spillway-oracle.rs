//! The oracle as a program: keeps the ledger, runs a load and judges it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use spillway_e2e::mutants;
use spillway_e2e::oracle::{recorder, run};

/// Judges a pipeline: a load whose every point is known, and the laws L1 to L8
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a load with faults and judges it (ten million points: about ten minutes)
    Run(run::RunArgs),
    /// Runs the system with each wrong behaviour built in; each must break a law
    Mutants(mutants::MutantArgs),
    /// Keeps a ledger until it is killed (started by `run`)
    Record {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        file: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let holds = match Cli::parse().command {
        Command::Run(args) => match run::run(&args).await {
            Ok(report) => {
                println!("{report}");
                Ok(report.holds())
            }
            Err(error) => Err(error.to_string()),
        },
        Command::Mutants(args) => mutants::run(&args).await.map_err(|error| error.to_string()),
        Command::Record { listen, file } => {
            recorder::serve(listen, &file).await.map(|()| true).map_err(|error| error.to_string())
        }
    };
    match holds {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
