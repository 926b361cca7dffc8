//! A whole pipeline on this machine: real servers and our own programs, each on free ports of
//! 127.0.0.1, with all data in one folder and a log file each. Made for tests and for developers'
//! commands; whatever way it ends, no process stays behind.

pub mod dir;
mod file;
mod options;
mod ready;
mod servers;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};

pub use self::file::{ProcessEntry, StackFile, exec};
pub use self::options::{ENVIRONMENTS, StackOptions};
pub use self::servers::{BUCKET, Servers};

use self::dir::StackDir;
use self::ready::Ready;
use self::servers::Plan;
use crate::artifacts::{self, Artifacts};
use crate::binaries;
use crate::error::StackError;
use crate::process::{Process, ProcessSpec};
use crate::progress::Progress;

/// A server that is asked to end gets this long before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

pub struct Stack {
    /// In starting order; stopped in reverse.
    members: Mutex<Vec<Member>>,
    servers: Servers,
    xtask: PathBuf,
    progress: Progress,
    dir: StackDir,
}

struct Member {
    spec: ProcessSpec,
    ready: Ready,
    process: Option<Arc<Process>>,
}

impl Stack {
    /// Fetches what is missing, starts everything and waits until it works.
    pub async fn start(options: StackOptions) -> Result<Self, StackError> {
        let progress = options.progress.clone();
        let telling = progress.clone();
        let artifacts =
            blocking(move || Artifacts::fetch(&artifacts::cache_dir(), &telling)).await?;
        let telling = progress.clone();
        let xtask = blocking(move || binaries::xtask(&telling)).await?;
        let dir = StackDir::open(options.dir.as_deref())?;
        progress.tell(&format!("starting servers in {}", dir.root().display()));
        let servers = Servers::lay_out(&options, &dir)?;
        servers.prepare(&artifacts, &dir).await?;
        let plans = servers.plans(&artifacts, &dir, &xtask);
        let stack = Self { members: Mutex::default(), servers, xtask, progress, dir };
        stack.start_together(plans).await?;
        for server in &stack.servers.mysql {
            server.follow().await?;
        }
        stack.write_file()?;
        Ok(stack)
    }

    /// Starts all, then waits for each.
    async fn start_together(&self, plans: Vec<Plan>) -> Result<(), StackError> {
        let mut started = Vec::new();
        for Plan { spec, ready } in plans {
            self.dir.write_spec(&spec)?;
            let process = self.spawn(&spec)?;
            started.push((ready.clone(), Arc::clone(&process)));
            self.lock().push(Member { spec, ready, process: Some(process) });
        }
        for (ready, process) in started {
            let took = ready.wait(&process).await?;
            self.progress.tell(&format!("{} is ready ({took:.1?})", process.spec().name));
        }
        Ok(())
    }

    fn spawn(&self, spec: &ProcessSpec) -> Result<Arc<Process>, StackError> {
        let process = Process::start(spec.clone())?;
        self.dir.write_pid(&spec.name, process.pid())?;
        Ok(Arc::new(process))
    }

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

    #[must_use]
    pub fn is_running(&self, name: &str) -> bool {
        self.running(name).is_ok_and(|p| p.exit_status().is_none())
    }

    pub fn log_path(&self, name: &str) -> Result<PathBuf, StackError> {
        self.member(name, |m| m.spec.log.clone())
    }

    #[must_use]
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.root()
    }

    fn running(&self, name: &str) -> Result<Arc<Process>, StackError> {
        self.member(name, |m| m.process.clone())?
            .ok_or_else(|| StackError::Refused { what: format!("{name} was never started") })
    }

    fn member<T>(&self, name: &str, take: impl FnOnce(&mut Member) -> T) -> Result<T, StackError> {
        let mut members = self.lock();
        if let Some(member) = members.iter_mut().find(|m| m.spec.name == name) {
            return Ok(take(member));
        }
        let known: Vec<_> = members.iter().map(|m| m.spec.name.as_str()).collect();
        Err(StackError::UnknownProcess { name: name.into(), known: known.join(", ") })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends everything in order: what feeds before what is fed. Blocks.
    pub fn stop(&mut self) {
        let members = std::mem::take(&mut *self.lock());
        let running: Vec<_> = members.iter().filter_map(|m| m.process.as_ref()).rev().collect();
        for process in &running {
            // A frozen process takes no SIGTERM before it is thawed.
            for signal in [Signal::CONT, Signal::TERM] {
                if let Err(error) = process.signal(signal) {
                    tracing::warn!(%error, "stopping");
                }
            }
        }
        let until = std::time::Instant::now() + STOP_DEADLINE;
        for process in &running {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if process.wait_blocking(left).is_none() {
                process.kill_blocking();
            }
        }
        for member in &members {
            self.kill_stranger(&member.spec.name);
        }
    }

    /// What somebody else started again with our `restart` command is ours to stop as well.
    fn kill_stranger(&self, name: &str) {
        let Some(pid) = self.dir.living_pid(name).and_then(Pid::from_raw) else { return };
        if let Err(error) = rustix::process::kill_process(pid, Signal::KILL) {
            tracing::warn!(name, %error, "killing what was restarted by hand");
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            self.dir.keep();
        }
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StackError> + Send + 'static,
) -> Result<T, StackError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(StackError::Refused { what: e.to_string() }))
}
