//! How fast one consumer drains Kafka into one MySQL, and what that costs in CPU on either side.
//!
//! The clock runs from the first applied batch to the last, so that neither start nor claim counts.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use spillway_proto::frame::{EncodeError, Encoder};
use spillway_proto::kafka_record::{HEADER_ENVIRONMENT, Lane};
use spillway_proto::partition::Partitioning;
use spillway_proto::{Batch, BatchId, Kind, Point, Series};
use spillway_testkit::stack::StackFile;
use spillway_testkit::{Stack, StackError, StackOptions};
use sqlx::MySqlConnection;
use uuid::Uuid;

use crate::process_cpu;
use crate::site::{GROUP, PARTITIONS, applied_points, recreate_schema, recreate_topics};
use crate::site::{write_json, write_settings};

/// Series in one batch.
const SERIES_PER_BATCH: u32 = 100;
/// How often progress is read.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the whole drain may take.
const DRAIN_WITHIN: Duration = Duration::from_secs(600);

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Points to drain.
    #[arg(long, default_value_t = 5_000_000)]
    pub points: u64,
    /// Series they belong to.
    #[arg(long, default_value_t = 20_000)]
    pub series: u32,
    /// Points in one row.
    #[arg(long, default_value_t = 10)]
    pub points_per_row: u32,
    /// Workers of the consumer.
    #[arg(long, default_value_t = 2)]
    pub workers: u16,
    /// Points in one transaction at most.
    #[arg(long, default_value_t = 100_000)]
    pub transaction_points: u32,
    /// A folder of `cargo xtask up --servers-only` whose servers to use; empties them.
    #[arg(long)]
    pub stack: Option<PathBuf>,
    /// The consumer's binary; beside this one unless told.
    #[arg(long)]
    pub consumer: Option<PathBuf>,
    /// Writes the result here.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("the topics could not be made anew in time")]
    Topics,
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    Migrate(#[from] spillway_consumer::migrations::MigrateError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("the stack has no {0}")]
    Missing(&'static str),
    #[error("{0} marked minutes are not rolled up in time")]
    NotRolled(i64),
    #[error("only {applied} of {points} points were applied in time")]
    Late { applied: u64, points: u64 },
}

/// What was measured.
#[derive(Debug, serde::Serialize)]
struct Report {
    points: u64,
    series: u32,
    points_per_row: u32,
    workers: u16,
    seconds: f64,
    points_per_second: f64,
    consumer_cpu_seconds_per_million: f64,
    mysqld_cpu_seconds_per_million: f64,
}

/// Servers with points in Kafka and an empty schema.
pub struct Prepared {
    pub file: StackFile,
    pub conn: MySqlConnection,
    /// Process id.
    pub mysqld: u32,
    pub points: u64,
    pub dir: tempfile::TempDir,
    _stack: Option<Stack>,
}

impl Prepared {
    pub async fn new(options: &Options) -> Result<Self, BenchError> {
        let stack = match options.stack {
            Some(_) => None,
            None => {
                let servers = StackOptions { servers_only: true, ..StackOptions::default() };
                Some(Stack::start(servers).await?)
            }
        };
        let file = stack_file(options, stack.as_ref())?;
        let shard = file.mysql.first().ok_or(BenchError::Missing("shard"))?;
        let mysqld = file.processes.iter().find(|process| process.name == "mysql-s0");
        let mysqld = mysqld.and_then(|process| process.pid).ok_or(BenchError::Missing("mysqld"))?;
        let mysqld = u32::try_from(mysqld).map_err(|_| BenchError::Missing("mysqld"))?;
        recreate_topics(&file.kafka).await?;
        let conn = recreate_schema(&shard.primary).await?;
        let points = publish(&file.kafka, options)?;
        println!("{points} points are in Kafka; draining");
        Ok(Self { file, conn, mysqld, points, dir: tempfile::tempdir()?, _stack: stack })
    }

    /// The consumer, at work.
    pub fn consumer(&self, options: &Options) -> Result<Child, BenchError> {
        let extra = format!(
            "[store]\nworkers_per_shard = {}\n[gather]\npoints_max = {}\n[log]\nlevel = \"warn\"\n",
            options.workers, options.transaction_points
        );
        let settings = self.settings("consumer", &extra)?;
        start("spillway-consumer", options.consumer.as_ref(), &settings)
    }

    /// A program's settings towards these servers.
    pub fn settings(&self, program: &str, extra: &str) -> Result<PathBuf, BenchError> {
        let shard = self.file.mysql.first().ok_or(BenchError::Missing("shard"))?;
        let dir = self.dir.path();
        Ok(write_settings((dir, program), &self.file.kafka, &shard.primary, extra)?)
    }
}

/// Runs the benchmark and prints what it found.
pub async fn run(options: Options) -> Result<(), BenchError> {
    let mut prepared = Prepared::new(&options).await?;
    let mut consumer = prepared.consumer(&options)?;
    let pids = [consumer.id(), prepared.mysqld];
    let measured = drain(&mut prepared.conn, pids, prepared.points).await;
    consumer.kill()?;
    consumer.wait()?;
    let (seconds, counted, [consumer_cpu, mysqld_cpu]) = measured?;
    let millions = counted as f64 / 1e6;
    let report = Report {
        points: counted,
        series: options.series,
        points_per_row: options.points_per_row,
        workers: options.workers,
        seconds,
        points_per_second: counted as f64 / seconds,
        consumer_cpu_seconds_per_million: consumer_cpu / millions,
        mysqld_cpu_seconds_per_million: mysqld_cpu / millions,
    };
    print(&report);
    write_json(options.json.as_deref(), &report)
}

fn stack_file(options: &Options, started: Option<&Stack>) -> Result<StackFile, BenchError> {
    match (started, &options.stack) {
        (Some(stack), _) => Ok(stack.file()),
        (None, Some(dir)) => Ok(serde_json::from_slice(&std::fs::read(dir.join("stack.json"))?)?),
        (None, None) => Err(BenchError::Missing("servers")),
    }
}

/// Starts a program, which lies beside this one unless told.
pub fn start(
    name: &str,
    given: Option<&PathBuf>,
    settings: &std::path::Path,
) -> Result<Child, BenchError> {
    let beside = std::env::current_exe()?.with_file_name(name);
    let program = given.cloned().unwrap_or(beside);
    Ok(Command::new(program).arg("--config").arg(settings).stdin(Stdio::null()).spawn()?)
}

/// Publishes the points, host by host and window by window as agents would, and says how many.
fn publish(kafka: &str, options: &Options) -> Result<u64, BenchError> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "1000000")
        .create()?;
    let hosts = (options.series / SERIES_PER_BATCH).max(1);
    let per_batch = u64::from(SERIES_PER_BATCH * options.points_per_row);
    let windows = (options.points / per_batch / u64::from(hosts)).max(1);
    let partitioning = Partitioning::new(PARTITIONS, GROUP).ok_or(BenchError::Topics)?;
    let now_ts = jiff::Timestamp::now().as_second();
    let mut encoder = Encoder::new();
    let agents: Vec<(Uuid, Uuid)> = (0..hosts).map(|_| (Uuid::new_v4(), Uuid::now_v7())).collect();
    for window in 0..windows {
        for (host, (agent_id, epoch)) in agents.iter().enumerate() {
            let first_ts = now_ts - i64::try_from(windows).unwrap_or(0) * 10;
            let window_ts = first_ts / 10 * 10 + i64::try_from(window).unwrap_or(0) * 10;
            let id = BatchId::Sequenced { agent_id: *agent_id, epoch: *epoch, seq: window + 1 };
            let batch = batch(id, host, window_ts, options.points_per_row);
            let frame = encoder.encode(&batch)?;
            let partition = partitioning.partition_of(&batch.environment, &batch.host);
            let header =
                Header { key: HEADER_ENVIRONMENT, value: Some(batch.environment.as_bytes()) };
            let key = id.to_bytes();
            let record = BaseRecord::to(Lane::Live.topic())
                .partition(i32::from(partition))
                .key(&key)
                .payload(&frame[..])
                .headers(OwnedHeaders::new().insert(header));
            producer.send(record).map_err(|(error, _)| error)?;
        }
    }
    producer.flush(DRAIN_WITHIN)?;
    Ok(windows * u64::from(hosts) * per_batch)
}

