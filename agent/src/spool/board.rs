//! The spool's totals, and who is to be woken when they change. A `tokio::sync::watch` would do,
//! but it wakes those who wait in a random order, which no simulation's seed could decide.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::SpoolTotals;

/// Where the totals are put up.
#[derive(Debug)]
pub struct Board {
    posted: Mutex<Posted>,
    news: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Posted {
    totals: SpoolTotals,
    /// Rises with each posting that is news.
    version: u64,
}

impl Board {
    pub fn new(totals: SpoolTotals) -> Arc<Self> {
        let posted = Mutex::new(Posted { totals, version: 0 });
        Arc::new(Self { posted, news: Notify::new() })
    }

    pub fn totals(&self) -> SpoolTotals {
        self.posted().totals
    }

    /// Puts them up; those who wait are woken if it is `news`.
    pub fn post(&self, totals: SpoolTotals, news: bool) {
        {
            let mut posted = self.posted();
            posted.totals = totals;
            posted.version += u64::from(news);
        }
        if news {
            self.news.notify_waiters();
        }
    }

    pub fn subscribe(self: &Arc<Self>) -> Changes {
        Changes { seen: self.posted().version, board: Arc::clone(self) }
    }

    fn posted(&self) -> MutexGuard<'_, Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes whenever something came, went or was given back.
#[derive(Clone, Debug)]
pub struct Changes {
    board: Arc<Board>,
    seen: u64,
}

impl Changes {
    /// What has changed so far is known.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.board.posted().version;
    }

    /// Whether anything changed that is not known yet.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.board.posted().version != self.seen
    }

    /// Waits for a change that is not known yet; then it is.
    pub async fn changed(&mut self) {
        self.until_news().await;
        self.mark_unchanged();
    }

    /// Waits until `is` is true of the totals.
    pub async fn wait_for(&mut self, mut is: impl FnMut(&SpoolTotals) -> bool) -> SpoolTotals {
        loop {
            self.mark_unchanged();
            let totals = self.board.totals();
            if is(&totals) {
                return totals;
            }
            self.until_news().await;
        }
    }

    async fn until_news(&self) {
        let mut news = pin!(self.board.news.notified());
        // In line before the look, or news between look and wait would be missed.
        news.as_mut().enable();
        if !self.has_changed() {
            news.await;
        }
    }
}
