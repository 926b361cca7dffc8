//! The registry of a program's metrics, named `spillway_<program>_<noun>_<unit>[_total]`.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// A handle on the program's one registry. Clones share it.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// The prefix is `spillway_` and the first word of `program`.
    pub fn new(program: &str, version: &str) -> Self {
        let word = program.split('-').next().unwrap_or(program);
        let mut registry = Registry::with_prefix(format!("spillway_{word}"));
        let build = Info::new(vec![("version", version.to_owned())]);
        registry.register("build", "The version that runs", build);
        let started: Gauge = Gauge::default();
        started.set(jiff::Timestamp::now().as_second());
        let help = "When the process started, in Unix time";
        registry.register("start_time_seconds", help, started);
        Self { registry: Arc::new(Mutex::new(registry)) }
    }

    /// Registers metrics; names without prefix and, for counters, without `_total`.
    pub fn register<R>(&self, register: impl FnOnce(&mut Registry) -> R) -> R {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All metrics as OpenMetrics text, which Prometheus reads.
    pub fn encode(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        // Writing into a String cannot fail; a broken collector leaves the text short, not us down.
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &registry) {
            tracing::error!(%error, "metrics could not be encoded in full");
        }
        text
    }
}
