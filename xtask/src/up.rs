//! `cargo xtask up`: a stack that stays up until Ctrl-C or SIGTERM.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use spillway_testkit::stack::StackFile;
use spillway_testkit::{Progress, Stack, StackError, StackOptions};

use crate::signals::Signals;

/// How soon stack.json tells of a process that somebody restarted.
const REFRESH: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// Kafka brokers: one, or three with replicated topics
    #[arg(long, default_value_t = 1)]
    brokers: u16,
    /// MySQL shards
    #[arg(long, default_value_t = 1)]
    shards: u16,
    /// Replicas of each shard
    #[arg(long, default_value_t = 0)]
    replicas: u16,
    /// Where everything is written; what an earlier stack left there is removed
    #[arg(long, default_value = "target/stack")]
    dir: PathBuf,
    /// Only Kafka, MySQL, Redis and S3: no topics, no schema, no programs
    #[arg(long)]
    servers_only: bool,
}

impl UpArgs {
    fn options(&self) -> StackOptions {
        StackOptions {
            brokers: self.brokers,
            shards: self.shards,
            replicas: self.replicas,
            dir: Some(self.dir.clone()),
            servers_only: self.servers_only,
            progress: timed_progress(),
            ..StackOptions::default()
        }
    }
}

/// Lines with the seconds since the start, on standard error.
pub fn timed_progress() -> Progress {
    let since = Instant::now();
    Progress::new(move |line| eprintln!("{:6.1} s  {line}", since.elapsed().as_secs_f64()))
}

pub async fn run(args: UpArgs) -> Result<(), StackError> {
    let mut signals = Signals::listen()?;
    let stack = tokio::select! {
        stack = Stack::start(args.options()) => stack?,
        () = signals.stop() => return Ok(()),
    };
    show(&stack);
    loop {
        tokio::select! {
            () = signals.stop() => break,
            () = tokio::time::sleep(REFRESH) => stack.refresh_file()?,
        }
    }
    eprintln!("stopping");
    drop(stack);
    Ok(())
}

fn show(stack: &Stack) {
    let StackFile { kafka, mysql, redis, s3, .. } = stack.file();
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
