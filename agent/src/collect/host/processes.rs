//! How many processes there are, and in which state.

use spillway_proto::Kind;

use super::super::{Input, InputError, Readings};

/// Processes looked at in one sample: a fork bomb must not become the agent's load as well.
const PROCESSES_MAX: usize = 16_384;

pub(super) struct Processes;

impl Input for Processes {
    fn name(&self) -> &'static str {
        "processes"
    }

    fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
        let (mut states, mut all, mut threads) = ([0_u32; 6], 0_u32, 0_i64);
        let processes = procfs::process::all_processes()?;
        // A process that ended between listing and reading is simply not there any more.
        let stats = processes.take(PROCESSES_MAX).filter_map(|found| found.ok()?.stat().ok());
        for stat in stats {
            all += 1;
            threads += stat.num_threads;
            if let Some(count) = states.get_mut(place(stat.state)) {
                *count += 1;
            }
        }
        out.gauge("processes.count", "1", f64::from(all));
        out.gauge("processes.threads", "1", threads as f64);
        for (state, count) in STATES.iter().zip(states) {
            let labels = [("state", *state)];
            out.labelled("processes.state", "1", Kind::Gauge, &labels, f64::from(count));
        }
        Ok(())
    }
}

const STATES: [&str; 6] = ["running", "sleeping", "blocked", "stopped", "zombie", "other"];

/// The place in [`STATES`] of proc(5)'s letter.
fn place(letter: char) -> usize {
    match letter {
        'R' => 0,
        'S' | 'I' => 1,
        'D' => 2,
        'T' | 't' => 3,
        'Z' => 4,
        _ => 5,
    }
}
