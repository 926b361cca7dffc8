//! What a program is given to run with.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use crate::admin::{Health, Metrics};
use crate::shutdown::Shutdown;

/// The process's shared handles.
#[derive(Debug, Clone)]
pub struct Context {
    /// SIGTERM and SIGINT.
    pub shutdown: Shutdown,
    /// Rises with each SIGHUP.
    pub reload: watch::Receiver<u64>,
    pub metrics: Metrics,
    pub health: Health,
    pub config_path: Option<PathBuf>,
}

impl Context {
    pub(super) fn new(
        program: &'static str,
        version: &'static str,
        drain: Duration,
        config_path: Option<PathBuf>,
    ) -> (Self, watch::Sender<u64>) {
        let (reload_sender, reload) = watch::channel(0);
        let context = Self {
            shutdown: Shutdown::new(drain),
            reload,
            metrics: Metrics::new(program, version),
            health: Health::new(program, version),
            config_path,
        };
        (context, reload_sender)
    }

    /// For tests: no signals, no admin page, ten seconds to drain.
    pub fn for_test(program: &'static str) -> Self {
        Self::new(program, "test", Duration::from_secs(10), None).0
    }
}
