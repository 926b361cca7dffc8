//! `cargo xtask bench NAME`: how fast one part is, or all of them together, on this machine.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use spillway_bench::hops::Hops;

/// Benchmarks; each prints a table and, with --json, writes what it measured.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Played agents send batches; until the API has answered 2xx for all of them.
    Api(spillway_bench::hops::Options),
    /// Publishes frames to Kafka, then times how fast one consumer drains them into one MySQL.
    Consumer(spillway_bench::consumer::Options),
    /// Stores points, then times how fast one keeper makes their rollups.
    Rollups(spillway_bench::rollups::Options),
    /// What an agent costs its host: CPU and memory, with so many targets to scrape.
    Agent(spillway_bench::agent::Options),
    /// Played agents park everything in S3; then one worker drains it, until MySQL has it all.
    Recovery(spillway_bench::hops::Options),
    /// Played agents send batches; until MySQL has them all.
    E2e(spillway_bench::hops::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().bench {
        Bench::Api(options) => spillway_bench::hops::run(Hops::Api, options).await,
        Bench::Recovery(options) => spillway_bench::hops::run(Hops::Recovery, options).await,
        Bench::E2e(options) => spillway_bench::hops::run(Hops::E2e, options).await,
        Bench::Agent(options) => spillway_bench::agent::run(options).await,
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
