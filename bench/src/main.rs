//! `cargo run --release -p spillway-bench -- NAME`: how fast one part is, alone, on this machine.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Benchmarks; each prints a table and, with --json, writes what it measured.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Publishes frames to Kafka, then times how fast one consumer drains them into one MySQL.
    Consumer(spillway_bench::consumer::Options),
    /// Stores points, then times how fast one keeper makes their rollups.
    Rollups(spillway_bench::rollups::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().bench {
        Bench::Consumer(options) => spillway_bench::consumer::run(options).await,
        Bench::Rollups(options) => spillway_bench::rollups::run(options).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spillway-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
