//! Errands: commands that run to their end (Maven, cargo, the console). Protected like every child,
//! and ended with all that they started when we end first: the parent-death signal reaches the
//! errand itself, but not the compilers that cargo runs; those are in its process group.

use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal};

use crate::process::start_from_lasting_thread;

/// Groups of the errands that run now.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Takes an errand off the list when it has ended.
struct Listed(Pid);

impl Listed {
    fn new(pid: Pid) -> Self {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
        Self(pid)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).retain(|pid| *pid != self.0);
    }
}

/// Ends every errand with all that it started; for the end of a command that was interrupted.
pub fn kill_all() {
    for pid in RUNNING.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Err(error) = rustix::process::kill_process_group(*pid, Signal::KILL) {
            tracing::debug!(%error, "an errand ended by itself");
        }
    }
}

/// Runs a command and collects what it prints.
pub fn output(command: &Command) -> std::io::Result<Output> {
    output_fed(command, Stdio::null())
}

/// The same for a command that reads.
pub fn output_fed(command: &Command, input: Stdio) -> std::io::Result<Output> {
    // The starter thread takes the command by value: hand it a copy that pipes its output.
    let mut piped = Command::new(command.get_program());
    piped.args(command.get_args()).stdin(input);
    piped.stdout(Stdio::piped()).stderr(Stdio::piped());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => piped.env(key, value),
            None => piped.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        piped.current_dir(dir);
    }
    let child = start_from_lasting_thread(piped)?;
    let _listed = Listed::new(Pid::from_child(&child));
    child.wait_with_output()
}

/// Runs a command on our own standard output.
pub fn status(command: Command) -> std::io::Result<ExitStatus> {
    let mut child = start_from_lasting_thread(command)?;
    let _listed = Listed::new(Pid::from_child(&child));
    child.wait()
}
