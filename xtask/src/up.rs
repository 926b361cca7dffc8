//! `cargo xtask up`: a stack that stays up until Ctrl-C or SIGTERM.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use spillway_testkit::stack::StackFile;
use spillway_testkit::{Database, Progress, Stack, StackError, StackOptions};

use crate::signals::Signals;

/// How soon stack.json tells of a process that somebody restarted.
const REFRESH: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct UpArgs {
    #[command(flatten)]
    size: Size,
    /// Where everything is written; what an earlier stack left there is removed
    #[arg(long, default_value = "target/stack")]
    dir: PathBuf,
    /// No agent on this host
    #[arg(long)]
    no_agent: bool,
    /// Only Kafka, the shards, Redis and S3: no topics, no schema, no programs
    #[arg(long)]
    servers_only: bool,
    /// Unoptimised programs, which build faster
    #[arg(long)]
    dev: bool,
    /// Optimised programs (the default)
    #[arg(long, conflicts_with = "dev")]
    release: bool,
}

/// How many of each.
#[derive(Debug, Clone, clap::Args)]
pub struct Size {
    /// Kafka brokers: 1, or 3 with replicated topics
    #[arg(long, default_value_t = 1, value_parser = one_or_three)]
    brokers: u16,
    /// Shards
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    shards: u16,
    /// What the shards are: MySQL 8.0.31, or MariaDB 10.11 from Debian's packages
    #[arg(long, default_value = Database::Mysql.name(), value_parser = database())]
    database: Database,
    /// Replicas of each shard
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=4))]
    replicas: u16,
    /// ingest-api processes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8))]
    apis: u16,
    /// consumer processes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8))]
    consumers: u16,
}

fn one_or_three(text: &str) -> Result<u16, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("1, or 3 for replicated topics".into()),
    }
}

fn database() -> impl TypedValueParser<Value = Database> {
    let names = PossibleValuesParser::new(Database::ALL.map(Database::name));
    names.try_map(|name| name.parse::<Database>())
}

impl Size {
    pub fn options(&self) -> StackOptions {
        StackOptions {
            brokers: self.brokers,
            shards: self.shards,
            database: self.database,
            replicas: self.replicas,
            apis: self.apis,
            consumers: self.consumers,
            status_page: true,
            progress: timed_progress(),
            ..StackOptions::default()
        }
    }
}

impl UpArgs {
    fn options(&self) -> StackOptions {
        StackOptions {
            dir: Some(self.dir.clone()),
            servers_only: self.servers_only,
            agent: !self.no_agent,
            release: !self.dev,
            ..self.size.options()
        }
    }
}

/// Lines with the seconds since the start, on standard error.
pub fn timed_progress() -> Progress {
    let since = Instant::now();
    Progress::new(move |line| eprintln!("{:6.1} s  {line}", since.elapsed().as_secs_f64()))
}

/// False if a signal came before the stack was ready.
pub async fn run(args: UpArgs) -> Result<bool, StackError> {
    let mut signals = Signals::listen()?;
    let stack = tokio::select! {
        stack = Stack::start(args.options()) => stack?,
        () = signals.stop() => return Ok(false),
    };
    show(&stack);
    loop {
        tokio::select! {
            () = signals.stop() => break,
            () = tokio::time::sleep(REFRESH) => stack.refresh_file()?,
        }
    }
    eprintln!("stopping; again to stop at once");
    stop(stack, &mut signals).await;
    Ok(true)
}

/// Everything drains in order, unless a second signal comes.
pub async fn stop(mut stack: Stack, signals: &mut Signals) {
    let stopping = tokio::task::spawn_blocking(move || stack.stop());
    tokio::select! {
        ended = stopping => if let Err(error) = ended {
            eprintln!("stopping: {error}");
        },
        // Our end is theirs.
        () = signals.stop() => {}
    }
}

fn show(stack: &Stack) {
    let StackFile { api, status_page, kafka, mysql, redis, s3, .. } = stack.file();
    for url in api {
        println!("api     {url}");
    }
    if let Some(url) = status_page {
        println!("status  {url}");
    }
    println!("kafka   {kafka}");
    for shard in mysql {
        println!("mysql   {}", shard.primary);
        for replica in shard.replicas {
            println!("        {replica} (replica)");
        }
    }
    println!("redis   {redis}");
    println!("s3      {} bucket {} key {}", s3.endpoint, s3.bucket, s3.access_key);
    println!("{}", stack.dir().join("stack.json").display());
    println!("ready; Ctrl-C stops everything");
}
