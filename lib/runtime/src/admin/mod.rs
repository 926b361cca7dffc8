//! What a running program says about itself: `/livez`, `/readyz`, `/deepz`, `/metrics`.
//!
//! Liveness looks at the process only and readiness at its own start and stop, never at a
//! dependency: an outage of Kafka must not take every API server out of the load balancer (ART19).
//! `/deepz` is where each dependency is told, with its latency.

mod metrics;
mod server;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

pub use metrics::Metrics;
pub(crate) use server::serve;
pub use server::{ADMIN_CONNECTIONS_MAX, AdminError};

/// A cause longer than this is cut: `/deepz` is read by people.
const CAUSE_CHARS_MAX: usize = 512;

/// The program's state of health. Clones share it.
#[derive(Debug, Clone)]
pub struct Health {
    inner: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    program: &'static str,
    version: &'static str,
    ready: bool,
    dead: Option<String>,
    dependencies: BTreeMap<String, Look>,
}

#[derive(Debug, Clone)]
struct Look {
    at: Instant,
    result: Option<Result<Duration, String>>,
}

/// The answer of `/deepz`.
#[derive(Debug, Serialize)]
pub struct DeepReport {
    pub program: &'static str,
    pub version: &'static str,
    pub live: bool,
    pub ready: bool,
    pub dependencies: BTreeMap<String, DependencyReport>,
}

/// One dependency in `/deepz`.
#[derive(Debug, Serialize)]
pub struct DependencyReport {
    /// `ok`, `failed`, or `unknown` while nothing was tried yet.
    pub state: &'static str,
    pub latency_ms: Option<f64>,
    /// Seconds since it was last looked at.
    pub age_s: u64,
    pub error: Option<String>,
}

impl Health {
    pub fn new(program: &'static str, version: &'static str) -> Self {
        let state =
            State { program, version, ready: false, dead: None, dependencies: BTreeMap::new() };
        Self { inner: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a dependency to `/deepz`; the probe is told what each use of it brought.
    pub fn register(&self, name: &str) -> DependencyProbe {
        let unknown = Look { at: Instant::now(), result: None };
        self.state().dependencies.insert(name.to_owned(), unknown);
        DependencyProbe { health: self.clone(), name: name.into() }
    }

    /// Whether the program takes work: false while it starts and from the first signal on.
    pub fn set_ready(&self, ready: bool) {
        self.state().ready = ready;
    }

    pub fn is_ready(&self) -> bool {
        self.state().ready
    }

    /// The process cannot recover by itself and must be started anew: `/livez` says 503.
    pub fn set_dead(&self, reason: &str) {
        tracing::error!(reason, "the process cannot go on and asks to be restarted");
        self.state().dead.get_or_insert_with(|| reason.to_owned());
    }

    pub fn dead(&self) -> Option<String> {
        self.state().dead.clone()
    }

    pub fn report(&self) -> DeepReport {
        let state = self.state();
        let dependencies = state.dependencies.iter();
        DeepReport {
            program: state.program,
            version: state.version,
            live: state.dead.is_none(),
            ready: state.ready,
            dependencies: dependencies.map(|(name, look)| (name.clone(), look.report())).collect(),
        }
    }
}

impl DeepReport {
    pub fn all_ok(&self) -> bool {
        self.live && self.dependencies.values().all(|d| d.state != "failed")
    }
}

impl Look {
    fn report(&self) -> DependencyReport {
        let (state, latency, error) = match &self.result {
            None => ("unknown", None, None),
            Some(Ok(latency)) => ("ok", Some(latency.as_secs_f64() * 1e3), None),
            Some(Err(cause)) => ("failed", None, Some(cause.clone())),
        };
        DependencyReport { state, latency_ms: latency, age_s: self.at.elapsed().as_secs(), error }
    }
}

/// Tells `/deepz` how one dependency does.
#[derive(Debug, Clone)]
pub struct DependencyProbe {
    health: Health,
    name: Arc<str>,
}

impl DependencyProbe {
    pub fn ok(&self, latency: Duration) {
        self.note(Ok(latency));
    }

    pub fn failed(&self, cause: impl Display) {
        let cause = cause.to_string().chars().take(CAUSE_CHARS_MAX).collect();
        self.note(Err(cause));
    }

    fn note(&self, result: Result<Duration, String>) {
        let look = Look { at: Instant::now(), result: Some(result) };
        let mut state = self.health.state();
        match state.dependencies.get_mut(&*self.name) {
            Some(slot) => *slot = look,
            None => {
                state.dependencies.insert(self.name.to_string(), look);
            }
        }
    }
}
