//! What happened, in order: a digest of everything, and the last lines for whoever has to find
//! out why a seed fails. Two runs of one seed have one history, or the simulation is none.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Lines kept for a failure's report.
const LINES_KEPT: usize = 400;

/// The history of one simulation.
#[derive(Debug)]
pub struct History {
    began: Instant,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    digest: u64,
    events: u64,
    lines: VecDeque<String>,
}

impl Default for History {
    fn default() -> Self {
        Self { began: Instant::now(), told: Mutex::default() }
    }
}

impl History {
    /// Adds an event at the simulation's present moment.
    pub fn note(&self, event: fmt::Arguments<'_>) {
        let line = format!("{:>9.3} s  {event}", self.began.elapsed().as_secs_f64());
        let mut told = self.told();
        told.digest = xxh3_64_with_seed(line.as_bytes(), told.digest);
        told.events += 1;
        if told.lines.len() == LINES_KEPT {
            told.lines.pop_front();
        }
        told.lines.push_back(line);
    }

    /// Of all events.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.told().digest
    }

    #[must_use]
    pub fn events(&self) -> u64 {
        self.told().events
    }

    /// The last lines.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        self.told().lines.iter().cloned().collect()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a line to a history.
#[macro_export]
macro_rules! note {
    ($history:expr, $($told:tt)*) => { $history.note(format_args!($($told)*)) };
}
