//! An ordered stop: the first signal starts the drain, a deadline ends it, a second signal ends it
//! at once (see `program`).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The process's wish to stop, shared by all its parts.
#[derive(Debug, Clone)]
pub struct Shutdown {
    token: CancellationToken,
    began: Arc<OnceLock<Instant>>,
    drain: Duration,
}

impl Shutdown {
    /// `drain` is how long all parts together may take once the stop has begun.
    pub fn new(drain: Duration) -> Self {
        Self { token: CancellationToken::new(), began: Arc::default(), drain }
    }

    pub fn requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns once the stop has begun.
    pub async fn wait(&self) {
        self.token.cancelled().await;
    }

    /// A child of the process's token: cancelled with it, and may be cancelled alone.
    pub fn token(&self) -> CancellationToken {
        self.token.child_token()
    }

    /// Begins the stop; a second call changes nothing.
    pub fn trigger(&self) {
        self.began.get_or_init(Instant::now);
        self.token.cancel();
    }

    /// The moment at which every part must have ended. Before the stop has begun: counted from now.
    pub fn drain_until(&self) -> Instant {
        *self.began.get().unwrap_or(&Instant::now()) + self.drain
    }

    /// What is left of the drain's time.
    pub fn remaining(&self) -> Duration {
        self.drain_until().saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_drain_deadline_counts_from_the_first_request() {
        let shutdown = Shutdown::new(Duration::from_secs(25));
        let child = shutdown.token();
        assert!(!shutdown.requested());
        shutdown.trigger();
        child.cancelled().await;
        shutdown.wait().await;
        tokio::time::advance(Duration::from_secs(10)).await;
        shutdown.trigger();
        assert_eq!(shutdown.remaining(), Duration::from_secs(15));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(shutdown.remaining(), Duration::ZERO);
    }
}
