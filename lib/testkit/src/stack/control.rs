//! What a test or a developer does to the processes of a stack.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::Stack;
use crate::error::StackError;
use crate::process::ProcessSpec;

impl Stack {
    /// SIGKILL, as a machine that loses power; returns when it is gone.
    pub async fn kill(&self, name: &str) -> Result<(), StackError> {
        self.running(name)?.kill().await.map(|_| ())
    }

    /// SIGSTOP: the process is there and says nothing.
    pub fn freeze(&self, name: &str) -> Result<(), StackError> {
        self.running(name)?.signal(Signal::STOP)
    }

    pub fn thaw(&self, name: &str) -> Result<(), StackError> {
        self.running(name)?.signal(Signal::CONT)
    }

    /// SIGTERM; the exit code once it has ended, `None` if a signal ended it.
    pub async fn terminate(
        &self,
        name: &str,
        deadline: Duration,
    ) -> Result<Option<i32>, StackError> {
        let process = self.running(name)?;
        process.signal(Signal::TERM)?;
        let status = process.wait(deadline).await.ok_or_else(|| StackError::Refused {
            what: format!("{name} still runs {deadline:?} after SIGTERM"),
        })?;
        Ok(status.code())
    }

    /// Any other signal (SIGHUP, SIGUSR1, …).
    pub fn signal(&self, name: &str, signal: Signal) -> Result<(), StackError> {
        self.running(name)?.signal(signal)
    }

    /// Starts a process that was killed or terminated; returns when it is ready.
    pub async fn start_process(&self, name: &str) -> Result<(), StackError> {
        let (spec, ready) = self.member(name, |m| (m.spec.clone(), m.ready.clone()))?;
        if self.member(name, |m| m.process.as_ref().is_some_and(|p| p.exit_status().is_none()))? {
            return Err(StackError::Refused { what: format!("{name} is already running") });
        }
        let process = self.spawn(&spec)?;
        self.member(name, |m| m.process = Some(Arc::clone(&process)))?;
        ready.wait(&process).await.map(|_| ())
    }

    /// Waits for a process to end by itself.
    pub async fn wait_exit(
        &self,
        name: &str,
        deadline: Duration,
    ) -> Result<ExitStatus, StackError> {
        self.running(name)?.wait(deadline).await.ok_or_else(|| StackError::Refused {
            what: format!("{name} still runs after {deadline:?}"),
        })
    }

    /// Takes a variable from a process' environment, from its next start on.
    pub fn clear_env(&self, name: &str, key: &str) -> Result<(), StackError> {
        self.respec(name, |spec| spec.env.retain(|(name, _)| name != key))
    }

    /// Changes how a process is started, from its next start on: another binary, or the same one
    /// under a tool that wraps it.
    pub fn respec(
        &self,
        name: &str,
        change: impl FnOnce(&mut ProcessSpec),
    ) -> Result<(), StackError> {
        let spec = self.member(name, |m| {
            change(&mut m.spec);
            m.spec.clone()
        })?;
        self.dir.write_spec(&spec)
    }

    /// The process' number, for tools that attach to it.
    pub fn pid(&self, name: &str) -> Result<i32, StackError> {
        self.running(name).map(|process| process.pid())
    }

    /// Removes the recovery workers' notes about who drains what, and what they have published.
    pub async fn forget_claims(&self) -> Result<(), StackError> {
        let claims = self.bucket_dir().join("claims");
        // Out of the way in one step: a worker may write another one meanwhile, and then a folder
        // that is being emptied would never be empty.
        let forgotten = self.dir.data("forgotten-claims");
        match fs::rename(&claims, &forgotten) {
            Ok(()) => fs::remove_dir_all(&forgotten)
                .map_err(StackError::io(format!("removing {}", forgotten.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(StackError::io(format!("moving {}", claims.display()))(e)),
        }
    }

    #[must_use]
    pub fn is_running(&self, name: &str) -> bool {
        self.running(name).is_ok_and(|p| p.exit_status().is_none())
    }

    pub fn log_path(&self, name: &str) -> Result<PathBuf, StackError> {
        self.member(name, |m| m.spec.log.clone())
    }
}
