//! Child processes that never outlive us. Each gets a process group of its own, a log file, and
//! SIGKILL from the kernel should we die in whatever way (PR_SET_PDEATHSIG). That signal fires when
//! the *thread* that started the child ends, so one thread that lives as long as the process does
//! all the starting. Dropping a [`Process`] kills it.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};

use crate::error::StackError;

/// SIGKILL needs no help from the process, only from the kernel: more than this is a stuck machine.
const KILL_DEADLINE: Duration = Duration::from_secs(20);
const LOG_TAIL_BYTES: u64 = 4_096;
/// Whoever starts a child waits for it, so the queue is as long as there are threads doing so.
const START_QUEUE: usize = 16;

/// Everything needed to start a process, and to start it again in the same place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessSpec {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Added to our own environment. No secrets: what is started is also written to the run file.
    pub env: Vec<(String, String)>,
    pub cwd: PathBuf,
    /// Standard output and error are appended here.
    pub log: PathBuf,
}

impl ProcessSpec {
    /// A command that appends to the log and reads nothing.
    pub fn command(&self) -> Result<Command, StackError> {
        let what = || format!("opening {}", self.log.display());
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(StackError::io(what()))?;
        let errors = log.try_clone().map_err(StackError::io(what()))?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir(&self.cwd);
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        Ok(command)
    }

    /// The end of the log, for error messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }
}

/// The last few kilobytes of a log; an unreadable log is an empty one.
#[must_use]
pub fn log_tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(log)?;
        let from = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// One start of a [`ProcessSpec`].
#[derive(Debug)]
pub struct Process {
    spec: ProcessSpec,
    pid: Pid,
    exit: Arc<Exit>,
}

#[derive(Debug, Default)]
struct Exit {
    status: Mutex<Option<ExitStatus>>,
    ended: Condvar,
}

impl Exit {
    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    pub fn start(spec: ProcessSpec) -> Result<Self, StackError> {
        let name = spec.name.clone();
        let child = start_from_lasting_thread(spec.command()?)
            .map_err(StackError::io(format!("starting {name} ({})", spec.program.display())))?;
        let pid = Pid::from_child(&child);
        let exit = Arc::new(Exit::default());
        let seen = Arc::clone(&exit);
        std::thread::Builder::new()
            .name(format!("wait-{name}"))
            .spawn(move || wait_for(child, pid, &seen))
            .map_err(StackError::io(format!("starting the thread that waits for {name}")))?;
        Ok(Self { spec, pid, exit })
    }

    #[must_use]
    pub fn spec(&self) -> &ProcessSpec {
        &self.spec
    }

    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.exit.lock()
    }

    /// To the whole group, unless the process is gone: its number might be another's by now.
    pub fn signal(&self, signal: Signal) -> Result<(), StackError> {
        let exited = self.exit.lock();
        if exited.is_some() {
            return Ok(());
        }
        rustix::process::kill_process_group(self.pid, signal)
            .map_err(|e| StackError::io(format!("signalling {}", self.spec.name))(e.into()))
    }

    /// Blocks up to `deadline`; `None` when it still runs then.
    #[must_use]
    pub fn wait_blocking(&self, deadline: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + deadline;
        let mut status = self.exit.lock();
        while status.is_none() {
            let left = until.checked_duration_since(Instant::now())?;
            let waited = self.exit.ended.wait_timeout(status, left);
            status = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *status
    }

    /// The same without blocking the runtime.
    pub async fn wait(&self, deadline: Duration) -> Option<ExitStatus> {
        const STEP: Duration = Duration::from_millis(10);
        let until = tokio::time::Instant::now() + deadline;
        loop {
            let status = self.exit_status();
            if status.is_some() || tokio::time::Instant::now() >= until {
                return status;
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// SIGKILL, and wait until the kernel has taken it away.
    pub async fn kill(&self) -> Result<ExitStatus, StackError> {
        self.signal(Signal::KILL)?;
        self.wait(KILL_DEADLINE).await.ok_or_else(|| StackError::Refused {
            what: format!("{} is still there {KILL_DEADLINE:?} after SIGKILL", self.spec.name),
        })
    }

    pub fn kill_blocking(&self) {
        let killed = self.signal(Signal::KILL);
        if killed.is_err() || self.wait_blocking(KILL_DEADLINE).is_none() {
            tracing::error!(name = self.spec.name, pid = self.pid(), "could not be killed");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_blocking();
    }
}

fn wait_for(mut child: Child, pid: Pid, exit: &Exit) {
    // First without reaping: as long as the zombie is there its pid is nobody else's, and whoever
    // signals holds the lock that we take before reaping.
    if let Err(error) =
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
    {
        tracing::debug!(%error, "waitid");
    }
    let mut status = exit.lock();
    match child.wait() {
        Ok(ended) => *status = Some(ended),
        Err(error) => tracing::error!(%error, "waiting for a child"),
    }
    exit.ended.notify_all();
}

struct StartJob {
    command: Command,
    reply: mpsc::SyncSender<std::io::Result<Child>>,
}

pub(crate) fn start_from_lasting_thread(command: Command) -> std::io::Result<Child> {
    static STARTER: LazyLock<Mutex<mpsc::SyncSender<StartJob>>> = LazyLock::new(|| {
        let (jobs, inbox) = mpsc::sync_channel::<StartJob>(START_QUEUE);
        let loop_over_jobs = move || {
            for mut job in inbox {
                bind_to_our_life(&mut job.command);
                if job.reply.send(job.command.spawn()).is_err() {
                    tracing::error!("nobody waits for a child that was just started");
                }
            }
        };
        let started = std::thread::Builder::new().name("starter".into()).spawn(loop_over_jobs);
        if let Err(error) = started {
            tracing::error!(%error, "no thread to start children from");
        }
        Mutex::new(jobs)
    });
    let gone = || std::io::Error::other("the thread that starts children is gone");
    let (reply, answer) = mpsc::sync_channel(1);
    let jobs = STARTER.lock().unwrap_or_else(PoisonError::into_inner);
    jobs.send(StartJob { command, reply }).map_err(|_| gone())?;
    drop(jobs);
    answer.recv().map_err(|_| gone())?
}

/// The child leads a group of its own (so that a terminal's Ctrl-C reaches us alone and we stop
/// things in order) and is killed by the kernel when our starter thread is no more.
fn bind_to_our_life(command: &mut Command) {
    let us = rustix::process::getpid();
    command.process_group(0);
    let die_with_us = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // We may have died between fork and prctl; then nobody would send that signal any more.
        if rustix::process::getppid() != Some(us) {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: the closure runs in the forked child before exec and makes two plain system calls; it
    // neither allocates nor takes a lock, which is what `pre_exec` asks for.
    #[expect(unsafe_code, reason = "the one place: no safe way sets the parent-death signal")]
    unsafe {
        command.pre_exec(die_with_us);
    }
}
