//! No remote call waits for ever: every await on something outside goes through [`within`].

use std::future::Future;
use std::time::Duration;

/// The time was up before an answer came; what was asked for may have happened all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {after:?}")]
pub struct DeadlineExceeded {
    pub after: Duration,
}

/// Waits for `work`, and drops it when `limit` has passed.
pub async fn within<T>(
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, DeadlineExceeded> {
    let late = |_| DeadlineExceeded { after: limit };
    tokio::time::timeout(limit, work).await.map_err(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_never_answers_ends_at_the_deadline() {
        let limit = Duration::from_secs(3);
        let late = within(limit, std::future::pending::<()>()).await;
        assert_eq!(late, Err(DeadlineExceeded { after: limit }));
        assert_eq!(within(limit, async { 7 }).await, Ok(7));
    }
}
