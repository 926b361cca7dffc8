//! How fast one keeper makes the rollups of one shard, and what that costs in CPU on either side:
//! after the consumer has stored everything, or beside it.
//!
//! The keeper paces itself by the shard's latency, so its rate says what it takes for itself, not
//! what it could; `--rest-max 1ms` takes the pace away. Only minutes that end before the load was
//! made are waited for: the others settle first.

use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use sqlx::MySqlConnection;

use crate::consumer::{self, BenchError, Prepared, drain, start};
use crate::process_cpu;
use crate::site::write_json;

/// How often progress is read.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long all rollups may take.
const ROLLED_WITHIN: Duration = Duration::from_secs(1_800);
/// A minute is made once it settled: ten seconds after its end, and a round later.
const SETTLE_S: u32 = 90;

/// What to measure.
#[derive(clap::Args, Debug)]
#[group(id = "rollups")]
pub struct Options {
    #[command(flatten)]
    pub load: consumer::Options,
    /// Rollups are made while the consumer stores.
    #[arg(long)]
    pub beside: bool,
    /// The keeper's `pace.rest_max`; as shipped unless told.
    #[arg(long)]
    pub rest_max: Option<String>,
    /// The keeper's binary; beside this one unless told.
    #[arg(long)]
    pub keeper: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, serde::Serialize)]
struct Report {
    beside_the_consumer: bool,
    rest_max: String,
    /// Of the consumer, without the keeper unless it ran beside.
    stored_points_per_second: f64,
    points: u64,
    marks: i64,
    seconds: f64,
    points_per_second: f64,
    marks_per_second: f64,
    keeper_cpu_seconds_per_million: f64,
    /// Beside the consumer, its share is in it.
    mysqld_cpu_seconds_per_million: f64,
}

/// Runs the benchmark and prints what it found.
///
/// # Errors
/// A server or program did not do its part.
pub async fn run(options: Options) -> Result<(), BenchError> {
    let mut prepared = Prepared::new(&options.load).await?;
    let until = jiff::Timestamp::now().as_second();
    let until = u32::try_from(until).unwrap_or(0).saturating_sub(SETTLE_S) / 60 * 60;
    let mut programs = Programs::default();
    let mut keeper = None;
    if options.beside {
        keeper = Some(programs.keeper(&prepared, &options)?);
    }
    let mut began = Instant::now();
    let mut before = process_cpu::seconds(prepared.mysqld)?;
    programs.0.push(prepared.consumer(&options.load)?);
    let consumer = programs.0.last().map_or(0, Child::id);
    let pids = [consumer, prepared.mysqld];
    let (stored_s, stored, _) = drain(&mut prepared.conn, pids, prepared.points).await?;
    if !options.beside {
        began = Instant::now();
        before = process_cpu::seconds(prepared.mysqld)?;
    }
    let keeper = match keeper {
        Some(keeper) => keeper,
        None => programs.keeper(&prepared, &options)?,
    };
    let rolled = roll(&mut prepared.conn, until).await?;
    let seconds = began.elapsed().as_secs_f64();
    let millions = rolled.points as f64 / 1e6;
    let mysqld = process_cpu::seconds(prepared.mysqld)? - before;
    let report = Report {
        beside_the_consumer: options.beside,
        rest_max: options.rest_max.unwrap_or_else(|| "as shipped".to_owned()),
        stored_points_per_second: stored as f64 / stored_s,
        points: rolled.points,
        marks: rolled.marks,
        seconds,
        points_per_second: rolled.points as f64 / seconds,
        marks_per_second: rolled.marks as f64 / seconds,
        keeper_cpu_seconds_per_million: process_cpu::seconds(keeper)? / millions,
        mysqld_cpu_seconds_per_million: mysqld / millions,
    };
    print(&report);
    write_json(options.load.json.as_deref(), &report)
}

/// Killed when dropped.
#[derive(Default)]
struct Programs(Vec<Child>);

impl Programs {
    /// Starts the keeper; its process id.
    fn keeper(&mut self, prepared: &Prepared, options: &Options) -> Result<u32, BenchError> {
        let rest_max = options.rest_max.as_ref();
        let pace = rest_max.map(|rest| format!("[pace]\nrest_max = \"{rest}\"\n"));
        let extra = format!("{}[log]\nlevel = \"warn\"\n", pace.unwrap_or_default());
        let settings = prepared.settings("keeper", &extra)?;
        let keeper = start("spillway-keeper", options.keeper.as_ref(), &settings)?;
        let pid = keeper.id();
        self.0.push(keeper);
        Ok(pid)
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that ended by itself can't be killed, and needs not be.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

struct Rolled {
    points: u64,
    marks: i64,
}

/// Waits until no minute before `until` is marked.
async fn roll(conn: &mut MySqlConnection, until: u32) -> Result<Rolled, BenchError> {
    let open = "SELECT COUNT(*) FROM spillway_store.rollup_marks WHERE minute_ts < ?";
    let by = Instant::now() + ROLLED_WITHIN;
    loop {
        let left: i64 = sqlx::query_scalar(open).bind(until).fetch_one(&mut *conn).await?;
        if left == 0 {
            break;
        }
        if Instant::now() > by {
            return Err(BenchError::NotRolled(left));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let sql = "SELECT CAST(COALESCE(SUM(r.cnt), 0) AS UNSIGNED), \
                 COUNT(DISTINCT s.environment, s.host, r.minute_ts) \
               FROM spillway_store.rollup_1m r JOIN spillway_store.series s USING (series_id) \
               WHERE r.minute_ts < ?";
    let (points, marks) = sqlx::query_as(sql).bind(until).fetch_one(&mut *conn).await?;
    Ok(Rolled { points, marks })
}

fn print(report: &Report) {
    let mut table = comfy_table::Table::new();
    table.set_header([
        "beside the consumer",
        "rest_max",
        "stored points/s",
        "points",
        "marks",
        "seconds",
        "points/s",
        "marks/s",
        "keeper CPU s/M",
        "mysqld CPU s/M",
    ]);
    table.add_row([
        report.beside_the_consumer.to_string(),
        report.rest_max.clone(),
        format!("{:.0}", report.stored_points_per_second),
        report.points.to_string(),
        report.marks.to_string(),
        format!("{:.1}", report.seconds),
        format!("{:.0}", report.points_per_second),
        format!("{:.0}", report.marks_per_second),
        format!("{:.2}", report.keeper_cpu_seconds_per_million),
        format!("{:.2}", report.mysqld_cpu_seconds_per_million),
    ]);
    println!("{table}");
}
