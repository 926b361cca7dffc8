//! The end of a stack, in the order in which a batch travels: what feeds before what is fed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::{Member, Stack};
use crate::process::Process;

/// An ordered stop: our programs drain for up to 25 s each.
const WAVE_DEADLINE: Duration = Duration::from_secs(30);
/// A stack that is merely dropped holds nothing that anybody wants drained.
const DROP_DEADLINE: Duration = Duration::from_secs(3);

/// Who stops together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wave {
    Agents,
    Doors,
    Consumers,
    Servers,
}

impl Stack {
    /// Ends everything in order, waiting for each wave to drain. Blocks.
    pub fn stop(&mut self) {
        self.stop_within(WAVE_DEADLINE);
    }

    fn stop_within(&mut self, deadline: Duration) {
        if self.lock().is_empty() {
            return;
        }
        self.withdraw_file();
        let members = std::mem::take(&mut *self.lock());
        for wave in [Wave::Agents, Wave::Doors, Wave::Consumers, Wave::Servers] {
            let here: Vec<&Member> = members.iter().filter(|m| m.wave == wave).collect();
            let running: Vec<_> = here.iter().filter_map(|m| m.process.as_ref()).collect();
            for member in &here {
                self.signal_stranger(member, Signal::TERM);
            }
            terminate(&running, deadline);
            for member in &here {
                self.signal_stranger(member, Signal::KILL);
            }
        }
    }

    /// What somebody else started again with our `restart` command is ours to stop as well.
    fn signal_stranger(&self, member: &Member, signal: Signal) {
        let name = &member.spec.name;
        let ours = member.process.as_ref().map(|process| process.pid());
        let stranger = self.dir.living_pid(name).filter(|pid| Some(*pid) != ours);
        let Some(pid) = stranger.and_then(Pid::from_raw) else { return };
        if let Err(error) = rustix::process::kill_process(pid, signal) {
            tracing::warn!(name, %error, "stopping what was started by hand");
        }
    }
}

fn terminate(processes: &[&Arc<Process>], deadline: Duration) {
    for process in processes {
        // A frozen process takes no SIGTERM before it is thawed.
        for signal in [Signal::CONT, Signal::TERM] {
            if let Err(error) = process.signal(signal) {
                tracing::warn!(%error, "stopping");
            }
        }
    }
    let until = Instant::now() + deadline;
    for process in processes {
        let left = until.saturating_duration_since(Instant::now());
        if process.wait_blocking(left).is_none() {
            process.kill_blocking();
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.keep();
            self.stop_within(Duration::ZERO);
        } else {
            self.stop_within(DROP_DEADLINE);
        }
    }
}
