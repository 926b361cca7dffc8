//! The status page: each hop's rate and what it holds, each environment's freshness and gaps.
//! "Delayed" (it is on its way) and "lost" (it will not come) are never one word.

pub mod metrics_text;
pub mod gather;
pub mod snapshot;
pub mod page;
pub mod serve;

use crate::answer::Answer;
use crate::desk::Desk;
use crate::failure::Failure;

/// The page's content once, for a terminal; rates need two looks.
pub async fn show(desk: &Desk) -> Result<Answer, Failure> {
    let mut gatherer = gather::Gatherer::new(&desk.settings)?;
    gatherer.look().await;
    tokio::time::sleep(desk.settings.status.refresh.get()).await;
    Ok(gatherer.look().await.to_answer())
}
