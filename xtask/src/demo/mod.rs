//! `cargo xtask demo`: the whole pipeline on this machine, with this host's own metrics. What the
//! table and the summary say is read from the agents' metrics and the MySQL views, nothing else.

mod look;
mod fault;
mod story;
mod screen;
mod summary;

use std::path::PathBuf;
use std::time::Duration;

use spillway_testkit::{AgentOptions, Stack, StackError, StackOptions};
use tokio::time::Instant;

use self::fault::{Fault, Part};
use self::look::Looker;
use self::screen::Screen;
use self::story::Story;
use crate::signals::Signals;
use crate::up::{self, Size};

/// Ours beside `agent`, which measures this host: process, environment, host.
const OTHERS: [(&str, &str, &str); 2] =
    [("agent-acme", "acme", "acme-web-1"), ("agent-globex", "globex", "globex-db-1")];
/// A run with a fault needs an end; this leaves time to see it heal.
const BREAK_SECONDS: u64 = 120;
/// Until this host's first metrics must be readable in MySQL.
const FIRST_METRICS_DEADLINE: Duration = Duration::from_secs(60);

/// Parking after seconds and short retries, so that a short run shows what takes minutes outside.
const AGENT: &str = r#"
[collect]
interval = "1s"
[deliver]
park_after = "4s"
probe_interval = "1s"
probe_interval_max = "4s"
retry_min = "200ms"
retry_max = "2s"
backlog_after = "15s"
warm_every = "30s"
"#;
/// It looks at S3 less often than agents send, so that a break shows the gap that S3 then closes.
const RECOVERY_WORKER: &str = r#"
[drain]
poll_period = "8s"
hold = "3s"
"#;
const KEEPER: &str = r#"
[lag]
interval = "1s"
"#;

#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// End by itself after so long, with a summary; exit 0 only if nothing is missing
    #[arg(long, value_parser = clap::value_parser!(u64).range(20..))]
    seconds: Option<u64>,
    /// Kill this part for a third of the run and show what happens
    #[arg(long = "break")]
    part: Option<Part>,
    #[command(flatten)]
    size: Size,
    /// Where everything is written; what an earlier stack left there is removed
    #[arg(long, default_value = "target/demo")]
    dir: PathBuf,
    /// Unoptimised programs, which build faster
    #[arg(long)]
    dev: bool,
}

/// Whether everything that was measured has arrived; `None` if a signal came first.
pub async fn run(args: DemoArgs) -> Result<Option<bool>, StackError> {
    let mut signals = Signals::listen()?;
    let stack = tokio::select! {
        stack = start(&args) => stack?,
        () = signals.stop() => return Ok(None),
    };
    let seconds = args.seconds.or(args.part.map(|_| BREAK_SECONDS));
    let complete = tokio::select! {
        complete = show(&stack, seconds, args.part) => Some(complete?),
        () = signals.stop() => end_early(&stack, &mut signals).await?,
    };
    println!("stopping everything");
    up::stop(stack, &mut signals).await;
    Ok(complete)
}

async fn start(args: &DemoArgs) -> Result<Stack, StackError> {
    let options = StackOptions {
        dir: Some(args.dir.clone()),
        agent: true,
        release: !args.dev,
        ..args.size.options()
    };
    let options =
        options.set("agent", AGENT).set("recovery-worker", RECOVERY_WORKER).set("keeper", KEEPER);
    let stack = Stack::start(options).await?;
    for (name, environment, host) in OTHERS {
        stack.spawn_agent(AgentOptions::new(name, environment, host)).await?;
    }
    Ok(stack)
}

/// Ctrl-C asks for the same end as `--seconds`; a second one for no end at all.
async fn end_early(stack: &Stack, signals: &mut Signals) -> Result<Option<bool>, StackError> {
    println!("\nending; Ctrl-C again stops at once");
    tokio::select! {
        complete = summary::end(stack) => complete.map(Some),
        () = signals.stop() => Ok(None),
    }
}

async fn show(stack: &Stack, seconds: Option<u64>, part: Option<Part>) -> Result<bool, StackError> {
    let mut screen = Screen::new();
    let looker = Looker::new(stack)?;
    wait_for_first_metrics(&looker, &mut screen).await?;
    introduce(stack, &mut screen);
    let since = Instant::now();
    let end = seconds.map(|s| since + Duration::from_secs(s));
    let mut fault = seconds.zip(part).map(|(seconds, part)| Fault::plan(part, seconds));
    let mut story = Story::default();
    while end.is_none_or(|end| Instant::now() < end) {
        if let Some(fault) = &mut fault {
            fault.act(stack, since.elapsed(), &mut screen).await?;
        }
        let look = looker.look().await;
        for line in story.told_by(&look) {
            screen.line(&line);
        }
        screen.table(&look);
        tokio::time::sleep(screen.pause()).await;
    }
    if let Some(fault) = &mut fault {
        fault.heal(stack, &mut screen).await?;
    }
    screen.keep();
    summary::end(stack).await
}

async fn wait_for_first_metrics(
    looker: &Looker<'_>,
    screen: &mut Screen,
) -> Result<(), StackError> {
    screen.line("waiting until this host's metrics are readable in MySQL");
    let since = Instant::now();
    let mut trouble = None;
    while since.elapsed() < FIRST_METRICS_DEADLINE {
        let look = looker.look().await;
        if let Some(applied) = look.applied("demo").filter(|points| *points > 0) {
            screen.line(&format!("{applied} points of this host are in MySQL"));
            return Ok(());
        }
        trouble = look.trouble;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let why = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
    Err(StackError::Refused {
        what: format!("no metric of this host was in MySQL after {FIRST_METRICS_DEADLINE:?}{why}"),
    })
}

fn introduce(stack: &Stack, screen: &mut Screen) {
    if let Some(url) = stack.status_page_url() {
        screen.line(&format!("status page  {url}"));
    }
    if let Some(reader) = stack.seeds().readers.get("demo") {
        screen.line(&format!("read with    {reader}"));
        screen.line("             SELECT * FROM metrics_10s WHERE metric LIKE 'cpu.%' LIMIT 20");
    }
}
