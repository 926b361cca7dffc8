//! A program's frame: command line → settings → logs → signals → admin page → the program itself →
//! ordered drain → exit code. `main.rs` of each program is one call of [`main`].
//!
//! Exit codes: 0 drained with nothing left, 75 something was left behind (start again), 78 the
//! settings are wrong, 64 the command line is wrong, 1 it failed.

mod cli;
mod context;
mod signals;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use crate::settings::{Settings, SettingsErrors};
use crate::shards::ShardsError;
use crate::shutdown::Shutdown;

pub use cli::{Invocation, Program};
pub use context::Context;

/// Nothing was left behind.
pub const EXIT_OK: u8 = 0;
/// It failed.
pub const EXIT_FAILED: u8 = 1;
/// The command line is wrong (sysexits' EX_USAGE).
pub const EXIT_USAGE: u8 = 64;
/// Something was left behind; starting again goes on with it (EX_TEMPFAIL).
pub const EXIT_LEFT: u8 = 75;
/// The settings are wrong (EX_CONFIG).
pub const EXIT_CONFIG: u8 = 78;

/// What a program gets beyond its drain deadline, to say what it left, before it is ended.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// How long blocking work may hold up the exit of a program that has drained.
const RUNTIME_END_MAX: Duration = Duration::from_secs(2);

/// Any error; told as one chain of causes, exit code 1 (78 if it is about settings).
pub type RunError = Box<dyn Error + Send + Sync>;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    /// All work in hand is where it belongs.
    Everything,
    /// What was not done in time, in one sentence.
    Left(String),
}

/// The settings do not fit the outside (a topic's partitions, a shard's epoch): exit code 78.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Misconfigured(pub String);

/// Runs a program that has no subcommands of its own.
pub fn main<T, F, Fut>(version: &'static str, run: F) -> ExitCode
where
    T: Settings,
    F: FnOnce(T, Context) -> Fut,
    Fut: Future<Output = Result<Drained, RunError>>,
{
    Program::<T>::new(version).run(run)
}

/// Runs a program whose settings are known already: for a command line that is not
/// [`Program`]'s own. Logs, signals, admin page, drain and exit code are the same.
pub fn run_to_end<T, F, Fut>(
    version: &'static str,
    settings: T,
    config_path: Option<std::path::PathBuf>,
    run: F,
) -> ExitCode
where
    T: Settings,
    F: FnOnce(T, Context) -> Fut,
    Fut: Future<Output = Result<Drained, RunError>>,
{
    if let Err(error) = crate::logging::start(settings.process().log) {
        eprintln!("spillway-{}: {error}", T::PROGRAM);
        return ExitCode::from(EXIT_FAILED);
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = settings.worker_threads() {
        builder.worker_threads(threads.max(1));
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the async runtime cannot start");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let code = runtime.block_on(supervise(version, settings, config_path, run));
    runtime.shutdown_timeout(RUNTIME_END_MAX);
    ExitCode::from(code)
}

async fn supervise<T, F, Fut>(
    version: &'static str,
    settings: T,
    config_path: Option<std::path::PathBuf>,
    run: F,
) -> u8
where
    T: Settings,
    F: FnOnce(T, Context) -> Fut,
    Fut: Future<Output = Result<Drained, RunError>>,
{
    let drain = settings.process().shutdown.drain_deadline.get();
    let admin = settings.process().admin.clone();
    let (context, reload) = Context::new(T::PROGRAM, version, drain, config_path);
    if let Err(error) = signals::listen(context.clone(), reload) {
        tracing::error!(%error, "signals cannot be listened to");
        return EXIT_FAILED;
    }
    if admin.enabled {
        let (health, metrics) = (context.health.clone(), context.metrics.clone());
        if let Err(error) = crate::admin::serve(admin.listen, health, metrics).await {
            tracing::error!("{error}");
            return EXIT_FAILED;
        }
    }
    tracing::info!(program = T::PROGRAM, version, "started");
    let shutdown = context.shutdown.clone();
    tokio::select! {
        ended = run(settings, context) => exit_code(ended),
        () = overdue(shutdown) => {
            tracing::error!("the drain deadline passed and the program did not end; leaving");
            EXIT_LEFT
        }
    }
}

async fn overdue(shutdown: Shutdown) {
    shutdown.wait().await;
    tokio::time::sleep_until(shutdown.drain_until() + DRAIN_GRACE).await;
}

fn exit_code(ended: Result<Drained, RunError>) -> u8 {
    match ended {
        Ok(Drained::Everything) => {
            tracing::info!("stopped; nothing was left");
            EXIT_OK
        }
        Ok(Drained::Left(what)) => {
            tracing::warn!(left = what, "stopped; something was left");
            EXIT_LEFT
        }
        Err(error) => {
            tracing::error!("stopped: {}", chain(&*error));
            if is_configuration(&*error) { EXIT_CONFIG } else { EXIT_FAILED }
        }
    }
}

/// Looks through the causes as well: a wrapped settings error is still one.
fn is_configuration(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<Misconfigured>() || error.is::<SettingsErrors>() || error.is::<ShardsError>()
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error with its causes; a cause that its parent's text already holds is not repeated.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
