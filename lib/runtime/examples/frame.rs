//! A whole program in one file: settings, frame, drain. `tests/frame.rs` runs it as a process.

use std::process::ExitCode;

use clap::Command;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spillway_runtime::program::{Context, Drained, Invocation, Misconfigured, Program, RunError};
use spillway_runtime::settings::{
    AdminSettings, LogSettings, Problem, Process, Secret, Settings, ShutdownSettings,
};

/// How the example ends once it is told to stop.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum End {
    #[default]
    Clean,
    Left,
    Hang,
    Misfit,
}

/// The example's settings.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Example {
    /// What to log.
    log: LogSettings,
    /// Health and metrics.
    admin: AdminSettings,
    /// How it stops.
    shutdown: ShutdownSettings,
    /// How it ends.
    end: End,
    /// Below 100.
    number: u32,
    /// Not for your eyes.
    password: Secret,
}

impl Settings for Example {
    const PROGRAM: &'static str = "example";
    const ABOUT: &'static str = "shows the frame of a program";

    fn process(&self) -> Process<'_> {
        Process { log: &self.log, admin: &self.admin, shutdown: &self.shutdown }
    }

    fn validate(&self) -> Vec<Problem> {
        let large = (self.number >= 100).then(|| Problem::new("number", "must be below 100"));
        large.into_iter().collect()
    }
}

async fn run(settings: Example, mut context: Context) -> Result<Drained, RunError> {
    if matches!(settings.end, End::Misfit) {
        return Err(Misconfigured("the topic has 12 partitions, not 64".to_owned()).into());
    }
    context.health.set_ready(true);
    println!("ready");
    loop {
        tokio::select! {
            () = context.shutdown.wait() => break,
            changed = context.reload.changed() => {
                changed?;
                println!("reloaded");
            }
        }
    }
    println!("draining");
    match settings.end {
        End::Left => Ok(Drained::Left("3 batches".to_owned())),
        End::Hang => std::future::pending().await,
        End::Clean | End::Misfit => Ok(Drained::Everything),
    }
}

fn main() -> ExitCode {
    let look = Command::new("look").about("Looks at a running program");
    let look_at = |told: Invocation<Example>| {
        println!("number {}", told.settings.number);
        ExitCode::SUCCESS
    };
    Program::<Example>::new("1.2.3").looking(look, look_at).run(run)
}
