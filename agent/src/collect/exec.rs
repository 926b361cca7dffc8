//! Commands that are run for what they write. No shell, a process group of their own, bounded in
//! time and output: whatever a command started dies with it, and nothing is left a zombie.

use std::process::{ExitStatus, Stdio};

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use spillway_proto::{Kind, limits};
use spillway_runtime::deadline::{DeadlineExceeded, within};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::Labels;
use super::line_protocol::{self, BadLines, Precision};
use super::paced::{Done, Pace, ReadError, Source};
use super::scrape::answer::{Answer, BadAnswer, Limits};
use super::statsd::Listener;
use super::tray::{Pack, Sample};
use crate::settings::{ExecFormat, ExecSettings};

/// Of what a command complains, this much is told.
const COMPLAINT_BYTES_MAX: usize = 512;
/// What is read at once.
const PIECE_BYTES: usize = 16 * 1024;

/// One command.
pub struct Exec {
    settings: ExecSettings,
    /// StatsD lines are added up with everybody else's.
    listener: Listener,
}

/// Why a run said nothing.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("it can't be started")]
    Start(#[source] std::io::Error),
    #[error("its output can't be read")]
    Read(#[source] std::io::Error),
    #[error("it wrote more than output_bytes_max ({0}) and was killed")]
    TooMuch(u64),
    #[error("it ended with {status}: {complaint}")]
    Failed { status: ExitStatus, complaint: String },
    #[error(transparent)]
    Late(#[from] DeadlineExceeded),
    #[error("its output: {0}")]
    Prometheus(#[from] BadAnswer),
    #[error("its output: {0}")]
    Influx(#[from] BadLines),
}

impl Exec {
    #[must_use]
    pub fn new(settings: &ExecSettings, listener: Listener) -> Self {
        Self { settings: settings.clone(), listener }
    }

    async fn run(&self) -> Result<Vec<u8>, RunError> {
        let mut words = self.settings.command.iter();
        let mut command = Command::new(words.next().map_or("", String::as_str));
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(RunError::Start)?;
        let mut group = Group { child, over: false };
        let (stdout, stderr) = (group.child.stdout.take(), group.child.stderr.take());
        let most = self.settings.output_bytes_max.get();
        let (output, complaint) =
            tokio::join!(all_of(stdout, most), first_of(stderr, COMPLAINT_BYTES_MAX));
        let output = output?;
        let status = group.child.wait().await.map_err(RunError::Read)?;
        group.over = true;
        match status.success() {
            true => Ok(output),
            false => Err(RunError::Failed { status, complaint }),
        }
    }

    fn take(&self, output: &[u8], ts_ms: i64, out: &mut Pack) -> Result<(), RunError> {
        match self.settings.format {
            ExecFormat::Statsd => self.listener.take(output),
            ExecFormat::Influx => {
                line_protocol::read(output, Precision::Nanoseconds, ts_ms, out)?;
            }
            ExecFormat::Prometheus => {
                let limits = Limits {
                    samples: limits::BATCH_POINTS_MAX,
                    labels: limits::LABELS_MAX,
                    label_value_bytes: limits::LABEL_VALUE_BYTES_MAX,
                };
                let own: Vec<_> = self.settings.labels.keys().map(String::as_str).collect();
                let mut answer = Answer::new(out, ts_ms, limits, &own);
                answer.feed(output)?;
                answer.finish(false)?;
            }
        }
        Ok(())
    }
}

/// A child and all that it started; killed unless it is over.
struct Group {
    child: Child,
    over: bool,
}

impl Drop for Group {
    fn drop(&mut self) {
        // Not reaped yet, so its number is still its own. tokio reaps it afterwards.
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| !self.over)
            && let Err(cause) = kill_process_group(pid, Signal::KILL)
        {
            tracing::debug!(%cause, "a command's process group was gone already");
        }
    }
}

/// Everything it writes, unless that is too much.
async fn all_of(from: Option<impl AsyncRead + Unpin>, most: u64) -> Result<Vec<u8>, RunError> {
    let mut output = Vec::new();
    let Some(from) = from else { return Ok(output) };
    let read = from.take(most + 1).read_to_end(&mut output).await;
    read.map_err(RunError::Read)?;
    match output.len() as u64 > most {
        true => Err(RunError::TooMuch(most)),
        false => Ok(output),
    }
}

/// The beginning of what it writes; the rest is read as well, so that it never has to wait.
async fn first_of(from: Option<impl AsyncRead + Unpin>, most: usize) -> String {
    let (mut first, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
    let Some(mut from) = from else { return String::new() };
    while let Ok(bytes @ 1..) = from.read(&mut piece).await {
        let room = most.saturating_sub(first.len()).min(bytes);
        first.extend_from_slice(piece.get(..room).unwrap_or_default());
    }
    String::from_utf8_lossy(&first).trim().replace('\n', " ")
}

#[async_trait]
impl Source for Exec {
    fn name(&self) -> String {
        format!("exec {}", self.settings.shown())
    }

    fn input(&self) -> &'static str {
        "exec"
    }

    fn pace(&self) -> Pace {
        Pace { interval: self.settings.interval.get(), deadline: self.settings.timeout.get() }
    }

    fn labels(&self) -> Labels {
        self.settings.labels.iter().map(|(k, v)| (k.clone().into(), v.clone())).collect()
    }

    async fn read(&mut self, ts_ms: i64, out: &mut Pack) -> Result<(), ReadError> {
        let deadline = self.settings.timeout.get();
        let output = within(deadline, self.run()).await.map_err(RunError::from)??;
        Ok(self.take(&output, ts_ms, out)?)
    }

    fn after(&mut self, done: Done, out: &mut Pack) {
        let command = self.settings.shown();
        let labels = [("command".into(), command.as_str().into())];
        let facts = [
            ("exec.up", "1", f64::from(u8::from(done.ok))),
            ("exec.run_seconds", "seconds", done.took.as_secs_f64()),
        ];
        for (metric, unit, value) in facts {
            let (kind, ts_ms, labels) = (Kind::Gauge, done.ts_ms, &labels);
            if let Err(cause) = out.push(&Sample { metric, labels, kind, unit, ts_ms, value }) {
                tracing::debug!(%cause, metric, "no room to say how a run went");
            }
        }
    }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
