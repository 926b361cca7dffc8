//! How fast a load of played agents goes through one hop or all of them, and what each program
//! spends on it: `api` until Kafka has it, `e2e` until MySQL has it, `recovery` from S3 to MySQL.
//!
//! The load shares the machine, so rates say what this machine does; CPU seconds say what a
//! program costs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use spillway_e2e::mix::{Mix, S3Door};
use spillway_e2e::{Sender, SenderOptions};
use spillway_testkit::Stack;

use crate::consumer::BenchError;
use crate::meter::{Meter, Spent};
use crate::site::{applied_points, programs, write_json};

/// How long the load, and then MySQL, may take.
const DONE_WITHIN: Duration = Duration::from_secs(900);
/// How often progress is read.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// An order to stop a program is followed within this.
const STOPS_WITHIN: Duration = Duration::from_secs(60);
/// The worker as fast as it can, not below live traffic as it is shipped.
const UNBRIDLED_WORKER: &str = r#"
[drain]
bytes_per_second = "1 GiB"
lag_records_max = 100000000
poll_period = "200ms"
hold = "1s"
[unseal]
patience = "0s"
"#;

/// What to send.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Points to send.
    #[arg(long, default_value_t = 5_000_000)]
    pub points: usize,
    /// Agents at once, each with one request under way.
    #[arg(long, default_value_t = 32)]
    pub hosts: usize,
    /// Series in a batch.
    #[arg(long, default_value_t = 100)]
    pub series: usize,
    /// Points of a series in a batch.
    #[arg(long, default_value_t = 10)]
    pub points_per_series: usize,
    /// Writes the result here.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Which way is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hops {
    Api,
    E2e,
    Recovery,
}

/// What was measured.
#[derive(Debug, serde::Serialize)]
struct Report {
    bench: Hops,
    points: u64,
    batches: u64,
    seconds: f64,
    points_per_second: f64,
    spent: Vec<Spent>,
}

/// Runs the benchmark and prints what it found.
///
/// # Errors
/// A server or program did not do its part.
pub async fn run(hops: Hops, options: Options) -> Result<(), BenchError> {
    let stack = Stack::start(programs().set("recovery-worker", UNBRIDLED_WORKER)).await?;
    let load = load(hops, &options, &stack)?;
    let batches = (load.hosts * load.windows) as u64;
    let points = load.total_points() as u64;
    let (seconds, spent) = match hops {
        Hops::Api => {
            stack.terminate("consumer-0", STOPS_WITHIN).await?;
            measure(&stack, &["ingest-api-0", "kafka-0"], points, sent(load)).await?
        }
        Hops::E2e => {
            let processes = ["ingest-api-0", "kafka-0", "consumer-0", "mysql-s0"];
            let all = async {
                sent(load).await?;
                applied(&stack, points).await
            };
            measure(&stack, &processes, points, all).await?
        }
        Hops::Recovery => {
            stack.terminate("recovery-worker-0", STOPS_WITHIN).await?;
            sent(load).await?;
            println!("{} objects are in S3; draining", stack.parked_objects());
            stack.start_process("recovery-worker-0").await?;
            let processes = ["recovery-worker-0", "kafka-0", "consumer-0", "mysql-s0"];
            measure(&stack, &processes, points, applied(&stack, points)).await?
        }
    };
    let points_per_second = points as f64 / seconds;
    let report = Report { bench: hops, points, batches, seconds, points_per_second, spent };
    print(&report);
    write_json(options.json.as_deref(), &report)
}

fn load(hops: Hops, options: &Options, stack: &Stack) -> Result<SenderOptions, BenchError> {
    let file = stack.file();
    let token = file.token.clone().ok_or(BenchError::Missing("token"))?;
    let per_window = options.hosts * options.series * options.points_per_series;
    let windows = (options.points / per_window.max(1)).max(3);
    let mut mix = Mix::default();
    if hops == Hops::Recovery {
        mix.s3 = Some(S3Door::of(&file).ok_or(BenchError::Missing("key to seal for"))?);
        mix.park_every = 1;
    }
    let small = SenderOptions::small(file.api.clone(), token, &file.environment);
    Ok(SenderOptions {
        hosts: options.hosts,
        windows,
        series: options.series,
        points: options.points_per_series,
        pace: Duration::ZERO,
        // The newest window is a minute old, however many there are.
        first_window_ts: small.first_window_ts + 3_540 - windows as u32 * 10,
        mix,
        ..small
    })
}

/// Seconds and CPU of `work`.
async fn measure(
    stack: &Stack,
    processes: &[&str],
    points: u64,
    work: impl Future<Output = Result<(), BenchError>>,
) -> Result<(f64, Vec<Spent>), BenchError> {
    let meter = Meter::begin(stack, processes)?;
    let began = Instant::now();
    work.await?;
    Ok((began.elapsed().as_secs_f64(), meter.end(points)?))
}

/// Sends a load until each batch is accepted.
async fn sent(load: SenderOptions) -> Result<(), BenchError> {
    Sender::start(load).finish(DONE_WITHIN).await;
    Ok(())
}

/// Waits until MySQL has as many points.
async fn applied(stack: &Stack, points: u64) -> Result<(), BenchError> {
    let mysql = stack.mysql("s0")?;
    let until = Instant::now() + DONE_WITHIN;
    loop {
        let applied = applied_points(&mysql).await?;
        if applied >= points {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(BenchError::Late { applied, points });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn print(report: &Report) {
    let Report { points, batches, seconds, points_per_second, .. } = report;
    println!(
        "{points} points in {batches} batches: {seconds:.1} s, {points_per_second:.0} points/s"
    );
    let mut table = comfy_table::Table::new();
    table.set_header(["process", "CPU s", "CPU s per million points", "peak MiB"]);
    for spent in &report.spent {
        table.add_row([
            spent.process.clone(),
            format!("{:.2}", spent.cpu_seconds),
            format!("{:.2}", spent.cpu_seconds_per_million),
            spent.peak_mib.to_string(),
        ]);
    }
    println!("{table}");
}
