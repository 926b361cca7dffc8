//! What an agent costs the server it runs on: this host's own metrics, and targets that it scrapes,
//! from their answers to Kafka's acknowledgement.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use spillway_testkit::Stack;
use spillway_testkit::stack::AgentOptions;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};

use crate::consumer::BenchError;
use crate::meter::{Meter, Spent};
use crate::site::{programs, write_json};

const AGENT: &str = "bench-agent";
/// Points of batches that have a seq.
const EMITTED: &str = "spillway_agent_points_emitted_total";
/// A window, and what it takes to be sent: what is measured begins after the first.
const WARM: Duration = Duration::from_secs(15);

/// What to measure.
#[derive(clap::Args, Debug)]
#[group(id = "agent")]
pub struct Options {
    /// Targets to scrape every ten seconds, each with an address of its own. 0: this host alone.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=250))]
    pub targets: u8,
    /// Samples of a target.
    #[arg(long, default_value_t = 500)]
    pub samples: u32,
    /// How long to measure.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Writes the result here.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, serde::Serialize)]
struct Report {
    targets: u8,
    samples: u32,
    seconds: f64,
    points: u64,
    /// Of one core.
    cpu_percent: f64,
    spent: Vec<Spent>,
}

/// Runs the benchmark and prints what it found.
///
/// # Errors
/// A server or program did not do its part.
pub async fn run(options: Options) -> Result<(), BenchError> {
    let targets = TcpListener::bind(("0.0.0.0", 0)).await?;
    let port = targets.local_addr()?.port();
    tokio::spawn(serve(targets, options.samples));
    let stack = Stack::start(programs()).await?;
    let mut agent = AgentOptions::new(AGENT, "demo", AGENT);
    agent.toml = settings(options.targets, port);
    stack.spawn_agent(agent).await?;
    tokio::time::sleep(WARM).await;
    let emitted = async || Ok::<_, BenchError>(stack.metrics(AGENT).await?.sum(EMITTED) as u64);
    let (before, began) = (emitted().await?, Instant::now());
    let meter = Meter::begin(&stack, &[AGENT])?;
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let points = emitted().await? - before;
    let (seconds, spent) = (began.elapsed().as_secs_f64(), meter.end(points)?);
    let cpu_percent = spent.iter().map(|agent| agent.cpu_seconds).sum::<f64>() / seconds * 100.0;
    let Options { targets, samples, json, .. } = options;
    let report = Report { targets, samples, seconds, points, cpu_percent, spent };
    print(&report);
    write_json(json.as_deref(), &report)
}

fn settings(targets: u8, port: u16) -> String {
    if targets == 0 {
        return String::new();
    }
    let all: Vec<String> = (1..=targets).map(|at| format!("\"127.0.1.{at}:{port}\"")).collect();
    format!("[[scrape]]\njob = \"bench\"\ninterval = \"10s\"\ntargets = [{}]\n", all.join(", "))
}

/// Answers every request with samples that change.
async fn serve(targets: TcpListener, samples: u32) {
    while let Ok((stream, _)) = targets.accept().await {
        // Whoever hangs up is no failure of ours.
        tokio::spawn(async move { drop(answer(stream, samples).await) });
    }
}

async fn answer(stream: TcpStream, samples: u32) -> std::io::Result<()> {
    let mut stream = BufStream::new(stream);
    let (mut line, mut turn) = (String::new(), 0_u32);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if line != "\r\n" {
            continue;
        }
        turn += 1;
        let body = body(samples, turn);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length";
        stream.write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
        stream.flush().await?;
    }
}

fn body(samples: u32, turn: u32) -> String {
    let mut body = "# TYPE bench_requests counter\n".to_owned();
    for at in 0..samples {
        let labels = format!("method=\"get\",path=\"/items/{at}\",status=\"200\"");
        let value = f64::from(turn * (at % 97 + 1)) * 1.25;
        // Writing to a String can't fail.
        writeln!(body, "bench_requests{{{labels}}} {value}").unwrap_or_default();
    }
    body
}

fn print(report: &Report) {
    let mut table = comfy_table::Table::new();
    table.set_header([
        "targets",
        "samples each",
        "points",
        "seconds",
        "% of a core",
        "CPU s per million points",
        "peak MiB",
    ]);
    for agent in &report.spent {
        table.add_row([
            report.targets.to_string(),
            report.samples.to_string(),
            report.points.to_string(),
            format!("{:.0}", report.seconds),
            format!("{:.2}", report.cpu_percent),
            format!("{:.2}", agent.cpu_seconds_per_million),
            agent.peak_mib.to_string(),
        ]);
    }
    println!("{table}");
}
