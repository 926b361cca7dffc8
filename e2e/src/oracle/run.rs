//! The oracle at volume: millions of points, everything killed once on the way, all laws.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use spillway_testkit::stack::{Stack, StackOptions};
use spillway_testkit::{Progress, StackError};

use super::report::Report;
use super::site::Site;
use super::trial::{Shape, Trial};
use crate::rig::{HASTY_WORKER, PATIENT_CONSOLE};

/// What is given up on the way, in percent: declared and withheld batches, rounded up.
const GIVEN_UP_PERCENT: usize = 5;

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// At least so many points are accepted
    #[arg(long, default_value_t = 10_000_000)]
    points: usize,
    /// Judge the stack that `cargo xtask up --dir DIR` keeps running; nothing of it is killed
    #[arg(long, value_name = "DIR")]
    stack: Option<PathBuf>,
    /// Kill nothing
    #[arg(long)]
    quiet: bool,
}

/// Runs a load of so many points and judges it.
///
/// # Errors
/// The stack, the recorder or the judge can't do their work.
pub async fn run(args: &RunArgs) -> Result<Report, StackError> {
    let shape = shape(args.points);
    if let Some(dir) = &args.stack {
        let trial = Trial::start(Site::of_dir(dir)?, Shape { agents: 0, ..shape }, dir).await?;
        return trial.end().await;
    }
    let options = StackOptions {
        shards: 2,
        apis: 2,
        consumers: 2,
        progress: Progress::new(|line| println!("{line}")),
        ..StackOptions::default()
    };
    let options = options.set("recovery-worker", HASTY_WORKER).set("console", PATIENT_CONSOLE);
    let stack = Arc::new(Stack::start(options).await?);
    let dir = stack.dir().to_owned();
    judge_stack(&stack, shape, &dir, !args.quiet).await
}

async fn judge_stack(
    stack: &Arc<Stack>,
    shape: Shape,
    dir: &Path,
    faults: bool,
) -> Result<Report, StackError> {
    let mut trial = Trial::start(Site::of_stack(Arc::clone(stack)), shape, dir).await?;
    if faults {
        trial.reached(10).await;
        trial.restart_recorder().await?;
        for (percent, name) in FAULTS {
            trial.reached(percent).await;
            println!("{percent} %: {name} is killed and started again");
            stack.kill(name).await?;
            stack.start_process(name).await?;
        }
    }
    trial.end().await
}

/// Who is killed, and after how much of the load.
const FAULTS: [(usize, &str); 8] = [
    (20, "consumer-0"),
    (30, "ingest-api-0"),
    (40, "mysql-s0"),
    (50, "recovery-worker-0"),
    (55, "s3"),
    (60, "kafka-0"),
    (75, "consumer-1"),
    (85, "mysql-s1"),
];

fn shape(points: usize) -> Shape {
    let small = Shape {
        environments: ["demo", "acme", "globex"].map(str::to_owned).to_vec(),
        hosts: 8,
        series: 40,
        points: 20,
        pace: Duration::ZERO,
        agents: 2,
        accepted_within: Duration::from_secs(900),
        drained_within: Duration::from_secs(600),
        ..Shape::small()
    };
    let per_window = small.environments.len() * small.hosts * small.series * small.points;
    let windows = points * (100 + 2 * GIVEN_UP_PERCENT) / 100 / per_window.max(1);
    Shape { windows: windows.max(60), ..small }
}
