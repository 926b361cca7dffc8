//! The spool without its thread: a simulation decides when it works, and on which disk.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use spillway_proto::BatchId;
use tokio::time::timeout;

use super::disk::Disk;
use super::store::Store;
use super::thread::{self, CloseOnDrop, Keeper, Shared, TICK};
use super::{OpenError, Opened, Spool, limits_of};
use crate::metrics::Metrics;
use crate::settings::Settings;

/// What the spool's thread would do.
pub struct SpoolTask<D: Disk>(Keeper<D>);

impl<D: Disk> SpoolTask<D> {
    /// Waits until there is something to do.
    pub async fn wait(&self) {
        let told = self.0.shared.told.notified();
        let _tick = timeout(TICK, told).await.is_err();
    }

    /// Does it. Gives itself back, unless the spool is closed.
    #[must_use]
    pub fn turn(mut self) -> Option<Self> {
        let work = self.0.shared.work();
        if !self.0.turn(work) {
            return Some(self);
        }
        let shared = Arc::clone(&self.0.shared);
        self.0.close();
        shared.ended.send_replace(true);
        None
    }
}

impl Spool {
    /// Opens the spool on this disk.
    ///
    /// # Errors
    /// The disk can't be listed.
    pub fn simulated<D: Disk>(
        settings: &Settings,
        disk: D,
        metrics: &Metrics,
        elsewhere: &HashSet<BatchId>,
    ) -> Result<(Opened, SpoolTask<D>), OpenError> {
        let (clock, limits) = (thread::Clock::start(), limits_of(settings));
        let opened = Store::open(Some(disk), limits, metrics.clone(), clock.now_ms(), elsewhere);
        let unusable = |source| OpenError::Directory { dir: Path::new("spool").into(), source };
        let (store, found) = opened.map_err(unusable)?;
        let shared = Arc::new(Shared::new(store.totals(), metrics.clone()));
        let task = SpoolTask(Keeper::new(store, clock, Arc::clone(&shared)));
        let open = Arc::new(CloseOnDrop(Arc::clone(&shared)));
        Ok((Opened { spool: Self { shared, _open: open }, found }, task))
    }
}