/// Values like a busy host's: some whole, some with two decimals, some of full precision.
fn batch(id: BatchId, host: usize, window_ts: i64, points_per_row: u32) -> Batch {
    let value = |series: u32, at: u32| {
        let n = f64::from(series * 31 + at * 7 + u32::try_from(window_ts % 9_973).unwrap_or(0));
        match series % 3 {
            0 => n,
            1 => (n * 1.37 * 100.0).round() / 100.0,
            _ => n / 7.0,
        }
    };
    let step_ms = 10_000 / points_per_row.max(1);
    let series = |series: u32| Series {
        metric: format!("system.metric_{}", series / 4),
        labels: vec![("device".to_owned(), format!("dev{}", series % 4))],
        kind: Kind::Gauge,
        unit: "1".to_owned(),
        points: (0..points_per_row)
            .map(|at| Point {
                ts_ms: window_ts * 1_000 + i64::from(at * step_ms),
                value: value(series, at),
            })
            .collect(),
    };
    Batch {
        id,
        environment: ["demo", "acme", "globex"].get(host % 3).copied().unwrap_or("demo").to_owned(),
        host: format!("host-{host:04}"),
        window_ts: u32::try_from(window_ts).unwrap_or(0),
        series: (0..SERIES_PER_BATCH).map(series).collect(),
        previous: None,
        declarations: Vec::new(),
        closing: false,
        host_info: None,
    }
}

/// Seconds, points and CPU seconds of both processes from the first applied batch to the last.
pub async fn drain(
    conn: &mut MySqlConnection,
    [consumer, mysqld]: [u32; 2],
    points: u64,
) -> Result<(f64, u64, [f64; 2]), BenchError> {
    let until = Instant::now() + DRAIN_WITHIN;
    let mut first = None;
    loop {
        let applied = applied_points(&mut *conn).await?;
        let cpu = [process_cpu::seconds(consumer)?, process_cpu::seconds(mysqld)?];
        if applied >= points {
            let (began, at, [consumer, mysqld]) = first.unwrap_or((Instant::now(), 0, cpu));
            let spent = [cpu[0] - consumer, cpu[1] - mysqld];
            return Ok((began.elapsed().as_secs_f64(), applied - at, spent));
        }
        if applied > 0 {
            first.get_or_insert((Instant::now(), applied, cpu));
        }
        if Instant::now() > until {
            return Err(BenchError::Late { applied, points });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn print(report: &Report) {
    let mut table = comfy_table::Table::new();
    table.set_header([
        "points",
        "points a row",
        "workers",
        "seconds",
        "points/s",
        "consumer CPU s/M",
        "mysqld CPU s/M",
    ]);
    table.add_row([
        report.points.to_string(),
        report.points_per_row.to_string(),
        report.workers.to_string(),
        format!("{:.1}", report.seconds),
        format!("{:.0}", report.points_per_second),
        format!("{:.2}", report.consumer_cpu_seconds_per_million),
        format!("{:.2}", report.mysqld_cpu_seconds_per_million),
    ]);
    println!("{table}");
}
