//! `strace` as the hand that kills, or fails a system call.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What the nth call meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed as it enters the call.
    Kill,
    Eio,
    Enospc,
}

impl Fault {
    fn injected(self) -> &'static str {
        match self {
            Self::Kill => "signal=KILL",
            Self::Eio => "error=EIO",
            Self::Enospc => "error=ENOSPC",
        }
    }
}

/// A running strace; dropping it lets its process go on, or ends what it started.
pub struct Strace {
    child: Child,
    log: tempfile::NamedTempFile,
    owns_process: bool,
}

impl Strace {
    /// Takes hold of every thread of a running process, before this returns.
    pub async fn attach(pid: i32, call: &str, fault: Fault, nth: u32) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file for strace");
        let mut command = strace(log.path(), call, fault, nth);
        command.args(["-p", &pid.to_string()]).stderr(Stdio::piped());
        let waited = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("strace is installed (apt install strace)");
            let told = BufReader::new(child.stderr.take().expect("it is piped")).lines();
            let attached = told.map_while(Result::ok).find(|line| line.contains("attached"));
            assert!(attached.is_some(), "strace did not attach; may this user trace processes?");
            child
        });
        Self { child: waited.await.expect("strace starts"), log, owns_process: false }
    }

    /// Starts `command` under strace; it dies with strace.
    pub fn start(command: &[String], call: &str, fault: Fault, nth: u32) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file for strace");
        let mut strace = strace(log.path(), call, fault, nth);
        strace.args(["setpriv", "--pdeathsig", "KILL"]).args(command);
        strace.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = strace.spawn().expect("strace is installed (apt install strace)");
        Self { child, log, owns_process: true }
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Whether the call came.
    pub fn has_injected(&self) -> bool {
        let log = std::fs::read_to_string(self.log.path()).unwrap_or_default();
        log.contains("(INJECTED)") || log.contains("+++ killed")
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // SIGTERM makes it let go; SIGKILL to the group ends what it started as well.
        let (signal, whom) = match self.owns_process {
            true => ("-KILL", format!("-{}", self.child.id())),
            false => ("-TERM", self.child.id().to_string()),
        };
        let sent = Command::new("kill").args([signal, "--", &whom]).stderr(Stdio::null()).status();
        if sent.is_ok() {
            let _gone = self.child.wait().is_ok();
        }
    }
}

fn strace(log: &Path, call: &str, fault: Fault, nth: u32) -> Command {
    let inject = format!("inject={call}:{}:when={nth}", fault.injected());
    let mut command = Command::new("strace");
    command.arg("-f").args(["-e", &format!("trace={call}"), "-e", &inject, "-o"]).arg(log);
    command
}
